"""Streams as such: one at a time, nothing unbounded in memory, heads stated as they are, no secret in a text."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from replica.feed.edge_driver import FeedDriver
from replica.feed.edge_source_driver import OUTBOX_MESSAGES_MAX, SourceDriver
from replica.feed.memory import MemoryGroup, MemoryLink
from replica.feed.memory_source import MemorySourceLog
from replica.feed.phases import Phase
from replica.feed.source_session import LEASE_MS_MAX, Arm, Retain, SourceSession
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.position import epoch_start
from replica.v1 import source_pb2
from tests.simulation.feed_world import LINEAGE, MEMBER_SIGNER, SOURCE, SOURCE_SIGNER, World, put


def a_log(batches: int) -> MemorySourceLog:
    log = MemorySourceLog(SOURCE, SOURCE_SIGNER, ["88.118"])
    log._at(epoch_start(log.head(), LINEAGE, 1))
    for place in range(batches):
        log.write([put(f"A{place}")])
    return log


class Deaf:
    """A replica that says what it is given, and reads nothing until it may."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[source_pb2.ReplicaMessage | None] = asyncio.Queue()
        self.reads = asyncio.Event()
        self.got: list[source_pb2.SourceMessage] = []

    async def receive(self) -> source_pb2.ReplicaMessage | None:
        return await self.says.get()

    async def send(self, message: source_pb2.SourceMessage) -> None:
        await self.reads.wait()
        self.got.append(message)


def resume(log: MemorySourceLog) -> source_pb2.ReplicaMessage:
    start = next(position for position in log.boundaries.values() if position.epoch == 1 and position.seq == 0)
    endless = source_pb2.Credit(batches_total=2**63, octets_total=2**63)
    return source_pb2.ReplicaMessage(resume=source_pb2.Resume(position=start.to_wire(), credit=endless))


async def driven(log: MemorySourceLog, link: Deaf) -> tuple[SourceDriver, asyncio.Task[Trouble | None]]:
    driver = SourceDriver(log, link, MEMBER_SIGNER.public)
    return driver, asyncio.create_task(driver.run())


async def test_endless_credit_brings_no_more_of_the_log_into_memory_than_the_network_takes() -> None:
    log, link = a_log(3_000), Deaf()
    read = 0
    real = log.read

    def counted(after, octets_max):  # type: ignore[no-untyped-def]
        nonlocal read
        found = real(after, 4_096)
        read += len(found or [])
        return found

    log.read = counted  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        driver, task = await driven(log, link)
        link.says.put_nowait(resume(log))
        await asyncio.sleep(0.3)
        assert read < 400
        link.reads.set()
        while sum(message.HasField("batch") for message in link.got) < 3_000:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert driver.session.cursor == log.head()


async def test_beats_do_not_pile_up_before_a_replica_that_reads_nothing() -> None:
    log, link = a_log(1), Deaf()
    log.beat_interval_ms = 10
    async with asyncio.timeout(60):
        driver, task = await driven(log, link)
        await asyncio.sleep(0.6)
        assert driver._outbox.qsize() <= OUTBOX_MESSAGES_MAX
        for _ in range(200):
            link.says.put_nowait(source_pb2.ReplicaMessage(nonce=source_pb2.Nonce(nonce=bytes(16))))
        await asyncio.sleep(0.1)
        assert driver._outbox.qsize() <= OUTBOX_MESSAGES_MAX
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_beat_behind_a_nonce_states_the_head_of_that_moment() -> None:
    """A stale one would look like a source that went back, and be refused for good."""
    log, link = a_log(1), Deaf()

    async def never(after, timeout_s: float) -> None:  # type: ignore[no-untyped-def]
        await asyncio.sleep(3_600)

    log.wait = never  # type: ignore[method-assign]
    link.reads.set()
    async with asyncio.timeout(60):
        _, task = await driven(log, link)
        while not link.got:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        log.write([put("NEW")])
        link.says.put_nowait(source_pb2.ReplicaMessage(nonce=source_pb2.Nonce(nonce=b"n" * 16)))
        while not (answers := [one.beat for one in link.got if one.HasField("beat") and one.beat.nonce == b"n" * 16]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert answers[0].head == log.head().to_wire()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_of_streams_that_come_at_once_only_the_last_lives() -> None:
    log, group = a_log(3), MemoryGroup(SOURCE)
    driver = FeedDriver(World(1).setup(), group)
    async with asyncio.timeout(30):
        links = [MemoryLink(log) for _ in range(4)]
        first = asyncio.create_task(driver.run(links[0]))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(driver.run(link)) for link in links[1:]]
        while sum(task.done() for task in (first, *others)) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert [task.result() for task in (first, *others) if task.done()] == [
            Trouble(Code.BUSY, "a newer stream of this source replaces this one", retry=True)
        ] * 3
        assert driver.phase is Phase.OPENING
        await driver.stop()
        await asyncio.gather(first, *others, return_exceptions=True)


