"""Members of one cluster in one process, joined over loopback gRPC with certificates of a private CA."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from ops.pki.edge_folder import PkiFolder
from ops.pki.edge_own import issue_into
from replica.cluster.card import Card, CardMember
from replica.member.cluster_life import ClusterLife
from replica.member.copy import SourceCopy
from replica.member.settings import MB, ClusterSettings, MemberSettings, SourceSettings
from replica.model.audit_seal import NO_KEYS, AuditKeys
from replica.model.edge_identity import Identity
from replica.model.edge_trust import LiveTrust, TrustFiles
from replica.model.identity import Pins
from replica.model.trust import Claims, Role
from tests.integration.member_world import World, until

CLUSTER, LINEAGE = os.urandom(16), os.urandom(16)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """Members by number; each has a folder of its own, kept over stops."""

    def __init__(self, folder: Path, zones: Sequence[str] = ("a", "b", "c")) -> None:
        self.folder, self.zones = folder, zones
        self.ca = PkiFolder.create(folder / "pki", "test CA")
        self.ports = {number: free_port() for number in range(1, len(zones) + 1)}
        self.identities: dict[int, Identity] = {}
        self.worlds: dict[int, World] = {}
        self.sources: tuple[SourceSettings, ...] = ()
        self.audit_keys: dict[int, AuditKeys] = {}  # of the members that have any
        for number in self.ports:
            home = folder / f"m{number}" / "identity"
            self.identities[number] = issue_into(self.ca, home, Claims(Role.MEMBER, f"m{number}", number, CLUSTER))

    def settings(self, number: int) -> MemberSettings:
        known = tuple(CardMember(one, f"m{one}", (f"127.0.0.1:{port}",)) for one, port in self.ports.items())
        files = TrustFiles((self.folder / "pki" / "ca.pem",), (self.folder / "pki" / "crl.pem",), CLUSTER)
        cluster = ClusterSettings(
            card=Card(CLUSTER, LINEAGE, number, f"m{number}", known),
            trusts=LiveTrust(Pins, files, frozenset({Role.MEMBER})),
            links_listen=(("127.0.0.1", self.ports[number]),),
            zone=self.zones[number - 1],
        )
        return MemberSettings(
            name=f"m{number}",
            data=self.folder / f"m{number}",
            machine=f"machine-{number}",
            identity=self.identities[number],
            sources=self.sources,
            feed_listen=(("127.0.0.1", 0),),
            memory_octets=64 * MB,
            open_files=256,
            disk_reserve_octets=32 * MB,
            cluster=cluster,
            audit_keys=self.audit_keys.get(number, NO_KEYS),
        )

    async def start(self, *numbers: int) -> None:
        """Member 1 begins the cluster; others were admitted by it, in the order of their numbers."""
        for number in numbers:
            world = World(self.settings(number))
            await world.member.start()
            self.worlds[number] = world

    async def admit_all(self) -> None:
        """What `zaibei cluster invite` and `join` do: each gets its number."""
        from dataclasses import replace

        from replica.cluster import entries
        from replica.cluster.state import MemberRecord
        from replica.member.cluster_side import now_ms

        life = self.life(1)
        await until(lambda: life.side.state.member(1) is not None)
        for number in sorted(self.ports):
            if life.side.state.member(number) is None:
                record = MemberRecord(number, f"m{number}", self.zones[number - 1], f"machine-{number}")
                await life.care.propose(entries.admitted(life.care.act(), now_ms(), replace(record)))

    def life(self, number: int) -> ClusterLife:
        life = self.worlds[number].member.life
        assert life is not None
        return life

    def copy(self, number: int, name: str) -> SourceCopy:
        return self.worlds[number].member.copies[name]

    async def stop(self, *numbers: int) -> None:
        for number in numbers or tuple(self.worlds):
            await self.worlds.pop(number).member.stop()

    def trouble(self) -> dict[int, dict[str, object]]:
        """What is out of service, by member and source."""
        return {number: dict(world.member.broken) for number, world in self.worlds.items() if world.member.broken}

    def leader(self, name: str) -> int:
        """Who admits proposals of a source; 0: nobody."""
        led = [
            number
            for number, world in self.worlds.items()
            if name in world.member.copies and self.copy(number, name).led.is_set()
        ]
        return led[0] if len(led) == 1 else 0

    async def placed_everywhere(self, name: str) -> None:
        """Wait until every running member has a vote in a source's group."""
        here = frozenset(self.worlds)
        await until(lambda: all(name in world.member.copies for world in self.worlds.values()) or self.trouble())
        assert not self.trouble(), self.trouble()
        await until(lambda: all(self.copy(number, name).log.membership.voters == here for number in here))
        await until(lambda: self.leader(name))


@asynccontextmanager
async def cluster(folder: Path, zones: Sequence[str] = ("a", "b", "c")) -> AsyncIterator[Cluster]:
    made = Cluster(folder, zones)
    try:
        yield made
    finally:
        async with asyncio.timeout(60):
            await made.stop()
