"""One call for all questions of a tick; limits, pauses and failures of the port."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from hosting.answer.port import Found, MemoryAnswerPort, Wants
from hosting.answer.question import Answer, Question
from hosting.front.batcher import Batcher
from hosting.front.pause import AFTERMATH_MS, PAUSE_MS_MAX, PauseWatch
from replica.model.catalog import Owner
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.identifier import PrefixTree, prefix_key
from replica.model.states import Mode
from tests.unit.front.world import CATALOG, NAME, world

MS = 1_000_000


class Inbox:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.answers: list[tuple[Any, Question, Answer]] = []
        self.finishes = 0

    def answered(self, context: Any, question: Question, answer: Answer) -> None:
        self.answers.append((context, question, answer))

    def finish(self) -> None:
        self.finishes += 1

    @property
    def codes(self) -> dict[Any, int]:
        return {context: int(answer.code) for context, _, answer in self.answers}


class SlowPort:
    """A port whose reads end when the test says so."""

    def __init__(self) -> None:
        self.inner = world()
        self.gates: list[asyncio.Event] = []
        self.wants: list[dict[str, list[bytes]]] = []

    def catalog(self) -> Any:
        return self.inner.catalog()

    async def get_many(self, wants: Wants) -> Found:
        gate = asyncio.Event()
        self.gates.append(gate)
        self.wants.append({source: list(keys) for source, keys in wants.items()})
        await gate.wait()
        return await self.inner.get_many(wants)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_call_for_all_sources_and_sinks_of_a_tick() -> None:
    port, one, other = world(), Inbox(), Inbox()
    batcher = Batcher(port)
    assert batcher.ask(one, 1, Question(NAME))
    assert batcher.ask(other, 2, Question(b"88.118.8/none"))
    assert batcher.ask(one, 3, Question(b"88.119.8/x"))
    assert batcher.ask(one, 4, Question(b"88.121/a"))
    assert batcher.ask(one, 5, Question(b"86.5/x"))
    await settle()
    assert len(port.calls) == 1
    assert (one.codes, other.codes) == ({1: 1, 3: 302, 4: 2, 5: 301}, {2: 100})
    assert other.finishes == 1
    assert batcher.counters.by_code == {1: 1, 100: 1, 302: 1, 2: 1, 301: 1}


async def test_two_calls_are_under_way_and_the_rest_makes_the_next_batch() -> None:
    port, inbox = SlowPort(), Inbox()
    batcher = Batcher(port)
    for number in range(5):
        batcher.ask(inbox, number, Question(NAME))
        await settle()
    assert len(port.gates) == 2
    port.gates[0].set()
    await settle()
    assert len(port.gates) == 3 and len(port.wants[2]["gd"]) == 3
    for gate in port.gates:
        gate.set()
    await settle()
    assert sorted(inbox.codes) == [0, 1, 2, 3, 4]


async def test_too_many_waiting_are_refused_and_room_comes_back() -> None:
    port, inbox = SlowPort(), Inbox()
    batcher = Batcher(port, waiting_max=3)
    assert [batcher.ask(inbox, number, Question(NAME)) for number in range(5)] == [True] * 3 + [False] * 2
    await settle()
    port.gates[0].set()
    await settle()
    assert batcher.ask(inbox, 9, Question(NAME))
    assert batcher.counters.overflowed == 2


async def test_a_failed_read_answers_2_to_all_of_it_and_the_next_one_works() -> None:
    port, inbox = world(), Inbox()
    batcher = Batcher(port)
    port.views.clear()  # the source is not held here
    batcher.ask(inbox, 1, Question(NAME))
    await settle()
    port.views = world().views
    batcher.ask(inbox, 2, Question(NAME))
    await settle()
    assert inbox.codes == {1: 2, 2: 1}


async def test_a_port_that_cannot_be_asked_answers_2_and_recovers() -> None:
    port, inbox = world(), Inbox()
    batcher = Batcher(port)
    port.trouble = Trouble(Code.UNREACHABLE, "the owner is away")
    for number, name in enumerate((NAME, b"86.5/x", b"0.NA/88.118", b"88..1/x")):
        assert batcher.ask(inbox, number, Question(name))
    await settle()
    assert set(inbox.codes.values()) == {2}  # 301 and 102 too: nothing is final while the catalog is not vouched for
    assert b"the owner is away" in inbox.answers[0][2].octets
    port.trouble = None
    batcher.ask(inbox, 9, Question(NAME))
    await settle()
    assert inbox.codes[9] == 1


async def test_a_read_that_fails_under_way_answers_2() -> None:
    class Failing(MemoryAnswerPort):
        async def get_many(self, wants: Wants) -> Found:
            raise ZaibeiError(Code.DAMAGED, "store out of service")

    inner, inbox = world(), Inbox()
    batcher = Batcher(Failing(inner.held, inner.views, inner.records))
    batcher.ask(inbox, 1, Question(NAME))
    batcher.ask(inbox, 2, Question(b"88.119.8/x"))
    await settle()
    assert inbox.codes == {1: 2, 2: 2} and batcher.counters.failed_reads == 1
    assert b"store out of service" in inbox.answers[0][2].octets


async def test_a_new_catalog_is_used_from_the_next_tick_on() -> None:
    port, inbox = world(), Inbox()
    batcher = Batcher(port)
    batcher.ask(inbox, 1, Question(NAME))
    await settle()
    port.held = replace(CATALOG, version=2, owners=PrefixTree({prefix_key("88.119"): Owner("gx", Mode.RECORDS)}))
    batcher.ask(inbox, 2, Question(NAME))
    await settle()
    assert inbox.codes == {1: 1, 2: 301}


async def test_requests_that_may_have_waited_over_a_pause_are_refused() -> None:
    now = [0]
    watch = PauseWatch(lambda: now[0])
    port, inbox = world(), Inbox()
    batcher = Batcher(port, watch.paused)
    now[0] += PAUSE_MS_MAX * MS
    assert batcher.ask(inbox, 1, Question(NAME))
    await settle()
    now[0] += PAUSE_MS_MAX * MS + 1
    watch.tick()  # timers run before sockets are read: the pause must not be forgotten
    assert not batcher.ask(inbox, 2, Question(NAME))
    now[0] += AFTERMATH_MS * MS - 1
    assert not batcher.ask(inbox, 3, Question(NAME))
    now[0] += 1
    assert batcher.ask(inbox, 4, Question(NAME))
    await settle()
    assert inbox.codes == {1: 1, 4: 1}
    assert (batcher.counters.paused, watch.pauses) == (2, 1)


async def test_hostile_prefixes_do_not_pile_up() -> None:
    port, inbox = world(), Inbox()
    batcher = Batcher(port)
    for number in range(10_000):
        batcher.ask(inbox, number, Question(b"88.118.%d/x" % number))
        if number % 500 == 0:
            await settle()
    await settle()
    assert len(inbox.answers) == 10_000
    assert len(batcher._heads._by_prefix) <= 4_096
