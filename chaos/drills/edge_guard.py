"""Runs a drill under its watch: on a reason to stop the work is cancelled, and its faults heal before anything else happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from chaos.drills.abort import LOOK_EVERY_MS, NS_PER_MS, Glimpse, Watch

Look = Callable[[], Awaitable[Glimpse]]


@dataclass(frozen=True, slots=True)
class Guarded:
    """How it ended. reason: "" when it came to its end by itself; stopped_ns: when the work was told to stop, CLOCK_MONOTONIC."""

    reason: str
    stopped_ns: int | None = None


async def guarded(work: Callable[[], Awaitable[None]], look: Look, minutes_max: int) -> Guarded:
    """Run `work` while `look` sees nothing that speaks against it.

    The faults of `work` are contexts (chaos/faults/fault.py): cancelled, they heal, and only then this returns. A look that fails
    or hangs counts as blindness. What `work` itself raises is raised here.
    """
    watch = Watch(time.monotonic_ns(), minutes_max)
    task, looking = asyncio.ensure_future(work()), asyncio.create_task(_looks(look, watch))
    try:
        while not task.done():
            await asyncio.wait([task], timeout=LOOK_EVERY_MS / 1_000)
            if not task.done() and (reason := watch.tick(time.monotonic_ns())):
                stopped_ns = time.monotonic_ns()
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                return Guarded(reason, stopped_ns)
        watch.end()
        await task
        return Guarded("")
    finally:
        looking.cancel()
        if not task.done():  # we ourselves were cancelled: the work heals all the same
            task.cancel()
            await asyncio.wait([task])


async def _looks(look: Look, watch: Watch) -> None:
    while True:
        began_ns = time.monotonic_ns()
        with suppress(Exception):  # a look that fails is no look: the watch sees that nothing came
            watch.saw(await look(), began_ns)
        await asyncio.sleep(max(0.0, LOOK_EVERY_MS / 1_000 - (time.monotonic_ns() - began_ns) / NS_PER_MS / 1_000))
