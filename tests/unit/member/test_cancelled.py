"""Who is cancelled while a thread works for it: what was made is let go of, and nothing is closed under the thread."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from replica.member import failback_ledger
from replica.member.failback_ledger import LedgerKeeper
from replica.member.source_log import StoreSourceLog
from replica.model.edge_threads import ended_in_thread, made_in_thread
from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN
from replica.store import SourceStore
from replica.store.edge_readout import SnapshotReader
from replica.takeover.edge_spool import Spool
from replica.v1 import source_pb2
from tests.unit.store.support import SOURCE, small_budget

WAIT_S = 10
NOBODY: Any = None


class Slow:
    """Work in a thread that began, and ends when it may."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work
        self.began, self.goes_on, self.ended = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        self.began.set()
        assert self.goes_on.wait(WAIT_S)
        made = self._work(*arguments)
        self.ended.set()
        return made

    async def cancels(self, asker: Awaitable[object]) -> None:
        """The asker is cancelled within the work; then the work ends."""
        task = asyncio.ensure_future(asker)
        assert await asyncio.to_thread(self.began.wait, WAIT_S)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        self.goes_on.set()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def _read_out(store: SourceStore) -> None:
    async for _ in StoreSourceLog(store, NOBODY, ()).snapshot(source_pb2.SnapshotRequest()):
        pass


async def _compare(store: SourceStore) -> None:
    await LedgerKeeper(store, NOBODY, Path(), NOBODY)._compare(NOBODY, ORIGIN, absent=False)


@pytest.mark.parametrize("reads", [_read_out, _compare])
async def test_a_reader_that_is_gone_before_its_snapshot_was_made_pins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: Callable[[SourceStore], Awaitable[None]]
) -> None:
    """A generation that is pinned is never closed, nor opened again after a full disk."""
    store = SourceStore.open(tmp_path / "store", SOURCE, small_budget(tmp_path))
    slow = Slow(store.snapshot)
    monkeypatch.setattr(store, "snapshot", slow)
    await slow.cancels(reads(store))
    await until(slow.ended.is_set)
    await until(lambda: store._live.readers == 0)
    store.close()


async def test_work_that_fails_for_somebody_who_is_gone_is_nobodys_trouble() -> None:
    def fails() -> None:
        raise ZaibeiError(Code.DISK_FULL, "planted", retry=True)

    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context))
    slow = Slow(fails)
    await slow.cancels(made_in_thread(slow, heard.append))
    await asyncio.sleep(0.05)
    gc.collect()
    await asyncio.sleep(0)
    assert not heard


class Within:
    """A thread that is within something; what is closed meanwhile is kept in mind."""

    def __init__(self) -> None:
        self.began, self.goes_on, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.closed_within = False

    def held(self, *_: object) -> Iterator[Any]:
        self.began.set()
        self.goes_on.wait(WAIT_S)
        self.closed_within = self.closed.is_set()
        yield from ()

    async def cancelled_early(self, asker: Awaitable[object]) -> None:
        """The asker is cancelled twice while the thread is within; then the thread goes on."""
        task = asyncio.ensure_future(asker)
        assert await asyncio.to_thread(self.began.wait, WAIT_S)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.05)
        self.goes_on.set()
        await asyncio.wait({task})
        assert task.cancelled()
        assert await asyncio.to_thread(self.closed.wait, WAIT_S)


async def test_a_ledger_that_is_given_up_closes_its_file_when_the_thread_has_left_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite that is closed while another thread steps through it ends the process with a segmentation fault."""
    within = Within()

    class Watched(Spool):
        theirs = within.held

        def close(self) -> None:
            within.closed.set()
            super().close()

    monkeypatch.setattr(failback_ledger, "Spool", Watched)
    await within.cancelled_early(LedgerKeeper(NOBODY, NOBODY, tmp_path, NOBODY).fetch(ORIGIN, ORIGIN))
    assert not within.closed_within


async def test_a_snapshot_that_is_given_up_is_closed_when_the_thread_has_left_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, within, close = SourceStore.open(tmp_path / "store", SOURCE, small_budget(tmp_path)), Within(), SnapshotReader.close

    def closed(reader: SnapshotReader) -> None:
        within.closed.set()
        close(reader)

    monkeypatch.setattr(SnapshotReader, "parts", within.held)
    monkeypatch.setattr(SnapshotReader, "close", closed)
    await within.cancelled_early(_read_out(store))
    assert not within.closed_within
    store.close()


async def test_an_error_of_work_that_was_given_up_is_nobodys_trouble() -> None:
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context))
    began, goes_on = threading.Event(), threading.Event()

    def fails() -> None:
        began.set()
        goes_on.wait(WAIT_S)
        raise ZaibeiError(Code.DISK_FULL, "planted", retry=True)

    task = asyncio.ensure_future(ended_in_thread(fails))
    await asyncio.to_thread(began.wait, WAIT_S)
    task.cancel()
    goes_on.set()
    await asyncio.wait({task})
    assert task.cancelled()
    del task  # it holds the frames, and they the error
    gc.collect()
    await asyncio.sleep(0)
    assert not heard
