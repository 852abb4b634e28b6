"""Pushed snapshots: each has its verdict, whatever became of the one before."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from replica.feed.edge_push_server import PushLink, _Desk
from replica.v1 import source_pb2


async def test_a_load_that_ends_late_gives_its_own_verdict() -> None:
    """One broken off between its header and its parts ends when its stream is forgotten: the next one may have begun."""

    async def write(_message: source_pb2.ReplicaMessage) -> None:
        return

    desk, context = _Desk(), SimpleNamespace(write=write)
    loads: list[Any] = []
    for _ in range(2):
        load = PushLink(context, desk).snapshot(source_pb2.SnapshotRequest())  # type: ignore[arg-type]
        begun = asyncio.ensure_future(anext(load))
        await asyncio.sleep(0)
        assert desk.parts is not None
        desk.parts.put_nowait(source_pb2.SnapshotPart(header=source_pb2.SnapshotHeader()))
        await begun
        loads.append((load, desk.verdict))
    (earlier, its), (_, newer) = loads
    await earlier.aclose()
    assert its.done(), "whoever pushed it waits for it"
    assert not newer.done() and desk.parts is not None
    await loads[1][0].aclose()
    assert newer.done()
