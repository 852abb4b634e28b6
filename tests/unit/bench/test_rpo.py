"""How far behind a copy is, moment by moment (ops/bench/rpo.py)."""

from __future__ import annotations

import pytest

from chaos.drills.percentile import nearest_rank
from ops.bench.rpo import Commit, Run, ages_ms, rows

MS = 1_000_000


def _steady(lag_ms: int, count: int = 101, every_ms: int = 10) -> tuple[Commit, ...]:
    return tuple(Commit(turn * every_ms * MS, (turn * every_ms + lag_ms) * MS) for turn in range(count))


def test_the_age_is_of_the_oldest_change_that_no_receipt_covers() -> None:
    commits = (Commit(0, 4 * MS), Commit(2 * MS, 4 * MS), Commit(10 * MS, 12 * MS), Commit(20 * MS, 30 * MS))
    ages = ages_ms(commits)
    assert ages[:5] == [0, 1, 2, 3, 0], "both wait for the receipt of the first's moment"
    assert ages[9:13] == [0, 0, 1, 0]


def test_a_receipt_that_stays_away_makes_the_copy_older_and_older() -> None:
    stalled = (*_steady(3, 10), *(Commit((100 + turn * 10) * MS, 2_000 * MS) for turn in range(50)))
    assert max(ages_ms(stalled)) == pytest.approx(489)
    assert nearest_rank(ages_ms(stalled), 0.99) > 480


def test_the_worst_source_counts_and_what_was_never_covered_is_a_miss() -> None:
    good, bad = Run(_steady(3), 20, 0), Run(_steady(300), 20, 2)
    p99, uncovered = rows([good, bad], 2_000, 1.0)
    assert p99.met is False and p99.figure > 250 and p99.low < 10
    assert uncovered.figure == 40 and uncovered.met is False
    assert [one.met for one in rows([good], 2_000, 1.0)] == [True, True]


def test_sources_that_did_not_change_enough_measure_nothing() -> None:
    with pytest.raises(RuntimeError, match="too busy"):
        rows([Run(_steady(3), 10, 0)], 2_000, 1.0)
