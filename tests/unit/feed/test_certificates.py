"""A source says what it holds at least every 5 s, however its changes come (SEMANTICS 10)."""

from __future__ import annotations

import asyncio

import pytest

from replica.feed.commands import Now
from replica.feed.edge_source_driver import SourceDriver
from replica.feed.memory_source import MemorySourceLog
from replica.feed.source_session import Certify, Cut, Read, Say, SourceCommand, SourceSession
from replica.model.batch import open_batch
from replica.model.position import Position
from replica.v1 import position_pb2
from tests.simulation.feed_world import MEMBER_SIGNER, put
from tests.unit.feed.test_streams import Deaf, a_log, resume

MS = 1_000_000
CERTIFIED_EVERY_MS, SAID_EVERY_MS = 1_000, 5_000


class Marking:
    """A log that can vouch for one boundary of each second, as an agent's does while changes come in."""

    def __init__(self, log: MemorySourceLog) -> None:
        self.log, self.marked_ms = log, -CERTIFIED_EVERY_MS
        self.marked = set[Position]()

    def write(self, text: str, now_ms: int) -> None:
        self.log.write([put(text)])
        if now_ms - self.marked_ms >= CERTIFIED_EVERY_MS:
            self.marked_ms = now_ms
            self.marked.add(self.log.head())

    def certificate(self, position: Position) -> position_pb2.Certificate | None:
        return self.log.certificate(position) if position in self.marked else None


@pytest.mark.parametrize("every_ms", [40, 97, 100, 103, 450, 2_300])
def test_one_comes_at_least_every_five_seconds_at_any_pace(every_ms: int) -> None:
    log = Marking(a_log(0))
    session, said_ms = SourceSession(log.log.describe(), "", MEMBER_SIGNER.public), list[int]()

    def do(commands: list[SourceCommand], now: Now) -> None:
        for command in commands:
            match command:
                case Read(run, after, octets_max):
                    raws = log.log.read(after, octets_max) or []
                    do(session.batches(run, [Cut(raw, open_batch(raw, verify=False).after) for raw in raws], now), now)
                case Certify(position):
                    do(session.certified(log.certificate(position), now), now)
                case Say(message) if message.HasField("certificate"):
                    said_ms.append(now.boot_ns // MS)

    do(session.start(Now(0, 0)), Now(0, 0))
    do(session.received(resume(log.log), Now(0, 0)), Now(0, 0))
    for now_ms in range(1, 30_000):
        now = Now(now_ms * MS, now_ms)
        if now_ms % every_ms == 0:
            log.write(f"A{now_ms}", now_ms)
            do(session.moved(log.log.head(), log.log.floor(), now), now)
        if now_ms % 25 == 0:
            do(session.tick(now), now)
    gaps = [after - before for before, after in zip([0, *said_ms], [*said_ms, 30_000], strict=True)]
    assert max(gaps) <= SAID_EVERY_MS + every_ms + CERTIFIED_EVERY_MS % every_ms, said_ms


async def test_a_long_run_of_boundaries_nobody_vouches_for_is_sent_all_the_same() -> None:
    log, link = a_log(3_000), Deaf()
    log.certificate = lambda position: None  # type: ignore[method-assign]
    link.reads.set()
    driver = SourceDriver(log, link, MEMBER_SIGNER.public)
    running = asyncio.create_task(driver.run())
    link.says.put_nowait(resume(log))
    async with asyncio.timeout(30):
        while sum(message.HasField("batch") for message in link.got) < 3_000:  # noqa: ASYNC110 - of the driver's own tasks
            await asyncio.sleep(0.01)
    link.says.put_nowait(None)
    await running
