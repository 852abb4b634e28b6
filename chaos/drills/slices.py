"""How much slower something is because of a noise: short slices of one run by turns with it and without, compared. Pure.

Without it the same noise goes to a mere sink, so that the machine is as busy; what differs is what the system under test does of
it. Both kinds of slices see the same minute of the same machine, so what else runs there moves both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from chaos.drills.percentile import nearest_rank

NS_PER_MS = 1_000_000
SETTLE_NS = 200 * NS_PER_MS  # of each slice, not looked at: what came before is still being worked off
SHARE = 0.99
SAMPLES_MIN = 300  # of each kind: the 99th of a hundred says something from three hundred on
RATIO_MAX = 2.0
LATE_MS_MAX = 100.0


class At(StrEnum):
    """Where the noise goes."""

    SINK = "sink"
    MEMBER = "member"


@dataclass(frozen=True, slots=True)
class Slice:
    """CLOCK_MONOTONIC ns."""

    at: At
    began_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One request of a quiet tenant: when it began, and how long it took."""

    began_ns: int
    ms: float


def by_turns(samples: Iterable[Sample], slices: Sequence[Slice]) -> dict[At, list[float]]:
    """Milliseconds of those that began in a slice behind its first SETTLE_NS, by where the noise went then."""
    found: dict[At, list[float]] = {at: [] for at in At}
    for one in samples:
        for part in slices:
            if part.began_ns + SETTLE_NS <= one.began_ns < part.ended_ns:
                found[part.at].append(one.ms)
    return found


def in_time(slices: Sequence[Slice], lates: Iterable[tuple[int, float]]) -> list[Slice]:
    """Without those in which the clients themselves were late: such a slice says nothing of the system, wherever the noise went.

    Args:
        lates: (CLOCK_MONOTONIC ns, ms): when it was seen, and by how much.
    """
    spans = [(at_ns - int(ms * NS_PER_MS), at_ns) for at_ns, ms in lates if ms > LATE_MS_MAX]
    return [one for one in slices if all(end < one.began_ns or begin > one.ended_ns for begin, end in spans)]


def compared(found: dict[At, list[float]]) -> tuple[bool | None, str]:
    """Is the 99th percentile with the noise at most RATIO_MAX times that without? None: too few samples."""
    sink, member = found[At.SINK], found[At.MEMBER]
    note = f"{len(sink)} and {len(member)} samples"
    if min(len(sink), len(member)) < SAMPLES_MIN:
        return None, f"{note}; {SAMPLES_MIN} of each are asked"
    without, with_it = nearest_rank(sink, SHARE), nearest_rank(member, SHARE)
    note = f"p99 {without:.1f} ms with the noise at a sink, {with_it:.1f} ms with it at us, {with_it / without:.2f} times; {note}"
    return with_it <= RATIO_MAX * without, note
