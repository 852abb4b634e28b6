"""RaftCore: the public face of the core. Time is a call, a message is a call, and `duties` says what the caller must do.

Nothing here reads a clock, a disk or a socket; chance comes from the given Random alone. All calls on one thread. The core is
one object in parts, each resting on the one before: state.py (fields), elections.py, following.py, reads.py, leading.py,
changing.py; log.py and progress.py hold what they share. Each rule of Raft is one small method, so that a test can turn it off.
"""

from __future__ import annotations

from collections.abc import Sequence

from replica.consensus.raft.changing import Changing
from replica.consensus.raft.progress import Progress
from replica.consensus.raft.values import NOBODY, Duties, Kind, MemberId, Message, Role, Soft
from replica.model.outcome import LogEntry

OF_LEADERS = frozenset({Kind.APPEND, Kind.HEARTBEAT, Kind.SNAPSHOT})
OF_NO_TERM = frozenset({Kind.READ_INDEX, Kind.TRANSFER})
REQUESTS = frozenset({Kind.VOTE, Kind.PRE_VOTE})
OF_ELECTIONS = REQUESTS | {Kind.VOTE_REPLY, Kind.PRE_VOTE_REPLY}


class RaftCore(Changing):
    """One group's consensus on one member.

    Fields to read: role, term, vote, leader, commit, applied_index, membership; methods of the parts: propose, propose_change,
    apply_change, applied, read_index, transfer, campaign, allow_elections, suspect, unreachable, snapshot_finished, memory_lost,
    entries_at_hand.
    """

    @property
    def last_index(self) -> int:
        """Newest entry, saved or not."""
        return self.log.last

    @property
    def saved_index(self) -> int:
        """Newest entry that is durable here; 0 while a restored state is not saved."""
        return 0 if self.log.restoring else self.log.saved

    def progress(self, member: MemberId) -> Progress | None:
        """What this leader knows of a member; None when it does not lead, or not the member. To read only."""
        return self._progress.get(member)

    def tick(self) -> None:
        """One unit of time passed."""
        if self.role is Role.LEADER:
            self._tick_leader()
        else:
            self._tick_election()

    def step(self, message: Message) -> None:
        """Take a message of another member. What is stale, foreign or senseless is ignored.

        Raises:
            InvariantBroken: a message contradicts what is committed here, or two lead in one term; this member must stop.
        """
        if message.to != self.member or message.sender == self.member:
            return
        if message.term != self.term and not self._enters(message):
            return
        kind = message.kind
        # In the order of how often they come.
        if kind == Kind.APPEND:
            self._on_append(message)
        elif kind == Kind.APPEND_REPLY:
            self._on_append_reply(message)
        elif kind == Kind.HEARTBEAT:
            self._on_heartbeat(message)
        elif kind == Kind.HEARTBEAT_REPLY:
            self._on_heartbeat_reply(message)
        else:
            self._step_rare(message)

    def _step_rare(self, message: Message) -> None:
        kind = message.kind
        if kind in OF_ELECTIONS:
            self._learn_commit(message)
        if kind in REQUESTS:
            self._on_vote_request(message)
        elif kind in (Kind.VOTE_REPLY, Kind.PRE_VOTE_REPLY):
            self._on_vote_reply(message)
        elif kind == Kind.SNAPSHOT:
            self._on_snapshot(message)
        elif kind == Kind.TIMEOUT_NOW:
            self._on_timeout_now(message)
        elif kind == Kind.READ_INDEX:
            self._on_read_index(message)
        elif kind == Kind.READ_INDEX_REPLY:
            self._on_read_index_reply(message)
        elif kind == Kind.TRANSFER:
            self._on_transfer(message)

    def _enters(self, message: Message) -> bool:
        """Judge a message of another term; True: handle it now (our term may have moved on)."""
        kind = message.kind
        if kind in OF_NO_TERM:
            return message.term == 0
        if kind in OF_ELECTIONS:
            self._learn_commit(message)  # what is committed is so in every term
        if message.term > self.term:
            return self._enters_later(message)
        if kind in OF_LEADERS:
            # A leader that was deposed without hearing of it, or one that a member of a later term cannot follow: it must learn
            # our term, else that member could never come back, since its votes are not answered while the leader is heard.
            if self.config.check_quorum or self.config.pre_vote:
                self._answer(Message(Kind.APPEND_REPLY, message.sender, self.member, self.term))
            return False
        if kind == Kind.PRE_VOTE:
            # Its sender must learn our term too, else two with different terms could refuse each other for ever.
            self._answer(Message(Kind.PRE_VOTE_REPLY, message.sender, self.member, self.term, reject=True))
            return False
        return kind != Kind.VOTE and self._old_reply_counts(message)

    def _old_reply_counts(self, message: Message) -> bool:
        """What belongs to an earlier term is ignored (RAFT rule 2)."""
        return False

    def _enters_later(self, message: Message) -> bool:
        kind = message.kind
        if kind in REQUESTS and self._lease_protects(message):
            return False
        if kind == Kind.PRE_VOTE:
            return True  # it asks about a term, it does not begin it
        if kind == Kind.PRE_VOTE_REPLY and not message.reject:
            # Granted for the term that would follow ours; any other is of another time.
            return message.term == self.term + 1
        self._follow(message.term, message.sender if kind in OF_LEADERS else NOBODY)
        return True

    # ------------------------------------------------------------------------------------------------------------ duties
    def has_duties(self) -> bool:
        """True when `duties` would say something."""
        return (
            bool(self._now or self._later or self._reads_ready)
            or self._round_wanted
            or self.log.wants_save
            or self._hard_told != (self.term, self.vote)
            or self._soft_told != (self.leader, self.role)
            or (self._handed < self.commit and not self._entries_missing and self._handed < self._may_apply())
        )

    def duties(self) -> Duties:
        """What the caller must do; see Duties. Each thing is said once."""
        if self._round_wanted:
            self._broadcast_heartbeat()
        duties = Duties()
        hard_changed = self._hard_told != (self.term, self.vote)
        if hard_changed or self.log.wants_save or (self._later and self.log.saving):
            self._take_save(duties, hard_changed=hard_changed)
        elif self._later:
            # All that these depend on is durable already.
            self._now += self._later
            self._later = []
        if self._now:
            duties.send_now, self._now = self._now, []
        if self._handed < self.commit:
            duties.committed = self._hand_out()
        if self._reads_ready:
            duties.reads, self._reads_ready = self._reads_ready, []
        if self._soft_told != (self.leader, self.role):
            self._soft_told = (self.leader, self.role)
            duties.soft = Soft(self.leader, self.role)
        return duties

    def _take_save(self, duties: Duties, *, hard_changed: bool) -> None:
        self._save_number += 1
        mark, duties.cut_after, duties.entries = self.log.take(self._save_number, self.term, self.vote)
        duties.number = mark.number
        duties.snapshot = mark.snapshot
        if hard_changed:
            duties.hard = self._hard()
            self._hard_told = (self.term, self.vote)
        duties.send_after_save, self._later = self._later, []

    def _may_apply(self) -> int:
        """Only what is committed and saved here is applied."""
        return 0 if self.log.restoring else min(self.commit, self.log.saved)

    def _hand_out(self) -> Sequence[LogEntry]:
        last = self._may_apply()
        if last <= self._handed:
            return ()
        entries = self.log.entries(self._handed + 1, last, self.config.committed_octets_max)
        self._entries_missing = not entries
        self._handed += len(entries)
        return entries

    def saved(self, number: int) -> None:
        """The save of this number is durable, and the storage shows it. Numbers come in the order in which they were given.

        Raises:
            InvariantBroken: it is not the next one on its way.
        """
        mark = self.log.save_returned(number)
        if mark.snapshot is not None and not self.log.restoring:
            self.applied_index = max(self.applied_index, mark.snapshot.index)
        self._own_log_saved(mark)
        self._own_vote_saved(mark)
