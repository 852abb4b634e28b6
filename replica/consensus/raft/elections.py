"""Elections: who asks for votes, who gives one, and when the term moves on (thesis chapter 3.4, 4.2.3, 9.6)."""

from __future__ import annotations

from replica.consensus.raft.log import SaveMark
from replica.consensus.raft.quorum import Verdict, joint_verdict
from replica.consensus.raft.state import CoreState
from replica.consensus.raft.values import NOBODY, Kind, MemberId, Message, Role
from replica.model.outcome import EntryKind

# Legal moves of a member's role. PRE_CANDIDATE may be left out by a transfer or by configuration.
ROLE_MOVES: dict[Role, frozenset[Role]] = {
    Role.FOLLOWER: frozenset({Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE}),
    Role.PRE_CANDIDATE: frozenset({Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE}),
    Role.CANDIDATE: frozenset({Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER}),
    Role.LEADER: frozenset({Role.FOLLOWER}),
}
SUSPECT_TICKS_MAX = 3  # a follower whose leader's link broke asks for votes within so many ticks
SCAN_OCTETS_MAX = 1024 * 1024


class Elections(CoreState):
    """Terms, votes and roles."""

    # ------------------------------------------------------------------------------------------------------------ roles
    def _follow(self, term: int, leader: MemberId) -> None:
        """Become follower in `term`, of `leader` (0: not known)."""
        self._enter_term(term)
        self._stop_leading()
        self.role = Role.FOLLOWER
        self.leader = leader
        self._votes.clear()
        self._restart_clock()

    def _enter_term(self, term: int) -> None:
        """A vote belongs to its term: a new term begins without one, the same term keeps it (RAFT rule 2)."""
        if term != self.term:
            self.term = term
            self.vote = NOBODY

    def _may_campaign(self) -> bool:
        """Only a voter that holds its state, is allowed to, and knows of no committed change that it has not taken yet."""
        if self.role is Role.LEADER or not self._elections_allowed:
            return False
        return self.membership.votes(self.member) and not self.log.restoring and not self._change_unapplied()

    def _change_unapplied(self) -> bool:
        first = self.applied_index + 1
        while first <= self.commit:
            entries = self.log.entries(first, self.commit, SCAN_OCTETS_MAX)
            if not entries:
                return True  # not at hand now: wait rather than guess
            if any(entry.kind is EntryKind.MEMBERSHIP for entry in entries):
                return True
            first += len(entries)
        return False

    def _tick_election(self) -> None:
        self._elapsed_ticks += 1
        if self._elapsed_ticks < self._timeout_ticks:
            return
        if self._may_campaign():
            self._elapsed_ticks = 0
            self._stand(by_transfer=False)
        elif self._elections_allowed and not self.membership.votes(self.member):
            self._elapsed_ticks = 0
            self._tell_commit()

    # -------------------------------------------------------------------------------------------------------- candidates
    def _stand(self, *, by_transfer: bool) -> None:
        """Ask for votes, or first whether they would be given. A transfer goes straight on: the leader itself asked for it."""
        if self.config.pre_vote and not by_transfer:
            self._ask_beforehand()
        else:
            self._ask_for_votes(by_transfer=by_transfer)

    def _ask_beforehand(self) -> None:
        """Pre-vote: the term and the vote stay as they are, so that a member that cannot win disturbs nobody."""
        self.role = Role.PRE_CANDIDATE
        self.leader = NOBODY
        self._votes.clear()
        self._request(Kind.PRE_VOTE, self.term + 1, self._now, by_transfer=False)
        self._count_vote(self.member, granted=True)

    def _ask_for_votes(self, *, by_transfer: bool) -> None:
        """Enter the next term with a vote for itself; that counts when it is saved (`_own_vote_saved`)."""
        self._enter_term(self.term + 1)
        self.vote = self.member
        self.role = Role.CANDIDATE
        self.leader = NOBODY
        self._votes.clear()
        self._restart_clock()
        outbox = self._later if self._vote_request_waits() else self._now
        self._request(Kind.VOTE, self.term, outbox, by_transfer=by_transfer)

    def _vote_request_waits(self) -> bool:
        """A request states where the candidate's log ends, so that entries must be saved first.

        Otherwise: a grant given for the longer log, the candidate crashes and loses the unsaved end, asks again in the same term,
        and the old grant, arriving late, elects it without a committed entry.
        """
        return self.log.saved < self.log.last or self.log.restoring

    def _request(self, kind: Kind, term: int, outbox: list[Message], *, by_transfer: bool) -> None:
        log, commit_term = self.log, self.log.term(self.commit) or 0
        for voter in sorted(self.membership.voters | self.membership.outgoing):
            if voter != self.member:
                request = Message(kind, voter, self.member, term, log.last_term, log.last, campaign_transfer=by_transfer)
                request.commit, request.hint = self.commit, commit_term
                outbox.append(request)

    def _own_vote_saved(self, mark: SaveMark) -> None:
        """Count the own vote once it is durable; only in the election it was given for."""
        if self.role is Role.CANDIDATE and mark.term == self.term and mark.vote == self.member:
            self._count_vote(self.member, granted=True)

    def _learn_commit(self, message: Message) -> None:
        """Messages of elections name an entry that is committed: when ours at that index has its term, ours are committed so far.

        Without it a group can stand still. The voters that are left hold the change that makes them so, but do not know it to be
        committed: they ask old voters, or do not know that they may stand; and those that know may not stand any more.
        """
        if message.commit > self.commit and message.hint and self.log.term(message.commit) == message.hint:
            self._commit_to(message.commit)

    def _tell_commit(self) -> None:
        """A member that may not stand and hears no leader tells the voters what is committed (see `_learn_commit`)."""
        term = self.log.term(self.commit) or 0
        for voter in sorted(self.membership.voters | self.membership.outgoing):
            kind = Kind.PRE_VOTE_REPLY
            self._now.append(Message(kind, voter, self.member, self.term, commit=self.commit, hint=term, reject=True))

    def _on_vote_reply(self, message: Message) -> None:
        """A reply counts in the election it answers: of the same kind and term (`step` checked it)."""
        pre = message.kind == Kind.PRE_VOTE_REPLY
        if self.role is not (Role.PRE_CANDIDATE if pre else Role.CANDIDATE):
            return
        if pre and not message.reject and message.term != self.term + 1:
            return  # granted in an earlier round, for the term that is ours by now
        self._count_vote(message.sender, granted=not message.reject)

    def _count_vote(self, voter: MemberId, *, granted: bool) -> None:
        """Votes are a set: what a member said first stands, however often it is heard."""
        self._votes.setdefault(voter, granted)
        verdict = self._verdict()
        if verdict is Verdict.LOST:
            self._follow(self.term, NOBODY)
        elif verdict is Verdict.WON and self.role is Role.PRE_CANDIDATE:
            self._ask_for_votes(by_transfer=False)
        elif verdict is Verdict.WON and self._own_vote_counts():
            self._lead()

    def _own_vote_counts(self) -> bool:
        """Nobody leads a term before its own vote in it is saved, be all others for it.

        Otherwise: it leads, crashes, has forgotten the term, is elected in it once more, and writes other entries of that term.
        """
        return self.member in self._votes

    def _verdict(self) -> Verdict:
        """More than half of each set of voters must agree, counted by number."""
        return joint_verdict(self.membership.voters, self.membership.outgoing, self._votes)

    # ------------------------------------------------------------------------------------------------------------ voters
    def _on_vote_request(self, message: Message) -> None:
        """Answer a VOTE of our term, or a PRE_VOTE of ours or a later one."""
        pre = message.kind == Kind.PRE_VOTE
        granted = self._elections_allowed and self._may_vote(message) and self._log_is_current(message)
        if granted and not pre:
            self.vote = message.sender
            self._elapsed_ticks = 0
        # A granted pre-vote answers in the term that was asked about; a refusal tells our own.
        term = message.term if granted else self.term
        kind = Kind.PRE_VOTE_REPLY if pre else Kind.VOTE_REPLY
        reply = Message(kind, message.sender, self.member, term, reject=not granted)
        if not granted:
            reply.commit, reply.hint = self.commit, self.log.term(self.commit) or 0
        self._answer(reply)

    def _may_vote(self, message: Message) -> bool:
        """One vote a term: the same again, or the first while no leader of it is known. A later term's pre-vote binds nobody."""
        if self.vote == message.sender:
            return True
        if message.kind == Kind.PRE_VOTE and message.term > self.term:
            return True
        return self.vote == NOBODY and self.leader == NOBODY

    def _log_is_current(self, message: Message) -> bool:
        """The candidate's log must be at least as current as ours: later last term, or the same and not shorter."""
        return (message.log_term, message.index) >= (self.log.last_term, self.log.last)

    def _lease_protects(self, message: Message) -> bool:
        """True while this member hears a leader: then no candidate is answered, unless that leader asked for the election."""
        return (
            self.config.check_quorum
            and not message.campaign_transfer
            and self.leader != NOBODY
            and self._elapsed_ticks < self.config.election_ticks
        )

    # ------------------------------------------------------------------------------------------------- for the face
    def campaign(self) -> None:
        """Start an election at once, if this member may be elected."""
        if self._may_campaign():
            self._stand(by_transfer=False)

    def allow_elections(self, allowed: bool) -> None:
        """False: this member asks for no vote and grants none; a candidate gives up. A leader stays leader."""
        self._elections_allowed = allowed
        if not allowed and self.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            self._follow(self.term, NOBODY)

    def suspect(self) -> None:
        """The link to the leader's process broke: forget it, so that its lease protects it no longer, and ask for votes soon.

        The leader's next message makes it known again.
        """
        if self.role is Role.FOLLOWER and self.leader != NOBODY:
            self.leader = NOBODY
            soon = self._timeout_ticks - 1 - self.config.random.randrange(SUSPECT_TICKS_MAX)
            self._elapsed_ticks = max(self._elapsed_ticks, soon)
