"""Planted bugs of the core: each a subclass that lacks one rule. The table is planted.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from replica.consensus.port import HardState
from replica.consensus.raft.core import RaftCore
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.quorum import Verdict
from replica.consensus.raft.values import Duties, Kind, MemberId, Message, Role
from replica.model.outcome import EntryKind
from tests.simulation.raft.disk import Save, View

# -- rule 1: one flushed write before any message that depends on it; the leader counts itself after its own flush


class RepliesBeforeSave(RaftCore):
    def duties(self) -> Duties:
        duties = super().duties()
        duties.send_now, duties.send_after_save = [*duties.send_now, *duties.send_after_save], []
        return duties


class CountsUnsaved(RaftCore):
    def _counts_itself(self) -> int:
        return self.log.last


class LeadsUnsaved(RaftCore):
    def _own_vote_counts(self) -> bool:
        return True

    def _count_vote(self, voter: MemberId, *, granted: bool) -> None:
        if self.role is Role.CANDIDATE:
            self._votes.setdefault(self.member, True)
        super()._count_vote(voter, granted=granted)


class VoteApart(View):
    """The hard state is not in the same write; a crash before the second one forgets it."""

    def write(self, op: Save) -> None:
        hard = self.hard
        super().write(op)
        self.hard = HardState(self.hard.term, hard.vote if hard.term == self.hard.term else 0)


# -- rule 2: a vote belongs to its term; replies of another term are ignored; votes are a set


class VotesAgain(RaftCore):
    def _may_vote(self, message: Message) -> bool:
        return True


class ForgetsVoteOnStepDown(RaftCore):
    def _enter_term(self, term: int) -> None:
        self.term, self.vote = term, 0


class OldRepliesCount(RaftCore):
    def _old_reply_counts(self, message: Message) -> bool:
        return message.kind in (Kind.APPEND_REPLY, Kind.VOTE_REPLY, Kind.HEARTBEAT_REPLY)


class CountsVotesTwice(RaftCore):
    """Votes are a number."""

    def _count_vote(self, voter: MemberId, *, granted: bool) -> None:
        if voter in self._votes and granted:
            voter = next((other for other in sorted(self.membership.voters) if other not in self._votes), voter)
        super()._count_vote(voter, granted=granted)


# -- rule 3: truncate only at a conflict and never below commit; commit no further than what is known to match


class CutsWithoutConflict(RaftCore):
    """Whatever follows an APPEND's place is replaced by its entries, as often as it comes."""

    def _take_entries(self, message: Message) -> None:
        if message.index < self.log.last and message.entries:
            self.log.cut_after(message.index)
        if message.entries:
            self.log.append(message.entries)


class GoesOn(RaftCore):
    """A member that hears of a commit beyond its log does not stop, so that what led there does its harm. No bug by itself."""

    def _commit_to(self, index: int) -> bool:
        return super()._commit_to(min(index, self.log.last))


class CutsAndGoesOn(CutsWithoutConflict, GoesOn):
    """Acknowledged entries are erased, and nobody notices."""


class CutsBelowCommit(CutsAndGoesOn):
    """Committed ones too: nothing is compared below commit."""

    def _check_committed(self, message: Message) -> None:
        before = self.log.term(message.index)
        if before is not None and before == message.log_term:
            self._take_entries(message)


class CommitsBeyondMessage(RaftCore):
    def _clamp_commit(self, message: Message, last_new: int) -> int:
        return min(message.commit, self.log.last)


class HeartbeatsCommit(RaftCore):
    def _heartbeat_commit(self, progress: Any) -> int:
        return self.commit

    def _on_heartbeat(self, message: Message) -> None:
        super()._on_heartbeat(replace_commit(message, min(message.commit, self.log.last)))


class TransferCommits(RaftCore):
    """The announcement of a state moves commit over a tail that nobody compared."""

    def _on_snapshot(self, message: Message) -> None:
        meta = message.snapshot
        if meta is not None and self.log.last >= meta.index > self.commit:
            self._hear_leader(message)
            self._commit_to(meta.index)
            self._acknowledge(message, self.commit)
        else:
            super()._on_snapshot(message)


def replace_commit(message: Message, commit: int) -> Message:
    return Message(message.kind, message.to, message.sender, message.term, commit=commit, context=message.context)


# -- rule 5: whole entries within a limit


class NoLimit(RaftCore):
    def _feed(self, member: MemberId, progress: Any, *, only_entries: bool = False) -> bool:
        held = self.config
        self.config = replace(held, append_octets_max=1 << 40)
        try:
            return super()._feed(member, progress, only_entries=only_entries)
        finally:
            self.config = held


class SplitsEntries(RaftCore):
    """An entry over the limit of a message is cut there."""

    def _on_append(self, message: Message) -> None:
        cut = [
            replace(entry, data=entry.data[:30]) if len(entry.data) > 30 and not entry.kind else entry
            for entry in message.entries
        ]
        super()._on_append(replace(message, entries=tuple(cut)))


# -- Raft itself


class ElectsAnybody(RaftCore):
    def _log_is_current(self, message: Message) -> bool:
        return True


class HalfIsEnough(RaftCore):
    """A majority by arithmetic: n / 2, rounded."""

    def _verdict(self) -> Verdict:
        voters = self.membership.voters
        granted = sum(self._votes.get(voter, False) for voter in voters)
        return Verdict.WON if granted >= (len(voters) + 1) // 2 else super()._verdict()


class CommitsOldTerms(RaftCore):
    def _commit_own_term_only(self, index: int) -> bool:
        return True


class NoFirstEntry(RaftCore):
    """A new leader writes nothing of its own, and counts no older entry."""

    def _append(self, data: bytes, kind: EntryKind) -> int:
        if data == self.config.first_entry:
            self._broadcast_append()
            return self.log.last
        return super()._append(data, kind)

    def propose(self, data: bytes) -> tuple[int, int]:
        if self.commit < self._term_start - 1:
            self._check_admission()
            return self.log.last + 1, 0  # it waits for what never comes
        return super().propose(data)


class ChangesOverlap(RaftCore):
    def _change_may_start(self) -> bool:
        return True


class JointIsNotJoint(RaftCore):
    """Only the new majority counts."""

    def _commit_by_quorum(self) -> bool:
        held = self.membership
        self.membership = Membership(held.voters, frozenset(), held.learners)
        try:
            return super()._commit_by_quorum()
        finally:
            self.membership = replace(held)

    def _verdict(self) -> Verdict:
        held = self.membership
        self.membership = Membership(held.voters)
        try:
            return super()._verdict()
        finally:
            self.membership = held


class LearnersCount(RaftCore):
    def _commit_by_quorum(self) -> bool:
        held = self.membership
        matches = sorted((progress.match for progress in self._progress.values()), reverse=True)
        index = matches[len(held.voters) // 2] if len(matches) > len(held.voters) // 2 else 0
        if held.learners and not held.joint and index > self.commit and index >= self._term_start:
            self._commit_to(index)
            return True
        return super()._commit_by_quorum()


class CampaignsOverChange(RaftCore):
    def _change_unapplied(self) -> bool:
        return False


class ReadsWithoutRound(RaftCore):
    def _confirmed_round(self) -> int:
        return 1 << 60


class ReadsBeforeOwnTerm(RaftCore):
    def _own_term_committed(self) -> bool:
        return True
