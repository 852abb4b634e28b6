"""Planted bugs: each turns off one rule, in a subclass that only the simulation knows, and must turn a seed red.

`PLANTS` is the table: what is wrong -> the rule, and the world that lacks it. `python -m tests.simulation.raft.table` looks for the
first seed that each turns red and writes the table into ops/docs/simulation.md; test_raft_planted.py replays it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from replica.consensus.hello import Memory, Promise, Recall, Saved, Standing
from replica.consensus.port import HardState
from replica.consensus.raft.core import RaftCore
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.quorum import Verdict
from replica.consensus.raft.values import Duties, Kind, MemberId, Message, Role, SnapshotMeta
from replica.model.outcome import EntryKind, LogEntry
from tests.simulation.raft.disk import Disk, Found, Image, Save, Truncate, View
from tests.simulation.raft.member import Member
from tests.simulation.raft.seat import CALM, Seat
from tests.simulation.raft.world import World


def world_of(core: type[RaftCore] = RaftCore, seat: type[Seat] = Seat, member: type[Member] = Member) -> type[World]:
    """A world whose members run these classes."""
    seats = type("PlantedSeat", (seat,), {"core_type": core})
    members = type("PlantedMember", (member,), {"seat_type": seats})
    return type("PlantedWorld", (World,), {"member_type": members})


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


class ProbesLower(RaftCore):
    """A leader that looks a little lower for where logs meet, which Raft allows; no bug by itself."""

    def _step_back(self, message: Message, progress: Any) -> None:
        hint, _ = self.log.hint_below(message.hint, message.log_term)
        super()._step_back(replace(message, hint=max(0, hint - 2), log_term=0), progress)


class CommitsBeyondMessage(ProbesLower):
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


# -- rule 4: one future a proposal, by index and term; unknown on step-down


class KeyedByIndex(Seat):
    def _key(self, index: int, term: int) -> tuple[int, int]:
        return index, 0

    def _stepped_down(self) -> None:
        self.amnesiacs.clear()  # and the proposals wait on


class OneFuture(Seat):
    """Whatever is applied ends the call of whoever waits."""

    def _acknowledge(self, entry: LogEntry) -> None:
        for number, data in self.proposals.values():
            self.truth.confirmed(entry.index, data)
            self.world.clients.done(number, True, entry.index)
        self.proposals.clear()


class AcknowledgesWhenAppended(Seat):
    def propose(self, number: int, data: bytes) -> None:
        before = self.log.last_index()
        super().propose(number, data)
        if self.log.last_index() > before:
            self.truth.confirmed(self.log.last_index(), data)


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


# -- rule 6: applied index with the state; amnesia


class IndexApart(Seat):
    """The applied index is written before the state it speaks of is."""

    def image(self) -> Image:
        image = super().image()
        return (
            replace(image, index=image.index - 1) if image.index > 2 and image.term == self.log.term(image.index - 1) else image
        )


class NotJudged(Seat):
    class Blind(Recall):
        def _judge(self, saved: Saved) -> None:
            pass

    def _recall(self, boot: int, start: Saved, memory: Memory, lost: str, *, alone: bool) -> Recall:
        return self.Blind(self.me, boot, start, memory, alone=alone)


class JudgedByLengthAlone(Seat):
    """The end of the log counts, whatever term it is of."""

    class Longest(Recall):
        def _judge(self, saved: Saved) -> None:
            saved = self._start if self.standing is Standing.ASKING else saved
            super()._judge(Saved(saved.term, saved.last, saved.term))

    def _recall(self, boot: int, start: Saved, memory: Memory, lost: str, *, alone: bool) -> Recall:
        return self.Longest(self.me, boot, Saved(start.term, start.last, start.term), memory, lost=lost, alone=alone)


class HoleForgiven(Seat):
    def _recall(self, boot: int, start: Saved, memory: Memory, lost: str, *, alone: bool) -> Recall:
        return Recall(self.me, boot, start, memory, alone=alone)


class LossForgotten(Seat):
    """The journal is begun anew behind the store, and with it goes the mark of what it had lost."""

    def keep_memory(self) -> None:
        self.recall.memory = Memory(row for row in self.recall.memory.rows() if row[0] != self.me)


class AmnesiacTakesPart(Member):
    takes_part = (*CALM, Standing.AMNESIAC)


class NoHelloFirst(Seat):
    def _recall(self, boot: int, start: Saved, memory: Memory, lost: str, *, alone: bool) -> Recall:
        recall = Recall(self.me, boot, start, memory, lost=lost, alone=True)
        recall.memory = Memory(row for row in recall.memory.rows() if row[0] != self.me)
        return recall

    def hello(self, sender: int, rows: Sequence[tuple[int, Promise]]) -> None:
        """Heard, and not listened to: it is too late."""
        self.recall.memory.merge(row for row in rows if row[0] != self.me)

    def told(self, rows: Sequence[tuple[int, Promise]]) -> None:
        self.recall.memory.merge(row for row in rows if row[0] != self.me)


class VoteRecordForgotten(Seat):
    def _hard_at_start(self, hard: HardState) -> HardState:
        return hard


class FedWithoutRaise(Seat):
    """Fed anew, and free to vote in the terms that it has promised already."""

    def _begin(self, view: View, image: Image, hard: HardState) -> None:
        if self.life and hard.vote == self.me:
            hard = HardState(image.term, 0, hard.boot)
            view.hard = hard
        super()._begin(view, image, hard)


class FedWithAnything(Seat):
    """Any old state heals, and the member stays a voter."""

    class Easy(Recall):
        def may_be_fed(self, index: int, term: int, *, learner: bool) -> bool:
            return self.standing is Standing.AMNESIAC

        def fed(self, hard: HardState) -> None:
            super().fed(hard)
            self.promoted()

    def _recall(self, boot: int, start: Saved, memory: Memory, lost: str, *, alone: bool) -> Recall:
        return self.Easy(self.me, boot, start, memory, lost=lost, flushed=self.flushed, alone=alone)

    def chores(self) -> None:
        """Feed it as it is, from the oldest state at hand."""
        for member in sorted(self.amnesiacs):
            kept = self.member.disk.images[self.group]
            image = kept[len(kept) // 2][1]
            message = Message(Kind.SNAPSHOT, member, self.me, self.core.term, snapshot=image.meta)
            self.world.net.send(self.member, member, self.group, message, (), image)
        self.amnesiacs.clear()


class MatchKept(Seat):
    def new_life(self, sender: int) -> None:
        self.core.unreachable(sender)


class LengthAndMatch(MatchKept, JudgedByLengthAlone):
    """A member with a long old tail passes as sound, and its old match is believed."""


# -- rule 7: a failed fsync stops the member; checksums


class GoesOnAfterFailedFsync(Member):
    """The write is said to be done; the kernel has dropped its pages."""

    def _stops_when_fsync_fails(self, count: int) -> bool:
        lost = self.disk.pending[:count]
        del self.disk.pending[:count]
        self.flushing = False
        for op in lost:
            if isinstance(op, Save):
                self._saved(op)
        if not self.flushing:
            self._flush()
        return True


class NoChecksum(View):
    def damage(self, index: int) -> None:
        place = index - self.floor - 1
        if 0 <= place < len(self.entries):
            self.entries[place] = replace(self.entries[place], data=b"k0=garbage")


# -- rule 8: who says so


class BelievesNames(Member):
    def _is_forged(self, sender: int, message: Message) -> bool:
        return False


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


class ReadsLocally(Seat):
    def read(self, context: bytes) -> None:
        self.asked[context] = self.truth.floor
        self._read_ready(context, self.index)


class CompactsBeforeStore(Seat):
    """The journal is cut behind a state that is not on the disk yet."""

    def flush_store(self, keep: int) -> None:
        held = self.member.disk.images[self.group][:]
        super().flush_store(keep)
        self.member.disk.images[self.group][:] = held


class SwitchesAfterJournal(Seat):
    """The journal begins anew behind a state whose files are not on the disk yet."""

    def _install(self, meta: SnapshotMeta) -> None:
        held = self.member.disk.images[self.group][:]
        super()._install(meta)
        self.member.disk.images[self.group][:] = held


# -- what the libraries do


class NoFsync(Disk):
    """No fsync at all: a power cut takes what was said to be durable lately."""

    def power_cut(self, rng: Any) -> None:
        super().power_cut(rng)
        del self.flushed[max(1, len(self.flushed) - rng.randint(0, 6)) :]


class FramedByNewline(View):
    """Records end at 0x0A, which is also a place, so that the log cannot be read behind it."""

    def truncate(self, index: int) -> None:
        super().truncate(index)

    @property
    def last(self) -> int:
        self._read()
        return self.floor + len(self.entries)

    def _read(self) -> None:
        for place, entry in enumerate(self.entries):
            if entry.index == 0x0A:
                del self.entries[place:]
                return


class CompactionLosesEntries(Disk):
    """A kill soon after compaction leaves the rewritten journal with its first entries only."""

    def found(self, upto: int | None = None, *, stores_too: bool = False) -> Found:
        found = super().found(upto, stores_too=stores_too)
        for group, view in found.views.items():
            lately = [op for op in self.flushed[:upto] if getattr(op, "group", None) == group][-6:]
            kept = self.images[group]
            if any(isinstance(op, Truncate) for op in lately) and len(kept) > 1:
                del view.entries[2:]
                found.images[group] = kept[-2][1]  # the journal was the store
        return found


class VoteNotKept(View):
    """The vote is in memory alone."""

    def write(self, op: Save) -> None:
        super().write(op)
        self.hard = HardState(self.hard.term)


def _disk(view: type[View] | None = None, disk: type[Disk] = Disk) -> type[Member]:
    kept = type("PlantedDisk", (disk,), {"view_type": view} if view is not None else {})
    return type("MemberOnIt", (Member,), {"disk_type": kept})


@dataclass(frozen=True, slots=True)
class Plant:
    """Args: rule: of the table. make: the world that lacks it. story: named schedule it is looked for in, "" = any seed."""

    rule: str
    make: Callable[[], type[World]]
    story: str = ""


def _core(core: type[RaftCore]) -> Callable[[], type[World]]:
    return lambda: world_of(core=core)


def _seat(seat: type[Seat]) -> Callable[[], type[World]]:
    return lambda: world_of(seat=seat)


def _member(member: type[Member]) -> Callable[[], type[World]]:
    return lambda: world_of(member=member)


def _on(view: type[View] | None = None, disk: type[Disk] = Disk) -> Callable[[], type[World]]:
    return lambda: world_of(member=_disk(view, disk))


class VotesUnsaved(VoteRecordForgotten):
    """For plants that lose votes: nothing at the start makes good for them."""


PLANTS: dict[str, Plant] = {
    "replies leave before the save": Plant("1", _core(RepliesBeforeSave)),
    "a leader counts itself before its flush": Plant("1", _core(CountsUnsaved), "full leader"),
    "a leader leads before its own vote is saved": Plant("1", _core(LeadsUnsaved), "full candidate"),
    "the vote is not in the same write": Plant("1", lambda: world_of(seat=VotesUnsaved, member=_disk(VoteApart))),
    "two votes in one term": Plant("2", _core(VotesAgain)),
    "the vote is forgotten on step-down": Plant("2", _core(ForgetsVoteOnStepDown), "stepped down"),
    "replies of an older term count": Plant("2", _core(OldRepliesCount), "old grants"),
    "votes are a number, not a set": Plant("2", _core(CountsVotesTwice)),
    "truncation without a conflict": Plant("3", _core(CutsWithoutConflict)),
    "commit beyond this message": Plant("3", _core(CommitsBeyondMessage), "tails"),
    "heartbeats advance commit past the match": Plant("3", _core(HeartbeatsCommit)),
    "a transfer's announcement advances commit": Plant("3", _core(TransferCommits), "tails"),
    "proposals known by index alone": Plant("4", _seat(KeyedByIndex)),
    "one future for all callers": Plant("4", _seat(OneFuture)),
    "acknowledged when appended": Plant("4", _seat(AcknowledgesWhenAppended)),
    "no limit of octets in a message": Plant("5", _core(NoLimit)),
    "entries are cut at a limit": Plant("5", _core(SplitsEntries)),
    "the applied index is apart from the state": Plant("6", _seat(IndexApart)),
    "amnesia is not judged": Plant("6", _seat(NotJudged)),
    "amnesia is judged by the log's length alone": Plant("6", _seat(LengthAndMatch), "long old tail"),
    "a hole below the flushed mark is forgiven": Plant("6", _seat(HoleForgiven), "hole"),
    "a loss is forgotten with the next start": Plant("6", _seat(LossForgotten), "hole twice"),
    "an AMNESIAC member takes part": Plant("6", _member(AmnesiacTakesPart)),
    "no Hello before the first vote": Plant("6", _seat(NoHelloFirst)),
    "a lost record of a vote is a free vote": Plant("6", _seat(VoteRecordForgotten), "lost vote"),
    "fed without raising the term": Plant("6", _seat(FedWithoutRaise)),
    "fed with a state that covers nothing, and no learner": Plant("6", _seat(FedWithAnything)),
    "a match is kept over a member's restart": Plant("6", _seat(MatchKept)),
    "a failed fsync does not stop the member": Plant("7", _member(GoesOnAfterFailedFsync)),
    "records without a checksum": Plant("7", _on(NoChecksum)),
    "the name in a message is believed": Plant("8", _member(BelievesNames)),
    "votes without looking at the log": Plant("Raft", _core(ElectsAnybody)),
    "entries of older terms are committed by counting": Plant("Raft", _core(CommitsOldTerms), "figure 8"),
    "changes of membership overlap": Plant("Raft", _core(ChangesOverlap)),
    "only the new half of a joint membership counts": Plant("Raft", _core(JointIsNotJoint), "joint"),
    "learners count": Plant("Raft", _core(LearnersCount)),
    "an election over an unapplied change": Plant("Raft", _core(CampaignsOverChange), "joint"),
    "reads without a round": Plant("Raft", _core(ReadsWithoutRound), "stale leader"),
    "reads before the own term's first commit": Plant("Raft", _core(ReadsBeforeOwnTerm)),
    "reads of the own state alone": Plant("Raft", _seat(ReadsLocally)),
    "the journal is cut before the store is durable": Plant("Raft", _seat(CompactsBeforeStore)),
    "the journal begins anew before the state is durable": Plant("Raft", _seat(SwitchesAfterJournal)),
    "raftos: the log cannot be read back": Plant("raftos", _on(FramedByNewline), "restarts"),
    "raftos: two leaders in one term, the vote is in memory": Plant(
        "raftos", lambda: world_of(seat=VotesUnsaved, member=_disk(VoteNotKept)), "votes"
    ),
    "raftos: a majority by arithmetic": Plant("raftos", _core(HalfIsEnough), "four members"),
    "raftos: a doubled vote counts twice": Plant("raftos", _core(CountsVotesTwice), "doubled votes"),
    "raftos: a doubled append erases committed entries": Plant("raftos", _core(CutsWithoutConflict), "doubled appends"),
    "raftos: a concurrent command is acknowledged": Plant("raftos", _seat(OneFuture), "concurrent commands"),
    "raftos: nothing commits after the leader's death": Plant("raftos", _core(NoFirstEntry), "restarts"),
    "raftos: entries over 65,507 octets never arrive": Plant("raftos", lambda: UdpWorld, "long entries"),
    "PySyncObj: commit over an unverified tail": Plant("PySyncObj", _core(TransferCommits), "tails"),
    "PySyncObj: acknowledged without fsync": Plant("PySyncObj", _on(disk=NoFsync), "restarts"),
    "PySyncObj: a kill during compaction loses the journal": Plant("PySyncObj", _on(disk=CompactionLosesEntries), "compactions"),
    "PySyncObj: octets from the peer port before it is known who speaks": Plant("PySyncObj", _member(BelievesNames), "forged"),
}


class UdpWorld(World):
    """One datagram a message."""

    def run(self, events: list[Any]) -> None:
        self.net.holds.append(lambda source, to, group, message: sum([len(entry.data) for entry in message.entries]) > 65_507)
        super().run(events)

    def heal(self) -> None:
        held = self.net.holds[:]
        self.net.holds = KeptList(held)  # no healing mends a transport
        super().heal()


class KeptList(list[Any]):
    def clear(self) -> None:
        """Stays as it is."""
