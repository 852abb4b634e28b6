"""GET /metrics over HTTP/1.1, and what load balancers ask (replica/cluster/health.py): small, limited, off the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from ops.config.address import Address
from replica.cluster.health import Health, answer
from replica.model.errors import Code, ZaibeiError

HEAD_OCTETS_MAX = 8 * 1024
HEAD_S_MAX = 5.0
WRITE_S_MAX = 10.0
LINGER_S_MAX = 1.0
CONNECTIONS_MAX = 32

log = logging.getLogger("zaibei.metrics")


class MetricsServer:
    """Serves one registry.

    Args:
        registry: what is shown; addresses: where, port 0 for any free one.
        health: how the member stands now, for /livez, /readyz and the roles of groups; None: those are not answered here.
    """

    def __init__(
        self, registry: CollectorRegistry, addresses: Sequence[Address], health: Callable[[], Health] | None = None
    ) -> None:
        self._registry, self._health = registry, health
        self._wanted = tuple(addresses)
        self._servers: list[asyncio.Server] = []
        self._connections = 0

    async def start(self) -> list[Address]:
        """Listen; returns what is bound. Raises ZaibeiError(CONFLICT) when an address is taken."""
        bound = []
        for address in self._wanted:
            try:
                server = await asyncio.start_server(self._serve, address.host, address.port, limit=HEAD_OCTETS_MAX)
            except OSError as exc:
                await self.stop()
                raise ZaibeiError(
                    Code.CONFLICT,
                    f"metrics cannot listen on {address}: {exc.strerror}. Next: change [listen] metrics, or [] for none",
                ) from exc
            self._servers.append(server)
            host, port = server.sockets[0].getsockname()[:2]
            bound.append(Address(host, port))
        return bound

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections > CONNECTIONS_MAX:
                await _refuse(reader, writer, _answer("503 Service Unavailable", b"too many connections\n"))
                return
            try:
                async with asyncio.timeout(HEAD_S_MAX):
                    head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                await _refuse(reader, writer, _answer("431 Request Header Fields Too Large", b"too large\n"))
                return
            writer.write(await self._answer_to(head))
            async with asyncio.timeout(WRITE_S_MAX):
                await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            pass  # gone, silent or not reading: its own affair
        finally:
            self._connections -= 1
            writer.close()

    async def _answer_to(self, head: bytes) -> bytes:
        line, _, rest = head.partition(b"\r\n")
        words = line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _answer("400 Bad Request", b"not HTTP/1.1\n")
        if words[0] not in (b"GET", b"HEAD"):
            return _answer("405 Method Not Allowed", b"GET /metrics\n")
        told = None if self._health is None else answer(self._health(), words[1].decode("latin-1"))
        if told is not None:
            octets = b"" if words[0] == b"HEAD" else msgspec.json.encode(told[1]) + b"\n"
            return _answer(f"{told[0]} {HTTPStatus(told[0]).phrase}", octets, "application/json")
        if words[1].partition(b"?")[0] != b"/metrics":
            return _answer("404 Not Found", b"GET /metrics\n")
        encode, kind = choose_encoder(_accept(rest))
        body = await asyncio.to_thread(encode, self._registry)
        return _answer("200 OK", b"" if words[0] == b"HEAD" else body, kind)


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    """Answer, then read on for a moment: closing over unread octets would reset the connection before the answer is read."""
    writer.write(answer)
    writer.write_eof()
    async with asyncio.timeout(LINGER_S_MAX):
        while await reader.read(HEAD_OCTETS_MAX):
            pass


def _accept(headers: bytes) -> str:
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"accept":
            return value.strip().decode("latin-1")
    return ""


def _answer(status: str, body: bytes, kind: str = "text/plain; charset=utf-8") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
