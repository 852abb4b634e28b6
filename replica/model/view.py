"""What one member can say about one source at this moment; read by answering, takeover, status and metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

from replica.model.blocks import Blocked
from replica.model.position import ORIGIN, Position
from replica.model.states import Authority, FeedState, Freshness, Mode

FRESH_AGE_MS_MAX = 2_000
STALE_HORIZON_MS = 300_000
LEADER_SILENCE_MS_MAX = 2_000
LEADERLESS_ANSWER_MS_MAX = 24 * 3_600 * 1_000


@dataclass(frozen=True, slots=True)
class SourceView:
    """A value, made anew at each read; never kept across a wait.

    Args:
        source: name of the source; `generation`: number of its live generation.
        position: applied position that the values read together with this view have at least.
        age_ms: age of that position (SEMANTICS 4); None: unknown.
        freshness: derived from age, horizon, authority and leader silence.
        authority: who answers for the source; `leader_silent`: no word from the group's leader for 2 s.
        verified: the last certificate compared equal, and nothing since says otherwise; None: never compared.
        ready: False while no copy is complete (first load, damaged store): every answer is 2.
        blocks: what is not answered by order at this moment, whatever the copy holds.
        gaps: prefix parts of subtrees whose missing names are 2 even after a registration takeover (gap, HELD).
    """

    source: str
    mode: Mode = Mode.RECORDS
    generation: int = 0
    position: Position = ORIGIN
    age_ms: int | None = None
    freshness: Freshness = Freshness.EXPIRED
    authority: Authority = Authority.SOURCE
    feed: FeedState = FeedState.FLOWING
    leader_silent: bool = False
    verified: bool | None = None
    ready: bool = False
    gaps: tuple[bytes, ...] = field(default=())
    blocks: tuple[Blocked, ...] = ()
