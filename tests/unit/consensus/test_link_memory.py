"""The memory twin's own: cuts, healing, delay, and a cut that nobody noticed yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.consensus.link_world import World, until, wire


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World("memory", tmp_path)
    yield world
    await world.stop()


async def test_a_cut_loses_both_and_what_was_on_its_way_and_healing_joins_them_again(world: World) -> None:
    one, two = await world.pair()
    world.hub.delay_s = 0.02
    one.links.send(2, wire(index=1))
    await asyncio.sleep(0.01)
    world.hub.cut(1, 2)
    await until(lambda: "lost 2" in one.heard.story and "lost 1" in two.heard.story)
    assert not one.links.send(2, wire(index=2))
    await asyncio.sleep(0.05)
    assert two.heard.turns == []
    world.hub.heal(1, 2)
    await until(lambda: one.links.connected == {2} and two.links.connected == {1})
    one.links.send(2, wire(index=3))
    await until(lambda: two.heard.turns)
    assert [message.index for message in two.heard.messages] == [3]


async def test_a_cut_may_stay_unnoticed_for_a_while(world: World) -> None:
    one, two = await world.pair()
    world.hub.lost_after_s = 0.05
    world.hub.cut(1, 2)
    assert one.links.connected == {2} and one.links.send(2, wire())
    world.hub.heal(1, 2)  # before anybody noticed: the old call is dead all the same
    await until(lambda: one.heard.story == ["connected 2", "lost 2", "connected 2"])
    assert two.heard.turns == []


async def test_a_delayed_stream_keeps_its_order(world: World) -> None:
    one, two = await world.pair()
    for index in range(1, 31):
        world.hub.delay_s = 0.01
        one.links.send(2, wire(index=index))
        if not index % 5:
            await asyncio.sleep(0.001)
    await until(lambda: len(two.heard.messages) == 30)
    assert [message.index for message in two.heard.messages] == list(range(1, 31))


async def test_of_three_one_is_cut_off(world: World) -> None:
    nodes = [await world.add(number) for number in (1, 2, 3)]
    await world.join(*nodes)
    world.hub.cut_off(3)
    await until(lambda: nodes[2].links.connected == frozenset())
    assert nodes[0].links.connected == {2} and nodes[1].links.connected == {1}
    world.hub.heal_all()
    await until(lambda: all(len(node.links.connected) == 2 for node in nodes))
