"""Changing: one change of the membership after another, through the log (thesis chapter 4)."""

from __future__ import annotations

from replica.consensus.raft.leading import Leading
from replica.consensus.raft.membership import Changed, Membership, MembershipChange, change_membership
from replica.consensus.raft.progress import keep_progress
from replica.consensus.raft.values import NOBODY, Dropped, Role
from replica.model.errors import InvariantBroken, require
from replica.model.outcome import EntryKind, LogEntry


class Changing(Leading):
    """A change is in force on each member once the member applies it.

    Safe because the next change is admitted only when the one before is applied at the leader (so committed by the majority it
    changes), and because no member asks for votes while it knows of a committed change that it has not applied.
    """

    def propose_change(self, change: MembershipChange) -> tuple[int, int]:
        """Append a change of the membership; returns its (index, term). One change at a time.

        Raises:
            NotLeader, Dropped: nothing was appended. ChangeRefused: it cannot be taken from the present membership.
        """
        self._check_admission()
        if not self._change_may_start():
            raise Dropped(f"the change at index {self._change_index} is not applied yet; ask again later")
        self._check_change(change)
        self._change_index = self.log.last + 1
        return self._append(change.encode(), EntryKind.MEMBERSHIP), self.term

    def _change_may_start(self) -> bool:
        """One change at a time: the last one in the log must be applied here."""
        return self._change_index <= self.applied_index

    def _check_change(self, change: MembershipChange) -> None:
        """Only a change that can be taken enters the log. No other one is on its way, so the present membership tells."""
        change_membership(self.membership, change)

    def apply_change(self, entry: LogEntry) -> Membership:
        """Take a committed entry of kind MEMBERSHIP; returns the membership now in force.

        Raises:
            InvariantBroken: it is no such entry, or cannot be taken: the membership here is not that of its place in the log.
        """
        require(entry.kind is EntryKind.MEMBERSHIP, f"entry {entry.index} is no change of the membership")
        require(entry.index <= self.commit, f"the change at index {entry.index} is not committed")
        try:
            changed = change_membership(self.membership, MembershipChange.decode(entry.data))
        except ValueError as exc:
            raise InvariantBroken(f"the change at index {entry.index} cannot be taken from {self.membership}: {exc}") from exc
        self._switch_to(changed)
        return self.membership

    def _switch_to(self, changed: Changed) -> None:
        self.membership = changed.membership
        if self.role is not Role.LEADER:
            if self.role is not Role.FOLLOWER and not self.membership.votes(self.member) and self._steps_down_when_removed():
                self._follow(self.term, NOBODY)  # else it wins with votes that are on their way, and leads what it cannot write
            return
        self._progress = keep_progress(self._progress, changed, self.log.last)
        if not self.membership.votes(self.member):
            if self._steps_down_when_removed():
                self._follow(self.term, NOBODY)
            return
        if not self.membership.votes(self._transferee):
            self._transferee = NOBODY
        if self._commit_by_quorum():
            self._broadcast_append()  # a smaller majority may hold more
            return
        for member, progress in self._progress.items():
            if member != self.member:
                self._feed(member, progress, only_entries=True)

    def _steps_down_when_removed(self) -> bool:
        """A leader that is no voter any more leaves the office once it knows that this is committed (thesis 4.2.2)."""
        return True

    def applied(self, index: int) -> None:
        """The state machine stands at `index`. A lower one than before is ignored."""
        require(index <= self.commit, f"index {index} is applied, only {self.commit} is committed")
        if index <= self.applied_index:
            return
        self.applied_index = index
        self._handed = max(self._handed, index)
        self._leave_joint()

    def _tick_leader(self) -> None:
        super()._tick_leader()
        self._leave_joint()

    def _leave_joint(self) -> None:
        """The leader leaves a joint membership that asks for it, as soon as entering it is applied."""
        if self.role is not Role.LEADER or not self.membership.joint or not self.membership.auto_leave:
            return
        try:
            self.propose_change(MembershipChange())
        except Dropped:
            return  # a transfer runs, or a change is under way (this one, most often): tried again with each tick
