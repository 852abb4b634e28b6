"""Hosts of several members in one loop, joined by a hub that may be cut: real cores, memory journals, machines of lists."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from replica.consensus.group import GroupLog
from replica.consensus.group_limits import GroupLimits
from replica.consensus.host import GroupHost
from replica.consensus.host_limits import HostLimits
from replica.consensus.hosted import Offer
from replica.consensus.memory import ManualApply, MemoryDisk, MemoryJournal, inline
from replica.consensus.raft.membership import Membership
from replica.consensus.wire import fault_of
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry
from replica.v1 import peer_pb2
from tests.unit.consensus.machines import ListMachine

GROUP = 7
LIMITS = HostLimits(tick_s=0.005, sleep_after_ms=200, keep_ms=20, tell_ms=50, promises_share=0.5)


@dataclass(slots=True)
class Port:
    """A member's HostLinks over the hub."""

    hub: Hub
    member: int

    @property
    def connected(self) -> frozenset[int]:
        return frozenset(other for other in self.hub.members if other != self.member and self.hub.open(self.member, other))

    def send(self, member: int, message: peer_pb2.GroupMessage) -> bool:
        assert not fault_of(message), f"a link would refuse it: {fault_of(message)}"
        if self.hub.lost(message):
            return True
        return self.hub.carry(self.member, member, lambda one: one.host.received(self.member, [message]))

    def send_table(self, member: int, table: peer_pb2.FreshnessTable) -> bool:
        told = peer_pb2.FreshnessTable(groups=table.groups, echo_ns=time.monotonic_ns())
        return self.hub.carry(self.member, member, lambda one: one.host.freshness(self.member, told))


class Files:
    """MemberFiles by reference: what a member offers others may take."""

    def __init__(self, world: HostWorld, member: int) -> None:
        self.world, self.member = world, member
        self.fetched: dict[bytes, list[LogEntry]] = {}

    async def offer(self) -> Offer:
        machine = self.world.members[self.member].machine
        index, term = machine.applied()
        transfer = self.world.random.randbytes(16)
        self.world.offers[transfer] = list(machine.entries)
        return Offer(index, term, transfer)

    async def fetch(self, member: int, offer: Offer) -> None:
        await asyncio.sleep(0.01)
        await self.world.fetch_gate.wait()
        if self.world.fetch_fails:
            self.world.fetch_fails -= 1
            raise ZaibeiError(Code.UNREACHABLE, "planted", retry=True)
        self.fetched[offer.transfer] = self.world.offers[offer.transfer]

    def install(self, offer: Offer) -> tuple[int, int]:
        machine = self.world.members[self.member].machine
        machine.entries = list(self.fetched[offer.transfer])
        return machine.applied()


@dataclass(slots=True)
class One:
    """A running member."""

    host: GroupHost
    group: GroupLog
    journal: MemoryJournal
    machine: ListMachine
    worker: asyncio.Task[None]


class Hub:
    """Who reaches whom."""

    def __init__(self, world: HostWorld) -> None:
        self.world = world
        self.cut: set[tuple[int, int]] = set()
        self.lost: Callable[[peer_pb2.GroupMessage], bool] = lambda _message: False

    @property
    def members(self) -> Sequence[int]:
        return list(self.world.members)

    def open(self, one: int, other: int) -> bool:
        return (one, other) not in self.cut and other in self.world.members and one in self.world.members

    def carry(self, sender: int, to: int, deliver: Callable[[One], None]) -> bool:
        if not self.open(sender, to):
            return False

        def arrive() -> None:
            if self.open(sender, to):
                deliver(self.world.members[to])

        asyncio.get_running_loop().call_soon(arrive)
        return True


