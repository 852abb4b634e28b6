"""GroupLog: the log of one group on this member, behind the Consensus port. A group of one member is the same with nobody to ask.

    propose -> core -> journal (saved) -> others' acknowledgements -> committed -> pump -> apply lane -> outcome

The core decides and does nothing (raft/); here its duties are carried out in their order. All state lives on the event loop; the
journal's and the apply thread's calls hop over with `call_soon_threadsafe`. No clock, thread or file here.
"""

from __future__ import annotations

import asyncio

from replica.consensus.group_base import CHANGING
from replica.consensus.group_duties import GroupDuties
from replica.consensus.group_keep import JournalEars
from replica.consensus.hello import Memory, Promise, hard_at_start
from replica.consensus.log_tail import LogTail
from replica.consensus.membership_row import decode_membership
from replica.consensus.port import (
    ENTRY_OCTETS_MAX,
    KEPT_COMMIT,
    KEPT_MEMBERSHIP,
    KEPT_MEMORY,
    GroupPhase,
    HardState,
    StartReport,
)
from replica.consensus.raft.membership import ChangeRefused, Membership, MembershipChange, change_membership
from replica.consensus.raft.values import Dropped, NotLeader
from replica.consensus.recovery import StartPlan, plan_rejoin, plan_start
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import EntryKind, LogEntry, Proposal
from replica.v1 import entry_pb2


