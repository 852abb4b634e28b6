"""Who may vote: promises remembered by others against what a member's disk shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.consensus.hello import (
    MEMBERS_MAX,
    RIGHTS,
    STANDING_MOVES,
    Memory,
    Promise,
    Recall,
    Saved,
    Standing,
    acknowledged,
    covers,
    hard_at_start,
    hard_when_fed,
    heard_enough,
    judge,
    others_that_must_know,
)
from replica.consensus.port import HardState
from replica.model.errors import Code, InvariantBroken, ZaibeiError

ABC = (frozenset({1, 2, 3}), frozenset[int]())
SHOWN = Saved(term=5, last=100, last_term=5)
numbers = st.integers(0, 5)
promises = st.builds(Promise, numbers, numbers, numbers)


def recall(start: Saved = SHOWN, rows: tuple[tuple[int, Promise], ...] = (), **more: object) -> Recall:
    return Recall(1, 4, start, Memory(rows), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (Promise(4, 5, 100), ""),
        (Promise(4, 5, 101), "acknowledged entry 101"),
        (Promise(4, 6, 0), "term 6"),
        (Promise(5, 1, 0), "boot 5"),
        (Promise(0, 4, 900), ""),  # of a lower term: it may have been overwritten since
    ],
)
def test_a_disk_is_judged_by_what_others_remember(told: Promise, found: str) -> None:
    reason = judge(told, SHOWN.shown(4))
    assert found in reason and bool(reason) == bool(found)


def test_a_longer_log_that_ends_in_an_older_term_proves_nothing() -> None:
    assert judge(Promise(4, 5, 60), Saved(5, 90, 4).shown(4))
    assert not judge(Promise(4, 5, 0), Saved(5, 90, 4).shown(4))


def test_only_entries_of_the_own_term_are_promised() -> None:
    assert acknowledged(2, 5, 70, first_of_term=60) == Promise(2, 5, 70)
    assert acknowledged(2, 5, 59, first_of_term=60) == Promise(2, 5, 0)


@given(promises, promises, promises)
def test_joining_promises_is_an_order_of_no_matter(one: Promise, two: Promise, three: Promise) -> None:
    assert one.joined(two) == two.joined(one)
    assert one.joined(two).joined(three) == one.joined(two.joined(three))
    assert one.joined(one) is one


@pytest.mark.parametrize(
    ("heard", "halves", "enough"),
    [
        ({2}, ABC, True),
        (set(), ABC, False),
        (set(), (frozenset({1}), frozenset()), True),
        ({2, 3}, (frozenset({1, 2, 3}), frozenset({1, 4, 5})), False),
        ({2, 4}, (frozenset({1, 2, 3}), frozenset({1, 4, 5})), True),
        ({2}, (frozenset({2, 3, 4}), frozenset()), False),  # a learner is no part of the quorum itself
        ({2, 3}, (frozenset(), frozenset()), False),
    ],
)
def test_a_quorum_of_hellos_in_each_half(heard: set[int], halves: tuple[frozenset[int], frozenset[int]], enough: bool) -> None:
    assert heard_enough(1, heard, halves) is enough


@pytest.mark.parametrize("voters", [1, 2, 3, 4, 5, 6, 7])
def test_every_quorum_holds_one_that_knows(voters: int) -> None:
    others_in_quorum = voters // 2
    ignorant = (voters - 1) - others_that_must_know(voters)
    assert ignorant < max(others_in_quorum, 1)
    assert ignorant == max(others_in_quorum - 1, ignorant if voters == 1 else 0)


def test_nobody_votes_before_a_quorum_was_heard() -> None:
    mine = recall()
    assert (mine.standing, mine.rights.vote, mine.rights.acknowledge) == (Standing.ASKING, False, False)
    assert mine.hello(2, (), ABC, SHOWN) is Standing.SOUND


def test_one_member_alone_asks_nobody() -> None:
    assert recall(alone=True).standing is Standing.SOUND


def test_a_hello_that_remembers_more_of_us() -> None:
    mine = recall()
    assert mine.hello(2, ((1, Promise(4, 6, 0)),), ABC, SHOWN) is Standing.AMNESIAC
    assert "term 6" in mine.reason
    assert not mine.rights.answer


def test_while_asking_the_disk_of_the_start_counts() -> None:
    mine = recall(Saved(3, 10, 3))
    assert mine.hello(2, ((1, Promise(2, 4, 0)),), ABC, Saved(9, 99, 9)) is Standing.AMNESIAC


def test_what_was_told_once_is_known_at_the_next_start() -> None:
    mine = recall()
    mine.hello(2, ((1, Promise(4, 6, 0)),), ABC, SHOWN)
    again = Recall(1, 4, SHOWN, Memory.decode(mine.memory.encode()))
    assert again.standing is Standing.AMNESIAC


def test_a_loss_that_the_journal_knows_of_is_kept_as_a_promise() -> None:
    mine = recall(Saved(5, 80, 5), lost="entries 81 to 100 are gone", flushed=100)
    assert mine.standing is Standing.AMNESIAC and mine.memory.changed
    again = Recall(1, 5, Saved(5, 90, 5), Memory.decode(mine.memory.encode()))
    assert again.standing is Standing.AMNESIAC


def test_a_later_match_table_may_remember_more() -> None:
    mine = recall(alone=True)
    assert mine.told_of_us(((1, Promise(4, 5, 100)),), SHOWN) is Standing.SOUND
    assert mine.told_of_us(((1, Promise(4, 5, 101)),), SHOWN) is Standing.AMNESIAC


def test_who_knows_no_membership_listens_and_is_no_amnesiac() -> None:
    mine = recall(Saved(0, 0, 0))
    assert mine.hello(2, (), (frozenset(), frozenset()), Saved(0, 0, 0)) is Standing.FED


def test_the_way_back() -> None:
    mine = recall()
    mine.hello(2, ((1, Promise(7, 6, 120)),), ABC, SHOWN)
    assert not mine.may_be_fed(119, 6, learner=True)
    assert not mine.may_be_fed(120, 6, learner=False)
    assert mine.may_be_fed(120, 6, learner=True)
    hard = hard_when_fed(mine.told, HardState(5, 3, 4), 1, mine.boot)
    assert (hard.term, hard.vote, hard.boot) == (6, 1, 8)
    with pytest.raises(InvariantBroken):
        mine.fed(HardState(5, 0, 9))
    mine.fed(hard)
    assert (mine.standing, mine.rights.vote, mine.boot) == (Standing.FED, True, 8)
    mine.promoted()
    assert mine.standing is Standing.SOUND


def fed_again(*told: Promise) -> Recall:
    """AMNESIAC, its journal's boot raised above all it had promised; then it is told more."""
    mine = recall()
    mine.hello(2, ((1, Promise(7, 6, 120)),), ABC, SHOWN)
    mine.raised(8)
    mine.told_of_us([(1, one) for one in told], SHOWN)
    return mine


