"""A stream that waits for its turn at a member that does not lead yet: what it said meanwhile is not what it is judged by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from replica.feed import edge_turn
from replica.feed.edge_source_driver import SourceDriver
from replica.feed.edge_turn import wait_for_turn
from replica.feed.memory import MemoryLink
from replica.feed.memory_source import MemorySourceLog
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position, epoch_start
from replica.v1 import source_pb2
from tests.simulation.feed_world import LINEAGE, MEMBER_SIGNER, SOURCE, SOURCE_SIGNER, put


def a_log() -> MemorySourceLog:
    log = MemorySourceLog(SOURCE, SOURCE_SIGNER, ["88.118"])
    log._at(epoch_start(log.head(), LINEAGE, 1))
    log.write([put("A")])
    return log


@asynccontextmanager
async def source_of(log: MemorySourceLog, link: MemoryLink) -> AsyncIterator[None]:
    running = asyncio.create_task(SourceDriver(log, link.source, MEMBER_SIGNER.public).run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_head_in_the_offer_is_the_one_at_the_turn() -> None:
    log, turn = a_log(), asyncio.Event()
    link, before = MemoryLink(log), log.head()

    async def led() -> None:
        await turn.wait()

    async with source_of(log, link):
        waiting = asyncio.create_task(wait_for_turn(link, led()))
        await asyncio.sleep(0.15)  # the offer and some beats have come
        log.write([put("B")])  # another member took this
        turn.set()
        async with asyncio.timeout(30):
            first = await waiting
    [offer] = first
    assert Position.from_wire(offer.offer.description.head) == log.head() != before
    assert offer.offer.description.source == SOURCE


async def test_whose_turn_it_is_already_may_ask_for_an_epoch() -> None:
    log = a_log()
    log.wanted = "the disk was lost"
    link = MemoryLink(log)
    async with source_of(log, link), asyncio.timeout(30):
        offer, request = await wait_for_turn(link, asyncio.sleep(0))
    assert offer.HasField("offer") and request.epoch_request.reason == "the disk was lost"


async def test_what_waits_is_read_and_forgotten() -> None:
    log, turn = a_log(), asyncio.Event()
    link = MemoryLink(log)

    async def led() -> None:
        await turn.wait()

    waiting = asyncio.create_task(wait_for_turn(link, led()))
    for _ in range(1_000):
        await link.source.send(source_pb2.SourceMessage(beat=source_pb2.Beat(head=log.head().to_wire())))
    async with asyncio.timeout(30):
        while link._down.qsize():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    link.cut()
    async with asyncio.timeout(30):
        assert await waiting == [], "the source went away meanwhile"


@pytest.mark.parametrize("said", ["epoch_request", "nothing"])
async def test_who_cannot_be_brought_up_to_date_calls_again(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_turn, "ECHO_S_MAX", 0.05)
    log = a_log()
    link = MemoryLink(log)
    await link.source.send(source_pb2.SourceMessage(offer=source_pb2.Offer(description=log.describe())))
    if said == "epoch_request":
        request = source_pb2.EpochRequest(head=log.head().to_wire(), reason="its log was lost")
        await link.source.send(source_pb2.SourceMessage(epoch_request=request))
    with pytest.raises(ZaibeiError) as caught:
        async with asyncio.timeout(30):
            await wait_for_turn(link, asyncio.sleep(0.01))
    assert (caught.value.code, caught.value.trouble.retry) == (
        Code.BUSY if said == "epoch_request" else Code.UNREACHABLE, True,
    )  # fmt: skip
