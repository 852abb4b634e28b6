"""What can happen to a simulated world: each event is one method `_do_<name>`; vocabulary: schedule.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replica.consensus.hello import Memory as PromiseMemory
from replica.consensus.hello import Promise, Saved, judge, others_that_must_know
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import CoreError, Kind, Message, Role
from replica.model.outcome import EntryKind
from tests.simulation.raft.checks import GroupTruth
from tests.simulation.raft.disk import Found, Hole, Image, View
from tests.simulation.raft.member import Member
from tests.simulation.raft.net import Weather
from tests.simulation.raft.seat import CALM
from tests.simulation.raft.setting import Event

if TYPE_CHECKING:
    from tests.simulation.raft.world import World


class Faults:
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
                self.later(0.1, machine.deliver, source, machine.life, 0, group, forged, (), None)

    def _do_write(self: World, group: int, count: int) -> None:
        for _ in range(count):
            self.clients.write(group)

    # -- disks that go back

    def _do_lost_tail(self: World, member: int, share: float, back: float) -> None:
        """A power cut, and flushed writes at the journal's end are missing."""
        self._damage(member, share, back, stores_too=False)

    def _do_old_image(self: World, member: int, share: float, back: float) -> None:
        """The whole disk of an earlier time is put in place."""
        self._damage(member, share, back, stores_too=True)

    def _do_hole(self: World, member: int, group: int, depth: int, back: float) -> None:
        """Flushed entries in the journal's middle are unreadable; its own mark tells."""
        machine = self.members[member]
        if self.damaged is None and machine.alive and self._can_spare(member):
            self._do_crash(member, back)
            view = machine.disk.found().views[group]
            if len(view.entries) > depth:
                self.damaged = member
                machine.disk.flushed.append(Hole(group, view.last - depth))
                self.count("hole")

    def _damage(self: World, member: int, share: float, back: float, *, stores_too: bool) -> None:
        machine = self.members[member]
        if not machine.alive:
            return
        machine.stop()
        self.later(back, machine.start)
        ops = machine.disk.flushed
        self._go_back(machine, int(len(ops) * (1 - share)), stores_too=stores_too)

    def _lie_ends(self: World, machine: Member) -> None:
        """What was said to be durable since the disk began to lie is not, as the power goes."""
        since, machine.disk.lying_from = machine.disk.lying_from, None
        if since is not None and not self.healing and machine.alive:
            machine.stop()
            self._go_back(
                machine, self.rng.randint(min(since, len(machine.disk.flushed)), len(machine.disk.flushed)), stores_too=False
            )

    def _go_back(self: World, machine: Member, upto: int, *, stores_too: bool) -> None:
        """Put an earlier disk in place, if the loss can be found (the stated limit) and no other disk is bad."""
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

    def _can_spare(self: World, number: int) -> bool:
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

    def _would_be_found(self: World, machine: Member, upto: int, *, stores_too: bool) -> bool:
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
