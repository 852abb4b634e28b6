"""The guard in a planned switchover: what ends the writing, in which order, and what alone lets it go on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence

import pytest

from replica.client.guard import Guard, LeaseLost, LeaseRow
from replica.feed.source_port import WriteAsk
from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN
from tests.unit.client.test_guard import TIMES, Row, S, until

END = ContentDigest(ORIGIN, 7, 7)


class Log:
    """What is sealed; `hook` runs inside."""

    def __init__(self, steps: list[str]) -> None:
        self.steps, self.sealed = steps, False
        self.hook: Callable[[], None] = lambda: None

    def seal(self) -> ContentDigest:
        self.hook()
        self.sealed = True
        self.steps.append("sealed")
        return END

    def unseal(self) -> None:
        self.sealed = False


class World:
    """A guard with a lease, a clock turned by hand, and what happens in which order."""

    def __init__(self, rows: Sequence[LeaseRow] = (), last: Callable[[], None] = lambda: None) -> None:
        self.now_ns, self.steps = 1_000 * S, list[str]()
        self.log, self.last = Log(self.steps), last
        self.guard = Guard(
            lambda: 1,
            TIMES,
            rows=rows,
            on_alarm=lambda _: None,
            history=self.log,
            on_drain=self._flush,
            clock=lambda: self.now_ns,
        )
        self.give(self.ask(0))
        assert self.guard.valid

    def _flush(self) -> None:
        assert not self.guard.valid, "nothing is acknowledged any more"
        self.steps.append("last words")
        self.last()

    def ask(self, after: int) -> WriteAsk:
        until(lambda: (self.guard.wanted() or WriteAsk(0, 0, 0)).number > after)
        found = self.guard.wanted()
        assert found is not None
        return found

    def give(self, ask: WriteAsk) -> None:
        self.guard.given(ask.number, ask.epoch, ask.duration_ms)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.guard.close()


def test_it_acknowledges_nothing_more_then_flushes_then_ends_the_log(world: World) -> None:
    assert world.guard.drain() == END
    assert world.steps == ["last words", "sealed"] and world.log.sealed
    with pytest.raises(LeaseLost, match="being switched over"):
        world.guard.check()
    assert world.guard.drain() == END, "asked again, it says the same"


def test_an_answer_to_what_was_asked_before_does_not_let_it_go_on(world: World) -> None:
    older = world.ask(0)
    world.now_ns += 6 * S
    newer = world.ask(older.number)
    world.guard.drain()
    for ask in (older, newer):
        world.give(ask)
        assert not world.guard.valid and world.log.sealed


def test_a_lease_that_was_asked_for_afterwards_does(world: World) -> None:
    before = world.ask(0)
    world.guard.drain()
    world.now_ns += S  # long before the next renewal is due
    ask = world.ask(before.number)
    world.guard.denied(ask.number, "no lease is given while the ladder stands at DRAINING")
    assert not world.guard.valid
    world.now_ns += S
    world.give(world.ask(ask.number))
    assert world.guard.valid and not world.log.sealed


def test_after_a_while_it_asks_no_oftener_than_ever(world: World) -> None:
    number = world.ask(0).number
    world.guard.drain()
    world.now_ns += 11 * S
    number = world.ask(number).number
    world.now_ns += S
    with pytest.raises(AssertionError, match="did not happen"):
        until(lambda: world.ask(0).number > number, 0.3)


def test_rows_end_with_it_and_a_renewal_on_its_way_does_not_come_after() -> None:
    row = Row()
    world = World([row])
    until(lambda: ("renewed", 507, 30_000) in row.calls)
    world.guard.drain()
    assert row.calls[-1] == ("cleared", 0, 0)
    world.now_ns += S
    world.ask(1)
    assert row.calls[-1] == ("cleared", 0, 0), "a question alone writes nothing"
    world.guard.close()


def test_a_row_that_cannot_be_ended_is_a_refusal_and_it_goes_on() -> None:
    class Stuck(Row):
        gone = False

        def cleared(self) -> None:
            if self.gone:
                raise sqlite3.OperationalError("database is locked")
            super().cleared()

    row = Stuck()
    world = World([row])
    row.gone = True
    with pytest.raises(ZaibeiError, match="database is locked") as refused:
        world.guard.drain()
    assert refused.value.code is Code.REFUSED and not world.log.sealed and "sealed" not in world.steps
    row.gone = False
    world.now_ns += S
    world.give(world.ask(1))
    assert world.guard.valid
    world.guard.close()


def test_last_words_that_fail_are_a_refusal() -> None:
    def broken() -> None:
        raise OSError("the outbox cannot be read")

    world = World(last=broken)
    with pytest.raises(ZaibeiError, match="outbox"):
        world.guard.drain()
    assert not world.log.sealed
    world.guard.close()


def test_a_lease_that_comes_while_the_log_is_being_ended_wins(world: World) -> None:
    before = world.ask(0)

    def meanwhile() -> None:
        world.now_ns += S
        world.give(world.ask(before.number))

    world.log.hook = meanwhile
    with pytest.raises(ZaibeiError, match="given meanwhile"):
        world.guard.drain()
    assert world.guard.valid and not world.log.sealed


def test_a_guard_without_a_log_and_a_closed_one_end_nothing(world: World) -> None:
    bare = Guard(lambda: 1, TIMES)
    with pytest.raises(ZaibeiError, match="seals no log"):
        bare.drain()
    bare.close()
    world.guard.close()
    with pytest.raises(ZaibeiError, match="closed"):
        world.guard.drain()
