"""The publisher joined with the real feed, pulled and pushed, on both address families: receipts, restarts, a full spool."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from prometheus_client import CollectorRegistry

from replica.agent.config import SourceConfig, read_config
from replica.agent.records import site_from_json
from replica.client import Publisher
from replica.client.edge_follow import Follower, Way
from replica.feed.desk import Setup
from replica.feed.edge_driver import FeedDriver
from replica.feed.edge_metrics import FeedMetrics
from replica.feed.edge_puller import Puller
from replica.feed.edge_push_server import PushService, add_feed_services
from replica.feed.edge_tls import SERVER_OPTIONS, server_credentials
from replica.feed.limits import FeedLimits
from replica.feed.memory import MemoryGroup
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.types import decode_site
from replica.model.handle.values import decode_record
from replica.model.identifier import Identifier, document_key, prefix_key
from replica.model.identity import Peer, Pins
from replica.model.position import Position

WAIT_S = 30
ADDRESSES = ("127.0.0.1", "[::1]")


class Copy:
    """A member with a memory group."""

    def __init__(self, folder: Path) -> None:
        self.member = ensure_identity(folder / "member", "member-1")
        self.source = ensure_identity(folder / "data" / "identity", "node-a")
        self.group = MemoryGroup("node-a")
        setup = Setup(
            source="node-a",
            source_key=self.source.signer.public,
            pinned=frozenset({prefix_key("88.118")}),
            member="member-1",
            signer=self.member.signer,
            lineage=b"L" * 16,
            random=os.urandom,
            limits=FeedLimits(beat_interval_ms=100, nonce_interval_ns=100_000_000, brake=False),
        )
        self.driver = FeedDriver(setup, self.group, FeedMetrics(CollectorRegistry()).of("node-a"))
        self.source_pin = Peer("node-a", self.source.certificate_pem, (prefix_key("88.118"),))

    def value(self, key: bytes) -> bytes | None:
        return self.group.store.content.get(key)

    def ready(self) -> bool:
        return self.group.store.state().ready


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def config(folder: Path, member: Identity, *, listen: str = "", push: str = "", spool_mib: int = 64) -> SourceConfig:
    table = {
        "source": {"name": "node-a", "prefixes": ["88.118"], "data": "data", "beat_ms": 100},
        "serve": {"listen": [f"{listen}:0"] if listen else []},
        "spool": {"octets_max": spool_mib * 1024 * 1024, "keep_octets": 0},
        "member": [{"name": "member-1", "certificate": member.certificate_pem.decode(), **({"push": push} if push else {})}],
    }
    return read_config(table, "test", folder)


@asynccontextmanager
async def running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def push_server(copy: Copy, address: str) -> AsyncIterator[str]:
    pins = Pins((copy.source_pin,))
    server = grpc.aio.server(options=list(SERVER_OPTIONS))
    add_feed_services(server, push=PushService(lambda name: copy.driver, lambda: pins))
    port = server.add_secure_port(f"{address}:0", server_credentials(copy.member, pins))
    await server.start()
    try:
        yield f"{address}:{port}"
    finally:
        await server.stop(0.1)


SITE = {"address": "192.0.2.1", "tcp": 2641}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def opened(settings: SourceConfig, **options: str) -> Publisher:
    return await asyncio.to_thread(lambda: Publisher(settings, **options))  # type: ignore[arg-type]


async def publishes(publisher: Publisher, copy: Copy) -> None:
    """Three kinds of data, changes and deletes, to a quorum receipt."""
    publisher.put("88.118.8/xyz", {"URL": "https://example.cn/xyz", "DESC": "设备"})
    publisher.put("88.118.8/OLD", [{"index": 1, "type": "URL", "data": "x"}])
    publisher.put_route("88.118.9", [SITE])
    below = [{"index": 3, "type": "HS_SITE.PREFIX", "data": {"format": "hex", "value": site_from_json(SITE).hex()}}]
    publisher.put_route("88.118.10", values=below)
    publisher.put_document("enterprise", "E-1", {"name": "x"})
    first = await asyncio.to_thread(publisher.commit)
    await until(copy.ready)
    publisher.delete("88.118.8/OLD")
    last = await asyncio.to_thread(publisher.commit)
    assert await asyncio.to_thread(last.wait, WAIT_S)
    assert first.done and last.done and publisher.head.place == last.position.place
    record = decode_record(copy.value(Identifier.parse("88.118.8/XYZ").key()) or b"")
    assert record.spelling == b"88.118.8/xyz"
    assert [value.data.decode() for value in record.values] == ["https://example.cn/xyz", "设备"]
    route = decode_record(copy.value(b"p" + prefix_key("88.118.9") + b"\0") or b"")
    assert decode_site(route.values[0].data).servers[0].host == "192.0.2.1"
    [delegated] = decode_record(copy.value(b"p" + prefix_key("88.118.10") + b"\0") or b"").values
    assert (delegated.index, delegated.type, delegated.data) == (3, b"HS_SITE.PREFIX", site_from_json(SITE))
    assert copy.value(document_key("enterprise", "E-1")) == b'\x01{"name":"x"}'
    assert copy.value(Identifier.parse("88.118.8/OLD").key()) is None
    await until(lambda: copy.group.store.state().verified)  # a certificate compared equal


@pytest.mark.parametrize("address", ADDRESSES)
async def test_pulled(tmp_path: Path, copy: Copy, address: str) -> None:
    publisher = await opened(config(tmp_path, copy.member, listen=address))
    try:
        async with running(Puller(copy.driver, [str(publisher.addresses[0])], copy.member, copy.source_pin).run()):
            await publishes(publisher, copy)
    finally:
        await asyncio.to_thread(publisher.close)


@pytest.mark.parametrize("address", ADDRESSES)
async def test_pushed_outbound_only(tmp_path: Path, copy: Copy, address: str) -> None:
    async with push_server(copy, address) as where:
        publisher = await opened(config(tmp_path, copy.member, push=where))
        try:
            assert publisher.addresses == ()
            await publishes(publisher, copy)
        finally:
            await asyncio.to_thread(publisher.close)


async def test_a_restarted_publisher_goes_on_in_its_epoch(tmp_path: Path, copy: Copy) -> None:
    async with push_server(copy, "127.0.0.1") as where:
        settings = config(tmp_path, copy.member, push=where)
        seqs, epochs = [], set()
        for number in range(3):
            publisher = await opened(settings)
            publisher.put(f"88.118.8/R{number}", {"URL": "x"})
            receipt = await asyncio.to_thread(publisher.commit)
            assert await asyncio.to_thread(receipt.wait, WAIT_S)
            epochs.add(publisher.head.epoch)
            seqs.append(publisher.head.seq)
            await asyncio.to_thread(publisher.close)
    assert seqs == [1, 2, 3]
    assert len(epochs) == 1 and 0 not in epochs  # a grant that lost the race against the first commit costs a number, no more
    assert len(copy.group.store.content) == 3


async def test_many_threads_publish_every_change_once(tmp_path: Path, copy: Copy) -> None:
    async with push_server(copy, "127.0.0.1") as where:
        publisher = await opened(config(tmp_path, copy.member, push=where))

        def work(number: int) -> None:
            for step in range(20):
                publisher.put(f"88.118.8/T{number}-{step}", {"URL": "x"})
                publisher.commit()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        receipt = await asyncio.to_thread(publisher.commit)
        assert await asyncio.to_thread(receipt.wait, WAIT_S)
        assert len(copy.group.store.content) == 100
        assert publisher.head.seq == 100
        await asyncio.to_thread(publisher.close)


async def test_a_full_spool_raises_or_blocks_and_drops_nothing(tmp_path: Path, copy: Copy) -> None:
    """The copy goes away: intake stops at the limit; when it is back all arrives."""
    publisher = await opened(config(tmp_path, copy.member, listen="127.0.0.1", spool_mib=1), when_full="raise")
    address = str(publisher.addresses[0])
    async with running(Puller(copy.driver, [address], copy.member, copy.source_pin).run()):
        await until(copy.ready)
    text, taken = "x" * 100_000, 0

    def fill() -> None:
        nonlocal taken
        for number in range(100):
            publisher.put(f"88.118.8/F{number}", {"URL": text})
            publisher.commit()
            taken += 1

    with pytest.raises(ZaibeiError) as caught:
        await asyncio.to_thread(fill)
    assert caught.value.code is Code.BUSY and 8 < taken < 15
    async with running(Puller(copy.driver, [address], copy.member, copy.source_pin).run()):
        await until(lambda: len(copy.group.store.content) == taken)
        await until(lambda: publisher.head == copy.group.store.state().position)
        while True:
            try:
                receipt = await asyncio.to_thread(publisher.commit)  # what was refused was kept for this one
                break
            except ZaibeiError as exc:
                assert exc.code is Code.BUSY
                await asyncio.sleep(0.05)
        assert await asyncio.to_thread(receipt.wait, WAIT_S)
        assert len(copy.group.store.content) == taken + 1
    await asyncio.to_thread(publisher.close)


async def test_lost_state_is_not_invented_anew(tmp_path: Path, copy: Copy) -> None:
    """SEMANTICS 12: without its state the agent asks for a new epoch; the copy applies nothing until one is granted."""
    settings = config(tmp_path, copy.member, listen="127.0.0.1")
    publisher = await opened(settings)
    async with running(Puller(copy.driver, [str(publisher.addresses[0])], copy.member, copy.source_pin).run()):
        publisher.put("88.118.8/A", {"URL": "x"})
        assert await asyncio.to_thread((await asyncio.to_thread(publisher.commit)).wait, WAIT_S)
    before = dict(copy.group.store.content)
    await asyncio.to_thread(publisher.close)
    shutil.rmtree(tmp_path / "data" / "state")
    publisher = await opened(settings)
    publisher.put("88.118.8/B", {"URL": "y"})
    await asyncio.to_thread(publisher.commit)
    assert publisher.head.epoch == 0
    async with running(Puller(copy.driver, [str(publisher.addresses[0])], copy.member, copy.source_pin).run()):
        await until(lambda: copy.group.store.state().feed_code)
    assert copy.group.store.content == before
    assert publisher.head.epoch == 0
    await asyncio.to_thread(publisher.close)


def test_what_cannot_be_published_is_refused_at_once(tmp_path: Path, copy: Copy) -> None:
    with Publisher(config(tmp_path, copy.member, listen="127.0.0.1")) as publisher:
        for wrong in (
            lambda: publisher.put("99/A", {"URL": "x"}),
            lambda: publisher.put("88.118.8/A", {}),
            lambda: publisher.put("88.118.8/A", [{"index": 1}]),
            lambda: publisher.put("88.118.8/A", {"URL": "x" * 300_000}),
            lambda: publisher.put_route("88.118.9", [{"address": "x", "tcp": 1}]),
            lambda: publisher.put_route("88.118.9", [SITE], values={"HS_SERV": "88.118/S"}),
            lambda: publisher.put_document("", "1", {}),
        ):
            with pytest.raises(ZaibeiError):
                wrong()
        assert publisher.commit().position.seq == 0
        publisher.delete("88.118.8/NOT-THERE")
        assert publisher.commit().position.seq == 0
        assert not publisher.commit().wait(0.01)
    with pytest.raises(ZaibeiError, match="closed"):
        publisher.put("88.118.8/A", {"URL": "x"})
    publisher.close()


def test_closing_waits_for_no_content_that_never_comes(tmp_path: Path, copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that takes the whole content holds its log in a thread, which waits for parts; of a member that is silent now."""
    holds, released = threading.Event(), threading.Event()

    async def run(follower: Follower) -> Position:
        def load() -> None:
            with follower._agent.turn():
                holds.set()
                released.wait(WAIT_S)

        try:
            await asyncio.to_thread(load)
        finally:  # as the channel does that the parts came over
            released.set()
        return follower._agent.head()

    monkeypatch.setattr(Follower, "run", run)
    publisher, told = Publisher(config(tmp_path, copy.member, listen="127.0.0.1")), list[ZaibeiError]()
    peer = Peer("member-1", copy.member.certificate_pem)

    def follows() -> None:
        with pytest.raises(ZaibeiError) as caught:
            publisher.follow(lambda _: None, (Way(peer, "127.0.0.1:1"),))
        told.append(caught.value)

    following = threading.Thread(target=follows)
    following.start()
    assert holds.wait(WAIT_S)
    began_s = time.monotonic()
    publisher.close()
    following.join()
    assert time.monotonic() - began_s < WAIT_S / 2 and told[0].code is Code.STOPPING
