"""Ports of this room and the values they speak. `memory.py` holds a twin of each; one contract test runs on both.

Ladder of one group's indexes (openraft's idea: one picture, always true):

    floor <= durable_applied <= applied <= committed <= last
    journal holds floor+1 .. last; `committed` = on disk on a majority; `flushed mark` <= committed, written lazily.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from replica.model.errors import ZaibeiError, require
from replica.model.outcome import LogEntry, Outcome, Proposal
from replica.v1 import entry_pb2

ENTRY_OCTETS_MAX = 1024 * 1024  # RAFT.md rule 5; a whole batch and its judgements fit
KEPT_MEMBERSHIP = b"c"  # u64 index | the membership that holds from there on
KEPT_MEMORY = b"w"  # what is remembered of others' promises (hello.py)
KEPT_COMMIT = b"k"  # u64 index that was known to be committed
KEPT_KINDS = (KEPT_MEMBERSHIP, KEPT_MEMORY, KEPT_COMMIT)


class StateMachine(Protocol):
    """What committed entries are applied to; `replica.store.SourceStore` is one."""

    def applied(self) -> tuple[int, int]:
        """(index, term) as stored with the data; (0, 0) when nothing was applied. Any thread."""
        ...

    def durable_applied(self) -> int:
        """Index that was applied before a memtable flush that returned. Any thread."""
        ...

    def keep_from(self) -> int | None:
        """Entries from this index on must stay in the journal (a side generation loads); None: no wish. Any thread."""
        ...

    def apply(self, entries: Sequence[LogEntry]) -> list[Outcome]:
        """Apply in order, on the apply thread. We hand over one entry a call, so that BUSY never leaves half a call applied.

        Raises:
            ZaibeiError(BUSY or DISK_FULL, retry): nothing was applied; the same entry comes again after a short wait.
            ZaibeiError(other): the group goes out of service.
        """
        ...

    def flush(self) -> int:
        """Make what is applied durable; returns durable_applied. May take long; not on the apply thread, may overlap `apply`."""
        ...


class GroupPhase(StrEnum):
    """Life of a group's log in this process."""

    NEW = "new"
    REPLAYING = "replaying"  # entries the store lacks are applied
    FOLLOWING = "following"  # another member leads, or nobody does
    ELECTING = "electing"  # first entry of the own term is on its way; nothing is admitted yet
    LEADING = "leading"
    OUT_OF_SERVICE = "out_of_service"  # this group's data cannot be trusted or the journal failed
    STOPPING = "stopping"
    STOPPED = "stopped"


GROUP_MOVES: dict[GroupPhase, frozenset[GroupPhase]] = {
    GroupPhase.NEW: frozenset({GroupPhase.REPLAYING, GroupPhase.OUT_OF_SERVICE, GroupPhase.STOPPED}),
    GroupPhase.REPLAYING: frozenset({GroupPhase.FOLLOWING, GroupPhase.ELECTING, GroupPhase.OUT_OF_SERVICE, GroupPhase.STOPPING}),
    GroupPhase.FOLLOWING: frozenset({GroupPhase.ELECTING, GroupPhase.OUT_OF_SERVICE, GroupPhase.STOPPING}),
    GroupPhase.ELECTING: frozenset({GroupPhase.LEADING, GroupPhase.FOLLOWING, GroupPhase.OUT_OF_SERVICE, GroupPhase.STOPPING}),
    GroupPhase.LEADING: frozenset({GroupPhase.FOLLOWING, GroupPhase.OUT_OF_SERVICE, GroupPhase.STOPPING}),
    GroupPhase.OUT_OF_SERVICE: frozenset({GroupPhase.STOPPED}),
    GroupPhase.STOPPING: frozenset({GroupPhase.STOPPED, GroupPhase.OUT_OF_SERVICE}),
    GroupPhase.STOPPED: frozenset(),
}


def check_group_move(old: GroupPhase, new: GroupPhase) -> None:
    """Raises InvariantBroken when the move is not in GROUP_MOVES."""
    require(new in GROUP_MOVES[old], f"a group cannot move from {old} to {new}")


