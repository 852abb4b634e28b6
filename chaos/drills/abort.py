"""What stops a drill: too many wrong answers, a real incident, blindness, its time limit. Pure: looks and time in, a reason out.

| state | may become | when |
| --- | --- | --- |
| watching | aborted, ended | a reason to stop was found; the drill came to its end |
| aborted, ended | | final |
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from replica.model.errors import require

DIFFERING_PPM_MAX = 1_000  # 0.1 % of mirrored answers
MIRRORED_MIN = 1_000  # fewer are counted as so many: one odd answer among ten is no 10 %
BLIND_MS_MAX = 700  # without a look; with LOOK_EVERY_MS and the heal it stays below the second that is promised
LOOK_EVERY_MS = 100
LATE_MS_MAX = 100  # a watch later than this discards the time it was late
ABORT_MS_MAX = 1_000  # from a real incident to the begin of the heal
NS_PER_MS = 1_000_000


class AbortState(StrEnum):
    WATCHING = "watching"
    ABORTED = "aborted"
    ENDED = "ended"


MOVES: dict[AbortState, frozenset[AbortState]] = {
    AbortState.WATCHING: frozenset({AbortState.ABORTED, AbortState.ENDED}),
    AbortState.ABORTED: frozenset(),
    AbortState.ENDED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What one look at everything that the drill does not touch saw.

    Args:
        incidents: real trouble, one sentence each; () when all is well.
        mirrored, differing: answers compared since the drill began, and how many of them differed.
    """

    incidents: tuple[str, ...] = ()
    mirrored: int = 0
    differing: int = 0


class Watch:
    """See the module. Times are nanoseconds of one clock.

    Args:
        began_ns: when the drill began. minutes_max: how long it may take.
    """

    def __init__(self, began_ns: int, minutes_max: int) -> None:
        self.state, self.reason = AbortState.WATCHING, ""
        self._seen_ns, self._ends_ns = began_ns, began_ns + minutes_max * 60_000 * NS_PER_MS
        self._ticked_ns = began_ns

    def saw(self, glimpse: Glimpse, now_ns: int) -> None:
        """A look came back; `now_ns`: when it was begun, so that an old one does not count as a new one."""
        if self.state is not AbortState.WATCHING:
            return
        self._seen_ns = max(self._seen_ns, now_ns)
        if glimpse.incidents:
            self._abort(f"a real incident: {glimpse.incidents[0]}")
        elif glimpse.differing * 1_000_000 > DIFFERING_PPM_MAX * max(glimpse.mirrored, MIRRORED_MIN):
            self._abort(f"{glimpse.differing} of {glimpse.mirrored} mirrored answers differ, allowed are 0.1 %")

    def tick(self, now_ns: int) -> str:
        """The reason to stop, "" while there is none."""
        if self.state is AbortState.WATCHING:
            late_ns = now_ns - self._ticked_ns - LOOK_EVERY_MS * NS_PER_MS
            if late_ns > LATE_MS_MAX * NS_PER_MS:  # the watch itself stood still: that is not blindness, a look may just wait
                self._seen_ns = min(now_ns, self._seen_ns + late_ns)
            self._ticked_ns = now_ns
            blind_ms = (now_ns - self._seen_ns) // NS_PER_MS
            if now_ns >= self._ends_ns:
                self._abort("its time is over")
            elif blind_ms > BLIND_MS_MAX:
                self._abort(f"nothing was seen for {blind_ms} ms: what is not seen is not well")
        return self.reason

    def end(self) -> None:
        """The drill came to its end by itself."""
        if self.state is AbortState.WATCHING:
            self._move(AbortState.ENDED)

    def _abort(self, reason: str) -> None:
        self.reason = reason
        self._move(AbortState.ABORTED)

    def _move(self, to: AbortState) -> None:
        require(to in MOVES[self.state], f"a watch that is {self.state} cannot become {to}")
        self.state = to