@dataclass
class HostWorld:
    """Members by number."""

    voters: frozenset[int]
    random: Random = field(default_factory=lambda: Random(1))
    limits: GroupLimits = field(default_factory=lambda: GroupLimits(stop_drain_s_max=0.2))
    host_limits: HostLimits = LIMITS

    def __post_init__(self) -> None:
        self.members: dict[int, One] = {}
        self.hub = Hub(self)
        self.offers: dict[bytes, list[LogEntry]] = {}
        self.fetch_fails = 0
        self.fetch_gate = asyncio.Event()
        self.fetch_gate.set()
        self.disks: dict[int, MemoryDisk] = {}
        self.kept: dict[int, list[LogEntry]] = {}

    async def start(self, member: int) -> One:
        """Start a member on what is left of its disk and store."""
        journal = MemoryJournal(self.disks.get(member))
        apply, machine = ManualApply(), ListMachine(list(self.kept.get(member, [])))
        host = GroupHost(
            member,
            journal.boot,
            Port(self.hub, member),
            time.monotonic_ns,
            limits=self.host_limits,
            random=Random(self.random.getrandbits(32)),
            raise_boot=lambda least: self._raise(journal, least),
        )
        voters = Membership(self.voters)
        group = GroupLog("g", journal, machine, apply, limits=self.limits, run_blocking=inline, seat=host.seat(GROUP, voters))
        one = One(host, group, journal, machine, asyncio.ensure_future(self._work(journal, apply)))
        self.members[member] = one
        host.risen = lambda: self.meet(member)  # all calls begin anew, with Hellos both ways
        host.add(GROUP, group, Files(self, member))
        await group.start()
        host.started(GROUP)
        host.start()
        self.meet(member)
        return one

    def _raise(self, journal: MemoryJournal, least: int) -> int:
        journal.boot = journal.disk.boots = max(journal.boot, least)
        return journal.boot

    def meet(self, member: int) -> None:
        """Hellos between a member and all it reaches."""
        for other in list(self.members):
            if other != member:
                for one, two in ((member, other), (other, member)):
                    if self.hub.open(one, two):
                        told = self.members[one].host
                        self.members[two].host.connected(one, peer_pb2.Hello(member=one, boot=told.boot, groups=told.memory()))

    async def _work(self, journal: MemoryJournal, apply: ManualApply) -> None:
        while True:
            await asyncio.sleep(0.0005)
            journal.flush()
            for _ in range(50):
                if not apply.step():
                    break

    async def kill(self, member: int) -> None:
        """The process dies; what was flushed stays."""
        one = self.members.pop(member)
        one.worker.cancel()
        if one.host._ticker is not None:
            one.host._ticker.cancel()
        for task in (*one.group._tasks,):
            task.cancel()
        self.disks[member] = one.journal.crash(self.random)
        self.kept[member] = list(one.machine.entries)
        for other in self.members.values():
            other.host.lost(member, "killed")

    def isolate(self, member: int) -> None:
        for other in self.hub.members:
            if other != member:
                self.hub.cut |= {(member, other), (other, member)}
                self.members[member].host.lost(other, "cut")
                self.members[other].host.lost(member, "cut")

    def heal(self) -> None:
        self.hub.cut.clear()
        for member in self.hub.members:
            self.meet(member)

    @property
    def leader(self) -> One | None:
        led = [one for one in self.members.values() if one.group.leader]
        return max(led, key=lambda one: one.group.term) if led else None

    async def led(self, limit_s: float = 30.0) -> One:
        await until(lambda: self.leader is not None, limit_s)
        found = self.leader
        assert found is not None
        return found

    async def write(self, data: bytes, limit_s: float = 30.0) -> int:
        """Propose wherever somebody leads until it is applied; returns its index."""
        async with asyncio.timeout(limit_s):
            while True:
                one = await self.led(limit_s)
                try:
                    proposal = one.group.propose(data)
                except ZaibeiError:
                    await asyncio.sleep(0.01)
                    continue
                outcome = await proposal.applied
                if outcome.kind == "applied":
                    return await proposal.committed

    async def same(self, limit_s: float = 30.0) -> None:
        """Wait until all machines hold the same."""
        await until(lambda: len({tuple(one.machine.entries) for one in self.members.values()}) == 1, limit_s)

    async def stop(self) -> None:
        for one in self.members.values():
            await one.group.stop()
            await one.host.stop()
            one.worker.cancel()


async def until(true: Callable[[], bool], limit_s: float = 30.0) -> None:
    async with asyncio.timeout(limit_s):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
