"""Feeds by a CA over real gRPC, with certificates of seconds: renewal without a restart, revocation, end of running streams."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from ops.pki.edge_folder import LIST_FILE, ROOT_FILE, PkiFolder
from ops.pki.edge_own import issue_into
from replica.feed.desk import Setup
from replica.feed.edge_driver import FeedDriver
from replica.feed.edge_puller import Puller
from replica.feed.edge_push_server import PushService, add_feed_services
from replica.feed.edge_pusher import Pusher
from replica.feed.edge_source_server import SourceService
from replica.feed.edge_tls import CORE_LOST, EARLY_S, SERVER_OPTIONS, server_credentials, standing
from replica.feed.limits import FeedLimits
from replica.feed.memory import MemoryGroup
from replica.feed.memory_source import MemorySourceLog
from replica.feed.phases import Phase
from replica.model.edge_identity import Identity
from replica.model.edge_trust import LiveTrust, TrustFiles
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.identity import Peer, Pins, Trusts
from replica.model.trust import Claims, Role
from tests.simulation.feed_world import put
from tests.unit.consensus.link_world import seconds_until

WAIT_S = 30
NAMED = Pins((Peer("node-a", b"", (prefix_key("88.118"),)),))
MEMBER = Peer("member-1", b"", role="member")
NODE = Claims(Role.SOURCE, "node-a")
CENTRE = Claims(Role.MEMBER, "member-1", 1)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@dataclass
class Pair:
    """A node and a member of one CA."""

    folder: Path
    ca: PkiFolder
    node: Identity
    member: Identity
    log: MemorySourceLog
    group: MemoryGroup
    driver: FeedDriver

    def trusts(self, role: Role) -> LiveTrust:
        files = TrustFiles((self.ca.path / ROOT_FILE,), (self.ca.path / LIST_FILE,))
        return LiveTrust(lambda: NAMED if role is Role.SOURCE else Pins(), files, frozenset({role}))

    def flowing(self) -> bool:
        return self.driver.phase not in (Phase.CLOSED, Phase.OPENING) and self.group.store.state().position == self.log.head()

    def renew(self, claims: Claims, lasts_s: float = 3_600) -> Identity:
        return issue_into(self.ca, self.folder / claims.name, claims, lasts_s)

    def revoke(self, name: str) -> None:
        self.ca.revoke(frozenset(one.serial for one in self.ca.book().named(name)))

    async def write(self, name: str) -> None:
        """One more record arrives at the copy."""
        self.log.write([put(name)])
        await until(self.flowing)


def pair(folder: Path, *, node_s: float = 3_600, member_s: float = 3_600) -> Pair:
    ca = PkiFolder.create(folder / "pki", "test CA")
    node, member = issue_into(ca, folder / "node-a", NODE, node_s), issue_into(ca, folder / "member-1", CENTRE, member_s)
    log = MemorySourceLog("node-a", node.signer, ["88.118"], beat_interval_ms=100)
    group = MemoryGroup("node-a")
    setup = Setup(
        source="node-a",
        source_key=b"",  # known by the certificate of the stream alone
        pinned=frozenset({prefix_key("88.118")}),
        member="member-1",
        signer=member.signer,
        lineage=b"L" * 16,
        random=os.urandom,
        limits=FeedLimits(beat_interval_ms=100, nonce_interval_ns=100_000_000, brake=False),
    )
    log.write([put("A")])
    return Pair(folder, ca, node, member, log, group, FeedDriver(setup, group))


@asynccontextmanager
async def serving(identity: Identity, trusts: Trusts, add: Callable[[grpc.aio.Server], object]) -> AsyncIterator[list[str]]:
    """On both families."""
    server = grpc.aio.server(options=list(SERVER_OPTIONS))
    add(server)
    addresses = []
    for host in ("127.0.0.1", "[::1]"):
        addresses.append(f"{host}:{server.add_secure_port(f'{host}:0', server_credentials(identity, trusts))}")
    await server.start()
    try:
        yield addresses
    finally:
        await server.stop(0.1)


@asynccontextmanager
async def running(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def pushing(at: Pair, family: int = 0) -> AsyncIterator[Pusher]:
    """The node pushes; each side knows the other by the CA alone."""
    trusts = at.trusts(Role.SOURCE)
    service = PushService(lambda name: at.driver if name == "node-a" else None, lambda: trusts)
    async with serving(at.member, trusts, lambda server: add_feed_services(server, push=service)) as where:
        pusher = Pusher(at.log, where[family], at.node, MEMBER, at.trusts(Role.MEMBER))
        async with running(pusher.run()):
            yield pusher


@asynccontextmanager
async def pulling(at: Pair) -> AsyncIterator[Puller]:
    """The member calls the node."""
    trusts = at.trusts(Role.MEMBER)
    service = SourceService(lambda peer, name: at.log, lambda: trusts)
    async with serving(at.node, trusts, lambda server: add_feed_services(server, source=service)) as where:
        puller = Puller(at.driver, where, at.member, NAMED.peers[0], at.trusts(Role.SOURCE))
        async with running(puller.run()):
            yield puller


WAYS = {"push": pushing, "pull": pulling}


@pytest.mark.parametrize("way", WAYS)
async def test_a_feed_flows_between_strangers_of_one_ca(tmp_path: Path, way: str) -> None:
    at = pair(tmp_path)
    async with WAYS[way](at):
        await until(at.flowing)
        await at.write("B")
        await until(lambda: at.group.store.state().verified)  # certificates of content: by the signing key in the certificate
        await until(lambda: at.log.receipts)


async def side_by_side(cases: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """All at once, since each waits for its certificate's end; every one that fails is told by name."""
    found = await asyncio.gather(*cases.values(), return_exceptions=True)
    wrong = [exc for exc in found if isinstance(exc, BaseException)]
    for name, exc in zip(cases, found, strict=True):
        if exc is not None:
            exc.add_note(f"case {name}")
    if wrong:
        raise BaseExceptionGroup("cases that do not hold", wrong)