def test_a_lease_lasts_ten_minutes_at_most() -> None:
    log = a_log(1)
    session = SourceSession(log.describe(), "", MEMBER_SIGNER.public)
    lease = source_pb2.Lease(kind=source_pb2.Lease.KIND_RETENTION, duration_ms=2**32 - 1)
    getattr(lease, "from").CopyFrom(log.head().to_wire())
    commands = session.received(source_pb2.ReplicaMessage(lease=lease), World(1).now)
    assert [one.duration_ms for one in commands if isinstance(one, Retain)] == [LEASE_MS_MAX]


def test_keys_of_datagram_beats_are_in_no_text() -> None:
    key = bytes(range(100, 132))
    setup = replace(World(1).setup(), beat_key=key)
    for text in (repr(setup), repr(Arm(key, (), 50))):
        assert repr(key) not in text and key.hex() not in text


async def test_a_stream_cancelled_while_it_ends_does_not_keep_the_next_one_out() -> None:
    """The server cancels a call whose peer is gone, whatever the call is at."""
    log, group = a_log(3), MemoryGroup(SOURCE)
    driver = FeedDriver(World(1).setup(), group)
    async with asyncio.timeout(8):  # below what the next stream would wait before it gives up
        first = asyncio.create_task(driver.run(MemoryLink(log)))
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.sleep(0)
        first.cancel()  # it waits for its tasks now
        await asyncio.gather(first, return_exceptions=True)
        second = asyncio.create_task(driver.run(MemoryLink(log)))
        while driver.phase is Phase.CLOSED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await driver.stop()
        await asyncio.gather(second, return_exceptions=True)


class Gate:
    """Takes keys for beats; the first stream comes while there is room for no more."""

    def __init__(self) -> None:
        self.full, self.open = True, set[bytes]()

    def allow(self, key: bytes) -> None:
        if self.full:
            self.full = False
            raise ZaibeiError(Code.BUSY, "4096 beat streams are open already")
        self.open.add(key)

    def revoke(self, key: bytes) -> None:
        self.open.remove(key)


async def test_a_stream_for_whose_beats_was_no_room_is_followed_by_one_for_which_there_is() -> None:
    """Its source would be told for ever that the earlier stream is not settled, though it never began."""
    log, gate = a_log(3), Gate()
    driver = FeedDriver(World(1).setup(), MemoryGroup(SOURCE), beats=gate)
    with pytest.raises(ZaibeiError, match="4096"):
        await driver.run(MemoryLink(log))
    assert driver.stated_head is None and driver._stream is None
    running = asyncio.create_task(driver.run(MemoryLink(log)))
    await asyncio.sleep(0.05)
    assert not running.done() and driver.phase is not Phase.CLOSED and len(gate.open) == 1
    await driver.stop()
    await running
    assert not gate.open
