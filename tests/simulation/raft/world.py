"""A whole simulated cluster: virtual time in ticks, members, network, clients, an operator, faults by schedule, and the end.

A run is a pure function of its Setting and its events: the same again, the same steps. Chance inside a run comes from the
setting's seed alone; the schedule of faults is a list of values made beforehand (schedule.py), so that it can be written down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any

from replica.consensus.hello import Memory as PromiseMemory
from replica.consensus.hello import Promise, Saved, Standing, judge, others_that_must_know
from replica.consensus.raft.membership import Act, Membership, MembershipChange, Step, Transition
from replica.consensus.raft.values import CoreError, Kind, Message, Role
from replica.model.outcome import EntryKind
from tests.simulation.raft.checks import GroupTruth, Violation
from tests.simulation.raft.clients import Clients, Operation
from tests.simulation.raft.disk import Found, Hole, Image, View
from tests.simulation.raft.member import Member
from tests.simulation.raft.net import CALM as CALM_WEATHER
from tests.simulation.raft.net import Net, Weather
from tests.simulation.raft.seat import CALM, FIRST_ENTRY, Seat

HEAL_TICKS_MAX = 700.0
OPERATOR_TICKS = 5.0
Event = dict[str, Any]  # {"at": ticks, "do": name, ...}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a world is made of, apart from its faults. Values that JSON can carry.

    Args:
        voters: of each group at the start; the other members may be added later.
    """

    seed: int
    profile: str = ""
    members: int = 3
    voters: list[list[int]] = field(default_factory=lambda: [[1, 2, 3], [1, 2, 3]])
    ticks: float = 150.0
    write_every: float = 2.0
    read_every: float = 3.0
    flush_min: float = 0.05
    flush_spread: float = 0.3
    late_storage: bool = False
    slow_apply: bool = False
    padding: int = 0
    store_every: float = 25.0
    store_keeps: int = 5
    append_octets: int = 1024
    inflight_messages: int = 16
    pre_vote: bool = True
    weather: dict[str, float] = field(default_factory=dict)


