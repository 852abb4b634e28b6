"""The pace of a member's transfers: one bucket for all of them, slower while intake or answers are pressed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from replica.transfer.throttle import NS, UNLIMITED, TokenBucket

WAIT_S_MAX = 1.0  # a pause is cut into pieces, so that a higher rate is felt soon


def _never() -> bool:
    return False


class Pace:
    """Any thread. `octets_per_s` may be set at any time.

    Args:
        octets_per_s: UNLIMITED or a limit for all transfers of this member together.
        pressed_octets_per_s: the limit while `pressed()`; UNLIMITED: no other limit then.
        pressed: intake or answers need the machine now.
    """

    def __init__(
        self,
        octets_per_s: int = UNLIMITED,
        pressed_octets_per_s: int = UNLIMITED,
        pressed: Callable[[], bool] = _never,
    ) -> None:
        self.octets_per_s, self.pressed_octets_per_s, self._pressed = octets_per_s, pressed_octets_per_s, pressed
        self._lock = threading.Lock()
        self._bucket = TokenBucket(octets_per_s, time.monotonic_ns())

    def take(self, octets: int) -> float:
        """Take octets; returns seconds to wait."""
        now_ns = time.monotonic_ns()
        with self._lock:
            wanted = self._wanted()
            if wanted != self._bucket.octets_per_s:
                self._bucket.set_rate(wanted, now_ns)
            return self._bucket.take(octets, now_ns) / NS

    def _wanted(self) -> int:
        limit = self.pressed_octets_per_s
        if limit != UNLIMITED and self._pressed():
            return limit if self.octets_per_s == UNLIMITED else min(limit, self.octets_per_s)
        return self.octets_per_s

    async def wait(self, octets: int) -> None:
        """Take octets and wait for them, on the event loop."""
        wait_s = self.take(octets)
        while wait_s > 0:
            await asyncio.sleep(min(wait_s, WAIT_S_MAX))
            wait_s = self.take(0) if wait_s > WAIT_S_MAX else 0.0

    def sleep(self, octets: int) -> None:
        """Take octets and wait for them, in a thread."""
        wait_s = self.take(octets)
        while wait_s > 0:
            time.sleep(min(wait_s, WAIT_S_MAX))
            wait_s = self.take(0) if wait_s > WAIT_S_MAX else 0.0
