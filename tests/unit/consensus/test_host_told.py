"""What leaders tell of freshness, and a member that was stopped meanwhile: what lay in its sockets says nothing about now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from replica.consensus.hosted import Heard
from replica.consensus.silence import Promptness
from replica.model.position import ORIGIN, Position
from replica.v1 import peer_pb2
from tests.unit.consensus.host_world import GROUP, HostWorld, until

MS = 1_000_000
S = 1_000 * MS
Wire = peer_pb2.GroupMessage


@pytest.fixture
async def three() -> AsyncIterator[HostWorld]:
    made = HostWorld(frozenset({1, 2, 3}))
    for member in (1, 2, 3):
        await made.start(member)
    yield made
    await made.stop()


def test_who_looks_in_time_is_prompt_and_after_a_stop_it_doubts_for_as_long_as_that_took() -> None:
    prompt = Promptness(late_ns_max=100 * MS, doubt_ns_max=1 * S)
    prompt.look(0)
    assert prompt.prompt(20 * MS)
    prompt.look(20 * MS)
    assert not prompt.prompt(420 * MS), "seen before the next look: it was stopped for 400 ms"
    prompt.look(420 * MS)
    assert not prompt.prompt(700 * MS), "what came in meanwhile may still be on its way up"
    for at_ms in range(440, 900, 20):
        prompt.look(at_ms * MS)
    assert prompt.prompt(900 * MS)
    assert not prompt.prompt(60 * S)
    prompt.look(60 * S)
    for at_ms in range(60_020, 60_980, 20):
        prompt.look(at_ms * MS)
        assert not prompt.prompt(at_ms * MS)
    prompt.look(61_000 * MS)
    assert prompt.prompt(61_010 * MS), "an hour's stop is doubted for a second, not for an hour"


async def test_a_table_that_waited_while_we_were_stopped_makes_nothing_fresh(three: HostWorld) -> None:
    """SEMANTICS 4: buffered beats after a pause count for nothing; the table is as old as the pause was long."""
    leader = await three.led()
    follower = next(one for one in three.members.values() if one is not leader)
    head, told = Position(ORIGIN.lineage, 1, 1, bytes(32)), list[int]()
    leader.host.groups[GROUP].heard = Heard(newest=lambda: (head, time.monotonic_ns()))
    follower.host.groups[GROUP].heard = Heard(told=lambda _head, base_ns: told.append(base_ns))
    await until(lambda: bool(told))
    row = leader.host.stands(GROUP)
    assert row is not None
    waited = peer_pb2.FreshnessTable(groups=[row.row], echo_ns=time.monotonic_ns())
    follower.host._now_ns = lambda: time.monotonic_ns() + 10 * S  # it was stopped; the table lay in its socket
    told.clear()
    follower.host.freshness(leader.host.member, waited)
    beat = Wire(group=GROUP, kind=Wire.KIND_HEARTBEAT, term=leader.group.term)
    follower.host.received(leader.host.member, [beat])
    assert told == [] and follower.host.silent_ms(GROUP) >= 9_000, "a heartbeat of before is no heartbeat of now"
    await asyncio.sleep(0.3)
    assert told == []
    await until(lambda: bool(told) and follower.host.silent_ms(GROUP) < 2_000)


async def test_a_table_is_as_old_as_the_beat_it_echoes(three: HostWorld) -> None:
    """SEMANTICS 4: the way may have taken longer than any round trip that was measured; without an echo nothing is known."""
    leader = await three.led()
    follower = next(one for one in three.members.values() if one is not leader)
    head, told = Position(ORIGIN.lineage, 1, 1, bytes(32)), list[int]()
    leader.host.groups[GROUP].heard = Heard(newest=lambda: (head, time.monotonic_ns()))
    row = leader.host.stands(GROUP)
    assert row is not None
    leader.host.groups[GROUP].heard = Heard()
    await asyncio.sleep(0.1)  # nothing of before is on its way
    follower.host.groups[GROUP].heard = Heard(told=lambda _head, base_ns: told.append(base_ns))
    sent_ns = time.monotonic_ns() - 5 * S
    for echo_ns in (sent_ns, 0, time.monotonic_ns() + 10 * S):
        follower.host.freshness(leader.host.member, peer_pb2.FreshnessTable(groups=[row.row], echo_ns=echo_ns))
    assert told == [sent_ns - row.row.age_ms * MS]


@pytest.mark.parametrize("asleep", [False, True])
async def test_without_a_leader_silence_counts_from_the_last_one(three: HostWorld, asleep: bool) -> None:
    """SEMANTICS 4: held records are answered for 24 h after the leader was last heard; that is not for ever, and not never."""
    leader = await three.led()
    await three.write(b"x")
    if asleep:
        await until(lambda: all(one.host.groups[GROUP].asleep for one in three.members.values()))
    survivor = next(member for member in (1, 2, 3) if member != leader.host.member)
    for member in (1, 2, 3):
        if member != survivor:
            await three.kill(member)
    left = three.members[survivor]
    await until(lambda: not left.group.leader_id)
    assert left.host.silent_ms(GROUP) < 20_000
    left.host._now_ns = lambda: time.monotonic_ns() + 100 * S
    assert 100_000 <= left.host.silent_ms(GROUP) < 120_000


async def test_an_age_is_rounded_up(three: HostWorld) -> None:
    leader = await three.led()
    head, at_ns = Position(ORIGIN.lineage, 1, 1, bytes(32)), time.monotonic_ns()
    leader.host.groups[GROUP].heard = Heard(newest=lambda: (head, at_ns))
    leader.host._now_ns = lambda: at_ns + 1 * MS + 1
    told = leader.host.stands(GROUP)
    assert told is not None and told.row.age_ms == 2
    leader.host._now_ns = time.monotonic_ns


async def test_when_content_was_compared_travels_with_the_head_and_gets_no_younger(three: HostWorld) -> None:
    leader = await three.led()
    follower = next(one for one in three.members.values() if one is not leader)
    head, compared_ns = Position(ORIGIN.lineage, 1, 1, bytes(32)), time.monotonic_ns() - 3 * S
    bases: list[int | None] = []
    follower.host.groups[GROUP].heard = Heard(compared_told=bases.append)
    leader.host.groups[GROUP].heard = Heard(newest=lambda: (head, time.monotonic_ns()))
    await asyncio.sleep(0.5)
    assert bases == [], "nothing was compared yet"
    leader.host.groups[GROUP].heard = Heard(newest=lambda: (head, time.monotonic_ns()), compared=lambda: compared_ns)
    await until(lambda: bool(bases))
    late = 1 * S  # the memory link states its usual round trip, also of a message that a busy machine delivered later
    assert [base for base in bases if base is None or not compared_ns - 10 * S < base <= compared_ns + late] == [], compared_ns