@dataclass(frozen=True, slots=True)
class StartReport:
    """What a group found when it started.

    Args:
        replayed: entries applied again from the journal.
        term: the new term.
        warning: for a person, "" when all is well: what was cut or lost, and what it means. Never swallow it: alarm.
        loss_possible: entries that were acknowledged may be missing; the source must be asked from the applied position.
    """

    group: str
    term: int
    replayed: int
    warning: str = ""
    loss_possible: bool = False


class Consensus(Protocol):
    """The consensus port: a group's log as its users see it. All calls on the event loop."""

    @property
    def group(self) -> str: ...

    @property
    def phase(self) -> GroupPhase: ...

    @property
    def leader(self) -> bool:
        """True when proposals are admitted here: the own term's first entry is applied."""
        ...

    @property
    def term(self) -> int: ...

    @property
    def pressure(self) -> bool:
        """True when intake should give credit 0. Rises before proposals are refused, falls with hysteresis."""
        ...

    @property
    def failure(self) -> ZaibeiError | None:
        """Why the group is out of service."""
        ...

    async def start(self) -> StartReport:
        """Replay what the store lacks; a group of one member then commits and applies the first entry of a new term, a member
        of a larger one follows or leads as the elections have it.

        Raises:
            ZaibeiError(DAMAGED): acknowledged entries are missing; says which, and the command that heals it.
            ZaibeiError(other): as the journal or the store failed.
        """
        ...

    def propose(self, entry: entry_pb2.Entry | bytes) -> Proposal:
        """Append an entry; returns at once. `committed` ends with its index once it is on disk on a majority, `applied`
        with its outcome.

        Raises:
            ZaibeiError: BUSY, DISK_FULL (again later); STOPPING, DISK_FAILED, DAMAGED, UNREACHABLE (not leader); MALFORMED
                (over ENTRY_OCTETS_MAX). Nothing was appended.
        """
        ...

    async def stop(self) -> None:
        """Finish what is in flight within a bounded time; what is left ends UNKNOWN. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class HardState:
    """What a member must never forget of a group's elections.

    Args:
        vote: number of the member that got our vote in `term`; 0: none.
        commit: known to be committed; a hint that is not kept over a restart.
        boot: number of the journal's opening that wrote it.
    """

    term: int = 0
    vote: int = 0
    boot: int = 0
    commit: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows behind a gap or a damaged record; they are no part of the log. Their rows stay until the group starts soundly.

    Args:
        first_missing: index that is missing or unreadable.
        reason: for a person.
        rows: sound or unsound rows found from there on; highest: the highest index among them (0: none).
    """

    first_missing: int
    reason: str
    rows: int = 0
    highest: int = 0


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the journal holds of a group after it was walked.

    Args:
        known: False when the journal has never heard of the group.
        floor: last entry dropped behind the store; the log begins after it.
        last: last sound entry (= floor when there is none).
        flushed: durable mark: all up to here had been flushed, and so may have been acknowledged.
        spans: (first index, term) ascending: terms of floor+1..last.
        kept: rows a group keeps beside its log, by their kind; see KEPT_KINDS.
    """

    known: bool = False
    floor: int = 0
    floor_term: int = 0
    last: int = 0
    flushed: int = 0
    hard: HardState = field(default_factory=HardState)
    cut: Cut | None = None
    spans: tuple[tuple[int, int], ...] = ()
    kept: Mapping[bytes, bytes] = field(default_factory=dict)

    def term_at(self, index: int) -> int | None:
        """Term of a held entry (or of the floor); None when not held."""
        if index == self.floor:
            return self.floor_term
        if not self.floor < index <= self.last:
            return None
        return max((span for span in self.spans if span[0] <= index), default=(0, 0))[1]

    @property
    def last_term(self) -> int:
        return self.spans[-1][1] if self.spans else self.floor_term


class JournalListener(Protocol):
    """What a journal tells a group; called on the journal's thread."""

    def flushed(self, index: int) -> None:
        """All entries up to `index` are on disk."""
        ...

    def saved(self, number: int) -> None:
        """The save of that number, and all before it, is on disk; said before `flushed`."""
        ...

    def refused(self, error: ZaibeiError) -> None:
        """The journal failed for good; what was not flushed has an unknown outcome."""
        ...


