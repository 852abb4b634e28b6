"""Tells security events: takes what the guard notes, lets the watch decide, and sends what it says to every place.

Each place has a queue of its own and one task, so that a slow one holds up nobody: what does not fit is dropped, the oldest
first, and counted. A failed event is tried again a few times with growing pauses, then given up.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from hosting.guard.edge_syslog import Syslog, SyslogPlace
from hosting.guard.edge_webhook import Webhook, WebhookPlace
from hosting.guard.events import SecurityEvent
from hosting.guard.watch import Watch
from replica.model.errors import ZaibeiError

QUEUE_MAX: Final = 256
TRIES_MAX: Final = 5
AGAIN_S: Final = (0.5, 2.0, 8.0, 30.0)
LOOK_S: Final = 5.0  # between two looks at what is over

log = logging.getLogger("zaibei.security")


class Place(Protocol):
    """Where events go."""

    @property
    def name(self) -> str: ...

    async def send(self, event: SecurityEvent) -> None:
        """Raises ZaibeiError; its `retry` says whether another try may help."""
        ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class TellerCounters:
    """What became of events, over all places; read by metrics."""

    events: int = 0
    sent: int = 0
    dropped: int = 0
    given_up: int = 0


def places_of(syslog: Sequence[str], webhook: WebhookPlace | None) -> list[Place]:
    """Of a configuration that was checked. Raises ZaibeiError(INVALID_CONFIG)."""
    host = socket.gethostname()
    places: list[Place] = [Syslog(SyslogPlace.parse(url), host) for url in syslog]
    return [*places, Webhook(webhook)] if webhook is not None else places


class _Lane:
    def __init__(self, place: Place) -> None:
        self.place = place
        self.waiting: deque[SecurityEvent] = deque()
        self.more = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Teller:
    """See the module. `note` is what a guard calls; on the event loop.

    Args:
        member: this process, for people. again_s: pauses before the second try, the third, …
    """

    def __init__(
        self,
        member: str,
        places: Sequence[Place],
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        again_s: Sequence[float] = AGAIN_S,
        watch: Watch | None = None,
    ) -> None:
        self.counters = TellerCounters()
        self._now_ms, self._again_s = now_ms, again_s
        self._number, self._begin = 0, secrets.token_hex(6)
        self._watch = watch or Watch(member, self._next_ident)
        self._lanes = [_Lane(place) for place in places]
        self._look: asyncio.Task[None] | None = None

    def note(self, what: str, client: bytes, count: int) -> None:
        """Something was seen `count` times; cheap, and never fails."""
        for event in self._watch.noted(what, client, count, self._now_ms()):
            self.tell(event)

    def tell(self, event: SecurityEvent) -> None:
        """Log an event and send it everywhere."""
        self.counters.events += 1
        fields = {"event": event.ident, "kind": event.kind.value, "state": event.state.value, "client": event.client}
        log.warning(event.what, extra={"fields": {**fields, "count": event.count}})
        for lane in self._lanes:
            if len(lane.waiting) >= QUEUE_MAX:
                lane.waiting.popleft()
                self.counters.dropped += 1
            lane.waiting.append(event)
            lane.more.set()

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._look = loop.create_task(self._passing())
        for lane in self._lanes:
            lane.task = loop.create_task(self._run(lane))

    async def stop(self) -> None:
        """What was not sent by now is lost: it stands in the log."""
        tasks = [task for task in (self._look, *(lane.task for lane in self._lanes)) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes:
            await lane.place.close()

    def next_ident(self) -> str:
        """For an event that somebody else than the watch makes."""
        return self._next_ident()

    def _next_ident(self) -> str:
        self._number += 1
        return f"{self._begin}-{self._number}"

    async def _passing(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for event in self._watch.passed(self._now_ms()):
                self.tell(event)

    async def _run(self, lane: _Lane) -> None:
        while True:
            await lane.more.wait()
            while lane.waiting:
                await self._send(lane, lane.waiting.popleft())
            lane.more.clear()

    async def _send(self, lane: _Lane, event: SecurityEvent) -> None:
        for pause_s in (*self._again_s[: TRIES_MAX - 1], None):
            try:
                await lane.place.send(event)
            except ZaibeiError as exc:
                if pause_s is None or not exc.trouble.retry:
                    self.counters.given_up += 1
                    why = {"event": event.ident, "place": lane.place.name, "why": exc.trouble.message}
                    log.error("a security event could not be sent", extra={"fields": why})
                    return
                await asyncio.sleep(pause_s)
            else:
                self.counters.sent += 1
                return
