"""What many deaths of nodes came to, as their outside clients saw it: values in, rows out.

A run is one node's death and heal. One in which the clients' own process was late says nothing of the system and does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from chaos.drills.outside import NS_PER_MS, Lane, Lookup
from ops.bench.table import Row

LATE_MS_MAX = 100
FIRST_TARGET_MS = 1_000
STAGE = "takeovers"


@dataclass(frozen=True, slots=True)
class Death:
    """One run: its source's host stopped answering at `at_ns` and was healed at `healed_ns`."""

    source: str
    at_ns: int
    healed_ns: int


@dataclass(frozen=True, slots=True)
class Late:
    """The clients' process was late by `ms`, seen at `at_ns`."""

    at_ns: int
    ms: float


@dataclass(frozen=True, slots=True)
class Found:
    """Of all runs of one kind.

    Args:
        first_ms: of each run that counts, from the death to the first right answer of a lookup begun after it.
        unanswered: runs that count without such an answer before the heal.
        late: runs that do not count.
        hedged, hedged_failed: lookups of clients that race all sites; lied: final answers that were wrong, of all clients.
    """

    first_ms: tuple[float, ...]
    unanswered: int
    late: int
    hedged: int
    hedged_failed: int
    lied: int


def judge(deaths: Sequence[Death], lookups: Sequence[Lookup], lates: Sequence[Late]) -> Found:
    """Times through the recursive node, run by run."""
    answered: dict[str, list[Lookup]] = {}
    for one in lookups:
        if one.lane is Lane.RECURSIVE and one.right:
            answered.setdefault(one.source, []).append(one)
    first_ms, unanswered, late = list[float](), 0, 0
    for death in deaths:
        if any(_spoils(one, death) for one in lates):
            late += 1
            continue
        ends = [one.ended_ns for one in answered.get(death.source, ()) if death.at_ns < one.began_ns < death.healed_ns]
        if ends and min(ends) <= death.healed_ns:
            first_ms.append((min(ends) - death.at_ns) / NS_PER_MS)
        else:
            unanswered += 1
    hedged = [one for one in lookups if one.lane is Lane.HEDGED]
    return Found(
        tuple(first_ms), unanswered, late, len(hedged), sum(not one.right for one in hedged), sum(one.lied for one in lookups)
    )


def _spoils(late: Late, death: Death) -> bool:
    began_ns = late.at_ns - late.ms * NS_PER_MS
    return late.ms > LATE_MS_MAX and late.at_ns >= death.at_ns and began_ns <= death.healed_ns


def rows(kind: str, found: Found) -> list[Row]:
    """The maximum is what is promised; a run without an answer is a fault of ours.

    Raises:
        RuntimeError: no run counts.
    """
    times = found.first_ms
    if not times:
        raise RuntimeError(f"{kind}: no run counts; {found.late} were late, {found.unanswered} were never answered")
    note = f"median {median(times):.0f}; {found.late} more runs did not count, the clients' process was late"
    what = f"resolution takeover, {kind}: longest of {len(times)}, first right answer through a recursive node (TTL 0)"
    return [
        Row(STAGE, what, max(times), "ms", len(times), min(times), max(times), FIRST_TARGET_MS, fewer=True, note=note),
        Row(
            STAGE, f"{kind}: failed of {found.hedged:,} lookups of clients that race all sites; wrong answers of all clients "
            f"{found.lied}; deaths nobody answered {found.unanswered}",
            found.hedged_failed + found.lied + found.unanswered, "lookups", len(times), target=0, fewer=True,
        ),
    ]  # fmt: skip
