"""How much may be on its way on one call: so little that what waits behind it leaves soon, however narrow the line. Pure.

What was given to a call lies in the buffers of two machines, some megabytes: behind that no group has its turn any more
(link_frames.py), and on a line of 1 Mbit/s a live change waits for it as long as a catch-up lasts. An answered beat proves that
what was sent before it has come. So only as much is sent ahead of the newest answer as the line carries in AHEAD_MS and a
round trip. The line's rate is what came before an answer, the higher one of the last two at which messages had to wait: little
at a time tells nothing, since a line may let it pass at once, and of a rate that is new at most twice as much leaves as before.
"""

from __future__ import annotations

from collections import deque

AHEAD_MS = 200
ROUND_TRIP_MS_MAX = 300  # of a round trip, beyond it what is measured is our own queue
AHEAD_OCTETS_MIN = 32 * 1024  # a quarter of a second of 1 Mbit/s; less tells no rate
AHEAD_OCTETS_START = 64 * 1024  # until a rate is known
RATES_KEPT, ROUND_TRIPS_KEPT = 2, 64
ANSWERED_MS_MIN = 0.1  # two answers in one turn of the event loop tell no higher rate than this


class Pace:
    """Of one call, since it stands."""

    __slots__ = ("_held", "_rates", "_round_trips", "octets_max")

    def __init__(self) -> None:
        self.octets_max = AHEAD_OCTETS_START  # may be on their way
        self._rates: deque[float] = deque(maxlen=RATES_KEPT)  # octets per ms
        self._round_trips: deque[float] = deque(maxlen=ROUND_TRIPS_KEPT)
        self._held = False  # since the last answer

    def room(self, ahead_octets: int) -> int:
        """So many octets more may leave while so many are on their way; told when messages wait."""
        room = self.octets_max - ahead_octets
        self._held = self._held or room <= 0
        return max(0, room)

    def answered(self, round_trip_ms: float, octets: int, within_ms: float) -> None:
        """A beat was answered; so many octets are known to have come within so long."""
        self._round_trips.append(round_trip_ms)
        if octets < AHEAD_OCTETS_MIN:
            return
        rate = octets / max(within_ms, ANSWERED_MS_MIN)
        if self._held or rate > max(self._rates, default=0.0):
            self._rates.append(rate)
            wanted = int(max(self._rates) * (AHEAD_MS + min(*self._round_trips, ROUND_TRIP_MS_MAX)))
            self.octets_max = max(AHEAD_OCTETS_MIN, min(wanted, 2 * self.octets_max))
        self._held = False
