"""What holds for every test: where CI=true no silent skips, failures told at once; hypothesis without clocks; what comes last."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator

import hypothesis
import pytest

CI = os.environ.get("CI", "").lower() == "true"
LAST = ("faults", "acceptance")

hypothesis.settings.register_profile("here", deadline=None, max_examples=50, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=100, print_blob=True, database=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if CI else "here"))


@pytest.hookimpl(trylast=True)  # after they were shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real processes that are judged by a clock come last: by then what runs beside them (.ci/tests) has ended."""
    items.sort(key=lambda item: item.path.parent.name in LAST)


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure that shows the reason; an expected failure (xfail) is not a skip."""
    if report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: {reason}\nCI=true: a skipped test proves nothing, so here it is a failure"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if CI:
        refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if CI:
        refuse_skip(report)
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In CI at once, not at the end only: a run that is stopped has still said what failed."""
    if CI and report.failed:
        where, _, why = str(report.longrepr).rstrip().rpartition("\n\n")
        sys.__stderr__.write(f"\nfailed in {report.when}: {report.nodeid}\n{where[-3_000:]}\n{why[-1_000:]}\n")
        sys.__stderr__.flush()
