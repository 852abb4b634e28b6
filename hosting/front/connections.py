"""What a stream listener knows of its connections: how many, what they cost, which have outstayed a limit.

Pure: time is passed in.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Final, Protocol

ROOM_SHARE: Final = 16  # where all places are taken, one in so many is freed at once: looking for one costs as much as for all


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Limits of one stream listener.

    Args:
        connections_max: at once; for a further one those that were silent for longest make room, and where all of them
            have questions under way it is closed.
        in_flight_max: questions of one connection under way; reading stops there and goes on below.
        idle_s_max: a connection without a word and without questions for longer is closed (national SDKs keep
            theirs open for ever and beat with the handle `0`).
        request_s_max: a request must be whole this long after its first octet (slow writers).
        stall_s_max: a peer that does not read its answers for longer is cut off.
        unsent_octets_max: answers one peer may leave unread; `unsent_total_octets_max`: all peers of the listener together.
    """

    connections_max: int = 4_096
    in_flight_max: int = 128
    idle_s_max: float = 600.0
    request_s_max: float = 10.0
    stall_s_max: float = 30.0
    unsent_octets_max: int = 16 * 1024 * 1024
    unsent_total_octets_max: int = 256 * 1024 * 1024


class Swept(Protocol):
    """What the sweep looks at. Times are of one monotonic clock; None: not so now."""

    last_heard_s: float
    partial_since_s: float | None
    stalled_since_s: float | None
    in_flight: int
    unsent_octets: int

    def abort(self) -> None: ...


class Connections:
    """All connections of one listener."""

    def __init__(self, limits: StreamLimits) -> None:
        self.limits = limits
        self.open: set[Swept] = set()
        self.accepted = 0
        self.refused = 0
        self.cut_off: dict[str, int] = {}
        self.unsent_octets = 0

    def admit(self, connection: Swept) -> bool:
        """Count a new connection in, or refuse it."""
        if len(self.open) >= self.limits.connections_max:
            self._make_room()
        if len(self.open) >= self.limits.connections_max:
            self.refused += 1
            return False
        self.accepted += 1
        self.open.add(connection)
        return True

    def _make_room(self) -> None:
        """Whoever comes with a question is served, however many hold connections open and say nothing."""
        idle = [one for one in self.open if not one.in_flight]
        count = max(1, self.limits.connections_max // ROOM_SHARE)
        for one in heapq.nsmallest(count, idle, key=lambda one: one.last_heard_s):
            self.cut("room_for_others", one)
            self.leave(one)

    def leave(self, connection: Swept) -> None:
        self.open.discard(connection)
        self.unsent(connection, 0)

    def unsent(self, connection: Swept, octets: int) -> None:
        """Note how much a peer has left unread; cut it off when that is too much for it alone, or for all together."""
        self.unsent_octets += octets - connection.unsent_octets
        connection.unsent_octets = octets
        if octets > self.limits.unsent_octets_max or (octets and self.unsent_octets > self.limits.unsent_total_octets_max):
            self.cut("unread_answers", connection)

    def cut(self, why: str, connection: Swept) -> None:
        self.cut_off[why] = self.cut_off.get(why, 0) + 1
        connection.abort()

    def sweep(self, now_s: float) -> None:
        """Cut off what outstayed a limit; called every few seconds."""
        limits = self.limits
        for one in list(self.open):
            if one.stalled_since_s is not None and now_s - one.stalled_since_s > limits.stall_s_max:
                self.cut("peer_does_not_read", one)
            elif one.partial_since_s is not None and now_s - one.partial_since_s > limits.request_s_max:
                self.cut("slow_request", one)
            elif not one.in_flight and one.partial_since_s is None and now_s - one.last_heard_s > limits.idle_s_max:
                self.cut("idle", one)
