"""Every row of the table in ops/docs/simulation.md: the planted bug turns that run red, and without it the same run holds."""

from __future__ import annotations

import pytest

from tests.simulation.raft.named import SCHEDULES, schedule
from tests.simulation.raft.planted import PLANTS
from tests.simulation.raft.story import verdict
from tests.simulation.raft.table import Red, fault, rows, run_of

RULES = {"1", "2", "3", "4", "5", "6", "7", "8", "Raft", "raftos", "PySyncObj"}


@pytest.mark.parametrize("red", rows(), ids=lambda red: red.name)
def test_planted(red: Red) -> None:
    assert fault(red.name, red.story, red.seed) == red.invariant
    assert verdict(*run_of(red.story, red.seed)) == ""


def test_each_rule_and_each_planted_bug_has_a_row() -> None:
    assert {red.rule for red in rows()} == RULES
    assert [red.name for red in rows()] == list(PLANTS)


@pytest.mark.parametrize("name", SCHEDULES)
def test_named_schedule(name: str) -> None:
    assert [verdict(*schedule(name, seed)) for seed in range(8)] == [""] * 8
