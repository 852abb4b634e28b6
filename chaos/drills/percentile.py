"""Percentiles by the nearest rank: a value that was seen, never one between two. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest value that so much of them (0 to 1) does not exceed. Raises ValueError: there are none."""
    if not values:
        raise ValueError("nothing was looked at")
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]
