"""Whoever waits has a turn; how many at once is bounded."""

from __future__ import annotations

from replica.consensus.turns import Turns


def test_few_all_have_their_turn_each_time() -> None:
    turns = Turns()
    assert [list(turns.take("abc", 3)) for _ in range(2)] == [list("abc"), list("abc")]
    assert not turns.take("", 3)


def test_many_take_turns_and_nobody_is_left_out() -> None:
    turns, waiting = Turns(), range(10)
    taken = [list(turns.take(waiting, 4)) for _ in range(5)]
    assert taken[:3] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    assert all(len(some) == 4 for some in taken)
    assert sorted(one for some in taken for one in some) == sorted([*waiting] * 2)


def test_who_found_a_leader_makes_room() -> None:
    turns, waiting = Turns(), [*range(10)]
    served: set[int] = set()
    while waiting:
        some = turns.take(waiting, 4)
        served.update(some)
        waiting = [one for one in waiting if one not in some]
    assert served == set(range(10))