class World:
    """One run."""

    member_type = Member

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.rng = Random(setting.seed)
        self.now = 0.0
        self.steps = self.messages = 0
        self._serial = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.late_storage, self.slow_apply = setting.late_storage, setting.slow_apply
        self.core_settings: dict[str, Any] = {
            "first_entry": FIRST_ENTRY,
            "append_octets_max": setting.append_octets,
            "inflight_messages_max": setting.inflight_messages,
            "pre_vote": setting.pre_vote,
        }
        self.numbers = list(range(1, setting.members + 1))
        self.groups = list(range(1, len(setting.voters) + 1))
        self.truths = {group: GroupTruth(group) for group in self.groups}
        self.desired: dict[int, frozenset[int]] = {}
        self.keeps_messages = False  # set when the schedule replays some
        self.net = Net(self)
        self.net.weather = Weather(**setting.weather)
        self.clients = Clients(self)
        self.clients.padding = b"." * setting.padding
        self.notes: list[str] = []
        self.healing = False
        self.damaged: int | None = None  # whose disk went back; one at a time
        self.counts: dict[str, int] = {}
        self.members: dict[int, Member] = {}
        for number in self.numbers:
            starts = {}
            for group, voters in zip(self.groups, setting.voters, strict=True):
                self.desired[group] = frozenset(voters)
                self.truths[group].membership = Membership(frozenset(voters))
                starts[group] = Membership(frozenset(voters)) if number in voters else Membership()
            self.members[number] = self.member_type(self, number, starts)

    # -- time

    def later(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        self._serial += 1
        heappush(self._heap, (self.now + delay, self._serial, call, args))

    def run_until(self, end: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.now, _, call, args = heappop(heap)
            self.steps += 1
            call(*args)
        self.now = end

    def random_for(self, member: int, group: int) -> Random:
        return Random(self.rng.getrandbits(48) ^ member << 8 ^ group)

    def tick_of(self, number: int) -> float:
        return 0.97 + 0.01 * number

    def flush_ticks(self) -> float:
        return self.setting.flush_min + self.rng.random() * self.setting.flush_spread

    def note(self, *what: object) -> None:
        self.notes.append(f"{self.now:8.2f} " + " ".join(map(str, what)))

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # -- the run

    def run(self, events: list[Event]) -> None:
        """Live through the events, heal, and see that all comes together again.

        Raises:
            Violation: an invariant does not hold.
        """
        self.keeps_messages = any(event["do"] == "replay" for event in events)
        for member in self.members.values():
            member.start()
        for event in events:
            self.later(max(0.0, event["at"] - self.now), self.happen, event)
        self.later(self.setting.write_every, self._write)
        self.later(self.setting.read_every, self._read)
        self.later(OPERATOR_TICKS, self._operate)
        self.later(self.setting.store_every, self._flush_stores)
        self.run_until(self.setting.ticks)
        self.heal()

    def heal(self) -> None:
        """All faults end; then each group must commit a write, and all its members must stand at the same place."""
        self.healing = True
        self.note("heal")
        self.net.cut.clear()
        self.net.holds.clear()
        self.net.weather = CALM_WEATHER
        for member in self.members.values():
            member.fsync_fails = member.clock_stands = False
            self._lie_ends(member)
            if member.frozen:
                member.thaw()
            member.set_full(False)
            member.start()
        last: dict[int, Operation] = {}
        end = self.now + HEAL_TICKS_MAX
        while self.now < end:
            for group in self.groups:
                operation = last.get(group)
                if operation is None or operation.ok is False or (operation.ok is None and operation.begun < self.now - 60):
                    last[group] = self.clients.write(group)
            self.run_until(self.now + 6.0)
            faults = [fault for group in self.groups if (fault := self._unlike(group, last[group]))]
            if not faults:
                self._final()
                return
        raise Violation("liveness", f"{HEAL_TICKS_MAX:.0f} ticks after the last fault: {'; '.join(faults)}")

    def _unlike(self, group: int, last: Operation) -> str:
        """Why a group has not come together yet; "" when it has."""
        if not last.ok:
            return f"group {group}: no write was committed"
        membership = self.truths[group].membership
        if membership.voters != self.desired[group] or membership.joint:
            return f"group {group}: {membership}, wished {sorted(self.desired[group])}"
        seats = [self.members[number].seats[group] for number in sorted(membership.members)]
        for seat in seats:
            if seat.recall.standing is not Standing.SOUND:
                return f"group {group}: member {seat.me} is {seat.recall.standing} ({seat.recall.reason})"
        if len({seat.index for seat in seats}) > 1 or seats[0].index < last.index:
            return f"group {group}: members stand at {[seat.index for seat in seats]}"
        return ""

    def _final(self) -> None:
        """Every acknowledged write is in every member's content, once."""
        for group in self.groups:
            truth = self.truths[group]
            for number in sorted(truth.membership.members):
                seat = self.members[number].seats[group]
                truth.stands(number, seat.index, seat.digest)
                values = [value for kept in seat.content.values() for value in kept]
                have = set(values)
                if len(have) != len(values):
                    raise truth.wrong("acknowledged writes", f"member {number} holds a write twice")
                for index, data in truth.acknowledged.items():
                    if data.partition(b"=")[2] not in have:
                        raise truth.wrong("acknowledged writes", f"member {number} lacks {data!r} of {index}")

    def alive(self) -> list[Member]:
        return [member for member in self.members.values() if member.alive and not member.frozen]

    # -- load

    def _write(self) -> None:
        if not self.healing:
            self.later(self.setting.write_every * (0.5 + self.rng.random()), self._write)
            self.clients.write(self.rng.choice(self.groups))

    def _read(self) -> None:
        if not self.healing:
            self.later(self.setting.read_every * (0.5 + self.rng.random()), self._read)
            self.clients.read(self.rng.choice(self.groups))

    def _flush_stores(self) -> None:
        if self.now < self.setting.ticks + 60:
            self.later(self.setting.store_every * (0.5 + self.rng.random()), self._flush_stores)
        for member in self.alive():
            if self.rng.random() < 0.7:
                for seat in list(member.seats.values()):
                    seat.flush_store(self.setting.store_keeps)

    # -- the operator: brings memberships to what is wished

    def _operate(self) -> None:
        self.later(OPERATOR_TICKS, self._operate)
        self.check_damage()
        for group in self.groups:
            for member in self.alive():
                seat = member.seats[group]
                if seat.role is Role.LEADER and seat.recall.standing in CALM:
                    self._bring(seat, self.desired[group])

    def _bring(self, seat: Seat, desired: frozenset[int]) -> None:
        """One step towards the wished voters, as the leader's driver would take it."""
        membership = seat.core.membership
        if membership.joint:
            if not membership.auto_leave:
                self._change(seat, MembershipChange())
            return
        if self.damaged in membership.voters and not self._is_sound(self.damaged, seat.group):
            return  # nothing but its own way back while a voter's disk is bad
        missing = desired - membership.members
        if missing:
            self._change(seat, MembershipChange((Step(Act.ADD_LEARNER, min(missing)),)))
            return
        if any(not self._is_caught_up(seat, number) for number in desired - membership.voters):
            return
        steps = [Step(Act.ADD_VOTER, number) for number in sorted(desired - membership.voters)]
        steps += [Step(Act.REMOVE, number) for number in sorted(membership.voters - desired)]
        surplus = membership.learners - desired
        if len(steps) == 1 or (not steps and surplus):
            self._change(seat, MembershipChange((steps or [Step(Act.REMOVE, min(surplus))])[:1]))
        elif steps:
            how = self.rng.choice((Transition.AUTO, Transition.IMPLICIT, Transition.EXPLICIT))
            self._change(seat, MembershipChange(tuple(steps), how))

    def _is_sound(self, number: int | None, group: int) -> bool:
        machine = self.members.get(number or 0)
        return machine is not None and machine.alive and machine.seats[group].recall.standing is Standing.SOUND

    def _is_caught_up(self, leader: Seat, number: int) -> bool:
        """A learner may become a voter when it has what is committed and is no amnesiac."""
        member = self.members[number]
        if not member.alive:
            return False
        seat = member.seats[leader.group]
        return seat.recall.standing in CALM and seat.index >= leader.commit - 3

    def _change(self, seat: Seat, change: MembershipChange) -> None:
        try:
            seat.core.propose_change(change)
        except (CoreError, ValueError):
            return
        self.count("membership changes")
        seat.pump()

    # -- faults

    def happen(self, event: Event) -> None:
        """One event of the schedule; see schedule.py for the vocabulary."""
        if not self.healing:
            self.note({key: value for key, value in event.items() if key != "at"})
            getattr(self, f"_do_{event['do']}")(**{key: value for key, value in event.items() if key not in ("at", "do")})

    def _do_cut(self, source: int, to: int, ticks: float) -> None:
        self.net.cut.add((source, to))
        self.later(ticks, self.net.cut.discard, (source, to))

    def _do_partition(self, side: list[int], ticks: float) -> None:
        for source in self.numbers:
            for to in self.numbers:
                if (source in side) != (to in side):
                    self._do_cut(source, to, ticks)

    def _do_flap(self, source: int, to: int, ticks: float, count: int) -> None:
        """A link that goes down and up again, in both directions."""
        for place in range(count):
            for ends in ((source, to), (to, source)):
                self.later(place * 2 * ticks, self._do_cut, *ends, ticks)

    def _do_weather(self, ticks: float, **weather: float) -> None:
        before = self.net.weather
        self.net.weather = Weather(**weather)
        self.later(ticks, self._weather_again, before)

    def _weather_again(self, before: Weather) -> None:
        if not self.healing:
            self.net.weather = before

    def _do_crash(self, member: int, back: float) -> None:
        machine = self.members[member]
        self._lie_ends(machine)
        machine.stop()
        self.later(back, machine.start)

    def _do_crash_all(self, back: float) -> None:
        for number in self.numbers:
            self._do_crash(number, back + 0.3 * number)

    def _do_freeze(self, member: int, ticks: float) -> None:
        machine = self.members[member]
        if machine.alive and not machine.frozen:
            machine.frozen = True
            self.later(ticks, self._thaw, machine, machine.life)

    def _thaw(self, machine: Member, life: int) -> None:
        if machine.frozen and machine.life == life:
            machine.thaw()

    def _do_clock(self, member: int, ticks: int) -> None:
        """The clock of a member jumps forward."""
        self.members[member].burst(ticks)

    def _do_clock_stands(self, member: int, ticks: float) -> None:
        self.members[member].clock_stands = True
        self.later(ticks, setattr, self.members[member], "clock_stands", False)

    def _do_disk_full(self, member: int, ticks: float) -> None:
        machine = self.members[member]
        if machine.alive:
            machine.set_full(True)
            self.later(ticks, machine.set_full, False)

    def _do_fsync_fails(self, member: int) -> None:
        self.members[member].fsync_fails = True

    def _do_fsync_lies(self, member: int) -> None:
        disk = self.members[member].disk
        if disk.lying_from is None:
            disk.lying_from = len(disk.flushed)

    def _leader_of(self, group: int) -> Member | None:
        leading = [m for m in self.alive() if m.seats[group].role is Role.LEADER and m.seats[group].recall.standing in CALM]
        return max(leading, key=lambda m: m.seats[group].core.term, default=None)

    def _do_strike(self, group: int, back: float, ticks: float) -> None:
        """The leader crashes, and whoever holds most of its log is cut off: the others are on their own."""
        leader = self._leader_of(group)
        if leader is not None:
            others = [machine for machine in self.alive() if machine is not leader]
            if others:
                furthest = max(
                    others,
                    key=lambda m: (
                        m.seats[group].log.term(m.seats[group].log.last_index()) or 0,
                        m.seats[group].log.last_index(),
                    ),
                )
                self._do_partition([furthest.number], ticks)
            self._do_crash(leader.number, back)

    def _do_behead(self, group: int, ticks: float, count: int) -> None:
        """The leader is cut off with a tail that nobody else has."""
        leader = self._leader_of(group)
        if leader is not None:
            self._do_partition([leader.number], ticks)
            seat = leader.seats[group]
            for _ in range(count):
                seat.propose(self.clients.begin(group), b"k0=behead%d" % len(self.clients.operations))

    def _do_lead(self, group: int, to: int) -> None:
        """Ask for a leader transfer."""
        for machine in self.alive():
            seat = machine.seats[group]
            if seat.role is Role.LEADER:
                try:
                    seat.core.transfer(to)
                except CoreError:
                    return
                seat.pump()

    def _do_campaign(self, group: int, member: int) -> None:
        machine = self.members[member]
        if machine in self.alive() and machine.seats[group].recall.standing in CALM:
            machine.seats[group].core.campaign()
            machine.seats[group].pump()

    def _do_members(self, group: int, voters: list[int]) -> None:
        """Wish for other voters; the operator goes there step by step."""
        self.desired[group] = frozenset(voters)

    def _do_store(self, member: int, keep: int) -> None:
        machine = self.members[member]
        if machine in self.alive():
            for seat in machine.seats.values():
                seat.flush_store(keep)

    def _do_replay(self, count: int, kind: str) -> None:
        self.net.replay(count, kind)

    def _do_forge(self, group: int, source: int, name: int) -> None:
        """A member sends what another one might have said: it holds all, and it votes for whoever asks."""
        for machine in self.alive():
            seat = machine.seats[group]
            if machine.number in (source, name):
                continue
            for kind, index in ((Kind.APPEND_REPLY, seat.log.last_index()), (Kind.VOTE_REPLY, 0)):
                forged = Message(kind, machine.number, name, seat.core.term, 0, index)
                self.later(0.1, machine.deliver, source, machine.life, 0, group, forged, (), None)

    def _do_write(self, group: int, count: int) -> None:
        for _ in range(count):
            self.clients.write(group)

    # -- disks that go back

    def _do_lost_tail(self, member: int, share: float, back: float) -> None:
        """A power cut, and flushed writes at the journal's end are missing."""
        self._damage(member, share, back, stores_too=False)

    def _do_old_image(self, member: int, share: float, back: float) -> None:
        """The whole disk of an earlier time is put in place."""
        self._damage(member, share, back, stores_too=True)

    def _do_hole(self, member: int, group: int, depth: int, back: float) -> None:
        """Flushed entries in the journal's middle are unreadable; its own mark tells."""
        machine = self.members[member]
        if self.damaged is None and machine.alive and self._can_spare(member):
            self._do_crash(member, back)
            view = machine.disk.found().views[group]
            if len(view.entries) > depth:
                self.damaged = member
                machine.disk.flushed.append(Hole(group, view.last - depth))
                self.count("hole")

    def _damage(self, member: int, share: float, back: float, *, stores_too: bool) -> None:
        machine = self.members[member]
        if not machine.alive:
            return
        machine.stop()
        self.later(back, machine.start)
        ops = machine.disk.flushed
        self._go_back(machine, int(len(ops) * (1 - share)), stores_too=stores_too)

    def _lie_ends(self, machine: Member) -> None:
        """What was said to be durable since the disk began to lie is not, as the power goes."""
        since, machine.disk.lying_from = machine.disk.lying_from, None
        if since is not None and not self.healing and machine.alive:
            machine.stop()
            self._go_back(
                machine, self.rng.randint(min(since, len(machine.disk.flushed)), len(machine.disk.flushed)), stores_too=False
            )

    def _go_back(self, machine: Member, upto: int, *, stores_too: bool) -> None:
        """Put an earlier disk in place, if the loss can be found (the stated limit of amnesia rules), and no other disk is bad."""
        if self.damaged not in (None, machine.number) or upto >= len(machine.disk.flushed):
            return
        if not self._can_spare(machine.number):
            return
        if not self._would_be_found(machine, upto, stores_too=stores_too):
            self.count("undetectable")
            return
        self.note("disk of", machine.number, "goes back to", upto, "of", len(machine.disk.flushed))
        self.count("old image" if stores_too else "lost tail")
        self.damaged = machine.number
        machine.disk.roll_back(upto, stores_too=stores_too)

    def _can_spare(self, number: int) -> bool:
        """True when every group has its majorities without this member's disk, now and after any change on its way."""
        disks = [member.disk.found() for member in self.members.values() if member.number != number]
        for group in self.groups:
            truth = self.truths[group]
            memberships = {truth.membership}
            for member, found in zip([m for m in self.members.values() if m.number != number], disks, strict=True):
                rows = member.seats[group].log.rows if member.alive else found.views[group].entries
                if any(row.kind is EntryKind.MEMBERSHIP and row.index > len(truth.entries) for row in rows):
                    return False
                if member.number in truth.membership.members:
                    memberships.add(self._after_restart(truth, found, group))
            halves = [half for membership in memberships for half in (membership.voters, membership.outgoing) if half]
            if any(len(half - {number}) <= len(half) // 2 for half in halves):
                return False
        return True

    @staticmethod
    def _after_restart(truth: GroupTruth, found: Found, group: int) -> Membership:
        """What a member would take for the membership if all were started anew now."""
        image, view = found.images[group], found.views[group]
        later = [index for index in truth.memberships if image.index < index <= min(view.known, view.last)]
        return truth.memberships[max(later)] if later else image.membership

    def _would_be_found(self, machine: Member, upto: int, *, stores_too: bool) -> bool:
        found = machine.disk.found(upto, stores_too=stores_too)
        others = {number: member.disk.found() for number, member in self.members.items() if number != machine.number}
        for group in self.groups:
            view, image = found.views[group], found.images[group]
            shown = self._shown(view, image)
            term, index = machine.made.get(group, (0, 0))
            if not judge(Promise(0, term, index), shown):
                continue
            voters = image.membership.voters
            knowing = 0
            for number, disk in others.items():
                told = PromiseMemory.decode(disk.views[group].kept).of(machine.number)
                knowing += bool(number in voters and judge(told, shown))
            enough = others_that_must_know(len(voters)) if machine.number in voters else len(voters)
            if image.membership.joint or not voters or knowing < min(enough, len(voters - {machine.number})):
                return False
        return True

    @staticmethod
    def _shown(view: View, image: Image) -> Promise:
        """What a seat would find at its start; boots apart."""
        last, term = view.last, view.term(view.last) or 0
        if image.index > last or view.term(image.index) != image.term:
            last, term = image.index, image.term
        return Saved(max(view.hard.term, image.term), last, term).shown(1 << 62)

    def amnesiac(self, seat: Seat) -> None:
        self.note("member", seat.me, "is AMNESIAC in group", seat.group, seat.recall.reason)
        self.count("amnesiac")

    def fed(self, seat: Seat) -> None:
        self.note("member", seat.me, "is FED in group", seat.group)
        self.count("fed")
        if (seat.core.term, seat.core.vote) < (seat.recall.told.term, 1):
            raise self.truths[seat.group].wrong(
                "amnesia", f"member {seat.me} was fed and may vote again in {seat.recall.told.term}"
            )

    def check_damage(self) -> None:
        """A disk that went back is good again once its member is sound everywhere."""
        if self.damaged is not None:
            machine = self.members[self.damaged]
            if machine.alive and all(seat.recall.standing is Standing.SOUND for seat in machine.seats.values()):
                self.damaged = None
