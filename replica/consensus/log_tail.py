"""A group's log as its core reads it: what was handed to the journal, the newest part of it in memory.

What is older is read from the disk in a thread; until it is at hand the core goes on without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from replica.consensus.port import GroupJournal
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import SnapshotMeta
from replica.model.errors import Code, ZaibeiError, require
from replica.model.outcome import LogEntry

CHUNKS_MAX = 4  # read from the journal for members at different places
TAIL_OCTETS_MAX = 8 * 1024 * 1024  # of one group in memory; followers further behind are served from the journal


class LogTail:
    """Satisfies raft.storage.LogStorage.

    Args:
        membership: the one that holds at `index`, where the log begins.
        fetch: reads entries from an index on away from the loop, then calls `fetched` and tells the core.
    """

    def __init__(
        self,
        journal: GroupJournal,
        index: int,
        membership: Membership,
        fetch: Callable[[int], None],
        octets_max: int = TAIL_OCTETS_MAX,
    ) -> None:
        self._journal, self._fetch, self._octets_max = journal, fetch, octets_max
        self._chunks: deque[Sequence[LogEntry]] = deque(maxlen=CHUNKS_MAX)
        self._tail: deque[LogEntry] = deque()
        self._octets = 0
        self._memberships: deque[tuple[int, Membership]] = deque([(index, membership)])
        self.cuts = 0  # what was read before a cut may be no part of the log any more

    # -- what the core reads

    def first_index(self) -> int:
        return self._journal.floor + 1

    def last_index(self) -> int:
        return self._journal.last

    def term(self, index: int) -> int | None:
        return self._journal.term_at(index)

    def entries(self, first: int, last: int, octets_max: int) -> Sequence[LogEntry]:
        """See LogStorage; empty: they are being read."""
        require(self._journal.floor < first <= last <= self._journal.last, f"entries {first} to {last} are not held")
        if self._tail and first >= self._tail[0].index:
            start = first - self._tail[0].index
            return _bounded(islice(self._tail, start, start + last - first + 1), octets_max)
        for chunk in self._chunks:
            if chunk[0].index <= first <= chunk[-1].index:
                start = first - chunk[0].index
                return _bounded(islice(chunk, start, start + last - first + 1), octets_max)
        self._fetch(first)
        return ()

    def snapshot(self) -> SnapshotMeta | None:
        """Where a member that needs entries from below the floor begins at the earliest; the transfer says the real place.

        After a start it is known who takes part since the last change that was applied, which may be above the floor.
        """
        index = max(self._journal.floor, self._memberships[0][0])
        term = self._journal.term_at(index)
        held = self._held_at(index)
        return SnapshotMeta(index, term, held) if index and term is not None and held is not None else None

    def membership_at(self, index: int) -> Membership:
        """The membership after the entry at `index` was handed out. Raises ZaibeiError(BUSY)."""
        held = self._held_at(index)
        if held is None:  # only right after a start, while the machine catches up
            raise ZaibeiError(Code.BUSY, f"who took part at index {index} is not known here any more: again later", retry=True)
        return held

    def _held_at(self, index: int) -> Membership | None:
        return next((membership for place, membership in reversed(self._memberships) if place <= index), None)

    @property
    def membership(self) -> tuple[int, Membership]:
        """(index, membership) that hold now."""
        return self._memberships[-1]

    # -- what the group tells

    def append(self, entries: Sequence[LogEntry]) -> None:
        """Entries on their way to the journal."""
        for entry in entries:
            self._octets += len(entry.data)
        self._tail.extend(entries)
        while self._octets > self._octets_max and len(self._tail) > 1:
            self._octets -= len(self._tail.popleft().data)

    def fetched(self, entries: Sequence[LogEntry], cuts: int) -> None:
        """What `fetch` brought. `cuts`: as it was when the reading began; after a cut the core asks for them anew."""
        if entries and cuts == self.cuts:
            self._chunks.append(entries)

    def cut_after(self, index: int) -> None:
        self.cuts += 1
        self._chunks.clear()
        while self._tail and self._tail[-1].index > index:
            self._octets -= len(self._tail.pop().data)

    def restart_at(self, index: int, membership: Membership) -> None:
        self.cuts += 1
        self._tail.clear()
        self._chunks.clear()
        self._octets = 0
        self._memberships = deque([(index, membership)])

    def changed(self, index: int, membership: Membership) -> None:
        self._memberships.append((index, membership))

    def truncated(self, index: int) -> None:
        """The journal's entries up to `index` are gone."""
        while self._tail and self._tail[0].index <= index:
            self._octets -= len(self._tail.popleft().data)
        while len(self._memberships) > 1 and self._memberships[1][0] <= index:
            self._memberships.popleft()


def _bounded(entries: islice[LogEntry], octets_max: int) -> list[LogEntry]:
    found: list[LogEntry] = []
    octets = 0
    for entry in entries:
        octets += len(entry.data)
        if found and octets > octets_max:
            break
        found.append(entry)
    return found
