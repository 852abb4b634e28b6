"""Does a registration take effect? Its place, and each key's precondition tested against what is stored (SEMANTICS 2.2).

Whatever an entry holds, it ends in a definite outcome, the same on every member: one key whose precondition does not hold, or
octets that do not parse, make the whole entry a no-op. A key that comes twice in a batch is judged as if its changes came one
after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replica import native
from replica.model.batch import OP_DELETE, OP_PUT, Batch, open_batch
from replica.model.errors import ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import key_text
from replica.model.ladder_rules import registrations_refused
from replica.model.move_rules import fenced
from replica.model.outcome import OutcomeKind
from replica.model.position import Position
from replica.model.precondition import Must, Precondition
from replica.store.order import Known, Verdict, judge
from replica.v1 import entry_pb2

Held = Callable[[Sequence[bytes]], list[bytes | None]]
KNOWN_OPS = frozenset((OP_PUT, OP_DELETE))
KEY_TEXT_MAX = 200


@dataclass(frozen=True, slots=True)
class _Parsed:
    batch: Batch
    keys: Sequence[bytes]
    values: Sequence[bytes]
    ops: bytes
    preconditions: Sequence[Precondition]


def judge_registration(
    body: entry_pb2.Registration, group: GroupState, position: Position, known: Known, held: Held
) -> tuple[Batch | None, Verdict]:
    """Judge an entry beside the live generation.

    Args:
        position: of the live generation; known: its boundary at (epoch, seq).
        held: keys -> values as stored, quarantined ones too.
    Returns:
        (batch, (APPLIED, "")) when it takes effect; otherwise (None, why not).
    Raises:
        ZaibeiError: reading failed; nothing else raises.
    """
    if (closed := registrations_refused(group)) is not None:
        return None, (OutcomeKind.FENCED, closed[1])
    if group.hold is not None:
        return None, (OutcomeKind.HELD, f"waits behind what is held at {group.hold.ident}")
    parsed = _parse(body, group.source)
    if isinstance(parsed, str):
        return None, (OutcomeKind.CONFLICT, parsed)
    batch = parsed.batch
    kind, detail = judge(position, batch.before, batch.after, group.granted, known)
    if kind is not OutcomeKind.APPLIED:
        return None, (kind, detail)
    if away := fenced(group, parsed.keys, parsed.ops, parsed.preconditions):
        return None, (OutcomeKind.FENCED, away)
    if unmet := _unmet(parsed, held):
        return None, (OutcomeKind.CONFLICT, unmet)
    return batch, (kind, "")


def _parse(body: entry_pb2.Registration, source: str) -> _Parsed | str:
    """The entry's parts, or what is wrong with them."""
    try:
        batch = open_batch(body.batch, verify=False)
        follows = Position.from_wire(body.follows)
        preconditions = [Precondition.from_wire(one) for one in body.preconditions]
        keys, values, ops = native.split(batch.columns)
    except (ZaibeiError, native.ColumnsFault) as exc:
        return f"the registration does not parse: {exc}"
    if batch.source != source:
        return f"a batch of {batch.source!r} in the group of {source!r}"
    if follows != batch.before:
        return "the entry names another boundary than its batch follows"
    if not batch.count == len(keys) == len(values) == len(ops) == len(preconditions) or not KNOWN_OPS.issuperset(ops):
        return f"{batch.count} changes stated, {len(keys)} found, with {len(preconditions)} preconditions"
    return _Parsed(batch, keys, values, ops, preconditions)


def _unmet(parsed: _Parsed, held: Held) -> str:
    """The first key whose precondition does not hold, in words; "" when all do."""
    asked = [key for key, one in zip(parsed.keys, parsed.preconditions, strict=True) if one.must is not Must.NOTHING]
    if not asked:
        return ""
    now = dict(zip(asked, held(asked), strict=True))
    for key, value, op, one in zip(parsed.keys, parsed.values, parsed.ops, parsed.preconditions, strict=True):
        if not one.met_by(now.get(key)):
            return f"{key_text(key)[:KEY_TEXT_MAX]}: {one} was expected there"
        if key in now:
            now[key] = value if op == OP_PUT else None
    return ""
