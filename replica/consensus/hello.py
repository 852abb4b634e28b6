"""Rules of amnesia: what members remember of each other's promises, and who may not vote because it remembers less of itself.

A promise is a vote or an acknowledgement. It binds only a member that still knows it: a disk image of yesterday, or a journal
that lost its last flushed record, is whole in itself and would vote against what it had promised. So every member keeps, per
group and member, the highest promise that it saw or was told of; the leader's match table rides on heartbeats, each Hello tells
all, and a member that finds less of itself on its disk than another one remembers takes no part until it was fed anew.

    standing   votes  acknowledges  answers  how it ends
    ASKING     no     no            yes      Hello with a quorum, ourselves included: SOUND; somebody remembers more: AMNESIAC;
                                             with no membership of its own yet, one Hello that remembers nothing: FED
    SOUND      yes    yes           yes      a later Hello remembers more: AMNESIAC
    AMNESIAC   no     no            no       a committed change made us a learner and a transfer that covers the promises is
                                             installed, hard state and boot raised above what was promised: FED
    FED        yes    yes           yes      a committed change made us a voter again: SOUND; a Hello remembers more: AMNESIAC

Each start is ASKING again: what follows from the disk alone is judged anew. ASKING acknowledges nothing, because a new promise
would replace, in the memory of others, the old one by which the loss is found. A torn tail that was never acknowledged is normal.

Only acknowledged entries of the promised term itself are counted: those alone can commit anything in it, and a log that ends in
that term is the beginning of its leader's, while an older end may be longer and yet be other entries. What else was matched in it
is worthless after a restart, so a leader forgets it with the Hello of a new life (`core.memory_lost`), and a link belongs to
one life of either side: what was sent to the life before is dropped.

A learner asks for no vote by itself, and who was FED grants one like any other: its log covers what it had promised, its vote in
the promised term counts as given, and it cannot know when it was made a voter: were it to wait for that, a group whose newest
voters have not heard of it yet could elect nobody for ever.

What a journal knows to have lost counts as entries of the newest term it knows, since their own terms are gone: such a member may
have to wait until its group has written past them, or has a new leader.

The limit: a rolled-back member is not found when some quorum of Hellos holds nobody that ever heard of the lost promises. It is
found whenever `others_that_must_know` of the other voters remember. Restoring a member's disk is therefore forbidden.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from replica.consensus.port import HardState
from replica.model.errors import Code, ZaibeiError, require

MEMBERS_MAX = 256  # promises kept for one group; more members than any group has, present and past together
_FORMAT = b"\x01"
_ROW = struct.Struct(">QQQQ")


@dataclass(frozen=True, slots=True)
class Promise:
    """The highest promise of one member in one group.

    Args:
        boot: highest number of a journal's opening that was seen of the member; it rises on its own.
        term, index: in `term` it took part, and `index` is the last entry *of that term* that it had acknowledged (0: none);
            ordered by term, then index.
    """

    boot: int = 0
    term: int = 0
    index: int = 0

    def joined(self, other: Promise) -> Promise:
        """Both together; the very same object when `other` adds nothing."""
        newer = other.term > self.term or (other.term == self.term and other.index > self.index)
        if not newer and other.boot <= self.boot:
            return self
        place = other if newer else self
        return Promise(max(self.boot, other.boot), place.term, place.index)


NOTHING = Promise()
Row = tuple[int, Promise]  # member, its promise


@dataclass(frozen=True, slots=True)
class Saved:
    """What is on a member's disk of a group: the hard state's term, and the log's last entry with its term."""

    term: int
    last: int
    last_term: int

    def shown(self, boot: int) -> Promise:
        """The highest promise that this disk can keep."""
        return Promise(boot, self.term, self.last if self.last_term == self.term else 0)


def acknowledged(boot: int, term: int, index: int, first_of_term: int) -> Promise:
    """What an APPEND_REPLY of `term` promises, as its leader sees it.

    Args:
        first_of_term: index of the first entry of that leader's term.
    """
    return Promise(boot, term, index if index >= first_of_term else 0)


class Standing(StrEnum):
    """How far a member takes part in a group; see the table above."""

    ASKING = "asking"
    SOUND = "sound"
    AMNESIAC = "amnesiac"
    FED = "fed"


@dataclass(frozen=True, slots=True)
class Rights:
    """What a standing allows."""

    vote: bool
    acknowledge: bool
    answer: bool


