"""Faults of scenarios as values: who is hit (a target) and how; `on(stage)` gives a context that breaks and always heals.

A heal ends the fault and, where members died of it or by it, starts them again: a scenario is over when everybody takes part
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

from chaos.faults import edge_damage, edge_image, edge_process
from chaos.faults.edge_shim import Call, Shim
from chaos.faults.fault import Fault
from chaos.rigs.edge_memory import MemoryLimit
from chaos.rigs.edge_power import PowerDisk
from replica.model.errors import require
from tests.faults.reading import found_it
from tests.faults.system import System
from tests.faults.workload import History

STOPS_S_MAX = 10.0
CRASH_S_MAX = 20.0
SQUEEZES_MAX = 15


@dataclass(slots=True)
class Stage:
    """What acts work on, and what they found wrong."""

    system: System
    chance: Random
    folder: Path
    disks: dict[int, PowerDisk] = field(default_factory=dict)
    limits: dict[int, MemoryLimit] = field(default_factory=dict)
    unmet: list[str] = field(default_factory=list)  # what should have happened and did not: the scenario fails
    unsure: list[str] = field(default_factory=list)  # what could not be found out: it is inconclusive
    facts: dict[str, object] = field(default_factory=dict)
    history: History = field(default_factory=History)  # what clients have seen so far

    def shim(self, member: int) -> Shim:
        shim = self.system.seats[member].shim
        require(shim is not None, "a disk fault needs the shim")
        assert shim is not None
        return shim

    def files(self, member: int) -> str:
        """Pattern of a member's data."""
        return f"{self.system.seats[member].data}/*"

    async def start_again(self, members: list[int]) -> None:
        """Whoever of them does not run, and did not leave meanwhile."""
        for member in members:
            if member in self.system.seats:
                self.system.launch(member)


class Target(Protocol):
    """Who is hit; chosen when the fault begins."""

    async def choose(self, stage: Stage) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Leader:
    async def choose(self, stage: Stage) -> list[int]:
        return [await stage.system.leader()]


@dataclass(frozen=True, slots=True)
class Follower:
    """spare_keeper: none whose folder holds what no other member can give back."""

    spare_keeper: bool = False

    async def choose(self, stage: Stage) -> list[int]:
        spared = {await stage.system.leader(), stage.system.keeper if self.spare_keeper else 0}
        return [stage.chance.choice([member for member in stage.system.seats if member not in spared])]


@dataclass(frozen=True, slots=True)
class Everybody:
    async def choose(self, stage: Stage) -> list[int]:
        return list(stage.system.seats)


