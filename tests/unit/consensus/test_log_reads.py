"""Reading the log while it is written: what is not on disk yet, and what a cut took away, is never read as part of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest
from rocksdict import WriteBatch

from replica.consensus import edge_rocks, record
from replica.consensus.edge_journal import Journal
from replica.consensus.edge_rows import JournalRows
from replica.consensus.group import GroupLog
from replica.consensus.group_limits import GroupLimits
from replica.consensus.journal_ops import Op
from replica.consensus.log_tail import LogTail
from replica.consensus.memory import ManualApply, MemoryJournal
from replica.consensus.port import GroupJournal, HardState
from replica.consensus.pump import ApplyPump
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import Kind, Message
from replica.consensus.seat import GroupSeat
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry
from tests.unit.consensus.machines import ListMachine
from tests.unit.consensus.test_contracts import SMALL, Ears, entries

T = TypeVar("T")
WAIT_S = 20


class HeldRows(JournalRows):
    """Writes nothing while `hold` is set."""

    hold: ClassVar[threading.Event | None] = None

    def write(self, ops: Sequence[Op]) -> None:
        if self.hold is not None:
            self.hold.wait(WAIT_S)
        super().write(ops)


class HeldJournal(Journal):
    rows_type = HeldRows


def test_what_is_queued_and_not_on_disk_is_not_read_and_is_no_damage(tmp_path: Path) -> None:
    """A leader that feeds a member from the journal goes on appending meanwhile."""
    journal = HeldJournal.open(tmp_path, limits=SMALL)
    part = journal.attach("g", Ears())
    part.append(entries(1, 3))
    journal.drain()
    HeldRows.hold = hold = threading.Event()
    try:
        part.append(entries(4, 2))
        assert part.read(1, 10**6) == entries(1, 3)
        with pytest.raises(ZaibeiError) as caught:
            part.read(4, 10**6)
        assert (caught.value.code, caught.value.trouble.retry) == (Code.NOT_FOUND, False)
    finally:
        HeldRows.hold = None
        hold.set()
    journal.drain()
    assert part.read(1, 10**6) == entries(1, 5)
    journal.close()


def test_what_a_queued_cut_takes_away_is_not_read(tmp_path: Path) -> None:
    journal = HeldJournal.open(tmp_path, limits=SMALL)
    part = journal.attach("g", Ears())
    part.append(entries(1, 8))
    journal.drain()
    HeldRows.hold = hold = threading.Event()
    try:
        part.cut_after(5)
        part.append(entries(6, 3, term=2))
        assert part.read(1, 10**6) == entries(1, 5)
    finally:
        HeldRows.hold = None
        hold.set()
    journal.drain()
    assert part.read(1, 10**6) == entries(1, 5) + entries(6, 3, term=2)
    journal.close()


class OvertakenRows(JournalRows):
    """Does `meanwhile` once, when a reader already knows up to where it will read and has read nothing yet."""

    meanwhile: ClassVar[Callable[[], None] | None] = None

    def read(self, number: int, first: int, last: int, octets_max: int) -> list[LogEntry]:
        work, type(self).meanwhile = type(self).meanwhile, None
        if work is not None:
            work()
        return super().read(number, first, last, octets_max)


class OvertakenJournal(Journal):
    rows_type = OvertakenRows


@pytest.fixture
def overtaken(tmp_path: Path) -> Iterator[tuple[Journal, GroupJournal]]:
    journal = OvertakenJournal.open(tmp_path, limits=SMALL)
    part = journal.attach("g", Ears())
    part.append(entries(1, 8))
    journal.drain()
    yield journal, part
    OvertakenRows.meanwhile = None
    journal.close()


def test_a_cut_that_overtakes_a_read_is_no_damage(overtaken: tuple[Journal, GroupJournal]) -> None:
    """A new leader takes entries back while a thread reads them for the machine, or for a member of an earlier term of office."""
    journal, part = overtaken

    def cut() -> None:
        part.cut_after(5)
        journal.drain()

    OvertakenRows.meanwhile = cut
    assert part.read(1, 10**6) == entries(1, 5)


def test_a_truncation_that_overtakes_a_read_is_no_damage(overtaken: tuple[Journal, GroupJournal]) -> None:
    """A leader brings entries for a member that is behind, and keeps them for it no longer."""
    journal, part = overtaken

    def truncate() -> None:
        part.truncate(6)
        journal.drain()

    OvertakenRows.meanwhile = truncate
    with pytest.raises(ZaibeiError) as caught:
        part.read(4, 10**6)
    assert caught.value.code is Code.NOT_FOUND
    assert part.read(7, 10**6) == entries(7, 2)


def test_a_log_that_begins_anew_under_a_read_is_no_damage(overtaken: tuple[Journal, GroupJournal]) -> None:
    journal, part = overtaken

    def restart() -> None:
        part.restart_at(100, 5)
        journal.drain()

    OvertakenRows.meanwhile = restart
    with pytest.raises(ZaibeiError) as caught:
        part.read(4, 10**6)
    assert caught.value.code is Code.NOT_FOUND


def test_a_row_that_is_gone_without_cause_is_damage(overtaken: tuple[Journal, GroupJournal]) -> None:
    journal, part = overtaken

    def lose() -> None:
        batch = WriteBatch(raw_mode=True)
        batch.delete(record.entry_key(part.number, 5))  # type: ignore[attr-defined]
        edge_rocks.write(journal._rows.db, batch, edge_rocks.write_options())

    OvertakenRows.meanwhile = lose
    with pytest.raises(ZaibeiError) as caught:
        part.read(4, 10**6)
    assert caught.value.code is Code.DAMAGED


def test_the_memory_twin_reads_no_more_than_is_flushed() -> None:
    journal = MemoryJournal()
    part = journal.attach("g", Ears())
    part.append(entries(1, 8))
    journal.flush()
    part.cut_after(5)
    part.append(entries(6, 3, term=2))
    assert part.read(1, 10**6) == entries(1, 5)
    journal.flush()
    assert part.read(1, 10**6) == entries(1, 5) + entries(6, 3, term=2)


class SlowReads:
    """A RunBlocking whose work is done at once and whose result is held back: a thread that is slow to come back."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = 0

    async def __call__(self, work: Callable[[], T], /) -> T:
        self.began += 1
        done = work()
        await self.gate.wait()
        return done