RIGHTS: dict[Standing, Rights] = {
    Standing.ASKING: Rights(vote=False, acknowledge=False, answer=True),
    Standing.SOUND: Rights(vote=True, acknowledge=True, answer=True),
    Standing.AMNESIAC: Rights(vote=False, acknowledge=False, answer=False),
    Standing.FED: Rights(vote=True, acknowledge=True, answer=True),
}
STANDING_MOVES: dict[Standing, frozenset[Standing]] = {
    Standing.ASKING: frozenset({Standing.SOUND, Standing.AMNESIAC, Standing.FED}),
    Standing.SOUND: frozenset({Standing.AMNESIAC}),
    Standing.AMNESIAC: frozenset({Standing.FED}),
    Standing.FED: frozenset({Standing.SOUND, Standing.AMNESIAC}),
}


def judge(told: Promise, shown: Promise) -> str:
    """Compare what others remember of a member with what it finds on its own disk.

    Args:
        told: the highest promise anybody remembers of the member.
        shown: what its disk can keep; see Saved.shown.
    Returns:
        "" when it is sound, or why it is AMNESIAC.
    """
    if told.boot > shown.boot:
        return f"boot {told.boot} was seen, its journal says {shown.boot}: an older disk"
    if told.term > shown.term:
        return f"it took part in term {told.term}, its journal knows term {shown.term} only: votes are lost"
    if told.term == shown.term and told.index > shown.index:
        return (
            f"it acknowledged entry {told.index} of term {told.term}, its journal has {shown.index or 'none'}: entries are lost"
        )
    return ""


