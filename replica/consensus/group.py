"""GroupLog: the log of one group with one member, behind the Consensus port.

A proposal travels: propose -> journal (flushed = committed: one is the majority of one) -> apply lane -> outcome. All state lives
on the event loop; the journal's and the apply thread's calls hop over with `call_soon_threadsafe`. No clock, thread or file here.

    proposed .. last       waiting for the flush      -> `committed` futures
    committed .. applied   waiting for the machine    -> `applied` futures
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from replica.consensus.group_limits import GroupLimits, RunBlocking, in_a_thread
from replica.consensus.port import (
    ENTRY_OCTETS_MAX,
    ApplyPort,
    GroupPhase,
    HardState,
    JournalPort,
    Reopen,
    StartReport,
    StateMachine,
    check_group_move,
)
from replica.consensus.recovery import RESEED_COMMAND, StartPlan, plan_start
from replica.model.errors import Code, ZaibeiError, require
from replica.model.outcome import LogEntry, Outcome, OutcomeKind, Proposal
from replica.v1 import entry_pb2


def _no_news(_group: str, _error: ZaibeiError) -> None:
    """Default of `on_out_of_service`; `failure` and every later proposal say the same."""


def _first_entry() -> bytes:
    return entry_pb2.Entry(format=1, no_op=entry_pb2.NoOp()).SerializeToString()


class GroupLog:
    """Log of a group whose only member we are. Satisfies Consensus.

    Args:
        group: its name (for a source's group the source's name).
        run_blocking: runs reads of the journal and flushes of the machine away from the event loop.
        reopen: lets the machine recover from a full disk; see port.Reopen.
        on_out_of_service: called once on the event loop when only this group can no longer go on.
        first_entry: octets of a term's first entry.
    """

    def __init__(
        self,
        group: str,
        journal: JournalPort,
        machine: StateMachine,
        apply: ApplyPort,
        *,
        limits: GroupLimits | None = None,
        run_blocking: RunBlocking = in_a_thread,
        reopen: Reopen | None = None,
        on_out_of_service: Callable[[str, ZaibeiError], None] = _no_news,
        first_entry: Callable[[], bytes] = _first_entry,
        reseed_command: str = RESEED_COMMAND,
    ) -> None:
        self._group, self._journal, self._machine, self._apply = group, journal, machine, apply
        self._limits = limits or GroupLimits()
        self._run_blocking, self._on_out_of_service, self._reopen = run_blocking, on_out_of_service, reopen
        self._first_entry, self._reseed_command = first_entry, reseed_command
        self._phase = GroupPhase.NEW
        self._failure: ZaibeiError | None = None
        self._term = self._last = self._committed = self._applied = self._durable = 0
        self._pending: deque[tuple[LogEntry, Proposal]] = deque()  # not committed
        self._waiting: deque[tuple[LogEntry, asyncio.Future[Outcome]]] = deque()  # committed, not applied
        self._in_flight_octets = 0
        self._pressed = self._machine_busy = False
        self._unflushed_octets = 0
        self._flushing = self._rewinding = False
        self._rewinds = 0
        self._moved = asyncio.Event()  # set at each progress; `start` and `stop` wait on it
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------------------------------------ what others read
    @property
    def group(self) -> str:
        return self._group

    @property
    def phase(self) -> GroupPhase:
        return self._phase

    @property
    def leader(self) -> bool:
        return self._phase is GroupPhase.LEADING

    @property
    def term(self) -> int:
        return self._term

    @property
    def last(self) -> int:
        return self._last

    @property
    def committed(self) -> int:
        return self._committed

    @property
    def applied(self) -> int:
        return self._applied

    @property
    def failure(self) -> ZaibeiError | None:
        return self._failure

    @property
    def pressure(self) -> bool:
        """See Consensus. Also while the disk is full, the store asks to wait, or the journal may not be truncated."""
        if self._phase is not GroupPhase.LEADING or self._machine_busy or self._journal.refusal is not None:
            return True
        share = self._load_share()
        if self._pressed:
            self._pressed = share > self._limits.pressure_off_share
        else:
            self._pressed = share >= self._limits.pressure_on_share
        return self._pressed or self._log.octets >= self._limits.keep_octets_max

    @property
    def waits(self) -> ZaibeiError | None:
        """Why intake waits until somebody makes room on a disk; None: it does not. It goes on by itself then."""
        lane = None if self._phase is GroupPhase.NEW else self._lane.waits
        full = [why for why in (self._journal.refusal, lane) if why is not None and why.code is Code.DISK_FULL]
        return full[0] if full else None

    def _load_share(self) -> float:
        entries = len(self._pending) + len(self._waiting)
        return max(entries / self._limits.in_flight_entries_max, self._in_flight_octets / self._limits.in_flight_octets_max)

    # ------------------------------------------------------------------------------------------------------------ start
    async def start(self) -> StartReport:
        """See Consensus."""
        self._loop = asyncio.get_running_loop()
        self._lane = self._apply.lane(self._machine, _LaneEars(self), self._reopen)
        try:
            self._log = self._journal.attach(self._group, _JournalEars(self))
            plan = plan_start(self._group, self._log.recovered, self._machine.applied(), reseed_command=self._reseed_command)
        except ZaibeiError as exc:
            self._out_of_service(exc)
            raise
        self._move(GroupPhase.REPLAYING)
        self._prepare(plan)
        await self._replay(plan)
        self._move(GroupPhase.ELECTING)
        self._append(self._first_entry(), HardState(self._term, 0, self._journal.boot))
        await self._until(lambda: self._applied == self._last)
        self._move(GroupPhase.LEADING)
        self._arm_timer()
        replayed = max(0, plan.replay_to - plan.replay_from + 1)
        return StartReport(self._group, self._term, replayed, plan.warning, plan.loss_possible)

    def _prepare(self, plan: StartPlan) -> None:
        if plan.restart_at is not None:
            self._log.restart_at(*plan.restart_at)
        if plan.cut_after is not None:
            self._log.cut_after(plan.cut_after)
        self._term = plan.term
        self._last = self._committed = plan.replay_to
        self._applied = self._durable = plan.replay_from - 1

    async def _replay(self, plan: StartPlan) -> None:
        """Apply what the store lacks, a bounded chunk at a time."""
        first = plan.replay_from
        while first <= plan.replay_to:
            first = await self._replay_chunk(first, plan.replay_to)

    async def _replay_chunk(self, first: int, last: int) -> int:
        """Apply some entries from `first` on; returns the first one left."""
        try:
            chunk = await self._run_blocking(lambda: self._log.read(first, self._limits.replay_octets_max))
        except ZaibeiError as exc:
            if exc.trouble.retry:
                await asyncio.sleep(self._limits.read_retry_s)
                return first
            self._out_of_service(exc)
            raise
        chunk = [entry for entry in chunk if entry.index <= last]
        rewinds = self._rewinds
        self._lane.submit(chunk)
        await self._until(lambda: self._applied >= chunk[-1].index or self._rewinds != rewinds)
        return self._applied + 1

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Wait for progress; raises as soon as the group cannot go on."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._phase in (GroupPhase.STOPPING, GroupPhase.STOPPED):
                raise ZaibeiError(Code.STOPPING, f"group {self._group} was stopped while it started", retry=True)
            if reached():
                return
            self._moved.clear()
            await self._moved.wait()

    # ---------------------------------------------------------------------------------------------------------- propose
    def propose(self, entry: entry_pb2.Entry | bytes) -> Proposal:
        """See Consensus."""
        data = entry if isinstance(entry, bytes) else entry.SerializeToString()
        self._check_admission(len(data))
        return self._append(data)

    def _check_admission(self, octets: int) -> None:
        if self._failure is not None:
            raise self._failure
        if self._phase in (GroupPhase.STOPPING, GroupPhase.STOPPED):
            raise ZaibeiError(Code.STOPPING, f"group {self._group} is stopping: again after the restart", retry=True)
        if self._phase is not GroupPhase.LEADING:
            raise ZaibeiError(Code.UNREACHABLE, f"group {self._group} has not applied its term's first entry yet", retry=True)
        if (refusal := self._journal.refusal) is not None:
            raise refusal
        if octets > ENTRY_OCTETS_MAX:
            raise ZaibeiError(Code.MALFORMED, f"an entry of {octets} octets is over {ENTRY_OCTETS_MAX}")
        in_flight = len(self._pending) + len(self._waiting)
        limits = self._limits
        if self._in_flight_octets + octets > limits.in_flight_octets_max or in_flight >= limits.in_flight_entries_max:
            raise ZaibeiError(
                Code.BUSY, f"group {self._group} has {in_flight} entries, {self._in_flight_octets} octets in flight", retry=True
            )

    def _append(self, data: bytes, hard: HardState | None = None) -> Proposal:
        proposal = Proposal(self._loop.create_future(), self._loop.create_future())
        proposal.committed.add_done_callback(_retrieve)  # a caller may care for `applied` only
        self._last += 1
        entry = LogEntry(self._last, self._term, data)
        self._pending.append((entry, proposal))
        self._in_flight_octets += len(data)
        self._log.append((entry,), hard)
        return proposal

    # --------------------------------------------------------------------------------------------- news from the threads
    def _on_flushed(self, index: int) -> None:
        """One is the majority of one: flushed is committed."""
        ready: list[LogEntry] = []
        while self._pending and self._pending[0][0].index <= index:
            entry, proposal = self._pending.popleft()
            self._waiting.append((entry, proposal.applied))
            ready.append(entry)
            if not proposal.committed.done():
                proposal.committed.set_result(entry.index)
        if not ready:
            return
        self._committed = ready[-1].index
        if not self._rewinding:  # else they are read from the journal when their turn comes
            self._lane.submit(ready)
        self._moved.set()

    def _on_applied(self, last: LogEntry, outcomes: Sequence[Outcome], octets: int) -> None:
        require(last.index == self._applied + len(outcomes), "entries are applied in order, each once")
        first = self._applied + 1
        self._applied = last.index
        self._unflushed_octets += octets
        for place, outcome in enumerate(outcomes, first):
            if self._waiting and self._waiting[0][0].index == place:  # replayed entries have nobody waiting
                entry, future = self._waiting.popleft()
                self._in_flight_octets -= len(entry.data)
                if not future.done():
                    future.set_result(outcome)
        self._moved.set()
        if self._unflushed_octets >= self._limits.flush_octets:
            self._maintain_soon()

    def _on_rewound(self, index: int) -> None:
        """The machine went back to what it had durably: the journal has the rest."""
        if index < self._durable:
            what = f"the store of {self._group} had made {self._durable} durable and stands at {index} after it was reopened"
            self._out_of_service(ZaibeiError(Code.DAMAGED, what))
            return
        self._applied = index
        self._rewinds += 1
        self._moved.set()
        if not self._rewinding and self._phase is not GroupPhase.REPLAYING:  # a replay that runs goes back by itself
            self._rewinding = True
            self._run_task(self._replay_lost())

    async def _replay_lost(self) -> None:
        try:
            while self._applied < self._committed:
                await self._replay_chunk(self._applied + 1, self._committed)
        except ZaibeiError as exc:
            if self._phase is GroupPhase.LEADING or exc.code is not Code.STOPPING:
                self._out_of_service(exc)
        finally:
            self._rewinding = False

    def _on_busy(self, waiting: bool) -> None:
        self._machine_busy = waiting

    def _out_of_service(self, error: ZaibeiError) -> None:
        """Only this group ends; what it had in flight ends UNKNOWN."""
        if self._failure is not None or self._phase is GroupPhase.STOPPED:
            return
        self._failure = error
        self._move(GroupPhase.OUT_OF_SERVICE)
        self._lane.close()
        self._end_in_flight(error)
        self._moved.set()
        self._on_out_of_service(self._group, error)

    def _end_in_flight(self, error: ZaibeiError) -> None:
        unknown = Outcome(OutcomeKind.UNKNOWN, None, str(error))
        indefinite = ZaibeiError(error.code, error.trouble.message, definite=False, retry=error.trouble.retry)
        for _, proposal in self._pending:
            if not proposal.committed.done():
                proposal.committed.set_exception(indefinite)
            if not proposal.applied.done():
                proposal.applied.set_result(unknown)
        for _, future in self._waiting:
            if not future.done():
                future.set_result(unknown)
        self._pending.clear()
        self._waiting.clear()
        self._in_flight_octets = 0

    # ------------------------------------------------------------------------------------------------- flush and truncate
    async def maintain(self) -> None:
        """Make the store durable and drop the journal's entries behind it. Called by size and by time; harmless at any time."""
        if self._flushing or self._applied == self._durable or self._failure is not None:
            return
        self._flushing = True
        self._unflushed_octets = 0
        try:
            self._durable = await self._run_blocking(self._machine.flush)
        except ZaibeiError as exc:
            if not exc.trouble.retry:
                self._out_of_service(exc)
            return
        finally:
            self._flushing = False
        keep = self._machine.keep_from()
        self._log.truncate(self._durable if keep is None else min(self._durable, keep - 1))

    def _maintain_soon(self) -> None:
        if not self._flushing and self._phase in (GroupPhase.LEADING, GroupPhase.REPLAYING):
            self._run_task(self.maintain())

    def _run_task(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:  # a bug: this group must not go on
            self._out_of_service(ZaibeiError(Code.DAMAGED, f"flushing or replaying the store of {self._group} failed: {exc!r}"))

    def _arm_timer(self) -> None:
        self._timer = self._loop.call_later(self._limits.flush_interval_s, self._on_timer)

    def _on_timer(self) -> None:
        if self._phase is GroupPhase.LEADING:
            self._maintain_soon()
            self._arm_timer()

    # ------------------------------------------------------------------------------------------------------------- stop
    async def stop(self) -> None:
        """See Consensus. A clean stop flushes the machine, so that the next start has little to replay."""
        if self._timer is not None:
            self._timer.cancel()
        if self._phase in (GroupPhase.REPLAYING, GroupPhase.ELECTING, GroupPhase.LEADING):
            self._move(GroupPhase.STOPPING)
            self._moved.set()
            try:
                async with asyncio.timeout(self._limits.stop_drain_s_max):
                    await self._drained()
                await self.maintain()
            except TimeoutError:
                pass  # what is left ends UNKNOWN below
        if self._phase is GroupPhase.STOPPED:
            return
        if self._phase is not GroupPhase.NEW:
            self._lane.close()
        self._move(GroupPhase.STOPPED)
        self._end_in_flight(ZaibeiError(Code.STOPPING, f"group {self._group} stopped before the outcome was known", retry=True))
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _drained(self) -> None:
        while (self._pending or self._waiting) and self._failure is None:
            self._moved.clear()
            await self._moved.wait()

    def _move(self, phase: GroupPhase) -> None:
        check_group_move(self._phase, phase)
        self._phase = phase

    def hop(self, call: Callable[..., None], *arguments: object) -> None:
        """Run `call` on the event loop; news that come after the loop closed concern nobody."""
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            require(self._loop.is_closed(), "only a closed loop takes no calls")


def _retrieve(future: asyncio.Future[int]) -> None:
    """Mark an exception as seen."""
    if not future.cancelled():
        future.exception()


@dataclass(frozen=True, slots=True)
class _JournalEars:
    """JournalListener of a group: hops to its event loop."""

    owner: GroupLog

    def saved(self, number: int) -> None:
        """No save of this log has a number."""

    def flushed(self, index: int) -> None:
        self.owner.hop(self.owner._on_flushed, index)

    def refused(self, error: ZaibeiError) -> None:
        self.owner.hop(self.owner._out_of_service, error)


@dataclass(frozen=True, slots=True)
class _LaneEars:
    """LaneListener of a group: hops to its event loop."""

    owner: GroupLog

    def applied(self, last: LogEntry, outcomes: Sequence[Outcome], octets: int) -> None:
        self.owner.hop(self.owner._on_applied, last, outcomes, octets)

    def busy(self, waiting: bool) -> None:
        self.owner.hop(self.owner._on_busy, waiting)

    def rewound(self, index: int) -> None:
        self.owner.hop(self.owner._on_rewound, index)

    def broken(self, error: ZaibeiError) -> None:
        self.owner.hop(self.owner._out_of_service, error)
