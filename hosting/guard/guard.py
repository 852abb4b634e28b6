"""The guard of one answering process: who is answered now, by limits a second. Pure: time comes as an argument, nothing is sent.

| who | over its limit |
| --- | --- |
| a refused network | silence over UDP, a closed connection, PERMISSION_DENIED over gRPC |
| all over UDP together: a flood | who has not proved its address is dropped, every 4th is told to ask over TCP, 2,000 a second |
| a client over UDP | its datagrams are dropped, every 4th is told to ask over TCP |
| a client's long answers over UDP | told to ask over TCP |
| a client over TCP, HTTP, gRPC | 2, "ask another site" |
| an identifier, by all clients | 2, "ask another site" |
| a tenant that has a quota, by all clients, trusted ones too | 2, "ask another site" |

UDP and streams are counted apart, because the address of a datagram may be forged: whoever forges it must not shut its owner's
TCP. The limits of UDP bound what a forged address can be made to receive. An address is proved by a TCP handshake with this
process lately (proven.py), or trusted. Whoever is told gets no more octets than it sent.

Cost: a whole batch is counted at once, and only clients over their limit are looked at one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hosting.guard.clients import SOCKADDR_IN, SOCKADDR_IN6, Networks, address_in, address_of
from hosting.guard.limits import CLIENTS_MAX, FLOOD_S, NAMES_MAX, SLIP, TOLD_PER_S_MAX, GuardLimits
from hosting.guard.proven import Proven
from hosting.guard.quotas import Quotas
from hosting.guard.windows import Window
from replica.model.tenant_view import TenantView

Datagram = tuple[bytes, bytes]
"""Octets, and the sockaddr they came from."""

FLOOD: Final = "udp_flood"
OVER_UDP: Final = "udp_rate"
OVER_LONG: Final = "udp_long_answers"
OVER_STREAM: Final = "stream_rate"
OVER_NAME: Final = "identifier_rate"
OVER_QUOTA: Final = "tenant_rate"
MISSING_NAME: Final = "missing_name"
REFUSED: Final = "refused_network"


@dataclass(slots=True)
class GuardCounters:
    """What was held back; read by metrics."""

    refused: int = 0
    udp_unproven: int = 0
    udp_dropped: int = 0
    udp_slipped: int = 0
    udp_long_shortened: int = 0
    stream_over: int = 0
    identifier_over: int = 0
    tenant_over: int = 0


def no_notes(what: str, client: bytes, count: int) -> None:
    """For a guard whose findings nobody reads."""


class Guard:
    """See the module.

    Args:
        note: told (what, client, how many) of everything that was held back; cheap, called for batches and not for datagrams.
    Raises:
        ZaibeiError(INVALID_CONFIG): a network of the limits is none.
    """

    def __init__(self, limits: GuardLimits | None = None, note: Callable[[str, bytes, int], None] = no_notes) -> None:
        self.limits = limits or GuardLimits()
        self.counters = GuardCounters()
        self.note = note
        self._refused, self._trusted = Networks(self.limits.refused), Networks(self.limits.trusted)
        self._proven = Proven()
        self._told_second, self._told_count = -1, 0
        self._calm_second, self._calm_count, self._flood_until = -1, 0, -1
        self._udp = Window(self.limits.udp_requests_per_s, CLIENTS_MAX)
        self._long = Window(self.limits.udp_long_octets_per_s, CLIENTS_MAX)
        self._streams = Window(self.limits.stream_requests_per_s, CLIENTS_MAX)
        self._names = Window(self.limits.identifier_per_s, NAMES_MAX)
        self._quotas = Quotas()

    @property
    def overflows(self) -> int:
        """How often too many clients or names were to be counted at once."""
        return self._udp.overflows + self._long.overflows + self._streams.overflows + self._names.overflows

    # -- UDP

    def datagrams(self, received: list[Datagram], second: int) -> tuple[list[Datagram], list[Datagram]]:
        """Which datagrams of a batch, all of one address family, are taken, and which are told to ask over TCP."""
        if self._refused:
            received = self._allowed(received)
        if not received:
            return received, []
        slipped: list[Datagram] = []
        if self.limits.udp_calm_per_s and self._flooded(len(received), second):
            received, slipped = self._from_proven(received, second)
        if not received or not self._udp.limit:
            return received, self._told(slipped, second) if slipped else slipped
        client = SOCKADDR_IN6 if len(received[0][1]) > 16 else SOCKADDR_IN
        over = self._udp.count([peer[client] for _, peer in received], second)
        if over:
            received, more = self._sorted(received, client, over)
            slipped += more
        return received, self._told(slipped, second) if slipped else slipped

    def _told(self, slipped: list[Datagram], second: int) -> list[Datagram]:
        if second != self._told_second:
            self._told_second, self._told_count = second, 0
        told = slipped[: TOLD_PER_S_MAX - self._told_count]
        self._told_count += len(told)
        self.counters.udp_slipped += len(told)
        return told

    def flooded(self, second: int) -> bool:
        """Does a flood go on?"""
        return second <= self._flood_until

    def fell_behind(self, second: int) -> None:
        """More comes over UDP than can be read: whatever is counted, it is a flood."""
        self._flood_until = second + FLOOD_S

    def _flooded(self, count: int, second: int) -> bool:
        if second != self._calm_second:
            self._calm_second, self._calm_count = second, 0
        self._calm_count += count
        if self._calm_count > self.limits.udp_calm_per_s:
            self._flood_until = second + FLOOD_S
        return second <= self._flood_until

    def _from_proven(self, received: list[Datagram], second: int) -> tuple[list[Datagram], list[Datagram]]:
        self._proven.turn(second)
        proven, trusted = self._proven.has, self._trusted.has
        taken: list[Datagram] = []
        slipped: list[Datagram] = []
        held = self.counters.udp_unproven
        for one in received:
            address = address_in(one[1])
            if proven(address) or trusted(address):
                taken.append(one)
                continue
            held += 1
            if held % SLIP == 0:
                slipped.append(one)
        if held > self.counters.udp_unproven:
            self.note(FLOOD, b"", held - self.counters.udp_unproven)
            self.counters.udp_unproven = held
        return taken, slipped

    def _allowed(self, received: list[Datagram]) -> list[Datagram]:
        taken = [one for one in received if not self._refused.has(address_in(one[1]))]
        if len(taken) < len(received):
            self.counters.refused += len(received) - len(taken)
            self.note(REFUSED, b"", len(received) - len(taken))
        return taken

    def _sorted(self, received: list[Datagram], client: slice, over: set[bytes]) -> tuple[list[Datagram], list[Datagram]]:
        taken: list[Datagram] = []
        slipped: list[Datagram] = []
        held: dict[bytes, int] = {}
        counters = self.counters
        for one in received:
            key = one[1][client]
            if key not in over or self._trusted.has(address_in(one[1])):
                taken.append(one)
                continue
            held[key] = held.get(key, 0) + 1
            counters.udp_dropped += 1
            if counters.udp_dropped % SLIP == 0:
                slipped.append(one)
        for key, count in held.items():
            self.note(OVER_UDP, key, count)
        return taken, slipped

    def long_answer(self, peer: bytes, octets: int, second: int) -> bool:
        """May an answer of several datagrams go to this sockaddr?"""
        key = peer[SOCKADDR_IN6 if len(peer) > 16 else SOCKADDR_IN]
        if self._long.add(key, octets, second) == octets or self._trusted.has(address_in(peer)):
            return True
        self.counters.udp_long_shortened += 1
        self.note(OVER_LONG, key, 1)
        return False

    # -- streams

    def admits(self, host: str) -> bool:
        """May this address connect?"""
        if not self._refused or not self._refused.has_host(host):
            return True
        self.counters.refused += 1
        self.note(REFUSED, b"", 1)
        return False

    def connected(self, host: str, second: int) -> None:
        """This address finished a handshake: it is no forged one."""
        address = address_of(host)
        if address:
            self._proven.add(address, second)

    def trusts(self, host: str) -> bool:
        """Is nothing counted against this address?"""
        return self._trusted.has_host(host)

    def stream(self, client: bytes, requests: int, second: int) -> int:
        """How many of so many requests of a client that is not trusted are taken."""
        taken = self._streams.add(client, requests, second)
        if taken < requests:
            self.counters.stream_over += requests - taken
            self.note(OVER_STREAM, client, requests - taken)
        return taken

    # -- what was answered

    def missed(self, client: bytes, count: int) -> None:
        """A client asked for names that are not there."""
        self.note(MISSING_NAME, client, count)

    def missed_over_udp(self, peers: Sequence[bytes]) -> None:
        """As `missed`; their sockaddrs."""
        clients = Counter(peer[SOCKADDR_IN6 if len(peer) > 16 else SOCKADDR_IN] for peer in peers)
        for client, count in clients.items():
            self.note(MISSING_NAME, client, count)

    # -- identifiers

    def names(self, keys: Sequence[bytes], second: int) -> set[bytes]:
        """Store keys of a batch that are asked for too often."""
        over = self._names.count(keys, second)
        if over:
            held = sum(1 for key in keys if key in over)
            self.counters.identifier_over += held
            self.note(OVER_NAME, b"", held)
        return over

    # -- tenants

    @property
    def over_quota(self) -> Mapping[str, int]:
        """Questions over their tenant's quota, by source."""
        return self._quotas.over

    def tenant(self, source: str, quota: TenantView, count: int, now_s: float) -> int:
        """How many of `count` questions for a tenant are answered now."""
        taken = self._quotas.take(source, quota, count, now_s)
        if taken < count:
            self.counters.tenant_over += count - taken
            self.note(OVER_QUOTA, source.encode(), count - taken)
        return taken
