"""GroupLog: the log of one group on this member, behind the Consensus port. A group of one member is the same with nobody to ask.

    propose -> core -> journal (saved) -> others' acknowledgements -> committed -> pump -> apply lane -> outcome

The core decides and does nothing (raft/); here its duties are carried out in their order. All state lives on the event loop; the
journal's and the apply thread's calls hop over with `call_soon_threadsafe`. No clock, thread or file here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from replica.consensus.group_limits import GroupLimits, RunBlocking, in_a_thread
from replica.consensus.hello import Saved, hard_at_start
from replica.consensus.log_tail import LogTail
from replica.consensus.membership_row import decode_membership, encode_membership
from replica.consensus.port import (
    ENTRY_OCTETS_MAX,
    KEPT_MEMBERSHIP,
    ApplyPort,
    GroupJournal,
    GroupPhase,
    HardState,
    JournalPort,
    Recovered,
    Reopen,
    StartReport,
    StateMachine,
    check_group_move,
)
from replica.consensus.proposals import ProposalBook
from replica.consensus.pump import ApplyPump
from replica.consensus.raft.core import RaftCore
from replica.consensus.raft.membership import ChangeRefused, Membership, MembershipChange, change_membership
from replica.consensus.raft.values import CoreConfig, CoreStart, Dropped, Duties, Message, NotLeader, Role
from replica.consensus.recovery import RESEED_COMMAND, StartPlan, plan_rejoin, plan_start
from replica.consensus.seat import ALONE, GroupSeat
from replica.model.errors import Code, ZaibeiError, require
from replica.model.outcome import EntryKind, LogEntry, Outcome, Proposal
from replica.v1 import entry_pb2

SAVE_ANEW = 2**62  # number of the save with which a member that was fed anew begins
CHANGING = (GroupPhase.FOLLOWING, GroupPhase.ELECTING, GroupPhase.LEADING)


def _no_news(_group: str, _error: ZaibeiError) -> None:
    """Default of `on_out_of_service`; `failure` and every later proposal say the same."""


def _nobody(_leading: bool) -> None:
    """Default of `on_role`."""


def _first_entry() -> bytes:
    return entry_pb2.Entry(format=1, no_op=entry_pb2.NoOp()).SerializeToString()


class GroupLog:
    """Log of a group on this member. Satisfies Consensus.

    Args:
        group: its name (for a source's group the source's name).
        run_blocking: runs reads of the journal and flushes of the machine away from the event loop.
        reopen: lets the machine recover from a full disk; see port.Reopen.
        on_out_of_service: called once on the event loop when only this group can no longer go on.
        on_role: called with True when proposals begin to be admitted here, with False when they end.
        first_entry: octets of a term's first entry.
        seat: which member this is, who the first voters are, and the way to the others.
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
        on_role: Callable[[bool], None] = _nobody,
        first_entry: Callable[[], bytes] = _first_entry,
        reseed_command: str = RESEED_COMMAND,
        seat: GroupSeat = ALONE,
    ) -> None:
        self._group, self._journal, self._machine, self._apply = group, journal, machine, apply
        self._limits, self.seat = limits or GroupLimits(), seat
        self._run_blocking, self._on_out_of_service, self._reopen = run_blocking, on_out_of_service, reopen
        self._on_role, self._first_entry, self._reseed_command = on_role, first_entry, reseed_command
        self._phase = GroupPhase.NEW
        self._failure: ZaibeiError | None = None
        self._book = ProposalBook()
        self._pump: ApplyPump | None = None
        self._core: RaftCore | None = None
        self._after: deque[tuple[int, Sequence[Message]]] = deque()  # (save, what may leave after it)
        self._led: tuple[int, int] = (0, 0)  # (term, index of its first entry) when we became leader
        self._durable = 0
        self._pressed = self._machine_busy = False
        self._unflushed_octets = 0
        self._flushing = self._touched = self._fetching = False
        self._moved = asyncio.Event()  # set at each progress; `start` and `stop` wait on it
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._changes: dict[int, asyncio.Future[Membership]] = {}
        self._reads: dict[bytes, asyncio.Future[int]] = {}
        self._read_serial = 0
        self._hard_term = 0
        self._anew = asyncio.Event()

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
    def leader_id(self) -> int:
        """Number of the member that leads as far as we know; 0: unknown."""
        return self._core.leader if self._core is not None else 0

    @property
    def term(self) -> int:
        return self._core.term if self._core is not None else 0

    @property
    def last(self) -> int:
        return self._core.last_index if self._core is not None else 0

    @property
    def committed(self) -> int:
        return self._pump.committed if self._pump is not None else 0

    @property
    def applied(self) -> int:
        return self._pump.applied if self._pump is not None else 0

    @property
    def core(self) -> RaftCore:
        """Of a group that was started."""
        require(self._core is not None, f"group {self._group} was not started")
        return self._core  # type: ignore[return-value]

    @property
    def membership(self) -> Membership:
        """As far as it is committed here."""
        return self._core.membership if self._core is not None else self.seat.birth

    @property
    def core_role(self) -> Role:
        return self._core.role if self._core is not None else Role.FOLLOWER

    @property
    def saved_index(self) -> int:
        """Last index that is on disk here."""
        return self._core.saved_index if self._core is not None else 0

    @property
    def saved_state(self) -> Saved:
        """What is on our disk of this group."""
        last = self.saved_index
        return Saved(self._hard_term, last, self._log.term_at(last) or 0)

    @property
    def found_state(self) -> Saved:
        """What was on our disk when the group started."""
        found = self._log.recovered
        return Saved(found.hard.term, found.last, found.last_term)

    @property
    def first_of_term(self) -> int:
        """Index of the first entry of the term in which we lead or led last."""
        return self._led[1]

    @property
    def hard_term(self) -> int:
        """Highest term whose hard state was handed to the journal."""
        return self._hard_term

    def forgotten(self, member: int) -> None:
        """A member began a new life: what it had matched in this term without entries of the term itself is worth nothing."""
        self._tell_core(lambda core: core.memory_lost(member))

    @property
    def recovered(self) -> Recovered:
        """What the journal held at the start."""
        return self._log.recovered

    @property
    def part(self) -> GroupJournal | None:
        """Our part of the journal; None: not started."""
        return self._log if self._core is not None else None

    def matched(self, member: int) -> int:
        """Last index a member holds as far as this leader knows; 0: not known."""
        progress = self._core.progress(member) if self._core is not None else None
        return progress.match if progress is not None else 0

    def membership_at(self, index: int) -> Membership:
        return self._tail.membership_at(index)

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
        lane = None if self._pump is None else self._pump.waits
        full = [why for why in (self._journal.refusal, lane) if why is not None and why.code is Code.DISK_FULL]
        return full[0] if full else None

    def _load_share(self) -> float:
        octets = self._book.octets / self._limits.in_flight_octets_max
        return max(len(self._book) / self._limits.in_flight_entries_max, octets)

    # ------------------------------------------------------------------------------------------------------------ start
    async def start(self) -> StartReport:
        """See Consensus."""
        self._loop = asyncio.get_running_loop()
        try:
            self._log = self._journal.attach(self._group, _JournalEars(self))
            kept = self._log.recovered.kept.get(KEPT_MEMBERSHIP)
            place, membership = decode_membership(kept) if kept else (0, self.seat.birth)
            alone = membership.voters == {self.seat.member} and not membership.joint
            plan = (plan_start if alone else plan_rejoin)(
                self._group, self._log.recovered, self._machine.applied(), reseed_command=self._reseed_command
            )
        except ZaibeiError as exc:
            self._out_of_service(exc)
            raise
        self._move(GroupPhase.REPLAYING)
        self._prepare(plan, place, membership)
        await self._replay(plan, place)
        self._begin_core(plan, alone)
        self._move(GroupPhase.FOLLOWING)
        self._arm_timer()
        if alone:
            self.core.campaign()
            self._touch()
            await self._until(lambda: self.leader)
        replayed = max(0, plan.replay_to - plan.replay_from + 1)
        return StartReport(self._group, self.term, replayed, plan.warning, plan.loss_possible)

    def _prepare(self, plan: StartPlan, place: int, membership: Membership) -> None:
        if plan.restart_at is not None:
            self._log.restart_at(*plan.restart_at)
        if plan.cut_after is not None:
            self._log.cut_after(plan.cut_after)
        self._tail = LogTail(self._log, place, membership, self._fetch)
        self._durable = plan.replay_from - 1
        self._new_pump(plan.replay_from - 1)

    def _new_pump(self, applied: int) -> None:
        lane = self._apply.lane(self._machine, _LaneEars(self), self._reopen)
        self._pump = ApplyPump(
            self._log,
            lane,
            applied,
            self._limits,
            stand_in=self._first_entry(),
            run_blocking=self._run_blocking,
            run_task=self._run_task,
            broken=self._out_of_service,
            wait=asyncio.sleep,
        )

    async def _replay(self, plan: StartPlan, place: int) -> None:
        """Apply what the store lacks; learn of changes of the membership that came after the row that is kept of it."""
        first = max(self._log.floor, place) + 1
        while first <= plan.replay_to:
            chunk = await self._read_held(first)
            for entry in chunk:
                if entry.kind is EntryKind.MEMBERSHIP and entry.index <= plan.replay_to:
                    changed = change_membership(self._tail.membership[1], MembershipChange.decode(entry.data))
                    self._tail.changed(entry.index, changed.membership)
            first = chunk[-1].index + 1
        if self._pump is not None and plan.replay_to >= plan.replay_from:
            self._pump.offer_held(plan.replay_to)
        await self._until(lambda: self.applied >= plan.replay_to)

    async def _read_held(self, first: int) -> list[LogEntry]:
        while True:
            try:
                return await self._run_blocking(lambda: self._log.read(first, self._limits.replay_octets_max))
            except ZaibeiError as exc:
                if not exc.trouble.retry:
                    self._out_of_service(exc)
                    raise
            await asyncio.sleep(self._limits.read_retry_s)

    def _begin_core(self, plan: StartPlan, alone: bool) -> None:
        hard = self._log.recovered.hard
        term = plan.term - 1  # the core's first campaign takes plan.term
        began = HardState(term, hard.vote if hard.term == term else 0, self._journal.boot)
        self._hard_term = hard.term
        self._new_core(hard_at_start(began, self.seat.member), plan.replay_to)
        self.core.allow_elections(alone)  # otherwise memory of promises decides (hello.py)

    def _new_core(self, hard: HardState, applied: int) -> None:
        config = CoreConfig(
            member=self.seat.member,
            random=self.seat.random,
            first_entry=self._first_entry(),
            election_ticks=self.seat.election_ticks,
            heartbeat_ticks=self.seat.heartbeat_ticks,
        )
        self._core = RaftCore(config, self._tail, CoreStart(hard=hard, membership=self._tail.membership[1], applied=applied))

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
        self.seat.active()
        try:
            index, term = self.core.propose(data)
        except (NotLeader, Dropped) as exc:
            raise ZaibeiError(Code.BUSY, f"group {self._group} takes no entry at this moment: {exc}", retry=True) from exc
        self._touch()
        return self._book.add(index, term, len(data))

    def _check_admission(self, octets: int) -> None:
        if self._failure is not None:
            raise self._failure
        if self._phase in (GroupPhase.STOPPING, GroupPhase.STOPPED):
            raise ZaibeiError(Code.STOPPING, f"group {self._group} is stopping: again after the restart", retry=True)
        if self._phase is not GroupPhase.LEADING:
            raise ZaibeiError(Code.UNREACHABLE, self._why_not_leading(), retry=True)
        if (refusal := self._journal.refusal) is not None:
            raise refusal
        if octets > ENTRY_OCTETS_MAX:
            raise ZaibeiError(Code.MALFORMED, f"an entry of {octets} octets is over {ENTRY_OCTETS_MAX}")
        limits = self._limits
        if self._book.octets + octets > limits.in_flight_octets_max or len(self._book) >= limits.in_flight_entries_max:
            raise ZaibeiError(
                Code.BUSY,
                f"group {self._group} has {len(self._book)} entries, {self._book.octets} octets in flight",
                retry=True,
            )

    def _why_not_leading(self) -> str:
        if self._phase is not GroupPhase.FOLLOWING:
            return f"group {self._group} has not applied its term's first entry yet"
        leader = self.leader_id
        return f"group {self._group} is led by member {leader}" if leader else f"group {self._group} has no leader at this moment"

    def change(self, change: MembershipChange) -> asyncio.Future[Membership]:
        """Propose a change of the voters and learners; ends with the membership that holds once it is committed.

        Raises:
            ZaibeiError: UNREACHABLE (not leader), BUSY (another change is under way).
        """
        self._check_admission(0)
        self.seat.active()
        try:
            index, _ = self.core.propose_change(change)
        except (NotLeader, Dropped) as exc:
            raise ZaibeiError(Code.BUSY, f"group {self._group} takes no change at this moment: {exc}", retry=True) from exc
        except ChangeRefused as exc:
            raise ZaibeiError(Code.REFUSED, f"group {self._group}: {exc}") from exc
        future: asyncio.Future[Membership] = self._loop.create_future()
        self._changes[index] = future
        self._touch()
        return future

    def transfer(self, member: int) -> None:
        """Ask that `member` leads. Raises ZaibeiError(UNREACHABLE): we do not lead."""
        self._check_admission(0)
        self.seat.active()
        try:
            self.core.transfer(member)
        except (NotLeader, Dropped) as exc:
            raise ZaibeiError(Code.BUSY, f"group {self._group} is not handed over: {exc}", retry=True) from exc
        self._touch()

    async def barrier(self, limit_s: float) -> None:
        """Return when all that was committed before the call is applied here, confirmed by a majority (read-index).

        Raises:
            ZaibeiError(UNREACHABLE, retry): no leader with a majority answered in time.
        """
        try:
            async with asyncio.timeout(limit_s):
                index = await self._read_index()
                await self._until(lambda: self.applied >= index)
        except TimeoutError:
            text = f"group {self._group}: no leader with a majority confirmed the read within {limit_s} s"
            raise ZaibeiError(Code.UNREACHABLE, text, retry=True) from None

    async def _read_index(self) -> int:
        """Ask until an answer comes: a question may be lost, and a leader may not be known yet."""
        while True:
            self._read_serial += 1
            context = self._read_serial.to_bytes(8, "big")
            self._reads[context] = future = self._loop.create_future()
            try:
                async with asyncio.timeout(self._limits.read_again_s):
                    await self._until(lambda: self._core is not None and self._phase in CHANGING)
                    self.seat.active()
                    self.core.read_index(context)
                    self._touch()
                    index: int = await future
                    return index
            except TimeoutError:
                continue
            except (NotLeader, Dropped):
                await asyncio.sleep(self._limits.leader_look_s)
            finally:
                del self._reads[context]

    # ------------------------------------------------------------------------------------------- what the host and others say
    def allow_elections(self, allowed: bool) -> None:
        """False: this member asks for no vote and grants none."""
        self.core.allow_elections(allowed)

    def suspect(self) -> None:
        """The connection to the member that leads broke."""
        self._tell_core(lambda core: core.suspect())

    def unreachable(self, member: int) -> None:
        self._tell_core(lambda core: core.unreachable(member))

    def snapshot_finished(self, member: int, *, ok: bool) -> None:
        self._tell_core(lambda core: core.snapshot_finished(member, ok))

    def _tell_core(self, say: Callable[[RaftCore], None]) -> None:
        if self._core is not None and self._phase in CHANGING:
            say(self._core)
            self._touch()

    async def install(self, message: Message, switch: Callable[[], tuple[int, int]]) -> None:
        """Go on from another member's state: switch the machine while nothing is applied, then let the core take the message.

        Raises:
            ZaibeiError: the machine did not switch, and goes on as it was.
        """
        committed = self.committed
        await self._switch(message, switch)
        if self._core is None or self._phase not in CHANGING or self._pump is None:
            return
        if self._pump.applied <= committed:
            self._pump.offer_held(committed)  # the log was further than the machine: it goes on by entries
        else:
            self._core.step(message)
        self._touch()

    async def begin_anew(self, hard: HardState, message: Message, switch: Callable[[], tuple[int, int]]) -> None:
        """As `install`, for a member that forgot what it had promised: log and hard state are replaced. Raises ZaibeiError."""
        await self._switch(message, switch)
        meta = message.snapshot
        if meta is None or self._core is None or self._phase not in CHANGING:
            return
        self._after.clear()
        self._log.restart_at(meta.index, meta.term)
        self._tail.restart_at(meta.index, meta.membership)
        self._log.keep(KEPT_MEMBERSHIP, encode_membership(meta.index, meta.membership))
        self._anew = asyncio.Event()
        self._hard_term = hard.term
        self._log.append((), hard, SAVE_ANEW)
        await self._anew.wait()
        self._new_core(hard, meta.index)
        self.core.step(message)
        self._touch()

    async def _switch(self, message: Message, switch: Callable[[], tuple[int, int]]) -> None:
        meta, pump = message.snapshot, self._pump
        require(meta is not None and pump is not None, "only a started group is fed, by a message that says what with")
        if meta is None or pump is None:
            return
        pump.close()
        await self._run_blocking(pump.wait_idle)
        at, failure = pump.applied, None
        try:
            index, term = await self._run_blocking(switch)
            require((index, term) == (meta.index, meta.term), f"the machine was switched to {meta.index} and stands at {index}")
            at = self._durable = index
            self._unflushed_octets = 0
        except ZaibeiError as exc:
            failure = exc
        committed = pump.committed
        self._new_pump(at)
        if failure is not None:
            if self._pump is not None:
                self._pump.offer_held(committed)
            raise failure

    # ------------------------------------------------------------------------------------------------------ the core's duties
    def receive(self, message: Message) -> None:
        """A message of another member, checked by the link."""
        if self._core is not None and self._phase in CHANGING:
            self._core.step(message)
            self._touch()

    def tick(self) -> None:
        """One tick of time passed."""
        if self._core is not None and self._phase in CHANGING:
            self._core.tick()
            self._touch()

    def _touch(self) -> None:
        """Carry out the core's duties before the loop waits again: what arrives in one turn shares a save and a message."""
        if not self._touched:
            self._touched = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        self._touched = False
        core = self._core
        if core is None or self._phase not in CHANGING:
            return
        while core.has_duties():
            self._carry_out(core.duties())
        self._look_at_role()
        self._moved.set()

    def _carry_out(self, duties: Duties) -> None:
        if duties.send_now:
            self.seat.send(duties.send_now)
        if duties.number:
            self._save(duties)
        if duties.committed:
            self._on_committed(duties.committed)
        for read in duties.reads:
            if (waiting := self._reads.get(read.context)) is not None and not waiting.done():
                waiting.set_result(read.index)

    def _save(self, duties: Duties) -> None:
        if duties.snapshot is not None:
            meta = duties.snapshot
            self._log.restart_at(meta.index, meta.term)
            self._tail.restart_at(meta.index, meta.membership)
            self._log.keep(KEPT_MEMBERSHIP, encode_membership(meta.index, meta.membership))
        if duties.cut_after is not None:
            self._log.cut_after(duties.cut_after)
            self._tail.cut_after(duties.cut_after)
        hard = duties.hard
        if hard is not None:
            hard = HardState(hard.term, hard.vote, self._journal.boot)
            self._hard_term = hard.term
        self._tail.append(duties.entries)
        self._log.append(duties.entries, hard, duties.number)
        self._after.append((duties.number, duties.send_after_save))

    def _fetch(self, first: int) -> None:
        """Read entries for a member that is further behind than what is in memory."""
        if not self._fetching:
            self._fetching = True
            self._run_task(self._bring(first))

    async def _bring(self, first: int) -> None:
        try:
            self._tail.fetched(await self._run_blocking(lambda: self._log.read(first, self._limits.replay_octets_max)))
        except ZaibeiError as exc:
            if exc.code not in (Code.NOT_FOUND, Code.DISK_FULL):  # not held any more, or not at this moment: it is asked again
                self._out_of_service(exc)
                return
        finally:
            self._fetching = False
        if self._core is not None and self._phase in CHANGING:
            self._core.entries_at_hand()
            self._touch()

    def _on_saved(self, number: int) -> None:
        if number == SAVE_ANEW:
            self._anew.set()
            return
        if self._core is None or self._phase not in (*CHANGING, GroupPhase.STOPPING):
            return
        ready: list[Message] = []
        while self._after and self._after[0][0] <= number:
            save, messages = self._after.popleft()
            self._core.saved(save)
            ready += messages
        if ready:
            self.seat.send(ready)
        if self._phase is GroupPhase.STOPPING:
            while self._core.has_duties():
                self._carry_out(self._core.duties())
            self._moved.set()
        else:
            self._work()

    def _on_committed(self, entries: Sequence[LogEntry]) -> None:
        for entry in entries:
            if entry.kind is EntryKind.MEMBERSHIP:
                membership = self.core.apply_change(entry)
                self._tail.changed(entry.index, membership)
                self._log.keep(KEPT_MEMBERSHIP, encode_membership(entry.index, membership))
                if (waiting := self._changes.pop(entry.index, None)) is not None and not waiting.done():
                    waiting.set_result(membership)
                self.seat.changed(membership)
        self.core.applied(entries[-1].index)
        self._book.committed(entries)
        if self._pump is not None:
            self._pump.offer(entries)

    def _look_at_role(self) -> None:
        core = self.core
        if core.role is not Role.LEADER or core.term != self._led[0]:
            self._step_down()
        if core.role is Role.LEADER:
            if core.term != self._led[0]:
                self._led = (core.term, core.last_index)
                self._move(GroupPhase.ELECTING)
            self._look_at_first_entry()

    def _look_at_first_entry(self) -> None:
        if self._phase is GroupPhase.ELECTING and self.applied >= self._led[1]:
            self._move(GroupPhase.LEADING)
            self._on_role(True)

    def _step_down(self) -> None:
        if self._phase not in (GroupPhase.ELECTING, GroupPhase.LEADING):
            return
        led = self.leader
        self._move(GroupPhase.FOLLOWING)
        why = f"group {self._group} is led by another member: whether the entry was taken over is not known"
        error = ZaibeiError(Code.UNREACHABLE, why, definite=False, retry=True)
        self._book.step_down(error)
        self._end_changes(error)
        if led:
            self._on_role(False)

    def _end_changes(self, error: ZaibeiError) -> None:
        for waiting in self._changes.values():
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()
        self._changes.clear()

    # --------------------------------------------------------------------------------------------- news from the threads
    def _on_applied(self, last: LogEntry, outcomes: Sequence[Outcome], octets: int) -> None:
        require(last.index == self.applied + len(outcomes), "entries are applied in order, each once")
        self._book.applied(self.applied + 1, outcomes)
        if self._pump is not None:
            self._pump.note_applied(last.index, octets)
        self._unflushed_octets += octets
        if self._core is not None:
            self._look_at_first_entry()
        self._moved.set()
        if self._unflushed_octets >= self._limits.flush_octets:
            self._maintain_soon()

    def _on_rewound(self, index: int) -> None:
        """The machine went back to what it had durably: the journal has the rest."""
        if index < self._durable:
            what = f"the store of {self._group} had made {self._durable} durable and stands at {index} after it was reopened"
            self._out_of_service(ZaibeiError(Code.DAMAGED, what))
            return
        if self._pump is not None:
            self._pump.rewind(index)
        self._moved.set()

    def _on_busy(self, waiting: bool) -> None:
        self._machine_busy = waiting

    def _out_of_service(self, error: ZaibeiError) -> None:
        """Only this group ends; what it had in flight ends UNKNOWN."""
        if self._failure is not None or self._phase is GroupPhase.STOPPED:
            return
        led = self.leader
        self._failure = error
        self._move(GroupPhase.OUT_OF_SERVICE)
        if self._pump is not None:
            self._pump.close()
        self._book.end(error)
        self._end_changes(error)
        self._moved.set()
        if led:
            self._on_role(False)
        self._on_out_of_service(self._group, error)

    # ------------------------------------------------------------------------------------------------- flush and truncate
    async def maintain(self) -> None:
        """Make the store durable and drop the journal's entries behind it. Called by size and by time; harmless at any time."""
        if self._flushing or self.applied == self._durable or self._failure is not None:
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
        self._truncate()

    def _truncate(self) -> None:
        """Drop what the store holds durably, and nobody needs: neither a side generation nor a member that is behind."""
        keep = self._machine.keep_from()
        index = self._durable if keep is None else min(self._durable, keep - 1)
        index = min(index, self.seat.needed_from(self._log) - 1)
        if index <= self._log.floor:
            return
        place, membership = self._tail.membership
        if place <= index:
            self._log.keep(KEPT_MEMBERSHIP, encode_membership(index, membership))
        self._log.truncate(index)
        self._tail.truncated(self._log.floor)

    def _maintain_soon(self) -> None:
        if not self._flushing and self._phase in (*CHANGING, GroupPhase.REPLAYING):
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
        if self._phase in CHANGING:
            self._maintain_soon()
            self._arm_timer()

    # ------------------------------------------------------------------------------------------------------------- stop
    async def stop(self) -> None:
        """See Consensus. A clean stop flushes the machine, so that the next start has little to replay."""
        if self._timer is not None:
            self._timer.cancel()
        if self._phase in (GroupPhase.REPLAYING, *CHANGING):
            led = self.leader
            self._work()
            self._move(GroupPhase.STOPPING)
            self._moved.set()
            if led:
                self._on_role(False)
            try:
                async with asyncio.timeout(self._limits.stop_drain_s_max):
                    await self._drained()
                await self.maintain()
            except TimeoutError:
                pass  # what is left ends UNKNOWN below
        if self._phase is GroupPhase.STOPPED:
            return
        if self._pump is not None:
            self._pump.close()
        self._move(GroupPhase.STOPPED)
        error = ZaibeiError(Code.STOPPING, f"group {self._group} stopped before the outcome was known", retry=True)
        self._book.end(error)
        self._end_changes(error)
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _drained(self) -> None:
        while len(self._book) and self._failure is None:
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


@dataclass(frozen=True, slots=True)
class _JournalEars:
    """JournalListener of a group: hops to its event loop."""

    owner: GroupLog

    def saved(self, number: int) -> None:
        self.owner.hop(self.owner._on_saved, number)

    def flushed(self, index: int) -> None:
        """Saves say it all."""

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
