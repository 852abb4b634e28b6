"""Values the core speaks: messages, memberships, duties, its settings and its errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from random import Random

from replica.consensus.port import HardState
from replica.consensus.raft.membership import Membership
from replica.model.outcome import LogEntry

MemberId = int
NOBODY: MemberId = 0


class Kind(IntEnum):
    """Kinds of messages between members; numbers as in proto/replica/v1/peer.proto."""

    APPEND = 1
    APPEND_REPLY = 2
    HEARTBEAT = 3
    HEARTBEAT_REPLY = 4
    VOTE = 5
    VOTE_REPLY = 6
    PRE_VOTE = 7
    PRE_VOTE_REPLY = 8
    SNAPSHOT = 9
    TIMEOUT_NOW = 10
    READ_INDEX = 11
    READ_INDEX_REPLY = 12
    TRANSFER = 13


class Role(StrEnum):
    """What a member is in its term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"  # asks whether it could win, in the next term, without entering it
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """Which state a transfer carries: all entries up to `index` (of `term`) are in it; `membership` is the one in force there."""

    index: int
    term: int
    membership: Membership


@dataclass(slots=True)
class Message:
    """A message of one group between two members. Made once, never changed after it was handed out.

    Meanings by kind:
        APPEND          index, log_term: entry before `entries`; commit: leader's commit.
        APPEND_REPLY    index: last matched entry; when `reject`: the refused one, with hint (an index) and log_term (its term).
        HEARTBEAT       commit: at most what the follower matched; context: read round, echoed.
        VOTE, PRE_VOTE  index, log_term: the candidate's last entry; campaign_transfer: the leader asked for it, so that its lease
                        does not count. PRE_VOTE carries the term that would follow; so does the reply that grants it.
        All four of an election, but a grant: commit and hint, the term of that entry: what the sender knows to be committed.
        SNAPSHOT        snapshot. (`hint`: the sender, when it does not lead; that one is the host's, and no core is told of it.)
        READ_INDEX      context: the asker's own; term 0.     READ_INDEX_REPLY  index, context.
        TRANSFER        hint: who shall lead; term 0.         TIMEOUT_NOW       start an election at once.
    """

    kind: Kind
    to: MemberId = 0
    sender: MemberId = 0
    term: int = 0
    log_term: int = 0
    index: int = 0
    entries: Sequence[LogEntry] = ()
    commit: int = 0
    reject: bool = False
    hint: int = 0
    context: bytes = b""
    snapshot: SnapshotMeta | None = None
    campaign_transfer: bool = False


@dataclass(frozen=True, slots=True)
class Soft:
    """Who leads and what this member is: nothing that must be kept."""

    leader: MemberId
    role: Role


@dataclass(frozen=True, slots=True)
class Read:
    """A read that may be answered as soon as `index` is applied: the answer is then linearizable."""

    context: bytes
    index: int


@dataclass(slots=True)
class Duties:
    """What the caller must do, in this order.

    1. Send `send_now`.
    2. If `number` > 0: save in ONE durable write, after all earlier saves: restart the log at `snapshot`, or drop entries behind
       `cut_after`; then `entries`; then `hard`. A save may be empty: then it only waits for those before it. Further duties may
       be taken before it returned; saves finish in order.
    3. When that save is durable and the storage shows it: call `core.saved(number)` and send `send_after_save`.
    4. Apply `committed` in order (all of it is saved); for an entry of kind MEMBERSHIP call `core.apply_change(entry)`; then
       `core.applied(last index)`.
    5. Answer `reads` once their index is applied; take note of `soft`.

    Args:
        number: of the save; 0: nothing to save and nothing to wait for (`send_after_save` is empty).
        snapshot: the state named here was installed by the caller before it stepped the message; the log begins after it.
        cut_after: None: nothing to drop. Always below the first of `entries`.
        hard: None: unchanged. A change of commit alone never asks for a save.
        committed: at most `committed_octets_max` of entries a call; there may be more.
        soft: None: unchanged.
    """

    number: int = 0
    send_now: Sequence[Message] = ()
    snapshot: SnapshotMeta | None = None
    cut_after: int | None = None
    entries: Sequence[LogEntry] = ()
    hard: HardState | None = None
    send_after_save: Sequence[Message] = ()
    committed: Sequence[LogEntry] = ()
    reads: Sequence[Read] = ()
    soft: Soft | None = None


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """Settings of one group's core on one member.

    Args:
        member: own number, >= 1.
        random: source of chance, for election timeouts alone.
        election_ticks: a follower that hears nothing for this long, plus a random part of as much again, asks for votes; a leader
            that hears no quorum within it steps down. Several heartbeat_ticks, else a lost heartbeat deposes a leader.
        heartbeat_ticks: ticks between heartbeats, >= 1.
        pre_vote: ask whether an election could be won before raising the term.
        check_quorum: a leader without a quorum steps down, and members that hear a leader protect it from candidates.
        append_octets_max: octets of entries in one APPEND; one entry always goes.
        inflight_messages_max, inflight_octets_max: APPENDs on their way to one follower before its flow pauses.
        committed_octets_max: octets of entries handed out to apply in one Duties.
        reads_waiting_max: reads a leader keeps waiting; more are refused.
        first_entry: data of the entry a new leader writes to commit what came before it.
    """

    member: MemberId
    random: Random
    election_ticks: int = 10
    heartbeat_ticks: int = 2
    pre_vote: bool = True
    check_quorum: bool = True
    append_octets_max: int = 64 * 1024
    inflight_messages_max: int = 256
    inflight_octets_max: int = 16 * 1024 * 1024
    committed_octets_max: int = 4 * 1024 * 1024
    reads_waiting_max: int = 10_000
    first_entry: bytes = b""

    def __post_init__(self) -> None:
        if self.member < 1:
            raise ValueError("a member's number is at least 1; 0 means nobody")
        if not 1 <= self.heartbeat_ticks < self.election_ticks:
            raise ValueError("heartbeat_ticks must be at least 1 and below election_ticks")
        if min(self.append_octets_max, self.inflight_messages_max, self.inflight_octets_max, self.committed_octets_max) < 1:
            raise ValueError("limits of octets and messages must be at least 1")


@dataclass(frozen=True, slots=True)
class CoreStart:
    """What a member knows when it starts.

    Args:
        hard: term, vote and commit as saved.
        membership: in force at `applied`; empty: this member waits to be told.
        applied: index up to which the state machine stands.
    """

    hard: HardState = field(default_factory=HardState)
    membership: Membership = field(default_factory=Membership)
    applied: int = 0


class CoreError(Exception):
    """Base of what the core raises on a call that cannot be served; nothing was done."""


class NotLeader(CoreError):
    """This member does not lead. `leader`: who does, as far as known; 0: not known."""

    def __init__(self, leader: MemberId) -> None:
        super().__init__(f"not the leader; ask member {leader}" if leader else "not the leader; no leader is known")
        self.leader = leader


class Dropped(CoreError):
    """The call is refused at this moment; again later. `reason`: one sentence for a person."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
