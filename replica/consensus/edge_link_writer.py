"""Writes what waits in an outbox to a stream, one LinkMessage after the other, as soon as there is any."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from replica.consensus.link_frames import Outbox
from replica.consensus.link_port import BATCH_OCTETS_MAX


class Writer:
    """The one task that writes to a stream.

    What is put within one turn of the event loop leaves together: the task is woken once and runs in the next turn. While it
    waits for the stream, more gathers, so batches grow with the load and a lone message waits for nothing.

    Args:
        write: gives a LinkMessage to the stream; waits while the stream is full.
        room: told how many octets were given to the stream: how many octets of messages may follow; what waits once always may.
        held: told that messages wait because none may; it may put what waits once.
    """

    __slots__ = ("_held", "_room", "_waiting", "_write", "outbox", "written")

    def __init__(
        self,
        outbox: Outbox,
        write: Callable[[bytes], Awaitable[None]],
        room: Callable[[int], int] = lambda _written: BATCH_OCTETS_MAX,
        held: Callable[[], None] = lambda: None,
    ) -> None:
        self.outbox, self._write, self._room, self._held = outbox, write, room, held
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
            octets = self._take()
            if octets is None:
                self._waiting = loop.create_future()
                await self._waiting
                continue
            self.written += len(octets)
            await self._write(octets)

    def _take(self) -> bytes | None:
        octets = self.outbox.take(self._room(self.written) if self.outbox.waiting else 0)
        if octets is None and self.outbox.waiting:
            self._held()
            octets = self.outbox.take(0)
        return octets