async def test_renewed_certificates_are_used_without_a_restart(tmp_path: Path) -> None:
    """Ten seconds of life, renewed in time: the feed goes on past the end of the first one, on both listeners."""
    cases = {f"{whose.name}-{family}": (whose, family) for whose in (NODE, CENTRE) for family in (0, 1)}
    await side_by_side({name: renewed_in_time(tmp_path / name, *case) for name, case in cases.items()})


async def renewed_in_time(tmp_path: Path, whose: Claims, family: int) -> None:
    at = pair(tmp_path, node_s=10 if whose is NODE else 3_600, member_s=10 if whose is CENTRE else 3_600)
    ends_s = time.time() + 10
    async with pushing(at, family) as pusher:
        await until(at.flowing)
        assert pusher.last_trouble is None
        await asyncio.to_thread(at.renew, whose)
        await until(lambda: pusher.last_trouble is not None)
        assert time.time() < ends_s  # a new stream stands before the old certificate ends
        assert "was renewed" in str(pusher.last_trouble) or whose is CENTRE
        await until(lambda: pusher.connected)
        while time.time() < ends_s + 1.5:
            await at.write(f"R{time.time_ns()}")
            await asyncio.sleep(0.2)
        await until(lambda: pusher.connected)


async def test_a_certificate_that_ends_ends_its_stream(tmp_path: Path) -> None:
    cases = {f"{whose.name}-{way}": (way, whose) for whose in (NODE, CENTRE) for way in WAYS}
    await side_by_side({name: ended(tmp_path / name, *case) for name, case in cases.items()})