def test_that_others_know_the_raised_boot_is_no_promise_of_an_earlier_life() -> None:
    """All calls begin anew with it: their Hellos are there before a large state was switched to."""
    assert fed_again(Promise(8, 6, 0)).above(6)
    fed_again(Promise(8, 6, 0)).fed(HardState(6, 1, 8))


def test_a_group_that_is_fed_beside_may_raise_the_boot_again() -> None:
    mine = fed_again(Promise(8, 6, 0))
    mine.raised(9)
    mine.told_of_us(((1, Promise(9, 6, 0)),), SHOWN)
    mine.fed(HardState(6, 1, 8))
    assert (mine.standing, mine.boot) == (Standing.FED, 9)


def test_more_that_comes_to_light_meanwhile_is_above_what_was_raised() -> None:
    assert not fed_again(Promise(9, 6, 0)).above(6)
    assert not fed_again(Promise(8, 7, 0)).above(6)
    late = recall()
    late.hello(2, ((1, Promise(8, 6, 120)),), ABC, SHOWN)
    late.raised(8)  # an earlier life had it: that came to light before we told anybody of ours
    assert not late.above(6)


def test_a_later_term_covers_whatever_was_acknowledged_before() -> None:
    assert covers(Promise(0, 6, 120), 90, 7)
    assert not covers(Promise(0, 6, 120), 119, 6)
    assert covers(Promise(0, 6, 120), 120, 2)


def test_a_term_without_a_vote_on_record_has_none_left() -> None:
    assert hard_at_start(HardState(4), 1).vote == 1
    assert hard_at_start(HardState(4, 3), 1).vote == 3
    assert hard_at_start(HardState(), 1) == HardState()


def test_moves_and_rights_are_whole_tables() -> None:
    assert set(RIGHTS) == set(STANDING_MOVES) == set(Standing)
    with pytest.raises(InvariantBroken):
        recall().fed(HardState(9, 1, 9))


@given(st.dictionaries(st.integers(1, 9), promises))
def test_memory_in_octets(rows: dict[int, Promise]) -> None:
    assert Memory.decode(Memory(rows.items()).encode()).rows() == tuple(sorted(rows.items()))


@pytest.mark.parametrize("octets", [b"\x02", b"\x01short", b"\x01" + bytes(32 * (MEMBERS_MAX + 1))])
def test_octets_that_are_no_memory(octets: bytes) -> None:
    with pytest.raises(ZaibeiError) as caught:
        Memory.decode(octets)
    assert caught.value.code is Code.DAMAGED


def test_memory_is_bounded_and_forgets_members_that_left() -> None:
    memory = Memory()
    assert all(memory.record(member, Promise(1, 1, 1)) for member in range(1, MEMBERS_MAX + 1))
    assert not memory.record(MEMBERS_MAX + 1, Promise(1, 1, 1))
    memory.retain({1, 2})
    assert [member for member, _ in memory.rows()] == [1, 2]
    assert memory.merge([(1, Promise(1, 1, 2)), (3, Promise(1, 0, 0))])
    assert not memory.merge([(1, Promise(1, 1, 2))])