@dataclass(frozen=True, slots=True)
class MinorityWithLeader:
    """The leader and as many others as leave a majority without it."""

    async def choose(self, stage: Stage) -> list[int]:
        leader = await stage.system.leader()
        others = [member for member in stage.system.seats if member != leader]
        stage.chance.shuffle(others)
        return [leader, *others[: (len(stage.system.seats) - 1) // 2 - 1]]


@dataclass(frozen=True, slots=True)
class ZoneOfLeader:
    async def choose(self, stage: Stage) -> list[int]:
        zone = stage.system.seats[await stage.system.leader()].zone
        return [member for member, seat in stage.system.seats.items() if seat.zone == zone]


class Act(Protocol):
    """A fault of a scenario."""

    def on(self, stage: Stage) -> AbstractAsyncContextManager[object]: ...


def rest(stage: Stage, members: list[int]) -> list[int]:
    return [member for member in stage.system.seats if member not in members]


# ------------------------------------------------------------------------------------------------------- processes and links


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL all of the target at once; the heal starts them again."""

    who: Target

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        members = await self.who.choose(stage)
        pids = [pid for member, pid in stage.system.pids().items() if member in members]
        async with edge_process.killed(pids, lambda: stage.start_again(members), stage.system.log):
            yield


@dataclass(frozen=True, slots=True)
class Freeze:
    who: Target

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for member in await self.who.choose(stage):
                await stack.enter_async_context(edge_process.frozen(stage.system.pids()[member], stage.system.log))
            yield


@dataclass(frozen=True, slots=True)
class Part:
    """Nothing passes between the target and the rest. `way`: "both", "out" (what the target sends is lost) or "in"."""

    who: Target
    way: str = "both"

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        side = await self.who.choose(stage)
        other = rest(stage, side)
        network = stage.system.lab or stage.system.mesh
        match self.way:
            case "out":
                fault = network.one_way(side, other)
            case "in":
                fault = network.one_way(other, side)
            case _:
                fault = network.parted(side, other)
        async with fault:
            yield


@dataclass(frozen=True, slots=True)
class RollingRestart:
    """Each member in turn stops in order and starts again, on another version's tree and back if one is given."""

    tree: Path | None = None
    back: bool = True

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        home = {member: seat.tree for member, seat in stage.system.seats.items()}
        await self._round(stage, {member: self.tree or tree for member, tree in home.items()})
        yield
        if self.back:
            await self._round(stage, home)

    async def _round(self, stage: Stage, trees: dict[int, Path]) -> None:
        for member, tree in trees.items():
            code = await stage.system.stop_member(member)
            stage.facts[f"exit of {member}"] = code
            stage.system.seats[member].tree = tree
            stage.system.launch(member)
            await stage.system.up(member, CRASH_S_MAX)


# ------------------------------------------------------------------------------------------------------------------- disks


@dataclass(frozen=True, slots=True)
class SyncFails:
    """fsync returns EIO, so many times (-1: always). A member that goes on after it is at fault."""

    who: Target
    times: int = 1

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        members = await self.who.choose(stage)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(stage.start_again, members)
            for member in members:
                fault = stage.shim(member).sync_fails(stage.files(member), times=self.times)
                await stack.enter_async_context(fault)
                await ends_by_itself(stage, member, f"fsync returned EIO {self.times} times")
            yield


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """Every change of a file returns EROFS. As a failed fsync."""

    who: Target

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        members = await self.who.choose(stage)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(stage.start_again, members)
            for member in members:
                await stack.enter_async_context(stage.shim(member).read_only(stage.files(member)))
                await ends_by_itself(stage, member, "its file system went read-only")
            yield


async def ends_by_itself(stage: Stage, member: int, why: str) -> None:
    """A member whose disk failed stops: no more of it may count (promise 12)."""

    async def ended() -> bool:
        return stage.system.seats[member].pid() is None

    try:
        await stage.system.until(f"member {member} stops itself", ended, STOPS_S_MAX)
    except TimeoutError:
        stage.unmet.append(f"member {member} went on although {why}")


@dataclass(frozen=True, slots=True)
class SyncSlow:
    who: Target
    delay_ms: int

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            faults = [
                await stack.enter_async_context(stage.shim(member).sync_slow(stage.files(member), self.delay_ms))
                for member in await self.who.choose(stage)
            ]
            yield
            if not sum(fault.hits for fault in faults):
                stage.unsure.append("nobody synced while the disk was slow")


@dataclass(frozen=True, slots=True)
class CrashBetweenSteps:
    """A member dies right before its n-th call of some kind on its files, for each n in turn, and starts again.

    Args:
        calls: which calls count as steps of persistence.
        steps: places of death, counted from the moment the fault is on.
        pattern: which of its files, a shell pattern below its folder.
    """

    who: Target
    calls: Call
    steps: tuple[int, ...]
    pattern: str = "*"

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        died = 0
        for step in self.steps:
            for member in await self.who.choose(stage):
                files = f"{stage.system.seats[member].data}/{self.pattern}"
                async with stage.shim(member).dies_at(files, self.calls, step):
                    died += await self._death(stage, member)
                stage.system.launch(member)
                await stage.system.up(member, CRASH_S_MAX)
        stage.facts["deaths"] = died + int(str(stage.facts.get("deaths", 0)))
        if died < len(self.steps):
            stage.unsure.append(f"only {died} of {len(self.steps)} places of death were reached")
        yield

    async def _death(self, stage: Stage, member: int) -> int:
        async def dead() -> bool:
            return stage.system.seats[member].pid() is None

        try:
            await stage.system.until(f"member {member} dies", dead, CRASH_S_MAX)
        except TimeoutError:
            return 0
        return 1


@dataclass(frozen=True, slots=True)
class Damage:
    """A member is killed, one of its files is damaged, it starts again while load goes on and must heal from its peers.

    Args:
        kind: which file: "wal", "table" or "manifest" as the system calls them, or a shell pattern; how: "flip", "truncate" or
        "remove"; share: where in it, 0..1.
        read: the largest file is hit, and its copies are read through afterwards, as for any disk under suspicion; that must find
            it. In a block that nobody asks for it would come to light when another member is hit: two are no minority of three.
    """

    who: Target
    kind: str
    how: str
    share: float
    read: bool = False

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        [member] = await self.who.choose(stage)
        async with Kill(Chosen((member,))).on(stage):
            pattern = stage.system.patterns.get(self.kind, self.kind)
            data = stage.system.seats[member].data
            path = edge_damage.largest(data, pattern) if self.read else edge_damage.pick(data, pattern, stage.chance)
            stage.facts[f"{self.how} {self.kind}"] = path.name
            async with edge_damage.damaged([path], self.how, self.share, put_back=False, log=stage.system.log):
                yield
        if self.read:
            found = await stage.system.read_through(member)
            stage.facts[f"read through {member}"] = ", ".join(f"{source} {finding}" for source, finding in found.items())
            text = f"{path.name} of member {member} is damaged, and reading its copies through did not find it"
            if found and not (looked := found_it(found.values())):
                (stage.unsure if looked is None else stage.unmet).append(f"{text}: {found}")


@dataclass(frozen=True, slots=True)
class Chosen:
    """These members."""

    members: tuple[int, ...]

    async def choose(self, stage: Stage) -> list[int]:
        return list(self.members)


@dataclass(frozen=True, slots=True)
class OldImage:
    """Some seconds of acknowledged work, then the member comes back with its disk as it was before them.

    Args:
        lying: meanwhile its fsync lied, so that the loss is the disk's own; else somebody restored a backup.
    """

    who: Target
    work_s: float = 2.0
    lying: bool = False

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        [member] = await self.who.choose(stage)
        seat = stage.system.seats[member]
        image = stage.folder / f"image{len(stage.facts)}-{member}"
        stage.facts[f"old image of {member}"] = image.name
        async with AsyncExitStack() as stack:
            edge_image.take(seat.data, image, seat.pid())
            if self.lying:
                await stack.enter_async_context(stage.shim(member).sync_lies(stage.files(member)))
            await asyncio.sleep(self.work_s)
            stack.push_async_callback(refused_its_vote, stage, member)
            stack.push_async_callback(stage.start_again, [member])
            pids = [pid] if (pid := seat.pid()) else []
            async with edge_process.killed(pids, edge_nothing, stage.system.log):
                edge_image.put_back(image, seat.data)
            yield


async def refused_its_vote(stage: Stage, member: int) -> None:
    """Was a member without its memory refused its vote? Asked until it says so or takes part again."""
    for _ in range(int(CRASH_S_MAX / 0.1)):
        found = await stage.system.amnesiac(member)
        if found:
            stage.facts["refused its vote"] = True
            return
        if await stage.system.ready(stage.system.seats[member]):
            break
        await asyncio.sleep(0.1)
    found = await stage.system.amnesiac(member)
    stage.facts["refused its vote"] = found
    if found is None:
        stage.unsure.append(f"the system does not say whether member {member} was refused its vote")
    elif not found:
        stage.unmet.append(f"member {member} takes part with the memory of an old disk")


async def edge_nothing() -> None:
    """Started by the act itself, after its disk was changed."""


# ------------------------------------------------------------------------------------------------------------------- rigs


@dataclass(frozen=True, slots=True)
class PowerCut:
    """Power fails at all disks of the target in one moment; the processes die; power and processes come back.

    Args:
        lying: their fsync had lied since `lying_s` before.
    """

    who: Target
    lying_s: float = 0

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        members = await self.who.choose(stage)
        async with AsyncExitStack() as stack:
            if self.lying_s:
                for member in members:
                    await stack.enter_async_context(stage.shim(member).sync_lies(stage.files(member)))
                await asyncio.sleep(self.lying_s)
            fault = Fault(
                f"power {members}", lambda: self._cut(stage, members), lambda: self._back(stage, members), stage.system.log
            )
            async with fault:
                yield

    async def _cut(self, stage: Stage, members: list[int]) -> None:
        for member in members:
            stage.disks[member].cut()
        pids = [pid for member, pid in stage.system.pids().items() if member in members]
        async with edge_process.killed(pids, edge_nothing):
            pass
        for member in members:
            seat = stage.system.seats[member]
            if seat.process is not None:
                seat.process.wait()

    async def _back(self, stage: Stage, members: list[int]) -> None:
        for member in members:
            stage.disks[member].restore()
        await stage.start_again(members)
        if self.lying_s:
            for member in members:
                await refused_its_vote(stage, member)


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The kernel kills a member for its memory; healed by a start without the limit."""

    who: Target

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        [member] = await self.who.choose(stage)
        pid, limit = stage.system.pids()[member], stage.limits[member]
        before = limit.kills()

        async def heal() -> None:
            limit.limit(None)
            await stage.start_again([member])

        async with Fault(f"memory of {member}", lambda: self._squeezed(stage, limit, pid), heal, stage.system.log):
            killed = limit.kills() - before
            stage.facts["killed by the kernel"] = killed + int(str(stage.facts.get("killed by the kernel", 0)))
            if not killed:
                stage.unsure.append(f"the kernel did not kill member {member}")
            yield

    async def _squeezed(self, stage: Stage, limit: MemoryLimit, pid: int) -> None:
        for _ in range(SQUEEZES_MAX):
            limit.squeeze()
            try:
                await edge_process.gone(pid, 1.0)
                return
            except TimeoutError:
                continue
