"""A gate in the way of a node's snapshots: holds each one before a given piece (header, chunks, end), until told otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

LOOK_S = 0.01

Parts = Callable[[Any], AsyncIterator[Any]]


class Overtaken(Exception):
    """A newer snapshot began: whoever read this one is gone."""


class Gate:
    """Set from another thread than the snapshots' own.

    Args:
        at: number of the piece that waits, the header is 0; None: open.

    begun: snapshots that were asked for; held: the newest one waits; passed: its pieces that went through; whole: snapshots that
    went through to their end.
    """

    def __init__(self, at: int | None = None) -> None:
        self.at, self.held, self.begun, self.passed, self.whole = at, False, 0, 0, 0

    def over(self, parts: Parts) -> Parts:
        """The same pieces, through the gate."""

        async def gated(request: Any) -> AsyncIterator[Any]:
            self.begun += 1
            mine, self.passed, self.held = self.begun, 0, False
            async with aclosing(parts(request)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    await self._through(mine)
                    yield piece
                    self.passed += 1
            self.whole += 1

        return gated

    async def _through(self, mine: int) -> None:
        """Wait here. A call that was cut off does not end its pieces before the next one is taken: so we look who is newest."""
        try:
            while mine == self.begun and self.at is not None and self.passed >= self.at:
                self.held = True
                await asyncio.sleep(LOOK_S)
        finally:
            if mine == self.begun:
                self.held = False
        if mine != self.begun:
            raise Overtaken

    def look(self) -> dict[str, Any]:
        return {"begun": self.begun, "held": self.held, "passed": self.passed, "whole": self.whole, "at": self.at}
