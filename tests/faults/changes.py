"""Acts that are no faults: members come and go, a source is taken over; and two acts at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chaos.rigs.capability import Capability
from tests.faults.acts import Act, Stage


@dataclass(frozen=True, slots=True)
class While:
    """The second act while the first one is on."""

    first: Act
    second: Act

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        async with self.first.on(stage), self.second.on(stage):
            yield


@dataclass(frozen=True, slots=True)
class Grow:
    """A new member is asked to come; it has come when the act ends. Nothing is healed: it stays."""

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        joining = await stage.system.grow()
        yield
        try:
            await joining
        except TimeoutError as exc:  # of the system, not of the machinery: it was asked, and nobody let it take part
            stage.unmet.append(f"the new member never came: {str(exc)[:200]}")


@dataclass(frozen=True, slots=True)
class Shrink:
    """The newest member is asked to go; it has gone when the act ends."""

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        leaving = await stage.system.shrink(max(stage.system.seats))
        yield
        try:
            await leaving
        except TimeoutError as exc:
            stage.unmet.append(f"the member never went: {str(exc)[:200]}")


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The fed source's own node dies and is answered for; its return is the heal. Where nothing is fed there is nothing to take
    over."""

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        if Capability.FEED not in stage.system.capabilities:
            yield
            return
        await stage.system.source_dies()
        try:
            yield
        finally:
            await stage.system.source_returns()
