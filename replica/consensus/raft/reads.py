"""Reads: an index behind which a read is linearizable, confirmed by a quorum's heartbeats (thesis chapter 6.4).

Reads that arrive between two calls of `duties` share one round of heartbeats. Each heartbeat carries the newest round, each
reply echoes it; a reply to a later round confirms the earlier ones too.
"""

from __future__ import annotations

from replica.consensus.raft.following import Following
from replica.consensus.raft.progress import Progress
from replica.consensus.raft.quorum import NO_LIMIT, joint_index
from replica.consensus.raft.values import NOBODY, Dropped, Kind, MemberId, Message, Read, Role

ROUND_OCTETS = 8


class Reads(Following):
    """Reads at the leader, and at followers by way of it."""

    def read_index(self, context: bytes) -> None:
        """Ask for an index that makes a read linearizable; it comes in Duties.reads, or never (the leader went: ask again).

        Raises:
            Dropped: no leader is known, or too many reads wait.
        """
        if self.role is Role.LEADER:
            if not self._register_read(self.member, context):
                raise Dropped(f"{self.config.reads_waiting_max} reads wait already; ask again later")
        elif self.leader == NOBODY:
            raise Dropped("no leader is known that could confirm a read; ask again later")
        else:
            self._now.append(Message(Kind.READ_INDEX, self.leader, self.member, context=context))

    def _on_read_index(self, message: Message) -> None:
        if self.role is Role.LEADER:
            self._register_read(message.sender, message.context)

    def _on_read_index_reply(self, message: Message) -> None:
        if message.sender == self.leader:
            self._reads_ready.append(Read(message.context, message.index))

    def _register_read(self, asker: MemberId, context: bytes) -> bool:
        """Let a read wait for its round; False when too many do."""
        if len(self._reads_waiting) + len(self._reads_early) >= self.config.reads_waiting_max:
            return False
        if not self._own_term_committed():
            self._reads_early.append((asker, context))
            return True
        if not self._round_wanted:
            self._round += 1
            self._round_wanted = True
        self._reads_waiting.append((self._round, self.commit, asker, context))
        self._confirm_reads()
        return True

    def _own_term_committed(self) -> bool:
        """Before its own term's first entry is committed, a leader does not know what its predecessors committed."""
        return self.commit >= self._term_start

    def _release_early_reads(self) -> None:
        if self._reads_early and self._own_term_committed():
            early, self._reads_early = self._reads_early, []
            for asker, context in early:
                self._register_read(asker, context)

    def _round_context(self) -> bytes:
        """What heartbeats carry while reads wait."""
        return self._round.to_bytes(ROUND_OCTETS, "big") if self._reads_waiting else b""

    def _round_answered(self, progress: Progress, context: bytes) -> None:
        if len(context) == ROUND_OCTETS and self._reads_waiting:
            progress.round = max(progress.round, int.from_bytes(context, "big"))
            self._confirm_reads()

    def _confirm_reads(self) -> None:
        """Answer the reads whose round a quorum has answered: no later leader existed when they were asked."""
        confirmed = self._confirmed_round()
        waiting = self._reads_waiting
        done = 0
        while done < len(waiting) and waiting[done][0] <= confirmed:
            _, index, asker, context = waiting[done]
            done += 1
            if asker == self.member:
                self._reads_ready.append(Read(context, index))
            else:
                reply = Message(Kind.READ_INDEX_REPLY, asker, self.member, self.term, index=index, context=context)
                self._now.append(reply)
        del waiting[:done]
        if not waiting:
            self._round_wanted = False

    def _confirmed_round(self) -> int:
        rounds = {member: progress.round for member, progress in self._progress.items()}
        rounds[self.member] = self._round
        confirmed = joint_index(self.membership.voters, self.membership.outgoing, rounds)
        return 0 if confirmed == NO_LIMIT else confirmed

    def _forget_reads(self) -> None:
        """Reads of a term that ended are never answered; their askers ask again."""
        self._reads_waiting.clear()
        self._reads_early.clear()
        self._round = 0
        self._round_wanted = False
