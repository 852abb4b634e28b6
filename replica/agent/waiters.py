"""Wakes coroutines of any event loop when a thread has published something new."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


class Waiters:
    """`wait` on an event loop, `wake` from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    async def wait(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Return when `done()` is true after a `wake`, is true already, or the time is over."""
        event = asyncio.Event()
        entry = (asyncio.get_running_loop(), event)
        with self._lock:
            self._waiting.add(entry)
        try:
            async with asyncio.timeout(timeout_s):
                while not done():
                    await event.wait()
                    event.clear()
        except TimeoutError:
            pass
        finally:
            with self._lock:
                self._waiting.discard(entry)

    def wake(self) -> None:
        with self._lock:
            waiting = list(self._waiting)
        for loop, event in waiting:
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # that loop was closed meanwhile; its waiter is gone with it
                continue
