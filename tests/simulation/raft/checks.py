"""What must hold after every step, checked where something changed and nowhere else.

election safety          one leader a term
one vote a term          a member grants one vote a term, or leads with its own, over all its lives
log matching             entries of one index and term are the same entry, behind the same term, in every log
leader completeness      a leader's log holds all that was committed in lower terms
state-machine safety     nobody applies another entry at an index, skips one, or stands at another digest there
commit never goes back   in one life
acknowledged writes      what a client was told is committed is what is committed there
refused writes           what a client was told had failed is nowhere at the end
linearizable reads       a read shows all that had been acknowledged or read before it was asked
one change at a time     a leader begins no change of membership over an unapplied one
membership               the same at the same index everywhere; without a joint one, at most one voter changes
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING
from zlib import crc32

from replica.consensus.raft.membership import Membership
from replica.model.outcome import EntryKind, LogEntry

if TYPE_CHECKING:
    from tests.simulation.raft.seat import Seat


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name


def chained(digest: int, entry: LogEntry) -> int:
    """Digest of a state after one more entry."""
    return crc32(entry.data, digest + entry.index * 31 + entry.term * 7 & 0xFFFFFFFF)


class GroupTruth:
    """All that was ever seen of one group, by all members in all their lives."""

    def __init__(self, group: int) -> None:
        self.group = group
        # Committed, by index from 1. A group is born as a state at index 1, so that whoever joins is fed by a transfer and learns
        # the membership with it.
        self.entries: list[LogEntry] = [LogEntry(1, 1, b"born")]
        self.seen_in: list[int] = [1]  # term in which it was known to be committed; never falls
        self.digests: list[int] = [0, 0]  # by index from 0
        self.memberships: dict[int, Membership] = {}  # index -> in force from there on
        self.membership = Membership()
        self.leaders: dict[int, int] = {}
        self.top: Seat | None = None  # the newest leader
        self.top_term = 0
        self.votes: dict[tuple[int, int], int] = {}
        self.written: dict[tuple[int, int], tuple[LogEntry, int]] = {}
        self.changes: list[LogEntry] = []  # of the membership, that ever stood in a log
        self.floor = 0  # highest index that was acknowledged to a client or shown to one
        self.acknowledged: dict[int, bytes] = {}

    def wrong(self, name: str, detail: str) -> Violation:
        return Violation(name, f"group {self.group}: {detail}")

    def voted(self, member: int, term: int, candidate: int) -> None:
        before = self.votes.setdefault((member, term), candidate)
        if before != candidate:
            raise self.wrong("one vote a term", f"member {member} votes for {candidate} in term {term}, and did for {before}")

    def led(self, seat: Seat, member: int, term: int) -> None:
        """A member was seen leading."""
        before = self.leaders.setdefault(term, member)
        if before != member:
            raise self.wrong("election safety", f"members {before} and {member} lead in term {term}")
        last = bisect_left(self.seen_in, term)
        if last and not seat.log.holds(last, self.entries[last - 1].term):
            raise self.wrong(
                "leader completeness",
                f"member {member} leads in term {term} without entry {last} of term {self.entries[last - 1].term}: {seat.log}",
            )
        if term > self.top_term:
            self.top, self.top_term = seat, term

    def appended(self, member: int, entry: LogEntry, before: int) -> None:
        """A member's log got an entry; `before`: term of the entry before it in that log."""
        key = (entry.index, entry.term)
        known = self.written.get(key)
        if known is None:
            self.written[key] = (entry, before)
            if entry.kind is EntryKind.MEMBERSHIP:
                self.changes.append(entry)
        elif known[1] != before or (known[0] is not entry and known[0] != entry):
            raise self.wrong("log matching", f"member {member} holds another entry {entry.index} of term {entry.term}")
        if entry.index <= len(self.seen_in) and entry.term > self.seen_in[entry.index - 1]:
            raise self.wrong(
                "leader completeness", f"entry {entry.index} of term {entry.term} stands where another one is committed"
            )

    def handed_out(self, member: int, entry: LogEntry, term: int) -> None:
        """A member, itself in `term`, takes an entry for committed."""
        index = entry.index
        if index <= len(self.entries):
            known = self.entries[index - 1]
            if known is not entry and known != entry:
                raise self.wrong(
                    "state-machine safety",
                    f"member {member} applies entry {index} of term {entry.term}, committed was one of term {known.term}",
                )
            return
        if index != len(self.entries) + 1:
            raise self.wrong("state-machine safety", f"member {member} applies {index}, nobody saw {len(self.entries) + 1}")
        self.entries.append(entry)
        self.seen_in.append(max(term, self.seen_in[-1]))
        self.digests.append(chained(self.digests[-1], entry))
        top = self.top
        if top is not None and self.top_term > term and top.leads_in(self.top_term) and not top.log.holds(index, entry.term):
            raise self.wrong(
                "leader completeness",
                f"entry {index} of term {entry.term} is committed, the leader of {self.top_term} has it not",
            )

    def stands(self, member: int, index: int, digest: int) -> None:
        if self.digests[index] != digest:
            raise self.wrong("state-machine safety", f"member {member} stands at another digest at {index}")

    def may_change(self) -> bool:
        """A change of the membership that nobody has applied may come into force: it is committed, or may yet be."""
        applied = max(self.memberships, default=0)
        return any(
            change.index > len(self.entries) or (change.index > applied and self.entries[change.index - 1] == change)
            for change in self.changes
        )

    def changed(self, member: int, index: int, membership: Membership) -> None:
        """A committed change was taken."""
        known = self.memberships.get(index)
        if known is not None:
            if known != membership:
                raise self.wrong("membership", f"member {member} at {index}: {membership}; others: {known}")
            return
        self.memberships[index] = membership
        before, self.membership = self.membership, membership
        if not membership.joint and not before.joint and len(membership.voters ^ before.voters) > 1:
            raise self.wrong("membership", f"at {index}: from {before} to {membership} in one step")

    def confirmed(self, index: int, data: bytes) -> None:
        """A client was told that its write is committed."""
        if index > len(self.entries) or self.entries[index - 1].data != data:
            raise self.wrong("acknowledged writes", f"{data!r} was acknowledged at {index}, and is not what is committed there")
        if self.acknowledged.setdefault(index, data) != data:
            raise self.wrong("acknowledged writes", f"two writes were acknowledged at {index}")
        self.floor = max(self.floor, index)

    def shown(self, member: int, floor: int, index: int) -> None:
        """A read was answered from the state at `index`; `floor` as it was when it was asked."""
        if index < floor:
            raise self.wrong("linearizable reads", f"member {member} answers from {index}, {floor} was known when it was asked")
        self.floor = max(self.floor, index)
