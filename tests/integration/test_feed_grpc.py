"""The feed over real gRPC and mTLS, both directions, IPv4 and IPv6, with memory twins behind the edges."""

# ruff: noqa: SIM117 - a server, and inside it what runs against it
from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from replica.feed import edge_source_driver
from replica.feed.desk import Setup
from replica.feed.edge_driver import FeedDriver
from replica.feed.edge_metrics import FeedMetrics
from replica.feed.edge_puller import Puller, WatchLink
from replica.feed.edge_push_server import PushService, add_feed_services
from replica.feed.edge_pusher import Pusher
from replica.feed.edge_source_server import SourceService
from replica.feed.edge_tls import CORE_LOST, SERVER_OPTIONS, open_channel, refusal, server_credentials
from replica.feed.limits import FeedLimits
from replica.feed.memory import MemoryGroup
from replica.feed.memory_source import MemorySourceLog
from replica.feed.phases import Phase
from replica.model.beat import decode_beat
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.identity import Peer, Pins
from replica.model.position import Position
from replica.v1 import feed_pb2_grpc, source_pb2
from tests.simulation.feed_world import delete, put

ADDRESSES = ("127.0.0.1", "[::1]")
WAIT_S = 20


@dataclass
class Party:
    """A source and a member that know each other."""

    source: Identity
    member: Identity
    stranger: Identity
    log: MemorySourceLog
    group: MemoryGroup
    driver: FeedDriver
    registry: CollectorRegistry

    def source_pin(self) -> Peer:
        return Peer(self.source.name, self.source.certificate_pem, (prefix_key("88.118"),))

    def member_pin(self) -> Peer:
        return Peer(self.member.name, self.member.certificate_pem, role="member")


@pytest.fixture
def party(tmp_path: Path) -> Party:
    source, member, stranger = (ensure_identity(tmp_path / name, name) for name in ("secondary-a", "member-1", "stranger"))
    log = MemorySourceLog("secondary-a", source.signer, ["88.118"], beat_interval_ms=100)
    group, registry = MemoryGroup("secondary-a"), CollectorRegistry()
    setup = Setup(
        source="secondary-a",
        source_key=source.signer.public,
        pinned=frozenset({prefix_key("88.118")}),
        member="member-1",
        signer=member.signer,
        lineage=b"L" * 16,
        random=os.urandom,
        limits=FeedLimits(beat_interval_ms=100, nonce_interval_ns=100_000_000, brake=False),
    )
    driver = FeedDriver(setup, group, FeedMetrics(registry).of("secondary-a"))
    log.write([put(f"A{place}") for place in range(900)])
    return Party(source, member, stranger, log, group, driver, registry)


@asynccontextmanager
async def serving(address: str, identity: Identity, pins: Pins, add: Callable[[grpc.aio.Server], object]) -> AsyncIterator[str]:
    server = grpc.aio.server(options=list(SERVER_OPTIONS))
    add(server)
    port = server.add_secure_port(f"{address}:0", server_credentials(identity, pins))
    await server.start()
    try:
        yield f"{address}:{port}"
    finally:
        await server.stop(0.1)


@asynccontextmanager
async def running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Gate:
    """Learns the keys of streams as takeover's table does."""

    def __init__(self, keys: list[bytes]) -> None:
        self._keys = keys

    def allow(self, key: bytes) -> None:
        self._keys.append(key)

    def revoke(self, key: bytes) -> None:
        self._keys.remove(key)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def told(trouble: Trouble | None) -> bool:
    """The peer said why: a call that was over before our own end had begun on it knows nothing of that, and is made again."""
    return trouble is not None and CORE_LOST not in trouble.message


async def copies(party: Party) -> None:
    """First contact, snapshot, changes, receipts, certificates, freshness: the whole way."""
    log, store = party.log, party.group.store
    await until(lambda: store.state().ready)
    for place in range(30):
        log.write([put(f"B{place}"), delete(f"A{place}")])
    await until(lambda: store.state().position == log.head())
    assert store.content == log.content
    await until(lambda: any(Position.from_wire(one.position) == log.head() and one.level == 2 for one in log.receipts))
    await until(lambda: store.state().verified)
    await until(lambda: party.driver.lag().changes == 0 and (party.driver.lag().age_ms or 9_999) < 2_000)
    question = source_pb2.DigestRequest(position=log.head().to_wire(), level=1)
    answer = await party.driver.digest(question)
    assert answer.pinned and len(answer.sums) == 256 * 24
    party.driver.observe()
    assert b'zaibei_feed_batches_total{source="secondary-a"} 30.0' in generate_latest(party.registry)


