"""Signs what a run left in its folder and puts it at the end of the chain of a folder of evidence."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from chaos.check.history import parse
from chaos.check.verdict import Verdict
from chaos.evidence.bundle import RedProof
from chaos.evidence.edge_folder import EvidenceFolder
from chaos.evidence.history import index, newest_red
from chaos.faults.fault import Event, FaultState
from ops.drills.run import build_hash, machine
from tests.faults.evidence import NO_RULE, Seen, Where, name_of, parts_of
from tests.faults.scenario import Scenario
from tests.faults.system import ROOT


@dataclass(frozen=True, slots=True)
class Left:
    """What the runner knows of a run. folder: of history.jsonl and faults.json; None: it was not run."""

    verdict: Verdict
    why: list[str]
    figures: dict[str, object]
    folder: Path | None


class Evidence:
    """See the module. Raises ZaibeiError: its key is missing, damaged, or readable for others."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = EvidenceFolder(folder.absolute()), seed
        self._folder.signer()  # before anything is broken: without a key there is no evidence

    def keep(self, scenario: Scenario, system: str, left: Left, remark: str) -> Path:
        """One bundle; returns its file."""
        seen = _seen(left)
        config = hashlib.sha256(repr(scenario).encode()).hexdigest()
        name, build = build_hash(ROOT)
        hashes = {("build", name): build, ("config", name_of(scenario)): config}
        began_ms = time.time_ns() // 1_000_000 - seen.took_ms
        where = Where(system, self._seed, began_ms, _by(), machine(), hashes, remark)
        return self._folder.append(parts_of(scenario, seen, where, self._red(scenario, system)))

    def _red(self, scenario: Scenario, system: str) -> RedProof:
        planted = next(iter(scenario.reds()), NO_RULE)
        if ":" in system:
            return RedProof(planted, None, "", "this is the red run itself")
        found = newest_red(index(self._folder.bundles(), self._folder.public()), name_of(scenario), planted)
        if found is None:
            return RedProof(planted, None, "", "no red run lies in this folder")
        return RedProof(planted, found.verdict, found.sha256, f"bundle {found.number}, with this rule turned off")


def _seen(left: Left) -> Seen:
    took_ms = round(float(str(left.figures.get("took s", 0))) * 1_000)
    log = None if left.folder is None else left.folder / "faults.json"
    if left.folder is None or log is None or not log.exists():
        return Seen(left.verdict, left.why, left.figures, took_ms=took_ms)
    events = [
        Event(one["at_ns"], one["fault"], FaultState(one["what"]), one["detail"]) for one in json.loads(log.read_text())["faults"]
    ]
    operations = list(parse((left.folder / "history.jsonl").read_text().splitlines()))
    moments = [one.t0_ns for one in operations] + [one.at_ns for one in events]
    judged = operations if "operations" in left.figures else ()
    return Seen(left.verdict, left.why, left.figures, judged, events, min(moments, default=0), took_ms)


def _by() -> str:
    if os.environ.get("CI", "").lower() == "true":
        return "CI"
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody without a name"