async def settle(journal: MemoryJournal, apply: ManualApply) -> None:
    for _ in range(6):
        await asyncio.sleep(0)
        journal.flush()
        await asyncio.sleep(0)
        while apply.step():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_follower_applies_nothing_that_was_read_before_a_conflict_was_cut() -> None:
    """Entries are read from the disk in a thread; meanwhile a new leader takes some of them back and commits others."""
    first = MemoryJournal()
    part = first.attach("g", Ears())
    old = [LogEntry(index, 1, b"old %d" % index) for index in range(1, 9)]
    part.append(old, HardState(1, 0, 1))
    first.flush()
    journal, apply, machine, slow = MemoryJournal(first.disk), ManualApply(), ListMachine(old[:2]), SlowReads()
    seat = GroupSeat(1, Membership(frozenset({1, 2, 3})))
    group = GroupLog("g", journal, machine, apply, limits=GroupLimits(), run_blocking=slow, seat=seat)
    await group.start()
    slow.gate.clear()
    group.receive(Message(Kind.APPEND, 1, 2, 5, 1, 4, (), 4))  # entries 1 to 4 are committed
    await settle(journal, apply)
    assert slow.began and machine.applied() == (2, 1), "entry 3 is being read"
    new = tuple(LogEntry(index, 5, b"new %d" % index) for index in range(6, 9))
    group.receive(Message(Kind.APPEND, 1, 2, 5, 1, 5, new, 8))
    await settle(journal, apply)
    slow.gate.set()
    await settle(journal, apply)
    assert machine.data() == [b"old 1", b"old 2", b"old 3", b"old 4", b"old 5", b"new 6", b"new 7", b"new 8"]
    await group.stop()


class OneLane:
    """A Lane that keeps what it is handed."""

    waits: ZaibeiError | None = None

    def __init__(self) -> None:
        self.taken: list[LogEntry] = []

    def submit(self, entries: Sequence[LogEntry]) -> None:
        self.taken += entries

    def close(self) -> None:
        return

    def wait_idle(self) -> None:
        return


async def test_what_is_committed_while_the_journal_is_read_is_read_anew() -> None:
    """The chunk was read before: behind what was committed by then it may hold entries that a cut took away since."""
    journal = MemoryJournal()
    part: GroupJournal = journal.attach("g", Ears())
    part.append(entries(1, 8))
    journal.flush()
    lane, slow, tasks = OneLane(), SlowReads(), set[asyncio.Task[None]]()

    def run(work: Coroutine[None, None, None]) -> None:
        tasks.add(asyncio.ensure_future(work))

    def broken(error: ZaibeiError) -> None:
        raise error

    slow.gate.clear()
    pump = ApplyPump(
        part, lane, 0, GroupLimits(), stand_in=b"", run_blocking=slow, run_task=run, broken=broken, wait=asyncio.sleep
    )
    pump.offer_held(4)
    await asyncio.sleep(0)
    part.cut_after(5)
    part.append(entries(6, 3, term=2))
    journal.flush()
    pump.offer_held(8)
    slow.gate.set()
    await asyncio.gather(*tasks)
    assert lane.taken == entries(1, 5) + entries(6, 3, term=2)


