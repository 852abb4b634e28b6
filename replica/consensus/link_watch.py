"""Pure rules of time for a link: is the other side silent, how long is the round trip, when to call again."""

from __future__ import annotations

from collections import deque
from random import Random

from replica.consensus.link_pace import Pace
from replica.consensus.link_port import LinkLimits

ROUND_TRIPS_KEPT = 10
BEATS_MAX = 256  # on their way; older ones are forgotten, their answers say nothing then
BULK_OCTETS = 32 * 1024  # with more than this before it on the way, a beat may be late on a slow line


def backoff_ms(attempt: int, chance: Random, limits: LinkLimits) -> float:
    """Pause before an attempt to call.

    Args:
        attempt: failed ones so far, 1 after the first.
    """
    doubled = limits.backoff_ms_min << min(max(attempt - 1, 0), 20)
    return min(doubled, limits.backoff_ms_max) * (1 - chance.random() / 2)


def hello_ms(slow: int, limits: LinkLimits) -> int:
    """How long the next call may take until its Hello.

    Args:
        slow: calls in a row for which the time did not suffice.
    """
    return min(limits.hello_ms_max << min(slow, 20), limits.hello_ms_slow)


class BeatWatch:
    """Beats on our call and their answers. Times in milliseconds of one clock that never jumps."""

    __slots__ = (
        "_answered_ms", "_answered_octets", "_beats", "_came_ms", "_limits", "_serial", "_written", "pace", "round_trips_ms",
    )  # fmt: skip

    def __init__(self, limits: LinkLimits, now_ms: float) -> None:
        self._limits = limits
        self._serial = 0
        # serial -> when sent, octets written before; octets known to have come then, and since when
        self._beats: dict[int, tuple[float, int, int, float]] = {}
        self._answered_ms = self._came_ms = now_ms
        self._answered_octets = self._written = 0
        self.round_trips_ms: deque[float] = deque(maxlen=ROUND_TRIPS_KEPT)
        self.pace = Pace()

    def wrote(self, octets: int) -> None:
        """So many octets were given to the call."""
        self._written += octets

    def beat(self, now_ms: float) -> int:
        """Serial of the next beat, which leaves now."""
        self._serial += 1
        self._beats[self._serial] = (now_ms, self._written, self._answered_octets, self._came_ms)
        if len(self._beats) > BEATS_MAX:
            del self._beats[next(iter(self._beats))]
        return self._serial

    def answered(self, serial: int, now_ms: float) -> bool:
        """Take an answer; False: to no beat of ours. An answer twice, or behind a newer one, is nothing new."""
        if not 1 <= serial <= self._serial:
            return False
        sent = self._beats.get(serial)
        if sent is not None:
            sent_ms, octets, came_octets, came_ms = sent
            self.round_trips_ms.append(now_ms - sent_ms)
            self.pace.answered(now_ms - sent_ms, octets - came_octets, now_ms - came_ms)
            self._answered_ms, self._came_ms, self._answered_octets = now_ms, now_ms, octets
            for older in [one for one in self._beats if one <= serial]:
                del self._beats[older]
        return True

    def room(self) -> int:
        """So many octets of messages may be given to the call now."""
        return self.pace.room(self._written - self._answered_octets)

    def excuse(self, late_ms: float) -> None:
        """We were late ourselves: so much of its silence was ours."""
        self._answered_ms += late_ms

    def silent(self, now_ms: float, heard_ms: float | None) -> str:
        """Why the member counts as lost; "": it does not.

        Args:
            heard_ms: when anything came on its own call last; None: it has none.
        """
        silent_ms = now_ms - self._answered_ms
        if silent_ms <= self._limits.silent_ms_max:
            return ""
        heard = heard_ms is not None and now_ms - heard_ms <= self._limits.silent_ms_max
        bulk = self._written - self._answered_octets > BULK_OCTETS
        if heard and bulk and silent_ms <= self._limits.slow_ms_max:
            return ""
        return f"no answer for {silent_ms:.0f} ms"


class Punctuality:
    """Did our own looks come in time? A process that was stopped, or starved, must not blame others for its silence."""

    __slots__ = ("_due_ms", "_limits")

    def __init__(self, limits: LinkLimits, now_ms: float) -> None:
        self._limits = limits
        self._due_ms = now_ms + limits.beat_ms

    def late_ms(self, now_ms: float) -> float:
        """Told at each look: how much too late it came; 0: in time, or nearly so."""
        late_ms = now_ms - self._due_ms
        self._due_ms = now_ms + self._limits.beat_ms
        return late_ms if late_ms > self._limits.late_ms_max else 0
