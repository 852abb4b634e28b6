"""Connect-and-resolve probes of a node's own Handle endpoints: alive is whoever gives a well-formed answer to our very request.

What the answer says does not matter: a node that says "not found" or "busy" is a node that lives. All endpoints are asked at
once; one answer is enough, so that a family or a protocol that is down alone does not look like a dead node.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from replica.model.handle.codes import ENVELOPE_OCTETS, MESSAGE_OCTETS_MAX, EnvelopeFlag, OpCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.message import Envelope, Header, Message, decode_envelope, decode_message, encode_message
from replica.model.handle.wire import pack_u32s, string
from replica.model.node import Endpoint

PROBE_S_MAX = 0.25
SLOW_S_MAX = 3.0  # of a probe over a line that is known to be slow
SLOW_TIMES = 2  # such a probe may take so many times as long as the slowest of those that were answered lately
ANSWERED_KEPT = 10
AGAIN_S = 0.1  # between the probes that follow a slow answer
LATE_MAX = 8  # probes that nobody waits for any more
ENDPOINTS_MAX = 8


class Probe(Protocol):
    """The function below, or a test's."""

    async def __call__(self, endpoints: Sequence[Endpoint], prefix: str, *, limit_s: float) -> bool: ...


async def probe(endpoints: Sequence[Endpoint], prefix: str, *, limit_s: float = PROBE_S_MAX) -> bool:
    """Ask all endpoints for the record of a prefix.

    Args:
        endpoints: "tcp" and "udp" ones count, the first ENDPOINTS_MAX of them; none: nobody can answer.
        prefix: of the node, as people write it; empty: the root's record.
        limit_s: of the whole probe.
    Returns:
        True as soon as one gave a well-formed answer.
    """
    request, number = probe_request(prefix)
    asked = [endpoint for endpoint in endpoints if endpoint.protocol in ("tcp", "udp")][:ENDPOINTS_MAX]
    tasks = [asyncio.create_task(_ask(endpoint, request, number)) for endpoint in asked]
    try:
        async with asyncio.timeout(limit_s):
            for task in asyncio.as_completed(tasks):
                if await task:
                    return True
    except TimeoutError:
        return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return False


class PacedProbe:
    """`probe` for one source, with a limit that its line allows: a node at the end of a slow line must not look dead.

    A probe counts as failed after PROBE_S_MAX, or SLOW_TIMES the slowest answer of late where that is longer; it goes on all the
    same up to SLOW_S_MAX, and an answer that comes then is told (`late`): it is a sign of life, and what the next limit is made
    of. Peace-time probes do that; a line that is fast has the short limit, and a death is seen as soon as ever.

    What looked like a slow line may have been a busy moment of its host. While the limit is longer than PROBE_S_MAX, an answer is
    followed by up to ANSWERED_KEPT more probes at once: if all are answered as fast as on a fast line, the slow one is forgotten,
    within about a second, where peace-time probes would take a minute in which a freeze is seen late. One slow answer among them
    ends that: at a slow line nothing is forgotten.
    """

    def __init__(
        self,
        asks: Probe = probe,
        *,
        late: Callable[[], None] = lambda: None,
        limit_s: float = PROBE_S_MAX,
        slow_s: float = SLOW_S_MAX,
    ) -> None:
        self._asks, self._tell_late, self._limit_s, self._slow_s = asks, late, limit_s, slow_s
        self._took_s: deque[float] = deque(maxlen=ANSWERED_KEPT)
        self._late: set[asyncio.Task[bool]] = set()
        self._again: asyncio.Task[None] | None = None

    @property
    def limit_s(self) -> float:
        return min(self._slow_s, max(self._limit_s, SLOW_TIMES * max(self._took_s, default=0)))

    async def __call__(self, endpoints: Sequence[Endpoint], prefix: str) -> bool:
        if len(self._late) >= LATE_MAX:
            return await self._asks(endpoints, prefix, limit_s=self.limit_s)
        task = asyncio.create_task(self._answered(endpoints, prefix))
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        done, _ = await asyncio.wait([task], timeout=self.limit_s)
        if not done:
            task.add_done_callback(self._ended_late)
        return bool(done) and task.result()

    def _ended_late(self, task: asyncio.Task[bool]) -> None:
        if not task.cancelled() and task.exception() is None and task.result():
            self._tell_late()

    async def _answered(self, endpoints: Sequence[Endpoint], prefix: str) -> bool:
        took_s = await self._timed(endpoints, prefix)
        if took_s is None:
            return False
        self._took_s.append(took_s)
        if self.limit_s > self._limit_s and (self._again is None or self._again.done()):
            self._again = asyncio.create_task(self._look_again(endpoints, prefix))
        return True

    async def _look_again(self, endpoints: Sequence[Endpoint], prefix: str) -> None:
        """A busy moment, or the line? Whoever falls silent is the business of the next probe."""
        for _ in range(ANSWERED_KEPT):
            await asyncio.sleep(AGAIN_S)
            took_s = await self._timed(endpoints, prefix)
            if took_s is None or took_s * SLOW_TIMES > self._limit_s:
                return
        self._took_s.clear()

    async def _timed(self, endpoints: Sequence[Endpoint], prefix: str) -> float | None:
        """Seconds until it answered; None: not in the longest time."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        alive = await self._asks(endpoints, prefix, limit_s=self._slow_s)
        return loop.time() - began_s if alive else None


def probe_request(prefix: str) -> tuple[bytes, int]:
    """Octets of a plain resolution of `0.NA/PREFIX`, and its unguessable request number."""
    number = secrets.randbelow(2**31 - 1) + 1
    body = string(f"0.NA/{prefix or '0.NA'}".encode()) + pack_u32s(()) + pack_u32s(())
    return encode_message(Message(Envelope(number, 0), Header(OpCode.RESOLUTION), body)), number


async def _ask(endpoint: Endpoint, request: bytes, number: int) -> bool:
    try:
        return await (_ask_tcp if endpoint.protocol == "tcp" else _ask_udp)(endpoint, request, number)
    except (OSError, EOFError, ProtocolFault, ValueError, OverflowError):  # the last two: what was named is no address or port
        return False


async def _ask_tcp(endpoint: Endpoint, request: bytes, number: int) -> bool:
    reader, writer = await asyncio.open_connection(endpoint.address, endpoint.port)
    try:
        writer.write(request)
        head = await reader.readexactly(ENVELOPE_OCTETS)
        length = decode_envelope(head).length
        if length > MESSAGE_OCTETS_MAX:
            return False
        message = decode_message(head + await reader.readexactly(length))
        return message.envelope.request_id == number and message.header.response_code != 0
    finally:
        writer.transport.abort()


async def _ask_udp(endpoint: Endpoint, request: bytes, number: int) -> bool:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Answer(answer, number), remote_addr=(endpoint.address, endpoint.port), family=family
    )
    try:
        transport.sendto(request)
        return _alive(await answer, number)
    finally:
        transport.close()


def _alive(datagram: bytes, number: int) -> bool:
    envelope = decode_envelope(datagram)
    if envelope.flags & EnvelopeFlag.TRUNCATED:  # one of several: its envelope is all a probe needs
        return envelope.request_id == number and len(datagram) > ENVELOPE_OCTETS
    return decode_message(datagram).envelope.request_id == number


class _Answer(asyncio.DatagramProtocol):
    """The first datagram with our number, or the first error."""

    def __init__(self, answer: asyncio.Future[bytes], number: int) -> None:
        self._answer, self._number = answer, number.to_bytes(4, "big")

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self._answer.done() and data[8:12] == self._number:
            self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)
