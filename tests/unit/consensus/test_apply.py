"""The apply thread: in order, each once, fair to all groups, patient with one that is busy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest
from prometheus_client import CollectorRegistry

from replica.consensus.edge_apply import ApplyLimits, ApplyThread
from replica.consensus.edge_metrics import ApplyMetrics
from replica.consensus.group import GroupLog
from replica.consensus.group_limits import GroupLimits
from replica.consensus.memory import MemoryJournal
from replica.model.errors import Code, InvariantBroken, ZaibeiError
from replica.model.outcome import LogEntry, Outcome
from tests.unit.consensus.machines import BUSY, ListMachine

WAIT_S = 20


class Ears:
    """A LaneListener that keeps all it hears."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.busy_said: list[bool] = []
        self.rewinds: list[int] = []
        self.error: ZaibeiError | None = None
        self.changed = threading.Condition()

    def applied(self, last: LogEntry, outcomes: Sequence[Outcome], octets: int) -> None:
        with self.changed:
            self.outcomes += outcomes
            self.changed.notify_all()

    def busy(self, waiting: bool) -> None:
        self.busy_said.append(waiting)

    def rewound(self, index: int) -> None:
        with self.changed:
            self.rewinds.append(index)
            self.changed.notify_all()

    def broken(self, error: ZaibeiError) -> None:
        with self.changed:
            self.error = error
            self.changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.outcomes) >= count or self.error is not None, WAIT_S)


def entries(first: int, count: int, data: bytes = b"d") -> list[LogEntry]:
    return [LogEntry(index, 1, data) for index in range(first, first + count)]


@pytest.fixture
def thread() -> Iterator[ApplyThread]:
    made = ApplyThread(limits=ApplyLimits(turn_octets_max=100, full_wait_s=0.01))
    made.start()
    yield made
    made.stop()


def test_in_order_each_once_on_one_thread(thread: ApplyThread) -> None:
    machine, ears = ListMachine(), Ears()
    lane = thread.lane(machine, ears)
    lane.submit(entries(1, 30))
    lane.submit(entries(31, 30))
    ears.wait_for(60)
    assert [entry.index for entry in machine.entries] == list(range(1, 61))
    assert [outcome.detail for outcome in ears.outcomes] == [str(index) for index in range(1, 61)]
    assert machine.threads == {"zaibei-apply"}


def test_busy_is_tried_again_with_the_same_entry_while_others_go_on(thread: ApplyThread) -> None:
    busy, other = ListMachine(), ListMachine()
    busy_ears, other_ears = Ears(), Ears()
    busy.faults = [BUSY] * 5
    thread.lane(busy, busy_ears).submit(entries(1, 3))
    thread.lane(other, other_ears).submit(entries(1, 3))
    other_ears.wait_for(3)
    busy_ears.wait_for(3)
    assert [entry.index for entry in busy.entries] == [1, 2, 3]
    assert busy_ears.busy_said == [True, False]
    assert other_ears.busy_said == []


def test_a_full_disk_is_waited_out(thread: ApplyThread) -> None:
    machine, ears = ListMachine(), Ears()
    machine.faults = [ZaibeiError(Code.DISK_FULL, "full", retry=True)] * 2
    thread.lane(machine, ears).submit(entries(1, 2))
    ears.wait_for(2)
    assert [entry.index for entry in machine.entries] == [1, 2]


