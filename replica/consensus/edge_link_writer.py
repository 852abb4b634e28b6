"""Writes what waits in an outbox to a stream, one LinkMessage after the other, as soon as there is any."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from replica.consensus.link_frames import Outbox


class Writer:
    """The one task that writes to a stream.

    What is put within one turn of the event loop leaves together: the task is woken once and runs in the next turn. While it
    waits for the stream, more gathers, so batches grow with the load and a lone message waits for nothing.

    Args:
        write: gives a LinkMessage to the stream; waits while the stream is full.
    """

    __slots__ = ("_waiting", "_write", "outbox", "written")

    def __init__(self, outbox: Outbox, write: Callable[[bytes], Awaitable[None]]) -> None:
        self.outbox, self._write = outbox, write
        self._waiting: asyncio.Future[None] | None = None
        self.written = 0  # octets given to the stream

    def wake(self) -> None:
        """Something was put."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def run(self) -> None:
        """Until cancelled, or until the stream breaks with whatever it raises."""
        loop = asyncio.get_running_loop()
        while True:
            octets = self.outbox.take()
            if octets is None:
                self._waiting = loop.create_future()
                await self._waiting
                continue
            self.written += len(octets)
            await self._write(octets)
