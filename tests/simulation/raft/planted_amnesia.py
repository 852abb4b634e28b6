"""Planted bugs of amnesia: who must notice that a disk went back, and what it may do then. Table: planted.py."""

from __future__ import annotations

from collections.abc import Sequence

from replica.consensus.hello import Memory, Promise, Recall, Saved, Standing
from replica.consensus.port import HardState
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import Kind, Message
from tests.simulation.raft.disk import Image, View
from tests.simulation.raft.member import HELLO_TICKS, HelloRows, Member
from tests.simulation.raft.seat import CALM, Seat


class NotJudged(Seat):
    class Blind(Recall):
        def _judge(self, saved: Saved) -> None:
            pass

    def _recall(self, boot: int, start: Saved, memory: Memory, lost: str, *, alone: bool) -> Recall:
        return self.Blind(self.me, boot, start, memory, alone=alone)


class JudgedByLengthAlone(Seat):
    """The end of the log counts, whatever term it is of."""

    class Longest(Recall):
        def _judge(self, saved: Saved) -> None:
            saved = self._start if self.standing is Standing.ASKING else saved
            super()._judge(Saved(saved.term, saved.last, saved.term))

    def _recall(self, boot: int, start: Saved, memory: Memory, lost: str, *, alone: bool) -> Recall:
        start = Saved(start.term, start.last, start.term)
        return self.Longest(self.me, boot, start, memory, lost=lost, flushed=self.flushed, alone=alone)


class BootNotJudged(Seat):
    """Terms and indexes count, the number of the journal's opening does not."""

    class Bootless(Recall):
        def _judge(self, saved: Saved) -> None:
            boot, self.boot = self.boot, 1 << 62
            super()._judge(saved)
            self.boot = boot

    def _recall(self, boot: int, start: Saved, memory: Memory, lost: str, *, alone: bool) -> Recall:
        return self.Bootless(self.me, boot, start, memory, lost=lost, flushed=self.flushed, alone=alone)


class MatchTableStays(Seat):
    """Heartbeats carry no match table: a promise is known to those alone to whom it was made."""

    @property
    def rows(self) -> tuple[tuple[int, Promise], ...]:
        return ()

    @rows.setter
    def rows(self, rows: tuple[tuple[int, Promise], ...]) -> None:
        pass


class HelloTellsNothing(Member):
    """A Hello is a greeting."""

    def hear_hello(self, sender: int, life: int, boot: int, rows: HelloRows, answer: bool) -> None:
        super().hear_hello(sender, life, boot, {}, answer)


class HoleForgiven(Seat):
    def _recall(self, boot: int, start: Saved, memory: Memory, lost: str, *, alone: bool) -> Recall:
        return Recall(self.me, boot, start, memory, alone=alone)


class LossForgotten(Seat):
    """The journal is begun anew behind the store, and with it goes the mark of what it had lost."""

    def keep_memory(self) -> None:
        self.recall.memory = Memory(row for row in self.recall.memory.rows() if row[0] != self.me)


class AmnesiacTakesPart(Member):
    """It knows that it forgot, says so and is fed, but votes and acknowledges meanwhile."""

    takes_part = (*CALM, Standing.AMNESIAC)

    def deliver(
        self,
        sender: int,
        lives: tuple[int, int],
        boot: int,
        group: int,
        message: Message,
        rows: tuple[tuple[int, Promise], ...],
        image: Image | None,
    ) -> None:
        if self.alive and not self.frozen and self.seats[group].recall.standing is Standing.AMNESIAC:
            if image is not None:
                if lives[1] == self.life:
                    self.seats[group].feed(image)
                return
            self.seats[group].core.allow_elections(True)
        super().deliver(sender, lives, boot, group, message, rows, image)

    def one_tick(self) -> None:
        super().one_tick()
        if self.alive and self.ticks % HELLO_TICKS == 0:
            for group, seat in self.seats.items():
                if seat.recall.standing is Standing.AMNESIAC:
                    for number in self.world.numbers:
                        if number != self.number:
                            hears = self.world.members[number].hear_amnesiac
                            self.world.net.tell(self, number, hears, self.number, group)


class NoHelloFirst(Seat):
    def _recall(self, boot: int, start: Saved, memory: Memory, lost: str, *, alone: bool) -> Recall:
        recall = Recall(self.me, boot, start, memory, lost=lost, alone=True)
        recall.memory = Memory(row for row in recall.memory.rows() if row[0] != self.me)
        return recall

    def hello(self, sender: int, rows: Sequence[tuple[int, Promise]], as_of: tuple[int, Membership]) -> None:
        """Heard, and not listened to: it is too late."""
        self.recall.memory.merge(row for row in rows if row[0] != self.me)

    def told(self, rows: Sequence[tuple[int, Promise]]) -> None:
        self.recall.memory.merge(row for row in rows if row[0] != self.me)


class VoteRecordForgotten(Seat):
    def _hard_at_start(self, hard: HardState) -> HardState:
        return hard


class FedWithoutRaise(Seat):
    """Fed anew, and free to vote in the terms that it has promised already."""

    def _begin(self, view: View, image: Image, hard: HardState) -> None:
        if self.life and hard.vote == self.me:
            hard = HardState(image.term, 0, hard.boot)
            view.hard = hard
        super()._begin(view, image, hard)


class HealedForGood(Seat):
    """Who was fed is not judged any more in that life. No bug by itself, as long as what it is fed with covers its promises."""

    class Healed(Recall):
        healed = False

        def _judge(self, saved: Saved) -> None:
            if not self.healed:
                super()._judge(saved)

        def fed(self, hard: HardState) -> None:
            super().fed(hard)
            self.healed = True

    recall_type: type[Recall] = Healed

    def _recall(self, boot: int, start: Saved, memory: Memory, lost: str, *, alone: bool) -> Recall:
        return self.recall_type(self.me, boot, start, memory, lost=lost, flushed=self.flushed, alone=alone)


class FedWithAnything(HealedForGood):
    """Any old state heals, and the member stays a voter."""

    class Easy(HealedForGood.Healed):
        def may_be_fed(self, index: int, term: int, *, learner: bool) -> bool:
            return self.standing is Standing.AMNESIAC

        def fed(self, hard: HardState) -> None:
            super().fed(hard)
            self.promoted()

    recall_type = Easy

    def chores(self) -> None:
        """Feed it as it is, from the oldest state at hand."""
        for member in sorted(self.amnesiacs):
            kept = self.member.disk.images[self.group]
            image = kept[len(kept) // 2][1]
            message = Message(Kind.SNAPSHOT, member, self.me, self.core.term, snapshot=image.meta)
            self.world.net.send(self.member, member, self.group, message, (), image)
        self.amnesiacs.clear()


class MatchKept(Seat):
    def new_life(self, sender: int) -> None:
        self.core.unreachable(sender)
