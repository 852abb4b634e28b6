"""TCP link through us: each direction can be cut silently, delayed, limited; connections reset, ended, left half open; all of
it healed.

A connection needs both directions to come about, so while one is cut new ones are accepted and wait, as a SYN would. Octets
that were on their way when a direction was cut arrive after the heal.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from chaos.faults.rules import OPEN, StreamRule, due_ns

PIECE_OCTETS_MAX = 65_536
PIECES_WAITING_MAX = 64  # of one direction of one connection; then its sender is no longer read
CONNECT_S_MAX = 5.0
CONNECTIONS_MAX = 1_000
RESET_LINGER = struct.pack("ii", 1, 0)
Address = tuple[str, int]


class Way(StrEnum):
    """Directions of a link, seen from whoever connects."""

    FORTH = "forth"
    BACK = "back"


@dataclass(eq=False, slots=True)
class _Lane:
    """One direction of all connections of a link: its rule, and who waits for it to open."""

    chance: Random
    rule: StreamRule = OPEN
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def set(self, rule: StreamRule) -> None:
        self.rule = rule
        if rule.cut:
            self.opened.clear()
        else:
            self.opened.set()


@dataclass(eq=False, slots=True)
class _Pair:
    """One connection: the caller's end, and the end towards the target once there is one."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter | None = None
    swallowed: bool = False  # half open: the caller is read and nobody hears it

    def ends(self) -> list[asyncio.StreamWriter]:
        return [end for end in (self.near, self.far) if end is not None]


class StreamProxy:
    """One link: listens, connects to its target for each caller.

    Args:
        listen: addresses of both families with one port each; port 0: any.
        target: where to connect; of the caller's family when one is given for it, else the first.
        seed: of jitter.
    """

    def __init__(self, listen: Sequence[Address], target: Sequence[Address], seed: int = 0) -> None:
        self._listen, self._target = tuple(listen), tuple(target)
        self._lanes = {way: _Lane(Random(f"{seed} {way}")) for way in Way}
        self._servers: list[asyncio.Server] = []
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.refusing = False
        self.addresses: list[Address] = []

    async def start(self) -> StreamProxy:
        for lane in self._lanes.values():
            lane.set(OPEN)
        for host, port in self._listen:
            server = await asyncio.start_server(self.carry, host, port, limit=PIECE_OCTETS_MAX)
            self._servers.append(server)
            self.addresses.append((host, server.sockets[0].getsockname()[1]))
        return self

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pair in list(self._pairs):
            self._end(pair, reset=True)

    def turn(self, target: Sequence[Address]) -> None:
        """Callers from now on are connected to another target."""
        self._target = tuple(target)

    # ------------------------------------------------------------------------------------------------------------ faults

    def rule(self, way: Way) -> StreamRule:
        return self._lanes[way].rule

    def set(self, way: Way, rule: StreamRule) -> None:
        """The rule of one direction from now on; octets already on their way keep the delay they were given."""
        self._lanes[way].set(rule)

    def heal(self) -> None:
        """Everything passes again; connections left half open are reset, as their caller's next packet would find out."""
        self.refusing = False
        for lane in self._lanes.values():
            lane.set(OPEN)
        for pair in list(self._pairs):
            if pair.swallowed:
                self._end(pair, reset=True)

    def reset(self) -> int:
        """RST to both ends of all connections; returns how many there were."""
        return self._end_all(reset=True)

    def drop(self) -> int:
        """End all connections in order (FIN); returns how many there were."""
        return self._end_all(reset=False)

    def refuse(self) -> None:
        """Reset who comes from now on, and those who are here."""
        self.refusing = True
        self.reset()

    def half_open(self) -> int:
        """The target's end of each connection dies without a word to the caller; returns how many there were."""
        count = 0
        for pair in list(self._pairs):
            if pair.far is not None:
                pair.swallowed, count = True, count + 1
                _close(pair.far, reset=True)
        return count

    @property
    def connections(self) -> int:
        return len(self._pairs)

    def _end_all(self, *, reset: bool) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            self._end(pair, reset=reset)
        return len(pairs)

    def _end(self, pair: _Pair, *, reset: bool) -> None:
        self._pairs.discard(pair)
        for end in pair.ends():
            _close(end, reset=reset)

    # ----------------------------------------------------------------------------------------------------------- carrying

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take over a caller's connection, accepted here or at a door that several links share; returns when it has ended."""
        pair = _Pair(writer)
        if self.refusing or len(self._pairs) >= CONNECTIONS_MAX:
            _close(writer, reset=True)
            return
        self._pairs.add(pair)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            await self._carry(pair, reader)
        except (OSError, TimeoutError, asyncio.CancelledError):
            self._end(pair, reset=True)

    async def _carry(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        for lane in self._lanes.values():
            await lane.opened.wait()
        host, port = self._target_for(pair.near)
        async with asyncio.timeout(CONNECT_S_MAX):
            far_reader, far = await asyncio.open_connection(host, port, limit=PIECE_OCTETS_MAX)
        pair.far = far
        forth = self._one_way(pair, reader, far, Way.FORTH)
        back = self._one_way(pair, far_reader, pair.near, Way.BACK)
        await asyncio.gather(forth, back)
        self._end(pair, reset=False)

    def _target_for(self, near: asyncio.StreamWriter) -> Address:
        family = near.get_extra_info("socket").family
        for host, port in self._target:
            if (socket.AF_INET6 if ":" in host else socket.AF_INET) == family:
                return host, port
        return self._target[0]

    async def _one_way(self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        """Read pieces and let each out when it is due and the lane is open; an end of stream travels like a piece."""
        lane = self._lanes[way]
        waiting: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(PIECES_WAITING_MAX)

        async def letting_out() -> None:
            while True:
                at_ns, piece = await waiting.get()
                if (late_ns := at_ns - time.monotonic_ns()) > 0:
                    await asyncio.sleep(late_ns / 1e9)
                await lane.opened.wait()
                if pair.swallowed:
                    continue
                if not piece:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                writer.write(piece)
                await writer.drain()

        out = asyncio.create_task(letting_out())
        before_ns = 0
        try:
            while not out.done():
                try:
                    piece = await reader.read(PIECE_OCTETS_MAX)
                except ConnectionError:
                    if not pair.swallowed:  # a reset passes at once, unless the direction is cut
                        await lane.opened.wait()
                        self._end(pair, reset=True)
                    return
                before_ns = due_ns(lane.rule, time.monotonic_ns(), before_ns, len(piece), lane.chance)
                await waiting.put((before_ns, piece))
                if not piece:
                    break
            if not pair.swallowed:
                with suppress(ConnectionError):
                    await out
        finally:
            out.cancel()
            await asyncio.gather(out, return_exceptions=True)


def _close(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if not reset:
        writer.close()
        return
    taken = writer.get_extra_info("socket")
    with suppress(OSError):
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_LINGER)
    writer.transport.abort()
