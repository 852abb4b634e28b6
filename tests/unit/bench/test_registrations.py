"""Takeovers and returns of registrations, as two registrars saw them (ops/bench/registrations.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops.bench.registrations import Turn, rows

MS = 1_000_000
GOOD = Turn(
    may_ns=1_000 * MS, taken_ns=1_200 * MS, left_ns=5_000 * MS, back_ns=5_300 * MS, last_ns=900 * MS, rate=1_000.0, lacking=0,
    late_ms=5.0,
)  # fmt: skip


def test_the_longest_takeover_and_the_longest_freeze_count() -> None:
    slow = replace(GOOD, taken_ns=4_100 * MS, back_ns=6_500 * MS)
    taken, freeze, two, lacking = rows([GOOD, slow], 1_000)
    assert (taken.figure, taken.low, taken.met) == (3_100, 200, False)
    assert (freeze.figure, freeze.low, freeze.met) == (1_500, 300, False)
    assert (two.figure, lacking.figure, two.met, lacking.met) == (0, 0, True, True)
    assert all(one.met for one in rows([GOOD], 1_000))


def test_a_side_that_acknowledges_beside_the_other_is_found() -> None:
    late_lease, early_return = replace(GOOD, last_ns=1_200 * MS), replace(GOOD, back_ns=4_999 * MS)
    assert [rows([one], 1_000)[2].figure for one in (GOOD, late_lease, early_return)] == [0, 1, 1]


def test_a_late_registrar_spoils_times_and_hides_no_loss() -> None:
    late = replace(GOOD, taken_ns=9_000 * MS, lacking=3, late_ms=300.0)
    taken, *_, lacking = rows([GOOD, late], 1_000)
    assert (taken.figure, taken.runs, "1 more do not count" in taken.note) == (200, 1, True)
    assert (lacking.figure, lacking.met) == (3, False)
    with pytest.raises(RuntimeError, match="too busy"):
        rows([late], 1_000)


def test_a_freeze_under_fewer_changes_is_not_the_one_that_is_promised() -> None:
    assert [one.what.split(":")[0] for one in rows([replace(GOOD, rate=500.0)], 1_000)][:2] == [
        "registration takeover", "of 1",
    ]  # fmt: skip
