"""CoreState: the fields of a core, and what the parts of its behaviour ask of each other."""

from __future__ import annotations

from abc import ABC, abstractmethod

from replica.consensus.port import HardState
from replica.consensus.raft.log import Log
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.progress import Progress
from replica.consensus.raft.storage import LogStorage
from replica.consensus.raft.values import NOBODY, CoreConfig, CoreStart, MemberId, Message, Read, Role
from replica.model.errors import require


class CoreState(ABC):
    """Fields by purpose. Elections, Following, Reads, Leading, Changing and RaftCore rest on it, each on the one before.

    Ladder of indexes, always true: applied_index <= handed <= commit <= last; handed <= saved.
    """

    def __init__(self, config: CoreConfig, storage: LogStorage, start: CoreStart) -> None:
        self.config = config
        self.member = config.member
        self.log = Log(storage)
        self._keep_index(start)
        self.term = start.hard.term
        self.vote = start.hard.vote
        self.role = Role.FOLLOWER
        self.leader: MemberId = NOBODY
        self.membership: Membership = start.membership
        # What was told already, so that each thing is said once.
        self._boot = start.hard.boot
        self._hard_told = (self.term, self.vote)
        self._soft_told = (self.leader, self.role)
        self._save_number = 0
        # Messages: those that depend on nothing unsaved, and those that wait for the save.
        self._now: list[Message] = []
        self._later: list[Message] = []
        # Elections.
        self._elections_allowed = True
        self._elapsed_ticks = 0
        self._timeout_ticks = 0
        self._votes: dict[MemberId, bool] = {}
        # Leading.
        self._progress: dict[MemberId, Progress] = {}
        self._beat_ticks = 0
        self._term_start = 0  # index of the own term's first entry
        self._transferee: MemberId = NOBODY
        self._change_index = 0  # no other change before this index is applied
        # Reads.
        self._round = 0
        self._round_wanted = False
        self._reads_waiting: list[tuple[int, int, MemberId, bytes]] = []  # (round, index, asker, context), rounds ascending
        self._reads_early: list[tuple[MemberId, bytes]] = []  # asked before the own term's first entry was committed
        self._reads_ready: list[Read] = []
        self._entries_missing = False
        self._draw_timeout()

    def _keep_index(self, start: CoreStart) -> None:
        first, last = self.log.first, self.log.last
        require(
            first - 1 <= start.applied <= last,
            f"the state machine stands at {start.applied}, the log holds {first}..{last}: restart the log at the state first",
        )
        self.applied_index = start.applied
        self._handed = start.applied
        self.commit = max(start.applied, min(start.hard.commit, last))

    def _hard(self) -> HardState:
        return HardState(self.term, self.vote, self._boot, self.commit)

    def _draw_timeout(self) -> None:
        """Draw how long this member waits before it asks for votes: at least election_ticks, below twice that."""
        ticks = self.config.election_ticks
        self._timeout_ticks = ticks + self.config.random.randrange(ticks)

    def _restart_clock(self) -> None:
        self._elapsed_ticks = 0
        self._beat_ticks = 0
        self._draw_timeout()

    def _answer(self, message: Message) -> None:
        """Send what depends on the log or the vote: it leaves when all that was written before is saved (RAFT rule 1)."""
        self._later.append(message)

    def _commit_to(self, index: int) -> bool:
        """Raise commit; False when it stood there already.

        Raises:
            InvariantBroken: an entry is committed that this member does not hold: it lost what it had acknowledged.
        """
        if index <= self.commit:
            return False
        require(
            index <= self.log.last,
            f"index {index} is committed, the log here ends at {self.log.last}: acknowledged entries were lost",
        )
        self.commit = index
        return True

    @abstractmethod
    def _lead(self) -> None:
        """Become leader of the current term."""

    @abstractmethod
    def _stop_leading(self) -> None:
        """Forget what only a leader knows."""