async def test_what_a_closed_pump_finds_gone_breaks_nothing() -> None:
    """A member is fed another's state while its machine was behind: the log begins anew under what was read for it."""
    journal = MemoryJournal()
    part: GroupJournal = journal.attach("g", Ears())
    part.append(entries(1, 8))
    journal.flush()
    begins, tasks, broken = asyncio.Event(), set[asyncio.Task[None]](), list[ZaibeiError]()

    async def late(work: Callable[[], T], /) -> T:
        await begins.wait()
        return work()

    def run(work: Coroutine[None, None, None]) -> None:
        tasks.add(asyncio.ensure_future(work))

    pump = ApplyPump(
        part, OneLane(), 0, GroupLimits(), stand_in=b"", run_blocking=late, run_task=run, broken=broken.append, wait=asyncio.sleep
    )
    pump.offer_held(8)
    await asyncio.sleep(0)
    pump.close()
    part.restart_at(100, 5)
    journal.flush()
    begins.set()
    await asyncio.gather(*tasks)
    assert not broken


class FullOnce(JournalRows):
    """The first write after `full` is set meets a full disk."""

    full: ClassVar[bool] = False

    def write(self, ops: Sequence[Op]) -> None:
        if self.full:
            type(self).full = False
            raise ZaibeiError(Code.DISK_FULL, "planted", retry=True)
        super().write(ops)


class FullJournal(Journal):
    rows_type = FullOnce


def test_a_log_that_begins_anew_on_a_full_disk_waits_for_room_and_stops_nobody(tmp_path: Path) -> None:
    """A member is fed another's state: its new floor is far behind what its database held when the disk was full."""
    journal = FullJournal.open(tmp_path, limits=SMALL)
    part = journal.attach("g", Ears())
    part.append(entries(1, 3))
    journal.drain()
    FullOnce.full = True
    part.restart_at(100, 5)
    part.append(entries(101, 1, term=5))
    journal.drain()
    assert journal.failed is None and not FullOnce.full
    assert part.read(101, 1) == entries(101, 1, term=5)
    journal.close()


class NoRoomRows(JournalRows):
    """Meets a full disk when it writes and when it is opened again, while `full` is set."""

    full: ClassVar[bool] = False

    @classmethod
    def open(cls, folder: Path) -> JournalRows:
        if cls.full:
            raise ZaibeiError(Code.DISK_FULL, "planted", retry=True)
        return super().open(folder)

    def write(self, ops: Sequence[Op]) -> None:
        if self.full:
            raise ZaibeiError(Code.DISK_FULL, "planted", retry=True)
        super().write(ops)


class FillingJournal(Journal):
    """Its disk becomes full when a group that is opened again has seen that nothing waits to be written."""

    rows_type = NoRoomRows
    other: GroupJournal

    def _drain_or_refuse(self) -> None:
        super()._drain_or_refuse()
        NoRoomRows.full = True
        self.other.append(entries(1, 1))
        with self._wake:
            assert self._wake.wait_for(lambda: self._roomless, WAIT_S)


def test_a_group_that_is_opened_again_while_the_disk_becomes_full_waits_for_room(tmp_path: Path) -> None:
    """Read from a closed database, it would take the disk for a failed one, and the member would stop."""
    failed: list[ZaibeiError] = []
    journal = FillingJournal.open(tmp_path, limits=SMALL, on_failed=failed.append)
    assert isinstance(journal, FillingJournal)
    journal.attach("g", Ears()).append(entries(1, 3))
    journal.other = journal.attach("other", Ears())
    journal.drain()
    try:
        with pytest.raises(ZaibeiError) as caught:
            journal.attach("g", Ears())
        assert (caught.value.code, caught.value.trouble.retry) == (Code.DISK_FULL, True)
    finally:
        NoRoomRows.full = False
    journal.drain()
    assert journal.other.read(1, 1) == entries(1, 1) and not failed
    journal.close()


def test_where_the_log_begins_before_the_last_known_change_a_member_is_fed_from_that_change() -> None:
    """After a start nothing is known of who took part before: a state of a later place does as well."""
    part = MemoryJournal().attach("g", Ears())
    part.append(entries(1, 12))
    part.truncate(8)
    three = Membership(frozenset({1, 2, 3}))
    found = LogTail(part, 10, three, lambda _first: None).snapshot()
    assert found is not None and (found.index, found.membership) == (10, three)
