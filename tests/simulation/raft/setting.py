"""What a simulated world is made of, and the events that happen to it: values that JSON can carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]  # {"at": ticks, "do": name, ...}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a world is made of, apart from its faults. Values that JSON can carry.

    Args:
        voters: of each group at the start; the other members may be added later.
        tail: so many of the newest entries are in memory, older ones are read from the disk first; 0: all are.
    """

    seed: int
    profile: str = ""
    members: int = 3
    voters: list[list[int]] = field(default_factory=lambda: [[1, 2, 3], [1, 2, 3]])
    ticks: float = 150.0
    write_every: float = 2.0
    read_every: float = 3.0
    flush_min: float = 0.05
    flush_spread: float = 0.3
    late_storage: bool = False
    slow_apply: bool = False
    padding: int = 0
    store_every: float = 25.0
    store_keeps: int = 5
    append_octets: int = 1024
    inflight_messages: int = 16
    tail: int = 0
    pre_vote: bool = True
    weather: dict[str, float] = field(default_factory=dict)


PLAIN = Setting(seed=0, voters=[[1, 2, 3]], ticks=90.0, write_every=1.0, read_every=4.0)  # what named schedules start from
