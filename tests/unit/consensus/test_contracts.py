"""One contract, every implementation: the journal port on RocksDB and in memory, the consensus port on GroupLog and its twin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from replica.consensus.edge_apply import ApplyThread
from replica.consensus.edge_disk import DiskLimits
from replica.consensus.edge_journal import Journal, JournalLimits
from replica.consensus.group import GroupLog
from replica.consensus.memory import MemoryGroup, MemoryJournal
from replica.consensus.port import (
    ENTRY_OCTETS_MAX,
    KEPT_MEMBERSHIP,
    KEPT_MEMORY,
    Consensus,
    GroupPhase,
    HardState,
    JournalPort,
)
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import EntryKind, LogEntry, OutcomeKind
from replica.v1 import entry_pb2
from tests.unit.consensus.machines import BUSY, ListMachine

SMALL = JournalLimits(mark_idle_s=0.01, disk=DiskLimits(0, 0, 0))


class Ears:
    """A JournalListener that keeps what it hears."""

    def __init__(self) -> None:
        self.index = self.save = 0
        self.error: ZaibeiError | None = None

    def flushed(self, index: int) -> None:
        self.index = index

    def saved(self, number: int) -> None:
        self.save = number

    def refused(self, error: ZaibeiError) -> None:
        self.error = error


class JournalRig:
    """Opens, flushes and reopens one kind of journal."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.journal: JournalPort = self._open()

    def _open(self) -> JournalPort:
        return Journal.open(self.folder, limits=SMALL) if self.kind == "rocks" else MemoryJournal(None)

    def flush(self) -> None:
        if isinstance(self.journal, Journal):
            self.journal.drain()
        elif isinstance(self.journal, MemoryJournal):
            self.journal.flush()

    def reopen(self) -> None:
        self.flush()
        if isinstance(self.journal, MemoryJournal):
            self.journal = MemoryJournal(self.journal.crash(Random(0)))
        else:
            self.close()
            self.journal = self._open()

    def close(self) -> None:
        if isinstance(self.journal, Journal):
            self.journal.close()


