"""Takes changes for one hosted source, cuts them into batches, and tells each its outcome. Pure: no clock, task or store inside.

| a change is | until | then |
| --- | --- | --- |
| BEHIND | the change of its key before it ended | READY |
| READY | the next batch is cut | IN_FLIGHT when its precondition holds, else DOUBTED |
| DOUBTED | a read barrier passed, and the key was looked at again | READY when the precondition holds now, else CONFLICT |
| IN_FLIGHT | its entry has an outcome | ended: applied or UNKNOWN; READY again when the entry had no effect |

A key is latched from READY on until its change ended, so that no two changes of one key are under way and the precondition is
tested against what the one before left (SEMANTICS 2.2). A failed precondition is a statement about the present, so it is told
only after the barrier: a leader that was replaced unawares must not state what it does not know. Each batch chains on the one
proposed before it; when an entry has no effect, nothing is cut until all in flight ended, and then from the applied position.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from hosting.tenant.limits import CHANGE_FRAME_OCTETS, DeskLimits
from replica.model.batch import Batch, Change, columns_of, cut_batch
from replica.model.errors import Code, Trouble, require
from replica.model.identifier import key_text
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.position import Position
from replica.model.precondition import Must, Precondition

Held = Callable[[Sequence[bytes]], Sequence[bytes | None]]
Known = Callable[[int, int], Position | None]
NAME_SHOWN_MAX = 200


class Stage(IntEnum):
    """See the table above. A number: its hash is made by C, twice for each move."""

    BEHIND = 1
    READY = 2
    DOUBTED = 3
    IN_FLIGHT = 4
    ENDED = 5


MOVES: dict[Stage, frozenset[Stage]] = {
    Stage.BEHIND: frozenset({Stage.READY, Stage.ENDED}),
    Stage.READY: frozenset({Stage.DOUBTED, Stage.IN_FLIGHT, Stage.ENDED}),
    Stage.DOUBTED: frozenset({Stage.READY, Stage.ENDED}),
    Stage.IN_FLIGHT: frozenset({Stage.READY, Stage.ENDED}),
    Stage.ENDED: frozenset(),
}


@dataclass(slots=True, eq=False)
class Asked:
    """One change somebody asked for. Only the desk changes `stage` and `tries`."""

    change: Change
    need: Precondition
    stage: Stage = Stage.READY
    tries: int = 0
    octets: int = field(init=False)

    def __post_init__(self) -> None:
        self.octets = len(self.change.key) + len(self.change.value) + CHANGE_FRAME_OCTETS


class Verdict(NamedTuple):
    """How a change ended: at `position`, or with a trouble that says whether nothing was done (`definite`)."""

    asked: Asked
    position: Position | None = None
    trouble: Trouble | None = None


@dataclass(slots=True)
class Cut:
    """A batch to propose."""

    number: int
    batch: Batch
    asked: tuple[Asked, ...]
    committed: bool = False
    octets: int = field(init=False)

    def __post_init__(self) -> None:
        self.octets = sum(one.octets for one in self.asked)

    @property
    def needs(self) -> list[Precondition]:
        return [one.need for one in self.asked]


class Desk:
    """See the module."""

    def __init__(self, source: str, limits: DeskLimits | None = None) -> None:
        self._source, self._limits = source, limits or DeskLimits()
        self._ready: deque[Asked] = deque()
        self._ready_octets = 0
        self._behind: dict[bytes, deque[Asked]] = {}  # its keys are the latched ones
        self._doubted: list[Asked] = []
        self._flights: dict[int, Cut] = {}
        self._waiting = self._waiting_octets = 0  # BEHIND, READY and DOUBTED
        self._number = 0
        self._tail: Position | None = None  # end of the newest batch in flight
        self._broken = False  # an entry had no effect: wait until all ended

    # ------------------------------------------------------------------------------------------------- what others read
    @property
    def waiting(self) -> int:
        """Changes taken and not proposed."""
        return self._waiting

    @property
    def in_flight(self) -> int:
        """Entries without an outcome."""
        return len(self._flights)

    @property
    def pending(self) -> int:
        """Changes without an outcome."""
        return self._waiting + sum(len(flight.asked) for flight in self._flights.values())

    @property
    def pending_octets(self) -> int:
        """Of all changes without an outcome, deletes and what only replaces others included."""
        return self._waiting_octets + sum(flight.octets for flight in self._flights.values())

    def latched(self, key: bytes) -> bool:
        """Is a change of this key without an outcome?"""
        return key in self._behind

    @property
    def doubts(self) -> bool:
        """Somebody waits for a read barrier."""
        return bool(self._doubted)

    # ------------------------------------------------------------------------------------------------- taking
    def ask(self, asked: Asked) -> Trouble | None:
        """Take a change. A trouble: it was not taken, and nothing was done."""
        limits, key = self._limits, asked.change.key
        require(asked.octets <= limits.batch_octets_max, "a change fits into a batch: records are limited before")
        if self._waiting >= limits.waiting_max or self._waiting_octets + asked.octets > limits.waiting_octets_max:
            return Trouble(Code.BUSY, f"{self._waiting} changes of {self._source} wait already: again later", retry=True)
        line = self._behind.get(key)
        if line is not None and len(line) >= limits.behind_max:
            return Trouble(Code.BUSY, f"{len(line)} changes of {_name(key)} wait already: again later", retry=True)
        self._waiting += 1
        self._waiting_octets += asked.octets
        if line is None:
            self._behind[key] = deque()
            self._ready.append(asked)
            self._ready_octets += asked.octets
        else:
            asked.stage = Stage.BEHIND
            line.append(asked)
        return None

    def withdraw(self, asked: Asked) -> bool:
        """Take a change back. False: it is proposed, or has ended."""
        if asked.stage is Stage.BEHIND:
            self._behind[asked.change.key].remove(asked)
        elif asked.stage is Stage.READY:
            self._ready.remove(asked)
            self._ready_octets -= asked.octets
        elif asked.stage is Stage.DOUBTED:
            if asked in self._doubted:  # else it waits for the barrier that is under way, and is left out after it
                self._doubted.remove(asked)
        else:
            return False
        behind = asked.stage is Stage.BEHIND
        self._waited(asked)
        self._move(asked, Stage.ENDED)
        if not behind:
            self._unlatch(asked.change.key)
        return True

    # ------------------------------------------------------------------------------------------------- cutting
    def cut(self, position: Position, stated_ms: int, held: Held) -> Cut | None:
        """The next batch, counted as in flight from now on; None: nothing is to be proposed now.

        Args:
            position: the applied one.
            stated_ms: Unix milliseconds.
            held: keys -> applied values.
        """
        while self._may_cut():
            taken = self._take(held)
            if taken:
                changes = [one.change for one in taken]
                batch = cut_batch(self._source, self._tail or position, columns_of(changes), len(changes), stated_ms)
                self._number += 1
                self._tail = batch.after
                for one in taken:
                    self._waited(one)
                    self._move(one, Stage.IN_FLIGHT)
                self._flights[self._number] = Cut(self._number, batch, tuple(taken))
                return self._flights[self._number]
        return None

    def _may_cut(self) -> bool:
        limits = self._limits
        if not self._ready or len(self._flights) >= limits.in_flight_max or (self._broken and self._flights):
            return False
        uncommitted = sum(not flight.committed for flight in self._flights.values())
        if not uncommitted:
            return True
        full = len(self._ready) >= limits.batch_changes_max or self._ready_octets >= limits.batch_octets_max
        return full and uncommitted < limits.uncommitted_max  # what is small shares the next batch

    def _take(self, held: Held) -> list[Asked]:
        """The next ready changes whose preconditions hold, for one batch; the others are doubted."""
        limits, octets, count = self._limits, 0, 0
        for one in self._ready:
            if count == limits.batch_changes_max or octets + one.octets > limits.batch_octets_max:
                break
            count, octets = count + 1, octets + one.octets
        looked = [self._ready[place] for place in range(count)]
        wanted = [one.change.key for one in looked if one.need.must is not Must.NOTHING]
        values = dict(zip(wanted, held(wanted), strict=True)) if wanted else {}  # may raise: nothing has changed so far
        taken = []
        for one in looked:
            self._ready.popleft()
            self._ready_octets -= one.octets
            if one.need.met_by(values.get(one.change.key)):
                taken.append(one)
            else:
                self._move(one, Stage.DOUBTED)
                self._doubted.append(one)
        self._broken = False
        return taken

    # ------------------------------------------------------------------------------------------------- outcomes
    def committed(self, number: int) -> None:
        """An entry is on a majority's disks: the next batch may go."""
        flight = self._flights.get(number)
        if flight is not None:
            flight.committed = True

    def refused(self, number: int, trouble: Trouble) -> list[Verdict]:
        """An entry was not appended: definite for all in it."""
        return self._close(number, trouble)

    def ended(self, number: int, outcome: Outcome, known: Known) -> list[Verdict]:
        """An entry has its outcome; known: the boundary applied at a place."""
        flight = self._flights[number]
        after = flight.batch.after
        kind = outcome.kind
        if kind is OutcomeKind.ALREADY:  # applied before, or without effect before: the chain tells
            there = known(*after.place)
            kind = OutcomeKind.UNKNOWN if there is None else OutcomeKind.APPLIED if there == after else OutcomeKind.CONFLICT
        if kind is OutcomeKind.APPLIED:
            self._flown(number)
            return [self._end(one, Verdict(one, after)) for one in flight.asked]
        if kind is OutcomeKind.UNKNOWN:
            unknown = f"whether it was carried out is not known ({outcome.detail or 'no outcome'}): look, then repeat if need be"
            return self._close(number, Trouble(Code.UNKNOWN, unknown, definite=False, retry=False))
        self._flown(number)
        self._broken = True
        again = [one for one in flight.asked if one.tries + 1 < self._limits.tries_max]
        spent = Trouble(Code.BUSY, f"not carried out: {outcome.kind}: {outcome.detail[:NAME_SHOWN_MAX]}", retry=True)
        ended = [self._end(one, Verdict(one, None, spent)) for one in flight.asked if one.tries + 1 >= self._limits.tries_max]
        for one in reversed(again):
            one.tries += 1
            self._wait_again(one)
        return ended

    def _close(self, number: int, trouble: Trouble) -> list[Verdict]:
        """All of an entry end with one trouble."""
        flight = self._flights[number]
        self._flown(number)
        self._broken = True
        return [self._end(one, Verdict(one, None, trouble)) for one in flight.asked]

    def _flown(self, number: int) -> None:
        del self._flights[number]
        if not self._flights:
            self._tail = None

    # ------------------------------------------------------------------------------------------------- doubts
    def take_doubts(self) -> list[Asked]:
        """Those who wait for a read barrier; call before it begins."""
        taken, self._doubted = self._doubted, []
        return taken

    def settle(self, doubts: Sequence[Asked], held: Held) -> list[Verdict]:
        """The barrier passed: look again."""
        doubts = [one for one in doubts if one.stage is Stage.DOUBTED]  # others were withdrawn
        values = held([one.change.key for one in doubts])
        failed = []
        for one, value in zip(doubts, values, strict=True):
            if one.need.met_by(value):
                self._move(one, Stage.READY)
                self._ready.appendleft(one)
                self._ready_octets += one.octets
            else:
                self._waited(one)
                trouble = Trouble(Code.CONFLICT, f"{_name(one.change.key)}: {one.need} was expected there; nothing was changed")
                failed.append(self._end(one, Verdict(one, None, trouble)))
        return failed

    def drain(self, trouble: Trouble, doubts: Sequence[Asked] = ()) -> list[Verdict]:
        """All that is not proposed ends with this trouble, those taken by `take_doubts` too; what is in flight has its outcome to
        come."""
        lines = [one for line in self._behind.values() for one in line]
        asked = [*self._ready, *self._doubted, *(one for one in doubts if one.stage is Stage.DOUBTED), *lines]
        self._ready.clear()
        self._doubted.clear()
        self._ready_octets = 0
        for line in self._behind.values():
            line.clear()
        verdicts = []
        for one in asked:
            latches = one.stage is not Stage.BEHIND
            self._waited(one)
            self._move(one, Stage.ENDED)
            if latches:
                self._unlatch(one.change.key)
            verdicts.append(Verdict(one, None, trouble))
        return verdicts

    # ------------------------------------------------------------------------------------------------- bookkeeping
    def _end(self, asked: Asked, verdict: Verdict) -> Verdict:
        self._move(asked, Stage.ENDED)
        self._unlatch(asked.change.key)
        return verdict

    def _unlatch(self, key: bytes) -> None:
        """The next change of this key has its turn."""
        line = self._behind[key]
        if not line:
            del self._behind[key]
            return
        following = line.popleft()
        self._move(following, Stage.READY)
        self._ready.append(following)
        self._ready_octets += following.octets

    def _wait_again(self, asked: Asked) -> None:
        self._move(asked, Stage.READY)
        self._waiting += 1
        self._waiting_octets += asked.octets
        self._ready.appendleft(asked)
        self._ready_octets += asked.octets

    def _waited(self, asked: Asked) -> None:
        self._waiting -= 1
        self._waiting_octets -= asked.octets

    @staticmethod
    def _move(asked: Asked, stage: Stage) -> None:
        if stage not in MOVES[asked.stage]:
            require(False, f"a change cannot move from {asked.stage.name} to {stage.name}")
        asked.stage = stage


def _name(key: bytes) -> str:
    return key_text(key)[:NAME_SHOWN_MAX]
