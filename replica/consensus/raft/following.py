"""Following: entries, heartbeats and states that a leader sends (thesis chapter 3.5, 3.6, 5)."""

from __future__ import annotations

from replica.consensus.raft.elections import Elections
from replica.consensus.raft.values import Kind, Message, Role, SnapshotMeta
from replica.model.errors import require


class Following(Elections):
    """What a member does with its leader's messages. All of them are of the own term (`step` checked it)."""

    def _hear_leader(self, message: Message) -> None:
        """A leader of our term speaks: candidates give up, followers wait anew."""
        if self.role is Role.FOLLOWER:
            self._elapsed_ticks = 0
            self.leader = message.sender
            return
        require(self.role is not Role.LEADER, f"members {self.member} and {message.sender} both lead in term {self.term}")
        self._follow(self.term, message.sender)

    def _on_append(self, message: Message) -> None:
        self._hear_leader(message)
        if message.index < self.commit:
            # An old message: all up to commit is equal here and there.
            self._check_committed(message)
            self._acknowledge(message, self.commit)
        elif self.log.term(message.index) != message.log_term:
            self._refuse(message)
        else:
            last_new = message.index + len(message.entries)
            self._take_entries(message)
            self._commit_to(self._clamp_commit(message, last_new))
            self._acknowledge(message, last_new)

    def _check_committed(self, message: Message) -> None:
        """A leader that sends other entries where ours are committed was elected without them: this member must stop."""
        told = [(message.index, message.log_term), *[(entry.index, entry.term) for entry in message.entries]]
        for index, term in told:
            ours = self.log.term(index) if index <= self.commit else None
            require(ours is None or ours == term, f"member {message.sender} contradicts the committed entry {index}")

    def _take_entries(self, message: Message) -> None:
        """Append what is new. Entries that are held already stay, so that an old or doubled message never shortens the log."""
        entries = message.entries
        if not entries:
            return
        log = self.log
        if message.index == log.last:
            log.append(entries)
            return
        fresh = self._first_conflict(message)
        if fresh == len(entries):
            return
        keep = entries[fresh].index - 1
        if keep < log.last:
            require(keep >= self.commit, f"{message.sender} contradicts the committed entry {keep + 1}")
            log.cut_after(keep)
        log.append(entries[fresh:])

    def _first_conflict(self, message: Message) -> int:
        """Place of the first entry that is missing here or has another term; the number of entries when there is none.

        Truncate only at a real conflict of terms (RAFT rule 3).
        """
        term = self.log.term
        for place, entry in enumerate(message.entries):
            if term(entry.index) != entry.term:
                return place
        return len(message.entries)

    def _clamp_commit(self, message: Message, last_new: int) -> int:
        """What the leader committed, but not behind the last entry of this message: only so far logs are known to be equal."""
        return min(message.commit, last_new)

    def _acknowledge(self, message: Message, index: int) -> None:
        self._answer(Message(Kind.APPEND_REPLY, message.sender, self.member, self.term, 0, index))

    def _refuse(self, message: Message) -> None:
        """The entry before is missing or another one: tell where the logs may meet."""
        hint, term = self.log.hint_below(min(message.index, self.log.last), message.log_term)
        self._answer(
            Message(Kind.APPEND_REPLY, message.sender, self.member, self.term, term, message.index, reject=True, hint=hint)
        )

    def _on_heartbeat(self, message: Message) -> None:
        """A heartbeat's commit is at most what the leader knows to match here, so that it may be believed."""
        self._hear_leader(message)
        self._commit_to(message.commit)
        self._now.append(
            Message(Kind.HEARTBEAT_REPLY, message.sender, self.member, self.term, 0, 0, (), 0, False, 0, message.context)
        )

    def _on_snapshot(self, message: Message) -> None:
        self._hear_leader(message)
        meta = message.snapshot
        if meta is not None and meta.index > self.commit:
            if self.log.term(meta.index) == meta.term:
                self._commit_to(meta.index)  # the log holds all of it already, and matches at its end
            else:
                self._restore(meta)
        self._acknowledge(message, self.commit)

    def _restore(self, meta: SnapshotMeta) -> None:
        """Begin anew behind a state that the caller has installed."""
        self.log.restore(meta)
        self.commit = meta.index
        self._handed = meta.index
        self.membership = meta.membership

    def _on_timeout_now(self, message: Message) -> None:
        """The leader hands over: start an election at once; its lease does not count against us."""
        if self.role is Role.FOLLOWER and self._may_campaign():
            self._stand(by_transfer=True)
