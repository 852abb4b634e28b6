"""A member with hosted sources and its registration port in this process, and registrars' clients; for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from hosting.tenant.edge_client import RegistrationClient
from hosting.tenant.edge_port import RegistrationPort
from ops.config.values import Source, TakeoverPolicy
from ops.registering import registration_port
from replica.member.member import Member
from replica.member.settings import SourceSettings
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.handle.values import HandleValue
from replica.model.identity import Peer
from replica.model.states import Mode
from tests.integration.member_world import World, running, settings_of

HOSTED, PREFIX = "region-9", "88.118.9"
OTHER, OTHER_PREFIX = "region-7", "88.118.7"


def url(text: str) -> list[HandleValue]:
    return [HandleValue(1, b"URL", text.encode())]


def hosted_source(name: str, prefix: str, registrars: Sequence[Identity], **fields: object) -> Source:
    pins = tuple(Peer(one.name, one.certificate_pem, role="registrar") for one in registrars)
    return Source(
        name=name, peer=None, prefixes=(prefix,), mode=Mode.RECORDS, pull=(), horizon_s=300, armed=True,
        takeover=TakeoverPolicy.NEVER, probe_name="", probes=(), hosted=True, registrars=pins,
        case_sensitive=fields.get("case_sensitive", ()),  # type: ignore[arg-type]
    )  # fmt: skip


@dataclass
class Region:
    """A running member with two hosted sources, of two registrars."""

    folder: Path
    world: World
    port: RegistrationPort
    identity: Identity
    tenant: Identity
    stranger: Identity  # registrar of the other source

    @property
    def member(self) -> Member:
        return self.world.member

    @property
    def addresses(self) -> list[str]:
        return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.port.addresses]

    def client(self, identity: Identity | None = None, **options: float) -> RegistrationClient:
        return RegistrationClient(self.addresses, identity or self.tenant, [self.identity.certificate_pem], **options)


@asynccontextmanager
async def region(folder: Path) -> AsyncIterator[Region]:
    identity = ensure_identity(folder / "member", "member-1")
    tenant, stranger = ensure_identity(folder / "tenant", "tenant-9"), ensure_identity(folder / "stranger", "tenant-7")
    sources = [
        hosted_source(HOSTED, PREFIX, [tenant], case_sensitive=("88.118.9.CS",)),
        hosted_source(OTHER, OTHER_PREFIX, [stranger]),
    ]
    settings = settings_of(
        folder,
        identity,
        [
            SourceSettings(None, one.prefixes, case_sensitive=one.case_sensitive, operable=False, hosted=one.name)
            for one in sources
        ],
    )
    async with running(settings) as world:
        port = registration_port(sources, world.member, identity)
        await port.start((("127.0.0.1", 0), ("::1", 0)))
        try:
            yield Region(folder, world, port, identity, tenant, stranger)
        finally:
            await port.stop()
