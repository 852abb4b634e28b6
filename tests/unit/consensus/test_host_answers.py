"""A restarted member gives no answer older than one it gave before (SEMANTICS 4): it waits until it stands where it stood."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from replica.consensus.group_limits import GroupLimits
from replica.consensus.port import KEPT_COMMIT
from replica.model.errors import ZaibeiError
from tests.unit.consensus.host_world import GROUP, LIMITS, HostWorld, One, until

NEVER_S = 3_600.0
Made = Callable[..., Awaitable[HostWorld]]


@pytest.fixture
async def world() -> AsyncIterator[Made]:
    made: list[HostWorld] = []

    async def make(keep_commit_s: float, recall_ms_max: int = 60_000) -> HostWorld:
        limits = GroupLimits(stop_drain_s_max=0.2, keep_commit_s=keep_commit_s)
        one = HostWorld(frozenset({1, 2, 3}), limits=limits, host_limits=replace(LIMITS, recall_ms_max=recall_ms_max))
        made.append(one)
        for member in (1, 2, 3):
            await one.start(member)
        return one

    yield make
    for one in made:
        await one.stop()


async def follower(three: HostWorld) -> int:
    leader = await three.led()
    return next(member for member in three.members if member != leader.host.member)


async def back_alone(three: HostWorld, member: int, *, knows: bool = False) -> One:
    """Killed and started again with nobody in reach; its store has lost all that it had not flushed.

    Args:
        knows: its journal keeps how far it knew entries to be committed; else it was killed before it wrote that.
    """
    await three.kill(member)
    three.kept[member] = three.kept[member][:1]
    if not knows:
        three.disks[member].groups["g"].kept.pop(KEPT_COMMIT, None)
    for other in three.members:
        three.hub.cut |= {(member, other), (other, member)}
    return await three.start(member)


async def test_it_waits_for_a_leader_where_its_last_entries_are_not_known_to_be_committed(world: Made) -> None:
    three = await world(NEVER_S)
    for number in range(5):
        await three.write(b"%d" % number)
    await three.same()
    victim = await follower(three)
    stood = three.members[victim].group.applied
    assert three.members[victim].host.answers(GROUP)
    back = await back_alone(three, victim)
    assert back.group.applied < stood
    assert not back.host.answers(GROUP), "it would answer older than it did"
    three.heal()
    await until(lambda: back.host.answers(GROUP))
    assert back.group.applied >= stood


async def test_what_it_knew_to_be_committed_is_on_record_after_a_pause(world: Made) -> None:
    three = await world(0.01)
    for number in range(5):
        await three.write(b"%d" % number)
    await three.same()
    victim = await follower(three)
    one = three.members[victim]
    await until(lambda: one.group._kept_commit == one.group.last and not one.journal._ops)
    back = await back_alone(three, victim, knows=True)
    assert back.group.applied == back.group.last >= 6, "nobody had to tell it"
    assert back.host.answers(GROUP)


async def test_without_any_leader_an_older_answer_is_better_than_none(world: Made) -> None:
    three = await world(NEVER_S, recall_ms_max=300)
    await three.write(b"x")
    await three.same()
    back = await back_alone(three, await follower(three))
    assert not back.host.answers(GROUP)
    await until(lambda: back.host.answers(GROUP))
    assert not back.group.caught_up


async def test_entries_that_gave_way_to_another_leaders_keep_nobody_waiting(world: Made) -> None:
    three = await world(NEVER_S)
    await three.write(b"x")
    await three.same()
    leader = await three.led()
    old = leader.host.member
    three.isolate(old)
    for number in range(20):
        try:
            leader.group.propose(b"lost %d" % number)
        except ZaibeiError:
            break  # it heard no majority for too long
    last = leader.group.last
    await until(lambda: leader.group.saved_index == last)
    back = await back_alone(three, old)
    assert back.group.last == last and not back.host.answers(GROUP)
    three.heal()
    await three.write(b"y")
    await until(lambda: back.host.answers(GROUP))
    assert not [data for data in back.machine.data() if data.startswith(b"lost")]
