"""What drills of switchovers, snapshots and incidents stand on: the registrar's pauses, the gate, a watch that sees nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from chaos.drills.abort import Glimpse, Watch
from chaos.drills.outside import NS_PER_MS
from chaos.standin.gate import Gate, Overtaken
from ops.drills import planted
from ops.drills.registering_stage import RegisteringStage
from ops.drills.registrar import HERE, LATE_MS_MAX, NODE, Registrar
from replica.takeover.switchover import Close, Drain, Draining
from tests.unit.takeover.test_switchover import draining

WHOLE_S_MAX = 30.0


def registrar(*at_ms: int) -> Registrar:
    told = [(ms * NS_PER_MS, f"88.1/{ms}", NODE if ms < 500 else HERE) for ms in at_ms]
    return Registrar(cast(RegisteringStage, None), "a", told)


def test_a_pause_is_the_longest_time_between_two_acknowledgements_about_the_moment() -> None:
    one = registrar(0, 400, 420, 600, 620, 2_000)
    assert one.pause_ms(410 * NS_PER_MS, 650 * NS_PER_MS) == 1_380, "it had begun when the moment was over"
    assert one.pause_ms(410 * NS_PER_MS, 615 * NS_PER_MS) == 180
    assert (one.count(NODE), one.count(HERE)) == (3, 3)
    assert one.texts()["88.1/600"] == HERE


def test_a_registrar_that_was_late_itself_says_nothing_of_a_pause() -> None:
    assert registrar().pause_ms(0, NS_PER_MS) is None
    one = registrar(0, 300, 310)
    one.lates = [(200 * NS_PER_MS, LATE_MS_MAX + 1.0)]
    assert one.pause_ms(0, 310 * NS_PER_MS) is None
    one.lates = [(305 * NS_PER_MS, LATE_MS_MAX + 1.0)]
    assert one.pause_ms(0, 310 * NS_PER_MS) == 300


async def test_a_gate_holds_a_snapshot_before_its_piece_and_what_it_held_ends_with_its_reader() -> None:
    ended = list[bool]()

    async def parts(_: object) -> AsyncIterator[int]:
        try:
            for piece in range(3):
                yield piece
        finally:
            ended.append(True)

    gate, got = Gate(1), list[int]()

    async def read() -> None:
        async for piece in gate.over(parts)(None):
            got.append(piece)

    async def held(begun: int) -> None:
        async with asyncio.timeout(WHOLE_S_MAX):
            while not gate.held or gate.begun != begun:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    reader = asyncio.create_task(read())
    await held(1)
    assert (got, gate.look()["passed"]) == ([0], 1)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert (ended, gate.held, gate.whole) == ([True], False, 0), "a node that is cut off is free for the next one"
    gate.at = 2
    left = asyncio.create_task(read())  # of a call that was cut off, and does not end by itself
    await held(2)
    reader = asyncio.create_task(read())
    await held(3)
    gate.at = None
    async with asyncio.timeout(WHOLE_S_MAX):
        await reader
        assert isinstance((await asyncio.gather(left, return_exceptions=True))[0], Overtaken)
    assert (got, gate.whole, gate.begun) == ([0, 0, 1, 0, 1, 2], 1, 3)


@pytest.fixture
def plants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bugs are taken out again."""
    monkeypatch.setattr(planted, "plant", monkeypatch.setattr)


@pytest.mark.usefixtures("plants")
def test_a_planted_watch_goes_on_through_a_real_incident() -> None:
    incident = Glimpse(("node-a is RESOLUTION",))

    def reason() -> str:
        watch = Watch(0, 1)
        watch.saw(incident, 50 * NS_PER_MS)
        return watch.tick(100 * NS_PER_MS)

    assert "a real incident" in reason()
    planted.incident_unseen()
    assert reason() == ""


@pytest.mark.usefixtures("plants")
def test_a_planted_switchover_closes_without_a_word_of_the_source() -> None:
    state = draining().state
    now_ms = state.ladder.since_ms
    assert isinstance(Draining(state.ladder.act, 0).next(state, None, 0, now_ms), Drain)
    planted.drain_unasked()
    assert isinstance(Draining(state.ladder.act, 0).next(state, None, 0, now_ms), Close)
