"""A group's log on a simulated member, as the core reads it and as the checks see it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from replica.consensus.raft.values import Duties, SnapshotMeta
from replica.model.outcome import LogEntry
from tests.simulation.raft.checks import Violation
from tests.simulation.raft.disk import Image, View

CHUNK = 8  # entries that one reading brings


class Log:
    """Satisfies LogStorage; also the mirror of the core's whole log, saved or not, for the checks.

    Args:
        fetch: asked for entries behind the newest `tail` ones, which are not at hand until `fetched` is called; None: all are.
    """

    __slots__ = ("_chunks", "feed", "fetch", "floor", "floor_term", "rows", "tail")

    def __init__(self, view: View, tail: int = 0, fetch: Callable[[int], None] | None = None) -> None:
        self.floor, self.floor_term = view.floor, view.floor_term
        self.rows: list[LogEntry] = list(view.entries)
        self.feed: Image | None = None
        self.tail, self.fetch = tail, fetch
        self._chunks: deque[tuple[int, int]] = deque(maxlen=4)  # first and last index

    def first_index(self) -> int:
        return self.floor + 1

    def last_index(self) -> int:
        return self.floor + len(self.rows)

    def term(self, index: int) -> int | None:
        place = index - self.floor - 1
        if place == -1:
            return self.floor_term
        return self.rows[place].term if 0 <= place < len(self.rows) else None

    def entries(self, first: int, last: int, octets_max: int) -> Sequence[LogEntry]:
        octets = 0
        if self.fetch is not None and first <= self.last_index() - self.tail:
            end = next((end for start, end in self._chunks if start <= first <= end), 0)
            if not end:
                self.fetch(first)
                return ()
            last = min(last, end)
        found = self.rows[first - self.floor - 1 : last - self.floor]
        for count, entry in enumerate(found):
            octets += len(entry.data)
            if octets > octets_max and count:
                return found[:count]
        return found

    def fetched(self, first: int) -> None:
        """Entries from `first` on were read and are at hand."""
        if self.floor < first <= self.last_index():
            self._chunks.append((first, min(first + CHUNK - 1, self.last_index())))

    def snapshot(self) -> SnapshotMeta | None:
        return self.feed.meta if self.feed is not None else None

    def holds(self, index: int, term: int) -> bool:
        """For the checks: the entry is there, or below the floor, where all is committed."""
        return index < self.floor or self.term(index) == term

    def restart(self, index: int, term: int) -> None:
        self.floor, self.floor_term = index, term
        self.rows.clear()
        self._chunks.clear()

    def write(self, duties: Duties) -> None:
        if duties.snapshot is not None:
            self.restart(duties.snapshot.index, duties.snapshot.term)
        if duties.cut_after is not None:
            del self.rows[max(duties.cut_after - self.floor, 0) :]
            self._chunks.clear()
        if duties.entries:
            if duties.entries[0].index != self.last_index() + 1:
                raise Violation("duties", f"entry {duties.entries[0].index} is to be saved behind {self.last_index()}")
            self.rows.extend(duties.entries)

    def compact(self, index: int) -> None:
        term = self.term(index)
        if index > self.floor and term is not None:
            del self.rows[: index - self.floor]
            self.floor, self.floor_term = index, term

    def __str__(self) -> str:
        return (
            f"log behind {self.floor} ({self.floor_term}): {[entry.term for entry in self.rows][-12:]} up to {self.last_index()}"
        )
