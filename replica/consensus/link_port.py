"""Ports between a member's groups and the links to other members, and the values they speak; `link_memory.py` holds the twin.

Every member keeps one call to each other member open and sends on its own call alone; what comes in comes on the other's call.

    standing   our call stands  its call stands  send    told to the ears
    UP         yes              yes or no        goes    connected; messages come as soon as its call stands too
    HEARD      no               yes              False   connected (its Hello came on its call)
    AWAY       no               no               False   lost, once

`lost` follows our own call: when it breaks, or is not answered, the member is lost although its call may still stand. Messages
that come on such a call are handed up; a new Hello or our own call brings `connected` again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from replica.consensus.port import ENTRY_OCTETS_MAX
from replica.model.errors import require
from replica.v1 import peer_pb2

ID_OCTETS = 16  # of a cluster, a lineage and a journal
GRPC_OCTETS_MAX = 4 * 1024 * 1024  # of one LinkMessage as gRPC takes it, both ways
LINK_OCTETS_MAX = 3 * 1024 * 1024  # of one LinkMessage as we take it: a Hello, or a message with its entries
MESSAGE_OCTETS_MAX = LINK_OCTETS_MAX - 64  # of one GroupMessage; an append is at most its limit and one entry more
BATCH_OCTETS_MAX = 64 * 1024  # messages that leave together; one message always goes

require(MESSAGE_OCTETS_MAX > 2 * ENTRY_OCTETS_MAX, "the largest append fits a link")

Table = peer_pb2.FreshnessTable | peer_pb2.ProbeTable


class Reason(StrEnum):
    """Why a call or a message of another member was refused; they travel in metrics, never rename one."""

    CERTIFICATE = "certificate"  # no member's
    CLUSTER = "cluster"
    LINEAGE = "lineage"
    MEMBER = "member"  # another number or name than its certificate's
    OURSELVES = "ourselves"  # our own number
    JOURNAL = "journal"  # a number with two journals, or a journal with two numbers
    FORMAT = "format"
    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    UNEXPECTED = "unexpected"  # not what may come here: no Hello first, messages among answers
    SILENT = "silent"  # no Hello in time


class Refused(Exception):
    """What the other side said is not taken; nothing of it was applied. `text`: who is at fault and the next step."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason, self.text = reason, text


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """How long a link waits and how much it holds.

    Args:
        beat_ms: between beats, and between looks at what is silent.
        silent_ms_max: a member that answers nothing for so long is lost.
        slow_ms_max: the same while much of ours is on its way to it and it is heard on its own call: a slow line is no dead one.
        late_ms_max: a look may come so long after its time; of one that is later the whole delay counts as our own silence.
        hello_ms_max: until a new call has connected and shown its Hello; twice as long after each time that it did not suffice,
            up to hello_ms_slow: on a busy machine members must come together all the same.
        backoff_ms_min, backoff_ms_max: pause before calling again, doubled each time, shortened at random by up to a half.
        queue_octets_max, queue_messages_max: what may wait for one member; more is dropped, for groups send again.
    """

    beat_ms: int = 100
    silent_ms_max: int = 1_000
    slow_ms_max: int = 10_000
    late_ms_max: int = 100
    hello_ms_max: int = 1_000
    hello_ms_slow: int = 4_000
    backoff_ms_min: int = 20
    backoff_ms_max: int = 500
    queue_octets_max: int = 32 * 1024 * 1024
    queue_messages_max: int = 16_384

    def __post_init__(self) -> None:
        require(0 < self.beat_ms < self.silent_ms_max <= self.slow_ms_max, "a link's beat is shorter than its silence")
        require(0 < self.backoff_ms_min <= self.backoff_ms_max, "a link's back-off rises")
        require(min(self.queue_octets_max, self.queue_messages_max, self.hello_ms_max) > 0, "a link's limits are positive")
        require(self.hello_ms_max <= self.hello_ms_slow, "a slow Hello may take longer")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member is reached.

    Args:
        addresses: `host:port`, IPv6 as `[::1]:port`; tried in turn.
        journal: its journal's identity where it is known for sure, 16 octets; empty: the first one it shows counts.
    """

    addresses: tuple[str, ...]
    journal: bytes = b""


@dataclass(frozen=True, slots=True)
class LinkKeys:
    """Our own TLS key and certificate, and which certificates may call us at all. `key_pem` is secret."""

    certificate_pem: bytes
    key_pem: bytes
    roots_pem: bytes

    def __repr__(self) -> str:
        return "LinkKeys(...)"


@dataclass(frozen=True, slots=True)
class Answerer:
    """The one certificate that can answer our call, with its issuers where it has any."""

    certificate_pem: bytes
    issuers_pem: bytes = b""


class MemberTrust(Protocol):
    """Who is a member, by certificate alone. Asked at each new connection and again while it stands, so it may change."""

    def member_of(self, chain_pem: Sequence[bytes]) -> tuple[int, str]:
        """Number and name of the member that presented these certificates, its own first.

        Raises:
            ZaibeiError(NOT_AUTHORISED, MALFORMED): they are no member's, ended or revoked; says which.
        """
        ...

    async def answerer(self, member: int, address: str) -> Answerer:
        """The certificate of this very member, with which it answers at an address.

        Raises:
            ZaibeiError(NOT_AUTHORISED): it is not known, or another one answers there. UNREACHABLE: nobody does.
        """
        ...

    def credentials(self) -> LinkKeys:
        """What counts now. Any thread."""
        ...


class LinkEars(Protocol):
    """What the links tell the member's groups; called on the event loop, must not block. An exception breaks them for good."""

    def connected(self, member: int, hello: peer_pb2.Hello) -> None:
        """A checked Hello that was not told before: at a new connection, after `lost`, or because something in it changed."""
        ...

    def lost(self, member: int, why: str) -> None:
        """Our call broke or is not answered; at once when its process died, after `silent_ms_max` when frozen or cut off."""
        ...

    def received(self, member: int, messages: Sequence[peer_pb2.GroupMessage]) -> None:
        """Checked messages in the order sent; `wire.py` makes them the core's. Their groups may be unknown to us."""
        ...

    def freshness(self, member: int, table: peer_pb2.FreshnessTable) -> None: ...

    def probes(self, member: int, table: peer_pb2.ProbeTable) -> None: ...


