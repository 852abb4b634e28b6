"""A source with a guard, three members of ours and their log in one loop: clocks that differ, crashes, elections, late looks.

What is tested is the product's own: LadderMachine and LeaseCount on every member, the store's rules at apply. Time is the truth's
milliseconds; each member and the source have a boottime of their own that runs up to 4 % wrong.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from replica.model.digest import ContentDigest
from replica.model.drained import Drained
from replica.model.group_state import GroupState
from replica.model.ladder import Function, Stage
from replica.model.ladder_rules import registrations_refused
from replica.model.outcome import OutcomeKind
from replica.model.position import ORIGIN, epoch_start
from replica.model.signing import Signer
from replica.model.states import Authority
from replica.store.rules import RULES, Moment
from replica.store.state_row import Stored
from replica.takeover.ladder import LadderMachine, LadderPolicy, LadderWorld, unguarded
from replica.takeover.ladder_plan import Accepting, climb_of
from replica.takeover.lease import LeaseCount
from replica.takeover.machine import Commit, Publish
from replica.takeover.orders import sign
from replica.takeover.publish import Standing
from replica.takeover.switchover import Drain
from replica.takeover.threshold import Evidence, Level
from replica.v1 import entry_pb2, position_pb2
from tests.unit.takeover.test_machine import OWN, P1, P2

LINEAGE = b"L" * 16
LOOK_MS = 100
LEASE_MS = 2_000
MEMBERS = 3
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(b"m" * 32))
TOP = Signer(Ed25519PrivateKey.from_private_bytes(b"t" * 32))
PEOPLE = [
    entry_pb2.Approval(operator=name, signature=position_pb2.Signature(key_id=name.encode())) for name in ("li.wei", "wang.fang")
]


class Broken(AssertionError):
    """A rule does not hold."""


@dataclass
class Clock:
    """A boottime of its own."""

    rate: float
    offset: float
    jumped: float = 0.0

    def ns(self, true_ms: float) -> int:
        return int((self.offset + self.jumped + true_ms * self.rate) * 1_000_000)


@dataclass
class Member:
    """One of ours: applies the log behind the others, and forgets everything else when it crashes."""

    number: int
    clock: Clock
    stored: Stored
    applied: int = 0
    term: int = 0  # it believes to lead in this one
    up: bool = True
    stopped_until: float = 0.0
    machine: LadderMachine = field(default_factory=lambda: LadderMachine(OWN, "ours", SIGNER, LadderPolicy(publish_wait_ms=300)))
    lease: LeaseCount = field(default_factory=lambda: LeaseCount(LOOK_MS * 1_000_000))
    standings: dict[tuple[str, str], Standing] = field(default_factory=dict)
    drained: Drained | None = None

    @property
    def state(self) -> GroupState:
        return self.stored.group

    def crash(self) -> None:
        self.up, self.term = False, 0
        self.machine = LadderMachine(OWN, "ours", SIGNER, LadderPolicy(publish_wait_ms=300))
        self.lease = LeaseCount(LOOK_MS * 1_000_000)
        self.standings = {}
        self.drained = None


@dataclass
class Log:
    """The group's log: one leader a term, what it proposed in an older term is lost; a commit takes a while."""

    term: int = 1
    entries: list[entry_pb2.Entry] = field(default_factory=list)
    flying: list[tuple[float, int, entry_pb2.Entry, object]] = field(default_factory=list)

    def propose(self, term: int, entry: entry_pb2.Entry, commits_ms: float, who: object = None) -> None:
        self.flying.append((commits_ms, term, entry, who))

    def turn(self, now: float) -> list[tuple[int, object]]:
        """Entries that are committed now: their index and who waits for them."""
        due = [one for one in self.flying if one[0] <= now]
        self.flying = [one for one in self.flying if one[0] > now]
        done = []
        for _, term, entry, who in due:
            if term == self.term:
                self.entries.append(entry)
                done.append((len(self.entries), who))
        return done


@dataclass(frozen=True)
class Asked:
    """A question of the source's guard: when by its clock, its number, in which life of the guard."""

    at_ns: int
    number: int
    life: int


