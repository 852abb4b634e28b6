"""Back-pressure at the source over the real feed: the acknowledgement waits while the copy is further behind than the target."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from replica.client import Publisher
from replica.feed.edge_puller import Puller
from replica.model.errors import Code, ZaibeiError
from tests.integration.test_publisher import Copy, config, running


async def opened(folder: Path, copy: Copy, **options: object) -> Publisher:
    settings = config(folder, copy.member, listen="127.0.0.1")
    return await asyncio.to_thread(lambda: Publisher(settings, **options))  # type: ignore[arg-type]


def put(publisher: Publisher, number: int) -> None:
    publisher.put(f"88.118.8/{number}", {"URL": f"https://example.cn/{number}"})


async def test_a_commit_waits_for_an_older_one_and_goes_on_with_its_receipt(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    publisher = await opened(tmp_path, copy, rpo_s=0.5)
    try:
        put(publisher, 1)
        await asyncio.to_thread(publisher.commit)  # nobody copies yet: it is on disk, and within the target
        await asyncio.sleep(0.6)
        put(publisher, 2)
        waiting = asyncio.ensure_future(asyncio.to_thread(publisher.commit))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        assert (publisher.rpo_age_s or 0) > 1.0
        async with running(Puller(copy.driver, [str(publisher.addresses[0])], copy.member, copy.source_pin).run()):
            receipt = await waiting
            assert await asyncio.to_thread(receipt.wait, 20)
            assert publisher.rpo_age_s == 0.0
    finally:
        await asyncio.to_thread(publisher.close)


async def test_zero_waits_for_each_commit_itself(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    publisher = await opened(tmp_path, copy, rpo_s=0)
    try:
        async with running(Puller(copy.driver, [str(publisher.addresses[0])], copy.member, copy.source_pin).run()):
            for number in range(3):
                put(publisher, number)
                receipt = await asyncio.to_thread(publisher.commit)
                assert receipt.done  # acknowledged means: on a majority of the copy's disks
    finally:
        await asyncio.to_thread(publisher.close)


async def test_raise_tells_that_it_is_on_disk_and_closing_ends_the_wait(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    publisher = await opened(tmp_path, copy, rpo_s=0, when_behind="raise")
    put(publisher, 1)
    head = publisher.head
    with pytest.raises(ZaibeiError, match="on disk") as caught:
        await asyncio.to_thread(publisher.commit)
    assert caught.value.code is Code.BUSY
    assert publisher.head.seq == head.seq + 1
    await asyncio.to_thread(publisher.close)
    blocked = await opened(tmp_path, copy, rpo_s=0)
    put(blocked, 2)
    waiting = asyncio.ensure_future(asyncio.to_thread(blocked.commit))
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await asyncio.to_thread(blocked.close)
    with pytest.raises(ZaibeiError, match="closed"):
        await waiting
    assert time.monotonic() - began < 10
