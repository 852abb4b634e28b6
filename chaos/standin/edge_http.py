"""A small HTTP/1.1 server for the stand-ins: kept connections, pipelining in order, named limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qs, unquote

import httptools

BODY_OCTETS_MAX = 1024 * 1024
HEAD_OCTETS_MAX = 16 * 1024
REASONS = {200: "OK", 300: "Multiple Choices", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 409: "Conflict"}


@dataclass(slots=True)
class Request:
    """`path` is percent-decoded, without the query."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Handler = Callable[[Request], Awaitable[tuple[int, bytes]]]


class HttpConnection(asyncio.Protocol):
    """One connection; requests are answered one after another in the order in which they came."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Queue[tuple[Request, bool]] = asyncio.Queue(64)
        self._worker: asyncio.Task[None] | None = None
        self._fresh()

    def _fresh(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        self._head_octets = 0
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._worker = asyncio.create_task(self._work())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._worker is not None:
            self._worker.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, asyncio.QueueFull):
            self._abort()

    def on_message_begin(self) -> None:
        self._url, self._headers, self._head_octets, self._body = b"", {}, 0, bytearray()

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        self._grow(len(name) + len(value))

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > BODY_OCTETS_MAX:
            self._abort()

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode("latin-1").partition("?")
        request = Request(
            self._parser.get_method().decode("latin-1"), unquote(path), parse_qs(query), self._headers, bytes(self._body)
        )
        self._waiting.put_nowait((request, self._parser.should_keep_alive()))

    def _grow(self, octets: int) -> None:
        self._head_octets += octets
        if self._head_octets > HEAD_OCTETS_MAX:
            self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _work(self) -> None:
        while self._transport is not None:
            request, keep = await self._waiting.get()
            status, body = await self._handler(request)
            head = (
                f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}\r\nContent-Type: application/json;charset=UTF-8\r\n"
                f"Content-Length: {len(body)}\r\n{'' if keep else 'Connection: close' + chr(13) + chr(10)}\r\n"
            )
            self._transport.write(head.encode() + body)
            if not keep:
                self._transport.close()
                return
