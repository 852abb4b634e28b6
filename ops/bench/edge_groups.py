"""A member of many groups and nothing else: real host, links, journal and logs over machines that count.

`python -m ops.bench.edge_groups CONFIG.json` prints a line once its links are open, then takes orders on standard input:
`standing`                     prints how many groups are led here, how many sleep here, and how many know a leader
`busy GROUPS A_SECOND SECONDS` proposes entries of 1 KB in those of the first GROUPS that are led here; prints what came of it
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from prometheus_client import CollectorRegistry

from replica.consensus.edge_apply import ApplyThread
from replica.consensus.edge_journal import Journal
from replica.consensus.edge_link import GrpcLinks, LinkServer
from replica.consensus.edge_link_trust import TrustedMembers
from replica.consensus.group import GroupLog
from replica.consensus.host import GroupHost
from replica.consensus.link_port import Place
from replica.consensus.raft.membership import Membership
from replica.model.edge_identity import ensure_identity
from replica.model.errors import ZaibeiError
from replica.model.identity import Peer, Pins
from replica.model.outcome import LogEntry, Outcome, OutcomeKind
from replica.model.position import ORIGIN
from replica.takeover.edge_runner import boottime_ns
from replica.v1 import peer_pb2

CLUSTER, LINEAGE = b"benchmark of grp", b"benchmark lineag"
FIRST_GROUP = 2  # 1 is the control group's id
ENTRY_OCTETS = 1_024
STARTS_AT_ONCE = 32


class GroupsConfig(msgspec.Struct, forbid_unknown_fields=True):
    """One such member. folder: of all of them, with their identities; ports: of all, in the order of their numbers."""

    folder: str
    number: int
    ports: list[int]
    groups: int


class Counting:
    """A machine that remembers where it stands, and nothing else. Satisfies StateMachine."""

    def __init__(self) -> None:
        self._at = (0, 0)

    def applied(self) -> tuple[int, int]:
        return self._at

    def apply(self, entries: Sequence[LogEntry]) -> list[Outcome]:
        self._at = (entries[-1].index, entries[-1].term)
        return [Outcome(OutcomeKind.APPLIED, ORIGIN)] * len(entries)

    def durable_applied(self) -> int:
        return self._at[0]

    def flush(self) -> int:
        return self._at[0]

    def keep_from(self) -> int | None:
        return None


class Ears:
    """What the links tell, handed to the host."""

    def __init__(self) -> None:
        self.host: GroupHost | None = None

    def connected(self, member: int, hello: peer_pb2.Hello) -> None:
        if self.host is not None:
            self.host.connected(member, hello)

    def lost(self, member: int, why: str) -> None:
        if self.host is not None:
            self.host.lost(member, why)

    def received(self, member: int, messages: Sequence[peer_pb2.GroupMessage]) -> None:
        if self.host is not None:
            self.host.received(member, messages)

    def freshness(self, member: int, table: peer_pb2.FreshnessTable) -> None:
        if self.host is not None:
            self.host.freshness(member, table)

    def probes(self, member: int, table: peer_pb2.ProbeTable) -> None:
        """Nobody probes here."""


class Groups:
    """See the module."""

    def __init__(self, config: GroupsConfig) -> None:
        self._config = config
        self.folder = Path(config.folder)
        self.logs: dict[int, GroupLog] = {}

    async def start(self) -> None:
        config, number = self._config, self._config.number
        names = [f"m{one}" for one in range(1, len(config.ports) + 1)]
        identities = [ensure_identity(self.folder / name, name) for name in names]
        peers = [Peer(one.name, one.certificate_pem, role="member", number=place) for place, one in enumerate(identities, 1)]
        pins = Pins(tuple(peers))
        trust = TrustedMembers(identities[number - 1], lambda: pins)
        journal = await asyncio.to_thread(lambda: Journal.open(self.folder / f"journal-{number}"))
        apply, ears = ApplyThread(), Ears()
        apply.start()

        def hello() -> peer_pb2.Hello:
            return peer_pb2.Hello(
                format=1, cluster=CLUSTER, lineage=LINEAGE, member=number, name=f"m{number}", journal=journal.identity,
                boot=self.host.boot, groups=self.host.memory(),
            )  # fmt: skip

        links = GrpcLinks(hello, trust, ears, CollectorRegistry())
        self.host = ears.host = GroupHost(number, journal.boot, links, boottime_ns, raise_boot=journal.raise_boot)
        birth = Membership(voters=frozenset(range(1, len(config.ports) + 1)))
        turn = asyncio.Semaphore(STARTS_AT_ONCE)

        async def begin(ident: int) -> None:
            log = GroupLog(f"group-{ident}", journal, Counting(), apply, seat=self.host.seat(ident, birth))
            self.logs[ident] = log
            self.host.add(ident, log)
            async with turn:
                await log.start()
            self.host.started(ident)

        await asyncio.gather(*(begin(ident) for ident in range(FIRST_GROUP, FIRST_GROUP + config.groups)))
        server = LinkServer(trust, [links.service.add_to])
        await server.start([("127.0.0.1", config.ports[number - 1])])
        links.start()
        places = {one: Place((f"127.0.0.1:{port}",)) for one, port in enumerate(config.ports, 1) if one != number}
        links.set_places(places)
        self.host.start()
        self._held = (journal, apply, links, server)

    def standing(self) -> dict[str, int]:
        hosted = list(self.host.groups.values())
        return {
            "led": sum(one.log.leader for one in hosted),
            "asleep": sum(one.asleep for one in hosted),
            "known": sum(bool(one.log.leader_id) for one in hosted),
            "phases": len({one.log.phase for one in hosted}),
        }

    async def busy(self, groups: int, a_second: float, seconds: float) -> dict[str, Any]:
        """Each group on its own, open loop."""
        led = [log for ident, log in self.logs.items() if ident < FIRST_GROUP + groups and log.leader]
        data = sha256(os.urandom(32)).digest() * (ENTRY_OCTETS // 32)
        latencies: list[float] = []
        failed = 0

        async def one(log: GroupLog) -> None:
            nonlocal failed
            count, began = int(a_second * seconds), time.perf_counter()
            waiting = []
            for number in range(count):
                await asyncio.sleep(began + number / a_second - time.perf_counter())
                asked = time.perf_counter()
                try:
                    proposal = log.propose(data)
                except ZaibeiError:
                    failed += 1
                    continue
                proposal.committed.add_done_callback(partial(_note, asked, latencies))
                waiting.append(proposal.committed)
            failed += sum(isinstance(ended, BaseException) for ended in await asyncio.gather(*waiting, return_exceptions=True))

        await asyncio.gather(*(one(log) for log in led))
        latencies.sort()
        return {
            "led": len(led),
            "committed": len(latencies),
            "failed": failed,
            "p50_ms": _at(latencies, 50),
            "p99_ms": _at(latencies, 99),
        }


def _note(asked: float, latencies: list[float], done: asyncio.Future[int]) -> None:
    if not done.cancelled() and done.exception() is None:
        latencies.append(time.perf_counter() - asked)


def _at(times: list[float], percent: int) -> float:
    return times[len(times) * percent // 100] * 1e3 if times else 0.0


async def _serve(config: GroupsConfig) -> None:
    groups = Groups(config)
    await groups.start()
    _say({"ready": True})
    orders: asyncio.Queue[bytes] = asyncio.Queue()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _reader(orders))
    while order := await orders.get():
        match order.split():
            case [b"standing"]:
                _say(groups.standing())
            case [b"busy", count, a_second, seconds]:
                _say(await groups.busy(int(count), float(a_second), float(seconds)))


def _reader(orders: asyncio.Queue[bytes]) -> Callable[[], None]:
    return lambda: orders.put_nowait(sys.stdin.buffer.readline())


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    uvloop.run(_serve(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=GroupsConfig)))
