"""What became of an entry: every proposal ends in exactly one of these, or its outcome is UNKNOWN."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from replica.model.position import Position


class OutcomeKind(StrEnum):
    """Definite outcomes of an entry at apply (SEMANTICS 2.1), and the one that is not."""

    APPLIED = "applied"
    ALREADY = "already"  # every change of it was applied before
    GAP = "gap"  # does not follow this generation's position: no-op
    CONFLICT = "conflict"  # same place, other content, or precondition failed: no-op
    FENCED = "fenced"  # an older epoch or lineage: no-op
    HELD = "held"  # stored, not applied; or waits behind a hold
    UNKNOWN = "unknown"  # stepped down or stopped before it was known


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one entry on the live generation (while the live one has a gap: on the side one).

    Args:
        position: position of that generation afterwards, None where the entry has none.
        detail: one sentence for a person; for a certificate "equal" or "different".
    """

    kind: OutcomeKind
    position: Position | None = None
    detail: str = ""


class EntryKind(IntEnum):
    """What an entry of a group's log is; persistent, never renumber."""

    DATA = 0  # a serialized replica.v1.Entry
    MEMBERSHIP = 1  # a change of the group's voters and learners; concerns the log itself, no state machine


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of a group's log. `data` is a serialized replica.v1.Entry, or as `kind` says."""

    index: int
    term: int
    data: bytes
    kind: EntryKind = EntryKind.DATA


@dataclass(slots=True)
class Proposal:
    """A proposed entry. `committed` ends with the index when the entry is on disk on a majority; `applied` with its outcome."""

    committed: asyncio.Future[int]
    applied: asyncio.Future[Outcome]
