"""LogStorage: what the core reads of its saved log, and MemoryStorage, the twin of tests and simulations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import SnapshotMeta
from replica.model.errors import require
from replica.model.outcome import LogEntry


class LogStorage(Protocol):
    """The saved log. The core only reads it; it must show a save at the latest when `core.saved` is called for it.

    Held are first_index..last_index; the entry before the first is known by its term alone (the floor). An empty log has
    last_index = first_index - 1.
    """

    def first_index(self) -> int:
        """First held index, >= 1."""
        ...

    def last_index(self) -> int: ...

    def term(self, index: int) -> int | None:
        """Term of a held entry or of the floor (0 of index 0); None when not known here."""
        ...

    def entries(self, first: int, last: int, octets_max: int) -> Sequence[LogEntry]:
        """Entries first..last, both held, cut short once `octets_max` is passed; at least one.

        Empty: they are not at hand at this moment (they are read from the disk). The core then goes on without them, and asks
        again after `core.entries_at_hand()`, or at the next heartbeat's reply.
        """
        ...

    def snapshot(self) -> SnapshotMeta | None:
        """State that a follower can be fed from, at or above the floor; None: none yet, ask again later."""
        ...


class MemoryStorage:
    """The twin of a member's journal, as the core reads it. Writing methods follow `Duties`, in its order."""

    def __init__(self, meta: SnapshotMeta | None = None) -> None:
        """Args: meta: where the log begins; None: an empty log from index 1."""
        self._meta = meta or SnapshotMeta(0, 0, Membership())
        self._floor = self._meta.index
        self._floor_term = self._meta.term
        self._entries: list[LogEntry] = []

    def first_index(self) -> int:
        return self._floor + 1

    def last_index(self) -> int:
        return self._floor + len(self._entries)

    def term(self, index: int) -> int | None:
        place = index - self._floor - 1
        if place == -1:
            return self._floor_term
        if not 0 <= place < len(self._entries):
            return None
        return self._entries[place].term

    def entries(self, first: int, last: int, octets_max: int) -> Sequence[LogEntry]:
        require(self._floor < first <= last <= self.last_index(), f"entries {first}..{last} are not held")
        found = self._entries[first - self._floor - 1 : last - self._floor]
        octets = 0
        for count, entry in enumerate(found):
            octets += len(entry.data)
            if octets > octets_max and count:
                return found[:count]
        return found

    def snapshot(self) -> SnapshotMeta | None:
        return self._meta if self._meta.index else None

    def restart_at(self, meta: SnapshotMeta) -> None:
        """Drop all entries: the log begins after `meta`."""
        self._meta = meta
        self._floor, self._floor_term = meta.index, meta.term
        self._entries.clear()

    def cut_after(self, index: int) -> None:
        """Drop the entries behind `index`."""
        require(index >= self._floor, f"a cut after {index} is below the floor {self._floor}")
        del self._entries[index - self._floor :]

    def append(self, entries: Sequence[LogEntry]) -> None:
        """Add entries that follow the last one."""
        if entries:
            require(entries[0].index == self.last_index() + 1, f"entry {entries[0].index} does not follow {self.last_index()}")
            self._entries.extend(entries)

    def keep_snapshot(self, meta: SnapshotMeta) -> None:
        """Say from which state a follower can be fed now."""
        require(self._floor <= meta.index <= self.last_index(), f"a state at {meta.index} is outside the log")
        self._meta = meta

    def compact(self, index: int) -> None:
        """Drop entries up to `index`; a state at or above it must be kept before. An index at or below the floor is ignored."""
        if index <= self._floor:
            return
        require(index <= self._meta.index, f"no state at or above {index} is kept that a follower could be fed from")
        self._floor_term = self.term(index) or 0
        del self._entries[: index - self._floor]
        self._floor = index
