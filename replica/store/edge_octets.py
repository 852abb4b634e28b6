"""Counts the octets of a generation that was written by a version without the row for them; once, beside everything else.

A thread reads the content of one moment, at half the speed it could; what changes meanwhile is added from the differences each
write states. So the sum is exact when it is there, and until then it is not known.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from typing import Final

from replica.model.errors import ZaibeiError
from replica.store.edge_generation import Generation, about_tenants
from replica.store.edge_readout import records
from replica.store.edge_rocks import new_batch
from replica.store.rows import Kind, OctetsRow

STEP_RECORDS: Final = 4_096
AGAIN_S: Final = 60.0  # after counting failed

log = logging.getLogger("zaibei.store")


def count_octets(live: Generation, turn: AbstractContextManager[object], ended: Callable[[], bool]) -> None:
    """Count, and write the row. Blocks long; the generation is pinned by the caller. Raises ZaibeiError.

    Args:
        turn: nothing is committed while it is held. ended: it is given up.
    """
    with turn:
        moment, moved = live.rocks.moment(), live.moved
    octets = about = 0
    content = records(live, moment)
    while True:
        begun = time.monotonic()
        step = [*islice(content, STEP_RECORDS)]
        if not step:
            break
        keys, values = [key for key, _ in step], [value for _, value in step]
        octets += sum(map(len, keys)) + sum(map(len, values))
        about += about_tenants(keys, values)
        if ended():
            return
        time.sleep(time.monotonic() - begun)
    with turn:
        since = live.moved
        held = OctetsRow(octets + since.octets - moved.octets, about + since.about - moved.about)
        wb = new_batch()
        wb.put(Kind.OCTETS, held.pack(live.row.records, live.row.total))
        live.rocks.write(wb)
        live.octets = held


class Counting:
    """At most one thread that counts for a store.

    Args:
        reading: pins the live generation. turn: as in `count_octets`.
    """

    def __init__(
        self, source: str, reading: Callable[[], AbstractContextManager[Generation]], turn: AbstractContextManager[object]
    ) -> None:
        self._source, self._reading, self._turn = source, reading, turn
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._not_before_s = 0.0

    def begin(self) -> None:
        """Unless it is under way, or failed just now. Any thread."""
        with self._lock:
            under_way = self._thread is not None and self._thread.is_alive()
            if under_way or time.monotonic() < self._not_before_s:
                return
            self._thread = threading.Thread(target=self._run, name=f"zaibei-octets-{self._source}", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Let the generation go; returns when the thread is gone."""
        with self._lock:
            self._ended.set()
            if self._thread is not None:
                self._thread.join()
            self._thread = None
            self._ended.clear()

    def _run(self) -> None:
        try:
            with self._reading() as live:
                if live.octets is None:
                    count_octets(live, self._turn, self._ended.is_set)
        except ZaibeiError as exc:
            self._not_before_s = time.monotonic() + AGAIN_S
            log.warning("octets were not counted", extra={"source": self._source, "why": str(exc)})
