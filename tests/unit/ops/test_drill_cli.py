"""`zaibei drill` as an operator types it: what is listed, shown, verified and refused, over bundles that were written before."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chaos.evidence.bundle import Verdict
from chaos.evidence.edge_folder import EvidenceFolder
from chaos.scenarios.all import SCENARIOS
from ops.cli.exits import Exit
from ops.cli.main import cli
from tests.unit.chaos.sample import parts

FREEZE = '[[freeze]]\nfrom = 2020-01-01T00:00:00Z\nuntil = 2020-12-31T00:00:00Z\nreason = "long ago"\n'


@pytest.fixture
def folder(tmp_path: Path) -> EvidenceFolder:
    return EvidenceFolder(tmp_path / "m" / "drills")


def zaibei(folder: EvidenceFolder, *words: str, typed: str | None = None) -> Result:
    given = ["drill", *words, "--data", str(folder.folder.parent)]
    return CliRunner().invoke(cli, given, input=typed, env={"COLUMNS": "220", "CI": "", "ZAIBEI_CONFIG": None})


def document(folder: EvidenceFolder, *words: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(zaibei(folder, *words, "--json").stdout)
    return found


def test_a_folder_without_drills_says_what_to_do(folder: EvidenceFolder) -> None:
    listed = zaibei(folder, "list")
    assert listed.exit_code == Exit.DONE and all(one.name in listed.stdout for one in SCENARIOS) and "never" in listed.stdout
    assert zaibei(folder, "list", "--check").exit_code == Exit.VERIFICATION_FAILED
    assert "zaibei drill list" in zaibei(folder, "history").stdout
    assert zaibei(folder, "verify").exit_code == Exit.NOT_FOUND == zaibei(folder, "show", "1").exit_code


def test_history_show_and_verify(folder: EvidenceFolder, tmp_path: Path) -> None:
    folder.append(parts(text="node\x1b[2J-a"))
    folder.append(parts(Verdict.FAIL, planted="a bug"))
    said = zaibei(folder, "history")
    assert said.exit_code == Exit.DONE and "✓ pass" in said.stdout and "✗ fail" in said.stdout and "a bug" in said.stdout
    page = tmp_path / "page.html"
    shown = zaibei(folder, "show", "1", "--page", str(page))
    assert shown.exit_code == Exit.DONE and "rto_first_ms" in shown.stdout and "RPO_receipts" in shown.stdout
    assert "\x1b[2J" not in shown.stdout and "8.4 Rebuild" in page.read_text(encoding="utf-8")
    assert document(folder, "show", "2")["state"] == "sound"
    checked = zaibei(folder, "verify")
    assert checked.exit_code == Exit.DONE and checked.stdout.count("genuine") == 2 and folder.public().hex() in checked.stdout


def test_damage_is_told_and_nothing_of_it_is_shown(folder: EvidenceFolder) -> None:
    first, second = folder.append(parts()), folder.append(parts())
    first.write_bytes(first.read_bytes().replace(b'"right":false', b'"right":true '))
    for words in (("history",), ("verify",), ("show", "1"), ("verify", "1"), ("verify", "2")):
        assert zaibei(folder, *words).exit_code == Exit.VERIFICATION_FAILED, words
    told = zaibei(folder, "history").stdout
    assert "damaged" in told and "unchained" in told
    first.unlink()
    assert zaibei(folder, "verify", "2").exit_code == Exit.VERIFICATION_FAILED
    assert "missing" in zaibei(folder, "history").stdout
    assert second.exists()


def test_before_it_begins_it_says_what_it_does_and_asks(folder: EvidenceFolder) -> None:
    asked = zaibei(folder, "run", "s33", typed="n\n")
    assert asked.exit_code == Exit.FAILED and not list(folder.folder.glob("*.jsonl"))
    for word in ("touches", "clients notice", "how to stop it", "until", "SIGKILLed", "Begin?"):
        assert word in asked.output, word
    assert zaibei(folder, "run").exit_code == Exit.USAGE == zaibei(folder, "run", "s33", "--all").exit_code
    assert zaibei(folder, "run", "s99", "--yes").exit_code == Exit.NOT_FOUND


def test_it_does_not_begin_in_a_freeze_or_with_a_calendar_it_cannot_read(folder: EvidenceFolder) -> None:
    folder.folder.mkdir(parents=True)
    calendar = folder.folder / "drills.toml"
    calendar.write_text(FREEZE)
    assert zaibei(folder, "run", "s33", typed="n\n").exit_code == Exit.FAILED, "that one is over: it asks"
    now = datetime.now(UTC)
    around = [(now + timedelta(days=days)).strftime("%Y-%m-%dT00:00:00Z") for days in (-2, 2)]
    calendar.write_text(f'[[freeze]]\nfrom = {around[0]}\nuntil = {around[1]}\nreason = "an audit"\n')
    refused = zaibei(folder, "run", "s33", "--yes")
    assert refused.exit_code == Exit.REFUSED and "an audit" in refused.output and not list(folder.folder.glob("*.jsonl"))
    calendar.write_text("[[freeze]]\nreason = 1")
    for words in (("run", "s33", "--yes"), ("list",)):
        told = zaibei(folder, *words)
        assert told.exit_code == Exit.USAGE and "Nothing is run until it is right" in told.output
