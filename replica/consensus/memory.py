"""Memory twins of this room's ports: for tests and simulations, on one thread, in steps the caller takes.

`MemoryDisk` is what survives a crash; a `MemoryJournal` on it loses what was not flushed. Nothing here has its own time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import TypeVar

from replica.consensus import record
from replica.consensus.port import (
    ENTRY_OCTETS_MAX,
    GroupJournal,
    GroupPhase,
    HardState,
    JournalListener,
    Lane,
    LaneListener,
    Recovered,
    Reopen,
    StartReport,
    StateMachine,
    check_group_move,
)
from replica.consensus.walk import walk
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry, Outcome, OutcomeKind, Proposal
from replica.v1 import entry_pb2

T = TypeVar("T")


async def inline(work: Callable[[], T], /) -> T:
    """A RunBlocking that runs the work at once."""
    return work()


@dataclass(slots=True)
class GroupRows:
    """Rows of one group as on disk."""

    number: int
    marks: record.Marks = field(default_factory=record.Marks)
    hard: HardState = field(default_factory=HardState)
    entries: dict[int, bytes] = field(default_factory=dict)
    kept: dict[bytes, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class MemoryDisk:
    """What a crash leaves."""

    groups: dict[str, GroupRows] = field(default_factory=dict)
    boots: int = 0
    identity: bytes = bytes(16)


Op = Callable[[GroupRows], None]


class MemoryJournal:
    """Satisfies JournalPort. `flush()` is the flush; `crash(rng)` returns the disk with a random part of the unflushed writes."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk = disk or MemoryDisk()
        self.disk.boots += 1
        self.boot = self.disk.boots
        self.identity = self.disk.identity
        self.failed: ZaibeiError | None = None
        self.refusal: ZaibeiError | None = None
        self._groups: dict[str, MemoryGroupJournal] = {}
        self._ops: deque[tuple[str, Op]] = deque()

    def attach(self, group: str, listener: JournalListener) -> GroupJournal:
        """See JournalPort."""
        rows = self.disk.groups.get(group)
        recovered = Recovered()
        if rows is not None:
            sound = ((index, rows.entries[index]) for index in sorted(rows.entries) if index > rows.marks.floor)
            recovered, _ = walk(rows.number, sound, rows.marks, rows.hard)
            recovered = replace(recovered, kept=dict(rows.kept))
        else:
            self.disk.groups[group] = GroupRows(number=len(self.disk.groups) + 1)
        self._groups[group] = MemoryGroupJournal(self, group, listener, recovered)
        return self._groups[group]

    def put(self, group: str, op: Op) -> None:
        self._ops.append((group, op))

    def flush(self) -> None:
        """Make all writes durable and tell the groups."""
        while self._ops:
            group, op = self._ops.popleft()
            op(self.disk.groups[group])
        for handle in self._groups.values():
            handle.tell()

    def fail(self, error: ZaibeiError) -> None:
        """A flush failed: for good."""
        self.failed = self.refusal = error
        for handle in self._groups.values():
            handle.listener.refused(error)

    def crash(self, rng: Random) -> MemoryDisk:
        """The machine loses power: of the unflushed writes some are on disk, in order, sometimes with a hole."""
        kept = [self._ops[place] for place in range(rng.randint(0, len(self._ops)))]
        if len(kept) > 1 and rng.random() < 0.3:
            del kept[rng.randrange(len(kept))]
        for group, op in kept:
            op(self.disk.groups[group])
        self._ops.clear()
        return self.disk


