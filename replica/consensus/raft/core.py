"""RaftCore: the public face of the core. Time is a call, a message is a call, and `duties` says what the caller must do.

Nothing here reads a clock, a disk or a socket; chance comes from the given Random alone. All calls on one thread.
"""

from __future__ import annotations

from replica.consensus.raft.membership import Membership, MembershipChange
from replica.consensus.raft.storage import LogStorage
from replica.consensus.raft.values import CoreConfig, CoreStart, Duties, MemberId, Message, Role
from replica.model.outcome import LogEntry


class RaftCore:
    """One group's consensus on one member."""

    def __init__(self, config: CoreConfig, storage: LogStorage, start: CoreStart) -> None: ...

    def tick(self) -> None:
        """One unit of time passed."""

    def step(self, message: Message) -> None:
        """Take a message of another member. What is stale, foreign or senseless is ignored.

        Raises:
            InvariantBroken: a message contradicts what is committed here; this member must stop.
        """

    def propose(self, data: bytes) -> tuple[int, int]:
        """Append an entry; returns its (index, term).

        Raises:
            NotLeader, Dropped: nothing was appended.
        """
        return 0, 0

    def propose_change(self, change: MembershipChange) -> tuple[int, int]:
        """Append a change of the membership; returns its (index, term). One change at a time.

        Raises:
            NotLeader, Dropped: nothing was appended. ChangeRefused: it cannot be taken from the present membership.
        """
        return 0, 0

    def read_index(self, context: bytes) -> None:
        """Ask for an index that makes a read linearizable; it comes in Duties.reads, or never (a leader went: ask again).

        Raises:
            Dropped: no leader is known, or too many reads wait.
        """

    def transfer(self, to: MemberId) -> None:
        """Hand the leadership to a voter; a follower asks its leader. No proposal is taken meanwhile.

        Raises:
            Dropped: no leader is known, or `to` is no voter.
        """

    def campaign(self) -> None:
        """Start an election at once, if this member may be elected."""

    def has_duties(self) -> bool:
        """True when `duties` would say something."""
        return False

    def duties(self) -> Duties:
        """What the caller must do; see Duties. Each thing is said once."""
        return Duties()

    def saved(self, number: int) -> None:
        """The save of this number is durable. In order."""

    def applied(self, index: int) -> None:
        """The state machine stands at `index`."""

    def apply_change(self, entry: LogEntry) -> Membership:
        """Take a committed entry of kind MEMBERSHIP; returns the membership now in force."""
        return Membership()

    def entries_at_hand(self) -> None:
        """Entries that the storage did not have at hand are there now."""

    def unreachable(self, member: MemberId) -> None:
        """What was sent to the member lately may be lost."""

    def snapshot_finished(self, member: MemberId, ok: bool) -> None:
        """The transfer to the member ended; not ok: it must be begun again."""

    def allow_elections(self, allowed: bool) -> None:
        """False: this member asks for no vote and grants none."""

    def suspect(self) -> None:
        """The link to the leader's process broke: protect it no longer, and ask for votes within few ticks."""

    role: Role
    term: int
    vote: MemberId
    leader: MemberId
    commit: int
    applied_index: int
    last_index: int
    saved_index: int
    membership: Membership
