"""A system and its rigs in which several scenarios are played, one after the other: whoever ends well leaves it to the next one.

A scenario that did not pass takes its system with it: what it broke must not be laid at the next one's door.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.rigs.edge_memory import MemoryLimit
from chaos.rigs.edge_network import NetLab
from chaos.rigs.edge_power import PowerDisk
from tests.faults.scenario import Scenario
from tests.faults.system import System

LATE_MS = 100  # a task that wakes up so much too late did not get the machine
LATE_EVERY_S = 0.02
LATE_SHARE_MAX = 0.02  # of a run's time: beyond it, long pauses are the machine's


@dataclass(frozen=True, slots=True)
class Setting:
    """What a system is built of; scenarios of one setting share it."""

    members: int
    zones: tuple[str, ...]
    disks: bool
    lab: bool
    wires: bool
    memory: bool


def setting_of(scenario: Scenario) -> Setting:
    return Setting(scenario.members, scenario.zones, scenario.disks, scenario.lab, scenario.wires, scenario.memory)


class House:
    """A started system with its rigs."""

    def __init__(self, kind: type[System], setting: Setting, folder: Path, seed: int, lab: NetLab | None) -> None:
        self._kind, self._setting, self.folder, self._seed, self._lab = kind, setting, folder, seed, lab
        self._rigs = ExitStack()
        self.disks: dict[int, PowerDisk] = {}
        self.limits: dict[int, MemoryLimit] = {}
        self.system: System | None = None
        self.started_s = 0.0

    async def open(self) -> System:
        """Build and start; returns when all members take part. Raises whatever went wrong, with nothing left behind."""
        began_s, numbers = time.monotonic(), range(1, self._setting.members + 1)
        self.folder.mkdir(parents=True)
        try:
            if self._setting.disks:
                self.disks = {n: self._rigs.enter_context(PowerDisk(self.folder / f"power{n}")) for n in numbers}
            if self._setting.memory:
                self.limits = {n: self._rigs.enter_context(MemoryLimit()) for n in numbers}
            at = {number: disk.at for number, disk in self.disks.items()}
            zones = self._setting.zones
            self.system = self._kind(self.folder, len(numbers), zones=zones, disks=at, lab=self._lab, seed=self._seed)
            self.system.groups = {number: limit.at for number, limit in self.limits.items()}
            await self.system.start()
        except BaseException:
            await self.close()
            raise
        self.started_s = time.monotonic() - began_s
        return self.system

    async def close(self) -> None:
        try:
            if self.system is not None:
                await self.system.close()
                self.system = None
        finally:
            self._rigs.close()


@dataclass(slots=True)
class Lateness:
    """How late the runner's own tasks were: what the machine did to everybody on it, the members included."""

    times: int = 0
    worst_ms: int = 0
    total_ms: int = 0
    span_ms: int = 0

    @property
    def often(self) -> bool:
        return self.total_ms > self.span_ms * LATE_SHARE_MAX

    def line(self) -> str:
        return f"{self.times}x, {self.worst_ms} ms at most" if self.times else "never"

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        began_s, task = time.monotonic(), asyncio.create_task(self._measure())
        try:
            yield
        finally:
            self.span_ms = int((time.monotonic() - began_s) * 1_000)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _measure(self) -> None:
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(LATE_EVERY_S)
            late_ms = int((time.monotonic() - began_s - LATE_EVERY_S) * 1_000)
            if late_ms > LATE_MS:
                self.times += 1
                self.total_ms += late_ms
                self.worst_ms = max(self.worst_ms, late_ms)


def load_of_machine() -> float:
    """Mean number of processes that wanted a core within the last minute, for each core."""
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 1)
