"""What waits for the proof of who sent it. Pure: time and randomness are arguments.

| a challenge is | until | then |
| --- | --- | --- |
| OFFERED | an answer names its session | TAKEN: whatever the proof is worth, it is not judged twice |
| OFFERED | its time is over, or its place is needed by nobody else's than its own client's | EXPIRED |

A session id means one challenge of one client; in an open session the newest one. Who floods us fills its own share alone:
beyond `client_max` its oldest challenge makes room; when the table is full, new clients are told to come again, and nobody's
challenge is lost. What comes over UDP, where an address may be forged, has half of the places and shares of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from hosting.guard.clients import share_of
from replica.model.handle.codes import MESSAGE_OCTETS_MAX

SESSION_IDS = 0x7FFFFFFF  # the standard client reads them as signed numbers
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChallengeLimits:
    """Of the table.

    Args:
        life_ms: from the challenge to its answer.
        waiting_max, octets_max: requests, and their octets; datagrams_max, datagrams_octets_max: of those, over UDP.
        client_max, client_octets_max: of one client: an IPv4 address, or a /56 of IPv6; over UDP and else apart.
    """

    life_ms: int = 60_000
    waiting_max: int = 4_096
    octets_max: int = 64 * 1024 * 1024
    datagrams_max: int = 2_048
    datagrams_octets_max: int = 32 * 1024 * 1024
    client_max: int = 64
    client_octets_max: int = 4 * MESSAGE_OCTETS_MAX


@dataclass(frozen=True, slots=True)
class Offered(Generic[T]):
    """What waits, how many octets it holds, and until when (Unix milliseconds)."""

    session_id: int
    client: str
    kept: T
    octets: int
    ends_ms: int
    datagram: bool = False


class Challenges(Generic[T]):
    """See the module."""

    def __init__(self, limits: ChallengeLimits | None = None) -> None:
        self.limits = limits or ChallengeLimits()
        self._offered: OrderedDict[int, Offered[T]] = OrderedDict()  # oldest first, so soonest over first
        self._clients: dict[str, OrderedDict[int, int]] = {}  # session ids and octets of each client, oldest first
        self._octets = self._datagrams = self._datagrams_octets = 0

    def __len__(self) -> int:
        return len(self._offered)

    @property
    def octets(self) -> int:
        return self._octets

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._offered

    def session_id(self, number: int) -> int:
        """A free session id from a random number."""
        found = number % SESSION_IDS + 1
        while found in self._offered:
            found = found % SESSION_IDS + 1
        return found

    def room(self, client: str, octets: int, now_ms: int, *, datagram: bool = False) -> bool:
        """Make room for a request, at the cost of its own client alone. False: there is none.

        Args:
            datagram: its sender's address may be forged.
        """
        self.expire(now_ms)
        limits, mine = self.limits, self._clients.get(share_of(client, forgeable=datagram), OrderedDict())
        if octets > limits.client_octets_max:
            return False
        while mine and (len(mine) >= limits.client_max or sum(mine.values()) + octets > limits.client_octets_max):
            self._drop(next(iter(mine)))
        if datagram and (
            self._datagrams >= limits.datagrams_max or self._datagrams_octets + octets > limits.datagrams_octets_max
        ):
            return False
        return len(self._offered) < limits.waiting_max and self._octets + octets <= limits.octets_max

    def offer(self, session_id: int, client: str, kept: T, octets: int, now_ms: int, *, datagram: bool = False) -> None:
        """Keep something for which `room` was made; what waited under this number waits no more."""
        if session_id in self._offered:
            self._drop(session_id)
        self._offered[session_id] = Offered(session_id, client, kept, octets, now_ms + self.limits.life_ms, datagram)
        self._clients.setdefault(share_of(client, forgeable=datagram), OrderedDict())[session_id] = octets
        self._octets += octets
        self._datagrams += datagram
        self._datagrams_octets += octets * datagram

    def take(self, session_id: int, client: str, now_ms: int) -> T | None:
        """What an answer speaks of, for this once. None: none waits, its time is over, or it is another client's."""
        self.expire(now_ms)
        found = self._offered.get(session_id)
        if found is None or found.client != client:
            return None
        self._drop(session_id)
        return found.kept

    def expire(self, now_ms: int) -> None:
        while self._offered:
            oldest = next(iter(self._offered.values()))
            if now_ms < oldest.ends_ms <= now_ms + 2 * self.limits.life_ms:  # what ends later is of a clock that was set back
                return
            self._drop(oldest.session_id)

    def _drop(self, session_id: int) -> None:
        gone = self._offered.pop(session_id)
        share = share_of(gone.client, forgeable=gone.datagram)
        mine = self._clients[share]
        self._octets -= mine.pop(session_id)
        self._datagrams -= gone.datagram
        self._datagrams_octets -= gone.octets * gone.datagram
        if not mine:
            del self._clients[share]
