"""GroupDuties: carries out what the core decides, in its order, and says to the core what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from replica.consensus.group_base import CHANGING, SAVE_ANEW
from replica.consensus.group_keep import GroupKeep
from replica.consensus.membership_row import encode_membership
from replica.consensus.port import (
    KEPT_COMMIT,
    KEPT_MEMBERSHIP,
    GroupPhase,
    HardState,
)
from replica.consensus.raft.core import RaftCore
from replica.consensus.raft.values import CoreConfig, CoreStart, Duties, Message, Role
from replica.model.errors import Code, InvariantBroken, ZaibeiError
from replica.model.outcome import EntryKind, LogEntry

log = logging.getLogger("zaibei.consensus")


class GroupDuties(GroupKeep):
    """Messages, saves, committed entries, roles."""

    def _new_core(self, hard: HardState, applied: int) -> None:
        config = CoreConfig(
            member=self.seat.member,
            random=self.seat.random,
            first_entry=self._first_entry(),
            election_ticks=self.seat.election_ticks,
            heartbeat_ticks=self.seat.heartbeat_ticks,
        )
        self._core = RaftCore(config, self._tail, CoreStart(hard=hard, membership=self._tail.membership[1], applied=applied))

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
        try:
            self._work_off()
        except InvariantBroken:
            raise  # the process stops
        except Exception as exc:  # a bug: what the core asked for is half done, and this group must not go on
            log.exception("work of a group failed", extra={"fields": {"group": self._group}})
            self._out_of_service(ZaibeiError(Code.DAMAGED, f"a fault of this program in the work of {self._group}: {exc!r}"))

    def _work_off(self) -> None:
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
            self._answered_to = min(self._answered_to, meta.index)
            self._log.keep(KEPT_MEMBERSHIP, encode_membership(meta.index, meta.membership))
        if duties.cut_after is not None:
            self._log.cut_after(duties.cut_after)
            self._tail.cut_after(duties.cut_after)
            self._answered_to = min(self._answered_to, duties.cut_after)  # what is cut was never committed
        hard = duties.hard
        if hard is not None:
            hard = HardState(hard.term, hard.vote, self._journal.boot)
        self._keep_commit()  # with a flush that is due anyway
        self._tail.append(duties.entries)
        self._log.append(duties.entries, hard, duties.number)
        self._after.append((duties.number, duties.send_after_save, 0 if hard is None else hard.term))

    def _keep_commit(self) -> None:
        """What is on record as committed is applied again at once after a restart; the rest waits for a leader."""
        committed = min(self.core.commit, self.core.saved_index)
        if committed > self._kept_commit:
            self._kept_commit = committed
            self._log.keep(KEPT_COMMIT, committed.to_bytes(8, "big"))

    def _keep_commit_soon(self) -> None:
        """Where no flush follows that would take it along: the last entries before a pause."""
        if self._commit_timer is None:
            self._commit_timer = self._loop.call_later(self._limits.keep_commit_s, self._on_commit_timer)

    def _on_commit_timer(self) -> None:
        self._commit_timer = None
        if self._core is not None and self._phase in CHANGING:
            self._keep_commit()

    def _fetch(self, first: int) -> None:
        """Read entries for a member that is further behind than what is in memory."""
        if not self._fetching:
            self._fetching = True
            self._run_task(self._bring(first))

    async def _bring(self, first: int) -> None:
        cuts = self._tail.cuts
        try:
            self._tail.fetched(await self._run_blocking(lambda: self._log.read(first, self._limits.replay_octets_max)), cuts)
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
        if number > self._before_anew:  # one flush may end several saves, and only the newest is told: ours, or one behind it
            self._anew.set()
            self._moved.set()
        if number == SAVE_ANEW:
            number = self._before_anew
        if self._core is None or self._phase not in (*CHANGING, GroupPhase.STOPPING):
            return
        ready: list[Message] = []
        while self._after and self._after[0][0] <= number:
            save, messages, term = self._after.popleft()
            self._hard_term = max(self._hard_term, term)
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
            if entry.kind is EntryKind.MEMBERSHIP and entry.index > self._tail.membership[0]:  # else it was in force at the start
                membership = self.core.apply_change(entry)
                self._tail.changed(entry.index, membership)
                self._log.keep(KEPT_MEMBERSHIP, encode_membership(entry.index, membership))
                if (waiting := self._changes.pop(entry.index, None)) is not None and not waiting.done():
                    waiting.set_result(membership)
                self.seat.changed(membership)
        self.core.applied(entries[-1].index)
        self._keep_commit_soon()
        self._book.committed(entries)
        if self._pump is None:
            return
        beyond = self._pump.committed - entries[0].index + 1
        if beyond > 0:  # the machine was switched to a state that has some of them already
            self._book.skipped(self._pump.applied)
            entries = entries[beyond:]
        if entries:
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

    def forgotten(self, member: int) -> None:
        """A member began a new life: what it had matched in this term without entries of the term itself is worth nothing."""
        self._tell_core(lambda core: core.memory_lost(member))

    def _tell_core(self, say: Callable[[RaftCore], None]) -> None:
        if self._core is not None and self._phase in CHANGING:
            say(self._core)
            self._touch()

    async def install(self, message: Message, switch: Callable[[], tuple[int, int]], *, led: bool = True) -> None:
        """Go on from another member's state: switch the machine while nothing is applied, then let the core take the message.

        Args:
            led: the leader sent it. Another member's state is for the machine alone: where the log goes on the leader says.
        Raises:
            ZaibeiError: the machine did not switch, and goes on as it was.
        """
        await self._keep_membership(message)
        committed = await self._switch(message, switch)
        if self._core is None or self._phase not in CHANGING or self._pump is None:
            return
        self._pump.offer_held(committed)  # where the log was further than the machine, it goes on by entries
        if led:
            self._core.step(message)
        self._touch()

    async def _keep_membership(self, message: Message) -> None:
        """On disk before the machine is switched: a crash in between must not leave a state with the voters of an earlier day."""
        meta = message.snapshot
        if meta is not None and meta.index > self._tail.membership[0]:
            self._log.keep(KEPT_MEMBERSHIP, encode_membership(meta.index, meta.membership))
            await self._save_now(None)

    def _newest_save(self) -> int:
        return self._after[-1][0] if self._after else 0

    async def _save_now(self, hard: HardState | None, before: int | None = None) -> None:
        """`before`: the newest save that is under way; None: of this core."""
        self._anew = asyncio.Event()
        self._before_anew = self._newest_save() if before is None else before
        self._log.append((), hard, SAVE_ANEW)
        await self._until(self._anew.is_set)

    async def begin_anew(self, hard: HardState, message: Message, switch: Callable[[], tuple[int, int]]) -> None:
        """As `install`, for a member that forgot what it had promised: log and hard state are replaced. Raises ZaibeiError."""
        await self._keep_membership(message)
        await self._switch(message, switch)
        meta = message.snapshot
        if meta is None or self._core is None or self._phase not in CHANGING:
            return
        before = self._newest_save()
        self._after.clear()  # saves of the core that ends here: their messages must not leave
        self._log.restart_at(meta.index, meta.term)
        self._tail.restart_at(meta.index, meta.membership)
        self._log.keep(KEPT_MEMBERSHIP, encode_membership(meta.index, meta.membership))
        await self._save_now(hard, before)
        self._hard_term, self._answered_to = hard.term, meta.index
        self._new_core(hard, meta.index)
        self.core.step(message)
        self._touch()
