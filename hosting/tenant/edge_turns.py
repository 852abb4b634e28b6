"""What one tenant may take of the event loop: its streams work one after the other, and its refusals over quota are told late.

The loop comes round to everybody once every stream that is ready had its turn. So one tenant has one turn a round, of at most
TURN_S_MAX, however many streams it opens; and whoever goes on asking over its quota waits for each answer as long as
`Bucket.refused` says, so that its own client, its connection's open calls or its unread stream slow it down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from hosting.tenant.limits import TURN_S_MAX
from hosting.tenant.offices import Office
from replica.model.errors import Trouble

MS_PER_S: Final = 1_000


class Turns:
    """Of all streams of one tenant: whose turn it is, and until when in this round of the event loop.

    Args:
        clock_s: seconds, monotonic.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.mine, self._clock_s = asyncio.Lock(), clock_s
        self._until_s: float | None = None  # None: nothing was done in this round

    def begin(self) -> None:
        """Somebody works in this round, from now on or since before."""
        if self._until_s is None:
            self._until_s = self._clock_s() + TURN_S_MAX
            asyncio.get_running_loop().call_soon(self._next_round)

    def over(self) -> bool:
        """Has the tenant had its time in this round?"""
        self.begin()
        return self._until_s is not None and self._clock_s() >= self._until_s

    def _next_round(self) -> None:
        self._until_s = None


class Turn:
    """A stream's turn, an asynchronous context: it waits until no other stream of the tenant has one."""

    def __init__(self, turns: Turns) -> None:
        self._turns, self._has = turns, False

    async def __aenter__(self) -> Turn:
        await self._turns.mine.acquire()
        self._has = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end()

    async def go_on(self) -> None:
        """Before each change: where the time of this round is over all others come first, then the tenant's next stream."""
        while self._turns.over():
            await asyncio.sleep(0)
            self._end()
            await self._turns.mine.acquire()
            self._has = True

    def _end(self) -> None:
        if self._has:  # who was cancelled while it waited has none to give back
            self._has = False
            self._turns.mine.release()


async def held_back(office: Office, trouble: Trouble) -> None:
    """Wait for as long as a refusal is told late; no longer than HELD_MS_MAX, and not at all for one that is none over quota."""
    held_ms = office.held_ms(trouble)
    if held_ms:
        office.held += 1
        try:
            await asyncio.sleep(held_ms / MS_PER_S)
        finally:
            office.held -= 1
