"""Leading: the leader's log, how members are fed from it, and when an entry is committed (thesis 3.5, 3.6, 3.10, 5, 6.2)."""

from __future__ import annotations

from replica.consensus.raft.log import SaveMark
from replica.consensus.raft.progress import Feeding, Progress
from replica.consensus.raft.quorum import NO_LIMIT, Verdict, joint_index, joint_verdict
from replica.consensus.raft.reads import Reads
from replica.consensus.raft.values import NOBODY, Dropped, Kind, MemberId, Message, NotLeader, Role
from replica.model.outcome import EntryKind, LogEntry


class Leading(Reads):
    """What a leader does."""

    # ----------------------------------------------------------------------------------------------------- term of office
    def _lead(self) -> None:
        """Become leader: members are probed from the log's end, and the own term's first entry commits what came before it."""
        self._stop_leading()
        self.role = Role.LEADER
        self.leader = self.member
        self._votes.clear()
        self._restart_clock()
        self._progress = {member: Progress(self.log.last + 1) for member in sorted(self.membership.members)}
        own = self._progress.get(self.member)
        if own is not None:
            own.replicate()
            own.active = True
            own.acknowledged(self._counts_itself())
        # Changes that predecessors left in the log may still be on their way to being applied.
        self._change_index = self.log.last
        self._term_start = self.log.last + 1
        self._append(self.config.first_entry, EntryKind.DATA)

    def _stop_leading(self) -> None:
        self._progress = {}
        self._transferee = NOBODY
        self._change_index = 0
        self._forget_reads()

    def _tick_leader(self) -> None:
        self._elapsed_ticks += 1
        self._beat_ticks += 1
        if self._elapsed_ticks >= self.config.election_ticks:
            self._elapsed_ticks = 0
            if self.config.check_quorum and not self._hears_quorum():
                self._follow(self.term, NOBODY)
                return
            self._transferee = NOBODY  # it had its time
        if self._beat_ticks >= self.config.heartbeat_ticks:
            self._beat_ticks = 0
            self._broadcast_heartbeat()

    def _hears_quorum(self) -> bool:
        """True when a quorum was heard of since the last check; begins the next period."""
        heard = {member: progress.active for member, progress in self._progress.items()}
        heard[self.member] = True
        for member, progress in self._progress.items():
            progress.active = member == self.member
        return joint_verdict(self.membership.voters, self.membership.outgoing, heard) is Verdict.WON

    # ---------------------------------------------------------------------------------------------------------- own log
    def propose(self, data: bytes) -> tuple[int, int]:
        """Append an entry; returns its (index, term).

        Raises:
            NotLeader, Dropped: nothing was appended.
        """
        self._check_admission()
        return self._append(data, EntryKind.DATA), self.term

    def _check_admission(self) -> None:
        if self.role is not Role.LEADER:
            raise NotLeader(self.leader)
        if self.member not in self._progress:
            raise Dropped("this leader was removed from the group; another one will be elected")
        if self._transferee:
            raise Dropped(f"the leadership is being handed to member {self._transferee}; ask it, or again later")

    def _append(self, data: bytes, kind: EntryKind) -> int:
        index = self.log.last + 1
        self.log.append((LogEntry(index, self.term, data, kind),))
        self._count_own_log()
        self._broadcast_append()
        return index

    def _counts_itself(self) -> int:
        """The leader counts itself like any member: only with what is saved (RAFT rule 1)."""
        return self.log.saved

    def _count_own_log(self) -> None:
        own = self._progress.get(self.member)
        if own is not None and own.acknowledged(self._counts_itself()) and self._commit_by_quorum():
            self._broadcast_append()

    def _own_log_saved(self, mark: SaveMark) -> None:
        if self.role is Role.LEADER:
            self._count_own_log()

    def _commit_by_quorum(self) -> bool:
        """Commit what both majorities hold; False when nothing new is."""
        matches = {member: progress.match for member, progress in self._progress.items()}
        index = joint_index(self.membership.voters, self.membership.outgoing, matches)
        if index == NO_LIMIT or index <= self.commit or not self._commit_own_term_only(index):
            return False
        self._commit_to(index)
        self._release_early_reads()
        return True

    def _commit_own_term_only(self, index: int) -> bool:
        """Entries of earlier terms are committed by one of our own behind them, never by counting (thesis figure 3.7)."""
        return index >= self._term_start

    # ----------------------------------------------------------------------------------------------------------- feeding
    def _broadcast_append(self) -> None:
        for member, progress in self._progress.items():
            if member != self.member:
                self._feed(member, progress)

    def _feed(self, member: MemberId, progress: Progress, *, only_entries: bool = False) -> bool:
        """Send the next APPEND, or a state when its entries are gone; False when nothing was sent.

        An APPEND without entries still tells commit, and its answer finds a gap; `only_entries` leaves it out.
        """
        if progress.paused or progress.feeding is Feeding.SNAPSHOT:
            return False
        log = self.log
        before = progress.next - 1
        term = log.term(before)
        if term is None:
            return self._feed_state(member, progress)
        entries: tuple[LogEntry, ...] = ()
        replicating = progress.feeding is Feeding.REPLICATE
        full = replicating and self._flow_is_full(progress)
        if before < log.last and not full:
            entries = tuple(log.entries(progress.next, log.last, self.config.append_octets_max))
        if only_entries and not entries:
            return False
        self._now.append(Message(Kind.APPEND, member, self.member, self.term, term, before, entries, self.commit))
        progress.commit_told = self.commit
        if not replicating:
            progress.paused = bool(entries)
        else:
            if entries:
                progress.sent(before + len(entries), sum([len(entry.data) for entry in entries]))
            # A full pipeline, or a message without entries into one, waits for an answer or the next heartbeat's reply.
            progress.paused = self._flow_is_full(progress)
        return True

    def _flow_is_full(self, progress: Progress) -> bool:
        """Bounded by messages and by octets on their way; the last message may pass the limit of octets."""
        return (
            len(progress.inflight) >= self.config.inflight_messages_max
            or progress.inflight_octets >= self.config.inflight_octets_max
        )

    def _feed_state(self, member: MemberId, progress: Progress) -> bool:
        """Begin a transfer; no compaction of the log ends it, only its own end or the member's answer does."""
        meta = self.log.snapshot() if progress.active else None
        if meta is None:
            return False
        progress.transfer(meta.index)
        self._now.append(Message(Kind.SNAPSHOT, member, self.member, self.term, snapshot=meta))
        return True

    def _on_append_reply(self, message: Message) -> None:
        progress = self._progress.get(message.sender)
        if progress is None:
            return
        progress.active = True
        if message.reject:
            self._step_back(message, progress)
        elif progress.acknowledged(message.index) or (message.index == progress.match and progress.feeding is Feeding.PROBE):
            self._go_on(message.sender, progress)

    def _step_back(self, message: Message, progress: Progress) -> None:
        """Find where the logs may meet: below the hint, and below all of ours with a later term than the hint's."""
        hint = message.hint
        if message.log_term:
            hint, _ = self.log.hint_below(hint, message.log_term)
        if progress.refused(message.index, hint):
            if progress.feeding is Feeding.REPLICATE:
                progress.probe()
            self._feed(message.sender, progress)

    def _go_on(self, member: MemberId, progress: Progress) -> None:
        """A member matched: commit, tell commit, and keep its pipeline full."""
        if progress.feeding is Feeding.REPLICATE:
            progress.free(progress.match)
        elif progress.feeding is Feeding.PROBE or progress.match + 1 >= self.log.first:
            # After a transfer any match that the log reaches will do, be it another state than the one we sent.
            progress.replicate()
        if progress.match > self.commit and self._commit_by_quorum():
            self._broadcast_append()
        elif self._may_learn_commit(progress):
            self._feed(member, progress)
        while self._feed(member, progress, only_entries=True):
            pass
        if member == self._transferee:
            self._hand_over(member, progress)

    def _may_learn_commit(self, progress: Progress) -> bool:
        """True when an APPEND would tell this member of entries committed that it holds or is being sent."""
        return progress.commit_told < min(self.commit, progress.next - 1)

    # -------------------------------------------------------------------------------------------------------- heartbeats
    def _broadcast_heartbeat(self) -> None:
        context = self._round_context()
        self._round_wanted = False
        for member, progress in self._progress.items():
            if member != self.member:
                commit = self._heartbeat_commit(progress)
                progress.commit_told = commit
                self._now.append(Message(Kind.HEARTBEAT, member, self.member, self.term, 0, 0, (), commit, False, 0, context))

    def _heartbeat_commit(self, progress: Progress) -> int:
        """Never above what the member matched: behind that it may hold another leader's entries (RAFT rule 3)."""
        return min(progress.match, self.commit)

    def _on_heartbeat_reply(self, message: Message) -> None:
        progress = self._progress.get(message.sender)
        if progress is None:
            return
        progress.active = True
        progress.paused = False
        # A member that lacks entries, or is probed, gets a message whose answer sets its flow going, should all before be lost.
        if progress.match < self.log.last or progress.feeding is Feeding.PROBE:
            self._feed(message.sender, progress)
        self._round_answered(progress, message.context)

    # ---------------------------------------------------------------------------------------------------------- transfer
    def transfer(self, to: MemberId) -> None:
        """Hand the leadership to a voter; a follower asks its leader. No proposal is taken meanwhile.

        Raises:
            Dropped: no leader is known, or `to` is no voter.
        """
        if self.role is Role.LEADER:
            self._begin_transfer(to)
        elif self.leader == NOBODY:
            raise Dropped("no leader is known that could hand over; ask again later")
        else:
            self._now.append(Message(Kind.TRANSFER, self.leader, self.member, hint=to))

    def _on_transfer(self, message: Message) -> None:
        if self.role is Role.LEADER and self.membership.votes(message.hint):
            self._begin_transfer(message.hint)

    def _begin_transfer(self, to: MemberId) -> None:
        if not self.membership.votes(to):
            raise Dropped(f"member {to} is no voter of this group and cannot lead it")
        if to in (self.member, self._transferee):
            return
        self._elapsed_ticks = 0  # it has election_ticks from now
        self._transferee = to
        self._hand_over(to, self._progress[to])
        if self._progress[to].match < self.log.last:
            self._feed(to, self._progress[to])

    def _hand_over(self, to: MemberId, progress: Progress) -> None:
        """Only a member that holds the whole log may be told to stand: it will win."""
        if progress.match == self.log.last:
            self._now.append(Message(Kind.TIMEOUT_NOW, to, self.member, self.term))

    # ----------------------------------------------------------------------------------------- what the caller reports
    def unreachable(self, member: MemberId) -> None:
        """What was sent to the member lately may be lost: probe it again."""
        progress = self._progress.get(member)
        if progress is not None and progress.feeding is Feeding.REPLICATE:
            progress.probe()

    def snapshot_finished(self, member: MemberId, ok: bool) -> None:
        """The transfer to the member ended; not ok: begin anew. All goes on with its answer or its next reply to a heartbeat."""
        progress = self._progress.get(member)
        if progress is None or progress.feeding is not Feeding.SNAPSHOT:
            return
        if not ok:
            progress.pending = 0
        progress.probe()
        progress.paused = True

    def memory_lost(self, member: MemberId) -> None:
        """The member lost what it had acknowledged: count it no longer, and feed it from where it says."""
        progress = self._progress.get(member)
        if progress is not None and member != self.member:
            progress.forget(self.log.last + 1)

    def entries_at_hand(self) -> None:
        """Entries that the storage did not have at hand are there now."""
        self._entries_missing = False
        for member, progress in self._progress.items():
            if member != self.member:
                while self._feed(member, progress, only_entries=True):
                    pass