class Links(Protocol):
    """Links to all other members. All calls on the event loop."""

    @property
    def connected(self) -> frozenset[int]:
        """Members to which `send` goes at present."""
        ...

    @property
    def failure(self) -> Exception | None:
        """What the ears raised: a fault of ours after which nothing is handed up any more; the process must stop."""
        ...

    def start(self) -> None:
        """Begin to call. Calls of others are taken from the start on too."""
        ...

    def set_places(self, places: Mapping[int, Place]) -> None:
        """All other members (our own is left out if it is there). Who is gone is called no more and its journal forgotten."""
        ...

    def hello_changed(self) -> None:
        """Tell our Hello again on all calls, if it differs from the one told last; with another boot number calls begin anew."""
        ...

    def send(self, member: int, message: peer_pb2.GroupMessage) -> bool:
        """Send, with all else of this turn of the event loop; never blocks. The message may be changed afterwards.

        Returns:
            False: the member is not connected or its queue is full; the message is gone. True promises nothing either.
        """
        ...

    def send_table(self, member: int, table: Table) -> bool:
        """Send a table; a newer one of its kind takes the place of one that still waits. False: not connected.

        A freshness table gets `echo_ns`: it left after the receiver's beat with that stamp, however long it is on its way.
        """
        ...

    def trouble(self, member: int) -> str:
        """Why the member is not connected, for a person; "" when it is."""
        ...

    async def stop(self) -> None:
        """End all calls; nothing is told to the ears any more. Idempotent."""
        ...
