"""The JSON API over HTTP/1.1: kept connections, one request at a time on each."""

from __future__ import annotations

import asyncio
from typing import cast
from urllib.parse import quote, urlencode

import httptools

from hosting.client.lookup import Question, Reply, Server
from hosting.client.wire import decode_json
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.faults import ProtocolFault

IDLE_PER_SERVER_MAX = 8
HEADER_OCTETS_MAX = 64 * 1024
BODY_OCTETS_MAX = 2 * 1024 * 1024
CONNECT_S_MAX = 3.0


class _Connection(asyncio.Protocol):
    """One connection; `answer` is the one request under way."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[tuple[int, dict[str, str], bytes]] | None = None
        self._fresh()

    def _fresh(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._header_octets = 0

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._fail(ConnectionResetError(f"not HTTP: {exc}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_octets += len(name) + len(value)
        if self._header_octets > HEADER_OCTETS_MAX:
            self._fail(ConnectionResetError(f"headers over {HEADER_OCTETS_MAX} octets"))
            return
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > BODY_OCTETS_MAX:
            self._fail(ConnectionResetError(f"an answer over {BODY_OCTETS_MAX} octets"))

    def on_message_complete(self) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result((self._parser.get_status_code(), self._headers, bytes(self._body)))
        if not self._parser.should_keep_alive() and self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("closed by the server"))

    def _fail(self, exc: Exception) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(exc)
        if self.transport is not None:
            self.transport.abort()

    async def exchange(self, request: bytes, limit_s: float) -> tuple[int, dict[str, str], bytes]:
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("closed")
        self._fresh()
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            async with asyncio.timeout(limit_s):
                return await self.answer
        except BaseException:
            self.transport.abort()  # the rest of a given-up answer must not meet the next request
            raise
        finally:
            self.answer = None


class HttpPool:
    """Idle connections by server."""

    def __init__(self, answer_s_max: float = 3.0) -> None:
        self._answer_s_max = answer_s_max
        self._idle: dict[Server, list[_Connection]] = {}

    async def ask(self, server: Server, question: Question) -> Reply:
        """One GET of /api/handles/NAME.

        Raises:
            ZaibeiError(UNREACHABLE): refused, closed, silent, or no answer of the JSON API.
        """
        request = request_of(server, question)
        try:
            for last in (False, True):
                connection, kept = await self._take(server)
                try:
                    _, headers, body = await connection.exchange(request, self._answer_s_max)
                    break
                except OSError:
                    if last or not kept:
                        raise
        except TimeoutError:
            raise ZaibeiError(Code.UNREACHABLE, f"{server}: no answer in time", definite=False, retry=True) from None
        except OSError as exc:
            raise ZaibeiError(Code.UNREACHABLE, f"{server}: {exc}", definite=False, retry=True) from exc
        idle = self._idle.setdefault(server, [])
        if connection.usable and len(idle) < IDLE_PER_SERVER_MAX:
            idle.append(connection)
        elif connection.transport is not None:
            connection.transport.close()
        try:
            return decode_json(body, headers)
        except ProtocolFault as exc:
            raise ZaibeiError(Code.UNREACHABLE, f"{server}: {exc.detail}", definite=False, retry=True) from exc

    async def _take(self, server: Server) -> tuple[_Connection, bool]:
        idle = self._idle.get(server, [])
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection, True
        async with asyncio.timeout(CONNECT_S_MAX):
            _, connection = await asyncio.get_running_loop().create_connection(_Connection, server.address, server.port)
        return connection, False

    async def close(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                if connection.transport is not None:
                    connection.transport.abort()
        self._idle.clear()
        await asyncio.sleep(0)


def request_of(server: Server, question: Question) -> bytes:
    """Octets of the GET request."""
    fields = [("type", kind) for kind in question.types] + [("index", str(index)) for index in question.indexes]
    query = f"?{urlencode(fields)}" if fields else ""
    host = f"[{server.address}]" if ":" in server.address else server.address
    return (
        f"GET /api/handles/{quote(question.name, safe='/')}{query} HTTP/1.1\r\n"
        f"Host: {host}:{server.port}\r\nAccept: application/json\r\n\r\n"
    ).encode("ascii")
