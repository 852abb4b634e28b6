"""Planted bugs of what drives a core, of disks and of the libraries: each lacks one rule. Table: planted.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from replica.consensus.port import HardState
from replica.consensus.raft.values import Message, SnapshotMeta
from replica.model.outcome import LogEntry
from tests.simulation.raft.disk import Disk, Found, Image, Save, Truncate, View
from tests.simulation.raft.member import Member
from tests.simulation.raft.planted_amnesia import VoteRecordForgotten
from tests.simulation.raft.seat import Seat
from tests.simulation.raft.world import World

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


class FailedOnStepDown(Seat):
    """What a leader proposed and did not see committed is said to have failed; its successor may commit it."""

    def _stepped_down(self) -> None:
        for number, _ in self.proposals.values():
            self.world.clients.done(number, False, 0)
        super()._stepped_down()


class AcknowledgesWhenAppended(Seat):
    def propose(self, number: int, data: bytes) -> None:
        before = self.log.last_index()
        super().propose(number, data)
        if self.log.last_index() > before:
            self.truth.confirmed(self.log.last_index(), data)


# -- rule 6: applied index with the state (amnesia: planted_amnesia.py)


class IndexApart(Seat):
    """The applied index is written before the state it speaks of is."""

    def image(self) -> Image:
        image = super().image()
        return (
            replace(image, index=image.index - 1) if image.index > 2 and image.term == self.log.term(image.index - 1) else image
        )


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


class BelievesStrangers(Member):
    def _is_of_our_cluster(self, same: bool) -> bool:
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


class VotesUnsaved(VoteRecordForgotten):
    """For plants that lose votes: nothing at the start makes good for them."""


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