@pytest.mark.parametrize("address", ADDRESSES)
async def test_pull(address: str, party: Party) -> None:
    service = SourceService(
        lambda peer, name: party.log if peer.name == "member-1" else None, lambda: Pins((party.member_pin(),))
    )
    async with serving(
        address, party.source, Pins((party.member_pin(),)), lambda s: add_feed_services(s, source=service)
    ) as where:
        async with running(Puller(party.driver, [where], party.member, party.source_pin()).run()):
            await copies(party)
        await until(lambda: party.driver.lag().changes is None)  # silence became a fact


@pytest.mark.parametrize("address", ADDRESSES)
async def test_push(address: str, party: Party) -> None:
    pins = Pins((party.source_pin(),))
    service = PushService(lambda name: party.driver if name == "secondary-a" else None, lambda: pins)
    async with serving(address, party.member, pins, lambda s: add_feed_services(s, push=service)) as where:
        async with running(Pusher(party.log, where, party.source, party.member_pin()).run()):
            await copies(party)


async def test_addresses_are_tried_in_turn_one_stream_at_a_time(party: Party) -> None:
    """Both families of one source, and one that is dead: whoever stands is kept, the others do not take its stream."""
    service = SourceService(lambda peer, name: party.log, lambda: Pins((party.member_pin(),)))
    pins = Pins((party.member_pin(),))
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{dead.getsockname()[1]}"  # bound, and never listens
        async with serving("127.0.0.1", party.source, pins, lambda s: add_feed_services(s, source=service)) as four:
            async with serving("[::1]", party.source, pins, lambda s: add_feed_services(s, source=service)) as six:
                puller = Puller(party.driver, [nobody, six, four], party.member, party.source_pin())
                async with running(puller.run()):
                    await copies(party)
                    assert b'zaibei_feed_streams_total{source="secondary-a"} 2.0' in generate_latest(party.registry)
                    first = party.driver.phase
                assert first is Phase.FLOWING
            party.log.write([put("LATER")])
            async with running(Puller(party.driver, [six, four], party.member, party.source_pin()).run()):
                await until(lambda: party.group.store.state().position == party.log.head())


async def test_a_pusher_goes_on_at_its_members_other_family(party: Party) -> None:
    pins = Pins((party.source_pin(),))
    service = PushService(lambda name: party.driver, lambda: pins)

    def offered(services: grpc.aio.Server) -> None:
        add_feed_services(services, push=service)

    async with serving("[::1]", party.member, pins, offered) as six:
        async with AsyncExitStack() as family:
            four = await family.enter_async_context(serving("127.0.0.1", party.member, pins, offered))
            pusher = Pusher(party.log, four, party.source, party.member_pin(), others=[six])
            async with running(pusher.run()):
                await copies(party)
                assert pusher.address == four
                await family.aclose()
                await until(lambda: pusher.address == six and pusher.connected)
                party.log.write([put("LATER")])
                await until(lambda: party.group.store.state().position == party.log.head())


async def test_a_source_that_must_not_push_is_told_what_to_change(party: Party) -> None:
    pins = Pins((party.source_pin(),))

    def pulled(name: str) -> FeedDriver:
        raise ZaibeiError(Code.CONFLICT, f"{name} is fetched: take `pull` out of its block")

    async with serving(
        "127.0.0.1", party.member, pins, lambda s: add_feed_services(s, push=PushService(pulled, lambda: pins))
    ) as where:
        pusher = Pusher(party.log, where, party.source, party.member_pin())
        async with running(pusher.run()):
            await until(lambda: told(pusher.last_trouble))
    trouble = pusher.last_trouble
    assert trouble is not None and trouble.code is Code.CONFLICT and "take `pull` out" in trouble.message
    assert not pusher.connected


async def test_reconnects_and_loses_nothing(party: Party) -> None:
    pins = Pins((party.source_pin(),))
    service = PushService(lambda name: party.driver, lambda: pins)
    for round_ in range(3):
        async with serving("127.0.0.1", party.member, pins, lambda s: add_feed_services(s, push=service)) as where:
            async with running(Pusher(party.log, where, party.source, party.member_pin()).run()):
                party.log.write([put(f"R{round_}")])
                await until(lambda: party.group.store.state().position == party.log.head())
        party.log.write([put(f"S{round_}")])
        assert party.group.store.content.keys() <= party.log.content.keys()


async def test_a_newer_stream_replaces_the_older(party: Party) -> None:
    pins = Pins((party.source_pin(),))
    service = PushService(lambda name: party.driver, lambda: pins)
    async with serving("127.0.0.1", party.member, pins, lambda s: add_feed_services(s, push=service)) as where:
        first, second = (Pusher(party.log, where, party.source, party.member_pin()) for _ in range(2))
        async with running(first.run()):
            await until(lambda: party.group.store.state().ready)
            async with running(second.run()):
                await until(lambda: told(first.last_trouble))
                party.log.write([put("LAST")])
                await until(lambda: party.group.store.state().position == party.log.head())


