"""The two clocks of this machine, read together."""

from __future__ import annotations

import time

from replica.feed.commands import Now


def now() -> Now:
    """CLOCK_BOOTTIME goes on while the machine sleeps, so a suspended copy does not look fresh."""
    return Now(time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns() // 1_000_000)
