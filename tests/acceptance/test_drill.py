"""A drill as an operator plays it: evidence a stranger can check, red with its planted bug, nothing left when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.evidence import verify_bundle
from chaos.evidence.bundle import Finding, Verdict
from chaos.evidence.edge_folder import EvidenceFolder
from chaos.evidence.seal import read
from chaos.faults.edge_process import runs
from ops.cli.exits import Exit

ROOT = Path(__file__).resolve().parents[2]
SCENARIO = "s30-mass-delete"
RUN_S_MAX = 110


def drill(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "ops.cli.main", "drill", "run", *words, "--yes", "--json", "--evidence", str(folder)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CI": ""}
    return subprocess.Popen(
        argv, cwd=folder.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, start_new_session=True
    )


def findings(folder: Path) -> dict[str, Verdict]:
    """Of the newest bundle."""
    evidence = EvidenceFolder(folder)
    newest = list(evidence.bundles())[-1]
    return {one.check: one.verdict for one in read(newest.octets, evidence.public()).parts if isinstance(one, Finding)}


def descendants(pid: int) -> set[int]:
    """Processes that this one started, and theirs."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text(encoding="latin-1").rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] != "Z":
            parents[int(path.parent.name)] = int(words[1])
    found, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        grown, found = bool(more), found | more
    return found - {pid}


@pytest.mark.timeout(300)
def test_a_drill_leaves_evidence_and_its_planted_bug_turns_it_red(tmp_path: Path) -> None:
    folder = tmp_path / "drills"
    green = drill(folder, SCENARIO)
    said, errors = green.communicate(timeout=RUN_S_MAX)
    document = json.loads(said.splitlines()[-1])
    assert document["drills"][-1]["verdict"] in ("pass", "inconclusive"), errors.decode()[-2_000:]
    found = findings(folder)
    for check in ("it is held", "nothing is applied", "answers go on", "receipts honoured"):
        assert found[check] is Verdict.PASS, found
    red = drill(folder, SCENARIO, "--red")
    red.communicate(timeout=RUN_S_MAX)
    assert red.returncode == Exit.DONE and Verdict.FAIL in (
        findings(folder)["it is held"],
        findings(folder)["nothing is applied"],
    )
    public, before = EvidenceFolder(folder).public(), None
    for one in EvidenceFolder(folder).bundles():
        checked = verify_bundle.verify(one.octets, public, before)
        before = one.octets
    assert checked["planted"] == "the brake never trips"


@pytest.mark.timeout(120)
def test_a_stopped_drill_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    spare = tmp_path / "tmp"
    spare.mkdir()
    os.environ["TMPDIR"] = str(spare)
    try:
        running = drill(tmp_path / "drills", "s33-secondary-dies")
    finally:
        del os.environ["TMPDIR"]
    until, started = time.monotonic() + 60, set[int]()
    while time.monotonic() < until and len(started) < 4:  # member, nodes, top, recursive
        started = descendants(running.pid)
        time.sleep(0.05)
    assert len(started) >= 4
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=40)
    assert running.returncode == Exit.FAILED
    assert not any(map(runs, started))
    assert not list(spare.iterdir())