def test_a_machine_that_had_to_be_reopened_gets_what_it_lost_before_anything_later(thread: ApplyThread) -> None:
    machine, ears = ListMachine(), Ears()
    lane = thread.lane(machine, ears, machine.reopen)
    lane.submit(entries(1, 4))
    ears.wait_for(4)
    machine.durable, machine.failed = 2, True
    machine.faults = [ZaibeiError(Code.DISK_FULL, "full", retry=True)]
    lane.submit(entries(5, 2))
    with ears.changed:
        assert ears.changed.wait_for(lambda: ears.rewinds == [2], WAIT_S)
    lane.submit(entries(7, 1))  # committed before the group heard of it: comes again from the journal
    lane.submit(entries(3, 5))
    ears.wait_for(9)
    assert [entry.index for entry in machine.entries] == [1, 2, 3, 4, 5, 6, 7]
    assert ears.error is None and ears.busy_said == [True, False]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ZaibeiError(Code.DAMAGED, "block 7"), "block 7"),
        (ZaibeiError(Code.DISK_FAILED, "EIO"), "EIO"),
        (ZeroDivisionError("bug"), "fault of this program"),
    ],
)
def test_damage_takes_only_its_group_out_of_service(thread: ApplyThread, fault: Exception, said: str) -> None:
    bad, good = ListMachine(), ListMachine()
    bad_ears, good_ears = Ears(), Ears()
    bad.before_apply = lambda entry: bad.faults.append(fault) if entry.index == 3 else None
    lane = thread.lane(bad, bad_ears)
    lane.submit(entries(1, 9))
    bad_ears.wait_for(9)
    lane.submit(entries(10, 1))
    thread.lane(good, good_ears).submit(entries(1, 5))
    good_ears.wait_for(5)
    assert bad_ears.error is not None and said in str(bad_ears.error)
    assert [outcome.detail for outcome in bad_ears.outcomes] == ["1", "2"], "what was applied before the damage is told"
    assert len(bad.entries) == 2 and len(good.entries) == 5


def test_a_broken_invariant_is_told_to_the_process() -> None:
    told: list[InvariantBroken] = []
    thread = ApplyThread(on_broken=told.append)
    thread.start()
    machine, ears = ListMachine(), Ears()
    machine.faults = [InvariantBroken("two at one place")]
    thread.lane(machine, ears).submit(entries(1, 1))
    ears.wait_for(1)
    thread.stop()
    assert [str(exc) for exc in told] == ["two at one place"]


def test_turns_are_shared() -> None:
    """A group with much to do does not keep another waiting for longer than its turn."""
    order: list[str] = []
    go = threading.Event()
    thread = ApplyThread(limits=ApplyLimits(turn_octets_max=10))
    first, second = ListMachine(), ListMachine()

    def slow(entry: LogEntry) -> None:
        go.wait(WAIT_S)
        order.append("a")

    first.before_apply = slow
    second.before_apply = lambda entry: order.append("b")
    ears = Ears(), Ears()
    thread.start()
    thread.lane(first, ears[0]).submit(entries(1, 20))
    thread.lane(second, ears[1]).submit(entries(1, 5))
    go.set()
    ears[0].wait_for(20)
    ears[1].wait_for(5)
    thread.stop()
    assert order.index("b") <= 10, order


def test_a_closed_lane_applies_nothing_more() -> None:
    metrics = ApplyMetrics(CollectorRegistry())
    thread = ApplyThread(metrics=metrics)
    entered, leave = threading.Event(), threading.Event()
    machine, ears = ListMachine(), Ears()

    def slow(entry: LogEntry) -> None:
        entered.set()
        leave.wait(WAIT_S)

    machine.before_apply = slow
    thread.start()
    lane = thread.lane(machine, ears)
    lane.submit(entries(1, 3))
    assert entered.wait(WAIT_S)
    lane.close()
    leave.set()
    thread.stop()
    assert [entry.index for entry in machine.entries] == [1]


async def test_a_group_that_stopped_leaves_its_machine_alone(thread: ApplyThread) -> None:
    """A source is taken out while the process runs on: its store is closed next, and its folder may be opened anew."""
    journal, machine = MemoryJournal(), ListMachine()
    group = GroupLog("g", journal, machine, thread, limits=GroupLimits(stop_drain_s_max=0.01))
    starting = asyncio.create_task(group.start())
    while not starting.done():  # the journal is flushed by hand
        journal.flush()
        await asyncio.sleep(0.001)
    began, goes_on = threading.Event(), threading.Event()

    def slowly(_entry: LogEntry) -> None:
        began.set()
        assert goes_on.wait(WAIT_S)

    machine.before_apply = slowly
    group.propose(b"slow")
    while not began.is_set():
        journal.flush()
        await asyncio.sleep(0.001)
    stopping = asyncio.create_task(group.stop())
    try:
        await asyncio.wait({stopping}, timeout=0.3)
        assert not stopping.done(), "an entry is being applied"
    finally:
        goes_on.set()
        await stopping
    assert machine.data()[-1] == b"slow"
