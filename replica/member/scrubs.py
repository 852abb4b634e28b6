"""A member's scrubs: one copy after the other is read through, each again after some days; what was found is kept and told."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from replica.member.edge_broken import tell_end
from replica.model.errors import Code, ZaibeiError
from replica.store.edge_disk import write_durable
from replica.store.edge_metrics import ScrubMetrics
from replica.store.edge_scrub import scrub
from replica.store.edge_store import SourceStore
from replica.store.scrub import DAMAGED, DAY_MS, Finding, Scrubbed, kept, next_turn, warning_of

SCRUBS_FILE = "scrubs.json"  # in the data folder: when each copy was read through, and what was found
LOOK_S = 10.0
MB = 1_000_000

log = logging.getLogger("zaibei.member")

_decode = msgspec.json.Decoder(dict[str, Scrubbed]).decode  # made once: see state_row.py


class Stores(Protocol):
    """Satisfied by the member: whose copies are open and in service here, and whether others hold them too."""

    def scrubbed_stores(self) -> Mapping[str, SourceStore]: ...


class Scrubs:
    """One scrub at a time, in a thread of its own.

    Args:
        every_days: between two scrubs of one copy; 0: only when asked for.
        mb_s: how many million octets a second are read, so that answers and intake do not feel it.
        alone: this member is no part of a cluster.
    """

    def __init__(
        self,
        data: Path,
        stores: Stores,
        *,
        every_days: int,
        mb_s: int,
        alone: bool,
        now_ms: Callable[[], int],
        metrics: ScrubMetrics | None = None,
    ) -> None:
        self._path, self._stores, self._alone, self._now_ms, self._metrics = data / SCRUBS_FILE, stores, alone, now_ms, metrics
        self._every_ms, self._octets_s = every_days * DAY_MS, mb_s * MB
        self._started_ms = now_ms()
        self._stop = threading.Event()
        self._asked: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.running = ""
        self.last: dict[str, Scrubbed] = {}

    async def start(self) -> None:
        """Read what was found earlier, and begin. A file that is not ours is as none: everything is read again."""
        try:
            self.last = _decode(await asyncio.to_thread(self._path.read_bytes))
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as exc:
            log.warning("what scrubs found earlier is not known", extra={"fields": {"file": str(self._path), "why": str(exc)}})
        for name, found in self.last.items():
            self._tell(name, found)
        self._task = asyncio.create_task(self._run(), name="scrub copies")
        self._task.add_done_callback(tell_end)

    async def stop(self) -> None:
        """Within a second or so: a scrub that runs is given up, and begins anew next time."""
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def ask(self, source: str) -> None:
        """Scrub a copy next, due or not. Raises ZaibeiError(NOT_FOUND): it is not open here."""
        stores = self._stores.scrubbed_stores()
        if source not in stores:
            names = ", ".join(sorted(stores)) or "none"
            raise ZaibeiError(Code.NOT_FOUND, f"no copy of {source!r} is in service at this member; there are: {names}")
        self._asked[source] = None
        self._wake.set()

    def asked(self) -> tuple[str, ...]:
        """Who was asked for and has not begun."""
        return tuple(self._asked)

    def found(self) -> dict[str, Scrubbed | None]:
        """Of each copy that is in service here: what was found of the very files it is now; None: nothing yet."""
        stores, last = self._stores.scrubbed_stores(), self.last
        return {name: last[name] if name in last and last[name].mark == store.mark else None for name, store in stores.items()}

    def trouble(self, source: str) -> ZaibeiError | None:
        """Why this copy is not to be trusted; None: nothing is known against it."""
        found = self.found().get(source)
        return (
            ZaibeiError(Code.DAMAGED, f"a scrub found {found.text}") if found is not None and found.finding in DAMAGED else None
        )

    def warnings(self) -> list[str]:
        """A sentence for each copy that is damaged."""
        texts = (one and warning_of(name, one, self._alone) for name, one in sorted(self.found().items()))
        return [text for text in texts if text]

    async def _run(self) -> None:
        while True:
            stores = self._stores.scrubbed_stores()
            name = self._next(stores)
            if name is None:
                self._wake.clear()
                try:
                    async with asyncio.timeout(LOOK_S):
                        await self._wake.wait()
                except TimeoutError:
                    continue
            else:
                await self._scrub(name, stores[name])

    def _next(self, stores: Mapping[str, SourceStore]) -> str | None:
        while self._asked:
            name = next(iter(self._asked))
            del self._asked[name]
            if name in stores:
                return name
        known = {source: found for source, found in self.found().items() if found is not None}
        return next_turn(stores, known, self._now_ms(), self._started_ms, self._every_ms) if self._every_ms else None

    async def _scrub(self, name: str, store: SourceStore) -> None:
        self.running = name
        thread = asyncio.get_running_loop().run_in_executor(None, scrub, store, self._octets_s, self._stop, self._now_ms)
        try:
            found = await asyncio.shield(thread)
        except asyncio.CancelledError:
            await asyncio.gather(thread, return_exceptions=True)  # the store must not be closed under it
            raise
        finally:
            self.running = ""
        self.last[name] = kept(self.last.get(name), found)
        self._tell(name, self.last[name])
        try:
            await asyncio.to_thread(write_durable, self._path, msgspec.json.encode(self.last))
        except ZaibeiError as exc:
            log.warning("what a scrub found is not kept", extra={"fields": {"source": name, "why": str(exc)}})

    def _tell(self, name: str, found: Scrubbed) -> None:
        if self._metrics is not None:
            self._metrics.found(name, found)
        fields = {"source": name, "finding": found.finding.value, "records": found.records, "took_ms": found.took_ms}
        if found.finding is Finding.SOUND:
            log.info("copy read through", extra={"fields": fields})
        else:
            log.error("copy read through, and it is not sound", extra={"fields": {**fields, "why": found.text}})