class World:
    """One seeded run. `acks`: who acknowledged a write in which epoch, and when in truth."""

    HEEDS_OLD_ANSWERS = False  # planted: a guard that takes an answer to what it asked before it was drained

    def __init__(self, seed: int, *, fenced: bool, switches: bool = False) -> None:
        """`switches`: operators plan switchovers, and the source's process may end and begin anew."""
        self.switches = switches
        self.random = rng = random.Random(seed)
        self.now = 0.0
        self.fenced = fenced
        start = epoch_start(ORIGIN, LINEAGE, 1)
        first = GroupState(
            "s", ready=True, verified=True, prefixes=(P1, P2), granted=start, grant_taken=True, position=start, records=1
        )
        self.members = [Member(n, self._clock(), Stored(first)) for n in range(MEMBERS)]
        self.log = Log()
        self.members[0].term = 1
        self.source_clock = self._clock()
        self.source_alive = True
        self.source_cut = False  # from us; its clients still reach it
        self.heard_at = 0.0
        self.lease_until_ns = 0
        self.asked = 0  # number of the guard's newest question
        self.drained_at = 0  # the guard was drained after this question; 0: it is not drained
        self.life = 0  # of the guard
        self.answers: list[tuple[float, Asked]] = []  # leases on their way to the source
        self.drains: list[tuple[float, Member, Drain]] = []  # on their way to it
        self.said: list[tuple[float, Member, Drained]] = []  # on their way back
        self.switched = False
        self.source_epoch = 1
        self.acks: list[tuple[float, str, int]] = []
        self.stages: set[Stage] = set()
        self.standing_order = fenced and rng.random() < 0.5
        self.ordered = False
        self.outcome = OutcomeKind.APPLIED  # of the entry that was applied last

    def _clock(self) -> Clock:
        return Clock(self.random.uniform(0.96, 1.04), self.random.uniform(0, 1e9))

    # -- the truth goes on

    def run(self, seconds: float) -> None:
        while self.now < seconds * 1_000:
            self.now += LOOK_MS
            self._happen()
            self._source()
            for index, who in self.log.turn(self.now):
                self._committed(index, who)
            for member in self.members:
                if member.up and self.now >= member.stopped_until:
                    self._apply(member)
                    self._look(member)
            self._check()

    def _happen(self) -> None:
        rng = self.random
        if rng.random() < 0.006:
            self._elect(rng.choice(self.members))
        if rng.random() < 0.004:
            rng.choice(self.members).crash()
        for member in self.members:
            if not member.up and rng.random() < 0.05:
                member.up = True
        if rng.random() < 0.004:
            stopped = rng.choice(self.members)
            stopped.stopped_until = self.now + rng.uniform(100, 3_000)
            if rng.random() < 0.5:
                stopped.clock.jumped += rng.uniform(0, 60_000)  # a restored virtual machine: its clock runs ahead
        if rng.random() < 0.02:
            rng.choice(self.members).clock.jumped += rng.uniform(0, 60_000)
        if rng.random() < 0.01:
            self.source_alive = rng.random() < 0.5
            if self.switches and rng.random() < 0.5:  # its process is another one by now: no lease, nothing known of a drain
                self.life, self.lease_until_ns, self.drained_at = self.life + 1, 0, 0
        if rng.random() < 0.02:
            self.source_cut = rng.random() < 0.6

    def _elect(self, member: Member) -> None:
        """The old leader may go on believing; nothing it proposes is committed."""
        if member.up and self.now >= member.stopped_until:
            self.log.term += 1
            while member.applied < len(self.log.entries):  # a leader admits nothing before it applied what was committed
                self._apply_one(member)
            member.term = self.log.term

    # -- members

    def _apply(self, member: Member) -> None:
        behind = len(self.log.entries) - member.applied
        leads = member.term == self.log.term
        for _ in range(behind if leads else self.random.randint(0, behind)):
            self._apply_one(member)

    def _apply_one(self, member: Member) -> None:
        entry = self.log.entries[member.applied]
        member.applied += 1
        group = replace(member.state, index=member.applied)
        kind = str(entry.WhichOneof("body"))
        stored = replace(member.stored, group=group)
        if kind in RULES:
            moment = Moment(member.applied, group.position, ContentDigest(group.position, 1, 0), lambda _epoch, _seq: None)
            step = RULES[kind](stored, getattr(entry, kind), moment)
            stored = step.stored
            if step.moved is not None:
                stored = stored.with_group(position=step.moved)
            self.outcome = step.outcome.kind
        else:  # a registration of ours, as store/registration.py judges it
            self.outcome = OutcomeKind.FENCED if registrations_refused(group) else OutcomeKind.APPLIED
        member.stored = stored

    def _committed(self, index: int, who: object) -> None:
        """Applied at the leader at once, and whoever waits is told."""
        leader = next((one for one in self.members if one.term == self.log.term and one.up), None)
        if leader is None or leader.applied >= index:
            return
        while leader.applied < index:
            self._apply_one(leader)
        if self.outcome is not OutcomeKind.APPLIED:
            return
        if who == "ours":
            granted = leader.state.granted
            assert granted is not None
            self.acks.append((self.now, "ours", granted.epoch))
        elif isinstance(who, Asked) and self.switches:
            self.answers.append((self.now + self.random.uniform(0, 2_000), who))
        elif isinstance(who, Asked):
            self._answered(who)

    def _look(self, member: Member) -> None:
        now_ns, state = member.clock.ns(self.now), member.state
        leads = member.term > 0
        member.lease.look(state.ladder.lease_index, leads, now_ns)
        if not leads:
            return
        self.stages.add(state.ladder.stage)
        self.switched |= state.ladder.switchover and state.ladder.stage is Stage.SERVING
        self._operate(member)
        for step in member.machine.step(self._seen(member, now_ns)):
            if isinstance(step, Commit):
                self.log.propose(member.term, step.entry, self.now + self._commit_ms())
            elif isinstance(step, Publish) and self.random.random() < 0.8:
                place = (step.adapter, step.publication.prefix)
                member.standings[place] = Standing(step.publication.serial, confirmed=True)
            elif isinstance(step, Drain):
                self.drains.append((self.now + self.random.uniform(0, 400), member, step))
        if self.random.random() < 0.5 and registrations_refused(state) is None:
            entry = entry_pb2.Entry(registration=entry_pb2.Registration())
            self.log.propose(member.term, entry, self.now + self._commit_ms(), "ours")

    def _commit_ms(self) -> float:
        """Mostly soon; now and then a disk is slow."""
        return self.random.uniform(0, 100) if self.random.random() < 0.9 else self.random.uniform(100, 1_500)

    def _seen(self, member: Member, now_ns: int) -> LadderWorld:
        waited_ms = member.lease.waited_ms(member.state.ladder.lease_index)
        heard = self.source_alive and not self.source_cut
        level = Level.WELL if heard else Level.THRESHOLD if self.random.random() < 0.5 else Level.SUSPECT
        at = frozenset({"a", "b"})
        evidence = Evidence(Function.RESOLUTION, level, 30, 0 if heard else 30, 300_000, at, at)
        return LadderWorld(
            state=member.state,
            leads=True,
            evidence={Function.RESOLUTION: evidence},
            source_heard=heard,
            behind=0,
            age_ms=100,
            lease_waited_ms=waited_ms,
            unguarded=unguarded(member.state, waited_ms, int(self.now - self.heard_at)),
            adapters=("recursive",),
            standings=member.standings,
            now_ns=now_ns,
            now_ms=int(self.now),
            drained=member.drained,
        )

    def _operate(self, member: Member) -> None:
        """People, and the top-level node."""
        rng, state = self.random, member.state
        if self.standing_order and not self.ordered and member.term == self.log.term:
            self.ordered = True
            order = entry_pb2.Order(kind=3, number=1, source="s", function=1, issued_ms=0, until_ms=10**9, reason="standing")
            self.log.propose(member.term, entry_pb2.Entry(order=sign(order, TOP)), self.now)
        if rng.random() < (0.002 if self.switches else 0.02) and member.machine.climb is None:
            member.machine.climb = climb_of(state, Accepting(), "an operator", PEOPLE)
        if self.switches and member.machine.climb is None and rng.random() < 0.03:
            member.machine.climb = climb_of(state, Accepting(switchover=True), "an operator", PEOPLE)
        if rng.random() < 0.01:
            member.machine.climb, member.machine.abort = None, "thought again"

    # -- the source: writes while its guard lets it, asks for leases through any member

    def _answered(self, asked: Asked) -> None:
        """A lease was committed, and the guard hears of it."""
        if not self.source_alive or self.source_cut or asked.life != self.life:
            return
        if asked.number > self.drained_at or self.HEEDS_OLD_ANSWERS:
            self.drained_at = 0
            self.lease_until_ns = max(self.lease_until_ns, asked.at_ns + LEASE_MS * 1_000_000)

    def _drain(self) -> None:
        """Questions reach the guard and its statements a member, each unless the source is dead or cut off at that moment."""
        for at, member, drain in [one for one in self.drains if one[0] <= self.now]:
            self.drains.remove((at, member, drain))
            if self.source_alive and not self.source_cut and self.fenced:
                self.drained_at, self.lease_until_ns = max(1, self.asked), 0
                said = Drained(drain.act, ContentDigest(member.state.position, 1, 0))
                self.said.append((self.now + self.random.uniform(0, 400), member, said))
        for when, member, statement in [one for one in self.said if one[0] <= self.now]:
            self.said.remove((when, member, statement))
            if member.up and not self.source_cut:
                member.drained = statement

    def _source(self) -> None:
        for answer in [one for one in self.answers if one[0] <= self.now]:
            self.answers.remove(answer)
            self._answered(answer[1])
        self._drain()
        if not self.source_alive:
            return
        rng, now_ns = self.random, self.source_clock.ns(self.now)
        if not self.source_cut:
            self.heard_at = self.now
        if not self.source_cut and rng.random() < 0.2:
            leader = next((one for one in self.members if one.term == self.log.term and one.up), None)
            if leader is not None and self.fenced:
                renewal = entry_pb2.LeaseRenewal(epoch=self.source_epoch, duration_ms=LEASE_MS)
                self.asked += 1
                asked = Asked(now_ns, self.asked, self.life)
                self.log.propose(leader.term, entry_pb2.Entry(lease=renewal), self.now + rng.uniform(0, 1_500), asked)
        if rng.random() < 0.5 and (not self.fenced or now_ns < self.lease_until_ns):
            self.acks.append((self.now, "source", self.source_epoch))

    # -- what must hold

    def _check(self) -> None:
        epochs: dict[int, set[str]] = {}
        for _, who, epoch in self.acks[-4:]:
            epochs.setdefault(epoch, set()).add(who)
        if any(len(writers) > 1 for writers in epochs.values()):
            raise Broken(f"two writers of one epoch: {epochs}")

    def verdict(self) -> Sequence[str]:
        """Every broken rule of the whole run."""
        found = []
        by_epoch: dict[int, set[str]] = {}
        for _, who, epoch in self.acks:
            by_epoch.setdefault(epoch, set()).add(who)
        if any(len(writers) > 1 for writers in by_epoch.values()):
            found.append(f"two writers of one epoch: {by_epoch}")
        ours = [at for at, who, _ in self.acks if who == "ours"]
        late = [at for at, who, _ in self.acks if who == "source" and ours and at > ours[0]]
        if self.fenced and late:
            found.append(f"the source acknowledged at {late[-1]:.0f} ms, we since {ours[0]:.0f} ms")
        states = {(one.applied, one.state.ladder) for one in self.members}
        if len(states) != len({applied for applied, _ in states}):
            found.append("two members hold different ladders after the same entries")
        for member in self.members:
            state = member.state
            epoch = None if state.granted is None else state.granted.epoch
            if state.authority is Authority.REGISTRATION and epoch in (None, self.source_epoch):
                found.append("we are the authority in the source's own epoch")
        return found
