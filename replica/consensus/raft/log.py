"""Log: saved entries in the storage, and behind them those that no save has made durable yet.

    storage.first_index .. saved | saved + 1 .. given | given + 1 .. last
                                   in saves on their way  not in a save yet

Only what is not saved lives here. An entry may be in a save, be overwritten, and be written again with the same term before
that save returns; so each save on its way knows how far its entries still stand (`SaveMark.last`), and a cut lowers that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from replica.consensus.raft.storage import LogStorage
from replica.consensus.raft.values import SnapshotMeta
from replica.model.errors import require
from replica.model.outcome import LogEntry


class SaveMark:
    """A save on its way: what becomes durable with it.

    Args:
        last: highest index that this save makes durable; lowered when entries are overwritten meanwhile.
        term, vote: durable with it.
    """

    __slots__ = ("last", "number", "snapshot", "term", "vote")

    def __init__(self, number: int, last: int, snapshot: SnapshotMeta | None, term: int, vote: int) -> None:
        self.number = number
        self.last = last
        self.snapshot = snapshot
        self.term = term
        self.vote = vote


def cut_to_octets(entries: Sequence[LogEntry], octets_max: int) -> Sequence[LogEntry]:
    """The first entries within `octets_max` octets together, but at least one."""
    octets = 0
    for count, entry in enumerate(entries):
        octets += len(entry.data)
        if octets > octets_max and count:
            return entries[:count]
    return entries


class Log:
    """See the module. `last` and `last_term` are of the newest entry, saved or not."""

    __slots__ = ("_cut", "_given", "_offset", "_restored", "_restored_given", "_saves", "_storage", "_tail", "last", "last_term")

    def __init__(self, storage: LogStorage) -> None:
        self._storage = storage
        self.last = storage.last_index()
        last_term = storage.term(self.last)
        require(last_term is not None, f"the storage does not know the term of its last entry {self.last}")
        self.last_term = last_term or 0
        self._tail: list[LogEntry] = []
        self._offset = self.last + 1  # index of the first entry of the tail
        self._given = self.last
        self._cut: int | None = None
        self._restored: SnapshotMeta | None = None
        self._restored_given = False
        self._saves: deque[SaveMark] = deque()

    @property
    def saved(self) -> int:
        return self._offset - 1

    @property
    def restoring(self) -> bool:
        """True while a restored state is not saved yet."""
        return self._restored is not None

    @property
    def saving(self) -> bool:
        """True while a save is on its way."""
        return bool(self._saves)

    @property
    def wants_save(self) -> bool:
        return self._given < self.last or self._cut is not None or (self._restored is not None and not self._restored_given)

    @property
    def first(self) -> int:
        return self._storage.first_index() if self._restored is None else self._restored.index + 1

    def snapshot(self) -> SnapshotMeta | None:
        """State to feed a follower from; one below the log's floor is of no use to anybody."""
        meta = self._storage.snapshot()
        return meta if meta is not None and meta.index >= self.first - 1 else None

    def term(self, index: int) -> int | None:
        """Term of an entry or of the floor; None when not known."""
        place = index - self._offset
        if place >= 0:
            return self._tail[place].term if place < len(self._tail) else None
        if self._restored is not None:
            return self._restored.term if index == self._restored.index else None
        return self._storage.term(index)

    def entries(self, first: int, last: int, octets_max: int) -> Sequence[LogEntry]:
        """Entries first..last, all above the floor, until `octets_max` is passed, at least one; none: not at hand now."""
        offset = self._offset
        if first >= offset:
            return cut_to_octets(self._tail[first - offset : last - offset + 1], octets_max)
        if last < offset:
            return self._storage.entries(first, last, octets_max)
        found = self._storage.entries(first, offset - 1, octets_max)
        if len(found) < offset - first:
            return found
        return cut_to_octets([*found, *self._tail[: last - offset + 1]], octets_max)

    def hint_below(self, index: int, term: int) -> tuple[int, int]:
        """Highest (index, term) at or below `index` whose term is at most `term`: a whole foreign term is skipped at once.

        Term 0: the log does not reach that deep.
        """
        while index > 0:
            ours = self.term(index)
            if ours is None:
                return index, 0
            if ours <= term:
                return index, ours
            index -= 1
        return 0, 0

    def append(self, entries: Sequence[LogEntry]) -> None:
        """Add entries behind the last."""
        newest = entries[-1]
        require(entries[0].index == self.last + 1, f"entry {entries[0].index} does not follow {self.last}")
        self._tail.extend(entries)
        self.last, self.last_term = newest.index, newest.term

    def cut_after(self, index: int) -> None:
        """Drop the entries behind `index`; entries that replace them follow at once."""
        if index >= self._offset - 1:
            del self._tail[index + 1 - self._offset :]
        else:
            self._tail.clear()
            self._offset = index + 1
        if self._given > index:
            self._given = index
            self._cut = index if self._cut is None else min(self._cut, index)
        for mark in self._saves:
            mark.last = min(mark.last, index)
        self.last, self.last_term = index, self.term(index) or 0

    def restore(self, meta: SnapshotMeta) -> None:
        """Drop everything: the log begins after `meta`."""
        self._tail.clear()
        self._offset = meta.index + 1
        self._given = self.last = meta.index
        self.last_term = meta.term
        self._cut = None
        self._restored, self._restored_given = meta, False
        for mark in self._saves:
            mark.last = 0

    def take(self, number: int, term: int, vote: int) -> tuple[SaveMark, int | None, Sequence[LogEntry]]:
        """What the next save must write: its mark (with the restored state, if any), where to cut, entries."""
        snapshot = None if self._restored_given else self._restored
        cut, entries = self._cut, self._tail[self._given + 1 - self._offset :]
        self._restored_given = self._restored is not None
        self._cut = None
        self._given = self.last
        mark = SaveMark(number, self.last, snapshot, term, vote)
        self._saves.append(mark)
        return mark, cut, entries

    def save_returned(self, number: int) -> SaveMark:
        """Take note of a durable save; its entries are read from the storage from now on."""
        require(bool(self._saves) and self._saves[0].number == number, f"save {number} is not the next one on its way")
        mark = self._saves.popleft()
        if mark.snapshot is not None and mark.snapshot is self._restored:
            self._restored = None
            self._restored_given = False
        if mark.last >= self._offset:
            del self._tail[: mark.last + 1 - self._offset]
            self._offset = mark.last + 1
        return mark
