"""UDP link through us: datagrams are lost, late, doubled and out of order, per direction, by a seed."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Sequence
from random import Random
from typing import Any, cast

from chaos.faults.edge_stream_proxy import Address, Way
from chaos.faults.rules import OPEN_DATAGRAMS, DatagramRule, fates_ms

CALLERS_MAX = 1_000  # the one that was silent longest is forgotten
WAITING_MAX = 100_000  # datagrams on their way


class _Back(asyncio.DatagramProtocol):
    """The socket towards the target of one caller."""

    def __init__(self, proxy: DatagramProxy, caller: tuple[Any, ...], near: asyncio.DatagramTransport) -> None:
        self._proxy, self._caller, self._near = proxy, caller, near

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._proxy.send(Way.BACK, self._near, data, self._caller)


class _Front(asyncio.DatagramProtocol):
    """The socket that callers know."""

    def __init__(self, proxy: DatagramProxy) -> None:
        self._proxy = proxy
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self._transport is not None:
            self._proxy.from_caller(data, addr, self._transport)


class DatagramProxy:
    """One link. Same arguments as StreamProxy; `counted` tells what became of datagrams per direction."""

    def __init__(self, listen: Sequence[Address], target: Sequence[Address], seed: int = 0) -> None:
        self._listen, self._target = tuple(listen), tuple(target)
        self._rules = dict.fromkeys(Way, OPEN_DATAGRAMS)
        self._chance = {way: Random(f"{seed} {way}") for way in Way}
        self._fronts: list[asyncio.DatagramTransport] = []
        self._callers: OrderedDict[tuple[Any, ...], asyncio.DatagramTransport] = OrderedDict()
        self._waiting: set[asyncio.TimerHandle] = set()
        self.counted = {way: {"in": 0, "out": 0, "lost": 0} for way in Way}
        self.addresses: list[Address] = []

    async def start(self) -> DatagramProxy:
        for host, port in self._listen:
            front, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Front(self), local_addr=(host, port))
            self._fronts.append(front)
            self.addresses.append((host, front.get_extra_info("sockname")[1]))
        return self

    async def stop(self) -> None:
        for handle in self._waiting:
            handle.cancel()
        for transport in (*self._fronts, *self._callers.values()):
            transport.close()
        self._callers.clear()

    def set(self, way: Way, rule: DatagramRule) -> None:
        self._rules[way] = rule

    def heal(self) -> None:
        """Everything passes again; what is late still comes late."""
        for way in Way:
            self._rules[way] = OPEN_DATAGRAMS

    def from_caller(self, data: bytes, caller: tuple[Any, ...], near: asyncio.DatagramTransport) -> None:
        """A datagram of a caller; each has a socket of its own towards the target, so that answers find back."""
        far = self._callers.get(caller)
        if far is None:
            host, port = self._target_for(caller[0])
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            taken = socket.socket(family, socket.SOCK_DGRAM)
            taken.setblocking(False)
            taken.connect((host, port))
            task = asyncio.ensure_future(
                asyncio.get_running_loop().create_datagram_endpoint(lambda: _Back(self, caller, near), sock=taken)
            )
            task.add_done_callback(lambda made: self._made(made, caller, data))
            return
        self._callers.move_to_end(caller)
        self.send(Way.FORTH, far, data, None)

    def _made(self, made: asyncio.Future[Any], caller: tuple[Any, ...], data: bytes) -> None:
        if made.cancelled() or made.exception() is not None:
            return  # the datagram is lost
        far = made.result()[0]
        if (known := self._callers.get(caller)) is not None:
            far.close()
            far = known
        self._callers[caller] = far
        if len(self._callers) > CALLERS_MAX:
            self._callers.popitem(last=False)[1].close()
        self.send(Way.FORTH, far, data, None)

    def send(self, way: Way, transport: asyncio.DatagramTransport, data: bytes, to: tuple[Any, ...] | None) -> None:
        """One datagram meets its fate."""
        count = self.counted[way]
        count["in"] += 1
        fates = fates_ms(self._rules[way], self._chance[way])
        if not fates or len(self._waiting) >= WAITING_MAX:
            count["lost"] += 1
            return
        for after_ms in fates:
            count["out"] += 1
            if not after_ms:
                _out(transport, data, to)
                continue
            loop = asyncio.get_running_loop()
            handle = loop.call_later(after_ms / 1_000, lambda: _out(transport, data, to))
            self._waiting.add(handle)
            loop.call_later(after_ms / 1_000 + 0.01, self._waiting.discard, handle)

    def _target_for(self, host: str) -> Address:
        return next((one for one in self._target if (":" in one[0]) == (":" in host)), self._target[0])


def _out(transport: asyncio.DatagramTransport, data: bytes, to: tuple[Any, ...] | None) -> None:
    if not transport.is_closing():
        transport.sendto(data, to)
