"""A member's disk: one journal for all groups as a list of writes, and images of each group's state machine.

The journal keeps every write ever made, so that any earlier disk can be put in place: power cut = a part of what was not flushed
is there; lost tail = flushed writes are missing; image of yesterday = journal and stores as they were then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from replica.consensus.port import HardState
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import Duties, SnapshotMeta
from replica.model.outcome import LogEntry


@dataclass(frozen=True, slots=True)
class Image:
    """A state machine's state: durable, or on its way to another member."""

    index: int
    term: int
    digest: int
    membership: Membership
    content: dict[bytes, tuple[bytes, ...]]

    @property
    def meta(self) -> SnapshotMeta:
        return SnapshotMeta(self.index, self.term, self.membership)


def born(membership: Membership) -> Image:
    """What a group begins with on a member: a state at index 1, or for one that joins later nothing."""
    return Image(1, 1, 0, membership, {}) if membership.voters else Image(0, 0, 0, membership, {})


@dataclass(slots=True)
class Boot:
    """The journal was opened, or its boot number raised."""

    boot: int


@dataclass(slots=True)
class Save:
    """One durable write of a group's core; `seat` and `life` say who waits for it."""

    group: int
    duties: Duties
    seat: Any = None
    life: int = 0


@dataclass(slots=True)
class Keep:
    """What is remembered of promises, written lazily."""

    group: int
    octets: bytes


@dataclass(slots=True)
class Known:
    """A change of the membership is committed and applied at `index`: all up to there is applied before the next elections."""

    group: int
    index: int


@dataclass(slots=True)
class Truncate:
    """Entries up to `index` are dropped: the store holds them durably."""

    group: int
    index: int


@dataclass(slots=True)
class Hole:
    """Entries from `index` on are unreadable, and the journal's own mark says that they had been flushed."""

    group: int
    index: int


Op = Boot | Save | Keep | Known | Truncate | Hole


@dataclass(slots=True)
class View:
    """What an opening of the journal finds of a group."""

    floor: int = 0
    floor_term: int = 0
    entries: list[LogEntry] = field(default_factory=list)
    hard: HardState = field(default_factory=HardState)
    kept: bytes = b""
    known: int = 0
    lost: str = ""
    flushed: int = 0  # the journal's mark, when `lost`

    @property
    def last(self) -> int:
        return self.floor + len(self.entries)

    def term(self, index: int) -> int | None:
        if index == self.floor:
            return self.floor_term
        return self.entries[index - self.floor - 1].term if self.floor < index <= self.last else None

    def cut_after(self, index: int) -> None:
        del self.entries[max(index - self.floor, 0) :]

    def write(self, op: Save) -> None:
        duties = op.duties
        if duties.snapshot is not None:
            self.floor, self.floor_term, self.lost = duties.snapshot.index, duties.snapshot.term, ""
            self.entries.clear()
        if duties.cut_after is not None:
            self.cut_after(duties.cut_after)
        self.entries.extend(duties.entries)
        self.hard = duties.hard or self.hard

    def damage(self, index: int) -> None:
        """The checksum of a record fails: what follows is no part of the log."""
        self.flushed = self.last
        self.cut_after(index - 1)
        self.lost = f"entries from {index} on had been flushed and are unreadable"

    def truncate(self, index: int) -> None:
        term = self.term(index)
        if index > self.floor and term is not None:
            del self.entries[: index - self.floor]
            self.floor, self.floor_term = index, term


@dataclass(frozen=True, slots=True)
class Found:
    """A whole disk as an opening finds it."""

    boot: int
    views: dict[int, View]
    images: dict[int, Image]


class Disk:
    """What survives a life."""

    view_type = View

    def __init__(self, groups: Sequence[int], starts: dict[int, Membership]) -> None:
        self.flushed: list[Op] = []
        self.pending: list[Op] = []
        self.lying_from: int | None = None  # place in `flushed` from which on nothing really is on the disk
        self.images: dict[int, list[tuple[int, Image]]] = {group: [(0, born(starts[group]))] for group in groups}

    def flush(self, count: int) -> list[Op]:
        """The first `count` pending writes are durable (or so it is said)."""
        done = self.pending[:count]
        self.flushed += done
        del self.pending[:count]
        return done

    def store(self, group: int, image: Image) -> None:
        """The store of a group is durable at `image`."""
        self.images[group].append((len(self.flushed), image))

    def power_cut(self, rng: Random) -> None:
        """Of the pending writes some are there, in order."""
        if self.pending:
            self.flushed += self.pending[: rng.randint(0, len(self.pending))]
            self.pending.clear()

    def found(self, upto: int | None = None, *, stores_too: bool = False) -> Found:
        """What an opening would find with the first `upto` flushed writes; `stores_too`: and stores as they were then."""
        places = {group: self.view_type() for group in self.images}
        boot = 0
        for op in self.flushed[:upto]:
            if isinstance(op, Save):
                places[op.group].write(op)
            elif isinstance(op, Keep):
                places[op.group].kept = op.octets
            elif isinstance(op, Known):
                places[op.group].known = op.index
            elif isinstance(op, Boot):
                boot = op.boot
            elif isinstance(op, Truncate):
                places[op.group].truncate(op.index)
            else:
                places[op.group].damage(op.index)
        limit = upto if stores_too and upto is not None else len(self.flushed) + 1
        images = {group: [image for place, image in kept if place <= limit][-1] for group, kept in self.images.items()}
        return Found(boot, places, images)

    def roll_back(self, upto: int, *, stores_too: bool) -> None:
        """Put an earlier disk in place."""
        del self.flushed[upto:]
        for kept in self.images.values():
            if stores_too:
                kept[:] = [row for row in kept if row[0] <= upto]
            else:
                kept[:] = [(min(place, upto), image) for place, image in kept]
