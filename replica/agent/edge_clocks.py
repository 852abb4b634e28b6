"""The real clocks; everything else takes them as arguments."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


def unix_ms() -> int:
    return time.time_ns() // 1_000_000


def boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time as functions, so that tests turn it by hand."""

    unix_ms: Callable[[], int] = unix_ms
    boottime_s: Callable[[], float] = boottime_s
