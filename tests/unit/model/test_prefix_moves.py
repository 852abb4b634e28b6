"""A prefix on its way between two sources: legal steps, who answers at each moment, what is done next (SEMANTICS 9)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import Identifier, prefix_key
from replica.model.ladder_values import Moved, Refused
from replica.model.move_rules import body_of, fenced, move_of, owns, take_move
from replica.model.outcome import OutcomeKind
from replica.model.position import ORIGIN
from replica.model.precondition import NOTHING, Precondition
from replica.model.prefix_moves import (
    MOVES_KEPT,
    NOWHERE,
    STEPS,
    MoveStep,
    Next,
    PrefixMove,
    RangeDigest,
    move_at,
    moved_on,
    newest,
    next_of,
    ranges_of,
    stepped,
    where_moved,
    with_moves,
)
from replica.model.states import Authority

P, OLD, NEW = prefix_key("88.118.9.5"), "region-9", "region-5"
S = MoveStep
FROZEN = PrefixMove("a1", P, 1, S.FROZEN, OLD, NEW)
DIGEST = bytes(32)


def group(source: str, *prefixes: str, moves: tuple[PrefixMove, ...] = ()) -> GroupState:
    keys = tuple(map(prefix_key, prefixes))
    return GroupState(
        source, prefixes=keys, ownership_version=1, authority=Authority.REGISTRATION, authority_act="hosted", moves=moves
    )


def taken(state: GroupState, move: PrefixMove, version: int = 0) -> Moved | Refused:
    return take_move(state, body_of(replace(move, version=version or state.ownership_version + 1)), ORIGIN)


def after(state: GroupState, *steps: MoveStep, move: PrefixMove = FROZEN) -> GroupState:
    for step in steps:
        judged = taken(state, stepped(move, step, 1, digest=DIGEST))
        assert isinstance(judged, Moved), judged
        state = judged.group
    return state


@pytest.mark.parametrize(("was", "step"), list(itertools.product([None, *S], S)))
def test_only_the_tables_steps_are_taken(was: MoveStep | None, step: MoveStep) -> None:
    moves = () if was is None else (replace(FROZEN, step=was),)
    move = replace(FROZEN, step=step)
    if step in STEPS[was]:
        assert moved_on(moves, move) == (move,)
    else:
        with pytest.raises(ZaibeiError) as caught:
            moved_on(moves, move)
        assert caught.value.code is (Code.ALREADY_APPLIED if was is step else Code.CONFLICT)


def test_a_whole_move_in_both_groups() -> None:
    old, new = group(OLD, "88.118.9"), group(NEW, "88.118.5")
    assert owns(old, P) and not owns(new, P)
    old = after(old, S.FROZEN, S.RELEASED)
    assert not owns(old, P) and old.ownership_version == 3 and old.prefixes == (prefix_key("88.118.9"),)
    new = after(new, S.ACQUIRED)
    assert owns(new, P) and P in new.prefixes and owns(old, prefix_key("88.118.9.6"))
    old = after(old, S.DROPPING, S.DROPPED)
    assert not owns(old, P)
    back = PrefixMove("a2", P, 2, S.FROZEN, NEW, OLD)
    new, old = after(new, S.FROZEN, S.RELEASED, move=back), after(old, S.ACQUIRED, move=back)
    assert owns(old, P) and not owns(new, P) and P not in new.prefixes


def test_what_a_group_refuses() -> None:
    old = group(OLD, "88.118.9", "88.118.9.5.1")
    for state, move, why in (
        (old, FROZEN, "move or change that first"),
        (group(OLD, "88.118.8"), FROZEN, "does not own"),
        (replace(group(OLD, "88.118.9"), authority=Authority.SOURCE), FROZEN, "does not live here"),
        (group(NEW, "88.118.9"), FROZEN, "does not belong into the group"),
        (group(NEW, "88.118.5"), replace(FROZEN, step=S.ACQUIRED), "names the digest"),
        (group(OLD, "88.118.9"), replace(FROZEN, case_sensitive=True), "case policy"),
    ):
        judged = taken(state, move)
        assert isinstance(judged, Refused) and why in judged.why, judged
    state = after(group(OLD, "88.118.9"), S.FROZEN)
    again = taken(state, FROZEN)
    assert isinstance(again, Refused) and again.kind is OutcomeKind.ALREADY
    other = taken(state, PrefixMove("a9", prefix_key("88.118.9.5.1"), 1, S.FROZEN, OLD, NEW))
    assert isinstance(other, Refused) and "moving already" in other.why
    late = taken(state, stepped(FROZEN, S.CANCELLED, 1), version=2)
    assert isinstance(late, Refused) and "does not follow" in late.why


def test_nothing_is_registered_below_what_leaves_but_what_the_move_itself_drops() -> None:
    inside, route = Identifier.parse("88.118.9.5/a").key(), Identifier.parse("88.118.9.5.1").key()
    beside, own = Identifier.parse("88.118.9.6/a").key(), Identifier.parse("88.118.9.5").key()
    state = group(OLD, "88.118.9")
    put, delete = bytes([1]), bytes([2])
    for steps in ((S.FROZEN,), (S.FROZEN, S.RELEASED), (S.FROZEN, S.RELEASED, S.DROPPING)):
        moving = after(state, *steps)
        assert fenced(moving, [inside], put, [NOTHING]) and fenced(moving, [route], delete, [NOTHING])
        assert fenced(moving, [beside, own], put * 2, [NOTHING] * 2) is None
        drops = fenced(moving, [inside], delete, [Precondition(move="a1")])
        assert (drops is None) is (steps[-1] is S.DROPPING)
    assert fenced(moving, [inside], delete, [Precondition(move="a2")]) and fenced(
        moving, [inside], put, [Precondition(move="a1")]
    )
    assert fenced(after(state, S.FROZEN, S.CANCELLED), [inside], put, [NOTHING]) is None


def test_who_answers_at_each_moment() -> None:
    both = frozenset({OLD, NEW})
    row = {step: (replace(FROZEN, step=step),) for step in S}
    assert where_moved({OLD: row[S.FROZEN], NEW: ()}, both) == {P: OLD}
    assert where_moved({OLD: row[S.RELEASED], NEW: ()}, both) == {P: OLD}
    assert where_moved({OLD: row[S.RELEASED], NEW: row[S.ACQUIRED]}, both) == {P: NEW}
    assert where_moved({OLD: row[S.DROPPED], NEW: row[S.ACQUIRED]}, both) == {P: NEW}
    assert where_moved({OLD: (), NEW: row[S.ACQUIRED]}, both) == {P: NEW}, "the old group's store lags"
    assert where_moved({OLD: row[S.DROPPING], NEW: ()}, both) == {P: NOWHERE}, "the new group's store lags"
    recorded = row[S.ACQUIRED]
    assert where_moved({OLD: row[S.RELEASED], NEW: ()}, both, recorded) == {P: OLD}, "what is stored here decides"
    assert where_moved({OLD: row[S.RELEASED]}, frozenset({OLD}), recorded) == {P: NEW}
    back = PrefixMove("a2", P, 2, S.RELEASED, NEW, OLD)
    assert where_moved({OLD: row[S.DROPPED], NEW: (*row[S.ACQUIRED], back)}, both) == {P: NEW}
    came = replace(back, step=S.ACQUIRED)
    assert where_moved({OLD: (*row[S.DROPPED], came), NEW: row[S.ACQUIRED]}, both) == {P: OLD}


def test_configured_prefixes_after_moves() -> None:
    own, other = prefix_key("88.118.9"), prefix_key("88.118.9.5")
    assert with_moves((own, other), (FROZEN,)) == (own, other)
    assert with_moves((own, other), (replace(FROZEN, step=S.RELEASED),)) == (own,)
    assert with_moves((own,), (replace(FROZEN, step=S.ACQUIRED),)) == (own, other)
    assert with_moves((own, other), (replace(FROZEN, step=S.CANCELLED),)) == (own, other)


@pytest.mark.parametrize(
    ("old", "recorded", "new", "alone", "wanted"),
    [
        (None, None, None, False, Next.FREEZE),
        (S.FROZEN, None, None, False, Next.RELEASE),
        (S.RELEASED, None, None, False, Next.RECORD),
        (S.RELEASED, None, None, True, Next.COPY),
        (S.RELEASED, S.RELEASED, None, False, Next.COPY),
        (S.RELEASED, S.RELEASED, S.ACQUIRED, False, Next.TELL),
        (S.RELEASED, S.ACQUIRED, S.ACQUIRED, False, Next.DROP),
        (S.RELEASED, None, S.ACQUIRED, True, Next.DROP),
        (S.DROPPING, S.ACQUIRED, S.ACQUIRED, False, Next.DROP),
        (S.DROPPED, S.ACQUIRED, S.ACQUIRED, False, Next.DONE),
    ],
)
def test_what_is_done_next(
    old: MoveStep | None, recorded: MoveStep | None, new: MoveStep | None, alone: bool, wanted: Next
) -> None:
    rows = [None if step is None else replace(FROZEN, step=step) for step in (old, recorded, new)]
    assert next_of(*rows, alone=alone) is wanted


def test_a_range_is_the_subtree_and_the_routes_strictly_below() -> None:
    (start, stop), (route_start, route_stop) = ranges_of(P)
    for name, there in (("88.118.9.5/a", True), ("88.118.9.5.7/a", True), ("88.118.9.50/a", False), ("88.118.9/a", False)):
        assert (start <= Identifier.parse(name).key() < stop) is there, name
    for name, there in (("88.118.9.5", False), ("88.118.9.5.7", True), ("88.118.9.50", False), ("88.118.9.5.7.1", True)):
        assert (route_start <= Identifier.parse(name).key() < route_stop) is there, name


def test_a_digest_tells_where_a_key_ends() -> None:
    one, other = RangeDigest(), RangeDigest()
    one.add(b"ab", b"c")
    other.add(b"a", b"bc")
    assert one.digest() != other.digest() and one.records == other.records == 1


def test_history_is_bounded_and_keeps_what_counts() -> None:
    moves: tuple[PrefixMove, ...] = (replace(FROZEN, act="kept", prefix=prefix_key("88.1"), step=S.DROPPED),)
    for number in range(1, MOVES_KEPT + 3):
        act = f"m{number}"
        moves = moved_on(moves, replace(FROZEN, act=act, number=2 * number - 1))
        for step in (S.RELEASED, S.DROPPING, S.DROPPED):
            moves = moved_on(moves, replace(FROZEN, act=act, number=2 * number - 1, step=step))
    assert len(moves) == MOVES_KEPT and {move.act for move in newest(moves).values()} == {"kept", f"m{MOVES_KEPT + 2}"}
    assert move_at(newest(moves), P + b"\x017") is moves[-1]


def test_a_row_survives_the_wire() -> None:
    move = replace(FROZEN, version=7, position="x", records=3, digest=DIGEST, case_sensitive=True, at_ms=9, by="li", reason="why")
    assert move_of(body_of(move)) == move
