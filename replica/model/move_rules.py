"""What a step of a prefix's move requires at apply, and what it does to a group's state: value in, value out (SEMANTICS 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from replica.model.batch import OP_DELETE
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import ancestors, prefix_key, prefix_part, prefix_text
from replica.model.ladder import Stage
from replica.model.ladder_values import Judged, Moved, Refused
from replica.model.outcome import OutcomeKind
from replica.model.position import Position
from replica.model.precondition import Precondition
from replica.model.prefix_moves import AWAY, LEAVING, MoveStep, PrefixMove, move_at, moved_on, newest
from replica.v1 import entry_pb2

ACT_CHARS_MAX = 128
TEXT_CHARS_MAX = 400
DIGEST_OCTETS = 32


def move_of(body: entry_pb2.PrefixMove) -> PrefixMove:
    """An entry's body as a row. Raises ZaibeiError(MALFORMED)."""
    try:
        step = MoveStep(body.step)
    except ValueError:
        raise ZaibeiError(Code.MALFORMED, f"step {body.step} of a move is not known: 1 to {max(MoveStep)}") from None
    if not 0 < len(body.act) <= ACT_CHARS_MAX or body.number < 1 or body.source == body.target or not body.target:
        raise ZaibeiError(Code.MALFORMED, "a move names its act, its number from 1, and two different sources")
    if len(body.by) > TEXT_CHARS_MAX or len(body.reason) > TEXT_CHARS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"who and why have at most {TEXT_CHARS_MAX} characters each")
    return PrefixMove(
        body.act,
        prefix_key(body.prefix),
        body.number,
        step,
        body.source,
        body.target,
        body.version,
        body.position,
        body.records,
        body.digest,
        body.case_sensitive,
        body.decided_ms,
        body.by,
        body.reason,
    )


def body_of(move: PrefixMove) -> entry_pb2.PrefixMove:
    """Inverse of `move_of`."""
    return entry_pb2.PrefixMove(
        act=move.act,
        prefix=prefix_text(move.prefix),
        number=move.number,
        step=entry_pb2.PrefixMove.Step.ValueType(int(move.step)),
        source=move.source,
        target=move.target,
        version=move.version,
        position=move.position,
        records=move.records,
        digest=move.digest,
        case_sensitive=move.case_sensitive,
        decided_ms=move.at_ms,
        by=move.by,
        reason=move.reason,
    )


def take_move(group: GroupState, body: entry_pb2.PrefixMove, position: Position) -> Judged:
    """One step. `position`: of the live generation."""
    try:
        move = move_of(body)
        moves = moved_on(group.moves, move)
    except ZaibeiError as exc:
        already = exc.code is Code.ALREADY_APPLIED
        return Refused(exc.trouble.message, OutcomeKind.ALREADY if already else OutcomeKind.CONFLICT)
    if move.version != group.ownership_version + 1:
        return Refused(f"version {move.version} does not follow {group.ownership_version}: look again")
    came = move.step is MoveStep.ACQUIRED
    if group.source != (move.target if came else move.source):
        return Refused(f"{move.step.name} of {body.prefix} does not belong into the group of {group.source}")
    if (why := _unfit(group, move)) is not None:
        return Refused(why)
    prefixes, sensitive = group.prefixes, group.case_sensitive
    if move.step is MoveStep.RELEASED:
        move = replace(move, position=str(position))
        moves = (*moves[:-1], move)
        prefixes = tuple(one for one in prefixes if one != move.prefix)
    elif came and move.prefix not in prefixes:
        prefixes = (*prefixes, move.prefix)
    if came and move.case_sensitive and move.prefix not in sensitive:
        sensitive = (*sensitive, move.prefix)
    return Moved(
        replace(group, moves=moves, prefixes=prefixes, case_sensitive=sensitive, ownership_version=group.ownership_version + 1)
    )


def unfit_to_leave(group: GroupState, prefix: bytes, case_sensitive: bool) -> str | None:
    """Why a prefix cannot leave this group; None: it can."""
    text = prefix_text(prefix)
    if (why := _not_settled(group)) is not None:
        return why
    if not owns(group, prefix):
        return f"{group.source} does not own {text}"
    below = [one for one in (*group.prefixes, *group.case_sensitive) if one != prefix and prefix in ancestors(one)]
    if below:
        return f"{prefix_text(below[0])}, below {text}, is a prefix or a case policy of its own: move or change that first"
    if case_sensitive is not any(above in group.case_sensitive for above in ancestors(prefix)):
        return f"the case policy of {text} is another one by now"
    return None


def unfit_to_come(group: GroupState, prefix: bytes, case_sensitive: bool) -> str | None:
    """Why a prefix cannot come to this group; None: it can."""
    if (why := _not_settled(group)) is not None:
        return why
    if not case_sensitive and any(above in group.case_sensitive for above in ancestors(prefix)):
        return f"{group.source} keeps the case of suffixes below {prefix_text(prefix)}, the content that comes does not"
    return None


def owns(group: GroupState, prefix: bytes) -> bool:
    """Does the group own a prefix, by what it has committed?"""
    away = {one for one, move in newest(group.moves).items() if move.step in AWAY}
    for level in ancestors(prefix):
        if level in group.prefixes or level in away:
            return level not in away
    return False


def under_way(group: GroupState) -> PrefixMove | None:
    """A move that has begun in this group, which it leaves, and is not over; None: none."""
    return next((move for move in newest(group.moves).values() if move.step in LEAVING), None)


def fenced(group: GroupState, keys: Sequence[bytes], ops: bytes, preconditions: Sequence[Precondition]) -> str | None:
    """Why a registration's keys may not be changed here: the first whose prefix is leaving or left; None: all may.

    Only the move itself deletes what it drops: its act stands in the precondition of each key; and so does the act of a later
    move that copies the content back.
    """
    if not group.moves:
        return None
    moves = newest(group.moves)
    decided: dict[bytes, PrefixMove | None] = {}
    for key, op, need in zip(keys, ops, preconditions, strict=True):
        part = prefix_part(key)
        if part not in decided:
            decided[part] = move_at(moves, part)
        move = decided[part]
        if move is None or move.step not in AWAY:
            continue
        drops = move.step is MoveStep.DROPPING and op == OP_DELETE and need.move == move.act
        comes_back = move.step is MoveStep.DROPPED and need.move not in ("", move.act)
        if not (drops or comes_back):
            return f"{prefix_text(move.prefix)} moves from {move.source} to {move.target}: nothing is registered below it here"
    return None


def _unfit(group: GroupState, move: PrefixMove) -> str | None:
    match move.step:
        case MoveStep.FROZEN:
            return unfit_to_leave(group, move.prefix, move.case_sensitive)
        case MoveStep.ACQUIRED:
            if len(move.digest) != DIGEST_OCTETS:
                return "what is acquired names the digest it was released with"
            return unfit_to_come(group, move.prefix, move.case_sensitive)
        case MoveStep.RELEASED if len(move.digest) != DIGEST_OCTETS:
            return "what is released names the digest of its range"
    return None


def _not_settled(group: GroupState) -> str | None:
    if not group.lives_here:
        return f"{group.source} does not live here: its node alone decides what is in its prefixes"
    if group.ladder.stage is not Stage.NORMAL:
        return f"{group.source} leaves for a node of its own ({group.ladder.stage.name}): a part is moved out before that"
    if group.hold is not None:
        return f"{group.source} waits behind what is held at {group.hold.ident}"
    return None
