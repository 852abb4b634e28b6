"""From a scenario's name to a signed bundle: may it run now, what is said first, who watches, what is kept."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import msgspec

from chaos.drills.abort import Glimpse
from chaos.drills.calendar import Calendar, Freeze, blocking, parse
from chaos.drills.edge_guard import Look
from chaos.drills.judge import Judged
from chaos.drills.report import Ran, parts_of
from chaos.drills.schedule import Due, standings
from chaos.evidence.bundle import RedProof
from chaos.evidence.edge_folder import EvidenceFolder
from chaos.evidence.history import Row, index, newest_red
from chaos.scenarios.all import SCENARIOS
from chaos.scenarios.scenario import Plant, Scenario
from ops.admin.edge_client import AdminClient
from ops.drills.edge_rigs import Rig, rigs_of
from ops.drills.run import Drill, build_hash, machine
from replica.model.errors import Code, ZaibeiError

CALENDAR_FILE = "drills.toml"
ROOT = Path(__file__).resolve().parents[2]
QUICK_TIMES = 10  # a quick run repeats what repeats itself so many times less
TROUBLE = ("FORKED", "FENCED", "HELD", "DIVERGED")

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Done:
    """A drill that was run: its bundle's file and what it was worth."""

    scenario: Scenario
    bundle: Path
    judged: Judged


class Desk:
    """Drills of one folder of evidence.

    Args:
        folder: of evidence; admin: the socket of a running member that is watched for real incidents; it need not exist.
    """

    def __init__(self, folder: Path, admin: Path) -> None:
        self.evidence, self._admin = EvidenceFolder(folder), admin
        self.folder = folder

    def calendar(self) -> Calendar:
        """Raises ZaibeiError(INVALID_CONFIG)."""
        path, names = self.folder / CALENDAR_FILE, [one.name for one in SCENARIOS]
        if not path.exists():
            return Calendar()
        try:
            return parse(path.read_bytes(), names)
        except ZaibeiError:  # it may name one of the rigs: these take a moment to ask for
            return parse(path.read_bytes(), [*names, *(rig.name for rig in self.rigs or ())])

    @cached_property
    def rigs(self) -> tuple[Rig, ...] | None:
        """Scenarios that other commands play; None: not from here. Raises ZaibeiError(UNKNOWN)."""
        return rigs_of(ROOT)

    def history(self) -> tuple[Row, ...]:
        """Every drill of the folder, made anew from its bundles."""
        return index(self.evidence.bundles(), self.evidence.public()) if any(self.folder.glob("*.jsonl")) else ()

    def standings(self, now_ms: int) -> tuple[Due, ...]:
        """Of every scenario and every rig. Raises ZaibeiError."""
        planted = {one.name: one.red.value for one in SCENARIOS} | {rig.name: rig.planted for rig in self.rigs or ()}
        return standings(planted, self.calendar(), self.history(), now_ms)

    def frozen(self, scenario: Scenario, now_ms: int) -> Freeze | None:
        """The freeze that forbids it now."""
        return blocking(self.calendar().freezes, now_ms, scenario.minutes_max)

    def run(self, scenario: Scenario, *, seed: int, by: str, red: bool, quick: bool, keep: Path | None, tell: Tell) -> Done:
        """Play it, judge it, sign it.

        Args:
            red: with its planted bug. quick: what repeats itself is repeated less, and the bundle says so.
            keep: folder for logs and histories; None: removed.
        Raises:
            ZaibeiError(REFUSED): a freeze. Trouble while it runs is a verdict, no exception.
        """
        if (freeze := self.frozen(scenario, time.time_ns() // 1_000_000)) is not None:
            raise ZaibeiError(Code.REFUSED, f"no drill now: {freeze.reason}. Next: wait, or change {self.folder / CALENDAR_FILE}")
        self.evidence.signer()  # before anything is broken: without a key there is no evidence
        plant = scenario.red if red else None
        played, remark = (_quick(scenario), "; quick: repeated less than the scenario asks") if quick else (scenario, "")
        folder = Path(tempfile.mkdtemp(prefix="zaibei-drill-")) if keep is None else _fresh(keep, scenario.name)
        try:
            drill = Drill(played, folder / "stage", seed, plant, tell)
            judged = asyncio.run(drill.run(self.watch()))
            ran = Ran(seed, drill.began_ms, by, machine(), self._hashes(scenario), plant, remark)
            bundle = self.evidence.append(parts_of(played, drill.outside, judged, ran, self._red(scenario, plant)))
        finally:
            if keep is None:
                shutil.rmtree(folder, ignore_errors=True)
        return Done(scenario, bundle, judged)

    def watch(self) -> Look:
        """How the drill's watch looks at the real member beside it: what stands otherwise than at the begin is an incident."""
        before = self._seen()

        async def look() -> Glimpse:
            if before is None:
                return Glimpse()
            now = await asyncio.to_thread(self._seen)
            if now is None:
                return Glimpse(("the member of this folder does not answer",))
            return Glimpse(tuple(f"{source} is {now[source]}" for source in now if now[source] != before.get(source, WELL)))

        return look

    def _seen(self) -> dict[str, str] | None:
        """Trouble of each source of the real member, WELL for none; None: no member runs."""
        if not self._admin.exists():
            return None
        try:
            with AdminClient(self._admin) as admin:
                return {
                    row.source: row.authority if row.authority != "SOURCE" else row.feed if row.feed in TROUBLE else WELL
                    for row in admin.sources()
                }
        except ZaibeiError:
            return None

    def _hashes(self, scenario: Scenario) -> dict[tuple[str, str], str]:
        name, value = build_hash(ROOT)
        config = hashlib.sha256(msgspec.json.encode(_plain(scenario), order="sorted")).hexdigest()
        return {("build", name): value, ("config", scenario.name): config}

    def _red(self, scenario: Scenario, plant: Plant | None) -> RedProof:
        if plant is not None:
            return RedProof(plant.value, None, "", "this is the red run itself")
        found = newest_red(self.history(), scenario.name, scenario.red.value)
        if found is None:
            return RedProof(scenario.red.value, None, "", "no red run lies in this folder: zaibei drill run --red")
        return RedProof(scenario.red.value, found.verdict, found.sha256, f"bundle {found.number}")


WELL = "well"


def _quick(scenario: Scenario) -> Scenario:
    return replace(scenario, steps=tuple(replace(step, times=max(1, step.times // QUICK_TIMES)) for step in scenario.steps))


def _plain(scenario: Scenario) -> dict[str, object]:
    found = msgspec.to_builtins(scenario)
    return {**found, "needs": sorted(found["needs"])}


def _fresh(keep: Path, name: str) -> Path:
    """A folder that is not there yet: nothing is ever overwritten."""
    keep.mkdir(parents=True, exist_ok=True)
    return next(path for number in range(1, 100_000) if not (path := keep / f"{name}-{number}").exists())
