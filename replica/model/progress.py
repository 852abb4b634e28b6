"""Progress of long work, as values; the console draws them, JSON output prints them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` in `unit`; total None while unknown."""

    what: str
    done: int
    total: int | None
    unit: str = "records"


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """A Report nobody reads."""