class GroupLog(GroupDuties):
    """Log of a group on this member. Satisfies Consensus.

    Args:
        group: its name (for a source's group the source's name).
        run_blocking: runs reads of the journal and flushes of the machine away from the event loop.
        reopen: lets the machine recover from a full disk; see port.Reopen.
        on_out_of_service: called once on the event loop when only this group can no longer go on.
        on_role: called with True when proposals begin to be admitted here, with False when they end.
        first_entry: octets of a term's first entry.
        seat: which member this is, who the first voters are, and the way to the others.
        prepare: may add to an entry that is not octets yet, once, before it is proposed: every member applies the same.
    """

    async def start(self) -> StartReport:
        """See Consensus."""
        self._loop = asyncio.get_running_loop()
        try:
            self._log = await self._run_blocking(lambda: self._journal.attach(self._group, JournalEars(self)))
            kept = self._log.recovered.kept.get(KEPT_MEMBERSHIP)
            place, membership = decode_membership(kept) if kept else (0, self.seat.birth)
            plan = self._plan(place, membership)
        except ZaibeiError as exc:
            self._out_of_service(exc)
            raise
        self._move(GroupPhase.REPLAYING)
        self._prepare(plan, place, membership)
        replay_to = await self._learn_memberships(plan, place)
        alone = self._is_alone(self._tail.membership[1])
        if self._pump is not None and replay_to >= plan.replay_from:
            self._pump.offer_held(replay_to)
        await self._until(lambda: self.applied >= replay_to)
        await self._keep_term(plan, alone)
        self._begin_core(plan, replay_to, alone)
        self._move(GroupPhase.FOLLOWING)
        self._arm_timer(self._first_share())
        if alone:
            self.core.campaign()
            self._touch()
            await self._until(lambda: self.leader)
        replayed = max(0, replay_to - plan.replay_from + 1)
        return StartReport(self._group, self.term, replayed, plan.warning, plan.loss_possible)

    def _plan(self, place: int, membership: Membership) -> StartPlan:
        found, applied, command = self._log.recovered, self._machine.applied(), self._reseed_command
        if self._is_alone(membership):
            return plan_start(self._group, found, applied, reseed_command=command)
        committed = int.from_bytes(found.kept.get(KEPT_COMMIT, b""), "big")
        return plan_rejoin(self._group, found, applied, reseed_command=command, fetched_at=place, committed=committed)

    def _prepare(self, plan: StartPlan, place: int, membership: Membership) -> None:
        if plan.restart_at is not None or plan.cut_after is not None:
            self._remember_what_was_flushed()
        if plan.restart_at is not None:
            self._log.restart_at(*plan.restart_at)
        if plan.cut_after is not None:
            self._log.cut_after(plan.cut_after)
        self._answered_to = self._log.recovered.last if plan.restart_at is None else plan.restart_at[0]
        self._tail = LogTail(self._log, place, membership, self._fetch)
        self._durable = plan.replay_from - 1
        self._new_pump(plan.replay_from - 1)

    def _remember_what_was_flushed(self) -> None:
        """A log begun anew, or cut, forgets its flushed mark: what may have been acknowledged stays a promise of ours."""
        found = self._log.recovered
        if found.flushed > found.last:
            memory = Memory.decode(found.kept.get(KEPT_MEMORY, b""))
            memory.record(self.seat.member, Promise(0, found.hard.term, found.flushed))
            self._log.keep(KEPT_MEMORY, memory.encode())

    def _is_alone(self, membership: Membership) -> bool:
        return membership.voters == {self.seat.member} and not membership.joint

    async def _learn_memberships(self, plan: StartPlan, place: int) -> int:
        """Changes of the membership that came after the row that is kept of it.

        Returns:
            Up to where the log is known to be committed: a member alone decides that itself, until a change gave others a vote.
        """
        alone, first = self._is_alone(self._tail.membership[1]), max(self._log.floor, place) + 1
        while first <= plan.replay_to:
            chunk = await self._read_held(first)
            for entry in chunk:
                if entry.kind is EntryKind.MEMBERSHIP and entry.index <= plan.replay_to:
                    changed = change_membership(self._tail.membership[1], MembershipChange.decode(entry.data))
                    self._tail.changed(entry.index, changed.membership)
                    if alone and not self._is_alone(changed.membership):
                        return max(entry.index, plan.replay_from - 1)
            first = chunk[-1].index + 1
        return plan.replay_to

    async def _read_held(self, first: int) -> list[LogEntry]:
        while True:
            try:
                return await self._run_blocking(lambda: self._log.read(first, self._limits.replay_octets_max))
            except ZaibeiError as exc:
                if not exc.trouble.retry:
                    self._out_of_service(exc)
                    raise
            await asyncio.sleep(self._limits.read_retry_s)

    async def _keep_term(self, plan: StartPlan, alone: bool) -> None:
        """A fetched state may be of a later term than any on record: before anything is promised in it, it is on record."""
        self._hard_term = self._log.recovered.hard.term
        if not alone and plan.term - 1 > self._hard_term:
            await self._save_now(HardState(plan.term - 1, 0, self._journal.boot))
            self._hard_term = plan.term - 1

    def _begin_core(self, plan: StartPlan, applied: int, alone: bool) -> None:
        hard = self._log.recovered.hard
        term = plan.term - 1  # the core's first campaign takes plan.term
        began = HardState(term, hard.vote if hard.term == term else 0, self._journal.boot)
        self._new_core(hard_at_start(began, self.seat.member), applied)
        self.core.allow_elections(alone)  # otherwise memory of promises decides (hello.py)

    def propose(self, entry: entry_pb2.Entry | bytes) -> Proposal:
        """See Consensus."""
        if isinstance(entry, bytes):
            data = entry
        else:
            self._prepare_entry(entry)
            data = entry.SerializeToString()
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
            raise self._failure.again()
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
        if not leader:
            return f"group {self._group} has no leader at this moment: again later"
        name = self.seat.name_of(leader)
        return (
            f"group {self._group} is led by {name}. Next: the same there, or zaibei cluster transfer {self._group} --to this one"
        )

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

    async def stop(self) -> None:
        """See Consensus. A clean stop flushes the machine, so that the next start has little to replay. When it returns nothing
        of ours touches the machine any more: it may be closed.
        """
        for timer in (self._timer, self._commit_timer):
            if timer is not None:
                timer.cancel()
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
        if self._phase is not GroupPhase.STOPPED:
            await self._end_all()

    async def _end_all(self) -> None:
        if self._pump is not None:
            self._pump.close()
        self._move(GroupPhase.STOPPED)
        error = ZaibeiError(Code.STOPPING, f"group {self._group} stopped before the outcome was known", retry=True)
        self._book.end(error)
        self._end_changes(error)
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        while self._switching:
            self._moved.clear()
            await self._moved.wait()
        if self._pump is not None:  # the apply thread may be within an entry
            await self._run_blocking(self._pump.wait_idle)

    async def _drained(self) -> None:
        while len(self._book) and self._failure is None:
            self._moved.clear()
            await self._moved.wait()
