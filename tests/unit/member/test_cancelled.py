"""Who is cancelled while a thread makes something for it: what was made is let go of, and holds nothing for ever."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from replica.member.failback_ledger import LedgerKeeper
from replica.member.source_log import StoreSourceLog
from replica.model.edge_threads import made_in_thread
from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN
from replica.store import SourceStore
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
