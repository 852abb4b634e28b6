"""Strange octets for whatever asks: answers from servers, published sites, beats, and the operator's own door.

Allowed: a result, or the error each reader states. Anything else that is raised is a bug.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

from chaos.standin.control import Control
from chaos.standin.edge_http import HttpConnection, Request
from chaos.standin.forced import PrefixTable
from hosting.client.edge_http import _Connection
from hosting.client.lookup import Question, Server
from hosting.client.sites import first_tcp, places_of, sites_in, ttl_of
from hosting.client.wire import decode_json, decode_reply, encode_question
from ops.admin.codec import decode_answer, decode_request
from replica.model.beat import HeadBeat, encode_beat
from replica.model.errors import ZaibeiError
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.fragments import Reassembler
from replica.model.handle.values import HandleValue
from replica.model.position import ORIGIN
from replica.takeover.edge_beats import BeatTable
from tests.unit.handle.golden import OCTETS, TEXT

KEY = b"k" * 32
NUMBER = 0x0102_0304
REQUEST = encode_question(Question("88.118.8/XYZ-001"), NUMBER)
CONTROL_PATHS = ("/control/hs-site", "/control/flush", "/control/state", "/control/all")


class Wire(asyncio.Transport):
    """A transport to nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Target:
    """Feeds one input to everything."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._beats = BeatTable()
        self._beats.allow(KEY, frozenset({"s"}), lambda _head, _at: None)
        self._joiner = Reassembler(16, 64 * 1024, 1_000)
        self._control = Control(PrefixTable(), lambda: 0.0)

    def __call__(self, octets: bytes) -> None:
        if octets:
            kind, rest = octets[0] % 6, octets[1:]
            (self._reply, self._http, self._sites, self._beat, self._admin, self._standin)[kind](rest)

    def _reply(self, octets: bytes) -> None:
        whole = self._joiner.feed(None, octets, len(octets))
        for message in (octets, whole):
            if message is not None:
                try:
                    decode_reply(message, REQUEST, 0)
                except ProtocolFault:
                    pass

    def _http(self, octets: bytes) -> None:
        connection = _Connection()
        connection.connection_made(Wire())
        connection.answer = answer = self._loop.create_future()
        for part in (octets[:40], octets[40:]):
            if connection.usable:
                connection.data_received(part)
        if not answer.done():
            return
        if answer.exception() is None:
            _, headers, body = answer.result()
            try:
                decode_json(body, headers)
            except ProtocolFault:
                pass

    def _sites(self, octets: bytes) -> None:
        values = [HandleValue(1, b"HS_SITE", octets), HandleValue(2, b"HS_SITE.6", octets[1:])]
        places_of(sites_in(values), b"88.118/x", ("udp", "tcp", "http"))
        first_tcp(values)
        ttl_of(values, 0)
        try:
            Server.parse(octets.decode("utf-8", "replace"))
        except ZaibeiError:
            pass

    def _beat(self, octets: bytes) -> None:
        self._beats.accept(octets, 0)
        genuine = encode_beat(KEY, 1 + len(octets), [HeadBeat("s", ORIGIN, bytes(16))])
        self._beats.accept(genuine[:17] + octets + genuine[17:], 0)

    def _admin(self, octets: bytes) -> None:
        for read in (decode_request, lambda line: decode_answer(line, 1, "status")):
            try:
                read(octets)
            except ZaibeiError:
                pass

    def _standin(self, octets: bytes) -> None:
        async def handler(request: Request) -> tuple[int, bytes]:
            return 200, b"{}"

        path = CONTROL_PATHS[len(octets) % len(CONTROL_PATHS)]

        async def both() -> None:
            connection = HttpConnection(handler)
            connection.connection_made(cast(asyncio.BaseTransport, Wire()))
            connection.data_received(octets)
            for method in ("POST", "DELETE", "GET"):
                await self._control(Request(method, path, {"prefix": ["88"]}, {}, octets))
            await asyncio.sleep(0)
            connection.connection_lost(None)

        self._loop.run_until_complete(both())


def seeds() -> list[bytes]:
    """One whole input of each kind to start from."""
    http = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    found = [bytes((0,)) + octets for octets in OCTETS.values()]
    found += [bytes((1,)) + http, bytes((1,)) + b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc"]
    found += [bytes((1,)) + b"HTTP/1.1 200 OK\r\n\r\n" + text.encode() for text in TEXT.values()]
    found += [bytes((2,)) + octets for name, octets in OCTETS.items() if "site" in name]
    found.append(bytes((3,)) + encode_beat(KEY, 1, [HeadBeat("s", ORIGIN, bytes(16))]))
    found += [bytes((4,)) + line for line in (b'{"v":1,"id":1,"call":"status","params":{}}', b'{"v":1,"id":1,"result":{}}')]
    found += [bytes((5,)) + b'{"prefix":"88","serial":1,"sites":["00"]}', bytes((5,)) + struct.pack(">Q", 1)]
    return found
