"""Tells that this very process stood still, so that what waited in its sockets is not answered as if nothing had been."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

PAUSE_MS_MAX: Final = 500  # a standard client has asked again by then (its first time-out)
AFTERMATH_MS: Final = 50  # how long after a pause sockets may still hand over what waited in them
TICK_MS: Final = 50  # how often the owner of a watch calls `tick` while nothing else does


def boottime_ns() -> int:
    """The clock that goes on while a machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class PauseWatch:
    """Compares the boot-time clock with the last sign of life of the event loop.

    Args:
        clock: nanoseconds of CLOCK_BOOTTIME.
        pause_ms_max: a loop silent for longer was paused.
    """

    def __init__(self, clock: Callable[[], int] = boottime_ns, pause_ms_max: int = PAUSE_MS_MAX) -> None:
        self._clock = clock
        self._limit_ns = pause_ms_max * 1_000_000
        self._last_ns = clock()
        self._until_ns = 0
        self.pauses = 0

    def tick(self) -> None:
        """A sign of life."""
        self.paused()

    def paused(self) -> bool:
        """A sign of life, and whether requests read now may have waited over a pause."""
        now = self._clock()
        if now - self._last_ns > self._limit_ns:
            self._until_ns = now + AFTERMATH_MS * 1_000_000
            self.pauses += 1
        self._last_ns = now
        return now < self._until_ns
