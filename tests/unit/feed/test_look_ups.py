"""Looks into the store for the brake happen beside the event loop; order, counts and credit stay as if they took no time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from replica.feed.commands import Close, LookUp
from replica.feed.edge_driver import FeedDriver
from replica.feed.edge_source_driver import SourceDriver
from replica.feed.memory import MemoryGroup, MemoryLink
from replica.feed.memory_source import MemorySourceLog
from replica.model.errors import Code, Trouble
from replica.model.position import Position
from replica.model.states import FeedState
from tests.simulation.feed_world import MEMBER_SIGNER, SOURCE, SOURCE_SIGNER, World, put


class Watching(World):
    """Keeps looks back until they are asked for."""

    def _look_up(self, keys: list[bytes]) -> None:
        self.looks.append((self.session, self.store.existing(keys)))


def flowing(records: int) -> Watching:
    world = Watching(1)
    world.write(*[put(f"A{place}") for place in range(records)])
    world.connect()
    world.steps(14)
    assert world.caught_up()
    return world


def settle(world: World) -> None:
    for _ in range(8):
        world.step()
        while world.looks:
            world.look()
        world.check()


def test_what_was_in_flight_when_the_look_began_counts_although_it_is_applied_when_it_ends() -> None:
    """200 records, 70 new ones in flight; the next batch rewrites those 70 and 40 others."""
    world = flowing(200)
    world.write(*[put(f"N{place}") for place in range(70)])
    world.tick()
    world.deliver()
    world.write(*[put(f"N{place}", "other") for place in range(70)], *[put(f"A{place}", "other") for place in range(40)])
    for _ in range(4):
        world.tick()
        world.deliver()
    assert world.session is not None and world.session.intake.looking and world.journal
    while world.journal:
        world.commit()
    settle(world)
    assert world.state().feed is FeedState.HELD
    assert world.alarms and "110 of 270" in world.alarms[-1].message


def test_nothing_overtakes_a_batch_that_waits() -> None:
    world = flowing(100)
    for turn in range(3):
        world.write(*[put(f"N{turn}-{place}") for place in range(110)])
    for _ in range(12):
        world.tick()
        world.deliver()
    assert world.session is not None and world.session.intake.looking
    assert world.down, "the others are not taken"
    settle(world)
    settle(world)
    assert world.caught_up() and world.state().feed is FeedState.FLOWING


def test_a_look_of_a_run_that_was_given_up_admits_nothing() -> None:
    world = flowing(100)
    world.write(*[put(f"N{place}") for place in range(110)])
    for _ in range(6):
        world.tick()
        world.deliver()
    session = world.session
    assert session is not None and session.intake.looking
    session._resync()
    before = world.state().position
    world.replica_does(session.looked([False] * 110, world.now))
    assert not world.journal and world.state().position == before
    assert session.intake.handled == session.intake.received, "its credit is given back"
    world.cut()
    world.connect()
    settle(world)
    settle(world)
    assert world.caught_up()


def test_a_store_that_cannot_be_read_ends_the_stream_by_name() -> None:
    world = flowing(100)
    world.write(*[put(f"N{place}") for place in range(110)])
    for _ in range(6):
        world.tick()
        world.deliver()
    session = world.session
    assert session is not None
    commands = session.looked(Trouble(Code.DISK_FAILED, "read error"), world.now)
    assert any(isinstance(one, Close) and one.trouble is not None and one.trouble.code is Code.DISK_FAILED for one in commands)
    assert not any(isinstance(one, LookUp) for one in commands)


class Slow(MemoryGroup):
    """Looks stand still until they may go on."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.go, self.threads = threading.Event(), set[int]()

    def existing(self, keys: Sequence[bytes]) -> list[bool]:
        self.threads.add(threading.get_ident())
        self.go.wait()
        return super().existing(keys)


async def test_the_event_loop_goes_on_while_somebody_looks() -> None:
    log, group = MemorySourceLog(SOURCE, SOURCE_SIGNER, ["88.118"]), Slow(SOURCE)
    log.write([put(f"A{place}") for place in range(150)])
    driver = FeedDriver(World(1).setup(), group)
    link = MemoryLink(log)
    async with asyncio.timeout(60):
        both = [
            asyncio.create_task(driver.run(link)),
            asyncio.create_task(SourceDriver(log, link.source, MEMBER_SIGNER.public).run()),
        ]
        while not group.state().ready:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        log.write([put(f"N{place}") for place in range(120)])
        while not group.threads:  # noqa: ASYNC110 - reached at all: the loop is not the one that waits
            await asyncio.sleep(0.01)
        assert threading.get_ident() not in group.threads
        before: Position = group.state().position
        await asyncio.sleep(0.05)
        assert group.state().position == before
        group.go.set()
        while group.state().position != log.head():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert group.state().feed is FeedState.FLOWING
        await driver.stop()
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
