"""Joins a desk with its group: changes in, entries proposed, outcomes out; and reads behind a barrier that many share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from hosting.tenant.desk import Asked, Cut, Desk, Verdict
from hosting.tenant.follow import Follow
from hosting.tenant.limits import BARRIER_S_MAX, OUTCOME_S_MAX, DeskLimits
from hosting.tenant.lots import Draft
from hosting.tenant.papers import is_paper, paper_of
from hosting.tenant.port import HostedGroup
from replica.model.batch import OP_PUT, Change
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.ladder_rules import registrations_refused
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.position import Position
from replica.model.precondition import Precondition
from replica.v1 import entry_pb2

ENTRY_FORMAT = 1
Told = Callable[[Verdict], object]


class Clerk:
    """One hosted source. All calls on one event loop.

    Args:
        now_ms: Unix milliseconds.
    """

    def __init__(self, group: HostedGroup, now_ms: Callable[[], int], limits: DeskLimits | None = None) -> None:
        self.group, self._now_ms = group, now_ms
        self.desk = Desk(group.source, limits)
        self.follow = Follow()
        self._told: dict[Asked, Told] = {}  # whom to tell about changes without an outcome
        self._loop = asyncio.get_running_loop()
        self._due = self._closed = False
        self._settling: asyncio.Task[None] | None = None
        self._barrier: asyncio.Task[None] | None = None  # under way
        self._barrier_next: asyncio.Task[None] | None = None  # begins when that one ended

    # ------------------------------------------------------------------------------------------------- changes
    def ask(self, drafts: Sequence[Draft], told: Told) -> list[Asked | Trouble]:
        """Take changes; those of one turn of the event loop share a batch. A trouble: that one was not taken, nothing was done.

        Args:
            told: is told the outcome of each that was taken, later; not of one that was withdrawn.
        """
        closed = self._refusal()
        if closed is not None:
            return [closed] * len(drafts)
        found = list[Asked | Trouble]()
        for change, need in drafts:
            asked = Asked(change, need)
            trouble = _unfit(change) or self.desk.ask(asked)
            if trouble is None:
                self._told[asked] = told
            found.append(trouble or asked)
        self._pump_soon()
        return found

    async def change(self, change: Change, need: Precondition) -> Verdict:
        """Ask, and wait for the outcome; who goes away takes back what was not proposed."""
        answer: asyncio.Future[Verdict] = self._loop.create_future()

        def told(verdict: Verdict) -> None:
            if not answer.done():
                answer.set_result(verdict)

        [asked] = self.ask([(change, need)], told)
        if isinstance(asked, Trouble):
            return Verdict(Asked(change, need), None, asked)
        timer = self._loop.call_later(OUTCOME_S_MAX, self.late, asked)
        try:
            return await answer
        except asyncio.CancelledError:
            self.withdraw(asked)
            raise
        finally:
            timer.cancel()

    def withdraw(self, asked: Asked) -> bool:
        """True: it was taken back, and nothing was done; nobody is told. False: it is proposed or has ended."""
        if not self.desk.withdraw(asked):
            return False
        self._told.pop(asked, None)
        self._pump_soon()
        return True

    def late(self, asked: Asked) -> None:
        """Its time is over: taken back, or UNKNOWN. Harmless when it has its outcome."""
        told = self._told.get(asked)
        if told is None:
            return
        source, limit = self.group.source, f"{OUTCOME_S_MAX:.0f} s"
        trouble = Trouble(
            Code.UNKNOWN, f"{source}: proposed, but no outcome within {limit}: look, then repeat if need be", definite=False
        )
        if self.withdraw(asked):
            trouble = Trouble(Code.BUSY, f"{source}: not proposed within {limit} and taken back: again later", retry=True)
        self._told.pop(asked, None)
        told(Verdict(asked, None, trouble))

    def _refusal(self) -> Trouble | None:
        """Why nothing can be registered here at this moment."""
        if self._closed:
            return Trouble(Code.STOPPING, f"{self.group.source} is being stopped here: again later", retry=True)
        if not self.group.leader:
            return not_leader(self.group.source)
        return refusal_of(self.group.state())

    def _pump_soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._due = False
        trouble = self._refusal()
        try:
            while trouble is None:
                cut = self.desk.cut(self.group.state().position, self._now_ms(), self._held)
                if cut is None:
                    break
                self._propose(cut)
        except ZaibeiError as exc:  # reading failed
            trouble = exc.trouble
        if trouble is not None:
            self._deliver(self.desk.drain(trouble))
        elif self.desk.doubts and self._settling is None:
            self._settling = self._loop.create_task(self._settle(), name=f"doubts of {self.group.source}")

    def _held(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self.group.get_many(keys)[0] if keys else []

    def _propose(self, cut: Cut) -> None:
        body = entry_pb2.Registration(
            batch=cut.batch.raw, follows=cut.batch.before.to_wire(), preconditions=[need.to_wire() for need in cut.needs]
        )
        entry = entry_pb2.Entry(format=ENTRY_FORMAT, admitted_ms=self._now_ms(), registration=body)
        try:
            proposal = self.group.propose(entry)
        except ZaibeiError as exc:
            lost = exc.code is Code.UNREACHABLE
            self._deliver(self.desk.refused(cut.number, not_leader(self.group.source) if lost else exc.trouble))
            return
        papers = any(is_paper(one.change.key) for one in cut.asked)
        self.follow.cut(cut.batch.before, cut.batch.after, papers=papers)
        proposal.committed.add_done_callback(lambda done: self._committed(cut.number, done))
        proposal.applied.add_done_callback(lambda done: self._applied(cut.number, done))

    def _committed(self, number: int, done: asyncio.Future[int]) -> None:
        if not done.cancelled() and done.exception() is None:
            self.desk.committed(number)
            self._pump_soon()

    def _applied(self, number: int, done: asyncio.Future[Outcome]) -> None:
        failed = done.cancelled() or done.exception() is not None
        outcome = Outcome(OutcomeKind.UNKNOWN, None, "its log gave no outcome") if failed else done.result()
        self._deliver(self.desk.ended(number, outcome, self.group.chain_at))
        self._pump_soon()

    def _deliver(self, verdicts: Iterable[Verdict]) -> None:
        for verdict in verdicts:
            told = self._told.pop(verdict.asked, None)
            if told is not None:
                told(verdict)

    async def _settle(self) -> None:
        """Failed preconditions are told only by who is still the leader."""
        try:
            while self.desk.doubts:
                doubts = self.desk.take_doubts()
                try:
                    await self.barrier()
                    self._deliver(self.desk.settle(doubts, self._held))
                    self._pump_soon()
                except ZaibeiError as exc:
                    self._deliver(self.desk.drain(exc.trouble, doubts))
        finally:
            self._settling = None
            self._pump_soon()

    # ------------------------------------------------------------------------------------------------- reads
    async def barrier(self) -> None:
        """A read barrier that begins after this call; shared by all who call before it begins.

        Raises:
            ZaibeiError: NOT_LEADER, UNREACHABLE; nothing was read.
        """
        if self._barrier_next is None:
            self._barrier_next = self._loop.create_task(self._next_barrier(self._barrier))
            self._barrier_next.add_done_callback(_seen)
        await asyncio.shield(self._barrier_next)

    async def _next_barrier(self, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait({before})
        self._barrier, self._barrier_next = self._barrier_next, None
        try:
            async with asyncio.timeout(BARRIER_S_MAX):
                await self.group.wait()
        except TimeoutError:
            raise ZaibeiError(
                Code.UNREACHABLE, f"no majority confirmed the leader of {self.group.source}: again later", retry=True
            ) from None
        except ZaibeiError as exc:
            if self.group.leader:
                raise
            raise ZaibeiError(Code.NOT_LEADER, not_leader(self.group.source).message, retry=True) from exc

    async def read(self, keys: Sequence[bytes], *, stale: bool = False) -> tuple[list[bytes | None], Position]:
        """Values and the position they were read at. Raises ZaibeiError."""
        if not stale:
            await self.barrier()
        return self.group.get_many(keys)

    def close(self) -> None:
        """What is not proposed is refused; what is gets its outcome from the log."""
        self._closed = True
        self._deliver(self.desk.drain(Trouble(Code.STOPPING, f"{self.group.source} is being stopped here", retry=True)))


def _unfit(change: Change) -> Trouble | None:
    """A document about the tenant that could not be acted on is not written."""
    if change.op == OP_PUT and is_paper(change.key):
        try:
            paper_of(change.key, change.value)
        except ZaibeiError as exc:
            return exc.trouble
    return None


def not_leader(source: str) -> Trouble:
    return Trouble(Code.NOT_LEADER, f"this member does not lead {source}: nothing was done; ask the member that does", retry=True)


def refusal_of(state: GroupState) -> Trouble | None:
    """Why a source as it stands takes no registrations; None: it does."""
    if (closed := registrations_refused(state)) is not None:
        code, why = closed
        return Trouble(code, why, retry=code is Code.BUSY)
    granted, position = state.granted, state.position
    if granted is None or (granted.lineage, granted.epoch) != (position.lineage, position.epoch):
        return Trouble(Code.BUSY, f"{state.source} has not begun its epoch yet: again later", retry=True)
    if state.hold is not None:
        return Trouble(Code.HELD, f"{state.source} waits behind what is held at {state.hold.ident} for two people")
    return None


def _seen(task: asyncio.Task[None]) -> None:
    """Mark a failure as seen: who waited got it."""
    if not task.cancelled():
        task.exception()