class MemoryGroupJournal:
    """Satisfies GroupJournal."""

    def __init__(self, journal: MemoryJournal, group: str, listener: JournalListener, recovered: Recovered) -> None:
        self.listener = listener
        self._journal, self._group, self._recovered = journal, group, recovered
        self._floor = (recovered.floor, recovered.floor_term)
        self._last, self._told = recovered.last, recovered.last
        self._terms = {index: recovered.term_at(index) or 0 for index in range(recovered.floor + 1, recovered.last + 1)}
        self._saves: list[int] = []  # not told yet

    @property
    def recovered(self) -> Recovered:
        return self._recovered

    @property
    def octets(self) -> int:
        return sum(map(len, self._rows.entries.values()))

    @property
    def _rows(self) -> GroupRows:
        return self._journal.disk.groups[self._group]

    @property
    def floor(self) -> int:
        return self._floor[0]

    @property
    def last(self) -> int:
        return self._last

    def term_at(self, index: int) -> int | None:
        return self._floor[1] if index == self._floor[0] else self._terms.get(index)

    def keep(self, kind: bytes, octets: bytes) -> None:
        self._journal.put(self._group, lambda rows: rows.kept.__setitem__(kind, octets))

    def append(self, entries: Sequence[LogEntry], hard: HardState | None = None, save: int = 0) -> None:
        flushed = self._told
        self._saves += [save] if save else []
        self._terms.update((entry.index, entry.term) for entry in entries)

        def write(rows: GroupRows) -> None:
            for entry in entries:
                rows.entries[entry.index] = record.encode_entry(rows.number, entry)
            rows.hard = hard or rows.hard
            rows.marks = record.Marks(rows.marks.floor, rows.marks.floor_term, max(rows.marks.flushed, flushed))

        self._last = entries[-1].index if entries else self._last
        self._journal.put(self._group, write)

    def restart_at(self, index: int, term: int) -> None:
        def write(rows: GroupRows) -> None:
            rows.entries.clear()
            rows.marks = record.Marks(index, term, index)

        self._last = self._told = index
        self._floor = (index, term)
        self._terms.clear()
        self._journal.put(self._group, write)

    def cut_after(self, index: int) -> None:
        def write(rows: GroupRows) -> None:
            rows.entries = {place: row for place, row in rows.entries.items() if place <= index}
            rows.marks = record.Marks(rows.marks.floor, rows.marks.floor_term, min(rows.marks.flushed, index))

        self._last = min(self._last, index)
        self._told = min(self._told, index)
        self._terms = {place: term for place, term in self._terms.items() if place <= index}
        self._journal.put(self._group, write)

    def truncate(self, index: int) -> None:
        if self._floor[0] < index <= min(self._last, self._told):
            self._floor = (index, self._terms[index])
            self._terms = {place: term for place, term in self._terms.items() if place > index}

        def write(rows: GroupRows) -> None:
            if rows.marks.floor < index and index in rows.entries:
                term = record.decode_entry(rows.number, index, rows.entries[index]).term
                rows.entries = {place: row for place, row in rows.entries.items() if place > index}
                rows.marks = record.Marks(index, term, max(rows.marks.flushed, index))

        self._journal.put(self._group, write)

    def index_keeping(self, octets: int) -> int:
        held = 0
        for index, row in sorted(self._rows.entries.items(), reverse=True):
            if held >= octets:
                return index
            held += len(row)
        return self._floor[0]

    def read(self, first: int, octets_max: int) -> list[LogEntry]:
        rows, found, octets = self._rows, list[LogEntry](), 0
        while octets <= octets_max and first <= self._told and first in rows.entries:
            found.append(record.decode_entry(rows.number, first, rows.entries[first]))
            first, octets = first + 1, octets + len(found[-1].data)
        if not found:
            raise ZaibeiError(Code.NOT_FOUND, f"the journal does not hold index {first} of group {self._group}")
        return found

    def tell(self) -> None:
        saves, self._saves = self._saves, []
        for save in saves:
            self.listener.saved(save)
        if self._last > self._told:
            self._told = self._last
            self.listener.flushed(self._last)


class ManualApply:
    """Satisfies ApplyPort; `step()` applies one entry of one lane."""

    def __init__(self, rng: Random | None = None) -> None:
        self._rng = rng
        self._lanes: list[ManualLane] = []

    def lane(self, machine: StateMachine, listener: LaneListener, reopen: Reopen | None = None) -> Lane:
        """See ApplyPort."""
        self._lanes.append(ManualLane(machine, listener, reopen))
        return self._lanes[-1]

    def step(self) -> bool:
        """Apply one entry somewhere; False when there is nothing to do."""
        ready = [lane for lane in self._lanes if lane.queue]
        if not ready:
            return False
        (self._rng.choice(ready) if self._rng else ready[0]).step()
        return True


class ManualLane:
    """Satisfies Lane."""

    def __init__(self, machine: StateMachine, listener: LaneListener, reopen: Reopen | None) -> None:
        self.queue: deque[LogEntry] = deque()
        self._machine, self._listener, self._reopen = machine, listener, reopen
        self._closed = self._busy = self._was_full = False
        self._expected: int | None = None
        self.waits: ZaibeiError | None = None

    def submit(self, entries: Sequence[LogEntry]) -> None:
        if not self._closed and self._expected in (None, entries[0].index):
            self._expected = None
            self.queue.extend(entries)

    def close(self) -> None:
        self._closed = True
        self.queue.clear()

    def wait_idle(self) -> None:
        """Steps are taken on the caller's thread: nothing runs beside it."""

    def step(self) -> None:
        entry = self.queue[0]
        if self._was_full and self._reopen is not None:
            self._was_full = False
            stands = self._reopen()
            if stands is not None and stands[0] != entry.index - 1:
                self.queue.clear()
                self._expected = stands[0] + 1
                self._listener.rewound(stands[0])
                return
        try:
            outcomes = self._machine.apply((entry,))
        except ZaibeiError as exc:
            if exc.trouble.retry and exc.code in (Code.BUSY, Code.DISK_FULL):
                self._was_full = exc.code is Code.DISK_FULL
                self.waits = exc
                self._say_busy(True)
                return
            self.close()
            self._listener.broken(exc)
            return
        self.waits = None
        self._say_busy(False)
        self.queue.popleft()
        self._listener.applied(entry, outcomes, len(entry.data))

    def _say_busy(self, waiting: bool) -> None:
        if waiting != self._busy:
            self._busy = waiting
            self._listener.busy(waiting)


