"""Plays one scenario: stage up, copied, clients ask, faults and heals, all back, contents and receipts looked up, judged, signed.

Trouble of the machinery is inconclusive, never a pass; whatever happens, faults heal and processes end.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

from chaos.drills.edge_guard import Look, guarded
from chaos.drills.judge import Judged, judge
from chaos.drills.outside import Content, Outside, Seen, read_history, read_lates
from chaos.faults.fault import FaultLog
from chaos.scenarios.scenario import Invariant, Plant, Scenario
from ops import VERSION
from ops.admin.values import SourceStatus
from ops.drills.acts import Acts, content_of
from ops.drills.certified_stage import CertifiedStage
from ops.drills.cluster_stage import ClusterStage
from ops.drills.edge_stage_files import MEMBER
from ops.drills.registering_cluster import RegisteringCluster
from ops.drills.registering_stage import RegisteringStage
from ops.drills.stage import Stage
from ops.drills.tenants_stage import TenantsStage
from ops.drills.top_stage import TopStage
from ops.drills.transfer_stage import TransferStage
from replica.model.errors import ZaibeiError

COPIED_S_MAX = 90.0
CALM_S = 2.5
AFTER_S = 1.0
RECEIPTS_MAX = 20_000

Tell = Callable[[str], None]


class Drill:
    """One run. `tell`: called with each thing that happens, one line."""

    def __init__(self, scenario: Scenario, folder: Path, seed: int, plant: Plant | None, tell: Tell) -> None:
        self.scenario, self.folder, self.seed, self.plant, self._tell = scenario, folder, seed, plant, tell
        self.log = FaultLog()
        self.outside = Outside(time.monotonic_ns())
        self.began_ms = time.time_ns() // 1_000_000
        self._last: dict[str, Seen] = {}

    async def run(self, look: Look) -> Judged:
        """Play it under its watch and judge it."""
        outside = self.outside
        outside.faults = self.log.events
        try:
            ended = await guarded(self._play, look, self.scenario.minutes_max)
            outside.aborted = ended.reason
        except Exception as exc:  # noqa: BLE001 - the machinery's own trouble is told, and is no verdict
            outside.doubts.append(f"{type(exc).__name__}: {str(exc)[:1_200]}")
        outside.ended_ns = time.monotonic_ns()
        outside.doubts += [f"the fault {one.fault} got stuck: {one.detail}" for one in self.log.stuck()]
        with suppress(OSError):
            octets = (self.folder / "history.jsonl").read_bytes()
            (outside.lookups, outside.prober_late_ms), outside.lates = read_history(octets), read_lates(octets)
        return judge(self.scenario, outside)

    async def _play(self) -> None:
        async with stage_of(self.scenario)(self.folder, self.scenario, self.seed, self.plant) as stage:
            acts = Acts(stage, self.outside, self.log, Random(self.seed))
            self._tell("the stage is set up")
            await stage.start_all()
            await self._until(stage, "copied", self._flows, COPIED_S_MAX)
            await stage.whole()
            await self._contents(stage, "before")
            await stage.start_prober()
            seeing = asyncio.create_task(self._see(stage))
            await stage.ask(do="pause", on=not self.scenario.load.every_ms)
            self._tell("copied and verified; clients ask")
            await asyncio.sleep(CALM_S)
            try:
                for step in self.scenario.steps:
                    await asyncio.sleep(step.after_s)
                    self._tell(f"fault: {step.act.value}")
                    async with acts.on(step):
                        await asyncio.sleep(step.for_s)
                        self._tell("healing")
                    if self.scenario.budgets.return_s:
                        await self._until(stage, "back", self._is_back, self.scenario.budgets.return_s, finding=True)
                await asyncio.sleep(AFTER_S)
                await self._last_looks(stage, acts)
            finally:
                seeing.cancel()

    # ------------------------------------------------------------------------------------------------------- looks

    @staticmethod
    def _flows(row: SourceStatus) -> bool:
        return row.ready and row.feed == "FLOWING" and row.verified is True and row.lag_entries == 0 and row.freshness == "fresh"

    def _is_back(self, row: SourceStatus) -> bool:
        return row.feed == "FLOWING" and row.verified is True and row.freshness == "fresh" and row.authority == "SOURCE"

    async def _until(
        self, stage: Stage, what: str, reached: Callable[[SourceStatus], bool], seconds: float, *, finding: bool = False
    ) -> None:
        """Raises TimeoutError; with `finding` it is a fact about the system instead."""
        until, rows = time.monotonic() + seconds, dict[str, SourceStatus]()
        while time.monotonic() < until:
            with suppress(ZaibeiError):
                rows = await stage.rows()
                if len(rows) == len(stage.sources) and all(map(reached, rows.values())):
                    if finding:
                        self.outside.facts.setdefault(what, True)
                        self.outside.notes.setdefault(what, "flows, verified, fresh, answered by the source again")
                    return
            await asyncio.sleep(stage.look_s)
        seen = "; ".join(
            f"{row.source}: {row.feed} {row.feed_reason} {row.authority} lag {row.lag_entries} {row.freshness}"
            for row in rows.values()
        )
        if not finding:
            raise TimeoutError(f"not {what} within {seconds:.0f} s: {seen or stage.tail('member')}")
        self.outside.facts[what], self.outside.notes[what] = False, f"not within {seconds:.0f} s: {seen}"

    async def _see(self, stage: Stage) -> None:
        """Write down every change of what the member says of each source."""
        while True:
            with suppress(ZaibeiError):
                rows, at_ns = await stage.rows(), time.monotonic_ns()
                for row in rows.values():
                    one = Seen(
                        at_ns, row.source, row.feed, row.authority, row.takeover, row.freshness, row.verified, row.feed_reason
                    )
                    if (last := self._last.get(row.source)) is None or replace(last, at_ns=at_ns) != one:
                        self._last[row.source] = one
                        self.outside.seen.append(one)
            await asyncio.sleep(stage.look_s)

    async def _contents(self, stage: Stage, when: str) -> None:
        """What each node and the member hold, at equal positions if they come to be so."""
        until = time.monotonic() + 15.0
        while True:
            found = list[Content]()
            for source, row in (await stage.rows()).items():
                told = await stage.ask(do="look", node=source)
                position, records, total = content_of(row)
                if told["sum"] is not None:
                    found.append(Content(when, source, "node", told["position"], told["records"], told["sum"]))
                if total is not None:
                    found.append(Content(when, source, MEMBER, str(position), int(records), str(total)))
            equal = len({(one.source, one.position, one.records, one.total) for one in found}) == len(stage.sources)
            if equal or time.monotonic() > until or Invariant.EQUAL not in self.scenario.invariants:
                self.outside.contents += found
                return
            await asyncio.sleep(stage.look_s)

    async def _last_looks(self, stage: Stage, acts: Acts) -> None:
        await stage.ask(do="pause", on=True)
        await asyncio.sleep(AFTER_S)
        await self._contents(stage, "after")
        count, wrong = await acts.not_honoured(RECEIPTS_MAX)
        self.outside.receipts, self.outside.not_honoured = count, wrong
        if self.outside.source_lost is None and not self.outside.lost:
            self.outside.source_lost, self.outside.source_lost_ms = 0, 0
        self._tell(f"{count} receipted names looked up, {len(wrong)} not honoured")


def stage_of(scenario: Scenario) -> type[Stage]:
    """What a scenario is played on."""
    if scenario.tenants:
        return TenantsStage
    if scenario.members > 1:
        return ClusterStage if scenario.fence is None else RegisteringCluster
    if scenario.fence is not None and scenario.by_ca:
        return TransferStage
    if scenario.fence is not None:
        return RegisteringStage
    if scenario.top_level:
        return TopStage
    return CertifiedStage if scenario.by_ca else Stage


def build_hash(root: Path) -> tuple[str, str]:
    """(name, SHA-256) of the code that runs: of every file of the product, by path."""
    out = hashlib.sha256()
    for room in ("replica", "hosting", "chaos", "ops"):
        for path in sorted((root / room).rglob("*.py")):
            out.update(str(path.relative_to(root)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return f"zaibei {VERSION}", out.hexdigest()


def machine() -> str:
    return f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}"
