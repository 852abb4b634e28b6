"""A front: all listeners over one answer port, in the member's process or in one of their own."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hosting.answer.port import AnswerPort
from hosting.front.connections import Connections, StreamLimits
from hosting.front.edge_files import KEPT, fitted, raise_open_files
from hosting.front.edge_grpc import GrpcFront
from hosting.front.edge_http import listen_http
from hosting.front.edge_site_key import load_site_key
from hosting.front.edge_tcp import listen_tcp
from hosting.front.edge_tls import TlsFiles, TlsKeys, listen_https
from hosting.front.edge_udp import UdpLimits, UdpListener, bind_udp
from hosting.front.pause import TICK_MS
from hosting.front.service import FrontService
from hosting.guard.guard import Guard
from hosting.guard.limits import GuardLimits

SWEEP_S = 2.0

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class FrontConfig:
    """Where a front listens; port 0 takes a free one. Hosts are numeric, IPv4 or IPv6; one address per entry.

    Args:
        udp, tcp: the Handle protocol. `http`: the JSON API and the tunnel; `https`: the same over TLS, with the files of `tls`.
        grpc: hosting.v1.Resolver.
        reuse_port: several fronts share the same addresses (SO_REUSEPORT).
        waiting_max: questions that may wait for the stores.
        guard: how much a client or an identifier may take.
        site_key: file of the key with which answers are signed; empty: none.
        files_kept: open files of this process that are not for connections (its stores').
    """

    udp: tuple[Address, ...] = ()
    tcp: tuple[Address, ...] = ()
    http: tuple[Address, ...] = ()
    grpc: tuple[Address, ...] = ()
    https: tuple[Address, ...] = ()
    tls: TlsFiles | None = None
    reuse_port: bool = False
    waiting_max: int = 20_000
    udp_limits: UdpLimits = field(default_factory=UdpLimits)
    stream_limits: StreamLimits = field(default_factory=StreamLimits)
    files_kept: int = KEPT
    guard: GuardLimits = field(default_factory=GuardLimits)
    site_key: str = ""


@dataclass(frozen=True, slots=True)
class Bound:
    """The addresses a front took, in the order of its config."""

    udp: tuple[Address, ...] = ()
    tcp: tuple[Address, ...] = ()
    http: tuple[Address, ...] = ()
    grpc: tuple[Address, ...] = ()
    https: tuple[Address, ...] = ()


class Front:
    """See the module. `service`, `udp`, `tcp`, `http` and `grpc` are read by metrics."""

    def __init__(self, port: AnswerPort, config: FrontConfig, service: FrontService | None = None) -> None:
        self.config = config
        self.service = service or FrontService(
            port,
            waiting_max=config.waiting_max,
            guard=Guard(config.guard),
            site_key=load_site_key(Path(config.site_key)) if config.site_key else None,
        )
        limits = fitted(config.stream_limits, raise_open_files(), config.files_kept)
        self.tcp, self.http = Connections(limits), Connections(limits)
        self.udp: list[UdpListener] = []
        self.grpc: GrpcFront | None = None
        self._servers: list[asyncio.Server] = []
        self._chores: list[asyncio.Task[None]] = []

    async def start(self) -> Bound:
        """Bind and serve.

        Raises:
            OSError: an address is taken or not ours, or the keys of TLS cannot be used; nothing is left bound.
        """
        try:
            return await self._start()
        except OSError:
            await self.stop()
            raise

    async def _start(self) -> Bound:
        config, service = self.config, self.service
        for host, port in config.udp:
            with _named("UDP", host, port):
                endpoint = bind_udp(host, port, config.udp_limits, config.reuse_port)
            self.udp.append(UdpListener(service, endpoint, config.udp_limits))
        tcp, http, https = [], [], []
        for host, port in config.tcp:
            with _named("TCP", host, port):
                tcp.append(self._keep(await listen_tcp(service, self.tcp, host, port, config.reuse_port)))
        for host, port in config.http:
            with _named("HTTP", host, port):
                http.append(self._keep(await listen_http(service, self.http, host, port, config.reuse_port)))
        if config.https and config.tls is not None:
            keys = TlsKeys(config.tls)
            for host, port in config.https:
                with _named("HTTPS", host, port):
                    https.append(self._keep(await listen_https(service, self.http, keys, (host, port), config.reuse_port)))
        if config.grpc:
            self.grpc = GrpcFront(service, config.grpc, reuse_port=config.reuse_port)
            await self.grpc.start()
        loop = asyncio.get_running_loop()
        self._chores = [loop.create_task(self._tick()), loop.create_task(self._sweep())]
        grpc = tuple(self.grpc.addresses) if self.grpc is not None else ()
        return Bound(tuple(listener.address for listener in self.udp), tuple(tcp), tuple(http), grpc, tuple(https))

    def _keep(self, server: asyncio.Server) -> Address:
        self._servers.append(server)
        name: tuple[Any, ...] = server.sockets[0].getsockname()
        return name[0], name[1]

    async def stop(self) -> None:
        """Close every listener and connection."""
        for chore in self._chores:
            chore.cancel()
        for server in self._servers:
            server.close()
        for listener in self.udp:
            listener.close()
        for connections in (self.tcp, self.http):
            for connection in list(connections.open):
                connection.abort()
        self.service.close()
        if self.grpc is not None:
            await self.grpc.stop(0.2)
        await asyncio.gather(*self._chores, return_exceptions=True)
        self._servers, self.udp, self._chores, self.grpc = [], [], [], None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_MS / 1_000)
            self.service.watch.tick()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            for connections in (self.tcp, self.http):
                connections.sweep(time.monotonic())


class _named:
    """Says in an OSError which listener could not be bound."""

    def __init__(self, kind: str, host: str, port: int) -> None:
        self._what = f"cannot listen for {kind} on {f'[{host}]' if ':' in host else host}:{port}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, OSError):
            raise OSError(exc.errno, f"{self._what}: {exc.strerror or exc}") from exc
