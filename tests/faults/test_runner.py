"""The runner itself: what is right passes, a rule that is turned off is found, what cannot be told is inconclusive.

All scenarios against the stand-in, and each with its planted fault: `python -m tests.faults.run --system standin`, and `--red`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.check.history import parse
from chaos.check.verdict import Verdict
from chaos.faults.edge_shim import build
from chaos.rigs.capability import Capability
from tests.faults import run
from tests.faults.acts import Follower, Kill, Leader, OldImage, Part, Stage
from tests.faults.run import all_scenarios, run_all, run_one, turned
from tests.faults.scenario import Budgets, Invariant, Layer, Load, Scenario, Step
from tests.faults.system import ROOT

WANTED = {1, 2, 3, 4, 5, 7, 8, 17, 18, 19, 21, 22, 23, 24, 45, 46, 52}
CUT = Scenario(7, "cut off", (Step(Part(Leader()), for_s=1.5),), budgets=Budgets(acked_min=30))

needs_compiler = pytest.mark.skipif(build() is None, reason="the fault shim needs a C compiler: install the package gcc")


def test_every_scenario_is_there_and_most_have_a_planted_fault() -> None:
    found = all_scenarios()
    assert {one.number for one in found} == WANTED
    assert {one.number for one in found if one.layer is Layer.ROOT} == {3, 7, 8, 19, 24}
    assert {one.number for one in found if not one.red} <= {4, 17, 19, 22, 46}
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


def test_a_rule_that_is_turned_off_is_found(tmp_path: Path) -> None:
    outcome = run_one(CUT, "standin:obliging", tmp_path / "run", 1)
    assert outcome.verdict is Verdict.FAIL and any("linearizable" in why for why in outcome.why), outcome.line()
    assert len(list((tmp_path / "run").glob("system-*"))) == 1  # a failure is never played again


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


def test_the_command_counts_what_is_inconclusive_as_failed_in_ci() -> None:
    argv = [sys.executable, "-m", "tests.faults.run", "--only", "46", "--system", "standin"]
    for ci, last in (("true", "0 passed, 1 failed"), ("", "0 passed, 0 failed")):
        done = subprocess.run(
            argv, cwd=ROOT, env={**os.environ, "CI": ci}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1 and done.stdout.splitlines()[-1] == last, done.stderr
        assert "no membership here" in done.stdout
