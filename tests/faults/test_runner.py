"""The runner itself: what is right passes, a rule that is turned off is found, what cannot be told is inconclusive.

All scenarios against the stand-in, and each with its planted fault: `python -m tests.faults.run --system standin`, and `--red`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.check.history import Op, parse
from chaos.check.verdict import Verdict
from chaos.faults.edge_shim import build
from chaos.rigs.capability import Capability
from tests.faults import run, standin_system
from tests.faults.acts import Follower, Kill, Leader, OldImage, Part, Stage
from tests.faults.planted import BUGS
from tests.faults.reading import found_it
from tests.faults.run import all_scenarios, run_all, run_one, turned
from tests.faults.scenario import Budgets, Invariant, Layer, Load, Scenario, Step
from tests.faults.system import ROOT
from tests.faults.workload import History

WANTED = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 23, 24, 25, 45, 46, 52, 58}
CUT = Scenario(7, "cut off", (Step(Part(Leader()), for_s=1.5),), budgets=Budgets(acked_min=30))
SHOWS_S_MAX = 40.0

needs_compiler = pytest.mark.skipif(build() is None, reason="the fault shim needs a C compiler: install the package gcc")


def test_every_scenario_is_there_and_has_a_planted_fault() -> None:
    found = all_scenarios()
    assert {one.number for one in found} == WANTED
    assert {one.number for one in found if one.layer is Layer.ROOT} == {3, 7, 8, 10, 12, 13, 14, 16, 19, 24, 58}
    assert all(one.reds() for one in found)
    assert {one.planted for one in found} - {""} <= set(BUGS)
    assert {one.number for one in found if Invariant.LINEARIZABLE not in one.invariants} == set()


def test_a_right_system_passes_and_leaves_its_history(tmp_path: Path) -> None:
    outcome = run_one(CUT, "standin", tmp_path / "run", 1)
    assert outcome.verdict is Verdict.PASS, outcome.line()
    [folder] = (tmp_path / "run").glob("07-loopback-*")
    history = list(parse((folder / "history.jsonl").read_text().splitlines()))
    faults = json.loads((folder / "faults.json").read_text())["faults"]
    assert len(history) == outcome.figures["operations"] and [one["what"] for one in faults] == ["active", "healed"]
    assert {one.client for one in history} >= {"c0", "c5", "final"} and "pass" in outcome.line()


def test_scenarios_share_a_system_until_one_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "REPEATS_MAX", 0)
    monkeypatch.setattr(run, "ENOUGH_S_MAX", 2.0)
    hard = replace(CUT, number=8, budgets=Budgets(acked_min=1_000_000))
    outcomes = run_all([CUT, hard, replace(CUT, number=9)], "standin", tmp_path / "run", 1)
    assert [one.verdict for one in outcomes] == [Verdict.PASS, Verdict.UNKNOWN, Verdict.PASS], [one.line() for one in outcomes]
    assert ["started in s" in one.figures for one in outcomes] == [True, False, True]
    assert len(list((tmp_path / "run").glob("system-*"))) == 2


class CutUntilItShows:
    """Cut off until a history can only be wrong: after one side acknowledged an entry of a list that the other one cannot have,
    the other one answered a reader of that list, or acknowledged an entry of its own."""

    def __init__(self, history: History) -> None:
        self.history = history

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        async with Part(Leader()).on(stage):
            cut_ns = time.monotonic_ns()

            async def shows() -> bool:
                lists = [
                    one for one in self.history.operations if one.t0_ns > cut_ns and one.ok and one.op in (Op.GET, Op.APPEND)
                ]
                apart = [one for one in lists if one.op is Op.APPEND and one.client in ("c1", "c5")]
                return any(
                    late.client in ("c0", "c2", "c4") and late.key == early.key and late.t0_ns > early.t1_ns
                    for early in apart
                    for late in lists
                )

            await stage.system.until("both sides acknowledge", shows, SHOWS_S_MAX)
            yield


def test_a_rule_that_is_turned_off_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History()
    monkeypatch.setattr(run, "History", lambda: history)
    monkeypatch.setattr(standin_system, "LOST_S", SHOWS_S_MAX)  # who waits its turn at the side that is cut off stays there
    cut = replace(CUT, steps=(Step(CutUntilItShows(history), for_s=0),))
    outcome = run_one(cut, "standin:obliging", tmp_path / "run", 1)
    assert outcome.verdict is Verdict.FAIL and any("linearizable" in why for why in outcome.why), outcome.line()
    assert len(list((tmp_path / "run").glob("system-*"))) == 1  # a failure is never played again


@pytest.mark.parametrize(
    ("findings", "found"),
    [
        (["sound", "unreadable"], True),
        (["out of service", "not read"], True),
        (["not running"], True),
        (["sound", "sound"], False),
        (["sound", "not read"], None),
        (["sound", "unknown"], None),
        ([], None),
    ],
)
def test_reading_through_that_could_not_look_found_nothing_and_missed_nothing(findings: list[str], found: bool | None) -> None:
    assert found_it(findings) is found


@needs_compiler
@pytest.mark.parametrize(("rule", "verdict"), [("", Verdict.PASS), (":forgetful", Verdict.FAIL)])
def test_lost_memory_is_refused_or_found(tmp_path: Path, rule: str, verdict: Verdict) -> None:
    scenario = Scenario(23, "old image", (Step(OldImage(Follower(), work_s=1), for_s=0.2),), budgets=Budgets(acked_min=30))
    outcome = run_one(scenario, f"standin{rule}", tmp_path / "run", 1)
    assert outcome.verdict is verdict, outcome.line()


def test_too_little_traffic_a_crash_and_a_missing_capability_are_inconclusive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "REPEATS_MAX", 0)
    monkeypatch.setattr(run, "ENOUGH_S_MAX", 2.0)
    calm = Scenario(1, "calm", (), load=Load(clients=1, pause_ms=500), budgets=Budgets(acked_min=10_000))
    outcome = run_one(replace(calm, steps=(Step(Kill(Leader()), for_s=0.1),)), "standin", tmp_path / "few", 1)
    assert outcome.verdict is Verdict.UNKNOWN and "are needed to say anything" in outcome.line()
    outcome = run_one(replace(calm, needs=frozenset({Capability.FEED})), "standin", tmp_path / "none", 1)
    assert outcome.verdict is Verdict.UNKNOWN and "a system with sources" in outcome.line()
    broken = replace(CUT, steps=(Step(Part(Leader(), "sideways"), for_s=0), Step(Kill(Nobody()), for_s=0)))
    outcome = run_one(broken, "standin", tmp_path / "crash", 1)
    assert outcome.verdict is Verdict.UNKNOWN and "ValueError: nobody" in outcome.line()
    assert [turned(one) for one in Verdict] == [Verdict.FAIL, Verdict.PASS, Verdict.UNKNOWN]


@pytest.mark.parametrize(("crashes", "verdict"), [(2, Verdict.PASS), (3, Verdict.UNKNOWN)])
def test_what_could_not_be_judged_is_played_again_at_most_twice(tmp_path: Path, crashes: int, verdict: Verdict) -> None:
    shaky = replace(CUT, steps=(Step(Kill(Shaky(crashes)), for_s=0.1),))
    outcome = run_one(shaky, "standin", tmp_path / "run", 1)
    assert outcome.verdict is verdict and len(list((tmp_path / "run").glob("system-*"))) == 3, outcome.line()
    assert "run 2 could not be judged: ValueError: not yet" in outcome.line()


class Shaky:
    def __init__(self, crashes: int) -> None:
        self.left = crashes

    async def choose(self, stage: Stage) -> list[int]:
        self.left -= 1
        if self.left >= 0:
            raise ValueError("not yet")
        return await Follower().choose(stage)


class Nobody:
    async def choose(self, stage: object) -> list[int]:
        raise ValueError("nobody")


def test_the_command_counts_what_is_inconclusive_as_failed_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--only", "46", "--system", "standin"]
    argv, env = [sys.executable, "-m", "tests.faults.run", *words], {**os.environ, "CI": "true"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stdout.splitlines()[-1] == "0 passed, 0 failed, 1 inconclusive", done.stderr
    assert "no membership here" in done.stdout
    monkeypatch.setattr(run, "CI", False)
    before = signal.getsignal(signal.SIGTERM)
    here = CliRunner().invoke(run.main, words)
    signal.signal(signal.SIGTERM, before)  # the command takes it over
    assert here.exit_code == run.EXIT_UNKNOWN and here.stdout.splitlines()[-1] == "0 passed, 0 failed, 1 inconclusive", (
        here.output
    )
    assert "no membership here" in here.stdout
