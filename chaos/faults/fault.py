"""A fault as a context that always heals, and the log of what was broken when.

| state | may become | when |
| --- | --- | --- |
| idle | active, stuck | it began; it could not begin (then it was healed at once) |
| active | healed, stuck | it was healed; healing failed: the run says nothing from here on |
| healed, stuck | | final |
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self

from replica.model.errors import require

HEAL_S_MAX = 60.0


class FaultState(StrEnum):
    """Where a fault stands."""

    IDLE = "idle"
    ACTIVE = "active"
    HEALED = "healed"
    STUCK = "stuck"


MOVES: dict[FaultState, frozenset[FaultState]] = {
    FaultState.IDLE: frozenset({FaultState.ACTIVE, FaultState.STUCK}),
    FaultState.ACTIVE: frozenset({FaultState.HEALED, FaultState.STUCK}),
    FaultState.HEALED: frozenset(),
    FaultState.STUCK: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the fault log. `at_ns`: CLOCK_MONOTONIC, as in histories; `what`: the state that was entered."""

    at_ns: int
    fault: str
    what: FaultState
    detail: str = ""


@dataclass(slots=True)
class FaultLog:
    """All faults of a run, in the order in which things happened."""

    events: list[Event] = field(default_factory=list)

    def note(self, fault: str, what: FaultState, detail: str = "") -> None:
        self.events.append(Event(time.monotonic_ns(), fault, what, detail))

    def began_ns(self) -> list[int]:
        """When each fault began."""
        return [event.at_ns for event in self.events if event.what is FaultState.ACTIVE]

    def stuck(self) -> list[Event]:
        """Faults that could not begin or not be healed: with one of them a run is no evidence."""
        return [event for event in self.events if event.what is FaultState.STUCK]


async def nothing() -> None:
    """The heal of what needs none."""


class Fault:
    """One fault: `async with fault:` breaks something and mends it, whatever happens in between.

    Args:
        name: what is broken where, for the log: "cut 1 -> 2".
        begin: breaks it. Raises: it could not; then `heal` runs all the same.
        heal: mends it; may be called when `begin` came only half way, and must then mend that half.
    """

    def __init__(
        self,
        name: str,
        begin: Callable[[], Awaitable[None]],
        heal: Callable[[], Awaitable[None]] = nothing,
        log: FaultLog | None = None,
    ) -> None:
        self.name, self.state = name, FaultState.IDLE
        self._begin, self._heal, self._log = begin, heal, log or FaultLog()

    async def __aenter__(self) -> Self:
        require(self.state is FaultState.IDLE, f"fault {self.name} is used twice")
        try:
            await self._begin()
        except BaseException as exc:
            self._move(FaultState.STUCK, f"{type(exc).__name__}: {exc}")
            await self._mend()
            raise
        self._move(FaultState.ACTIVE)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._mend()
        except BaseException as exc:
            self._move(FaultState.STUCK, f"{type(exc).__name__}: {exc}")
            raise
        self._move(FaultState.HEALED)

    async def _mend(self) -> None:
        """Healing goes on when the run around it is cancelled."""

        async def within() -> None:
            async with asyncio.timeout(HEAL_S_MAX):
                await self._heal()

        task = asyncio.ensure_future(within())
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # it was seen; the cancellation goes on
            raise

    def _move(self, to: FaultState, detail: str = "") -> None:
        require(to in MOVES[self.state], f"fault {self.name}: {self.state} cannot become {to}")
        self.state = to
        self._log.note(self.name, to, detail)
