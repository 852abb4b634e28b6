"""Phases of a replica session and their legal moves.

| phase | what flows |
| --- | --- |
| OPENING | we said where we stand (Resume); the source's Offer is awaited |
| MEETING | an epoch is being granted |
| AWAITING | nothing can follow before a snapshot's position is known |
| FLOWING | batches |
| REFETCHING | a gap: resumed again, what does not follow is ignored until the source has heard of it |
| BLOCKED | beats only: FORKED, FENCED or HELD |
| CLOSED | nothing, for good |
"""

from __future__ import annotations

from enum import Enum

from replica.model.errors import Code
from replica.model.states import FeedState


class Phase(Enum):
    """See the table of the module."""

    OPENING = "opening"
    MEETING = "meeting"
    AWAITING = "awaiting"
    FLOWING = "flowing"
    REFETCHING = "refetching"
    BLOCKED = "blocked"
    CLOSED = "closed"


MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.OPENING: frozenset({Phase.MEETING, Phase.AWAITING, Phase.FLOWING, Phase.REFETCHING, Phase.BLOCKED, Phase.CLOSED}),
    Phase.MEETING: frozenset({Phase.AWAITING, Phase.FLOWING, Phase.BLOCKED, Phase.CLOSED}),
    Phase.AWAITING: frozenset({Phase.FLOWING, Phase.REFETCHING, Phase.MEETING, Phase.BLOCKED, Phase.CLOSED}),
    Phase.FLOWING: frozenset({Phase.REFETCHING, Phase.AWAITING, Phase.MEETING, Phase.BLOCKED, Phase.CLOSED}),
    Phase.REFETCHING: frozenset({Phase.FLOWING, Phase.AWAITING, Phase.MEETING, Phase.BLOCKED, Phase.CLOSED}),
    Phase.BLOCKED: frozenset({Phase.MEETING, Phase.AWAITING, Phase.FLOWING, Phase.REFETCHING, Phase.CLOSED}),
    Phase.CLOSED: frozenset(),
}
OPEN = frozenset({Phase.FLOWING, Phase.REFETCHING})
RETRIED = frozenset({Code.BUSY, Code.DISK_FULL})
TAKEN_OVER = "its registrations were taken over: let it follow us, and hand them back. Next, at the source: zaibei source follow"
HEALS = frozenset({FeedState.GAP, FeedState.LOADING, FeedState.FENCED})