def heard_enough(me: int, heard: Iterable[int], halves: Sequence[frozenset[int]]) -> bool:
    """Whether a Hello was exchanged with a majority of each half of the membership, ourselves included.

    Args:
        halves: voters, and while a change is under way the outgoing voters; empty ones do not count. With none at all nobody
            is known to ask, and the answer is False.
    """
    known = {*heard, me}
    counted = [half for half in halves if half]
    return bool(counted) and all(len(known & half) > len(half) // 2 for half in counted)


def others_that_must_know(voters: int) -> int:
    """How many of the other voters must remember a lost promise, so that every quorum of Hellos holds one of them."""
    return voters - (voters // 2 + 1) + 1


def hard_at_start(hard: HardState, member: int) -> HardState:
    """The hard state with which a member starts: a term in which no vote is on record has none left to give.

    The record of a vote may be lost without a trace where the term was saved before it, and a second vote makes two leaders.
    """
    if hard.vote or not hard.term:
        return hard
    return HardState(hard.term, member, hard.boot, hard.commit)


def covers(told: Promise, index: int, term: int) -> bool:
    """Whether a transfer up to (index, term) holds all that was acknowledged under `told`."""
    return index >= told.index or term > told.term


def hard_when_fed(told: Promise, hard: HardState, member: int, boot: int) -> HardState:
    """Hard state of a member that was fed anew: in the promised term its vote counts as given, so that it gives no other.

    Args:
        boot: of the journal now; raised above every boot that was promised (the journal's own number must be raised with it).
    """
    return HardState(max(told.term, hard.term), member, max(boot, told.boot + 1), hard.commit)


class Memory:
    """Promises of one group: of others as they were seen or told, and of ourselves as others remember us.

    It holds at most MEMBERS_MAX rows. `changed` is set by whatever should be kept again and cleared by who kept it.
    """

    __slots__ = ("_of", "changed")

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._of: dict[int, Promise] = dict(rows)
        self.changed = False

    def of(self, member: int) -> Promise:
        return self._of.get(member, NOTHING)

    def record(self, member: int, promise: Promise) -> bool:
        """Take a promise that was seen or told. False: nothing new, or no room (a member of no present membership)."""
        known = self._of.get(member)
        if known is None:
            if len(self._of) >= MEMBERS_MAX:
                return False
            self._of[member] = promise
            self.changed = True
            return True
        joined = known.joined(promise)
        if joined is known:
            return False
        self._of[member] = joined
        self.changed = True
        return True

    def merge(self, rows: Iterable[Row]) -> bool:
        """Take all rows of a Hello or of a leader's heartbeat. True: something was new."""
        new = False
        for member, promise in rows:
            new = self.record(member, promise) or new
        return new

    def retain(self, members: Iterable[int]) -> None:
        """Forget members that belong to the group no more. Numbers are never given twice."""
        gone = self._of.keys() - set(members)
        for member in gone:
            del self._of[member]
        self.changed = self.changed or bool(gone)

    def rows(self) -> tuple[Row, ...]:
        """All rows by member, for a Hello."""
        return tuple(sorted(self._of.items(), key=lambda row: row[0]))

    def encode(self) -> bytes:
        """Octets for the journal: u8 format, then for each member u64 number, boot, term, index."""
        return _FORMAT + b"".join(_ROW.pack(member, row.boot, row.term, row.index) for member, row in self.rows())

    @classmethod
    def decode(cls, octets: bytes) -> Memory:
        """Raises ZaibeiError(DAMAGED). No octets: nothing was kept yet."""
        if not octets:
            return cls()
        count, rest = divmod(len(octets) - 1, _ROW.size)
        if octets[:1] != _FORMAT or rest or count > MEMBERS_MAX:
            raise ZaibeiError(Code.DAMAGED, f"{len(octets)} octets of format {octets[0]} are no memory of promises")
        return cls((member, Promise(boot, term, index)) for member, boot, term, index in _ROW.iter_unpack(octets[1:]))


class Recall:
    """Standing of one member in one group, from its start on.

    Args:
        member: our number. boot: of our journal.
        start: what was found on the disk.
        memory: as it was kept; our own row in it is what others had told us of ourselves before.
        lost: why the journal itself knows that it lost flushed entries (a cut below its flushed mark); "" when it does not.
        flushed: that mark, when `lost`. It becomes our own promise in `memory`, which must be kept before the journal is begun
            anew behind the store, else the next start knows nothing of the loss.
        alone: the group has no voter but us: there is nobody to ask.
    """

    __slots__ = ("_ours", "_start", "boot", "heard", "member", "memory", "reason", "standing")

    def __init__(
        self, member: int, boot: int, start: Saved, memory: Memory, *, lost: str = "", flushed: int = 0, alone: bool = False
    ) -> None:
        self.member, self.boot, self.memory = member, boot, memory
        self.reason = ""
        self.heard: set[int] = set()
        self.standing = Standing.ASKING
        self._start, self._ours = start, 0
        if lost:
            memory.record(member, Promise(0, start.term, flushed))
            self._forgot(lost)
        else:
            self._judge(start)
        if alone and self.standing is Standing.ASKING:
            self._move(Standing.SOUND)

    @property
    def rights(self) -> Rights:
        return RIGHTS[self.standing]

    @property
    def told(self) -> Promise:
        """The highest promise of ours that anybody told us of."""
        return self.memory.of(self.member)

    def hello(self, sender: int, rows: Iterable[Row], halves: Sequence[frozenset[int]], saved: Saved) -> Standing:
        """A member told what it remembers of the group.

        Args:
            halves: of the newest membership known to be committed, here or at whoever told us: voters, outgoing voters.
            saved: what is on our disk now.
        """
        self.memory.merge(rows)
        self.heard.add(sender)
        self._judge(saved)
        if self.standing is Standing.ASKING:
            if not any(halves):
                self._move(Standing.FED)
            elif heard_enough(self.member, self.heard, halves):
                self._move(Standing.SOUND)
        return self.standing

    def told_of_us(self, rows: Iterable[Row], saved: Saved) -> Standing:
        """A leader's heartbeat carried its match table. `saved`: what is on our disk now."""
        if self.memory.merge(rows):
            self._judge(saved)
        return self.standing

    def may_be_fed(self, index: int, term: int, *, learner: bool) -> bool:
        """Whether a transfer heals us: it covers what we had promised, and in its membership we are a learner."""
        return self.standing is Standing.AMNESIAC and learner and covers(self.told, index, term)

    def fed(self, hard: HardState) -> None:
        """The transfer and the raised hard state (`hard_when_fed`) are on the disk."""
        require(self.standing is Standing.AMNESIAC, f"a member that is {self.standing} needs no feeding")
        require(hard.term >= self.told.term, "a member fed anew must have a term above its promises")
        self.raised(hard.boot)
        require(self.above(hard.term), "a member fed anew must rise above its promises")
        self.reason = ""
        self._move(Standing.FED)

    def above(self, term: int) -> bool:
        """Whether that term and our raised boot are above all that we had promised.

        Others may tell us of that boot by then: our own Hello had told them, of this group or of another one that is fed.
        """
        told = self.told
        return term >= told.term and (self.boot > told.boot or self.boot == told.boot == self._ours)

    def raised(self, boot: int) -> None:
        """The journal's boot number was raised (by a group that was fed anew): it holds for all groups of the member. Before any
        Hello tells it."""
        if boot > self.told.boot:
            self._ours = boot  # nobody had heard of it
        self.boot = max(self.boot, boot)

    def promoted(self) -> None:
        """A committed change made us a voter."""
        if self.standing is Standing.FED:
            self._move(Standing.SOUND)

    def _judge(self, saved: Saved) -> None:
        """While ASKING what was found at the start counts: nothing was promised since."""
        if self.standing is Standing.ASKING:
            saved = self._start
        reason = judge(self.told, saved.shown(self.boot))
        if reason and self.standing is not Standing.AMNESIAC:
            self._forgot(reason)

    def _forgot(self, reason: str) -> None:
        self.reason = reason
        self._move(Standing.AMNESIAC)

    def _move(self, standing: Standing) -> None:
        require(standing in STANDING_MOVES[self.standing], f"a member cannot move from {self.standing} to {standing}")
        self.standing = standing
