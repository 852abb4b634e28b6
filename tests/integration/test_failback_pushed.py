"""Failback of a node that may only call out: it publishes from its own code, over Push, and takes ours into its own records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from replica.agent.config import SourceConfig, read_config
from replica.client import Publisher
from replica.member.settings import SourceSettings
from replica.model.batch import OP_PUT, Change
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.identity import Peer
from replica.model.ladder import Stage
from replica.model.ledger import Verdict
from tests.integration.member_world import World, key, running, until
from tests.integration.member_world import put as put_change
from tests.integration.test_failback import lines_of, register, run_failback, settings_of, stage_of, take_over

RECORDS = 20


class Registry:
    """A registry with a database of its own."""

    def __init__(self, folder: Path, me: Identity, world: World) -> None:
        self.folder, self.me, self.world = folder, me, world
        self.records: dict[bytes, bytes] = {}
        self.identity = ensure_identity(folder / "data" / "identity", "node-a")

    def config(self, *, push: bool = True) -> SourceConfig:
        host, port = self.world.member.feed_addresses[0]
        member = {"name": "member-1", "certificate": self.me.certificate_pem.decode()}
        if push:
            member["push"] = f"{host}:{port}"
        source = {"name": "node-a", "prefixes": ["88.118"], "data": "data", "beat_ms": 100}
        serve = {"listen": ["127.0.0.1:0"]}
        return read_config({"source": source, "serve": serve, "member": [member]}, "test", self.folder)

    @contextmanager
    def open(self, *, push: bool = True) -> Iterator[Publisher]:
        with Publisher(self.config(push=push)) as publisher:
            yield publisher

    def write(self, publisher: Publisher, name: str, url: str) -> None:
        publisher.put(name, {"URL": url})
        publisher.commit()

    def take(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self.records.pop(change.key, None)
            if change.op == OP_PUT:
                self.records[change.key] = change.value


@pytest.fixture
def me(tmp_path: Path) -> Identity:
    return ensure_identity(tmp_path / "identity", "member-1")


async def test_it_hands_in_its_own_writes_over_push_and_takes_ours(tmp_path: Path, me: Identity) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    node = ensure_identity(folder / "data" / "identity", "node-a")
    pin = Peer("node-a", node.certificate_pem, (prefix_key("88.118"),))
    source = SourceSettings(pin, ("88.118",), operable=False)
    async with running(settings_of(tmp_path, me, [source])) as world:
        copy, registry = world.copy("node-a"), Registry(folder, me, world)
        with registry.open() as publisher:
            for number in range(RECORDS):
                await asyncio.to_thread(registry.write, publisher, f"88.118/{number}", "https://a.cn/")
            await until(lambda: copy.store.state().ready and copy.store.state().position == publisher.head)
        with registry.open(push=False) as publisher:  # alive for its clients, cut off from us
            for number in range(5):
                await asyncio.to_thread(registry.write, publisher, f"88.118/own-{number}", "https://own.cn/")
        await take_over(copy)
        await register(copy, put_change("88.118/ours", "https://ours.cn/"))
        with registry.open() as publisher:
            following = asyncio.ensure_future(asyncio.to_thread(publisher.follow, registry.take))
            await run_failback(world)
            await until(lambda: stage_of(copy) is Stage.NORMAL)
            position = await following
            assert position == copy.store.state().granted
            assert [line.verdict for line in lines_of(copy)] == [Verdict.ENTERED] * 5
            assert key("88.118/ours") in registry.records, "the registry has what was registered here"
            await asyncio.to_thread(registry.write, publisher, "88.118/after", "https://after.cn/")
            await until(lambda: copy.store.state().position == publisher.head)
            values, _ = copy.store.get_many([key("88.118/after"), key("88.118/own-4"), key("88.118/ours")])
            assert all(values)


async def test_closing_ends_what_waits_on_other_threads(tmp_path: Path, me: Identity) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    node = ensure_identity(folder / "data" / "identity", "node-a")
    source = SourceSettings(Peer("node-a", node.certificate_pem, (prefix_key("88.118"),)), ("88.118",), operable=False)
    async with running(settings_of(tmp_path, me, [source])) as world:
        registry = Registry(folder, me, world)
        with registry.open(push=False) as publisher:
            publisher.put("88.118/1", {"URL": "x"})
            receipt = await asyncio.to_thread(publisher.commit)
            waiting = asyncio.ensure_future(asyncio.to_thread(receipt.wait, 60))
            await asyncio.sleep(0.1)
        assert await waiting is False
        with registry.open() as publisher:
            following = asyncio.ensure_future(asyncio.to_thread(publisher.follow, registry.take))
            await asyncio.sleep(0.1)
        with pytest.raises(ZaibeiError) as closed:
            await following
        assert closed.value.code is Code.STOPPING
        with pytest.raises(ZaibeiError) as ended:
            await asyncio.to_thread(publisher.follow, registry.take)
        assert ended.value.code is Code.STOPPING and receipt.wait(60) is False


async def test_following_ends_when_the_time_is_over_and_may_be_called_again(tmp_path: Path, me: Identity) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    node = ensure_identity(folder / "data" / "identity", "node-a")
    source = SourceSettings(Peer("node-a", node.certificate_pem, (prefix_key("88.118"),)), ("88.118",), operable=False)
    async with running(settings_of(tmp_path, me, [source])) as world:
        registry = Registry(folder, me, world)
        with registry.open() as publisher:
            await asyncio.to_thread(registry.write, publisher, "88.118/1", "x")
            await until(lambda: world.copy("node-a").store.state().position == publisher.head)
            with pytest.raises(ZaibeiError) as late:
                await asyncio.to_thread(publisher.follow, registry.take, (), 0.5)
            assert late.value.code is Code.UNKNOWN
            publisher.put("88.118/waits", {"URL": "x"})
            with pytest.raises(ZaibeiError) as fenced:
                await asyncio.to_thread(publisher.commit)
            assert fenced.value.code is Code.FENCED
