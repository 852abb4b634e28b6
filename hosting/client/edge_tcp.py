"""Handle over TCP: one connection a server kept open, requests told apart by their number, answers in any order."""

from __future__ import annotations

import asyncio
from typing import cast

from hosting.client.lookup import Server
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.stream import Deframer

CONNECT_S_MAX = 3.0
CONNECTIONS_MAX = 256  # the one unused for longest is closed first
REQUESTS_OPEN_MAX = 10_000  # of one connection


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.pending: dict[int, asyncio.Future[bytes]] = {}
        self.transport: asyncio.Transport | None = None
        self._deframer = Deframer()

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for message in self._deframer.feed(data):
            answer = self.pending.get(int.from_bytes(message[8:12], "big"))
            if answer is not None and not answer.done():
                answer.set_result(message)
        if self._deframer.fault is not None and self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """All who wait here know at once: a dead node closes or resets its connections."""
        for answer in self.pending.values():
            if not answer.done():
                answer.set_exception(exc or ConnectionResetError("closed by the server"))


class TcpPool:
    """Connections by server."""

    def __init__(self, answer_s_max: float = 3.0, connect_s_max: float = CONNECT_S_MAX) -> None:
        self._answer_s_max, self._connect_s_max = answer_s_max, connect_s_max
        self._connections: dict[Server, _Connection] = {}
        self._connecting: dict[Server, asyncio.Task[_Connection]] = {}

    async def ask(self, server: Server, request: bytes, number: int) -> bytes:
        """Send on the open connection (or a new one) and return the answer's octets.

        Raises:
            ZaibeiError(UNREACHABLE): refused, closed before the answer, or silent for `answer_s_max`.
        """
        try:
            connection, fresh = await self._connection(server)
            try:
                return await self._exchange(connection, request, number)
            except TimeoutError:  # an OSError too; silence is no closed connection: asking again would wait twice as long
                raise
            except OSError:
                if fresh:
                    raise
            # The kept connection had died unnoticed; a resolution may be repeated.
            connection, _ = await self._connection(server)
            return await self._exchange(connection, request, number)
        except TimeoutError:
            raise ZaibeiError(Code.UNREACHABLE, f"{server}: no answer in time", definite=False, retry=True) from None
        except OSError as exc:
            raise ZaibeiError(Code.UNREACHABLE, f"{server}: {exc}", definite=False, retry=True) from exc

    async def _exchange(self, connection: _Connection, request: bytes, number: int) -> bytes:
        if not connection.usable or connection.transport is None:
            raise ConnectionResetError("closed")
        if len(connection.pending) >= REQUESTS_OPEN_MAX:
            raise ConnectionResetError(f"{REQUESTS_OPEN_MAX} requests wait on one connection")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        connection.pending[number] = answer
        try:
            connection.transport.write(request)
            async with asyncio.timeout(self._answer_s_max):  # wait_for of Python 3.11 may swallow a cancellation
                return await answer
        finally:
            del connection.pending[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen

    async def _connection(self, server: Server) -> tuple[_Connection, bool]:
        kept = self._connections.pop(server, None)
        if kept is not None and kept.usable:
            self._connections[server] = kept  # newest last
            return kept, False
        task = self._connecting.get(server)
        if task is None:
            task = self._connecting[server] = asyncio.create_task(self._connect(server))
            task.add_done_callback(lambda done: self._connected(server, done))
        return await asyncio.shield(task), True

    def _connected(self, server: Server, task: asyncio.Task[_Connection]) -> None:
        self._connecting.pop(server, None)
        if task.cancelled() or task.exception() is not None:
            return
        self._connections[server] = task.result()
        if len(self._connections) > CONNECTIONS_MAX:
            oldest = self._connections.pop(next(iter(self._connections)))
            if oldest.transport is not None:
                oldest.transport.close()

    async def _connect(self, server: Server) -> _Connection:
        async with asyncio.timeout(self._connect_s_max):
            _, connection = await asyncio.get_running_loop().create_connection(_Connection, server.address, server.port)
        return connection

    async def close(self) -> None:
        for task in self._connecting.values():
            task.cancel()
        await asyncio.gather(*self._connecting.values(), return_exceptions=True)
        for connection in self._connections.values():
            if connection.transport is not None:
                connection.transport.abort()
        self._connections.clear()
        await asyncio.sleep(0)
