"""What TCP and HTTP connections share: back-pressure in both directions and the times their listener sweeps by."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from hosting.front.connections import Connections
from hosting.guard.clients import client_of
from hosting.guard.guard import Guard


class StreamConnection(asyncio.Protocol):
    """One peer. Subclasses read in `data_received`, collect octets in `outbox` and call `send_out`."""

    def __init__(self, connections: Connections, guard: Guard) -> None:
        self.connections, self.guard = connections, guard
        self.client = b""  # empty: nothing is counted against it
        self.transport: asyncio.Transport | None = None
        self.last_heard_s = time.monotonic()
        self.partial_since_s: float | None = None
        self.stalled_since_s: float | None = None
        self.in_flight = 0
        self.unsent_octets = 0
        self.outbox: list[bytes] = []
        self._reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if not self.connections.admit(self):
            self.transport.abort()
            return
        name = transport.get_extra_info("peername")
        host = str(name[0]) if name else ""
        if not self.guard.admits(host):
            self.connections.cut("refused_network", self)
            return
        self.guard.connected(host, int(time.monotonic()))
        if not self.guard.trusts(host):
            self.client = client_of(host)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.outbox.clear()
        self.connections.leave(self)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def heard(self, partial: bool) -> None:
        """Note that octets came. `partial`: an unfinished request is held now."""
        self.last_heard_s = time.monotonic()
        if not partial:
            self.partial_since_s = None
        elif self.partial_since_s is None:
            self.partial_since_s = self.last_heard_s

    def within(self, requests: int) -> int:
        """How many of so many requests that came are taken."""
        return self.guard.stream(self.client, requests, int(time.monotonic())) if self.client else requests

    def finished_one(self) -> None:
        """A request was read to its end: what comes next starts its own time."""
        self.partial_since_s = None

    def throttle(self) -> None:
        """Stop reading while too much is under way or the peer does not read; go on when that is over."""
        busy = self.in_flight >= self.connections.limits.in_flight_max or self.stalled_since_s is not None
        if self.transport is None or busy is not self._reading or self.transport.is_closing():
            return
        self._reading = not busy
        if busy:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def send_out(self) -> None:
        """Write what was collected, and account for what the peer leaves unread."""
        transport = self.transport
        if self.outbox:
            octets = b"".join(self.outbox)
            self.outbox.clear()
            if transport is not None and not transport.is_closing():
                transport.write(octets)
                unsent = transport.get_write_buffer_size()
                if unsent or self.unsent_octets:
                    self.connections.unsent(self, unsent)
        self.throttle()

    def pause_writing(self) -> None:
        self.stalled_since_s = time.monotonic()
        self.throttle()

    def resume_writing(self) -> None:
        self.stalled_since_s = None
        if self.transport is not None:
            self.connections.unsent(self, self.transport.get_write_buffer_size())
        self.throttle()