async def ended(tmp_path: Path, way: str, whose: Claims) -> None:
    at = pair(tmp_path, node_s=6 if whose is NODE else 3_600, member_s=6 if whose is CENTRE else 3_600)
    ends_s = time.time() + 6
    async with WAYS[way](at) as caller:
        await until(at.flowing)
        await until(lambda: at.driver.phase is Phase.CLOSED)
        assert ends_s - EARLY_S - 1 < time.time() < ends_s + 4
        await until(
            lambda: caller.last_trouble is not None and caller.last_trouble.code in (Code.NOT_AUTHORISED, Code.UNREACHABLE)
        )
        await asyncio.to_thread(at.renew, whose)  # and a new one lets it in again
        await until(at.flowing)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("whose", [NODE, CENTRE])
async def test_a_revoked_certificate_loses_its_stream_within_seconds(tmp_path: Path, way: str, whose: Claims) -> None:
    at = pair(tmp_path)
    async with WAYS[way](at) as caller:
        await until(at.flowing)
        await asyncio.to_thread(at.revoke, whose.name)
        assert await seconds_until(lambda: at.driver.phase is Phase.CLOSED) < 5
        at.log.write([put("LATE")])
        await until(lambda: "revoked" in str(caller.last_trouble))  # and it calls again, in vain
        await asyncio.sleep(1.0)
        assert not at.flowing()
        await asyncio.to_thread(at.renew, whose)  # signed anew: another serial number
        await until(at.flowing)


@pytest.mark.parametrize(
    ("way", "whose", "claims"),
    [
        ("push", "node", Claims(Role.SOURCE, "node-b")),  # no such source here
        ("push", "node", Claims(Role.MEMBER, "node-a", 7)),  # a member, whatever its name
        ("push", "node", Claims(Role.OPERATOR, "node-a")),
        ("push", "member", Claims(Role.SOURCE, "member-1")),  # a source that poses as the member
        ("push", "member", Claims(Role.MEMBER, "member-2", 2)),  # another member than the one configured
        ("pull", "node", Claims(Role.SOURCE, "node-b")),
        ("pull", "node", Claims(Role.MEMBER, "node-a", 7)),
        ("pull", "member", Claims(Role.SOURCE, "node-b")),  # a source that would copy its neighbour
        ("pull", "member", Claims(Role.OPERATOR, "li")),
    ],
)
async def test_another_role_or_name_of_the_same_ca_gets_nothing(tmp_path: Path, way: str, whose: str, claims: Claims) -> None:
    at = pair(tmp_path)
    posing = issue_into(at.ca, tmp_path / "posing", claims)
    if whose == "node":
        at.node = posing
    else:
        at.member = posing
    async with WAYS[way](at) as caller:
        await until(lambda: caller.last_trouble is not None and CORE_LOST not in caller.last_trouble.message)
        assert caller.last_trouble is not None and caller.last_trouble.code is Code.NOT_AUTHORISED
        assert at.group.store.state().position != at.log.head()


async def test_a_caller_says_nothing_to_another_than_it_looks_for(tmp_path: Path) -> None:
    """Another member of the same CA answers at the address; also where everything else of it would fit."""
    at = pair(tmp_path)
    at.member = issue_into(at.ca, tmp_path / "posing", Claims(Role.MEMBER, "member-2", 2))
    async with pushing(at) as pusher:
        await until(lambda: pusher.last_trouble is not None and CORE_LOST not in pusher.last_trouble.message)
        assert "answers member 'member-2', not member 'member-1'" in str(pusher.last_trouble)


async def test_another_ca_gets_nothing(tmp_path: Path) -> None:
    at, other = pair(tmp_path / "a"), pair(tmp_path / "b")
    at.node = other.node
    async with pushing(at) as pusher:
        await until(lambda: pusher.last_trouble is not None)
        assert at.driver.phase is Phase.CLOSED


async def test_standing_ends_the_block_and_nothing_else() -> None:
    bad: list[ZaibeiError] = []

    def check() -> None:
        if bad:
            raise bad[0]

    async with standing(check):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), standing(check):  # somebody else's limit stays theirs
            await asyncio.sleep(5)
    bad.append(ZaibeiError(Code.NOT_AUTHORISED, "revoked"))
    with pytest.raises(ZaibeiError, match="revoked"):
        async with standing(check):
            await asyncio.sleep(10)