class GroupJournal(Protocol):
    """A group's part of the journal. Calls return at once unless said; order of calls is order on disk."""

    @property
    def recovered(self) -> Recovered:
        """What was found at open."""
        ...

    @property
    def octets(self) -> int:
        """Octets of entries held, about."""
        ...

    def append(self, entries: Sequence[LogEntry], hard: HardState | None = None, save: int = 0) -> None:
        """Append entries (or none) that follow the last one, with a hard state in the same write. `saved(save)` follows unless
        it is 0, and `flushed` when there were entries."""
        ...

    def keep(self, kind: bytes, octets: bytes) -> None:
        """Keep a row beside the log (KEPT_KINDS): written with the next flush, in order with all else."""
        ...

    def restart_at(self, index: int, term: int) -> None:
        """Drop all entries; the log now begins after `index`."""
        ...

    def term_at(self, index: int) -> int | None:
        """Term of a held entry or of the floor; None: not held."""
        ...

    @property
    def floor(self) -> int:
        """Last entry dropped behind the store; the log begins after it."""
        ...

    @property
    def last(self) -> int:
        """Last entry that was appended, flushed or not."""
        ...

    def cut_after(self, index: int) -> None:
        """Drop all rows behind `index`, those behind a gap too."""
        ...

    def truncate(self, index: int) -> None:
        """Drop entries up to `index`: the store holds them durably. An index below the floor or above the last is ignored."""
        ...

    def index_keeping(self, octets: int) -> int:
        """Highest index behind which about so many octets of entries are held; the floor when there are fewer."""
        ...

    def read(self, first: int, octets_max: int) -> list[LogEntry]:
        """Entries from `first` on that are on disk, at least one, until `octets_max` is passed; blocks, any thread. What a
        `cut_after` takes away while this runs may still be among them.

        Raises:
            ZaibeiError(NOT_FOUND): `first` is not held, or not on disk yet; DAMAGED: a record fails its checks.
        """
        ...


class JournalPort(Protocol):
    """A member's journal as groups see it."""

    @property
    def boot(self) -> int:
        """Number of this opening; rises by one each time."""
        ...

    @property
    def identity(self) -> bytes:
        """16 random octets, made with the journal."""
        ...

    @property
    def failed(self) -> ZaibeiError | None:
        """Set for good after a failed flush or write: the process must stop."""
        ...

    @property
    def refusal(self) -> ZaibeiError | None:
        """Why nothing is admitted at this moment (DISK_FULL, BUSY, DISK_FAILED); None: go on."""
        ...

    def attach(self, group: str, listener: JournalListener) -> GroupJournal:
        """A group's part; gives it a number that is never used again when it is new.

        Raises:
            ZaibeiError: the journal failed.
        """
        ...


class LaneListener(Protocol):
    """What the apply thread tells a group; called on that thread."""

    def applied(self, last: LogEntry, outcomes: Sequence[Outcome], octets: int) -> None:
        """Outcomes of the next entries in order; the last of them; their octets together."""
        ...

    def busy(self, waiting: bool) -> None:
        """The machine asked to wait (True), or went on (False)."""
        ...

    def rewound(self, index: int) -> None:
        """The machine was reopened after a full disk and stands at `index`: what follows must be submitted again."""
        ...

    def broken(self, error: ZaibeiError) -> None:
        """The machine cannot go on; nothing more is applied in this lane."""
        ...


Reopen = Callable[[], tuple[int, int] | None]
"""Called on the apply thread before an entry that met DISK_FULL is tried again. A database that met a disk error stays failed
until it is reopened (DESIGN 5, trap d): then this returns the (index, term) it stands at now; None: it had not failed. Raises
ZaibeiError: DISK_FULL (again later) or why the group ends."""


class Lane(Protocol):
    """A group's place at the apply thread. `waits`: why its machine asked to wait; None while it goes on."""

    waits: ZaibeiError | None

    def submit(self, entries: Sequence[LogEntry]) -> None: ...

    def close(self) -> None:
        """No more calls of the machine after the one that runs now."""
        ...

    def wait_idle(self) -> None:
        """After `close`: wait until the call that runs now is over; blocks."""
        ...


class ApplyPort(Protocol):
    """The member's apply thread as groups see it."""

    def lane(self, machine: StateMachine, listener: LaneListener, reopen: Reopen | None = None) -> Lane: ...
