"""Moves of prefixes as a member's rooms need them: rows of the control group as the model's values, and back."""

from __future__ import annotations

from replica.cluster.state import PrefixRecord
from replica.model.identifier import prefix_key, prefix_text
from replica.model.prefix_moves import MoveStep, PrefixMove


def move_of_record(record: PrefixRecord) -> PrefixMove:
    """What the control group recorded, as a row: RELEASED until it was acquired."""
    return PrefixMove(
        record.act,
        prefix_key(record.prefix),
        record.number,
        MoveStep.ACQUIRED if record.acquired else MoveStep.RELEASED,
        record.source,
        record.target,
        record.version,
        record.position,
        record.records,
        bytes.fromhex(record.digest),
        record.case_sensitive,
        record.at_ms,
    )


def record_of_move(move: PrefixMove, at_ms: int, *, acquired: bool) -> PrefixRecord:
    """What the control group shall record of a move, out of its row in the old group (RELEASED or later)."""
    return PrefixRecord(
        move.act,
        prefix_text(move.prefix),
        move.number,
        move.source,
        move.target,
        move.version,
        move.position,
        move.records,
        move.digest.hex(),
        move.case_sensitive,
        at_ms,
        acquired,
    )
