"""What judging a move on the ladder takes and gives: where the store stands, and a new state or a refusal."""

from __future__ import annotations

from dataclasses import dataclass

from replica.model.digest import ContentDigest
from replica.model.group_state import GroupState
from replica.model.outcome import OutcomeKind
from replica.model.position import Position


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the store stands when the entry comes."""

    index: int
    position: Position
    digest: ContentDigest


@dataclass(frozen=True, slots=True)
class Moved:
    """It took effect. `moved`: the live generation's new boundary, where an epoch starts."""

    group: GroupState
    moved: Position | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """It did not, and nothing changed."""

    why: str
    kind: OutcomeKind = OutcomeKind.CONFLICT


Judged = Moved | Refused
