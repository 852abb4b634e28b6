"""ops/docs/rules.md: every rule has a test, every test exists, and each turns red when its rule is switched off."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from replica.model.outcome import OutcomeKind
from replica.model.position import ORIGIN
from tests.unit.docs.planting import RESULTS, Plant, planted
from tests.unit.docs.rule_rows import Row
from tests.unit.docs.rules import PAGE, ROWS, written

ROOT = Path(__file__).resolve().parents[3]
PLANTED = [row for row in ROWS if isinstance(row.off, Plant)]
NUMBERS = {
    "1.1", "1.2", "1.4", "2.1", "2.2", "2.3", "2.4", "3.1", "3.2", "3.3", "4", "5.1", "5.2", "5.3", "6", "7",
    "8", "9", "10", "11.1", "11.2", "11.3", "11.5",
    "12", "P1", "P9", "P13",
}  # fmt: skip
pytestmark = pytest.mark.timeout(600)  # the tests of the table run once more, each with its rule off


def pytest_run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", "-q", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("planted") / "results.json"
    ids = sorted({row.test for row in PLANTED})
    done = pytest_run("-p", "tests.unit.docs.planting", "--timeout=120", *ids, **{RESULTS: str(path)})
    assert path.exists(), done.stdout[-2_000:] + done.stderr[-2_000:]
    return dict(json.loads(path.read_text()))


@pytest.mark.parametrize("row", PLANTED, ids=[row.name for row in PLANTED])
def test_without_its_rule_the_test_turns_red(row: Row, results: dict[str, str]) -> None:
    found = results.get(row.name, "was not run")
    if found == "skipped":
        pytest.skip("the test itself is skipped here")
    assert found.startswith("red: "), f"{row.test} under the plant: {found or 'still green'}"


def test_every_named_test_exists() -> None:
    named = {row.test for row in ROWS} | {row.off for row in ROWS if isinstance(row.off, str)}
    files = sorted({name.partition("::")[0] for name in named})
    listed = pytest_run("--collect-only", *files).stdout.splitlines()
    collected = set(listed) | {line.partition("[")[0] for line in listed}
    assert sorted(named - collected) == []


def test_the_page_says_what_is_tested() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "write it anew: python -m tests.unit.docs.rules"


def test_every_rule_that_is_kept_has_a_row_and_a_text() -> None:
    assert {row.number for row in ROWS} == NUMBERS
    assert len({row.name for row in ROWS}) == len(ROWS)
    semantics = (PAGE.parent / "semantics.md").read_text(encoding="utf-8")
    headed = set(re.findall(r"^\*\*([\dP][\d.]*)\*\* ", semantics, re.MULTILINE))
    assert headed >= NUMBERS


def test_a_plant_reaches_everybody_and_is_taken_out_again() -> None:
    from replica.store.order import judge as imported_before

    kept = imported_before.__code__
    with planted(Plant("replica.store.order:judge", "granted is None:", "before == after:")):
        assert imported_before.__code__ is not kept
        assert imported_before(ORIGIN, ORIGIN, ORIGIN, None, lambda epoch, seq: None)[0] is OutcomeKind.CONFLICT
    assert imported_before.__code__ is kept


def test_a_plant_that_finds_no_place_says_so() -> None:
    with (
        pytest.raises(AssertionError, match="must follow the code"),
        planted(Plant("replica.store.order:judge", "no such text", "")),
    ):
        pass
