"""A link over a line of 1 Mbit/s: what a member catches up with does not hold up what other groups have to say to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chaos.faults.edge_stream_proxy import StreamProxy, Way
from chaos.faults.rules import StreamRule
from replica.consensus.link_frames import Outbox
from replica.consensus.link_pace import Pace
from replica.consensus.link_port import LinkLimits, Place
from tests.unit.consensus.link_world import Node, Wire, World, until, wire

NARROW = StreamRule(octets_per_s=125_000)
BULK, LIVE = 1, 2  # groups
PART_OCTETS, PARTS = 63 * 1024, 10  # as large as an APPEND: half a second each
LIVE_EVERY_S, LIVE_COUNT = 0.1, 30
WAIT_S_MAX = 2.0  # two such messages on the way make 1 s


def part(number: int) -> Wire:
    message = wire(BULK, Wire.KIND_APPEND, index=number + 1, term=1, log_term=1)
    message.terms.append(1)
    message.entries.append(bytes(PART_OCTETS))
    return message


@asynccontextmanager
async def narrow(folder: Path) -> AsyncIterator[tuple[Node, Node]]:
    """Member 1 calls member 2 over a narrow line; what member 2 says comes over a wide one."""
    world = World("grpc", folder, LinkLimits())
    one, two = await world.add(1), await world.add(2)
    host, port = two.place.addresses[0].rsplit(":", 1)
    proxy = await StreamProxy([("127.0.0.1", 0)], [(host, int(port))]).start()
    try:
        one.links.start()
        two.links.start()
        two.links.set_places({1: one.place})
        one.links.set_places({2: Place((f"127.0.0.1:{proxy.addresses[0][1]}",))})
        await until(lambda: one.links.connected == {2} and two.links.connected == {1})
        proxy.set(Way.FORTH, NARROW)
        yield one, two
    finally:
        await world.stop()
        await proxy.stop()


async def waits_s(folder: Path) -> tuple[list[float], list[str]]:
    """How long each live message was on its way while the other group caught up; and what happened to the link."""
    async with narrow(folder) as (one, two):
        sent_s, took_s, came = dict[int, float](), dict[int, float](), [0]

        def heard(_member: int, messages: Sequence[Wire]) -> None:
            for message in messages:
                if message.group == LIVE:
                    took_s[message.index] = time.monotonic() - sent_s[message.index]
                else:
                    came[0] += 1

        two.heard.on_received = heard
        for number in range(PARTS):
            assert one.links.send(2, part(number))
        for number in range(1, LIVE_COUNT + 1):
            sent_s[number] = time.monotonic()
            assert one.links.send(2, wire(group=LIVE, index=number))
            await asyncio.sleep(LIVE_EVERY_S)
        await until(lambda: came[0] == PARTS and len(took_s) == LIVE_COUNT)
        return list(took_s.values()), one.heard.story


async def test_what_other_groups_say_does_not_wait_for_a_group_that_catches_up(tmp_path: Path) -> None:
    took_s, story = await waits_s(tmp_path)
    assert max(took_s) < WAIT_S_MAX, took_s
    assert "lost 2" not in story, "a narrow line is no dead member"


async def test_unpaced_it_waits_behind_all_that_is_in_the_buffers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "room", lambda *_: 1 << 20)
    took_s, _ = await waits_s(tmp_path)
    assert max(took_s) > WAIT_S_MAX, took_s


async def test_in_the_order_of_coming_it_waits_behind_all_that_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Outbox.put
    monkeypatch.setattr(Outbox, "put", lambda outbox, message, _group=0: put(outbox, message))
    took_s, _ = await waits_s(tmp_path)
    assert max(took_s) > WAIT_S_MAX, took_s
