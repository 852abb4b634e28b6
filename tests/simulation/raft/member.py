"""A simulated member: one process over one disk, with a seat for each group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from replica.consensus.hello import Promise, Standing, judge
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import Duties, Kind, Message, Role
from tests.simulation.raft.disk import Boot, Disk, Image, Keep, Op, Save
from tests.simulation.raft.seat import CALM, Seat

if TYPE_CHECKING:
    from tests.simulation.raft.world import World

HELLO_TICKS = 4
KEEP_TICKS = 5
BACKLOG_MAX = 300
HelloRows = dict[int, tuple[tuple[tuple[int, Promise], ...], tuple[int, Membership]]]  # promises, newest membership


class Member:
    """What a machine is: on or off, frozen or not, with its disk."""

    seat_type = Seat
    disk_type = Disk
    takes_part = CALM  # standings in which messages reach the core

    def __init__(self, world: World, number: int, starts: dict[int, Membership]) -> None:
        self.world, self.number = world, number
        self.disk = self.disk_type(list(starts), starts)
        self.life = 0
        self.boot = 0
        self.alive = self.frozen = False
        self.ticks = 0
        self.clock_stands = False
        self.full = False
        self.apply_stands = False
        self.flushing = False
        self.flushes = 0  # how many were begun or ended early: what a later one counts, an earlier one does not
        self.fsync_fails = False
        self.seats: dict[int, Seat] = {}
        self.heard: dict[int, int] = {}
        self.links: dict[int, int] = {}  # member -> its life whose Hello was heard; a link belongs to one life of either side
        self.unheard: set[int] = set()  # a message came from a life whose Hello did not
        self.backlog: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.made: dict[int, tuple[int, int]] = {}  # group -> highest promise that left this member, over all lives
        self.boot_told = 0  # highest boot that left this member, over all lives

    # -- lives

    def start(self) -> None:
        if self.alive:
            return
        found = self.disk.found()
        self.life += 1
        self.boot = found.boot + 1
        self.disk.flushed.append(Boot(self.boot))
        self.alive, self.frozen, self.full, self.flushing, self.fsync_fails = True, False, False, False, False
        self.clock_stands = self.apply_stands = False
        self.heard, self.links, self.unheard, self.backlog = {}, {}, set(), []
        self.seats = {
            group: self.seat_type(self, group, self.boot, found.views[group], found.images[group]) for group in found.views
        }
        for group, seat in self.seats.items():
            if seat.recall.memory.changed:
                seat.keep_memory()
            if seat.restarted:  # the journal begins anew behind the store
                meta = found.images[group].meta
                self.write_now(Save(group, Duties(1, snapshot=meta, hard=found.views[group].hard)))
            if seat.recall.standing is Standing.AMNESIAC:
                self.world.amnesiac(seat)
        self.say_hello(self.world.numbers, answer=True)
        self.world.later(self.world.rng.random(), self.tick, self.life)

    def stop(self) -> None:
        """The process is gone; of what was not flushed a part is on the disk."""
        if not self.alive:
            return
        for seat in self.seats.values():
            seat._stepped_down()
        self.alive = self.frozen = False
        self.life += 1
        self.disk.power_cut(self.world.rng)
        self.seats = {}

    def promised(self, group: int, term: int, index: int) -> None:
        place = (term, index)
        if place > self.made.get(group, (0, 0)):
            self.made[group] = place

    def keeps_its_word(self) -> bool:
        """Sound in every group, and the disk shows all that ever left this member: nobody will find more was promised."""
        return self.alive and all(
            seat.recall.standing is Standing.SOUND
            and not judge(Promise(self.boot_told, *self.made.get(group, (0, 0))), seat.disk_shows.shown(self.boot))
            for group, seat in self.seats.items()
        )

    # -- the journal

    def write(self, op: Op) -> None:
        self.disk.pending.append(op)
        if not self.flushing:
            self._flush()

    def write_now(self, op: Op) -> None:
        """A write that is awaited, behind all others: the flush under way ends with it, and counts nothing that comes later."""
        self.disk.flushed += [*self.disk.pending, op]
        done, self.disk.pending = self.disk.pending, []
        self.flushes, self.flushing = self.flushes + 1, False
        for earlier in done:
            if isinstance(earlier, Save) and earlier.seat is not None:
                self.world.later(0.0, self._saved_late, self.life, earlier)

    def _saved_late(self, life: int, op: Save) -> None:
        if life == self.life:
            self._saved(op)

    def _flush(self) -> None:
        if self.disk.pending and not self.full:
            self.flushing = True
            self.flushes += 1
            self.world.later(self.world.flush_ticks(), self.flushed, self.life, self.flushes, len(self.disk.pending))

    def flushed(self, life: int, flush: int, count: int) -> None:
        if life != self.life or self._wait(self.flushed, life, flush, count) or flush != self.flushes:
            return
        if self.fsync_fails and self._stops_when_fsync_fails(count):
            return
        self.flushing = False
        for op in self.disk.flush(count):
            if isinstance(op, Save):
                self._saved(op)
        if not self.flushing:
            self._flush()

    def _stops_when_fsync_fails(self, count: int) -> bool:
        self.world.note("fsync failed", self.number)
        self.world.count("failed fsync")
        self.stop()
        self.world.later(self.world.rng.random() * 20, self.start)
        return True

    def _saved(self, op: Save) -> None:
        if op.seat is not None and self.seats.get(op.group) is op.seat and op.life == op.seat.life:
            op.seat.saved(op.duties)

    def set_full(self, full: bool) -> None:
        self.full = full
        if self.alive and not full and not self.flushing:
            self._flush()

    # -- messages

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
        """`lives`: of the sender as it sent this, and of ours that it meant; a link belongs to one life of either side."""
        if not self.alive or self._wait(self.deliver, sender, lives, boot, group, message, rows, image):
            return
        if lives[0] < self.links.get(sender, 0):
            return  # its sender's life has ended, and the next one's Hello closed that link
        if lives[1] != self.life or boot > self.heard.get(sender, -1):
            self.unheard.add(sender)
            return  # sent to a life that has ended, or from one whose Hello was not heard
        if self._is_forged(sender, message):
            return
        seat = self.seats[group]
        standing = seat.recall.standing
        if standing not in self.takes_part:
            if standing is Standing.AMNESIAC and image is not None:
                seat.feed(image)
            return
        kind = message.kind
        if rows:
            seat.told(rows)
            if seat.recall.standing not in self.takes_part:
                return
        if kind is Kind.APPEND_REPLY:
            if not message.reject and seat.role is Role.LEADER and message.term == seat.core.term:
                seat.recall.memory.record(sender, seat.promise_of(boot, message))
        elif kind is Kind.VOTE_REPLY:
            if not message.reject:
                seat.recall.memory.record(sender, Promise(boot, message.term, 0))
        elif kind is Kind.VOTE:
            seat.recall.memory.record(sender, Promise(boot, message.log_term, message.index))
        elif kind is Kind.SNAPSHOT:
            if image is None:
                return
            seat.staged = image
        self.world.messages += 1
        seat.core.step(message)
        seat.pump()

    def hear_stranger(self, sender: int, lives: tuple[int, int], group: int, message: Message) -> None:
        """A message of another cluster."""
        if self._is_of_our_cluster(False):
            self.deliver(sender, lives, 0, group, message, (), None)

    def _is_of_our_cluster(self, same: bool) -> bool:
        """The cluster that a link was made for must be this one."""
        return same

    def _is_forged(self, sender: int, message: Message) -> bool:
        """The member a message names must be the one the link was made with."""
        return message.sender != sender

    def apply(self, life: int, seat: Seat) -> None:
        if life != self.life or self._wait(self.apply, life, seat):
            return
        seat.apply()
        seat.pump()

    def fetched(self, life: int, seat: Seat, seat_life: int, first: int) -> None:
        if life == self.life and seat_life == seat.life and not self._wait(self.fetched, life, seat, seat_life, first):
            seat.fetched(first)

    def set_apply_stands(self, stands: bool) -> None:
        """The state machines take nothing, or what waited for them."""
        self.apply_stands = stands
        if self.alive and not stands:
            for seat in self.seats.values():
                self.world.later(0.0, self.apply, self.life, seat)

    def transfer_ended(self, life: int, group: int, to: int, ok: bool) -> None:
        if life == self.life and not self._wait(self.transfer_ended, life, group, to, ok):
            seat = self.seats[group]
            seat.feeding.discard(to)
            if seat.recall.standing in CALM:
                seat.core.snapshot_finished(to, ok)
                seat.pump()

    # -- Hello

    def say_hello(self, to: list[int], *, answer: bool) -> None:
        self.boot_told = max(self.boot_told, self.boot)
        rows: HelloRows = {group: (seat.recall.memory.rows(), seat.as_of) for group, seat in self.seats.items()}
        for number in to:
            if number != self.number:
                self.world.net.tell(
                    self, number, self.world.members[number].hear_hello, self.number, self.life, self.boot, rows, answer
                )

    def hear_hello(self, sender: int, life: int, boot: int, rows: HelloRows, answer: bool) -> None:
        if not self.alive or self._wait(self.hear_hello, sender, life, boot, rows, answer):
            return
        before = self.links.get(sender, 0)
        if life < before:
            return  # of a life that has ended
        self.links[sender] = life
        self.heard[sender] = max(self.heard.get(sender, 0), boot)
        self.unheard.discard(sender)
        for group, seat in self.seats.items():
            seat.recall.memory.record(sender, Promise(boot, 0, 0))
            seat.hello(sender, *rows.get(group, ((), (0, Membership()))))
            if life > before and seat.recall.standing in CALM:
                seat.new_life(sender)
                if seat.core.leader == sender:
                    seat.core.suspect()
                seat.pump()
        if answer:
            self.say_hello([sender], answer=False)

    def hear_amnesiac(self, sender: int, group: int) -> None:
        if self.alive and not self._wait(self.hear_amnesiac, sender, group):
            seat, machine = self.seats[group], self.world.members[sender]
            # A link keeps its order: a notice that was sent before the member was fed never arrives after it.
            still = machine.alive and machine.seats[group].recall.standing is Standing.AMNESIAC
            if still and seat.role is Role.LEADER:
                seat.amnesiacs.add(sender)

    def raise_boot(self, boot: int) -> None:
        self.boot = boot
        self.disk.flushed.append(Boot(boot))
        for seat in self.seats.values():
            seat.recall.raised(boot)
        self.say_hello(self.world.numbers, answer=False)

    # -- time

    def tick(self, life: int) -> None:
        if life != self.life:
            return
        self.world.later(self.world.tick_of(self.number), self.tick, life)
        if not self.frozen and not self.clock_stands:
            self.one_tick()

    def one_tick(self) -> None:
        self.ticks += 1
        ticks = self.ticks
        for group, seat in self.seats.items():
            standing = seat.recall.standing
            if standing in self.takes_part:
                leads = seat.role is Role.LEADER
                seat.rows = seat.recall.memory.rows() if leads and ticks % 3 == 0 else ()
                seat.core.tick()
                if seat.core.has_duties():
                    seat.pump()
                if leads and seat.amnesiacs:
                    seat.chores()
            elif standing is Standing.AMNESIAC and ticks % HELLO_TICKS == 0:
                for number in self.world.numbers:
                    if number != self.number:
                        self.world.net.tell(self, number, self.world.members[number].hear_amnesiac, self.number, group)
            if not self.alive:
                return
            if seat.recall.memory.changed and ticks % KEEP_TICKS == 0:
                seat.recall.memory.changed = False
                self.write(Keep(group, seat.recall.memory.encode()))
        if ticks % HELLO_TICKS == 0 and (self.unheard or len(self.heard) < len(self.world.numbers) - 1):
            unheard = [number for number in self.world.numbers if number not in self.heard or number in self.unheard]
            self.say_hello(unheard, answer=True)

    def _wait(self, call: Callable[..., None], *args: Any) -> bool:
        """A frozen process does everything later, at once, as far as its queues reach."""
        if not self.frozen:
            return False
        if call != self.deliver or len(self.backlog) < BACKLOG_MAX:
            self.backlog.append((call, args))
        return True

    def thaw(self) -> None:
        self.frozen = False
        backlog, self.backlog = self.backlog, []
        for call, args in backlog:
            self.world.later(0.0, call, *args)

    def burst(self, ticks: int) -> None:
        """The clock jumps forward."""
        for _ in range(ticks):
            if self.alive and not self.frozen:
                self.one_tick()
