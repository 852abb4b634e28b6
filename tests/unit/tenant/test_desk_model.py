"""The desk against a model: whatever order of events, each change ends once, and what it was told is what happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hosting.tenant.desk import Asked, Cut, Desk, Stage, Verdict
from hosting.tenant.limits import DeskLimits
from hosting.tenant.memory import MemoryContent
from replica.model.batch import OP_DELETE, OP_PUT, Change, columns_of, cut_batch
from replica.model.errors import Code, Trouble
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.position import ORIGIN, epoch_start
from replica.model.precondition import ABSENT, NOTHING, PRESENT, equal_to
from replica.v1 import entry_pb2
from tests.unit.store.support import key, value

SOURCE = "88.118.8"
LIMITS = DeskLimits(
    waiting_max=12, waiting_octets_max=4_000, behind_max=3, batch_changes_max=3, batch_octets_max=400, uncommitted_max=2,
    in_flight_max=3, tries_max=3,
)  # fmt: skip
VALUES = (value("a"), value("b"))
NEEDS = (NOTHING, NOTHING, ABSENT, PRESENT, equal_to(VALUES[0]), equal_to(VALUES[1]))


def entry_of(cut: Cut) -> entry_pb2.Entry:
    body = entry_pb2.Registration(
        batch=cut.batch.raw, follows=cut.batch.before.to_wire(), preconditions=[need.to_wire() for need in cut.needs]
    )
    return entry_pb2.Entry(registration=body)


class DeskMachine(RuleBasedStateMachine):
    """A desk, a log whose entries the rules commit, apply or lose, and a store that says what happened."""

    desk_class: type[Desk] = Desk

    def __init__(self) -> None:
        super().__init__()
        self.content = MemoryContent(epoch_start(ORIGIN, b"L" * 16, 1))
        self.desk = self.desk_class(SOURCE, LIMITS)
        self.log: list[Cut] = []
        self.asked: list[Asked] = []
        self.ended: dict[Asked, Verdict] = {}
        self.effects: dict[Asked, int] = {}
        self.lost: set[Asked] = set()  # in entries whose outcome was not known
        self.order: dict[bytes, list[Asked]] = {}  # of a key, as asked
        self.done_order: dict[bytes, list[Asked]] = {}
        self.taken: list[Asked] = []

    def held(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.content.records.get(one) for one in keys]

    def tell(self, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            assert verdict.asked not in self.ended, "an outcome comes once"
            assert (verdict.position is None) is (verdict.trouble is not None)
            self.ended[verdict.asked] = verdict
            trouble = verdict.trouble
            if trouble is not None and trouble.definite:
                assert not self.effects.get(verdict.asked), f"told {trouble.code}, but it was carried out"
            if verdict.position is not None:
                assert self.effects.get(verdict.asked) == 1, "told it was carried out"
            if trouble is not None and trouble.code is Code.CONFLICT:
                need = verdict.asked.need
                assert not need.met_by(self.content.records.get(verdict.asked.change.key)), "a conflict that is none"

    @rule(number=st.integers(0, 3), act=st.sampled_from(["a", "b", "delete"]), need=st.sampled_from(range(len(NEEDS))))
    def ask(self, number: int, act: str, need: int) -> None:
        change = Change(OP_DELETE, key(number)) if act == "delete" else Change(OP_PUT, key(number), VALUES["ab".index(act)])
        one = Asked(change, NEEDS[need])
        trouble = self.desk.ask(one)
        if trouble is not None:
            assert trouble.code is Code.BUSY and trouble.definite and trouble.retry
            return
        self.asked.append(one)
        self.order.setdefault(change.key, []).append(one)

    @rule()
    def cut(self) -> None:
        while (made := self.desk.cut(self.content.position, 0, self.held)) is not None:
            assert 1 <= len(made.asked) <= LIMITS.batch_changes_max
            assert len(made.batch.columns) <= LIMITS.batch_octets_max
            newest = self.log[-1].batch.after if self.log else self.content.position
            assert made.batch.before == newest, "each batch chains on the one before it"
            flying = [one.change.key for flight in [*self.log, made] for one in flight.asked]
            assert len(flying) == len(set(flying)), "one change of a key under way"
            self.log.append(made)

    @precondition(lambda self: self.log)
    @rule(place=st.integers(0, 5))
    def commit(self, place: int) -> None:
        self.desk.committed(self.log[min(place, len(self.log) - 1)].number)

    def _apply(self, first: Cut) -> Outcome:
        before = dict(self.content.records)
        outcome = self.content.apply(entry_of(first))
        if outcome.kind is OutcomeKind.APPLIED:
            for one in first.asked:
                assert one.need.met_by(before.get(one.change.key))
                self.effects[one] = self.effects.get(one, 0) + 1
        return outcome

    @precondition(lambda self: self.log)
    @rule(again=st.booleans())
    def apply(self, again: bool) -> None:
        first = self.log.pop(0)
        outcome = self._apply(first)
        if again:  # the same entry, met once more: by its place
            outcome = Outcome(OutcomeKind.ALREADY, self.content.position, "entry applied before")
        self.tell(self.desk.ended(first.number, outcome, lambda epoch, seq: self.content.boundaries.get((epoch, seq))))

    @precondition(lambda self: self.log)
    @rule(happened=st.booleans())
    def unknown(self, happened: bool) -> None:
        first = self.log.pop(0)
        if happened:
            self._apply(first)
        self.lost.update(first.asked)
        outcome = Outcome(OutcomeKind.UNKNOWN, None, "stepped down")
        self.tell(self.desk.ended(first.number, outcome, lambda _epoch, _seq: None))
        for one in first.asked:
            verdict = self.ended[one]
            assert verdict.trouble is not None and not verdict.trouble.definite, "an unknown outcome is never called failed"

    @precondition(lambda self: self.log)
    @rule()
    def not_appended(self) -> None:
        last = self.log.pop()
        self.tell(self.desk.refused(last.number, Trouble(Code.BUSY, "full", retry=True)))

    @rule(number=st.integers(0, 3), delete=st.booleans())
    def somebody_else(self, number: int, delete: bool) -> None:
        """An entry of an earlier leader comes first: what is in flight does not follow any more."""
        change = Change(OP_DELETE, key(number)) if delete else Change(OP_PUT, key(number), value("else"))
        mark = Change(OP_PUT, key(9), value("else"))  # nobody asks for it: else it might be the very batch that is in flight
        batch = cut_batch(SOURCE, self.content.position, columns_of([change, mark]), 2, 1)
        self.content.apply(entry_of(Cut(0, batch, (Asked(change, NOTHING), Asked(mark, NOTHING)))))

    @rule()
    def doubts(self) -> None:
        self.taken += self.desk.take_doubts()

    @rule(passed=st.booleans())
    def settle(self, passed: bool) -> None:
        taken, self.taken = self.taken, []
        if passed:
            self.tell(self.desk.settle(taken, self.held))
        else:
            self.tell(self.desk.drain(Trouble(Code.NOT_LEADER, "elsewhere", retry=True), taken))
            assert self.desk.waiting == 0

    @precondition(lambda self: self.asked)
    @rule(place=st.integers(0, 30))
    def withdraw(self, place: int) -> None:
        one = self.asked[place % len(self.asked)]
        if self.desk.withdraw(one):
            assert one not in self.ended and not self.effects.get(one)
            self.ended[one] = Verdict(one, None, Trouble(Code.BUSY, "taken back"))

    @invariant()
    def nothing_is_carried_out_twice(self) -> None:
        assert all(count == 1 for count in self.effects.values())

    @invariant()
    def counts_are_right(self) -> None:
        open_ = [one for one in self.asked if one not in self.ended]
        flying = sum(len(cut.asked) for cut in self.log)
        assert self.desk.waiting == len(open_) - flying
        assert self.desk.in_flight == len(self.log)
        assert all(one.stage is not Stage.ENDED for one in open_)

    def teardown(self) -> None:
        """Everything ends when the log goes on."""
        for _ in range(200):
            self.taken += self.desk.take_doubts()
            self.settle(passed=True)
            self.cut()
            if not self.log:
                if not self.desk.doubts:
                    break
                continue
            self.commit(0)
            self.apply(again=False)
        assert all(one in self.ended for one in self.asked), "a change without an end"


DeskMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60)
TestDesk = DeskMachine.TestCase


class Trusting(Desk):
    """Takes "applied before" for carried out: an entry without effect was applied too."""

    def ended(self, number: int, outcome: Outcome, known: object) -> list[Verdict]:
        if outcome.kind is OutcomeKind.ALREADY:
            outcome = Outcome(OutcomeKind.APPLIED, outcome.position)
        return super().ended(number, outcome, known)  # type: ignore[arg-type]


class Loose(Desk):
    """Latches nothing."""

    def _unlatch(self, key: bytes) -> None:
        self._behind.pop(key, None)

    def ask(self, asked: Asked) -> Trouble | None:
        self._behind.pop(asked.change.key, None)
        return super().ask(asked)


class Optimist(Desk):
    """Calls an unknown outcome failed."""

    def ended(self, number: int, outcome: Outcome, known: object) -> list[Verdict]:
        if outcome.kind is OutcomeKind.UNKNOWN:
            return self._close(number, Trouble(Code.BUSY, "failed", retry=True))
        return super().ended(number, outcome, known)  # type: ignore[arg-type]


class Stubborn(Desk):
    """Goes on chaining behind an entry that had no effect."""

    def _flown(self, number: int) -> None:
        del self._flights[number]


def trusting(machine: DeskMachine) -> None:
    machine.ask(0, "a", 0)
    machine.cut()
    machine.somebody_else(1, delete=False)
    machine.apply(again=True)


def loose(machine: DeskMachine) -> None:
    machine.ask(0, "a", 0)
    machine.ask(0, "b", 0)
    machine.cut()


def optimist(machine: DeskMachine) -> None:
    machine.ask(0, "a", 0)
    machine.cut()
    machine.unknown(happened=True)


def stubborn(machine: DeskMachine) -> None:
    machine.ask(0, "a", 0)
    machine.cut()
    machine.somebody_else(1, delete=False)
    machine.apply(again=False)
    machine.cut()


@pytest.mark.parametrize(
    ("wrong", "schedule"), [(Trusting, trusting), (Loose, loose), (Optimist, optimist), (Stubborn, stubborn)]
)
def test_the_model_sees_a_desk_that_lacks_a_rule(wrong: type[Desk], schedule: Callable[[DeskMachine], None]) -> None:
    right = DeskMachine()
    schedule(right)
    right.teardown()
    planted = type(f"Machine{wrong.__name__}", (DeskMachine,), {"desk_class": wrong})()
    with pytest.raises(AssertionError):
        schedule(planted)
        planted.teardown()
