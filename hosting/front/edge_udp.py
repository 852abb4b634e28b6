"""Handle over UDP: datagrams in batches by recvmmsg and sendmmsg, fragments put together and made.

What cannot be answered in time is dropped, never queued: the client asks again after 500 ms. Answers over
`answer_octets_max` become a short 2 that sends the client to TCP, so that a forged sender's address gains at most
that much from us (amplification). How much one client gets in all, hosting/guard says.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any, Final

from hosting.answer.question import Answer, Question
from hosting.answer.standing import NO_SUCH_NAME, TRY_ANOTHER, Standing
from hosting.front.exchange import Registering
from hosting.front.service import FrontService
from hosting.guard.guard import Datagram
from hosting.guard.limits import BEHIND_S
from replica.model.handle.answers import Peeked
from replica.model.handle.codes import DATAGRAM_OCTETS_MAX
from replica.model.handle.fragments import Reassembler, datagrams
from replica.native import Datagrams

RECEIVED_OCTETS_MAX: Final = 2_048  # standard clients send at most 512
_TRUNCATED = 0x20
_SOCKADDR_IN6_OCTETS: Final = 28
_TOO_LONG: Final = b"the answer is too long for UDP; ask over TCP"
_TOO_MANY: Final = Answer(TRY_ANOTHER, b"ask over TCP")


@dataclass(frozen=True, slots=True)
class UdpLimits:
    """Limits of a UDP listener.

    Args:
        batch_max: datagrams read in one system call and tick.
        answer_octets_max: longer answers are not given over UDP.
        receive_buffer_octets: asked of the kernel; what arrives over it is lost there.
        fragments_max, fragment_octets_max, fragment_age_ms_max: unfinished messages held.
    """

    batch_max: int = 128
    answer_octets_max: int = 16_384
    receive_buffer_octets: int = 4 * 1024 * 1024
    fragments_max: int = 1_024
    fragment_octets_max: int = 4 * 1024 * 1024
    fragment_age_ms_max: int = 3_000


@dataclass(slots=True)
class UdpCounters:
    received: int = 0
    sent: int = 0
    unsent: int = 0
    malformed: int = 0
    dropped: int = 0
    too_long: int = 0


class UdpListener:
    """One bound UDP socket."""

    def __init__(self, service: FrontService, endpoint: socket.socket, limits: UdpLimits) -> None:
        self.limits = limits
        self.counters = UdpCounters()
        self.reassembler = Reassembler(limits.fragments_max, limits.fragment_octets_max, limits.fragment_age_ms_max)
        self._answer_octets_max = min(limits.answer_octets_max, service.guard.limits.udp_answer_octets_max)
        self._service = service
        self._socket = endpoint
        self._datagrams = Datagrams(endpoint.fileno(), limits.batch_max, RECEIVED_OCTETS_MAX)
        self._loop = asyncio.get_running_loop()
        self._out: list[tuple[bytes, bytes]] = []
        self._behind_since_s: float | None = None
        self._missed: list[bytes] = []
        self._expires = 0
        self._loop.add_reader(endpoint.fileno(), self._readable)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._socket.getsockname()[:2]
        return host, port

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        self._datagrams.close()
        self._socket.close()

    def _readable(self) -> None:
        try:
            received = self._datagrams.receive()
        except OSError:
            return  # an error of an earlier send, reported by the kernel on this socket
        self.counters.received += len(received)
        self._look_behind(len(received) >= self.limits.batch_max)
        received, slipped = self._service.guard.datagrams(received, int(self._loop.time()))
        if slipped:
            self._slip(slipped)
        take, ask = self._service.exchange.take, self._service.batcher.ask
        for data, peer in received:
            if len(data) > 2 and data[2] & _TRUNCATED:
                whole = self.reassembler.feed(peer, data, int(self._loop.time() * 1_000))
                if whole is None:
                    continue
                data = whole
            taken = take(data)
            if taken is None:
                self.counters.malformed += 1
            elif isinstance(taken, bytes):
                self._send(taken, peer)
            elif isinstance(taken[0], Registering):
                self._service.register(self, (peer, taken[0]), taken[0], _client(peer), datagram=True)
            elif taken[1] is None:
                self._service.ask_views(self, (taken[0], peer))
            elif not ask(self, (taken[0], peer), taken[1]):
                self.counters.dropped += 1
        if self._out:
            self.finish()

    def _look_behind(self, full: bool) -> None:
        """Does the socket fill faster than it is read?"""
        if not full:
            self._behind_since_s = None
            return
        now_s = self._loop.time()
        if self._behind_since_s is None:
            self._behind_since_s = now_s
        elif now_s - self._behind_since_s >= BEHIND_S:
            self._service.guard.fell_behind(int(now_s))

    def answered(self, context: Any, question: Question, answer: Answer) -> None:
        echo, peer = context
        if not self._expires:
            self._expires = self._service.expires()
        message = self._service.exchange.answer(echo, question, answer, self._expires)
        if answer.code == NO_SUCH_NAME:
            self._missed.append(peer)
        if len(message) > DATAGRAM_OCTETS_MAX:
            self._send_long(message, echo, question, answer, peer)
        else:
            self._out.append((message, peer))

    def _send_long(self, message: bytes, echo: Peeked, question: Question, answer: Answer, peer: bytes) -> None:
        if not self._may_be_long(message, peer):
            short = Answer(TRY_ANOTHER, _TOO_LONG, answer.standing)
            message = self._service.exchange.answer(echo, question, short, self._expires)
        self._send(message, peer)

    def _may_be_long(self, message: bytes, peer: bytes) -> bool:
        too_long = len(message) > self._answer_octets_max
        self.counters.too_long += too_long
        return not too_long and self._service.guard.long_answer(peer, len(message), int(self._loop.time()))

    def _slip(self, slipped: list[Datagram]) -> None:
        """Tell some to ask over TCP, where no address can be forged; never in more octets than they sent."""
        for data, peer in slipped:
            taken = self._service.exchange.take(data)
            if isinstance(taken, tuple) and isinstance(taken[0], Peeked) and taken[1] is not None:
                message = self._service.exchange.answer(taken[0], taken[1], _TOO_MANY, self._service.expires())
                if len(message) <= len(data):
                    self._out.append((message, peer))

    def _send(self, message: bytes, peer: bytes) -> None:
        for datagram in datagrams(message):
            self._out.append((datagram, peer))

    def views_read(self, context: Any, standings: list[Standing], trouble: str) -> None:
        echo, peer = context
        self._send(self._service.site_message(echo, standings, trouble), peer)
        self.finish()

    def registered(self, context: Any, answers: list[bytes]) -> None:
        peer, asked = context
        for answer in answers:
            if asked.certify and len(answer) > DATAGRAM_OCTETS_MAX and not self._may_be_long(answer, peer):
                answer = self._service.certifier.too_long(asked.octets)
            self._send(answer, peer)
        self.finish()

    def finish(self) -> None:
        out, self._out, self._expires = self._out, [], 0
        if self._missed:
            missed, self._missed = self._missed, []
            self._service.guard.missed_over_udp(missed)
        if not out or self._socket.fileno() < 0:
            return
        try:
            sent = self._datagrams.send(out)
        except OSError:
            sent = 0
        self.counters.sent += sent
        self.counters.unsent += len(out) - sent


def _client(peer: bytes) -> str:
    """The address in a sockaddr_in or sockaddr_in6, without the port."""
    if len(peer) >= _SOCKADDR_IN6_OCTETS:
        return socket.inet_ntop(socket.AF_INET6, peer[8:24])
    return socket.inet_ntop(socket.AF_INET, peer[4:8])


def bind_udp(host: str, port: int, limits: UdpLimits, reuse_port: bool) -> socket.socket:
    """A bound, non-blocking UDP socket; an IPv6 one serves IPv6 alone, so that both families can have the same port.

    Raises:
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    endpoint = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            endpoint.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse_port:
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.receive_buffer_octets)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.receive_buffer_octets)
        endpoint.setblocking(False)
        endpoint.bind((host, port))
    except OSError:
        endpoint.close()
        raise
    return endpoint
