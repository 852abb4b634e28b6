"""Publishers that share one event loop: for a stand-in process of very many nodes, which in life would have a machine each.

Forty loops on forty threads spend most of their time waiting for each other's turn in the interpreter, and answer nobody in time.
"""

from __future__ import annotations

import asyncio
import threading

from replica.client import Publisher
from replica.model.errors import ZaibeiError

OWN_LOOPS_MAX = 4  # nodes of one process that have a loop of their own


class SharingPublisher(Publisher):
    """As Publisher, on the loop that all of this process share; it runs until the process ends."""

    _shared: asyncio.AbstractEventLoop | None = None
    _making = threading.Lock()

    def _run(self) -> None:
        self._loop.close()
        self._loop = self._the_loop()
        try:
            asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result()
        except ZaibeiError as exc:
            self._failures.append(exc)
        finally:
            self._started.set()

    @classmethod
    def _the_loop(cls) -> asyncio.AbstractEventLoop:
        with cls._making:
            if cls._shared is None:
                cls._shared = asyncio.new_event_loop()
                threading.Thread(target=cls._shared.run_forever, name="publishers", daemon=True).start()
            return cls._shared


def publisher_for(nodes: int) -> type[Publisher]:
    """Which publisher a process of so many nodes uses."""
    return SharingPublisher if nodes > OWN_LOOPS_MAX else Publisher
