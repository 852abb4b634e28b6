"""The JSON API and the HTTP tunnel of the Handle protocol: keep-alive, pipelining answered in order, limits."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from typing import Any, Final

import httptools

from hosting.answer.question import Answer, Question
from hosting.answer.standing import NO_SUCH_NAME, TRY_ANOTHER, Standing
from hosting.front.connections import Connections
from hosting.front.edge_stream import StreamConnection
from hosting.front.exchange import Registering
from hosting.front.http_pages import (
    BODY_OCTETS_MAX,
    HEADER_OCTETS_MAX,
    TUNNEL_TYPE,
    URL_OCTETS_MAX,
    HttpRequest,
    Look,
    OwnSite,
    Page,
    Ready,
    Registers,
    Resolve,
    Tunnel,
    fault_page,
    look_at,
    page_response,
    read_request,
    response,
    vouch_headers,
)
from hosting.front.json_answers import answer_json, own_site_json
from hosting.front.service import FrontService
from hosting.handle.edge_json import JsonSaid
from hosting.handle.json_asks import JsonAsked, pretty
from replica.model.handle.answers import Peeked
from replica.model.handle.codes import ResponseCode, http_status

_TOO_BUSY: Final = b"this member cannot answer in time; ask another site"
_TOO_MANY: Final = Page(503, b'{"responseCode":3,"message":"too many questions from your network"}')
_HEADERS_MAX: Final = 64
LINGER_S: Final = 1.0


class _Slot:
    """The place of one answer in the order of a connection's requests."""

    __slots__ = ("close", "head_only", "look", "octets")

    def __init__(self, close: bool, head_only: bool) -> None:
        self.close, self.head_only = close, head_only
        self.look: Look | Peeked | None = None
        self.octets: bytes | None = None


