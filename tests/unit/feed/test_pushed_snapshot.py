"""A snapshot that a source pushes: who pushes it hears what became of it, each time, on one and the same stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from replica.feed.edge_push_server import PushLink, PushService, _Desk
from replica.model.identity import Peer
from replica.v1 import feed_pb2, source_pb2

ASKED = source_pb2.SnapshotRequest()
HEADER = source_pb2.SnapshotPart(header=source_pb2.SnapshotHeader(source="a"))
CHUNK = source_pb2.SnapshotPart(chunk=source_pb2.SnapshotChunk(part=0))
END = source_pb2.SnapshotPart(end=source_pb2.SnapshotEnd())
WAIT_S = 5


class Context:
    """Takes what is written."""

    async def write(self, message: object) -> None:
        del message


class Service(PushService):
    """Knows its caller, and needs no certificate for that."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk

    async def _open(self, context: Any, *, push: bool = False) -> Any:
        return Peer("a", b""), None, self._desk


class Stream:
    """One stream of a pushing source, seen from the loading side."""

    def __init__(self) -> None:
        self.desk = _Desk()
        self.link: PushLink = PushLink(Context(), self.desk)  # type: ignore[arg-type]
        self.service = Service(self.desk)

    async def begun(self) -> tuple[AsyncIterator[source_pb2.SnapshotPart], asyncio.Task[feed_pb2.SnapshotVerdict]]:
        """A snapshot whose header came; the source goes on pushing."""
        parts = self.link.snapshot(ASKED)
        first = asyncio.ensure_future(anext(parts))
        await asyncio.sleep(0)  # it is asked for
        pushing = asyncio.create_task(self.service.PushSnapshot(self._pushed(), Context()))  # type: ignore[arg-type]
        assert (await first).HasField("header")
        return parts, pushing

    async def _pushed(self) -> AsyncIterator[source_pb2.SnapshotPart]:
        for part in (HEADER, CHUNK, END):
            yield part


async def test_a_snapshot_that_was_read_to_its_end_is_accepted_at_once() -> None:
    """The reader leaves at the end and keeps the iterator, as a stream does: a source that waits pushes no second snapshot."""
    stream = Stream()
    async with asyncio.timeout(WAIT_S):
        for _ in range(2):
            parts, pushing = await stream.begun()
            async for part in parts:
                if part.HasField("end"):
                    break
            assert (await pushing).accepted
