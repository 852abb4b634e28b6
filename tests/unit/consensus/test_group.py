"""GroupLog over the memory journal, step by step on one thread: admission, pressure, truncation, damage, stopping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

from replica.consensus.group import GroupLog
from replica.consensus.group_limits import GroupLimits
from replica.consensus.memory import ManualApply, MemoryDisk, MemoryJournal, inline
from replica.consensus.port import ENTRY_OCTETS_MAX, Consensus, GroupPhase, StartReport
from replica.model.errors import Code, InvariantBroken, ZaibeiError
from replica.model.outcome import LogEntry, OutcomeKind
from replica.v1 import entry_pb2
from tests.unit.consensus.machines import BUSY, ListMachine

T = TypeVar("T")
NO_OP = entry_pb2.Entry(format=1, no_op=entry_pb2.NoOp()).SerializeToString()
LIMITS = GroupLimits(in_flight_octets_max=1_000, in_flight_entries_max=8, flush_octets=10**9, stop_drain_s_max=0.05)


class Rig:
    """A group, its journal and its machine, moved by hand."""

    def __init__(
        self, disk: MemoryDisk | None = None, machine: ListMachine | None = None, limits: GroupLimits = LIMITS, name: str = "g"
    ) -> None:
        self.journal, self.apply, self.machine = MemoryJournal(disk), ManualApply(), machine or ListMachine()
        self.out: list[tuple[str, ZaibeiError]] = []
        self.group = GroupLog(
            name,
            self.journal,
            self.machine,
            self.apply,
            limits=limits,
            run_blocking=inline,
            reopen=self.machine.reopen,
            on_out_of_service=lambda group, error: self.out.append((group, error)),
        )

    async def settle(self) -> None:
        """Flush and apply until nothing moves."""
        for _ in range(4):
            await asyncio.sleep(0)
            self.journal.flush()
            await asyncio.sleep(0)
            while self.apply.step():  # noqa: ASYNC110  lets the group hear of each outcome
                await asyncio.sleep(0)

    async def started(self) -> StartReport:
        return await self.while_settling(asyncio.ensure_future(self.group.start()))

    async def while_settling(self, task: asyncio.Future[StartReport]) -> StartReport:
        for _ in range(200):
            if task.done():
                break
            await self.settle()
        return await asyncio.wait_for(task, 5)


async def test_satisfies_the_port() -> None:
    rig = Rig()
    port: Consensus = rig.group
    assert (port.phase, port.leader, port.pressure) == (GroupPhase.NEW, False, True)


async def test_nothing_is_admitted_before_the_first_entry_of_the_own_term_is_applied() -> None:
    """SEMANTICS 2.1."""
    rig = Rig()
    start = asyncio.ensure_future(rig.group.start())
    await asyncio.sleep(0)
    for flushed in (False, True):  # before the flush, and before the machine applied it
        if flushed:
            rig.journal.flush()
        await asyncio.sleep(0)
        assert rig.group.phase in (GroupPhase.FOLLOWING, GroupPhase.ELECTING)
        with pytest.raises(ZaibeiError) as caught:
            rig.group.propose(b"too early")
        assert (caught.value.code, caught.value.trouble.retry) == (Code.UNREACHABLE, True)
    report = await rig.while_settling(start)
    assert rig.machine.data() == [NO_OP] and rig.group.leader
    assert (report.term, report.replayed, report.warning) == (1, 0, "")


async def test_committed_ends_after_the_flush_and_applied_after_the_machine() -> None:
    rig = Rig()
    await rig.started()
    proposal = rig.group.propose(b"one")
    await asyncio.sleep(0)
    assert not proposal.committed.done(), "promise 1: nothing is acknowledged before the flush"
    rig.journal.flush()
    await asyncio.sleep(0)
    assert proposal.committed.result() == 2 and not proposal.applied.done()
    rig.apply.step()
    await asyncio.sleep(0)
    assert proposal.applied.result().kind is OutcomeKind.APPLIED


async def test_a_restart_replays_what_the_store_lacks_then_takes_a_new_term() -> None:
    rig = Rig()
    await rig.started()
    for data in (b"a", b"b", b"c"):
        rig.group.propose(data)
    await rig.settle()
    survivor = ListMachine(rig.machine.entries[:2])
    again = Rig(rig.journal.disk, survivor)
    report = await again.started()
    assert survivor.data() == [NO_OP, b"a", b"b", b"c", NO_OP]
    assert [entry.term for entry in survivor.entries] == [1, 1, 1, 1, 2]
    assert (report.term, report.replayed) == (2, 2)


async def test_replay_goes_in_bounded_chunks() -> None:
    rig = Rig()
    await rig.started()
    for number in range(6):
        rig.group.propose(b"%d" % number * 100)
        await rig.settle()
    again = Rig(rig.journal.disk, ListMachine(), GroupLimits(replay_octets_max=150))
    assert (await again.started()).replayed == 7
    assert len(again.machine.entries) == 8


async def test_proposals_over_the_limits_are_refused_and_pressure_rises_before() -> None:
    rig = Rig()
    await rig.started()
    assert not rig.group.pressure
    pressed = []
    for _ in range(8):
        rig.group.propose(b"x")
        pressed.append(rig.group.pressure)
    assert pressed == [False] * 3 + [True] * 5, "at half the limit"
    with pytest.raises(ZaibeiError) as caught:
        rig.group.propose(b"x")
    assert (caught.value.code, caught.value.trouble.definite, caught.value.trouble.retry) == (Code.BUSY, True, True)
    await asyncio.sleep(0)
    rig.journal.flush()
    await asyncio.sleep(0)
    seen = [rig.group.pressure]
    while rig.apply.step():
        await asyncio.sleep(0)
        seen.append(rig.group.pressure)
    assert seen == [True] * 6 + [False] * 3, "falls only at a quarter of the limit"


async def test_octets_in_flight_are_limited_too() -> None:
    rig = Rig()
    await rig.started()
    rig.group.propose(b"x" * 900)
    assert rig.group.pressure
    with pytest.raises(ZaibeiError, match="in flight"):
        rig.group.propose(b"x" * 101)
    await rig.settle()
    rig.group.propose(b"x" * 1_000)


async def test_an_entry_over_1_mib_is_refused() -> None:
    rig = Rig(limits=GroupLimits())
    await rig.started()
    rig.group.propose(b"x" * ENTRY_OCTETS_MAX)
    with pytest.raises(ZaibeiError) as caught:
        rig.group.propose(b"x" * (ENTRY_OCTETS_MAX + 1))
    assert caught.value.code is Code.MALFORMED


async def test_a_busy_machine_presses_and_its_entry_is_applied_once() -> None:
    rig = Rig()
    await rig.started()
    rig.machine.faults = [BUSY, BUSY]
    proposal = rig.group.propose(b"x")
    await asyncio.sleep(0)
    rig.journal.flush()
    await asyncio.sleep(0)
    rig.apply.step()
    await asyncio.sleep(0)
    assert rig.group.pressure
    await rig.settle()
    assert (await proposal.applied).detail == "2" and not rig.group.pressure
    assert rig.machine.data() == [NO_OP, b"x"]


async def test_damage_ends_the_group_and_its_futures() -> None:
    rig = Rig()
    await rig.started()
    first, second = rig.group.propose(b"1"), rig.group.propose(b"2")
    rig.machine.faults = [ZaibeiError(Code.DAMAGED, "block 7")]
    rig.journal.flush()
    third = rig.group.propose(b"3")
    await rig.settle()
    assert first.committed.result() == 2, "it is in the log: a restart applies it"
    assert [(await proposal.applied).kind for proposal in (first, second, third)] == [OutcomeKind.UNKNOWN] * 3
    with pytest.raises(ZaibeiError, match="block 7"):
        rig.group.propose(b"x")
    assert rig.group.phase is GroupPhase.OUT_OF_SERVICE and [error.code for _, error in rig.out] == [Code.DAMAGED]
    await rig.group.stop()


async def test_a_failed_journal_leaves_unknown_outcomes_and_refuses_all_later() -> None:
    rig = Rig()
    await rig.started()
    proposal = rig.group.propose(b"1")
    rig.journal.fail(ZaibeiError(Code.DISK_FAILED, "EIO"))
    await rig.settle()
    assert (await proposal.applied).kind is OutcomeKind.UNKNOWN
    with pytest.raises(ZaibeiError) as caught:
        await proposal.committed
    assert not caught.value.trouble.definite
    with pytest.raises(ZaibeiError, match="EIO"):
        rig.group.propose(b"2")


async def test_a_refusing_journal_is_told_to_the_caller() -> None:
    rig = Rig()
    await rig.started()
    rig.journal.refusal = ZaibeiError(Code.DISK_FULL, "full", retry=True)
    assert rig.group.pressure
    with pytest.raises(ZaibeiError, match="full"):
        rig.group.propose(b"1")
    rig.journal.refusal = None
    rig.group.propose(b"1")


# ---------------------------------------------------------------------------------------------------- flush and truncation
def held(rig: Rig) -> list[int]:
    return sorted(rig.journal.disk.groups["g"].entries)


async def test_truncates_only_behind_what_was_applied_before_the_flush() -> None:
    """SEMANTICS 11.2: durable_applied is read before the flush; what is applied while it runs must stay in the journal."""
    rig = Rig()
    await rig.started()
    rig.group.propose(b"1")
    await rig.settle()

    async def slowly(work: Callable[[], T], /) -> T:
        flushed = work()
        rig.group.propose(b"2")
        await rig.settle()
        assert rig.machine.data()[-1] == b"2"
        return flushed

    rig.group._run_blocking = slowly
    await rig.group.maintain()
    await rig.settle()
    assert held(rig) == [3]


async def test_keeps_what_a_side_generation_still_needs() -> None:
    rig = Rig()
    await rig.started()
    for data in (b"1", b"2", b"3"):
        rig.group.propose(data)
    await rig.settle()
    rig.machine.keep = 3
    await rig.group.maintain()
    await rig.settle()
    assert held(rig) == [3, 4]
    rig.machine.keep = None
    rig.group.propose(b"4")
    await rig.settle()
    await rig.group.maintain()
    await rig.settle()
    assert held(rig) == []


async def test_flushes_by_size_without_being_asked() -> None:
    rig = Rig(limits=GroupLimits(flush_octets=250))
    await rig.started()
    for _ in range(5):
        rig.group.propose(b"x" * 100)
        await rig.settle()
    assert rig.machine.flushes == 1 and held(rig) == [5, 6]


async def test_a_journal_that_may_not_be_truncated_presses() -> None:
    rig = Rig(limits=GroupLimits(keep_octets_max=500))
    await rig.started()
    rig.machine.keep = 1
    for _ in range(5):
        rig.group.propose(b"x" * 100)
        await rig.settle()
    assert rig.group.pressure


async def test_a_flush_that_must_wait_is_tried_again_and_one_that_fails_ends_the_group() -> None:
    rig = Rig()
    await rig.started()

    def full() -> None:
        raise ZaibeiError(Code.DISK_FULL, "full", retry=True)

    rig.machine.before_flush = full
    await rig.group.maintain()
    assert rig.group.leader and held(rig) == [1]

    def failed() -> None:
        raise ZaibeiError(Code.DISK_FAILED, "EIO")

    rig.machine.before_flush = failed
    await rig.group.maintain()
    assert rig.group.phase is GroupPhase.OUT_OF_SERVICE


async def test_groups_that_start_together_flush_apart() -> None:
    """All at once they take the disk and the budget of memtables together: every write waits behind them."""
    now_s, interval_s = asyncio.get_running_loop().time(), LIMITS.flush_interval_s
    rigs = [Rig(name=f"node-{number}") for number in range(8)]
    delays = []
    for rig in rigs:
        await rig.started()
        assert rig.group._timer is not None
        delays.append((rig.group._timer.when() - now_s) / interval_s)
        rig.group._on_timer()
        assert (rig.group._timer.when() - now_s) / interval_s == pytest.approx(1, abs=0.2), "from then on an interval apart"
    assert min(delays) > 0.4 and max(delays) < 1.7 and len({int(delay * 10) for delay in delays}) >= 4, delays


# ------------------------------------------------------------------------------------------- a store on a full disk
FULL = ZaibeiError(Code.DISK_FULL, "full", retry=True)


async def test_a_store_that_was_reopened_gets_again_what_it_lost() -> None:
    """Trap d: the database comes back at what it had durably; the journal gives the rest, in order, each once."""
    rig = Rig()
    await rig.started()
    for data in (b"1", b"2", b"3"):
        rig.group.propose(data)
    await rig.settle()
    rig.machine.durable = 2
    rig.machine.failed = True
    late = [rig.group.propose(data) for data in (b"4", b"5")]
    await asyncio.sleep(0)
    rig.journal.flush()
    rig.machine.faults = [FULL, FULL]
    await asyncio.sleep(0)
    rig.apply.step()
    await asyncio.sleep(0)
    assert rig.group.pressure
    early = rig.group.propose(b"6")  # arrives while the store is behind
    rig.journal.flush()
    await rig.settle()
    await rig.settle()
    assert rig.machine.data() == [NO_OP, b"1", b"2", b"3", b"4", b"5", b"6"]
    assert [(await proposal.applied).detail for proposal in (*late, early)] == ["5", "6", "7"]
    assert not rig.group.pressure and rig.group.leader


async def test_a_store_that_lost_what_was_durable_ends_its_group() -> None:
    rig = Rig()
    await rig.started()
    rig.group.propose(b"1")
    await rig.settle()
    await rig.group.maintain()
    rig.machine.durable, rig.machine.failed = 0, True
    rig.group.propose(b"2")
    rig.machine.faults = [FULL]
    await rig.settle()
    assert rig.group.failure is not None and "had made 2 durable" in str(rig.group.failure)


# ------------------------------------------------------------------------------------------------------ what a start finds
async def with_entries(count: int) -> Rig:
    rig = Rig()
    await rig.started()
    for number in range(count - 1):
        rig.group.propose(b"%d" % number)
        await rig.settle()
    return rig


async def test_a_lost_acknowledged_entry_refuses_the_group_with_numbers_and_command() -> None:
    rig = await with_entries(6)
    del rig.journal.disk.groups["g"].entries[4]
    again = Rig(rig.journal.disk, ListMachine(rig.machine.entries[:2]))
    with pytest.raises(ZaibeiError, match="zaibei source reseed plan g"):
        await again.group.start()
    assert again.group.phase is GroupPhase.OUT_OF_SERVICE and len(again.out) == 1
    with pytest.raises(ZaibeiError, match="entries 4 to"):
        again.group.propose(b"x")
    await again.group.stop()


async def test_a_torn_tail_heals_and_its_rows_do_not_come_back() -> None:
    rig = await with_entries(4)
    rows = rig.journal.disk.groups["g"]
    rows.entries[8] = rows.entries[4]  # a row behind a hole
    again = Rig(rig.journal.disk, ListMachine(rig.machine.entries))
    report = await again.started()
    assert "torn" in report.warning and not report.loss_possible
    assert held(again) == [1, 2, 3, 4, 5]


async def test_a_lost_journal_goes_on_at_the_stores_index() -> None:
    rig = await with_entries(4)
    again = Rig(MemoryDisk(), ListMachine(rig.machine.entries))
    report = await again.started()
    assert report.loss_possible and held(again) == [5]
    assert again.machine.entries[-1].term == 2
    third = Rig(again.journal.disk, ListMachine(again.machine.entries))
    assert not (await third.started()).loss_possible


# -------------------------------------------------------------------------------------------------------------------- stop
async def test_stop_finishes_what_is_in_flight_then_flushes_and_truncates() -> None:
    rig = Rig()
    await rig.started()
    proposal = rig.group.propose(b"1")
    stopping = asyncio.ensure_future(rig.group.stop())
    await rig.settle()
    await stopping
    assert (await proposal.applied).kind is OutcomeKind.APPLIED
    assert rig.machine.flushes == 1
    with pytest.raises(ZaibeiError) as caught:
        rig.group.propose(b"2")
    assert caught.value.code is Code.STOPPING
    await rig.group.stop()


async def test_what_stop_cannot_finish_ends_unknown() -> None:
    rig = Rig()
    await rig.started()
    proposal = rig.group.propose(b"1")
    await rig.group.stop()
    assert (await proposal.applied).kind is OutcomeKind.UNKNOWN
    with pytest.raises(ZaibeiError) as caught:
        await proposal.committed
    assert not caught.value.trouble.definite


async def test_stop_while_starting_ends_the_start() -> None:
    rig = Rig()
    start = asyncio.ensure_future(rig.group.start())
    await asyncio.sleep(0)
    await rig.group.stop()
    with pytest.raises(ZaibeiError, match="stopped while it started"):
        await start


async def test_a_machine_that_skips_is_a_broken_invariant() -> None:
    rig = Rig()
    await rig.started()
    with pytest.raises(InvariantBroken):
        rig.group._on_applied(LogEntry(5, 1, b""), [], 0)


async def test_a_fault_of_ours_in_the_work_of_a_group_takes_it_out_of_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the core asked for is half done: a group that went on would answer from a log nobody can vouch for."""
    rig = Rig()
    await rig.started()

    def fails(_duties: object) -> None:
        raise KeyError("planted")

    monkeypatch.setattr(rig.group, "_carry_out", fails)
    proposal = rig.group.propose(NO_OP)
    await rig.settle()
    assert [group for group, _ in rig.out] == ["g"]
    assert rig.group.failure is not None and "planted" in str(rig.group.failure)
    assert (await asyncio.wait_for(proposal.applied, 30)).kind is OutcomeKind.UNKNOWN
