"""A publisher's guard over the real feed: the group commits each renewal, and one that gives none stops the writes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from replica.agent.config import SourceConfig, read_config
from replica.agent.write_lease import LeaseTimes
from replica.client import Publisher
from replica.client.guard import LeaseLost
from replica.feed.edge_puller import Puller
from replica.model.errors import ZaibeiError
from replica.v1 import source_pb2
from tests.integration.test_publisher import Copy, config, opened, push_server, running, until

TIMES = LeaseTimes(2_000, 300, 1_000)


def fenced(settings: SourceConfig) -> SourceConfig:
    nature = settings.nature
    object.__setattr__(nature, "fence", source_pb2.Description.FENCE_WRITE_PATH)
    return settings


async def story(publisher: Publisher, copy: Copy) -> None:
    publisher.put("88.118.8/a", {"URL": "https://example.cn/a"})
    receipt = await asyncio.to_thread(publisher.commit)
    assert await asyncio.to_thread(receipt.wait, 20)
    alarms: list[str] = []
    guard = await asyncio.to_thread(lambda: publisher.guard(TIMES, on_alarm=alarms.append))
    assert await asyncio.to_thread(guard.wait, 10)
    with guard.acknowledging():
        pass
    await asyncio.sleep(2.5)  # longer than one lease: it is renewed
    guard.check()
    copy.group.store.no_lease = "it is being taken over"
    await until(lambda: not guard.valid)
    with pytest.raises(LeaseLost, match="taken over"):
        guard.check()
    await until(lambda: any("has ended" in one for one in alarms))
    assert any("not renewed lately" in one for one in alarms)  # it alarmed before it stopped
    copy.group.store.no_lease = ""
    await until(lambda: guard.valid)


async def test_pulled(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    publisher = await opened(fenced(config(tmp_path, copy.member, listen="127.0.0.1")))
    try:
        async with running(Puller(copy.driver, [str(publisher.addresses[0])], copy.member, copy.source_pin).run()):
            await story(publisher, copy)
    finally:
        await asyncio.to_thread(publisher.close)


async def test_pushed(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    async with push_server(copy, "127.0.0.1") as where:
        publisher = await opened(fenced(config(tmp_path, copy.member, push=where)))
        try:
            await story(publisher, copy)
        finally:
            await asyncio.to_thread(publisher.close)


async def test_a_guard_needs_the_word_in_the_file_and_files_cannot_be_fenced(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    publisher = await opened(config(tmp_path, copy.member, listen="127.0.0.1"))
    try:
        with pytest.raises(ZaibeiError, match="write-path"):
            publisher.guard()
    finally:
        await asyncio.to_thread(publisher.close)
    table = {
        "source": {"name": "node-a", "prefixes": ["88.118"], "fence": "write-path"},
        "serve": {"listen": ["127.0.0.1:0"]},
        "input": [{"path": "registry.csv"}],
    }
    with pytest.raises(ZaibeiError, match="cannot be fenced"):
        read_config(table, "test", tmp_path)
