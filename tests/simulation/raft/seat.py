"""One group on one simulated member: the real core and the real rules of amnesia, driven as Duties says."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from replica.consensus.hello import Memory, Promise, Recall, Saved, Standing, acknowledged, hard_at_start, hard_when_fed
from replica.consensus.port import HardState
from replica.consensus.raft.core import RaftCore
from replica.consensus.raft.membership import Act, Membership, MembershipChange, Step
from replica.consensus.raft.values import CoreConfig, CoreError, CoreStart, Duties, Kind, Message, Role, SnapshotMeta
from replica.model.errors import InvariantBroken
from replica.model.outcome import EntryKind, LogEntry
from tests.simulation.raft.checks import Violation, chained
from tests.simulation.raft.disk import Image, Keep, Known, Save, Truncate, View
from tests.simulation.raft.log import Log

if TYPE_CHECKING:
    from tests.simulation.raft.member import Member

FIRST_ENTRY = b"first"
READ_TICKS = 1.0  # a reading of the journal takes up to so long
Pending = tuple[int, bytes]  # client operation, data
CALM = (Standing.SOUND, Standing.FED)


class Seat:
    """A group's core with its storage, state machine and standing."""

    core_type = RaftCore

    def __init__(self, member: Member, group: int, boot: int, view: View, image: Image) -> None:
        self.member, self.group, self.me = member, group, member.number
        self.world = member.world
        self.truth = member.world.truths[group]
        self.life = 0
        self.queue: deque[LogEntry] = deque()
        self.apply_due = False
        self.proposals: dict[tuple[int, int], Pending] = {}
        self.asked: dict[bytes, int] = {}  # read -> floor when it was asked
        self.reads: list[tuple[int, bytes]] = []
        self.amnesiacs: set[int] = set()
        self.feeding: set[int] = set()
        self.rows: tuple[tuple[int, Promise], ...] = ()
        hard = view.hard
        if image.index < view.floor:
            raise self.truth.wrong(
                "store behind journal", f"member {self.me}: store {image.index}, journal from {view.floor + 1}"
            )
        if image.index > view.last or view.term(image.index) != image.term:
            view.floor, view.floor_term, view.entries = image.index, image.term, []
            if image.term > hard.term:
                hard = HardState(image.term, self.me, hard.boot)
            view.hard = hard
            self.restarted = True
        else:
            self.restarted = False
        for before, entry in zip([None, *view.entries], view.entries, strict=False):
            self.truth.appended(self.me, entry, before.term if before is not None else view.floor_term)
        hard = self._hard_at_start(HardState(hard.term, hard.vote, boot, view.known))
        memory = Memory.decode(view.kept)
        alone = image.membership.voters == {self.me} and not image.membership.joint
        start = Saved(hard.term, view.last, view.term(view.last) or 0)
        self.flushed = view.flushed
        self.told_as_of = (0, Membership())
        self.recall = self._recall(boot, start, memory, view.lost, alone=alone)
        self._begin(view, image, hard)

    def _hard_at_start(self, hard: HardState) -> HardState:
        return hard_at_start(hard, self.me)

    def _recall(self, boot: int, start: Saved, memory: Memory, lost: str, *, alone: bool) -> Recall:
        return Recall(self.me, boot, start, memory, lost=lost, flushed=self.flushed, alone=alone)

    def _begin(self, view: View, image: Image, hard: HardState) -> None:
        self.life += 1
        self.log = Log(view)
        self.reading = False
        tail = self.world.setting.tail
        cold = tail > 0
        self.storage = Log(view, tail, self._fetch if cold else None) if self.world.late_storage or cold else self.log
        if image.index:
            self.log.feed = self.storage.feed = image
        self.index, self.state_term, self.digest = image.index, image.term, image.digest
        self.content = dict(image.content)
        self.staged: Image | None = None
        self.saved_term, self.saved_last, self.saved_last_term = hard.term, view.last, view.term(view.last) or 0
        self.first_of_term = 0
        self.handed = image.index
        self.role = Role.FOLLOWER
        self.commit = 0
        self.queue.clear()
        config = CoreConfig(self.me, self.world.random_for(self.me, self.group), **self.world.core_settings)
        self.core = self.core_type(config, self.storage, CoreStart(hard, image.membership, image.index))
        self.core.allow_elections(self.recall.rights.vote)

    # -- what the core wants

    def pump(self) -> None:
        """Do the core's duties until there are none, then look at what changed."""
        core = self.core
        try:
            while core.has_duties():
                self._do(core.duties())
        except InvariantBroken as exc:
            raise Violation("core stopped", f"group {self.group}: member {self.me}: {exc}") from exc
        if core is not self.core:
            return
        commit = core.commit
        if commit < self.commit:
            raise self.truth.wrong("commit never goes back", f"member {self.me}: from {self.commit} to {commit}")
        self.commit = commit
        role = core.role
        if role is not self.role:
            if self.role is Role.LEADER:
                self._stepped_down()
            self.role = role
            if role is Role.LEADER:
                self._leads()
        elif role is Role.LEADER and core.term not in self.truth.leaders:
            self._leads()

    def _leads(self) -> None:
        term = self.core.term
        self.truth.led(self, self.me, term)
        self.truth.voted(self.me, term, self.me)
        self.member.promised(self.group, term, 0)
        self.first_of_term = self.log.last_index()
        while self.log.term(self.first_of_term - 1) == term:
            self.first_of_term -= 1

    def _do(self, duties: Duties) -> None:
        for message in duties.send_now:
            self.send(message)
        if duties.number:
            self._save(duties)
        elif duties.send_after_save or duties.entries or duties.hard or duties.snapshot or duties.cut_after is not None:
            raise Violation("duties", "something is to be saved under number 0")
        if duties.committed:
            for entry in duties.committed:
                self.handed += 1
                if entry.index != self.handed:
                    raise self.truth.wrong("state-machine safety", f"member {self.me} is handed {entry.index}, not {self.handed}")
                self.truth.handed_out(self.me, entry, self.core.term)
            self.queue.extend(duties.committed)
            self._apply_soon()
        for read in duties.reads:
            self._read_ready(read.context, read.index)

    def _save(self, duties: Duties) -> None:
        if duties.snapshot is not None:
            self._install(duties.snapshot)
        log = self.log
        before = duties.entries[0].index - 1 if duties.entries else 0
        log.write(duties)
        if duties.entries:
            term = log.term(before)
            if term is None:
                raise Violation("duties", f"entry {before + 1} follows nothing")
            for entry in duties.entries:
                self.truth.appended(self.me, entry, term)
                term = entry.term
                if entry.kind is EntryKind.MEMBERSHIP:
                    self._began_change(entry)
        self.member.write(Save(self.group, duties, self, self.life))

    def _began_change(self, entry: LogEntry) -> None:
        """A leader's own change must not stand over one that it has not applied."""
        if self.core.role is not Role.LEADER or entry.term != self.core.term:
            return
        for other in self.log.rows[max(self.index - self.log.floor, 0) : entry.index - self.log.floor - 1]:
            if other.kind is EntryKind.MEMBERSHIP:
                raise self.truth.wrong("one change at a time", f"member {self.me} begins one at {entry.index} over {other.index}")

    def saved(self, duties: Duties) -> None:
        """A save is durable (or so it is said)."""
        if self.storage is not self.log:
            self.storage.write(duties)
        if duties.snapshot is not None:
            self.saved_last, self.saved_last_term = duties.snapshot.index, duties.snapshot.term
        if duties.entries:
            self.saved_last, self.saved_last_term = duties.entries[-1].index, duties.entries[-1].term
        if duties.hard is not None:
            self.saved_term = duties.hard.term
        if self.recall.standing not in self.member.takes_part:
            return
        core = self.core
        core.saved(duties.number)
        if self.role is Role.LEADER and core.term == self.saved_term:
            index = self.saved_last if self.saved_last_term == core.term else 0
            self.recall.memory.record(self.me, Promise(self.member.boot, core.term, index))
            self.member.promised(self.group, core.term, index)
        for message in duties.send_after_save:
            self.send(message)
        self.pump()

    def send(self, message: Message) -> None:
        kind = message.kind
        image: Image | None = None
        rows: tuple[tuple[int, Promise], ...] = ()
        if kind is Kind.APPEND_REPLY:
            if not message.reject:
                own = self.log.term(message.index) == message.term
                self.member.promised(self.group, message.term, message.index if own else 0)
        elif kind is Kind.HEARTBEAT:
            rows = self.rows
        elif kind is Kind.VOTE:
            # It states where the saved log ends; that the own vote is saved is not said, and counts only once it is.
            self.member.promised(self.group, message.log_term, message.index)
        elif kind is Kind.VOTE_REPLY:
            if not message.reject:
                self.truth.voted(self.me, message.term, message.to)
                self.member.promised(self.group, message.term, 0)
        elif kind is Kind.APPEND:
            self._check_octets(message)
        elif kind is Kind.SNAPSHOT:
            image = self.storage.feed
            if image is None or message.snapshot is None or image.index != message.snapshot.index:
                image = self.image() if message.snapshot and message.snapshot.index == self.index else None
        self.world.net.send(self.member, message.to, self.group, message, rows, image)

    def _check_octets(self, message: Message) -> None:
        """One message may pass the limit with its last entry alone."""
        if len(message.entries) > 1:
            octets = sum([len(entry.data) for entry in message.entries[:-1]])
            if octets > self.world.setting.append_octets:
                raise self.truth.wrong("limits", f"member {self.me} sends {len(message.entries)} entries in one message")

    # -- entries that are no more in memory

    def _fetch(self, first: int) -> None:
        if not self.reading:
            self.reading = True
            self.world.count("readings")
            self.world.later(self.world.rng.random() * READ_TICKS, self.member.fetched, self.member.life, self, self.life, first)

    def fetched(self, first: int) -> None:
        """A reading of the journal ended."""
        self.reading = False
        self.storage.fetched(first)
        if self.recall.standing in self.member.takes_part:
            self.core.entries_at_hand()
            self.pump()

    # -- state machine

    def image(self) -> Image:
        return Image(self.index, self.state_term, self.digest, self.core.membership, dict(self.content))

    def _apply_soon(self) -> None:
        if self.member.apply_stands:
            return
        if not self.world.slow_apply:
            self.apply()
        elif not self.apply_due:
            self.apply_due = True
            self.world.later(self.world.rng.random() * 2.0, self.member.apply, self.member.life, self)

    def apply(self) -> None:
        """Apply what was handed out, and answer what waited for it."""
        self.apply_due = False
        queue, core = self.queue, self.core
        if not queue or self.member.apply_stands:
            return
        while queue:
            entry = queue.popleft()
            if entry.index != self.index + 1:
                raise self.truth.wrong("state-machine safety", f"member {self.me} applies {entry.index} behind {self.index}")
            self.digest = chained(self.digest, entry)
            self.index, self.state_term = entry.index, entry.term
            if entry.kind is EntryKind.MEMBERSHIP:
                self._change(core.apply_change(entry))
            elif b"=" in entry.data:
                key, _, value = entry.data.partition(b"=")
                self.content[key] = (*self.content.get(key, ()), value)
            self._acknowledge(entry)
        self.truth.stands(self.me, self.index, self.digest)
        core.applied(self.index)
        self._answer_reads()

    def _change(self, membership: Membership) -> None:
        self.truth.changed(self.me, self.index, membership)
        self.member.write(Known(self.group, self.index))
        if membership.votes(self.me):
            self.recall.promoted()
            self.core.allow_elections(self.recall.rights.vote)

    def _acknowledge(self, entry: LogEntry) -> None:
        if not self.proposals:
            return
        pending = self.proposals.pop(self._key(entry.index, entry.term), None)
        if pending is not None:
            self.truth.confirmed(entry.index, pending[1])
            self.world.clients.done(pending[0], True, entry.index)

    def _stepped_down(self) -> None:
        for number, _ in self.proposals.values():
            self.world.clients.done(number, None, 0)
        self.proposals.clear()
        self.amnesiacs.clear()

    def _install(self, meta: SnapshotMeta) -> None:
        image = self.staged
        if image is None or image.index != meta.index:
            raise Violation("duties", f"member {self.me} is to restart at {meta.index}, which was never brought")
        if image.index <= self.index:
            raise self.truth.wrong("state-machine safety", f"member {self.me} goes back from {self.index} to {image.index}")
        self._stand_at(image)
        self.member.disk.store(self.group, image)

    def _stand_at(self, image: Image) -> None:
        self.truth.stands(self.me, image.index, image.digest)
        self.queue.clear()
        self.index = self.handed = image.index
        self.state_term, self.digest, self.content = image.term, image.digest, dict(image.content)
        self.log.feed = self.storage.feed = image
        if image.membership.votes(self.me):
            self.recall.promoted()
            self.core.allow_elections(self.recall.rights.vote)
        self._answer_reads()

    def flush_store(self, keep: int) -> None:
        """Make the store durable and drop what it holds from the journal, but for the last `keep` entries."""
        if self.recall.standing not in CALM or self.index <= self.log.floor:
            return
        image = self.image()
        self.member.disk.store(self.group, image)
        index = min(self.index, self.saved_last, self.storage.last_index()) - keep
        if index > self.storage.floor:
            self.log.feed = self.storage.feed = image
            self.storage.compact(index)
            if self.storage is not self.log:
                self.log.compact(index)
            self.member.write(Truncate(self.group, index))

    # -- clients

    def propose(self, number: int, data: bytes) -> None:
        try:
            place = self.core.propose(data)
        except CoreError:
            self.world.clients.done(number, False, 0)
            return
        self.proposals[self._key(*place)] = (number, data)
        self.pump()

    def _key(self, index: int, term: int) -> tuple[int, int]:
        """By what a proposal is known again."""
        return index, term

    def read(self, context: bytes) -> None:
        self.asked[context] = self.truth.floor
        try:
            self.core.read_index(context)
        except CoreError:
            del self.asked[context]
            return
        self.pump()

    def _read_ready(self, context: bytes, index: int) -> None:
        if index <= self.index:
            self._answer(context)
        else:
            self.reads.append((index, context))

    def _answer_reads(self) -> None:
        if self.reads:
            ready = [context for index, context in self.reads if index <= self.index]
            self.reads = [row for row in self.reads if row[0] > self.index]
            for context in ready:
                self._answer(context)

    def _answer(self, context: bytes) -> None:
        floor = self.asked.pop(context, None)
        if floor is not None:
            self.truth.shown(self.me, floor, self.index)
            self.world.clients.shown(context, self.index, self.content)

    # -- amnesia

    @property
    def halves(self) -> tuple[frozenset[int], frozenset[int]]:
        _, membership = max(self.as_of, self.told_as_of, key=lambda one: one[0])
        return membership.voters, membership.outgoing

    @property
    def as_of(self) -> tuple[int, Membership]:
        """The newest membership that is known here to be committed, and as of which index; of one that forgot: none."""
        forgot = self.recall.standing is Standing.AMNESIAC
        return (0, Membership()) if forgot else (self.index, self.core.membership)

    @property
    def disk_shows(self) -> Saved:
        return Saved(self.saved_term, self.saved_last, self.saved_last_term)

    def promise_of(self, boot: int, message: Message) -> Promise:
        """What an acknowledgement promises to us, its leader."""
        return acknowledged(boot, message.term, message.index, self.first_of_term)

    def hello(self, sender: int, rows: Sequence[tuple[int, Promise]], as_of: tuple[int, Membership]) -> None:
        was = self.recall.standing
        self.told_as_of = max(self.told_as_of, as_of, key=lambda one: one[0])
        self._now(was, self.recall.hello(sender, rows, self.halves, self.disk_shows))

    def told(self, rows: Sequence[tuple[int, Promise]]) -> None:
        was = self.recall.standing
        self._now(was, self.recall.told_of_us(rows, self.disk_shows))

    def _now(self, was: Standing, standing: Standing) -> None:
        if was is not standing:
            self.core.allow_elections(self.recall.rights.vote)
            if standing is Standing.AMNESIAC:
                self._stepped_down()
                self.role = Role.FOLLOWER
                self.world.amnesiac(self)

    def keep_memory(self) -> None:
        """What the journal knows to have lost is kept before it is begun anew, and forgets."""
        self.recall.memory.changed = False
        self.member.write_now(Keep(self.group, self.recall.memory.encode()))

    def new_life(self, sender: int) -> None:
        """A Hello of a member's new life: what it had matched in the life before is worth nothing."""
        self.core.memory_lost(sender)

    def feed(self, image: Image) -> None:
        """A transfer reached an AMNESIAC member: begin anew with it, if it heals."""
        membership = image.membership
        learner = self.me in membership.learners
        if not self.recall.may_be_fed(image.index, image.term, learner=learner):
            return
        told = self.recall.told
        hard = hard_when_fed(told, HardState(max(self.saved_term, image.term)), self.me, self.member.boot)
        self.member.raise_boot(hard.boot)
        self.member.disk.store(self.group, image)
        self.member.write_now(Save(self.group, Duties(1, snapshot=image.meta, hard=hard)))
        self.recall.fed(hard)
        self._begin(View(image.index, image.term, [], hard), image, hard)
        self.truth.stands(self.me, image.index, image.digest)
        self.world.fed(self)

    def chores(self) -> None:
        """What a leader's driver does for members that forgot: make them learners, then feed them."""
        membership = self.core.membership
        for member in sorted(self.amnesiacs):
            if membership.joint:
                return
            if membership.votes(member):
                self._change_soon(Step(Act.ADD_LEARNER, member))
            elif member in membership.learners and member not in self.feeding:
                self.feeding.add(member)
                image = self.image()
                message = Message(Kind.SNAPSHOT, member, self.me, self.core.term, snapshot=image.meta)
                self.world.net.send(self.member, member, self.group, message, (), image)
            self.amnesiacs.discard(member)

    def _change_soon(self, *steps: Step) -> None:
        try:
            self.core.propose_change(MembershipChange(steps))
        except (CoreError, ValueError):
            return
        self.pump()

    def leads_in(self, term: int) -> bool:
        return self.member.seats.get(self.group) is self and self.role is Role.LEADER and self.core.term == term
