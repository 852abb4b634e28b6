"""The agent between two of its persistence steps, and read at that very moment."""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replica.agent.log import SEGMENT_OCTETS_MAX
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.v1 import source_pb2
from tests.unit.agent.helpers import commit, grant, opened, put


async def test_a_grant_that_met_a_full_disk_half_way_is_taken_by_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log, not in the content: the second try must find it, not begin the epoch twice."""
    log = opened(tmp_path)
    await asyncio.to_thread(commit, log, put("A"))
    granted = grant(log.head())

    def full(_: object) -> None:
        raise ZaibeiError(Code.DISK_FULL, "no room", retry=True)

    with monkeypatch.context() as disk:
        disk.setattr(log.content, "begin_epoch", full)
        with pytest.raises(ZaibeiError, match="disk_full"):
            await log.accept_grant(granted)
    assert log.head().epoch == 0
    start = await log.accept_grant(granted)
    assert start == log.head()
    assert len(list((tmp_path / "state" / "log").glob("*.seg"))) == 2
    assert (tmp_path / "identity" / "state-was-here").read_text() == "granted"
    after = await asyncio.to_thread(commit, log, put("B"))
    log.close()
    log = opened(tmp_path)
    assert (log.head(), log.floor()) == (after, start)
    log.close()


async def test_no_snapshot_is_of_a_position_that_the_head_has_not_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored and not published yet: a replica told of such a position would see the next beat go back behind it."""
    log = opened(tmp_path)
    await asyncio.to_thread(commit, log, put("A"))
    stored, go_on = threading.Event(), threading.Event()
    publish = log.content.publish

    def slowly(published) -> None:  # type: ignore[no-untyped-def]
        stored.set()
        go_on.wait(60)
        publish(published)

    monkeypatch.setattr(log.content, "publish", slowly)
    writing = asyncio.create_task(asyncio.to_thread(commit, log, put("B")))
    await asyncio.to_thread(stored.wait, 5)
    parts = log.snapshot(source_pb2.SnapshotRequest())
    opening = asyncio.ensure_future(anext(parts))
    await asyncio.wait({opening}, timeout=0.3)
    head = log.head()
    seen = opening.result().header.position.seq if opening.done() else None
    go_on.set()
    await writing
    assert seen is None or seen <= head.seq
    header = await opening
    assert header.header.position.seq <= log.head().seq
    await parts.aclose()  # type: ignore[attr-defined]
    log.close()


async def test_readers_that_go_at_once_keep_no_snapshot_from_the_next(tmp_path: Path) -> None:
    """Behind the header, and before it: four of either kind used to end all snapshots of that source for good."""
    log = opened(tmp_path)
    await asyncio.to_thread(commit, log, put("A"))
    for _ in range(6):
        parts = log.snapshot(source_pb2.SnapshotRequest())
        assert (await anext(parts)).HasField("header")
        await parts.aclose()  # type: ignore[attr-defined]
    for _ in range(6):
        opening = asyncio.ensure_future(anext(log.snapshot(source_pb2.SnapshotRequest())))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
    await asyncio.sleep(0.1)
    found = [part.WhichOneof("body") async for part in log.snapshot(source_pb2.SnapshotRequest())]
    assert found == ["header", "chunk", "end"]
    log.close()


class Overtaken(dict[Position, float]):
    """Leases; while they are looked at one by one, `meanwhile` runs in a thread of its own, to its end or for half a second."""

    meanwhile: Callable[[], None]

    def items(self) -> Any:
        for item in super().items():
            other = threading.Thread(target=self.meanwhile)
            other.start()
            other.join(0.5)
            yield item


async def test_a_lease_that_comes_while_segments_are_released_counts_and_hinders_nothing(tmp_path: Path) -> None:
    """Leases come on the event loop, releasing is done by whoever appends."""
    log = opened(tmp_path)
    await log.accept_grant(grant(log.head()))
    first = await asyncio.to_thread(commit, log, put("A"))
    log.retain(first, 60_000)
    second = await asyncio.to_thread(commit, log, put("B"))
    leases = Overtaken(log._retention._leases)
    leases.meanwhile = lambda: log.retain(second, 60_000)
    log._retention._leases = leases
    await asyncio.to_thread(commit, log, put("C"))
    await asyncio.sleep(0)
    assert set(log._retention._leases) == {first, second}
    log.close()


class Appending(array):  # type: ignore[type-arg]
    """Ends of batches; whoever appends one is read at that very moment."""

    meanwhile: Callable[[], None]

    def append(self, value: int, /) -> None:
        self.meanwhile()
        super().append(value)


@pytest.mark.parametrize("which", ["befores", "offsets", "ends"])
async def test_a_reader_that_is_behind_never_sees_half_of_a_new_batch(tmp_path: Path, which: str) -> None:
    log = opened(tmp_path)
    start = await log.accept_grant(grant(log.head()))
    await asyncio.to_thread(commit, log, put("A"))
    read: list[int] = []
    segment = log._files.segments[-1]
    watched = Appending("Q", getattr(segment, which))
    watched.meanwhile = lambda: read.append(len(log.read(start, SEGMENT_OCTETS_MAX) or ()))
    setattr(segment, which, watched)
    await asyncio.to_thread(commit, log, put("B"))
    assert read == [1], "what is not published yet is not read"
    assert len(log.read(start, SEGMENT_OCTETS_MAX) or ()) == 2
    log.close()
