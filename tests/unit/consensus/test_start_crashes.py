"""Starts after a crash in the middle of something: a store that was switched and a log that was not, a disk without room."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from replica.consensus.edge_journal import Journal
from replica.consensus.edge_rows import JournalRows
from replica.consensus.group import GroupLog
from replica.consensus.group_limits import GroupLimits
from replica.consensus.hello import Memory
from replica.consensus.journal_ops import Op
from replica.consensus.membership_row import encode_membership
from replica.consensus.memory import ManualApply, MemoryDisk, MemoryJournal, inline
from replica.consensus.port import KEPT_MEMBERSHIP, KEPT_MEMORY, HardState
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import Kind, Message
from replica.consensus.seat import GroupSeat
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry
from tests.unit.consensus.machines import ListMachine
from tests.unit.consensus.test_contracts import SMALL, Ears, entries

THREE = Membership(frozenset({1, 2, 3}))


def disk_with(log: Sequence[LogEntry], hard: HardState, kept_at: int = 0) -> MemoryDisk:
    """A log on disk; `kept_at`: index of the membership row, as it is kept before a switch."""
    journal = MemoryJournal()
    part = journal.attach("g", Ears())
    part.append(log, hard)
    if kept_at:
        part.keep(KEPT_MEMBERSHIP, encode_membership(kept_at, THREE))
    journal.flush()
    return journal.disk


class Started:
    """A group of three on member 1 over what a crash left."""

    def __init__(self, disk: MemoryDisk, machine: ListMachine) -> None:
        self.journal, self.apply, self.machine, self.sent = MemoryJournal(disk), ManualApply(), machine, list[Message]()
        seat = GroupSeat(1, THREE, send=self.sent.extend)
        self.group = GroupLog("g", self.journal, machine, self.apply, limits=GroupLimits(), run_blocking=inline, seat=seat)

    async def settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)
            self.journal.flush()
            await asyncio.sleep(0)
            while self.apply.step():  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def start(self) -> None:
        starting = asyncio.ensure_future(self.group.start())
        await self.settle()
        await asyncio.wait_for(starting, 30)


async def test_a_store_switched_over_entries_that_were_never_committed_goes_on_from_there() -> None:
    """The crash came between the switch and the log's new beginning."""
    rig = Started(disk_with(entries(1, 12), HardState(1, 0, 1), kept_at=10), ListMachine(at=(10, 5)))
    await rig.start()
    assert rig.group.part is not None
    assert (rig.group.part.floor, rig.group.part.last, rig.group.failure) == (10, 10, None)
    rig.group.receive(Message(Kind.APPEND, 1, 3, 6, 5, 10, (LogEntry(11, 6, b"new"),), 11))
    await rig.settle()
    assert rig.machine.data() == [b"new"]
    await rig.group.stop()


@pytest.mark.parametrize("kept_at", [0, 9])
async def test_two_histories_stay_out_of_service(kept_at: int) -> None:
    """Without the row that is kept before a switch, nothing says that the store was fetched."""
    rig = Started(disk_with(entries(1, 12), HardState(1, 0, 1), kept_at), ListMachine(at=(10, 5)))
    with pytest.raises(ZaibeiError) as caught:
        await rig.group.start()
    assert caught.value.code is Code.DAMAGED


async def test_the_term_of_a_fetched_state_is_on_disk_before_anything_is_promised_in_it() -> None:
    """Else what others remember of us is more than our disk shows, and we look as if we had forgotten."""
    rig = Started(disk_with(entries(1, 3), HardState(1, 0, 1)), ListMachine(at=(10, 5)))
    await rig.start()
    assert rig.group.hard_term == 5 and rig.journal.disk.groups["g"].hard.term == 5
    rig.group.receive(Message(Kind.APPEND, 1, 3, 5, 5, 10, (LogEntry(11, 5, b"new"),), 11))
    await rig.settle()
    assert [one.index for one in rig.sent if one.kind is Kind.APPEND_REPLY] == [11]
    assert rig.group.saved_state.shown(1).index == 11, "what it acknowledged in term 5 is what its disk shows"
    await rig.group.stop()


async def test_a_cut_below_what_was_flushed_is_remembered_in_the_same_flush() -> None:
    """The cut lowers the mark by which the loss is found: a crash right behind it must not make the member sound."""
    disk = disk_with(entries(1, 8), HardState(1, 0, 1))
    rows = disk.groups["g"]
    rows.marks = replace(rows.marks, flushed=8)
    del rows.entries[5]
    rig = Started(disk, ListMachine(entries(1, 3)))
    await rig.start()
    assert rows.marks.flushed == 4, "the cut is on disk"
    assert Memory.decode(rows.kept[KEPT_MEMORY]).of(1).index == 8
    await rig.group.stop()


async def test_questions_of_a_group_that_is_opened_again_are_none_that_were_asked_before() -> None:
    """A late answer to the group that was closed names an index of then: a read that believed it would see an old state."""
    asked = set[bytes]()
    for _ in range(2):
        rig = Started(disk_with(entries(1, 3), HardState(1, 0, 1)), ListMachine(entries(1, 3)))
        await rig.start()
        rig.group.receive(Message(Kind.HEARTBEAT, 1, 2, 5))
        barrier = asyncio.ensure_future(rig.group.barrier(0.05))
        await rig.settle()
        asked |= {one.context for one in rig.sent if one.kind is Kind.READ_INDEX}
        with pytest.raises(ZaibeiError):
            await barrier
        await rig.group.stop()
    assert len(asked) == 2


class Roomless(JournalRows):
    """While `full` is set nothing can be written, and the database cannot be opened."""

    full: ClassVar[bool] = False

    @classmethod
    def open(cls, folder: Path) -> JournalRows:
        cls._check()
        return super().open(folder)

    def write(self, ops: Sequence[Op]) -> None:
        self._check()
        super().write(ops)

    @classmethod
    def _check(cls) -> None:
        if cls.full:
            raise ZaibeiError(Code.DISK_FULL, "planted", retry=True)


class RoomlessJournal(Journal):
    rows_type = Roomless


async def test_a_group_that_comes_back_while_the_journal_waits_for_room_is_refused_at_once(tmp_path: Path) -> None:
    """It waited in the event loop, and everything else of the member with it, until a person made room."""
    journal = RoomlessJournal.open(tmp_path, limits=SMALL)
    part = journal.attach("g", Ears())
    part.append(entries(1, 3))
    journal.drain()
    Roomless.full = True
    try:
        part.append(entries(4, 1))
        async with asyncio.timeout(5):
            with pytest.raises(ZaibeiError) as caught:
                await asyncio.to_thread(journal.attach, "g", Ears())
        assert (caught.value.code, caught.value.trouble.retry) == (Code.DISK_FULL, True)
    finally:
        Roomless.full = False
    journal.drain()
    again = journal.attach("g", Ears())
    assert again.recovered.last == 4
    journal.close()
