"""Planned switchover of a living source: between its last write and our first one, what is done next (SEMANTICS 5). Pure.

The ladder stands at DRAINING: that is committed, so the group gives the source no lease. Its guard is asked to end the writing
and answers with its digest where its history ends. When our position is that end, the epoch is closed by an entry that carries
the digest; every member compares it with its own at apply. Whatever goes wrong before leads back to NORMAL: the guard asks for a
lease, is given one, and the source goes on.

| seen | done |
| --- | --- |
| no statement about this act | the source is asked, again every DRAIN_AGAIN_MS |
| it refused | given up, with its words |
| our position is not its end yet | waited for: its last batches are on their way |
| our position is its end | the epoch is closed, once; where the group refuses that, the act is given up |
| DRAIN_MS_MAX is over | given up |
"""

from __future__ import annotations

from dataclasses import dataclass

from replica.model.digest import ContentDigest
from replica.model.drained import Drained
from replica.model.group_state import GroupState
from replica.model.ladder import DRAIN_MS_MAX

DRAIN_AGAIN_MS = 250


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask the source to end its writing in this epoch."""

    act: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close its epoch: it states this content, and we stand where it ended."""

    digest: ContentDigest


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing happened: the source goes on."""

    why: str


@dataclass(slots=True)
class Draining:
    """One leader's part in one act: made anew when it comes to DRAINING, or takes over there."""

    act: str
    since_ns: int
    asked_ns: int | None = None
    closing: bool = False  # the entry was proposed; that we are here again says that the group refused it

    def next(self, state: GroupState, drained: Drained | None, now_ns: int, now_ms: int) -> Drain | Close | GiveUp | None:
        """What to do now; None: wait.

        Args:
            drained: the newest statement of the source, about any act.
            now_ns: boot time; now_ms: Unix.
        """
        said = drained if drained is not None and drained.act == self.act else None
        if said is not None and said.digest is None:
            return GiveUp(f"the source goes on writing: {said.refused}")
        if self.closing:
            return GiveUp("the group did not close the epoch: the source's content is not ours, or it is not fit by now")
        waited_ms = max((now_ns - self.since_ns) // 1_000_000, now_ms - state.ladder.since_ms)
        if waited_ms >= DRAIN_MS_MAX:
            return GiveUp(f"{self._lacking(said, state)} within {DRAIN_MS_MAX} ms")
        if said is None or said.digest is None:
            if self.asked_ns is not None and now_ns - self.asked_ns < DRAIN_AGAIN_MS * 1_000_000:
                return None
            self.asked_ns = now_ns
            return Drain(self.act, state.position.epoch)
        if said.digest.position != state.position:
            return None
        self.closing = True
        return Close(said.digest)

    @staticmethod
    def _lacking(said: Drained | None, state: GroupState) -> str:
        if said is None or said.digest is None:
            return "the source did not say that its writing ended"
        return f"the source ended at {said.digest.position.short()}, and we came to {state.position.short()} only"
