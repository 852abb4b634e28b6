"""How long a snapshot's view is held: no longer than somebody may come back to it, for the WAL grows as long as it is open."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import cast

import pytest

from replica.agent import edge_content, edge_snapshot
from replica.agent.edge_log import AgentLog
from replica.agent.edge_snapshot import FINISHED_S_MAX, RESUME_S_MAX, SNAPSHOTS_MAX, Transfer
from replica.model.errors import ZaibeiError
from replica.v1 import source_pb2
from tests.unit.agent.helpers import Turned, commit, opened, put

RECORDS = 60
WAL_OCTETS = 6 * 1024 * 1024  # kept, in these tests; SQLite lets usual writes use 4 MiB
LITTLE_S = 0.1  # before and behind a limit

Parts = AsyncGenerator[source_pb2.SnapshotPart, None]


@pytest.fixture
def clock() -> Turned:
    return Turned()


@pytest.fixture
def log(tmp_path: Path, clock: Turned, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentLog]:
    """A log of several parts."""
    monkeypatch.setattr(edge_snapshot, "PART_OCTETS", 2_000)
    monkeypatch.setattr(edge_content, "WAL_OCTETS_KEPT", WAL_OCTETS)
    log = opened(tmp_path, clock=clock)
    commit(log, *[put(f"S{number:04d}", "y" * 100) for number in range(RECORDS)])
    yield log
    log.close()


def reading(log: AgentLog, ident: bytes = b"", first: int = 0) -> Parts:
    return cast(Parts, log.snapshot(source_pb2.SnapshotRequest(snapshot_id=ident, first_part=first)))


async def finished(log: AgentLog) -> list[source_pb2.SnapshotPart]:
    return [part async for part in reading(log)]


async def broken_off(log: AgentLog, parts: int) -> list[source_pb2.SnapshotPart]:
    """So many parts are taken, then the reader is gone."""
    stream = reading(log)
    taken = [await anext(stream) for _ in range(parts)]
    await stream.aclose()
    return taken


def held_back(log: AgentLog) -> bool:
    """A look at the content is open behind whose back there are newer pages: they cannot leave the WAL."""
    commit(log, put("S0000", f"at {log.head().seq}"))
    with sqlite3.connect(log.content.path) as db:
        _, in_wal, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    db.close()
    return bool(moved < in_wal)


def write(log: AgentLog, octets: int) -> None:
    """Let the WAL take in at least so many octets."""
    for number in range(octets // 40_000 + 1):
        commit(log, *[put(f"W{number % 7}-{each}", f"{number}" + "z" * 500) for each in range(80)])


def wal_octets(log: AgentLog) -> int:
    return log.content.path.with_name(log.content.path.name + "-wal").stat().st_size


async def test_soon_after_a_finished_snapshot_the_wal_begins_again(log: AgentLog, clock: Turned) -> None:
    """While the source goes on writing, and nobody asks for another snapshot."""
    await finished(log)
    await asyncio.to_thread(write, log, 2 * WAL_OCTETS)
    assert held_back(log) and wal_octets(log) > 2 * WAL_OCTETS
    clock.now_s += FINISHED_S_MAX + LITTLE_S
    log.housekeeping()
    assert not held_back(log)
    commit(log, put("NEXT"))
    assert wal_octets(log) <= WAL_OCTETS  # not only used again from its beginning: the room is given back
    await asyncio.to_thread(write, log, WAL_OCTETS)
    assert wal_octets(log) <= WAL_OCTETS


async def test_a_reader_that_lost_the_end_is_served_for_seconds(log: AgentLog, clock: Turned) -> None:
    """The source sent the end, the connection broke under it: the reader comes back for the last part."""
    parts = await finished(log)
    ident, last = parts[0].header.snapshot_id, parts[-2].chunk
    clock.now_s += FINISHED_S_MAX - LITTLE_S
    log.housekeeping()
    again = [part async for part in reading(log, ident, last.part)]
    assert again[0].header.snapshot_id == ident and again[1:] == parts[-2:]
    clock.now_s += FINISHED_S_MAX - LITTLE_S  # counted anew
    log.housekeeping()
    assert held_back(log)
    clock.now_s += 2 * LITTLE_S
    log.housekeeping()
    assert not held_back(log)
    fresh = [part async for part in reading(log, ident, last.part)]
    assert fresh[0].header.snapshot_id != ident and fresh[1].chunk.part == 0


@pytest.mark.parametrize("behind_end", [False, True])
async def test_what_broke_off_is_resumed_within_its_time(log: AgentLog, clock: Turned, behind_end: bool) -> None:
    """Also where the reader went away with the end in its hands: it may not have it."""
    whole = await finished(log)
    clock.now_s += FINISHED_S_MAX + LITTLE_S
    log.housekeeping()
    taken = await broken_off(log, len(whole) if behind_end else 3)
    ident = taken[0].header.snapshot_id
    clock.now_s += RESUME_S_MAX - LITTLE_S
    log.housekeeping()
    await asyncio.to_thread(commit, log, put("LATER"))
    again = [part async for part in reading(log, ident, 2)]
    assert again[0].header.snapshot_id == ident and again[1:-1] == whole[3:-1]
    assert again[-1].end.ordered_hash == whole[-1].end.ordered_hash


async def test_an_abandoned_snapshot_expires_without_anybody_asking(log: AgentLog, clock: Turned) -> None:
    taken = await broken_off(log, 3)
    clock.now_s += RESUME_S_MAX - LITTLE_S
    log.housekeeping()
    assert held_back(log)
    clock.now_s += 2 * LITTLE_S
    log.housekeeping()
    assert not held_back(log)
    fresh = await anext(reading(log, taken[0].header.snapshot_id, 1))
    assert fresh.header.snapshot_id != taken[0].header.snapshot_id


async def test_what_nobody_knows_of_is_closed_at_once(log: AgentLog) -> None:
    """The reader was gone before the header: nobody has the id by which it could be resumed."""
    opening = asyncio.ensure_future(anext(reading(log)))
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await asyncio.to_thread(log._turn.acquire)  # the thread that opens it is through
    log._turn.release()
    await asyncio.sleep(0.05)
    log.housekeeping()
    assert not held_back(log)


async def test_a_finished_snapshot_makes_room_before_one_that_broke_off(log: AgentLog) -> None:
    taken = [await broken_off(log, 2) for _ in range(SNAPSHOTS_MAX - 1)]
    await finished(log)
    await finished(log)
    for parts in taken:
        ident = parts[0].header.snapshot_id
        assert (await anext(reading(log, ident, 1))).header.snapshot_id == ident


@pytest.mark.parametrize("loop_ends", [False, True])
async def test_a_view_is_not_closed_under_a_reader_that_was_cancelled(
    log: AgentLog, monkeypatch: pytest.MonkeyPatch, loop_ends: bool
) -> None:
    """Its thread reads on for a moment; then nothing of it is left, although the log was closed meanwhile.

    A publisher's loop ends behind its log, and cancels every task there is: a view that is closed under its thread then ends the
    registry's own process with a segmentation fault.
    """
    begun, go_on, seen = threading.Event(), threading.Event(), list[object]()
    parts = Transfer.parts

    def slowly(transfer: Transfer, first: int) -> Iterator[bytes]:
        for octets in parts(transfer, first):
            begun.set()
            go_on.wait(30)
            try:
                seen.append(transfer.view._db.execute("SELECT count(*) FROM content").fetchone()[0])
            except sqlite3.ProgrammingError as exc:
                seen.append(exc)
            yield octets

    monkeypatch.setattr(Transfer, "parts", slowly)
    stream = reading(log)
    await anext(stream)
    transfer = next(iter(log._snapshots._running.values()))
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.to_thread(begun.wait, 30)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.to_thread(log.close)
    for task in asyncio.all_tasks() - {asyncio.current_task()} if loop_ends else ():
        task.cancel()
    await asyncio.sleep(0.01)
    go_on.set()
    async with asyncio.timeout(30):
        while not seen or transfer.lock.locked():  # noqa: ASYNC110 - of a thread
            await asyncio.sleep(0.01)
    assert seen == [RECORDS]
    with pytest.raises(sqlite3.ProgrammingError):
        transfer.view._db.execute("SELECT 1")


async def test_a_closed_log_begins_no_snapshot(log: AgentLog) -> None:
    stream = reading(log)
    await anext(stream)
    transfer = next(iter(log._snapshots._running.values()))
    log.close()
    await stream.aclose()
    with pytest.raises(sqlite3.ProgrammingError):
        transfer.view._db.execute("SELECT 1")
    with pytest.raises(ZaibeiError, match="stopping"):
        await anext(reading(log))