async def test_two_living_processes_under_one_identity_are_told_and_the_later_one_is_refused(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = Pins((party.source_pin(),))
    service = PushService(lambda name: party.driver, lambda: pins)
    heard = list[str]()
    party.driver.on_twins = heard.append
    async with serving("127.0.0.1", party.member, pins, lambda s: add_feed_services(s, push=service)) as where:
        first, second = (Pusher(party.log, where, party.source, party.member_pin()) for _ in range(2))
        process = b"1" * 16
        speaks = edge_source_driver.SourceSession

        def session(*given: object) -> object:
            return speaks(*given[:-1], process)  # type: ignore[arg-type]

        monkeypatch.setattr(edge_source_driver, "SourceSession", session)
        async with running(first.run()):
            await until(lambda: party.driver.twins.senders == 1)
            process = b"2" * 16
            async with running(second.run()):
                await until(lambda: party.driver.twins.senders == 2)
                process = b"1" * 16  # whoever calls next is the first again
                await until(lambda: bool(party.driver.two_senders()))
                process = b"2" * 16
                await until(lambda: bool(heard))
    assert "(process 31313131), which came first and is let in" in heard[0] and "(process 32323232), refused" in heard[0]
    assert "127.0.0.1:" in heard[0] and heard[0] == party.driver.two_senders()


def test_a_call_that_our_own_end_lost_is_no_verdict_of_the_peer() -> None:
    lost, wrong = (refusal(grpc.StatusCode.INTERNAL, details, "member-1") for details in (CORE_LOST, "it does not parse"))
    assert (lost.code, lost.trouble.retry, wrong.code) == (Code.UNREACHABLE, True, Code.MALFORMED)


@pytest.mark.parametrize("address", ADDRESSES)
async def test_strangers_are_refused(address: str, party: Party) -> None:
    pins = Pins((party.source_pin(),))
    service = PushService(lambda name: party.driver, lambda: pins)
    async with serving(address, party.member, pins, lambda s: add_feed_services(s, push=service)) as where:
        async with open_channel(where, party.stranger, party.member_pin()) as channel:
            stub = feed_pb2_grpc.ChangeFeedStub(channel)
            call = stub.Push(timeout=5)
            with pytest.raises(grpc.RpcError):
                await call.write(source_pb2.SourceMessage())
                await call.read()
                raise grpc.RpcError("the stranger was let in") if await call.code() is grpc.StatusCode.OK else call
    assert party.group.store.state().index == 0


async def test_a_pinned_peer_speaks_for_itself_alone(party: Party) -> None:
    """A pinned member may not push: no source of its name is copied; a pinned stranger may not read a log."""
    stranger = Peer("stranger", party.stranger.certificate_pem)
    pins = Pins((party.source_pin(), stranger))
    service = PushService(lambda name: party.driver if name == "secondary-a" else None, lambda: pins)
    async with serving("127.0.0.1", party.member, pins, lambda s: add_feed_services(s, push=service)) as where:
        pusher = Pusher(party.log, where, party.stranger, party.member_pin())
        async with running(pusher.run()):
            await until(lambda: told(pusher.last_trouble))
        assert pusher.last_trouble is not None and pusher.last_trouble.code is Code.NOT_AUTHORISED
    offered = SourceService(lambda peer, name: party.log if peer.role == "member" else None, lambda: pins)
    async with serving("127.0.0.1", party.source, pins, lambda s: add_feed_services(s, source=offered)) as where:
        async with open_channel(where, party.stranger, party.source_pin()) as channel:
            link = WatchLink(channel, "secondary-a")
            with pytest.raises(ZaibeiError) as caught:
                await link.prove(party.log.head())
            assert caught.value.code is Code.NOT_AUTHORISED
            link.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_datagram_beats(family: int, party: Party) -> None:
    observer = socket.socket(family, socket.SOCK_DGRAM)
    observer.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    observer.setblocking(False)
    host, port = observer.getsockname()[:2]
    keys: list[bytes] = []
    party.driver.beats = Gate(keys)
    receiver = source_pb2.Endpoint(protocol="udp", address=host, port=port)
    party.driver.setup = replace(party.driver.setup, beat_to=(receiver,))
    service = SourceService(lambda peer, name: party.log, lambda: Pins((party.member_pin(),)))
    async with serving(
        "127.0.0.1", party.source, Pins((party.member_pin(),)), lambda s: add_feed_services(s, source=service)
    ) as where:
        async with running(Puller(party.driver, [where], party.member, party.source_pin()).run()):
            await until(lambda: party.group.store.state().ready)
            counters = []
            while len(counters) < 4:
                datagram = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(observer, 2_048), WAIT_S)
                beat = decode_beat(keys[-1], datagram)
                counters.append(beat.counter)
                assert beat.heads[0].source == "secondary-a"
            assert counters == sorted(set(counters))
    assert keys == [], "the key of a stream that is over opens nothing"
    observer.close()
