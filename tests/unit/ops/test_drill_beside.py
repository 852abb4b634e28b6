"""Drills side by side: so many at once, each one's word is passed on, who says nothing is inconclusive, who is stopped ends."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from chaos.scenarios.all import SCENARIOS, named
from ops.drills import edge_beside

PLAYER = """
import json, pathlib, sys, time
name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
(folder / f"{name}.began").touch()
if name == "hangs":
    try:
        time.sleep(600)
    finally:
        pass
if name == "meets":  # ends only when the other one runs too
    until = time.monotonic() + 60
    while time.monotonic() < until and not (folder / "met.began").exists():
        time.sleep(0.01)
if name == "dies":
    sys.exit("no stage here")
print(json.dumps({"drills": [{"scenario": name, "verdict": "pass", "figures": {}, "why": [], "bundle": "b"}]}))
"""


@pytest.fixture
def player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "player.py"
    program.write_text(PLAYER)
    monkeypatch.setattr(edge_beside, "WORDS", (sys.executable, str(program)))
    return tmp_path


def test_each_ones_word_is_passed_on_and_silence_is_inconclusive(player: Path) -> None:
    told = {one["scenario"]: one for one in edge_beside.played(["meets", "met", "dies"], [str(player)], 2)}
    assert {name: one["verdict"] for name, one in told.items()} == {"meets": "pass", "met": "pass", "dies": "inconclusive"}
    assert "no stage here" in told["dies"]["why"][0]


def test_whoever_stops_ends_those_that_run(player: Path) -> None:
    with closing(edge_beside.played(["met", "hangs", "never"], [str(player)], 2)) as told:
        assert next(told)["scenario"] == "met"
        until = time.monotonic() + 30
        while not (player / "hangs.began").exists() and time.monotonic() < until:
            time.sleep(0.01)
    assert (player / "hangs.began").exists()


def test_who_measures_a_time_is_played_alone() -> None:
    assert all(named(word).alone for word in ("s11", "s33", "s34", "s38", "s39", "s48", "s49", "s50"))
    assert not any(named(word).alone for word in ("s26", "s28", "s31", "s35", "s36", "s37")) and SCENARIOS
