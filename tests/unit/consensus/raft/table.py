"""Members round one table: cores with memory storage, messages handed over by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from replica.consensus.port import HardState
from replica.consensus.raft.core import RaftCore
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.storage import MemoryStorage
from replica.consensus.raft.values import CoreConfig, CoreStart, Duties, Kind, Message, Read, Role, SnapshotMeta
from replica.model.outcome import EntryKind, LogEntry

ROUNDS_MAX = 1000


class Member:
    """A core and what its caller keeps: storage, hard state, what was applied."""

    def __init__(self, number: int, membership: Membership, **config: object) -> None:
        self.number = number
        self.config = config
        self.storage = MemoryStorage()
        self.hard = HardState()
        self.membership = membership
        self.applied: list[LogEntry] = []
        self.applied_index = 0
        self.reads: list[Read] = []
        self.start()

    def start(self) -> None:
        """A process begins: all that was not saved is gone."""
        config = CoreConfig(self.number, Random(self.number), **self.config)  # type: ignore[arg-type]
        self.core = RaftCore(config, self.storage, CoreStart(self.hard, self.membership, self.applied_index))
        self.saves: list[Duties] = []

    def take(self) -> Duties:
        """Take duties, apply what they hand out, keep the save on its way."""
        duties = self.core.duties()
        if duties.number:
            self.saves.append(duties)
        for entry in duties.committed:
            if entry.kind is EntryKind.MEMBERSHIP:
                self.membership = self.core.apply_change(entry)
            self.applied.append(entry)
            self.applied_index = entry.index
        if duties.committed:
            self.core.applied(self.applied_index)
        self.reads += duties.reads
        return duties

    def save(self) -> list[Message]:
        """The next save returns; what it let go."""
        duties = self.saves.pop(0)
        if duties.snapshot is not None:
            self.storage.restart_at(duties.snapshot)
            self.applied_index, self.membership = duties.snapshot.index, duties.snapshot.membership
        if duties.cut_after is not None:
            self.storage.cut_after(duties.cut_after)
        self.storage.append(duties.entries)
        self.hard = duties.hard or self.hard
        self.core.saved(duties.number)
        return list(duties.send_after_save)

    def work(self) -> list[Message]:
        """Do all duties at once; all messages that leave."""
        out: list[Message] = []
        while self.core.has_duties() or self.saves:
            if self.core.has_duties():
                out += self.take().send_now
            while self.saves:
                out += self.save()
        return out

    def hold(self, *terms: int) -> None:
        """Begin with a saved log of entries of these terms."""
        self.storage.append([LogEntry(index, term, b"%d" % index) for index, term in enumerate(terms, 1)])
        self.hard = HardState(max(terms, default=0))
        self.start()

    def log(self) -> list[tuple[int, int]]:
        """(index, term) of all entries, saved or not."""
        first, last = self.core.log.first, self.core.last_index
        return [(index, self.core.log.term(index) or 0) for index in range(first, last + 1)]


def one(number: int = 1, voters: Iterable[int] = (1, 2, 3), **config: object) -> Member:
    return Member(number, Membership(frozenset(voters)), **config)


def group(count: int, **config: object) -> dict[int, Member]:
    return {number: one(number, range(1, count + 1), **config) for number in range(1, count + 1)}


def deliver(members: dict[int, Member], messages: Iterable[Message], lost: Callable[[Message], bool]) -> None:
    for message in messages:
        if message.to in members and not lost(message):
            members[message.to].core.step(message)


def settle(members: dict[int, Member], lost: Callable[[Message], bool] = lambda message: False) -> list[Message]:
    """Let everything happen until nothing does; all messages that were sent."""
    seen: list[Message] = []
    for _ in range(ROUNDS_MAX):
        messages = [message for member in members.values() for message in member.work()]
        if not messages:
            return seen
        seen += messages
        deliver(members, messages, lost)
    raise AssertionError(f"not settled after {ROUNDS_MAX} rounds")


def elect(members: dict[int, Member], number: int) -> RaftCore:
    """Let one member win an election."""
    members[number].core.campaign()
    settle(members)
    assert members[number].core.role is Role.LEADER
    return members[number].core


def cut_off(*numbers: int) -> Callable[[Message], bool]:
    """Loses all that goes to or comes from these members."""
    return lambda message: message.to in numbers or message.sender in numbers


def append(to: int, sender: int, term: int, before: tuple[int, int], terms: Iterable[int] = (), commit: int = 0) -> Message:
    """An APPEND behind (index, term) `before`, of entries of these terms."""
    index, log_term = before
    entries = tuple(LogEntry(at, entry_term, b"%d" % at) for at, entry_term in enumerate(terms, index + 1))
    return Message(Kind.APPEND, to, sender, term, log_term, index, entries, commit)


def vote(to: int, sender: int, term: int, last: tuple[int, int], kind: Kind = Kind.VOTE) -> Message:
    return Message(kind, to, sender, term, log_term=last[1], index=last[0])


def state_at(member: Member) -> SnapshotMeta:
    """The state a member could feed others from."""
    index = member.applied_index
    return SnapshotMeta(index, member.storage.term(index) or 0, member.membership)


def only(messages: Iterable[Message], kind: Kind) -> list[Message]:
    return [message for message in messages if message.kind is kind]
