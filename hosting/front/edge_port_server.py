"""The owner's side of the answer port over a Unix socket: reads for fronts, tells them the catalog, beats into the page."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hosting.answer.port import AnswerPort
from hosting.front.edge_page import OwnerPage
from hosting.front.pause import boottime_ns
from hosting.front.port_wire import Deframer, Kind, PortFault, decode_wants, encode_catalog, encode_failed, encode_found, frame
from replica.model.catalog import Catalog
from replica.model.errors import Code, ZaibeiError

_log = logging.getLogger("zaibei.front")


@dataclass(frozen=True, slots=True)
class PortServerSettings:
    """Where fronts find the owner, and its limits.

    Args:
        socket_path: Unix socket (mode 0600); its page is beside it, with `.page` behind the name.
        beat_interval_ms: between beats of the event loop into the page.
        calls_max: reads under way for one front; a front of ours has 2 batches and its gRPC calls.
        fronts_max: connections at once.
    """

    socket_path: Path
    beat_interval_ms: int = 3
    calls_max: int = 64
    fronts_max: int = 64

    @property
    def page_path(self) -> Path:
        return self.socket_path.with_name(self.socket_path.name + ".page")


class PortServer:
    """Serves a port to fronts until `stop`."""

    def __init__(self, port: AnswerPort, settings: PortServerSettings) -> None:
        self.port = port
        self.settings = settings
        self.links: set[_Link] = set()
        self._page: OwnerPage | None = None
        self._server: asyncio.Server | None = None
        self._beat: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Raises OSError: the socket's folder is missing or not ours."""
        path = self.settings.socket_path
        self._page = OwnerPage(self.settings.page_path, boottime_ns())
        path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        old = os.umask(0o177)
        try:
            self._server = await loop.create_unix_server(lambda: _Link(self), str(path))
        finally:
            os.umask(old)
        self._tick()

    async def stop(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        if self._page is not None:
            self._page.close()
            self._page = None
        if self._server is not None:
            self._server.close()
        for link in list(self.links):
            link.abort()
        self.settings.socket_path.unlink(missing_ok=True)

    @property
    def open_id(self) -> bytes:
        return self._page.open_id if self._page is not None else b""

    def _tick(self) -> None:
        if self._page is None:
            return
        self._page.beat(boottime_ns())
        for link in self.links:
            link.tell_catalog()
        self._beat = asyncio.get_running_loop().call_later(self.settings.beat_interval_ms / 1_000, self._tick)


class _Link(asyncio.Protocol):
    """One front."""

    def __init__(self, server: PortServer) -> None:
        self._server = server
        self._deframer = Deframer()
        self._calls: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None
        self._told: Catalog | None = None
        self._reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._server.links) >= self._server.settings.fronts_max:
            self._transport.abort()
            return
        self._server.links.add(self)
        self._transport.write(frame(Kind.HELLO, 0, self._server.open_id))
        self.tell_catalog()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.links.discard(self)
        for call in self._calls:
            call.cancel()
        self._transport = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def tell_catalog(self) -> None:
        """Send the catalog if it is not the one sent last; always before answers that were read after it."""
        try:
            catalog = self._server.port.catalog()
        except ZaibeiError:
            return
        if catalog is not self._told and self._transport is not None:
            self._told = catalog
            self._transport.write(frame(Kind.CATALOG, 0, encode_catalog(catalog)))

    def data_received(self, data: bytes) -> None:
        try:
            for kind, number, body in self._deframer.feed(data):
                if kind is not Kind.WANTS:
                    raise PortFault(f"a front sends wants, not {kind.name}")
                self._begin(number, decode_wants(body))
        except PortFault as exc:
            _log.warning("a front was disconnected", extra={"reason": str(exc)})
            self.abort()

    def _begin(self, number: int, wants: dict[str, list[bytes]]) -> None:
        call = asyncio.get_running_loop().create_task(self._answer(number, wants))
        self._calls.add(call)
        call.add_done_callback(self._ended)
        if len(self._calls) >= self._server.settings.calls_max and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    async def _answer(self, number: int, wants: dict[str, list[bytes]]) -> None:
        try:
            found = await self._server.port.get_many(wants)
            reply = frame(Kind.FOUND, number, encode_found(found, boottime_ns()))
        except ZaibeiError as exc:
            reply = frame(Kind.FAILED, number, encode_failed(exc))
        except (OSError, ValueError) as exc:
            reply = frame(Kind.FAILED, number, encode_failed(ZaibeiError(Code.UNKNOWN, f"the owner could not read: {exc}")))
        self.tell_catalog()
        if self._transport is not None:
            self._transport.write(reply)