class MemoryGroup:
    """Memory twin of the Consensus port: commits at the next turn of the loop, applies there, forgets at the end of the process.

    Args:
        machine: entries behind its applied index are applied; its (index, term) is where the log begins.
    """

    def __init__(self, group: str, machine: StateMachine) -> None:
        self.group = group
        self.phase = GroupPhase.NEW
        self.term = 0
        self.pressure = False  # tests set it
        self.failure: ZaibeiError | None = None
        self.entries: list[LogEntry] = []
        self._machine = machine
        self._queue: deque[tuple[LogEntry, Proposal]] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def leader(self) -> bool:
        return self.phase is GroupPhase.LEADING

    async def start(self) -> StartReport:
        """See Consensus."""
        self._index, term = self._machine.applied()
        self.term = term + 1
        self._move(GroupPhase.REPLAYING)
        self._move(GroupPhase.ELECTING)
        first = self._append(entry_pb2.Entry(format=1, no_op=entry_pb2.NoOp()).SerializeToString())
        await first.applied
        if self.failure is not None:
            raise self.failure
        self._move(GroupPhase.LEADING)
        return StartReport(self.group, self.term, 0)

    def propose(self, entry: entry_pb2.Entry | bytes) -> Proposal:
        """See Consensus."""
        data = entry if isinstance(entry, bytes) else entry.SerializeToString()
        if self.failure is not None:
            raise self.failure
        if self.phase in (GroupPhase.STOPPING, GroupPhase.STOPPED):
            raise ZaibeiError(Code.STOPPING, f"group {self.group} is stopping", retry=True)
        if not self.leader:
            raise ZaibeiError(Code.UNREACHABLE, f"group {self.group} has not applied its term's first entry yet", retry=True)
        if len(data) > ENTRY_OCTETS_MAX:
            raise ZaibeiError(Code.MALFORMED, f"an entry of {len(data)} octets is over {ENTRY_OCTETS_MAX}")
        return self._append(data)

    def _append(self, data: bytes) -> Proposal:
        loop = asyncio.get_running_loop()
        proposal = Proposal(loop.create_future(), loop.create_future())
        proposal.committed.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._index += 1
        self._queue.append((LogEntry(self._index, self.term, data), proposal))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._work())
        return proposal

    async def _work(self) -> None:
        while self._queue and self.failure is None:
            await asyncio.sleep(0)
            entry, proposal = self._queue[0]
            if not proposal.committed.done():
                self.entries.append(entry)
                proposal.committed.set_result(entry.index)
                continue  # committed is seen before applied
            try:
                (outcome,) = self._machine.apply((entry,))
            except ZaibeiError as exc:
                if not exc.trouble.retry:
                    self.failure = exc
                    self._move(GroupPhase.OUT_OF_SERVICE)
                continue
            self._queue.popleft()
            if not proposal.applied.done():
                proposal.applied.set_result(outcome)
        self._end()

    def _end(self) -> None:
        ended = ZaibeiError(Code.UNKNOWN, "the group ended before the entry was committed", definite=False)
        for _, proposal in self._queue:
            if not proposal.committed.done():
                proposal.committed.set_exception(ended)
            if not proposal.applied.done():
                proposal.applied.set_result(Outcome(OutcomeKind.UNKNOWN, None, str(self.failure or "the group stopped")))
        self._queue.clear()

    async def stop(self) -> None:
        """See Consensus."""
        if self.phase is GroupPhase.STOPPED:
            return
        if self.phase in (GroupPhase.REPLAYING, GroupPhase.ELECTING, GroupPhase.LEADING):
            self._move(GroupPhase.STOPPING)
        if self._task is not None:
            await self._task
        self._move(GroupPhase.STOPPED)

    def _move(self, phase: GroupPhase) -> None:
        check_group_move(self.phase, phase)
        self.phase = phase