@pytest.fixture(params=["rocks", "memory"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JournalRig]:
    made = JournalRig(request.param, tmp_path)
    yield made
    made.close()


def entries(first: int, count: int, term: int = 1) -> list[LogEntry]:
    return [LogEntry(index, term, b"data %d" % index) for index in range(first, first + count)]


def test_entries_come_back_after_a_reopen(rig: JournalRig) -> None:
    ears = Ears()
    part = rig.journal.attach("g", ears)
    assert (part.recovered.known, part.recovered.last) == (False, 0)
    part.append(entries(1, 3), HardState(1, 0, 7))
    part.append(entries(4, 2, term=2))
    rig.flush()
    assert ears.index == 5 and ears.error is None
    rig.reopen()
    part = rig.journal.attach("g", Ears())
    found = part.recovered
    assert (found.known, found.floor, found.last, found.spans, found.cut) == (True, 0, 5, ((1, 1), (4, 2)), None)
    assert found.hard == HardState(1, 0, 7)
    assert part.read(1, 10**6) == entries(1, 3) + entries(4, 2, term=2)


def test_a_save_is_told_when_it_is_on_disk_with_or_without_entries(rig: JournalRig) -> None:
    ears = Ears()
    part = rig.journal.attach("g", ears)
    part.append(entries(1, 3), HardState(1, 2, 7), 1)
    part.append((), HardState(2, 0, 7), 2)
    rig.flush()
    assert (ears.save, ears.index) == (2, 3)
    rig.reopen()
    found = rig.journal.attach("g", Ears()).recovered
    assert found.hard == HardState(2, 0, 7) and found.last == 3


def test_a_conflict_is_cut_and_what_follows_it_counts_as_flushed_no_longer(rig: JournalRig) -> None:
    ears = Ears()
    part = rig.journal.attach("g", ears)
    part.append(entries(1, 8), HardState(1, 0, 7), 1)
    rig.flush()
    rig.reopen()
    part = rig.journal.attach("g", ears)
    part.cut_after(5)
    assert (part.last, part.term_at(5), part.term_at(6)) == (5, 1, None)
    part.append(entries(6, 1, term=2), HardState(2, 0, 8), 2)
    rig.flush()
    rig.reopen()
    part = rig.journal.attach("g", ears)
    found = part.recovered
    assert (found.last, found.spans, found.cut) == (6, ((1, 1), (6, 2)), None)
    assert found.flushed <= 6
    assert [part.term_at(index) for index in (0, 5, 6, 7)] == [0, 1, 2, None]


def test_rows_beside_the_log_and_changes_of_membership_come_back(rig: JournalRig) -> None:
    part = rig.journal.attach("g", Ears())
    assert part.recovered.kept == {}
    change = LogEntry(1, 1, b"voters", EntryKind.MEMBERSHIP)
    part.append((change, LogEntry(2, 1, b"data")))
    part.keep(KEPT_MEMBERSHIP, b"old")
    part.keep(KEPT_MEMBERSHIP, b"new")
    part.keep(KEPT_MEMORY, b"promises")
    rig.reopen()
    part = rig.journal.attach("g", Ears())
    assert part.recovered.kept == {KEPT_MEMBERSHIP: b"new", KEPT_MEMORY: b"promises"}
    assert part.read(1, 10**6)[0] == change


def test_boot_numbers_rise(rig: JournalRig) -> None:
    first = rig.journal.boot
    rig.reopen()
    assert rig.journal.boot == first + 1


def test_groups_do_not_see_each_other(rig: JournalRig) -> None:
    one, two = rig.journal.attach("one", Ears()), rig.journal.attach("two", Ears())
    one.append(entries(1, 2))
    two.append(entries(1, 4))
    one.append(entries(3, 1))
    two.truncate(2)
    rig.reopen()
    assert rig.journal.attach("one", Ears()).recovered.last == 3
    assert rig.journal.attach("two", Ears()).recovered.last == 4


def test_reads_are_bounded_and_never_empty(rig: JournalRig) -> None:
    part = rig.journal.attach("g", Ears())
    part.append(entries(1, 40))
    rig.flush()
    rig.reopen()
    part = rig.journal.attach("g", Ears())
    assert [entry.index for entry in part.read(30, 1)] == [30]
    assert [entry.index for entry in part.read(1, 10**6)] == list(range(1, 41))
    for absent in (0, 41):
        with pytest.raises(ZaibeiError) as caught:
            part.read(absent, 1)
        assert caught.value.code is Code.NOT_FOUND


def test_truncation_keeps_the_rest_and_remembers_the_floor(rig: JournalRig) -> None:
    part = rig.journal.attach("g", Ears())
    part.append(entries(1, 4) + entries(5, 4, term=3))
    rig.flush()
    held = part.octets
    part.truncate(6)
    part.truncate(3)  # behind the floor: ignored
    rig.reopen()
    part = rig.journal.attach("g", Ears())
    found = part.recovered
    assert (found.floor, found.floor_term, found.last, found.spans) == (6, 3, 8, ((7, 3),))
    assert found.term_at(6) == 3 and found.flushed >= 6
    assert 0 < part.octets < held
    part.append(entries(9, 1, term=4))
    rig.reopen()
    assert rig.journal.attach("g", Ears()).recovered.last_term == 4


def test_what_was_not_flushed_is_not_truncated(rig: JournalRig) -> None:
    """An index above what the journal holds is ignored: nothing can be dropped that was never durable."""
    part = rig.journal.attach("g", Ears())
    part.append(entries(1, 2))
    rig.flush()
    part.truncate(9)
    rig.reopen()
    assert rig.journal.attach("g", Ears()).recovered.floor == 0


def test_the_mark_of_what_was_flushed_rides_with_a_later_flush(rig: JournalRig) -> None:
    part = rig.journal.attach("g", Ears())
    part.append(entries(1, 2))
    rig.flush()
    part.append(entries(3, 1))
    rig.reopen()
    assert rig.journal.attach("g", Ears()).recovered.flushed >= 2


def test_a_cut_tail_does_not_come_back(rig: JournalRig) -> None:
    part = rig.journal.attach("g", Ears())
    part.append(entries(1, 6))
    rig.flush()
    part.cut_after(3)
    part.append(entries(4, 1, term=2))
    rig.reopen()
    found = rig.journal.attach("g", Ears()).recovered
    assert (found.last, found.last_term, found.cut) == (4, 2, None)


def test_restart_begins_anew_behind_an_index(rig: JournalRig) -> None:
    part = rig.journal.attach("g", Ears())
    part.append(entries(1, 3))
    rig.flush()
    part.restart_at(10, 4)
    part.append(entries(11, 2, term=5))
    rig.reopen()
    found = rig.journal.attach("g", Ears()).recovered
    assert (found.floor, found.floor_term, found.last, found.spans) == (10, 4, 12, ((11, 5),))


# ----------------------------------------------------------------------------------------------------------- consensus port
Make = Callable[[ListMachine], Consensus]


@pytest.fixture(params=["group", "memory"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Consensus] = []
    journal = apply = None
    if request.param == "group":
        journal, apply = Journal.open(tmp_path, limits=SMALL), ApplyThread()
        apply.start()

    def build(machine: ListMachine) -> Consensus:
        group: Consensus
        if journal is not None and apply is not None:
            group = GroupLog(f"g{len(made)}", journal, machine, apply)
        else:
            group = MemoryGroup(f"g{len(made)}", machine)
        made.append(group)
        return group

    yield build
    for group in made:
        await group.stop()
    if journal is not None and apply is not None:
        apply.stop()
        journal.close()


async def test_entries_are_committed_then_applied_in_order(make: Make) -> None:
    machine = ListMachine()
    group = make(machine)
    report = await group.start()
    assert (report.group, report.term) == (group.group, group.term) and group.leader
    proposals = [group.propose(b"%d" % number) for number in range(50)]
    indexes = [await proposal.committed for proposal in proposals]
    assert indexes == list(range(2, 52))
    assert [(await proposal.applied).kind for proposal in proposals] == [OutcomeKind.APPLIED] * 50
    assert machine.data()[1:] == [b"%d" % number for number in range(50)]


async def test_the_first_entry_of_the_term_is_a_no_op_and_comes_first(make: Make) -> None:
    machine = ListMachine()
    group = make(machine)
    with pytest.raises(ZaibeiError):
        group.propose(b"too early")
    await group.start()
    assert entry_pb2.Entry.FromString(machine.data()[0]).WhichOneof("body") == "no_op"


async def test_messages_are_serialized(make: Make) -> None:
    machine = ListMachine()
    group = make(machine)
    await group.start()
    entry = entry_pb2.Entry(format=1, epoch_ask=entry_pb2.EpochAsk(reason="new disk"))
    await group.propose(entry).applied
    assert entry_pb2.Entry.FromString(machine.data()[-1]) == entry


async def test_a_group_begins_behind_what_its_store_has(make: Make) -> None:
    machine = ListMachine(at=(41, 6))
    group = make(machine)
    await group.start()
    assert group.term == 7 and machine.entries[0].index == 42


async def test_busy_is_not_the_callers_concern(make: Make) -> None:
    machine = ListMachine()
    group = make(machine)
    await group.start()
    machine.faults = [BUSY] * 3
    assert (await group.propose(b"x").applied).kind is OutcomeKind.APPLIED
    assert machine.data()[1:] == [b"x"]


async def test_damage_ends_unknown_and_refuses_all_later(make: Make) -> None:
    machine = ListMachine()
    group = make(machine)
    await group.start()
    machine.faults = [ZaibeiError(Code.DAMAGED, "block 7")]
    assert (await group.propose(b"x").applied).kind is OutcomeKind.UNKNOWN
    assert group.phase is GroupPhase.OUT_OF_SERVICE and group.failure is not None and not group.leader
    with pytest.raises(ZaibeiError, match="block 7"):
        group.propose(b"y")


async def test_too_large_and_stopped_are_refused(make: Make) -> None:
    group = make(ListMachine())
    await group.start()
    with pytest.raises(ZaibeiError) as caught:
        group.propose(bytes(ENTRY_OCTETS_MAX + 1))
    assert caught.value.code is Code.MALFORMED
    await group.stop()
    with pytest.raises(ZaibeiError) as caught:
        group.propose(b"x")
    assert caught.value.code is Code.STOPPING
    assert group.phase is GroupPhase.STOPPED


async def test_many_groups_share_the_ports(make: Make) -> None:
    machines = [ListMachine() for _ in range(5)]
    groups = [make(machine) for machine in machines]
    await asyncio.gather(*(group.start() for group in groups))
    await asyncio.gather(*(group.propose(b"x").applied for group in groups for _ in range(20)))
    assert [len(machine.entries) for machine in machines] == [21] * 5
