"""Receives datagram beats over IPv4 and IPv6: only authenticated, rising ones of a stream we gave a key to reach a detector."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from replica.model.beat import HeadBeat, decode_beat, peek_stream, stream_id
from replica.model.errors import Code, ZaibeiError
from replica.takeover.edge_metrics import TakeoverMetrics
from replica.takeover.edge_runner import boottime_ns

STREAMS_MAX = 4_096
OnBeat = Callable[[HeadBeat, int], None]  # (head, boottime ns of arrival)


@dataclass(slots=True)
class _Stream:
    key: bytes
    sources: frozenset[str]
    on_beat: OnBeat
    counter: int = 0  # of the newest beat taken; a sender starts at 1


class BeatTable:
    """Who may beat, by stream id. A name in a beat counts only when that stream's key was given out for it."""

    def __init__(self, metrics: TakeoverMetrics | None = None) -> None:
        self._streams: dict[bytes, _Stream] = {}
        self._metrics = metrics
        self.seen: Counter[str] = Counter()

    def allow(self, key: bytes, sources: frozenset[str], on_beat: OnBeat) -> None:
        """Take beats made with this key (32 octets, new for each stream). Raises ZaibeiError(BUSY) over STREAMS_MAX."""
        if len(self._streams) >= STREAMS_MAX:
            raise ZaibeiError(Code.BUSY, f"{STREAMS_MAX} beat streams are open already")
        self._streams[stream_id(key)] = _Stream(key, sources, on_beat)

    def revoke(self, key: bytes) -> None:
        """The stream ended: its beats count for nothing from now on."""
        self._streams.pop(stream_id(key), None)

    def accept(self, datagram: bytes, now_ns: int) -> str:
        """Take one datagram.

        Returns:
            "taken", "unknown" (no such stream), "unauthenticated" or "replayed"; only the first reaches anybody.
        """
        kind = self._accept(datagram, now_ns)
        self.seen[kind] += 1
        if self._metrics:
            self._metrics.beat(kind)
        return kind

    def _accept(self, datagram: bytes, now_ns: int) -> str:
        ident = peek_stream(datagram)
        stream = self._streams.get(ident) if ident is not None else None
        if stream is None:
            return "unknown"
        try:
            beat = decode_beat(stream.key, datagram)
        except ZaibeiError:
            return "unauthenticated"
        if beat.counter <= stream.counter:
            return "replayed"
        stream.counter = beat.counter
        for head in beat.heads:
            if head.source in stream.sources:
                stream.on_beat(head, now_ns)
        return "taken"


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, table: BeatTable) -> None:
        self._table = table

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._table.accept(data, boottime_ns())


async def listen_for_beats(table: BeatTable, host: str, port: int) -> tuple[asyncio.DatagramTransport, int]:
    """Open one beat listener on a numeric IPv4 or IPv6 address.

    Returns:
        The transport (close it to stop) and the port in use.
    Raises:
        ZaibeiError(INVALID_CONFIG): the address cannot be bound; says which and why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Receiver(table), local_addr=(host, port), family=family
        )
    except OSError as exc:
        raise ZaibeiError(Code.INVALID_CONFIG, f"cannot take beats on {host} port {port}: {exc.strerror or exc}") from exc
    return transport, int(transport.get_extra_info("sockname")[1])
