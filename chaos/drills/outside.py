"""What is known of a drill from outside, as values: lookups of clients, looks at the member, facts that acts looked up.

Times are CLOCK_MONOTONIC nanoseconds of the machine that watched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from chaos.evidence.bundle import Figure
from chaos.faults.fault import Event

NS_PER_MS = 1_000_000
LATE_MS = 50.0  # each time the prober was later is written down, below that only a new worst


class Lane(StrEnum):
    """How a client asks."""

    RECURSIVE = "recursive"  # through the recursive node, TTL 0
    HEDGED = "hedged"  # asks it for sites, then races them
    PORT = "port"  # knows our addresses


@dataclass(frozen=True, slots=True)
class Lookup:
    """One lookup. right: what was registered came; lied: a final answer that was not it."""

    lane: Lane
    source: str
    name: str
    began_ns: int
    ended_ns: int
    right: bool
    lied: bool
    note: str = ""

    @property
    def took_ms(self) -> float:
        return (self.ended_ns - self.began_ns) / NS_PER_MS


@dataclass(frozen=True, slots=True)
class Seen:
    """How a source's copy stood when it was looked at; written when something of it changed."""

    at_ns: int
    source: str
    feed: str
    authority: str
    takeover: str
    freshness: str
    verified: bool | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """A digest at one place. when: "before" or "after"."""

    when: str
    source: str
    place: str
    position: str
    records: int
    total: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A node's death: its sources; answered_ns: newest right answer its host itself gave before, None: never."""

    at_ns: int
    sources: tuple[str, ...]
    answered_ns: int | None


@dataclass(slots=True)
class Outside:
    """Everything a judge may look at.

    Args:
        began_ns, ended_ns: of the drill.
        prober_late_ms: the worst lateness of the clients' process; None: it said nothing. lates: each over LATE_MS, (when, ms).
        receipts: receipted names looked up at our addresses at the end; not_honoured: those that were not answered right.
        source_lost: acknowledged by a node without a receipt and not answered by us; source_lost_ms: age of the oldest of them.
        facts: named results of acts and last looks, True or False or None (not known).
        measured: figures that only an act can measure; a fact says whether each is within its budget.
    """

    began_ns: int
    ended_ns: int = 0
    lookups: Sequence[Lookup] = ()
    prober_late_ms: float | None = None
    seen: list[Seen] = field(default_factory=list)
    faults: Sequence[Event] = ()
    lost: list[Lost] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)
    receipts: int = 0
    not_honoured: list[str] | None = None
    source_lost: int | None = None
    source_lost_ms: int | None = None
    facts: dict[str, bool | None] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)  # fact -> words
    doubts: list[str] = field(default_factory=list)  # trouble of the machinery: inconclusive
    aborted: str = ""
    measured: list[Figure] = field(default_factory=list)
    lates: Sequence[tuple[int, float]] = ()


def read_history(octets: bytes) -> tuple[list[Lookup], float | None]:
    """Lookups and the prober's worst lateness in ms (None: it never said); a line that a kill cut off is left out."""
    lookups, late_ms = list[Lookup](), None
    for text in octets[: octets.rfind(b"\n") + 1].splitlines():
        line = json.loads(text)
        if line[0] == "late":
            late_ms = max(late_ms or 0.0, line[1])
        else:
            lookups.append(Lookup(Lane(line[0]), *line[1:]))
    return lookups, late_ms


def read_lates(octets: bytes) -> list[tuple[int, float]]:
    """(CLOCK_MONOTONIC ns, ms): when the prober was so late that it says nothing of the system, and by how much."""
    lines = (json.loads(text) for text in octets[: octets.rfind(b"\n") + 1].splitlines())
    return [(int(line[2]), float(line[1])) for line in lines if line[0] == "late"]


def first_seen(seen: Sequence[Seen], source: str, after_ns: int, wanted: Mapping[str, Sequence[str]]) -> Seen | None:
    """The first look after a moment at which all these fields had one of these values."""
    for one in seen:
        if (
            one.source == source
            and one.at_ns >= after_ns
            and all(getattr(one, name) in values for name, values in wanted.items())
        ):
            return one
    return None
