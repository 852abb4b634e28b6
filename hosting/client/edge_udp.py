"""Handle over UDP: one connected socket a server, requests told apart by their number, the deployed clients' retry times."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import cast

from hosting.client.lookup import Server
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.codes import MESSAGE_OCTETS_MAX
from replica.model.handle.fragments import Reassembler

RETRY_S = (0.5, 1.0, 1.5)  # waits of the standard client; 3.0 s in all
PARTIAL_MAX = 64  # answers of one server that are coming in parts
PARTIAL_OCTETS_MAX = 4 * MESSAGE_OCTETS_MAX
SERVERS_MAX = 256  # open sockets; the one unused for longest is closed first


class _Channel(asyncio.DatagramProtocol):
    """One server. Datagrams of strangers never get here: the socket is connected."""

    def __init__(self) -> None:
        self.pending: dict[int, asyncio.Future[bytes]] = {}
        self.transport: asyncio.DatagramTransport | None = None
        self._parts = Reassembler(PARTIAL_MAX, PARTIAL_OCTETS_MAX)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        number = int.from_bytes(data[8:12], "big")
        if number not in self.pending:
            return
        message = self._parts.feed(None, data, time.monotonic_ns() // 1_000_000)
        if message is not None and not self.pending[number].done():
            self.pending[number].set_result(message)

    def error_received(self, exc: Exception) -> None:
        """ICMP says nobody listens: all who wait here know at once."""
        for answer in self.pending.values():
            if not answer.done():
                answer.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.error_received(exc or ConnectionResetError("closed"))


class UdpPool:
    """Sockets by server."""

    def __init__(self, retry_s: tuple[float, ...] = RETRY_S) -> None:
        self._retry_s = retry_s
        self._channels: dict[Server, _Channel] = {}

    async def ask(self, server: Server, request: bytes, number: int) -> bytes:
        """Send, repeat at the standard times, return the whole answer's octets.

        Raises:
            ZaibeiError(UNREACHABLE): refused, or silent through all times.
        """
        channel = await self._channel(server)
        answer = channel.pending[number] = asyncio.get_running_loop().create_future()
        try:
            for wait_s in self._retry_s:
                if channel.transport is None or channel.transport.is_closing():
                    raise ConnectionResetError("closed")
                channel.transport.sendto(request)
                try:
                    async with asyncio.timeout(wait_s):
                        return await asyncio.shield(answer)
                except TimeoutError:
                    continue
        except OSError as exc:
            raise ZaibeiError(Code.UNREACHABLE, f"{server}: {exc}", definite=False, retry=True) from exc
        finally:
            del channel.pending[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen
        raise ZaibeiError(Code.UNREACHABLE, f"{server}: no answer in {sum(self._retry_s)} s", definite=False, retry=True)

    async def _channel(self, server: Server) -> _Channel:
        channel = self._channels.pop(server, None)
        if channel is None or channel.transport is None or channel.transport.is_closing():
            family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
            try:
                made, channel = await asyncio.get_running_loop().create_datagram_endpoint(
                    _Channel, remote_addr=(server.address, server.port), family=family
                )
            except OSError as exc:
                raise ZaibeiError(Code.UNREACHABLE, f"{server}: {exc}", definite=False, retry=True) from exc
            first = self._channels.pop(server, None)
            if first is not None and first.transport is not None and not first.transport.is_closing():
                made.close()  # others asked at once: one socket serves all, and no other is known to `close`
                channel = first
        self._channels[server] = channel  # newest last
        if len(self._channels) > SERVERS_MAX:
            oldest = self._channels.pop(next(iter(self._channels)))
            if oldest.transport is not None:
                oldest.transport.close()
        return channel

    async def close(self) -> None:
        for channel in self._channels.values():
            if channel.transport is not None:
                channel.transport.close()
        self._channels.clear()
        await asyncio.sleep(0)
