"""The member's journal: one RocksDB, one thread, one flush for all groups that wrote meanwhile.

The thread takes all that is queued, writes it unsynced, flushes, tells the groups. What arrives during a flush shares the
next one. A failed flush ends the journal for good. A full disk stops intake; what was queued waits, is written again after the
database was reopened, and only then is acknowledged.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from replica.consensus.edge_disk import Disk, DiskLimits
from replica.consensus.edge_metrics import JournalMetrics
from replica.consensus.edge_rows import JournalRows
from replica.consensus.journal_group import GroupPart
from replica.consensus.journal_ops import Append, DropAfter, DropTo, Op, RaiseBoot, Register, Retire, SetMarks
from replica.consensus.port import GroupJournal, JournalListener, Recovered
from replica.model.errors import Code, ZaibeiError, require
from replica.model.outcome import LogEntry


class JournalPhase(StrEnum):
    OPEN = "open"
    FULL = "full"  # nothing new is admitted until there is room
    FAILED = "failed"  # for good
    CLOSED = "closed"


JOURNAL_MOVES: dict[JournalPhase, frozenset[JournalPhase]] = {
    JournalPhase.OPEN: frozenset({JournalPhase.FULL, JournalPhase.FAILED, JournalPhase.CLOSED}),
    JournalPhase.FULL: frozenset({JournalPhase.OPEN, JournalPhase.FAILED, JournalPhase.CLOSED}),
    JournalPhase.FAILED: frozenset({JournalPhase.CLOSED}),
    JournalPhase.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class JournalLimits:
    """Limits of the journal.

    Args:
        write_octets_max: written by one RocksDB call, which holds the GIL.
        queue_octets_max: waiting for a flush over all groups; beyond it proposals end BUSY.
        stall_wait_s: wait when RocksDB asks to.
        room_check_s: how often a full disk is looked at.
        mark_idle_s: after so long without a write the flushed marks are written on their own.
    """

    write_octets_max: int = 1024 * 1024
    queue_octets_max: int = 64 * 1024 * 1024
    stall_wait_s: float = 0.002
    room_check_s: float = 0.5
    mark_idle_s: float = 1.0
    disk: DiskLimits = field(default_factory=DiskLimits)


def _nobody(_error: ZaibeiError) -> None:
    """Default of `on_failed`; `failed` says the same."""


class Journal:
    """Satisfies JournalPort. Open with `Journal.open`; every method may be called from any thread.

    Args:
        on_failed: called once, on the journal's thread, when it failed for good: the process must stop.
    """

    rows_type: ClassVar[type[JournalRows]] = JournalRows

    def __init__(
        self,
        rows: JournalRows,
        disk: Disk,
        limits: JournalLimits,
        on_failed: Callable[[ZaibeiError], None] = _nobody,
        metrics: JournalMetrics | None = None,
    ) -> None:
        self._rows, self._disk, self._limits = rows, disk, limits
        self._on_failed, self._metrics = on_failed, metrics
        self._wake = threading.Condition()  # guards all below
        self._gate = threading.Lock()  # guards the database against being swapped under a reader
        self._queue: deque[Op] = deque()
        self._queue_octets = 0
        self._working = self._roomless = False
        self._phase = JournalPhase.OPEN
        self._failed: ZaibeiError | None = None
        self._next_number = rows.meta.next_number
        self._parts: dict[str, GroupPart] = {}
        self._by_number: dict[int, GroupPart] = {}
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="zaibei-journal", daemon=True)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        limits: JournalLimits | None = None,
        on_failed: Callable[[ZaibeiError], None] = _nobody,
        metrics: JournalMetrics | None = None,
    ) -> Journal:
        """Open or make the journal in `folder`, walk every group, start its thread. Blocks: call it in a thread.

        Raises:
            ZaibeiError: DISK_FULL, DISK_FAILED, DAMAGED, CONFLICT; the message says what to do.
        """
        limits = limits or JournalLimits()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ZaibeiError(Code.DISK_FAILED, f"the journal's folder {folder} cannot be made: {exc}") from exc
        disk = Disk(folder, limits.disk)
        if disk.low:
            disk.release_ballast()
        try:
            rows = cls.rows_type.open(folder / "db")
        except ZaibeiError as exc:
            if exc.code is not Code.DISK_FULL:
                raise
            what = f"the disk of the journal {folder} is full, so it cannot be opened. Next: free room, then start again"
            raise ZaibeiError(Code.DISK_FULL, f"{what}; nothing stored is lost ({exc.trouble.message})", retry=True) from exc
        journal = cls(rows, disk, limits, on_failed, metrics)
        disk.restore_ballast()
        journal._look_at_room()
        journal._thread.start()
        return journal

    # ------------------------------------------------------------------------------------------------ what others read
    @property
    def boot(self) -> int:
        """Number of this opening; rises by one each time."""
        return self._rows.meta.boot

    @property
    def identity(self) -> bytes:
        """See JournalPort."""
        return self._rows.meta.identity

    @property
    def phase(self) -> JournalPhase:
        return self._phase

    @property
    def failed(self) -> ZaibeiError | None:
        return self._failed

    @property
    def refusal(self) -> ZaibeiError | None:
        """See JournalPort."""
        if self._failed is not None:
            return self._failed
        if self._phase is JournalPhase.FULL:
            least = self._limits.disk.free_octets_resume >> 20
            return ZaibeiError(
                Code.DISK_FULL, f"the journal's disk is full: intake resumes by itself at {least} MiB free", retry=True
            )
        if self._phase is JournalPhase.CLOSED or self._stop:
            return ZaibeiError(Code.STOPPING, "the journal is closing", retry=True)
        if self._queue_octets > self._limits.queue_octets_max:
            return ZaibeiError(Code.BUSY, f"{self._queue_octets} octets wait for the journal's flush", retry=True)
        return None

    def knows(self, group: str) -> bool:
        """True when the journal has heard of the group."""
        return group in self._parts or group in self._rows.groups

    def found(self) -> dict[str, Recovered]:
        """What the walk at open found of each group; for status and alarms."""
        return {name: group.recovered for name, group in self._rows.groups.items()}

    # ------------------------------------------------------------------------------------------------------ for groups
    def attach(self, group: str, listener: JournalListener) -> GroupJournal:
        """See JournalPort. Attaching again (a group that starts anew in this process) waits for the queue and walks again."""
        if group in self._parts:
            self._drain_or_refuse()
            with self._gate:
                self._require_open()
                self._rows.groups[group] = self._rows.walk_group(group, self._parts[group].number)
        with self._wake:
            if self._failed is not None:
                raise self._failed
            found = self._rows.groups.get(group)
            if found is None:
                number, recovered, octets = self._next_number, Recovered(), 0
                self._next_number += 1
                self._enqueue(Register(number, group))
            else:
                number, recovered, octets = found.number, found.recovered, found.octets
            part = GroupPart(self, group, number, listener, recovered, octets)
            self._parts[group] = self._by_number[number] = part
            return part

    def retire(self, group: str) -> None:
        """Forget a group's log, so that it is loaded anew; its number is never used again. Blocks until that is on disk.

        Raises:
            ZaibeiError: NOT_FOUND, or why the journal cannot write.
        """
        with self._wake:
            part = self._parts.pop(group, None)
            found = self._rows.groups.pop(group, None)
            number = part.number if part else found.number if found else None
            if number is None:
                raise ZaibeiError(Code.NOT_FOUND, f"the journal knows no group {group!r}")
            self._by_number.pop(number, None)
            self._enqueue(Retire(number, group))
        self.drain()
        if self._failed is not None:
            raise self._failed

    def raise_boot(self, least: int) -> int:
        """Let the boot number be at least `least`; returns it. Blocks until it is on disk. Raises ZaibeiError."""
        with self._wake:
            self._enqueue(RaiseBoot(least))
        self.drain()
        if self._failed is not None:
            raise self._failed
        return self.boot

    def drain(self) -> None:
        """Wait until all that is queued now is flushed, or cannot be."""
        with self._wake:
            self._wake.wait_for(lambda: self._idle)

    def _drain_or_refuse(self) -> None:
        """As `drain`, but nobody waits for a person to make room."""
        with self._wake:
            self._wake.wait_for(lambda: self._idle or self._roomless)
            if self._roomless and not self._idle:
                what = "the journal waits for room on its disk: the group can be opened again when there is some"
                raise ZaibeiError(Code.DISK_FULL, what, retry=True)

    @property
    def _idle(self) -> bool:
        return (not self._queue and not self._working) or self._failed is not None or not self._thread.is_alive()

    def put(self, op: Op) -> None:
        """For GroupPart: queue an operation; after a failure it goes nowhere (`refused` was said)."""
        with self._wake:
            if self._failed is None:
                self._enqueue(op)

    def _enqueue(self, op: Op) -> None:
        self._queue.append(op)
        self._queue_octets += op.octets
        self._wake.notify_all()

    def read(self, number: int, first: int, last: int, octets_max: int) -> list[LogEntry]:
        """For GroupPart. Raises ZaibeiError."""
        with self._gate:
            self._require_open()
            return self._rows.read(number, first, last, octets_max)

    def _require_open(self) -> None:
        """Behind the gate, before reading: a closed database would look like a failed disk. Raises ZaibeiError."""
        if self._phase is JournalPhase.CLOSED:
            raise ZaibeiError(Code.STOPPING, "the journal is closed", retry=True)
        if self._rows.closed:
            raise ZaibeiError(Code.DISK_FULL, "the journal's disk is full: readable again when there is room", retry=True)

    # ------------------------------------------------------------------------------------------------------ the thread
    def _run(self) -> None:
        try:
            self._work()
        except Exception as exc:  # a bug: nobody may wait for a thread that is gone, and nothing more may be admitted
            what = f"the journal's thread broke: {exc!r}. This is a fault of this program: report it"
            self._fail(ZaibeiError(Code.DISK_FAILED, what, definite=False))
            raise

    def _work(self) -> None:
        while (ops := self._next_ops()) is not None:
            marks = self._due_marks()
            if ops or marks:
                self._write_and_flush([*ops, *marks])
            if self._failed is None:
                self._look_at_room()
            with self._wake:
                self._working = False
                self._wake.notify_all()

    def _next_ops(self) -> list[Op] | None:
        """All queued operations; [] when it is time to look around; None: stop."""
        with self._wake:
            if not self._queue and not self._stop:
                waits_s = self._limits.room_check_s if self._phase is JournalPhase.FULL else self._limits.mark_idle_s
                idle = self._phase is not JournalPhase.FULL and not any(part.marks_due for part in self._by_number.values())
                self._wake.wait(None if idle else waits_s)
            if self._failed is not None:
                return None
            ops = list(self._queue)
            self._queue.clear()
            if not ops and self._stop and not any(part.marks_due for part in self._by_number.values()):
                return None
            self._working = True
            return ops

    def _due_marks(self) -> list[Op]:
        """Durable marks ride with the next flush: what an earlier flush covered, and so may have been acknowledged."""
        with self._wake:
            return [SetMarks(part.number, part.take_marks()) for part in self._by_number.values() if part.marks_due]

    def _write_and_flush(self, ops: Sequence[Op]) -> None:
        started = time.perf_counter()
        while True:
            try:
                for some in self._portions(ops):
                    self._write(some)
                self._rows.flush()
                break
            except ZaibeiError as exc:
                if exc.code is not Code.DISK_FULL:
                    self._fail(exc)
                    return
                if not self._wait_for_room():
                    return
        if self._metrics is not None:
            self._metrics.flush.observe(time.perf_counter() - started)
        self._tell(ops)

    def _portions(self, ops: Sequence[Op]) -> list[list[Op]]:
        """Cut so that one RocksDB call stays short; an operation is never cut."""
        portions: list[list[Op]] = [[]]
        octets = 0
        for op in ops:
            if portions[-1] and octets + op.octets > self._limits.write_octets_max:
                portions.append([])
                octets = 0
            portions[-1].append(op)
            octets += op.octets
        return portions

    def _write(self, ops: Sequence[Op]) -> None:
        while True:
            try:
                self._rows.write(ops)
                return
            except ZaibeiError as exc:
                if exc.code is not Code.BUSY:
                    raise
                if self._metrics is not None:
                    self._metrics.stalls.inc()
                time.sleep(self._limits.stall_wait_s)

    def _tell(self, ops: Sequence[Op]) -> None:
        """After the flush: note and say what is durable now."""
        flushed: dict[int, int] = {}
        saves: dict[int, int] = {}
        entries = octets = 0
        with self._wake:
            for op in ops:
                self._queue_octets -= 0 if isinstance(op, SetMarks) else op.octets
                if isinstance(op, Append):
                    if op.save:
                        saves[op.number] = op.save
                    if op.entries:
                        flushed[op.number] = op.entries[-1].index
                        entries, octets = entries + len(op.entries), octets + op.octets
                elif isinstance(op, DropAfter) or (isinstance(op, DropTo) and op.all_rows):
                    if op.number in flushed:
                        flushed[op.number] = min(flushed[op.number], op.index)
                    if (cut := self._by_number.get(op.number)) is not None:
                        cut.note_cut(restart=isinstance(op, DropTo))
            parts = [(part, index) for number, index in flushed.items() if (part := self._by_number.get(number))]
            savers = [(part, save) for number, save in saves.items() if (part := self._by_number.get(number))]
            for part, index in parts:
                part.note_flushed(index)
        if self._metrics is not None:
            self._metrics.entries.inc(entries)
            self._metrics.octets.inc(octets)
            self._metrics.queued.set(self._queue_octets)
        for part, save in savers:
            part.listener.saved(save)
        for part, index in parts:
            part.listener.flushed(index)

    # --------------------------------------------------------------------------------------------------- full and failed
    def _look_at_room(self) -> None:
        if self._phase is JournalPhase.OPEN and self._disk.low:
            self._move(JournalPhase.FULL)
        elif self._phase is JournalPhase.FULL and self._disk.roomy:
            self._disk.restore_ballast()
            self._move(JournalPhase.OPEN)

    def _wait_for_room(self) -> bool:
        """A write met a full disk: the database is useless until it is reopened and verified. False: it cannot be."""
        if self._phase is JournalPhase.OPEN:
            self._move(JournalPhase.FULL)
        self._disk.release_ballast()
        while True:
            try:
                self._reopen()
                self._roomless = False
                return True
            except ZaibeiError as exc:
                if exc.code is not Code.DISK_FULL:
                    self._fail(exc)
                    return False
            with self._wake:
                self._roomless = True
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._stop, self._limits.room_check_s)
            if self._stop:
                self._fail(ZaibeiError(Code.DISK_FULL, "the journal was closed on a full disk", definite=False, retry=True))
                return False

    def _reopen(self) -> None:
        with self._gate:
            self._rows.close()
            self._rows = self.rows_type.open(self._rows.folder)
        for name, part in list(self._parts.items()):
            found = self._rows.groups.get(name)
            last = found.recovered.last if found else 0
            if last < part.on_disk:
                raise ZaibeiError(
                    Code.DISK_FAILED,
                    f"group {name} had entries up to {part.on_disk} on disk; reopened after the disk was full it has them "
                    f"up to {last}: this member must stop",
                    definite=False,
                )

    def _fail(self, error: ZaibeiError) -> None:
        with self._wake:
            if self._failed is not None:
                return
            self._failed = error
            self._move(JournalPhase.FAILED)
            self._queue.clear()
            self._queue_octets = 0
            parts = list(self._by_number.values())
            self._wake.notify_all()
        for part in parts:
            part.listener.refused(error)
        self._on_failed(error)

    def _move(self, phase: JournalPhase) -> None:
        require(phase in JOURNAL_MOVES[self._phase], f"the journal cannot move from {self._phase} to {phase}")
        self._phase = phase
        if self._metrics is not None:
            self._metrics.full.set(phase is JournalPhase.FULL)
            self._metrics.failed.set(phase is JournalPhase.FAILED)

    # ------------------------------------------------------------------------------------------------------------ close
    def close(self) -> None:
        """Flush what is queued, then close. Idempotent; blocks."""
        with self._wake:
            self._stop = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        with self._gate:
            if self._phase is not JournalPhase.CLOSED:
                self._rows.close()
                self._move(JournalPhase.CLOSED)
