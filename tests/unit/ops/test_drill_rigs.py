"""Scenarios of the rigs are listed and judged beside the drills: as a checkout says them, by the bundles of their runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chaos.drills.schedule import QUIET
from chaos.evidence.bundle import Verdict
from chaos.evidence.edge_folder import EvidenceFolder
from chaos.scenarios.all import SCENARIOS
from ops.cli.exits import Exit
from ops.cli.main import cli
from ops.drills import desk, edge_rigs
from ops.drills.edge_rigs import Rig, rigs_of
from replica.model.errors import Code, ZaibeiError
from tests.unit.chaos.sample import parts

RIG = Rig("s07-cut-off", 7, "leader and minority cut off", 'make faults ARGS="--only 7"', "standin:obliging", 5)
PLAIN = Rig("s17-slow", 17, "a slow disk", "make faults", "", 5)


@pytest.fixture
def folder(tmp_path: Path) -> EvidenceFolder:
    return EvidenceFolder(tmp_path / "m" / "drills")


def zaibei(folder: EvidenceFolder, *words: str) -> Result:
    given = ["drill", *words, "--data", str(folder.folder.parent)]
    return CliRunner().invoke(cli, given, env={"COLUMNS": "220", "CI": "", "ZAIBEI_CONFIG": None})


def ran(folder: EvidenceFolder, scenario: str, verdict: Verdict = Verdict.PASS, planted: str = "") -> None:
    folder.append(parts(verdict, scenario=scenario, planted=planted, began_ms=time.time_ns() // 1_000_000))


def test_this_checkout_says_what_it_can_play() -> None:
    found = rigs_of(desk.ROOT)
    assert (
        found and len({one.name for one in found}) == len(found) and not {one.name for one in found} & {s.name for s in SCENARIOS}
    )
    assert {one.command.split(" ARGS")[0] for one in found} == {"make faults", "make faults-root"}
    assert any(one.planted.startswith(("standin:", "cluster:")) for one in found)


def test_where_there_is_no_checkout_or_it_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rigs_of(tmp_path) is None
    program = tmp_path / "tests" / "faults" / "run.py"
    program.parent.mkdir(parents=True)
    for text in ("raise SystemExit('broken here')", "print('[{}]')"):
        program.write_text(text)
        with pytest.raises(ZaibeiError, match="are not known") as told:
            rigs_of(tmp_path)
        assert told.value.code is Code.UNKNOWN


def test_they_are_listed_and_judged(folder: EvidenceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "rigs_of", lambda _: (RIG, PLAIN))
    for one in SCENARIOS:
        ran(folder, one.name)
    assert zaibei(folder, "list", "--check").exit_code == Exit.VERIFICATION_FAILED, "two were never run"
    ran(folder, RIG.name)
    ran(folder, PLAIN.name)
    listed = zaibei(folder, "list", "--check")
    assert listed.exit_code == Exit.DONE and "make faults" in listed.stdout and "none planted" in listed.stdout
    rows = {one["scenario"]: one for one in json.loads(zaibei(folder, "list", "--json").stdout)["scenarios"]}
    assert set(rows) == {*(one.name for one in SCENARIOS), RIG.name, PLAIN.name}
    assert (rows[RIG.name]["command"], rows[PLAIN.name]["planted"]) == (RIG.command, False)
    assert rows[RIG.name]["standing"] in QUIET and rows["s33-secondary-dies"]["command"] == "zaibei drill run s33-secondary-dies"
    assert zaibei(folder, "history", RIG.name).exit_code == Exit.DONE
    assert zaibei(folder, "history", "s07-nothing").exit_code == Exit.NOT_FOUND
    ran(folder, RIG.name, Verdict.PASS, planted=RIG.planted)  # with its rule turned off, and it stayed green
    assert "STAYED GREEN" in zaibei(folder, "list").stdout
    assert zaibei(folder, "list", "--check").exit_code == Exit.VERIFICATION_FAILED


def test_a_calendar_may_name_them(folder: EvidenceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "rigs_of", lambda _: (RIG,))
    folder.folder.mkdir(parents=True)
    (folder.folder / "drills.toml").write_text(f'[[schedule]]\nscenario = "{RIG.name}"\nevery_days = 7\n')
    assert zaibei(folder, "list").exit_code == Exit.DONE
    monkeypatch.setattr(desk, "rigs_of", lambda _: None)
    assert zaibei(folder, "list").exit_code == Exit.USAGE


def test_without_a_checkout_the_list_says_what_it_leaves_out(folder: EvidenceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "rigs_of", lambda _: None)
    for one in SCENARIOS:
        ran(folder, one.name)
    listed = zaibei(folder, "list", "--check")
    assert listed.exit_code == Exit.DONE and "not judged" in listed.stdout
    assert json.loads(zaibei(folder, "list", "--json").stdout)["rigs_judged"] is False
    assert edge_rigs.PROGRAM == "tests.faults.run"
