"""The next single action of a group's leader, case by case; whole ways are walked in test_placement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from replica.cluster.reconcile import CAUGHT_UP_ENTRIES_MAX, LEADER_SETTLED_MS, Action, Actual, Kind, Sight, next_action
from replica.cluster.state import Placement

ALL = range(1, 8)
GOOD = Sight(dict.fromkeys(ALL, 0), dict.fromkeys(ALL, LEADER_SETTLED_MS))


def actual(voters: Iterable[int], learners: Iterable[int] = (), leader: int = 1, **more: object) -> Actual:
    return replace(Actual(leader, frozenset(voters), frozenset(learners)), **more)  # type: ignore[arg-type]


def without(*down: int) -> Sight:
    return replace(GOOD, up_ms={one: LEADER_SETTLED_MS for one in ALL if one not in down})


def brief(action: Action) -> tuple[Kind, int]:
    return action.kind, action.member


W123 = Placement((1, 2, 3))


@pytest.mark.parametrize(
    ("now", "wanted", "sight", "kind", "member"),
    [
        (actual({1, 2, 3}), W123, GOOD, Kind.NOTHING, 0),
        (actual({1}), W123, GOOD, Kind.ADD_LEARNER, 2),
        (actual({1}, {2}), W123, GOOD, Kind.ADD_LEARNER, 3),
        (actual({1}, {2}), W123, without(3), Kind.NOTHING, 3),
        (actual({1}), W123, replace(GOOD, receiving=frozenset({2})), Kind.ADD_LEARNER, 3),
        (actual({1}, {2, 3}), W123, GOOD, Kind.PROMOTE, 0),
        (actual({1}, {2, 3}), W123, replace(GOOD, receiving=frozenset({3})), Kind.NOTHING, 3),
        (actual({1}, {2, 3}), W123, replace(GOOD, behind={1: 0, 2: 0}), Kind.NOTHING, 3),
        (actual({1}, {2, 3}), W123, replace(GOOD, behind={2: 0, 3: CAUGHT_UP_ENTRIES_MAX + 1}), Kind.NOTHING, 3),
        (actual({1}, {2, 3}), W123, replace(GOOD, pending=True), Kind.NOTHING, 0),
        (actual({1, 2, 3}, outgoing=frozenset({1})), W123, GOOD, Kind.NOTHING, 0),
        (actual({1, 2, 3}, outgoing=frozenset({1}), auto_leave=False), W123, GOOD, Kind.LEAVE_JOINT, 0),
        (actual({1, 2, 3}, {4}), W123, GOOD, Kind.REMOVE, 4),
        (actual({1, 2, 4}, {3}), W123, without(4), Kind.PROMOTE, 0),  # the dead one leaves by the same joint change
        (actual({1, 2, 4}, {3}), W123, without(2, 3), Kind.NOTHING, 3),
        (actual({1, 2, 3}), Placement((1, 2, 3), (), 2), GOOD, Kind.TRANSFER_LEADER, 2),
        (actual({1, 2, 3}), Placement((1, 2, 3), (), 2), without(2), Kind.NOTHING, 2),
        (actual({1, 2, 3}), Placement((1, 2, 3), (), 2), replace(GOOD, up_ms={1: 1, 2: 1_000, 3: 1}), Kind.NOTHING, 2),
        (
            actual({1, 2, 3}),
            Placement((1, 2, 3), (), 2),
            replace(GOOD, up_ms={1: 1, 2: 1_000, 3: 1}, unfit=frozenset({1})),
            Kind.TRANSFER_LEADER,
            2,
        ),
        (actual({1, 2, 3}), W123, replace(GOOD, amnesiac=frozenset({3})), Kind.DEMOTE, 3),
        (actual({1, 2, 3}), W123, replace(without(2), amnesiac=frozenset({3})), Kind.NOTHING, 3),
        (actual({1, 2}, {3}), W123, replace(GOOD, amnesiac=frozenset({3})), Kind.NOTHING, 3),
        (actual({1, 2, 3}, {4}), Placement((2, 3, 4)), GOOD, Kind.TRANSFER_LEADER, 2),
        (actual({1, 2, 3}, {4}), Placement((2, 3, 4), (), 3), GOOD, Kind.TRANSFER_LEADER, 3),
    ],
)
def test_next_action(now: Actual, wanted: Placement, sight: Sight, kind: Kind, member: int) -> None:
    action = next_action(now, wanted, sight)
    assert brief(action) == (kind, member)
    assert action.why or (kind is Kind.NOTHING and member == 0)


def test_all_voters_at_once_leave_a_bridge() -> None:
    """{1} to {2}: the leader stays until the new one can lead; no configuration on the way is without a majority."""
    now, wanted = actual({1}), Placement((2,))
    way = []
    for _ in range(6):
        action = next_action(now, wanted, GOOD)
        way.append(action.kind)
        match action.kind:
            case Kind.NOTHING:
                break
            case Kind.TRANSFER_LEADER:
                now = replace(now, leader=action.member)
            case _:
                assert now.leader in action.voters
                now = replace(now, voters=action.voters, learners=action.learners)
    assert way == [Kind.ADD_LEARNER, Kind.PROMOTE, Kind.TRANSFER_LEADER, Kind.PROMOTE, Kind.NOTHING]
    assert now.voters == {2}


def test_a_new_majority_that_is_down_is_not_made() -> None:
    now = actual({1}, {2, 3})
    sight = replace(GOOD, behind=dict.fromkeys(ALL, 0))
    assert next_action(now, W123, sight).voters == {1, 2, 3}
    shrink = next_action(actual({1, 2, 3, 4, 5}), Placement((1, 4, 5)), without(4, 5))
    assert shrink.kind is Kind.NOTHING and "no majority" in shrink.why


def test_a_voter_that_gives_up_its_vote_but_not_its_copy_becomes_a_learner() -> None:
    action = next_action(actual({1, 2, 3}), Placement((1,), (2,)), GOOD)
    assert (action.kind, action.voters, action.learners) == (Kind.PROMOTE, {1}, {2})
