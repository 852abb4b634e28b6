"""One contract, two implementations: links over loopback gRPC, and their memory twin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from replica.consensus.link_port import Place
from replica.model.errors import InvariantBroken
from replica.v1 import peer_pb2
from tests.unit.consensus.link_world import QUICK, Wire, World, until, wire


@pytest.fixture(params=["memory", "grpc"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    world = World(request.param, tmp_path)
    yield world
    await world.stop()


async def test_hello_goes_both_ways_before_anything_else(world: World) -> None:
    one, two = await world.pair()
    assert one.heard.hellos[2][0] == two.hello and two.heard.hellos[1][0] == one.hello
    assert one.links.send(2, wire(term=3))
    await until(lambda: two.heard.turns)
    assert two.heard.story == ["connected 1", "received 1"]
    assert one.links.trouble(2) == "" and one.links.failure is None


async def test_messages_of_one_turn_arrive_together_and_in_order(world: World) -> None:
    one, two = await world.pair()
    for index in range(1, 101):
        assert one.links.send(2, wire(index=index))
    await until(lambda: len(two.heard.messages) == 100)
    assert [message.index for message in two.heard.messages] == list(range(1, 101))
    assert len(two.heard.turns) == 1


async def test_a_message_may_be_changed_after_it_was_sent(world: World) -> None:
    one, two = await world.pair()
    message = wire(index=1)
    one.links.send(2, message)
    message.index = 99
    await until(lambda: two.heard.turns)
    assert two.heard.messages[0].index == 1


async def test_large_turns_are_split(world: World) -> None:
    one, two = await world.pair()
    block = b"x" * 25_000
    for index in range(6):
        one.links.send(2, Wire(group=7, kind=Wire.KIND_APPEND, term=1, index=index, terms=[1], entries=[block]))
    await until(lambda: len(two.heard.messages) == 6)
    assert max(len(turn) for turn in two.heard.turns) == 2
    assert two.heard.messages[5].entries[0] == block


async def test_nothing_is_sent_to_who_is_not_connected(world: World) -> None:
    one = await world.add(1)
    one.links.start()
    one.links.set_places({2: Place(("127.0.0.1:1",))})
    assert not one.links.send(2, wire()) and not one.links.send(3, wire())
    assert not one.links.send_table(2, peer_pb2.FreshnessTable())
    assert one.links.connected == frozenset()
    await until(lambda: "not called yet" not in one.links.trouble(2))
    assert one.links.trouble(2) and one.links.trouble(3)


async def test_a_full_queue_drops(world: World) -> None:
    one, two = await world.add(1, limits=replace(QUICK, queue_messages_max=10, queue_octets_max=10_000)), await world.add(2)
    await world.join(one, two)
    assert [one.links.send(2, wire(index=index)) for index in range(12)] == [True] * 10 + [False] * 2
    await until(lambda: len(two.heard.messages) == 10)
    big = Wire(group=7, kind=Wire.KIND_APPEND, term=1, terms=[1], entries=[b"x" * 9_000])
    assert one.links.send(2, big) and not one.links.send(2, big)
    await until(lambda: len(two.heard.messages) == 11)
    labels = {"member": "2"}
    name = "zaibei_consensus_link_dropped_requests_total"
    await until(lambda: one.registry.get_sample_value(name, labels) == 3)


async def test_a_message_that_no_link_takes_is_a_fault_of_ours(world: World) -> None:
    one, _ = await world.pair()
    with pytest.raises(InvariantBroken, match="octets for a member"):
        one.links.send(2, Wire(group=7, kind=Wire.KIND_APPEND, entries=[b"x" * 4_000_000]))


async def test_of_a_table_the_newest_leaves(world: World) -> None:
    one, two = await world.pair()
    for age_ms in range(5):
        table = peer_pb2.FreshnessTable(groups=[peer_pb2.Freshness(group=7, age_ms=age_ms, known=True)])
        assert one.links.send_table(2, table)
    assert one.links.send_table(2, peer_pb2.ProbeTable(machine="a"))
    await until(lambda: len(two.heard.tables) == 2)
    fresh, probes = two.heard.tables
    assert isinstance(fresh, peer_pb2.FreshnessTable) and fresh.groups[0].age_ms == 4
    assert isinstance(probes, peer_pb2.ProbeTable) and probes.machine == "a"


async def test_a_changed_hello_is_told_again_and_an_equal_one_is_not(world: World) -> None:
    one, two = await world.pair()
    one.links.hello_changed()
    one.hello.groups.add(group=7, term=4, last=9)
    one.links.hello_changed()
    await until(lambda: len(two.heard.hellos[1]) == 2)
    assert two.heard.hellos[1][1].groups[0].last == 9
    two.hello.zone = "west"
    two.links.hello_changed()
    await until(lambda: len(one.heard.hellos[2]) == 2)
    await asyncio.sleep(0.05)
    assert two.heard.story == ["connected 1"] * 2 and one.heard.story == ["connected 2"] * 2


async def test_a_new_life_begins_new_calls_and_refuses_nobody(world: World) -> None:
    one, two = await world.pair()
    one.hello.boot += 1
    one.links.hello_changed()
    await until(lambda: two.heard.hellos[1][-1].boot == 2 and one.links.connected == {2} and two.links.connected == {1})
    assert two.heard.story[:2] == ["connected 1", "lost 1"] and not two.refused(1, "unexpected")


async def test_who_stops_is_lost_at_once_and_met_again(world: World) -> None:
    one, two = await world.pair()
    loop = asyncio.get_running_loop()
    at_s = loop.time()
    await two.stop()
    await until(lambda: one.heard.story == ["connected 2", "lost 2"])
    assert loop.time() - at_s < 0.35  # not by silence
    assert not one.links.send(2, wire()) and one.links.connected == frozenset()
    port = int(two.place.addresses[0].rpartition(":")[2])
    again = await world.add(2, boot=2, listen=(("127.0.0.1", port),))
    again.links.start()
    world.places(one, again)
    at_s = loop.time()
    await until(lambda: one.links.connected == {2} and again.links.connected == {1})
    assert loop.time() - at_s < 0.2
    assert one.heard.hellos[2][-1].boot == 2
    assert one.links.send(2, wire()) and again.links.send(1, wire())
    await until(lambda: one.heard.turns and again.heard.turns)


async def test_places_change_while_it_runs(world: World) -> None:
    one, two = await world.pair()
    three = await world.add(3)
    three.links.start()
    world.places(one, two, three)
    await until(lambda: one.links.connected == {2, 3} and three.links.connected == {1, 2})
    world.places(one, three)
    two.links.set_places({})
    await until(lambda: one.links.connected == {3} and "lost 2" in one.heard.story and "lost 1" in two.heard.story)
    assert not one.links.send(2, wire())


@pytest.mark.parametrize(
    ("reason", "wrong"),
    [
        ("cluster", {"cluster": b"x" * 16}),
        ("lineage", {"lineage": b"x" * 16}),
        ("member", {"says": 3}),
        ("journal", {"journal": b"\x09" * 16}),
        ("malformed", {"journal": b"short"}),
    ],
)
async def test_a_wrong_hello_is_refused_counted_and_never_told(world: World, reason: str, wrong: dict[str, Any]) -> None:
    one, two = await world.add(1), await world.add(2, **wrong)
    one.links.start()
    two.links.start()
    known = {9: Place((), b"\x09" * 16)}  # the journal of another member
    one.links.set_places({2: two.place, **known})
    two.links.set_places({1: one.place})
    await until(lambda: one.refused(2, reason) and reason in two.links.trouble(1) and one.links.trouble(2) != "not called yet")
    await asyncio.sleep(0.15)
    assert one.heard.story == [] and one.links.connected == frozenset() and two.links.connected == frozenset()


async def test_a_number_with_two_journals_is_refused(world: World) -> None:
    one, two = await world.pair()
    await two.stop()
    port = int(two.place.addresses[0].rpartition(":")[2])
    other = await world.add(2, journal=b"o" * 16, listen=(("127.0.0.1", port),))
    other.links.start()
    world.places(one, other)
    await until(lambda: one.refused(2, "journal") and "one number" in other.links.trouble(1))
    assert one.links.connected == frozenset() and len(one.heard.hellos[2]) == 1
    one.links.set_places({})  # forgotten with its place: the number is not watched over any more
    world.places(one, other)
    await until(lambda: one.links.connected == {2})


async def test_our_own_number_is_refused(world: World) -> None:
    one, two = await world.add(1), await world.add(2, says=1)
    one.links.start()
    two.links.start()
    one.links.set_places({2: two.place})
    await until(lambda: two.refused(1, "ourselves") and "one number" in one.links.trouble(2))
    assert one.heard.story == []


async def test_an_unsound_message_ends_the_call_and_nothing_of_its_turn_is_handed_up(world: World) -> None:
    one, two = await world.pair()
    one.links.send(2, wire(index=1))
    one.links.send(2, Wire(group=7, kind=Wire.KIND_APPEND, term=2, terms=[2, 1], entries=[b"a", b"b"]))
    await until(lambda: two.refused(1, "malformed") == 1 and "lost 2" in one.heard.story)
    assert two.heard.turns == []
    # Where the call ends while something is being written, grpc's core has a word of its own, now and then.
    assert "do not follow" in one.heard.reasons[0] or "Internal error from Core" in one.heard.reasons[0]
    await until(lambda: one.links.connected == {2})
    assert one.links.send(2, wire(group=2**40))  # a group that is not known here is the groups' own matter
    await until(lambda: two.heard.turns)


async def test_a_fault_in_the_ears_stops_the_handing_up(world: World) -> None:
    broken: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: broken.append(context["exception"]))
    one, two = await world.pair()
    two.heard.fails = True
    one.links.send(2, wire())
    await until(lambda: two.links.failure is not None)
    two.heard.fails = False
    one.links.send(2, wire())
    await asyncio.sleep(0.05)
    assert two.heard.turns == [] and isinstance(broken[0], InvariantBroken) and "planted" in str(broken[0])


async def test_a_table_echoes_a_beat_of_its_receiver_that_came_before_it(world: World) -> None:
    began_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    one, two = await world.pair()

    def echoes() -> list[int]:
        sent_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        one.links.send_table(2, peer_pb2.FreshnessTable())
        told = [table.echo_ns for table in two.heard.tables if isinstance(table, peer_pb2.FreshnessTable) and table.echo_ns]
        assert all(began_ns <= echo_ns <= sent_ns for echo_ns in told)
        return told

    await until(lambda: len(set(echoes())) >= 2)


async def test_a_journal_that_the_cluster_knows_otherwise_ends_the_link(world: World) -> None:
    one, two = await world.pair()
    one.links.set_places({2: replace(two.place, journal=b"n" * 16)})
    await until(lambda: one.heard.story == ["connected 2", "lost 2"] and one.refused(2, "journal"))
    one.links.set_places({2: replace(two.place, journal=two.hello.journal)})
    await until(lambda: one.links.connected == {2})


async def test_members_that_come_and_go_while_we_stop_concern_nobody(world: World) -> None:
    """The control group is stopped after the links, and decides until then."""
    one, two = await world.pair()
    await one.links.stop()
    calling = len(asyncio.all_tasks())
    one.links.set_places({})
    one.links.set_places({2: two.place, 3: Place(("127.0.0.1:1",))})
    assert len(asyncio.all_tasks()) <= calling
