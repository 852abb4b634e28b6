"""What can happen to a simulated world: each event is one method `_do_<name>`; vocabulary: schedule.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replica.consensus.raft.values import CoreError, Kind, Message, Role
from replica.model.outcome import LogEntry
from tests.simulation.raft.disk_faults import DiskFaults
from tests.simulation.raft.member import Member
from tests.simulation.raft.net import Weather
from tests.simulation.raft.seat import CALM
from tests.simulation.raft.setting import Event

if TYPE_CHECKING:
    from tests.simulation.raft.world import World


class Faults(DiskFaults):
    """Part of a World."""

    # -- faults

    def happen(self: World, event: Event) -> None:
        """One event of the schedule; see schedule.py for the vocabulary."""
        if not self.healing:
            self.note({key: value for key, value in event.items() if key != "at"})
            getattr(self, f"_do_{event['do']}")(**{key: value for key, value in event.items() if key not in ("at", "do")})

    def _do_cut(self: World, source: int, to: int, ticks: float) -> None:
        self.net.cut.add((source, to))
        self.later(ticks, self.net.cut.discard, (source, to))

    def _do_partition(self: World, side: list[int], ticks: float) -> None:
        for source in self.numbers:
            for to in self.numbers:
                if (source in side) != (to in side):
                    self._do_cut(source, to, ticks)

    def _do_flap(self: World, source: int, to: int, ticks: float, count: int) -> None:
        """A link that goes down and up again, in both directions."""
        for place in range(count):
            for ends in ((source, to), (to, source)):
                self.later(place * 2 * ticks, self._do_cut, *ends, ticks)

    def _do_weather(self: World, ticks: float, **weather: float) -> None:
        before = self.net.weather
        self.net.weather = Weather(**weather)
        self.later(ticks, self._weather_again, before)

    def _weather_again(self: World, before: Weather) -> None:
        if not self.healing:
            self.net.weather = before

    def _do_crash(self: World, member: int, back: float) -> None:
        machine = self.members[member]
        self._lie_ends(machine)
        machine.stop()
        self.later(back, machine.start)

    def _do_crash_all(self: World, back: float) -> None:
        for number in self.numbers:
            self._do_crash(number, back + 0.3 * number)

    def _do_freeze(self: World, member: int, ticks: float) -> None:
        machine = self.members[member]
        if machine.alive and not machine.frozen:
            machine.frozen = True
            self.later(ticks, self._thaw, machine, machine.life)

    def _thaw(self: World, machine: Member, life: int) -> None:
        if machine.frozen and machine.life == life:
            machine.thaw()

    def _do_clock(self: World, member: int, ticks: int) -> None:
        """The clock of a member jumps forward."""
        self.members[member].burst(ticks)

    def _do_clock_stands(self: World, member: int, ticks: float) -> None:
        self.members[member].clock_stands = True
        self.later(ticks, setattr, self.members[member], "clock_stands", False)

    def _do_apply_stands(self: World, member: int, ticks: float) -> None:
        """A member's state machines take nothing."""
        machine = self.members[member]
        machine.set_apply_stands(True)
        self.later(ticks, machine.set_apply_stands, False)

    def _do_disk_full(self: World, member: int, ticks: float) -> None:
        machine = self.members[member]
        if machine.alive:
            machine.set_full(True)
            self.later(ticks, machine.set_full, False)

    def _do_fsync_fails(self: World, member: int) -> None:
        self.members[member].fsync_fails = True

    def _do_fsync_lies(self: World, member: int) -> None:
        disk = self.members[member].disk
        if disk.lying_from is None:
            disk.lying_from = len(disk.flushed)

    def _leader_of(self: World, group: int) -> Member | None:
        leading = [m for m in self.alive() if m.seats[group].role is Role.LEADER and m.seats[group].recall.standing in CALM]
        return max(leading, key=lambda m: m.seats[group].core.term, default=None)

    def _do_strike(self: World, group: int, back: float, ticks: float) -> None:
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

    def _do_behead(self: World, group: int, ticks: float, count: int) -> None:
        """The leader is cut off with a tail that nobody else has."""
        leader = self._leader_of(group)
        if leader is not None:
            self._do_partition([leader.number], ticks)
            seat = leader.seats[group]
            for _ in range(count):
                seat.propose(self.clients.begin(group), b"k0=behead%d" % len(self.clients.operations))

    def _do_lead(self: World, group: int, to: int) -> None:
        """Ask for a leader transfer."""
        for machine in self.alive():
            seat = machine.seats[group]
            if seat.role is Role.LEADER:
                try:
                    seat.core.transfer(to)
                except CoreError:
                    return
                seat.pump()

    def _do_campaign(self: World, group: int, member: int) -> None:
        machine = self.members[member]
        if machine in self.alive() and machine.seats[group].recall.standing in CALM:
            machine.seats[group].core.campaign()
            machine.seats[group].pump()

    def _do_members(self: World, group: int, voters: list[int]) -> None:
        """Wish for other voters; the operator goes there step by step."""
        self.desired[group] = frozenset(voters)

    def _do_store(self: World, member: int, keep: int) -> None:
        machine = self.members[member]
        if machine in self.alive():
            for seat in machine.seats.values():
                seat.flush_store(keep)

    def _do_replay(self: World, count: int, kind: str) -> None:
        self.net.replay(count, kind)

    def _do_forge(self: World, group: int, source: int, name: int) -> None:
        """A member sends what another one might have said: it holds all, and it votes for whoever asks."""
        for machine in self.alive():
            seat = machine.seats[group]
            if machine.number in (source, name):
                continue
            for kind, index in ((Kind.APPEND_REPLY, seat.log.last_index()), (Kind.VOTE_REPLY, 0)):
                forged = Message(kind, machine.number, name, seat.core.term, 0, index)
                self.later(0.1, machine.deliver, source, (self.members[source].life, machine.life), 0, group, forged, (), None)

    def _do_stranger(self: World, group: int, source: int) -> None:
        """The leader of another cluster, whose members have the same numbers, speaks to the members of this one."""
        for machine in self.alive():
            if machine.number == source:
                continue
            log, term = machine.seats[group].log, machine.seats[group].core.term + 1
            last = log.last_index()
            entry = LogEntry(last + 1, term, b"k0=stranger")
            message = Message(Kind.APPEND, machine.number, source, term, log.term(last) or 0, last, (entry,), commit=last + 1)
            self.later(0.1, machine.hear_stranger, source, (self.members[source].life, machine.life), group, message)

    def _do_write(self: World, group: int, count: int) -> None:
        for _ in range(count):
            self.clients.write(group)
