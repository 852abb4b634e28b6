"""A whole member and real source agents in one process, joined over loopback gRPC; for tests of the composition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from ops.calls import MemberCalls
from ops.config import load_config
from ops.config.values import Source, TakeoverPolicy
from ops.seat import Seat
from replica.agent.edge_log import AgentLog
from replica.agent.nature import Nature, Transaction
from replica.agent.records import record_of
from replica.agent.retention import Spool
from replica.feed.edge_source_server import SourceService, add_source_service
from replica.feed.edge_tls import SERVER_OPTIONS, server_credentials
from replica.member.copy import SourceCopy
from replica.member.member import Member
from replica.member.settings import MB, MemberSettings, SourceSettings
from replica.model.batch import OP_DELETE, OP_PUT, Change
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.handle.values import HandleValue
from replica.model.identifier import Identifier, prefix_key
from replica.model.identity import Peer, Pins
from replica.model.position import Position

WAIT_S = 30
HOSTS = ("127.0.0.1", "[::1]")


def key(name: str) -> bytes:
    return Identifier.parse(name).key()


def put(name: str, text: str = "https://example.cn/") -> Change:
    return Change(OP_PUT, key(name), record_of([HandleValue(1, b"URL", text.encode())]))


def delete(name: str) -> Change:
    return Change(OP_DELETE, key(name))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Node:
    """A source's agent: its log, and the service it offers while `serving`."""

    def __init__(
        self, folder: Path, name: str, prefix: str, member: Identity, answers_at: tuple[tuple[str, str, int], ...] = ()
    ) -> None:
        self.name, self.prefix, self.member = name, prefix, member
        self.identity = ensure_identity(folder / f"{name}-identity", name)
        nature = Nature(name, (prefix,), beat_interval_ms=100, resolution=answers_at)
        self.log = AgentLog.open(folder / f"{name}-state", nature, self.identity.signer, spool=Spool())
        self.log.trust_granters([member.signer.public])
        self.addresses: tuple[str, ...] = ()
        self.pins_more: tuple[Peer, ...] = ()  # further members that may come

    @property
    def pin(self) -> Peer:
        return Peer(self.name, self.identity.certificate_pem, (prefix_key(self.prefix),))

    def settings(self, **changes: Any) -> SourceSettings:
        made = SourceSettings(self.pin, (self.prefix,), pull=self.addresses, operable=False)
        return replace(made, **changes)

    async def write(self, *changes: Change) -> Position:
        return (await asyncio.to_thread(self.log.append, [Transaction(changes)]))[0]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Node]:
        pins = Pins((Peer(self.member.name, self.member.certificate_pem, role="member"), *self.pins_more))
        server = grpc.aio.server(options=list(SERVER_OPTIONS))
        add_source_service(server, SourceService(lambda _peer, _name: self.log, lambda: pins))
        ports = [server.add_secure_port(f"{host}:0", server_credentials(self.identity, pins)) for host in HOSTS]
        self.addresses = tuple(f"{host}:{port}" for host, port in zip(HOSTS, ports, strict=True))
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0.1)
            self.log.close()


def settings_of(folder: Path, identity: Identity, sources: Sequence[SourceSettings]) -> MemberSettings:
    return MemberSettings(
        name=identity.name,
        data=folder / "data",
        machine="machine-1",
        identity=identity,
        sources=tuple(sources),
        feed_listen=(("127.0.0.1", 0), ("::1", 0)),
        memory_octets=64 * MB,
        open_files=256,
        disk_reserve_octets=32 * MB,
    )


def _source(source: SourceSettings) -> Source:
    return Source(
        name=source.name,
        peer=source.peer,
        prefixes=source.prefixes,
        case_sensitive=source.case_sensitive,
        mode=source.mode,
        pull=(),
        horizon_s=source.horizon_ms // 1_000,
        armed=source.armed,
        takeover=TakeoverPolicy.NEVER,
        probe_name="",
        probes=(),
    )


class World:
    """A running member, what it reported as fatal, and its metrics."""

    def __init__(self, settings: MemberSettings) -> None:
        self.failures: list[BaseException] = []
        self.registry = CollectorRegistry()
        self.member = Member(settings, self.failures.append, self.registry)

    def calls(self) -> MemberCalls:
        """What the admin channel answers."""
        settings = self.member.settings
        config = load_config(data=settings.data, environment={}).config
        config = replace(config, sources=tuple(_source(source) for source in settings.sources))
        seat = Seat(lambda _: None, asyncio.Event(), self.registry, started_ms=0)
        return MemberCalls(config, self.member, seat, dict)

    def copy(self, name: str) -> SourceCopy:
        return self.member.copies[name]

    async def equal(self, node: Node) -> None:
        """Wait until the copy stands at the node's head with the node's content."""
        copy = self.copy(node.name)
        await until(lambda: copy.store.state().ready and copy.store.state().position == node.log.head())
        assert copy.store.digest_at(node.log.head()) == node.log.content.digest


@asynccontextmanager
async def running(settings: MemberSettings) -> AsyncIterator[World]:
    world = World(settings)
    await world.member.start()
    try:
        yield world
    finally:
        await world.member.stop()
