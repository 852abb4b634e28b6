"""Disks that go back: flushed writes that are missing, unreadable entries, the disk of yesterday; vocabulary: schedule.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replica.consensus.hello import Memory as PromiseMemory
from replica.consensus.hello import Promise, Saved, judge, others_that_must_know
from replica.consensus.raft.membership import Membership
from tests.simulation.raft.checks import GroupTruth
from tests.simulation.raft.disk import Boot, Found, Hole, Image, Save, View
from tests.simulation.raft.member import Member

if TYPE_CHECKING:
    from tests.simulation.raft.world import World


class DiskFaults:
    """Part of a World."""

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

    def _do_lost_cut(self: World, member: int, group: int, back: float) -> None:
        """All that was flushed since the end of a group's log was last cut off is missing, that cut included."""
        ops = self.members[member].disk.flushed
        cuts = [
            place
            for place, op in enumerate(ops)
            if isinstance(op, Save) and op.group == group and op.duties.cut_after is not None
        ]
        if cuts:
            self._put_back(member, cuts[-1], back, stores_too=False)

    def _do_old_lives(self: World, member: int, lives: int, back: float) -> None:
        """The disk as it was so many openings ago, stores and all."""
        ops = self.members[member].disk.flushed
        openings = [place for place, op in enumerate(ops) if isinstance(op, Boot)]
        if len(openings) > lives:
            self._put_back(member, openings[-lives], back, stores_too=True)

    def _put_back(self: World, member: int, upto: int, back: float, *, stores_too: bool) -> None:
        """Of a schedule that itself saw to it that the loss is known: nobody is asked here whether it will be found."""
        machine = self.members[member]
        if self.damaged is None and machine.alive:
            machine.stop()
            self.later(back, machine.start)
            self.note("disk of", member, "goes back to", upto, "of", len(machine.disk.flushed))
            self.damaged = member
            machine.disk.roll_back(upto, stores_too=stores_too)

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
            if truth.may_change():
                return False
            memberships = {truth.membership}
            for member, found in zip([m for m in self.members.values() if m.number != number], disks, strict=True):
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
