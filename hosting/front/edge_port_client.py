"""A front's side of the answer port: the port over a Unix socket, for fronts that outlive the owner.

Nothing is answered from memory. While the owner is gone, or has not beaten for `beat_silence_ms_max` while a read waits, every
read fails at once and the front answers 2; it recovers by itself when an owner beats and answers again.

| state | what `catalog` and `get_many` do | leaves when |
| --- | --- | --- |
| away | fail at once | connected, and its page carries the open_id it said |
| there | catalog kept by the owner's messages; reads go over the socket | the socket closes, or a fault of its octets: away |
| there, silent | fail at once; what waited fails after the silence | the page is beaten again |
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hosting.answer.port import Found, Wants
from hosting.front.edge_page import FrontPage
from hosting.front.pause import boottime_ns
from hosting.front.port_wire import Deframer, Kind, PortFault, decode_catalog, decode_failed, decode_found, encode_wants, frame
from replica.model.catalog import Catalog
from replica.model.errors import Code, ZaibeiError

_log = logging.getLogger("zaibei.front")
_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class PortClientSettings:
    """How a front finds its owner, and when it no longer believes in it.

    Args:
        socket_path: of the owner; its page is beside it, with `.page` behind the name.
        beat_silence_ms_max: an owner silent for longer, while a read waits, is gone for now.
        answer_age_ms_max: an answer that was read longer ago is not used (this front stood still meanwhile).
        calls_max: reads under way; more fail with BUSY.
        reconnect_ms: between attempts to find an owner.
    """

    socket_path: Path
    beat_silence_ms_max: int = 50
    answer_age_ms_max: int = 100
    calls_max: int = 64
    reconnect_ms: int = 20

    @property
    def page_path(self) -> Path:
        return self.socket_path.with_name(self.socket_path.name + ".page")


class SocketAnswerPort:
    """An AnswerPort; `start` it first. `recoveries` counts owners found, `refusals` connections given up for what they said."""

    def __init__(self, settings: PortClientSettings) -> None:
        self.settings = settings
        self.recoveries = 0
        self.refusals = 0
        self._silence_ns = settings.beat_silence_ms_max * _NS
        self._waiting: dict[int, tuple[asyncio.Future[Found], int]] = {}
        self._number = 0
        self._link: _OwnerLink | None = None
        self._page: FrontPage | None = None
        self._catalog: Catalog | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._seeker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._seeker = asyncio.get_running_loop().create_task(self._seek())

    async def stop(self) -> None:
        if self._seeker is not None:
            self._seeker.cancel()
            await asyncio.gather(self._seeker, return_exceptions=True)
        if self._watch is not None:
            self._watch.cancel()
        self._lost("this front stops")

    def catalog(self) -> Catalog:
        if self._catalog is None or self._silent(boottime_ns()):
            raise _gone("the owner of the stores is away")
        return self._catalog

    async def get_many(self, wants: Wants) -> Found:
        now, link = boottime_ns(), self._link
        if link is None or self._catalog is None or self._silent(now):
            raise _gone("the owner of the stores is away")
        if len(self._waiting) >= self.settings.calls_max:
            raise ZaibeiError(Code.BUSY, "too many reads are under way", retry=True)
        loop = asyncio.get_running_loop()
        self._number = (self._number + 1) & 0xFFFFFFFF
        answer: asyncio.Future[Found] = loop.create_future()
        self._waiting[self._number] = (answer, now)
        link.send(frame(Kind.WANTS, self._number, encode_wants(wants)))
        if self._watch is None:
            self._watch = loop.call_later(self.settings.beat_silence_ms_max / 4_000, self._look)
        return await answer

    def _silent(self, now_ns: int) -> bool:
        return self._page is None or now_ns - self._page.beat_ns() > self._silence_ns

    def _look(self) -> None:
        """While reads wait: give them up when neither an answer nor a beat came for the limit."""
        self._watch = None
        now = boottime_ns()
        if self._silent(now):
            overdue = [number for number, (_, since) in self._waiting.items() if now - since > self._silence_ns]
            self._fail(overdue, "the owner of the stores is silent")
        if self._waiting:
            self._watch = asyncio.get_running_loop().call_later(self.settings.beat_silence_ms_max / 4_000, self._look)

    def _fail(self, numbers: list[int], why: str) -> None:
        for number in numbers:
            answer, _ = self._waiting.pop(number)
            if not answer.done():
                answer.set_exception(_gone(why))

    async def _seek(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self._link is None:
                try:
                    await loop.create_unix_connection(lambda: _OwnerLink(self), str(self.settings.socket_path))
                except OSError:
                    pass  # nobody there yet; the next round tries again
            await asyncio.sleep(self.settings.reconnect_ms / 1_000)

    # ------------------------------------------------------------------------------------------- called by the link
    def linked(self, link: _OwnerLink) -> None:
        self._link = link

    def hello(self, open_id: bytes) -> None:
        try:
            page = FrontPage(self.settings.page_path)
        except OSError as exc:
            raise PortFault(f"the owner's page cannot be read: {exc}") from exc
        if page.open_id != open_id:
            page.close()
            raise PortFault("the owner's page is of another opening")
        self._page = page

    def told(self, catalog: Catalog) -> None:
        if self._catalog is None:
            self.recoveries += 1
        self._catalog = catalog

    def arrived(self, number: int, kind: Kind, body: bytes) -> None:
        read_ns, found = decode_found(body) if kind is Kind.FOUND else (0, {})
        answer, _ = self._waiting.pop(number, (None, 0))
        if answer is None or answer.done():
            return  # given up before
        if kind is Kind.FAILED:
            answer.set_exception(decode_failed(body))
        elif boottime_ns() - read_ns > self.settings.answer_age_ms_max * _NS:
            answer.set_exception(_gone("the answer of the owner waited too long"))
        else:
            answer.set_result(found)

    def lost(self, link: _OwnerLink) -> None:
        if link is self._link:
            self._lost("the owner of the stores is gone")

    def _lost(self, why: str) -> None:
        link, self._link, self._catalog = self._link, None, None
        if self._page is not None:
            self._page.close()
            self._page = None
        self._fail(list(self._waiting), why)
        if link is not None:
            link.abort()


def _gone(why: str) -> ZaibeiError:
    return ZaibeiError(Code.UNREACHABLE, why, retry=True)


class _OwnerLink(asyncio.Protocol):
    """The connection to an owner."""

    def __init__(self, port: SocketAnswerPort) -> None:
        self._port = port
        self._deframer = Deframer()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._port.linked(self)

    def send(self, octets: bytes) -> None:
        if self._transport is not None:
            self._transport.write(octets)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._port.lost(self)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, number, body in self._deframer.feed(data):
                if kind is Kind.HELLO:
                    self._port.hello(body)
                elif kind is Kind.CATALOG:
                    self._port.told(decode_catalog(body))
                elif kind in (Kind.FOUND, Kind.FAILED):
                    self._port.arrived(number, kind, body)
                else:
                    raise PortFault(f"an owner does not send {kind.name}")
        except PortFault as exc:
            self._port.refusals += 1
            _log.warning("the owner was disconnected", extra={"reason": str(exc)})
            self._port.lost(self)
