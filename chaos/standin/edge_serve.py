"""Listeners of a stand-in: Handle over UDP and TCP, HTTP beside them, on every address given, the same ports on each."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, cast

from chaos.standin.edge_http import Handler, HttpConnection, Request
from chaos.standin.given import Answerer, Given, asked_for, handle_octets, json_octets, other_octets
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.answers import peek_resolution
from replica.model.handle.codes import EXPIRATION_S
from replica.model.handle.fragments import Reassembler, datagrams
from replica.model.handle.json_api import error_json
from replica.model.handle.stream import Deframer

PORT_TRIES_MAX = 20  # to find one that is free on every address
TASKS_OPEN_MAX = 20_000
CONTROL = "/control/"


def expiration_s() -> int:
    return int(time.time()) + EXPIRATION_S


@dataclass(slots=True)
class Standin:
    """What a stand-in answers: resolutions, its own site, and whatever else it serves below /control/."""

    answer: Answerer
    site: bytes = b""
    control: Handler | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def respond(self, message: bytes, send: Any) -> None:
        """Answer one complete message, now or when its answer is known."""
        asked = peek_resolution(message)
        if asked is None:
            octets = other_octets(message, self.site, expiration_s())
            if octets is not None:
                send(octets)
            return
        given = self.answer(asked)
        if isinstance(given, Given):
            send(handle_octets(asked, given, expiration_s()))
        elif len(self.tasks) < TASKS_OPEN_MAX:

            async def later(wait: Awaitable[Given]) -> None:
                send(handle_octets(asked, await wait, expiration_s()))

            self.spawn(later(given))
        else:
            cast(Coroutine[Any, Any, Given], given).close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def http(self, request: Request) -> tuple[int, bytes]:
        """The JSON API's reading part, and /control/."""
        if request.path.startswith(CONTROL) and self.control is not None:
            return await self.control(request)
        name = request.path.removeprefix("/api/handles/")
        if request.method != "GET" or name == request.path or not name:
            return 404, error_json(5, None, "only GET /api/handles/NAME is answered here")
        indexes = tuple(int(index) for index in request.query.get("index", ()) if index.isascii() and index.isdigit())
        asked = asked_for(name.encode(), indexes, tuple(kind.encode() for kind in request.query.get("type", ())))
        given = self.answer(asked)
        return json_octets(asked, await given if isawaitable(given) else given)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, standin: Standin) -> None:
        self._standin, self._parts = standin, Reassembler()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        message = self._parts.feed(addr, data, time.monotonic_ns() // 1_000_000)
        if message is not None:
            self._standin.respond(message, lambda octets: self._send(octets, addr))

    def _send(self, octets: bytes, addr: tuple[Any, ...]) -> None:
        for datagram in datagrams(octets):
            if self._transport is not None:
                self._transport.sendto(datagram, addr)


class _Tcp(asyncio.Protocol):
    def __init__(self, standin: Standin) -> None:
        self._standin, self._deframer = standin, Deframer()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for message in self._deframer.feed(data):
            self._standin.respond(message, self._send)
        if self._deframer.fault is not None and self._transport is not None:
            self._transport.close()

    def _send(self, octets: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)


@dataclass(frozen=True, slots=True)
class Ports:
    """0 means: any free one."""

    udp: int = 0
    tcp: int = 0
    http: int = 0

    def view(self) -> dict[str, int]:
        return {"udp": self.udp, "tcp": self.tcp, "http": self.http}


def bind(hosts: Sequence[str], ports: Ports) -> tuple[Ports, list[tuple[str, socket.socket]]]:
    """Sockets for udp, tcp and http on every address; UDP and TCP share a port when both are free to choose.

    Raises:
        ZaibeiError(INVALID_CONFIG): says which address and port, and why not.
    """
    last = ZaibeiError(Code.INVALID_CONFIG, "no address to listen on")
    for _ in range(PORT_TRIES_MAX):
        opened: list[tuple[str, socket.socket]] = []
        try:
            tcp = _bind_all("tcp", hosts, ports.tcp, opened)
            udp = _bind_all("udp", hosts, ports.udp or tcp, opened)
            http = _bind_all("http", hosts, ports.http, opened)
            return Ports(udp, tcp, http), opened
        except OSError as exc:
            last = ZaibeiError(Code.INVALID_CONFIG, f"cannot listen on {', '.join(hosts)} {ports}: {exc.strerror or exc}")
            for _, found in opened:
                found.close()
            if ports.tcp and ports.udp and ports.http:
                break
    raise last


def _bind_all(kind: str, hosts: Sequence[str], port: int, opened: list[tuple[str, socket.socket]]) -> int:
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        opened.append((kind, made))
        if kind != "udp":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind((host, port))
        port = made.getsockname()[1]
    return port


async def serve(standin: Standin, sockets: Sequence[tuple[str, socket.socket]]) -> None:
    """Serve on bound sockets until the process ends."""
    loop = asyncio.get_running_loop()
    for kind, bound in sockets:
        if kind == "udp":
            await loop.create_datagram_endpoint(lambda: _Udp(standin), sock=bound)
        elif kind == "tcp":
            await loop.create_server(lambda: _Tcp(standin), sock=bound, backlog=1_024)
        else:
            await loop.create_server(lambda: HttpConnection(standin.http), sock=bound, backlog=1_024)