class HttpConnection(StreamConnection):
    """One HTTP peer."""

    def __init__(self, service: FrontService, connections: Connections) -> None:
        super().__init__(connections, service.guard)
        self._service = service
        self._parser = httptools.HttpRequestParser(self)
        self._slots: deque[_Slot] = deque()
        self._closing = False
        self._lingering = False
        self.certificate = b""  # DER, that the peer showed over TLS
        self._vouched: tuple[Standing | None, bytes] = (None, b"")
        self.on_message_begin()

    # ---------------------------------------------------------------------------------------------- reading
    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self.heard(partial=True)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._closing = True  # the request was read and its answer is on its way; the new protocol is not ours
        except httptools.HttpParserError:
            if not self._closing:
                self._last_words(Page(400, b'{"responseCode":4,"message":"not an HTTP request"}'))
        self.send_ready()

    def eof_received(self) -> bool:
        self._closing, self._lingering = True, False
        return bool(self._slots)  # answer what is under way, then close

    def on_message_begin(self) -> None:
        self._url = b""
        self._type = self._authorization = b""
        self._body: list[bytes] = []
        self._header_octets = self._header_count = self._body_octets = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > URL_OCTETS_MAX:
            self._refuse(Page(414, b'{"responseCode":4,"message":"the address is too long"}'))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        self._header_octets += len(name) + len(value)
        if self._header_octets > HEADER_OCTETS_MAX or self._header_count > _HEADERS_MAX:
            self._refuse(Page(431, b'{"responseCode":4,"message":"the headers are too long"}'))
        elif len(name) == 12 and name.lower() == b"content-type":
            self._type = value.partition(b";")[0].strip().lower()
        elif len(name) == 13 and name.lower() == b"authorization":
            if self._authorization:
                self._refuse(Page(400, b'{"responseCode":4,"message":"two credentials for one request"}'))
            self._authorization = value
        elif len(name) == 6 and name.lower() == b"expect" and self.transport is not None and not self._slots:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_octets += len(body)
        if self._body_octets > BODY_OCTETS_MAX:
            self._refuse(Page(413, b'{"responseCode":4,"message":"the body is too long"}'))
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._closing:
            return
        self.finished_one()
        if self.in_flight >= self.connections.limits.in_flight_max:
            self._refuse(Page(503, b'{"responseCode":3,"message":"too many requests at once on one connection"}'))
        method: bytes = self._parser.get_method()
        slot = _Slot(not self._parser.should_keep_alive(), method == b"HEAD")
        self._slots.append(slot)
        self.in_flight += 1
        if not self.within(1):
            self._fill(slot, page_response(_TOO_MANY, close=slot.close, head_only=slot.head_only))
            self._closing = self._closing or slot.close
            return
        wanted = read_request(HttpRequest(method, self._url, self._type, b"".join(self._body)))
        if isinstance(wanted, Resolve):
            slot.look = wanted.look
            if not self._service.batcher.ask(self, slot, wanted.question):
                self.answered(slot, wanted.question, Answer(TRY_ANOTHER, _TOO_BUSY))
        elif isinstance(wanted, Page):
            self._fill(slot, page_response(wanted, close=slot.close, head_only=slot.head_only))
        elif isinstance(wanted, Tunnel):
            self._tunnel(slot, wanted)
        elif isinstance(wanted, Registers):
            self._ask_json(slot, method, wanted)
        else:
            self._service.ask_views(self, (slot, wanted))
        if slot.close:
            self._closing = True

    def _refuse(self, page: Page) -> None:
        """From within the parser: answer once more and leave it."""
        if not self._closing:
            self._last_words(page)
        raise _Refused

    def _last_words(self, page: Page) -> None:
        """Answer once more and close: what follows on this connection cannot be told apart."""
        self._closing = self._lingering = True
        slot = _Slot(close=True, head_only=False)
        self._slots.append(slot)
        self.in_flight += 1
        self._fill(slot, page_response(page, close=True))

    # ---------------------------------------------------------------------------------------------- answering
    def answered(self, context: Any, question: Question, answer: Answer) -> None:
        slot: _Slot = context
        if answer.code == NO_SUCH_NAME and self.client:
            self.guard.missed(self.client, 1)
        if isinstance(slot.look, Peeked):
            self._fill(
                slot, _tunnelled(self._service.exchange.answer(slot.look, question, answer, self._service.expires()), slot)
            )
            return
        body, kind = answer_json(question, answer), b"application/json;charset=UTF-8"
        look = slot.look
        if look is not None and (look.pretty or look.callback):
            body, kind = look_at(body, look)
        standing = answer.standing
        if standing is not self._vouched[0]:
            self._vouched = (standing, vouch_headers(standing))
        self._fill(
            slot, response(http_status(answer.code), body, kind, self._vouched[1], close=slot.close, head_only=slot.head_only)
        )

    def finish(self) -> None:
        self.send_ready()

    def views_read(self, context: Any, standings: list[Standing], trouble: str) -> None:
        """The service read all views: for `OwnSite`, `Ready`, or a tunnelled question for the site."""
        slot, wanted = context
        if isinstance(wanted, Ready):
            ready = any(standing.row.found == 1 for standing in standings)
            told = b'{"ready":true}' if ready else b'{"ready":false}'
            page = Page(200 if ready else 503, told)
        elif isinstance(wanted, OwnSite):
            page = self._site_page(standings, trouble, wanted.look)
        else:
            self._fill(slot, _tunnelled(self._service.site_message(wanted, standings, trouble), slot))
            self.send_ready()
            return
        self._fill(slot, page_response(page, close=slot.close, head_only=slot.head_only))
        self.send_ready()

    def _site_page(self, standings: list[Standing], trouble: str, look: Look) -> Page:
        site = self._service.own_site(standings)
        if trouble or not site:
            return fault_page(ResponseCode.ERROR, trouble or "this member has no site of its own")
        body, kind = look_at(own_site_json(site), look)
        return Page(200, body, kind)

    def _tunnel(self, slot: _Slot, wanted: Tunnel) -> None:
        taken = self._service.exchange.take(wanted.message)
        if taken is None:
            self._fill(slot, page_response(Page(400, b'{"responseCode":4,"message":"not a Handle message"}'), close=slot.close))
        elif isinstance(taken, bytes):
            self._fill(slot, _tunnelled(taken, slot))
        elif isinstance(taken[0], Registering):
            client = _peer(self.transport)[0] if self.transport is not None else ""
            self._service.register(self, slot, taken[0], client)
        elif taken[1] is None:
            self._service.ask_views(self, (slot, taken[0]))
        else:
            slot.look = taken[0]
            if not self._service.batcher.ask(self, slot, taken[1]):
                self.answered(slot, taken[1], Answer(TRY_ANOTHER, _TOO_BUSY))

    def registered(self, context: Any, answers: list[bytes]) -> None:
        slot = context
        if answers:
            self._fill(slot, _tunnelled(b"".join(answers), slot))  # a list: its messages one after another, as over TCP
        else:
            self._fill(slot, page_response(Page(503, b'{"responseCode":3,"message":"too much is under way"}'), close=slot.close))
        self.send_ready()

    def _ask_json(self, slot: _Slot, method: bytes, wanted: Registers) -> None:
        transport = self.transport
        client, private = _peer(transport) if transport is not None else ("", False)
        tls = transport is not None and transport.get_extra_info("ssl_object") is not None
        asked = JsonAsked(method, self._url, b"".join(self._body), self._authorization, client, private, self.certificate, tls)
        if not self._service.ask_json(self, (slot, pretty(self._url)), asked):
            self._fill(slot, page_response(wanted.otherwise, close=slot.close, head_only=slot.head_only))

    def json_said(self, context: Any, said: JsonSaid | None) -> None:
        slot, for_people = context
        page = Page(503, b'{"responseCode":3,"message":"too much is under way"}')
        if said is not None:
            page = Page(said.status, look_at(said.body, Look(for_people))[0], headers=said.headers)
        self._fill(slot, page_response(page, close=slot.close, head_only=slot.head_only))
        self.send_ready()

    def _fill(self, slot: _Slot, octets: bytes) -> None:
        slot.octets = octets

    def send_ready(self) -> None:
        """Write the answers that stand at the front of the order."""
        slots = self._slots
        while slots and slots[0].octets is not None:
            self.outbox.append(slots.popleft().octets or b"")
            self.in_flight -= 1
        self.send_out()
        if self._closing and not slots and self.transport is not None:
            self._end(self.transport)

    def _end(self, transport: asyncio.Transport) -> None:
        """Close; after a refusal let the peer finish first for a moment, or its unread octets would reset our last words."""
        if not self._lingering:
            transport.close()
        elif transport.can_write_eof() and not transport.is_closing():
            self._lingering = False
            transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, transport.abort)


class _Refused(Exception):
    """Leaves the parser after a refusal; httptools reports it as a parser error."""


def _peer(transport: asyncio.Transport) -> tuple[str, bool]:
    """Address of a peer without its port, and whether nobody else can listen: TLS, or a peer on this machine."""
    name = transport.get_extra_info("peername")
    client = str(name[0]) if name else ""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client, False
    return client, address.is_loopback or transport.get_extra_info("ssl_object") is not None


def _tunnelled(message: bytes, slot: _Slot) -> bytes:
    return response(200, message, TUNNEL_TYPE, b"", close=slot.close, head_only=slot.head_only)


async def listen_http(service: FrontService, connections: Connections, host: str, port: int, reuse_port: bool) -> asyncio.Server:
    """Raises OSError: the address cannot be bound."""
    return await asyncio.get_running_loop().create_server(
        lambda: HttpConnection(service, connections), host, port, reuse_port=reuse_port, backlog=1_024
    )
