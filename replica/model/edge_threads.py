"""Things made in a thread for somebody who may be cancelled meanwhile: the thread goes on, and what it made must not be lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

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


def _let_go(loop: asyncio.AbstractEventLoop, let_go: Callable[[T], object], making: asyncio.Future[T]) -> None:
    if not making.cancelled() and making.exception() is None:
        loop.run_in_executor(None, let_go, making.result())
