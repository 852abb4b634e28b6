"""GroupBase: fields of a group's log and what others read of them. GroupKeep, GroupDuties, GroupLog rest on it in this order."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Sequence

from replica.consensus.group_limits import GroupLimits, RunBlocking, in_a_thread
from replica.consensus.hello import Saved
from replica.consensus.log_tail import LogTail
from replica.consensus.port import (
    ApplyPort,
    GroupJournal,
    GroupPhase,
    JournalPort,
    Recovered,
    Reopen,
    StateMachine,
    check_group_move,
)
from replica.consensus.proposals import ProposalBook
from replica.consensus.pump import ApplyPump
from replica.consensus.raft.core import RaftCore
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.progress import Feeding
from replica.consensus.raft.values import Message, Role
from replica.consensus.recovery import RESEED_COMMAND
from replica.consensus.seat import ALONE, GroupSeat
from replica.model.errors import Code, ZaibeiError, require
from replica.v1 import entry_pb2

SAVE_ANEW = 2**62  # number of the save with which a member that was fed anew begins
CHANGING = (GroupPhase.FOLLOWING, GroupPhase.ELECTING, GroupPhase.LEADING)


def _no_news(_group: str, _error: ZaibeiError) -> None:
    """Default of `on_out_of_service`; `failure` and every later proposal say the same."""


def _nobody(_leading: bool) -> None:
    """Default of `on_role`."""


def _as_it_is(_entry: entry_pb2.Entry) -> None:
    """Default of `prepare`."""


def first_entry_octets() -> bytes:
    """Octets of a term's first entry."""
    return entry_pb2.Entry(format=1, no_op=entry_pb2.NoOp()).SerializeToString()


class GroupBase(ABC):
    """Fields by purpose; see GroupLog for the arguments. `_loop`, `_log` and `_tail` are there once it starts."""

    _loop: asyncio.AbstractEventLoop
    _log: GroupJournal
    _tail: LogTail

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
        first_entry: Callable[[], bytes] = first_entry_octets,
        reseed_command: str = RESEED_COMMAND,
        seat: GroupSeat = ALONE,
        prepare: Callable[[entry_pb2.Entry], None] = _as_it_is,
    ) -> None:
        self._prepare_entry = prepare
        self._group, self._journal, self._machine, self._apply = group, journal, machine, apply
        self._limits, self.seat = limits or GroupLimits(), seat
        self._run_blocking, self._on_out_of_service, self._reopen = run_blocking, on_out_of_service, reopen
        self._on_role, self._first_entry, self._reseed_command = on_role, first_entry, reseed_command
        self._phase = GroupPhase.NEW
        self._failure: ZaibeiError | None = None
        self._book = ProposalBook()
        self._pump: ApplyPump | None = None
        self._core: RaftCore | None = None
        self._after: deque[tuple[int, Sequence[Message], int]] = deque()  # (save, what may leave after it, term it saves or 0)
        self._led: tuple[int, int] = (0, 0)  # (term, index of its first entry) when we became leader
        self._durable = 0
        self._pressed = self._machine_busy = False
        self._unflushed_octets = 0
        self._flushing = self._touched = self._fetching = self._switching = False
        self._moved = asyncio.Event()  # set at each progress; `start` and `stop` wait on it
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._changes: dict[int, asyncio.Future[Membership]] = {}
        self._reads: dict[bytes, asyncio.Future[int]] = {}
        self._read_serial = self.seat.random.getrandbits(62)  # an answer to who we were before must answer no question of now
        self._hard_term = 0
        self._kept_commit = 0
        self._commit_timer: asyncio.TimerHandle | None = None
        self._answered_to = 0  # last entry that may have been applied, and answered from, before this start
        self._anew = asyncio.Event()
        self._before_anew = 0  # newest save before the one that `_anew` waits for

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
    def caught_up(self) -> bool:
        """False after a restart until all is applied again that may have been: else an answer may be older than one given."""
        return self.applied >= self._answered_to

    @property
    def membership(self) -> Membership:
        """As far as it is committed here."""
        return self._core.membership if self._core is not None else self.seat.birth

    @property
    def membership_as_of(self) -> tuple[int, Membership]:
        """The newest membership that is known here to be committed, and as of which index; 0: the first one."""
        return self._tail.membership if self._core is not None else (0, self.seat.birth)

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
        """Highest term whose hard state is on our disk."""
        return self._hard_term

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

    def fed_by_state(self) -> Sequence[int]:
        """Members to which this leader's core has a state on the way, and sends nothing else."""
        if self._core is None or self._core.role is not Role.LEADER:
            return ()
        core, members = self._core, sorted(self._core.membership.members)
        return [one for one in members if (it := core.progress(one)) is not None and it.feeding is Feeding.SNAPSHOT]

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

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Wait for progress; raises as soon as the group cannot go on."""
        while True:
            if self._failure is not None:
                raise self._failure.again()
            if self._phase in (GroupPhase.STOPPING, GroupPhase.STOPPED):
                raise ZaibeiError(Code.STOPPING, f"group {self._group} was stopped while it started", retry=True)
            if reached():
                return
            self._moved.clear()
            await self._moved.wait()

    def _run_task(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:  # a bug: this group must not go on
            self._out_of_service(ZaibeiError(Code.DAMAGED, f"flushing or replaying the store of {self._group} failed: {exc!r}"))

    def _move(self, phase: GroupPhase) -> None:
        check_group_move(self._phase, phase)
        self._phase = phase

    def hop(self, call: Callable[..., None], *arguments: object) -> None:
        """Run `call` on the event loop; news that come after the loop closed concern nobody."""
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            require(self._loop.is_closed(), "only a closed loop takes no calls")

    # -- what the layers above do

    @abstractmethod
    def _touch(self) -> None:
        """Carry out the core's duties soon."""

    @abstractmethod
    def _look_at_first_entry(self) -> None:
        """The machine went on: perhaps our own term's first entry is applied."""

    @abstractmethod
    def _out_of_service(self, error: ZaibeiError) -> None:
        """This group ends."""

    @abstractmethod
    def _on_saved(self, number: int) -> None:
        """A save is on disk."""
