"""Sends security events to a syslog collector: RFC 5424 over UDP, TCP with counted octets (RFC 6587), or a Unix socket."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from hosting.guard.events import SecurityEvent, as_syslog
from replica.model.errors import Code, ZaibeiError

CONNECT_S_MAX: Final = 3.0
SEND_S_MAX: Final = 3.0
DEFAULT_PORT: Final = 514


@dataclass(frozen=True, slots=True)
class SyslogPlace:
    """Where a collector listens. `kind`: udp, tcp or unix; `where`: host or path."""

    kind: str
    where: str
    port: int = DEFAULT_PORT

    @staticmethod
    def parse(url: str) -> SyslogPlace:
        """`udp://127.0.0.1:514`, `tcp://[::1]:601` or `unix:///dev/log`. Raises ZaibeiError(INVALID_CONFIG)."""
        try:
            parts = urlsplit(url)
            port = DEFAULT_PORT if parts.port is None else parts.port
        except ValueError:
            parts, port = urlsplit(""), 0
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            return SyslogPlace("unix", parts.path)
        if parts.scheme in ("udp", "tcp") and parts.hostname and port and not parts.path.strip("/"):
            return SyslogPlace(parts.scheme, parts.hostname, port)
        raise ZaibeiError(
            Code.INVALID_CONFIG,
            f"{url[:80]!r} is no place of a syslog collector: udp://HOST:PORT, tcp://HOST:PORT or unix:///dev/log",
        )


class Syslog:
    """One collector. A TCP connection is kept; after a failure the next event begins a new one."""

    def __init__(self, place: SyslogPlace, host: str) -> None:
        self._place, self._host = place, host
        self._writer: asyncio.StreamWriter | None = None

    @property
    def name(self) -> str:
        return f"syslog {self._place.kind} {self._place.where}"

    async def send(self, event: SecurityEvent) -> None:
        """Raises ZaibeiError(UNREACHABLE): it was not taken, as far as that can be known (over UDP it cannot)."""
        octets = as_syslog(event, self._host)
        try:
            async with asyncio.timeout(CONNECT_S_MAX + SEND_S_MAX):
                if self._place.kind == "tcp":
                    await self._over_tcp(octets)
                else:
                    await self._datagram(octets)
        except (OSError, TimeoutError, UnicodeError) as exc:  # the last: its host is no name
            self._drop()
            raise ZaibeiError(Code.UNREACHABLE, f"{self.name}: {exc or 'no time left'}", definite=False, retry=True) from exc

    async def close(self) -> None:
        self._drop()

    async def _datagram(self, octets: bytes) -> None:
        loop = asyncio.get_running_loop()
        if self._place.kind == "unix":
            family, address = socket.AF_UNIX, self._place.where
            with socket.socket(family, socket.SOCK_DGRAM) as endpoint:
                endpoint.setblocking(False)
                endpoint.connect(address)
                await loop.sock_sendall(endpoint, octets)
            return
        found = await loop.getaddrinfo(self._place.where, self._place.port, type=socket.SOCK_DGRAM)
        with socket.socket(found[0][0], socket.SOCK_DGRAM) as endpoint:
            endpoint.setblocking(False)
            endpoint.connect(found[0][4])
            endpoint.send(octets)

    async def _over_tcp(self, octets: bytes) -> None:
        if self._writer is None or self._writer.is_closing():
            reader, self._writer = await asyncio.open_connection(self._place.where, self._place.port)
            del reader  # a collector says nothing
        self._writer.write(b"%d " % len(octets) + octets)
        await self._writer.drain()

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
