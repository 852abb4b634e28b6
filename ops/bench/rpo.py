"""How much a source's copy lacked, moment by moment: what it had told its own clients and no quorum receipt covered yet. Pure.

`RPO_source` (ops/docs/concepts.md): had the node died at that moment, this is how far behind it our answers would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from chaos.drills.percentile import nearest_rank
from ops.bench.table import Row

STAGE = "rpo"
TARGET_MS = 250
NS_PER_MS = 1_000_000
RATE_SHARE_MIN = 0.95  # of the changes that were to be made: below it, something else than the copy was measured
P99 = 0.99


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction of a source: when its own client was told, and when a quorum receipt covered it; monotonic ns."""

    told_ns: int
    covered_ns: int


@dataclass(frozen=True, slots=True)
class Run:
    """One source's transactions, in order.

    Args:
        changes: in each transaction. uncovered: how many no receipt covered in the time that was given for it.
    """

    commits: tuple[Commit, ...]
    changes: int
    uncovered: int

    @property
    def rate(self) -> float:
        """Changes a second that its own clients were told of."""
        if len(self.commits) < 2:
            return 0.0
        seconds = (self.commits[-1].told_ns - self.commits[0].told_ns) / 1e9
        return (len(self.commits) - 1) * self.changes / seconds


def ages_ms(commits: Sequence[Commit], step_ns: int = NS_PER_MS) -> list[float]:
    """Age of the oldest uncovered transaction, looked at every `step_ns`; 0: all were covered.

    Receipts cover positions, so a later one never comes before an earlier one.
    """
    if not commits:
        return []
    ages, oldest = [], 0
    for now_ns in range(commits[0].told_ns, commits[-1].told_ns, step_ns):
        while oldest < len(commits) and commits[oldest].covered_ns <= now_ns:
            oldest += 1
        waits = oldest < len(commits) and commits[oldest].told_ns <= now_ns
        ages.append((now_ns - commits[oldest].told_ns) / NS_PER_MS if waits else 0.0)
    return ages


def rows(runs: Sequence[Run], wanted: int, late_ms: float) -> list[Row]:
    """The worst source counts.

    Args:
        wanted: changes a second of each source. late_ms: the most a source's process was behind its own clock.
    Raises:
        RuntimeError: the sources made fewer changes than they were to make.
    """
    slowest = min(run.rate for run in runs)
    if slowest < RATE_SHARE_MIN * wanted:
        raise RuntimeError(
            f"a source made {slowest:,.0f} changes a second of {wanted:,}: the machine is too busy to measure this"
        )
    each = [ages_ms(run.commits) for run in runs]
    p99 = [nearest_rank(ages, P99) for ages in each]
    most = max(max(ages) for ages in each)
    lag = [(one.covered_ns - one.told_ns) / NS_PER_MS for run in runs for one in run.commits]
    apart = [(after.told_ns - before.told_ns) / NS_PER_MS for run in runs for before, after in pairwise(run.commits)]
    what = (
        f"RPO_source p99 of the worst of {len(runs)} sources, {wanted:,} changes/s each: age of the oldest change that its own "
        "clients were told of and no receipt covers"
    )
    note = (
        f"longest {most:.0f} ms; a transaction of {runs[0].changes} changes has its receipt after "
        f"{nearest_rank(lag, 0.5):.1f} ms (median), {nearest_rank(lag, P99):.1f} (p99); sources at most {max(apart):.0f} ms "
        f"between two transactions, {late_ms:.0f} behind their clock"
    )
    made = sum(len(run.commits) * run.changes for run in runs)
    lacking = sum(run.uncovered * run.changes for run in runs)
    what_lacks = f"changes told and covered by no receipt at the end, of {made:,}"
    return [
        Row(STAGE, what, max(p99), "ms", len(runs), min(p99), max(p99), TARGET_MS, fewer=True, note=note),
        Row(STAGE, what_lacks, lacking, "changes", target=0, fewer=True),
    ]
