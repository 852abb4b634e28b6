"""Work in threads for somebody who may be cancelled meanwhile: a cancellation does not stop the thread.

What a thread made must not be lost (`made_in_thread`), and what it uses must not be closed under it (`ended_in_thread`): a file
of SQLite or RocksDB that is closed while another thread is within it ends the process. What nobody may have a second time, as an
open database, is gone before its asker goes on (`made_or_ended`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


async def made_in_thread(make: Callable[[], T], let_go: Callable[[T], object]) -> T:
    """What `make` makes. Raises as it does.

    Args:
        let_go: in a thread too, of what was made for somebody who was cancelled.
    """
    loop = asyncio.get_running_loop()
    making = loop.run_in_executor(None, make)
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(partial(_let_go, loop, let_go))
        raise


async def ended_in_thread(work: Callable[[], T]) -> T:
    """What `work` gives. A cancellation is raised when the thread has left `work`, so that its caller may close what it used.

    For work that ends by itself. Raises as `work` does.
    """
    return await _ended(asyncio.get_running_loop().run_in_executor(None, work))


async def made_or_ended(make: Callable[[], T], end: Callable[[T], object]) -> T:
    """As `made_in_thread`; but a cancellation is raised when what was made for nobody is ended."""
    made: list[T] = []
    try:
        await ended_in_thread(lambda: made.append(make()))
    except asyncio.CancelledError:
        for one in made:
            await ended_in_thread(partial(end, one))
        raise
    return made[0]


async def ended(work: Coroutine[Any, Any, T]) -> T:
    """As `ended_in_thread`, of what must not stop half way although nothing blocks in it."""
    return await _ended(asyncio.ensure_future(work))


async def _ended(working: asyncio.Future[T]) -> T:
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():
            with suppress(asyncio.CancelledError):  # a second one: no reason to leave earlier
                await asyncio.wait({working})
        if not working.cancelled():
            working.exception()  # nobody's trouble: the cancellation is told
        raise


def _let_go(loop: asyncio.AbstractEventLoop, let_go: Callable[[T], object], making: asyncio.Future[T]) -> None:
    if not making.cancelled() and making.exception() is None:
        loop.run_in_executor(None, let_go, making.result())
