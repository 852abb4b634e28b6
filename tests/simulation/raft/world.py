"""A whole simulated cluster: virtual time in ticks, members, network, clients, an operator, faults by schedule, and the end.

A run is a pure function of its Setting and its events: the same again, the same steps. Chance inside a run comes from the
setting's seed alone; the schedule of faults is a list of values made beforehand (schedule.py), so that it can be written down.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from replica.consensus.hello import Standing
from replica.consensus.raft.membership import Act, Membership, MembershipChange, Step, Transition
from replica.consensus.raft.values import CoreError, Role
from tests.simulation.raft.checks import GroupTruth, Violation
from tests.simulation.raft.clients import Clients, Operation
from tests.simulation.raft.faults import Faults
from tests.simulation.raft.member import Member
from tests.simulation.raft.net import CALM as CALM_WEATHER
from tests.simulation.raft.net import Net, Weather
from tests.simulation.raft.seat import CALM, FIRST_ENTRY, Seat
from tests.simulation.raft.setting import Event, Setting

HEAL_TICKS_MAX = 700.0  # and where a message takes one entry, as long as one member needs to take all of them
OPERATOR_TICKS = 5.0
ROUND_TRIP_TICKS = 1.0


class World(Faults):
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
            member.set_apply_stands(False)
            member.start()
        last: dict[int, Operation] = {}
        ticks = HEAL_TICKS_MAX + self._catch_up_ticks()
        end = self.now + ticks
        while self.now < end:
            for group in self.groups:
                # Nobody's group is silent for ever: a member may wait for entries past what it lost (hello.py).
                operation = last.get(group)
                if operation is None or operation.ok is False or operation.begun < self.now - (30 if operation.ok else 60):
                    last[group] = self.clients.write(group)
            self.run_until(self.now + 6.0)
            faults = [fault for group in self.groups if (fault := self._unlike(group, last[group]))]
            if not faults:
                self._final()
                return
        raise Violation("liveness", f"{ticks:.0f} ticks after the last fault: {'; '.join(faults)}")

    def _catch_up_ticks(self) -> float:
        """A round trip and a flush for each entry in any log, committed or not, where one message at a time takes one entry."""
        setting = self.setting
        if setting.append_octets > 1 or setting.inflight_messages > 1:
            return 0.0
        entries = sum(
            max(len(truth.entries), *(member.seats[group].log.last_index() for member in self.members.values()))
            for group, truth in self.truths.items()
        )
        return entries * 2 * (setting.flush_spread + ROUND_TRIP_TICKS)

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
                self._refused_stays_refused(group, number, have)
                if len(have) != len(values):
                    raise truth.wrong("acknowledged writes", f"member {number} holds a write twice")
                for index, data in truth.acknowledged.items():
                    if data.partition(b"=")[2] not in have:
                        raise truth.wrong("acknowledged writes", f"member {number} lacks {data!r} of {index}")

    def _refused_stays_refused(self, group: int, number: int, have: set[bytes]) -> None:
        for operation in self.clients.operations:
            if operation.ok is False and operation.group == group and operation.op == "append" and operation.value in have:
                raise self.truths[group].wrong(
                    "refused writes", f"member {number} holds {operation.value!r}, which its client was told had failed"
                )

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
        """A disk that went back is good again once its member is sound everywhere and will stay so, whoever speaks to it yet."""
        if self.damaged is not None and self.members[self.damaged].keeps_its_word():
            self.damaged = None
