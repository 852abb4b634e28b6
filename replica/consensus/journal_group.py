"""A group's part of the journal: the bookkeeping of what is held, without a file in sight."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import Protocol

from replica.consensus.journal_ops import Append, DropAfter, DropTo, Keep, Op
from replica.consensus.port import HardState, JournalListener, Recovered
from replica.consensus.record import ENTRY_OVERHEAD_OCTETS, Marks
from replica.model.errors import Code, ZaibeiError, require
from replica.model.outcome import LogEntry

WEIGHT_OCTETS_MIN = 256 * 1024  # neighbours are counted together up to here
HARD_OCTETS = 32  # about, of a hard state in a write


class JournalOwner(Protocol):
    """What a part needs of the journal."""

    def put(self, op: Op) -> None: ...

    def read(self, number: int, first: int, last: int, octets_max: int) -> list[LogEntry]: ...


class GroupPart:
    """Satisfies GroupJournal. Appends and truncations come from one thread, marks from the journal's, reads from any."""

    def __init__(
        self, journal: JournalOwner, name: str, number: int, listener: JournalListener, recovered: Recovered, octets: int
    ) -> None:
        self.name, self.number, self.listener = name, number, listener
        self._journal, self._recovered = journal, recovered
        self._floor = (recovered.floor, recovered.floor_term)  # one value: the journal's thread reads it
        self._last = recovered.last
        self._spans = deque(recovered.spans)
        self._weights: deque[tuple[int, int]] = deque([(recovered.last, octets)] if octets else [])  # (last index, octets)
        self._octets = octets
        self.flushed_index = max(recovered.flushed, recovered.floor)
        self._written = recovered.last  # may be read: what is queued is not in the database yet
        # Raised before rows may go, so that a reader on another thread that misses one knows whether it has to.
        self._gone = recovered.floor
        self._cuts_made = 0
        self._marked = recovered.flushed
        self._cuts: deque[int] = deque()  # queued and not flushed
        self._restarts = 0  # of these: the ones that begin the log anew
        self._marking = Lock()  # the journal's thread raises marks, the group's lowers them

    @property
    def recovered(self) -> Recovered:
        return self._recovered

    @property
    def octets(self) -> int:
        return self._octets

    # --------------------------------------------------------------------------------------------------- for the group
    @property
    def floor(self) -> int:
        return self._floor[0]

    @property
    def last(self) -> int:
        return self._last

    def append(self, entries: Sequence[LogEntry], hard: HardState | None = None, save: int = 0) -> None:
        """See GroupJournal."""
        octets = 0
        for entry in entries:
            require(entry.index == self._last + 1, f"{self.name}: entry {entry.index} does not follow {self._last}")
            self._last = entry.index
            if not self._spans or self._spans[-1][1] != entry.term:
                self._spans.append((entry.index, entry.term))
            octets += len(entry.data) + ENTRY_OVERHEAD_OCTETS
        if entries:
            self._weigh(self._last, octets)
        self._journal.put(Append(self.number, tuple(entries), hard, octets + HARD_OCTETS, save))

    def keep(self, kind: bytes, octets: bytes) -> None:
        """See GroupJournal."""
        self._journal.put(Keep(self.number, kind, octets))

    def term_at(self, index: int) -> int | None:
        """See GroupJournal."""
        return self._term_at(index) if self._floor[0] <= index <= self._last else None

    def restart_at(self, index: int, term: int) -> None:
        """See GroupJournal."""
        with self._marking:
            self._cuts.append(index)
            self._cuts_made += 1
            self._restarts += 1
            self.flushed_index = self._marked = self._written = self._gone = index
        self._journal.put(DropTo(self.number, 0, index, term, index, all_rows=True))
        self._floor, self._last = (index, term), index
        self._spans.clear()
        self._weights.clear()
        self._octets = 0

    def cut_after(self, index: int) -> None:
        """See GroupJournal."""
        require(self._floor[0] <= index <= self._last, f"{self.name}: cannot cut behind {index}")
        with self._marking:
            self._cuts.append(index)
            self._cuts_made += 1
            self._written = min(self._written, index)
            self.flushed_index = min(self.flushed_index, index)  # what was flushed behind it was never committed
            self._marked = min(self._marked, index)
        self._journal.put(DropAfter(self.number, index, Marks(*self._floor, self._marked)))
        self._last = index
        while self._weights and self._weights[-1][0] > index:
            last, octets = self._weights.pop()
            before = self._weights[-1][0] if self._weights else self._floor[0]
            kept = octets * max(0, index - before) // max(1, last - before)  # about
            self._octets -= octets - kept
            if kept:
                self._weights.append((index, kept))
                break
        while self._spans and self._spans[-1][0] > index:
            self._spans.pop()

    def truncate(self, index: int) -> None:
        """See GroupJournal."""
        flushed = self.flushed_index
        if not self._floor[0] < index <= min(self._last, flushed):
            return
        term = self._term_at(index)
        self._gone = index
        self._journal.put(DropTo(self.number, self._floor[0], index, term, flushed))
        self._floor, self._marked = (index, term), flushed
        while len(self._spans) > 1 and self._spans[1][0] <= index + 1:
            self._spans.popleft()
        while self._weights and self._weights[0][0] <= index:
            self._octets -= self._weights.popleft()[1]

    def index_keeping(self, octets: int) -> int:
        """See GroupJournal."""
        held = 0
        for index, weight in reversed(self._weights):
            if held >= octets:
                return index
            held += weight
        return self._floor[0]

    def read(self, first: int, octets_max: int) -> list[LogEntry]:
        """See GroupJournal."""
        while True:
            written, cuts = self._written, self._cuts_made
            if not self._gone < first <= written:
                held = f"{self._gone + 1} to {written}"
                raise ZaibeiError(Code.NOT_FOUND, f"the journal holds entries {held} of group {self.name}, not {first}")
            try:
                return self._journal.read(self.number, first, written, octets_max)
            except ZaibeiError as exc:
                overtaken = self._gone >= first or self._cuts_made != cuts  # a record may have gone while it was to be read
                if exc.code is not Code.DAMAGED or not overtaken:
                    raise

    def _term_at(self, index: int) -> int:
        if index == self._floor[0]:
            return self._floor[1]
        for first, term in reversed(self._spans):  # newest first: what is asked is nearly always near the end
            if first <= index:
                return term
        return self._floor[1]

    def _weigh(self, index: int, octets: int) -> None:
        self._octets += octets
        if self._weights and self._weights[-1][1] < WEIGHT_OCTETS_MIN:
            self._weights[-1] = (index, self._weights[-1][1] + octets)
        else:
            self._weights.append((index, octets))

    # ------------------------------------------------------------------------------------------------- for the journal
    @property
    def marks_due(self) -> bool:
        return self.flushed_index > self._marked

    def take_marks(self) -> Marks:
        self._marked = flushed = self.flushed_index
        return Marks(*self._floor, flushed)

    def note_flushed(self, index: int) -> None:
        """Appended entries up to `index` were flushed; what a cut that is still queued takes away again does not count."""
        with self._marking:
            counts = min((index, *self._cuts))
            self.flushed_index = max(self.flushed_index, counts)
            self._written = max(self._written, counts)

    def note_cut(self, *, restart: bool = False) -> None:
        """The oldest queued cut was flushed."""
        with self._marking:
            self._restarts -= restart
            if self._cuts:
                self._cuts.popleft()

    @property
    def on_disk(self) -> int:
        """The database must hold entries up to here, also one that was reopened with operations still queued."""
        with self._marking:
            return 0 if self._restarts else self.flushed_index
