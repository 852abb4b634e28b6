"""One group on a member's host, and the ports through which a host reaches other members."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from replica.consensus.group import GroupLog
from replica.consensus.hello import Recall, Standing
from replica.consensus.raft.membership import Membership
from replica.consensus.silence import Contacts
from replica.consensus.wire import voters_from_wire, voters_to_wire
from replica.model.position import Position
from replica.v1 import peer_pb2


class HostLinks(Protocol):
    """The way to other members. `send` never blocks and may lose what it is given."""

    def send(self, member: int, message: peer_pb2.GroupMessage) -> bool: ...

    def send_table(self, member: int, table: peer_pb2.FreshnessTable) -> bool: ...

    @property
    def connected(self) -> frozenset[int]: ...


@dataclass(frozen=True, slots=True)
class Offer:
    """Content that another member may fetch: the state at (index, term), under the name `transfer` (16 octets)."""

    index: int
    term: int
    transfer: bytes


@dataclass(slots=True)
class Offered:
    """What was offered to a member, and when it was said first and last, by the loop's clock."""

    wire: peer_pb2.GroupMessage
    first_s: float
    said_s: float


class MemberFiles(Protocol):
    """How a group's content travels between members; see replica/transfer."""

    async def offer(self) -> Offer:
        """Pin the content as it is now. Raises ZaibeiError."""
        ...

    async def fetch(self, member: int, offer: Offer) -> None:
        """Bring an offer's files here, verified, beside the live ones; resumes an earlier try. Raises ZaibeiError."""
        ...

    def install(self, offer: Offer) -> tuple[int, int]:
        """Switch to what was fetched; blocks, in a thread; nothing is applied meanwhile. Returns the (index, term) it stands at.
        Raises ZaibeiError: nothing was switched."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """What the leader of a group said of it: how its log stands. `at_ns`: when, by our clock."""

    leader: int
    at_ns: int
    row: peer_pb2.Freshness


@dataclass(slots=True)
class Heard:
    """What a group hears of its source and tells the members that do not: see replica.feed.freshness.CopyAge."""

    newest: Callable[[], tuple[Position, int] | None] = lambda: None
    told: Callable[[Position, int], None] = lambda _head, _base_ns: None
    compared: Callable[[], int | None] = lambda: None  # when content was last found equal to the source's certificate
    compared_told: Callable[[int | None], None] = lambda _base_ns: None


@dataclass(slots=True)
class Hosted:
    """One group on this host."""

    ident: int
    log: GroupLog
    files: MemberFiles | None
    heard: Heard
    octets: Callable[[], int] = lambda: 0
    recall: Recall | None = None  # None until it was started
    contacts: Contacts = field(default_factory=Contacts)
    asleep: bool = False
    hungry: bool = False  # its store needs another member's state, whatever its log holds
    busy_ns: int = 0  # when something last happened
    added_ns: int = 0  # when it was taken on
    amnesiac: set[int] = field(default_factory=set)  # members that said they forgot, while we lead
    fetching: asyncio.Task[None] | None = None
    offering: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    offered: dict[int, Offered] = field(default_factory=dict)  # by member: not answered yet
    pinned: dict[int, int] = field(default_factory=dict)  # member -> index from which it needs the journal
    needed_since_ns: dict[int, int] = field(default_factory=dict)
    told_membership: tuple[int, Membership] = (0, Membership())  # the newest committed one, as others told us

    def halves(self) -> list[frozenset[int]]:
        """Of whom a majority must be heard at a start: the newest membership known to be committed, here or at another member."""
        _, membership = max(self.log.membership_as_of, self.told_membership, key=lambda one: one[0])
        return [membership.voters, membership.outgoing]

    def reminder(self, recall: Recall) -> peer_pb2.GroupMessage:
        """REMINDED, but for its promises: who asks may know members that are gone, and would wait for them for ever."""
        forgot = recall.standing is Standing.AMNESIAC
        kind = peer_pb2.GroupMessage.KIND_REMINDED
        answer = peer_pb2.GroupMessage(group=self.ident, kind=kind, term=self.log.hard_term, reject=forgot)
        place, membership = self.log.membership_as_of
        if place and membership.voters and not forgot:
            answer.index = place
            answer.voters.CopyFrom(voters_to_wire(membership))
        return answer

    def learn_membership(self, message: peer_pb2.GroupMessage) -> None:
        """From a REMINDED."""
        if message.HasField("voters") and message.index > self.told_membership[0]:
            self.told_membership = (message.index, voters_from_wire(message.voters))
