"""Groups of three members over a hub: elections, loss of members, transfers, amnesia, sleep, read barriers."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from replica.consensus.hello import Standing
from replica.consensus.port import KEPT_MEMBERSHIP
from replica.consensus.raft.membership import Act, MembershipChange, Step
from replica.model.errors import Code, ZaibeiError
from replica.v1 import peer_pb2
from tests.unit.consensus.host_world import GROUP, HostWorld, One, until

Made = Callable[..., Awaitable[HostWorld]]


@pytest.fixture
async def world() -> AsyncIterator[Made]:
    made: list[HostWorld] = []

    async def make(*members: int) -> HostWorld:
        one = HostWorld(frozenset(members))
        made.append(one)
        for member in members:
            await one.start(member)
        return one

    yield make
    for one in made:
        await one.stop()


async def test_three_members_elect_one_and_apply_the_same(world: Made) -> None:
    three = await world(1, 2, 3)
    for number in range(20):
        await three.write(b"%d" % number)
    await three.same()
    assert sum(one.group.leader for one in three.members.values()) == 1
    leader = await three.led()
    assert {one.group.leader_id for one in three.members.values()} == {leader.host.member}


async def test_what_was_acknowledged_survives_the_leader(world: Made) -> None:
    three = await world(1, 2, 3)
    await three.write(b"before")
    old = (await three.led()).host.member
    await three.kill(old)
    await three.write(b"after")
    for one in three.members.values():
        assert b"before" in one.machine.data()
    await three.start(old)
    await three.write(b"with all")
    await three.same()


async def test_all_killed_and_started_again_lose_nothing(world: Made) -> None:
    three = await world(1, 2, 3)
    for number in range(10):
        await three.write(b"%d" % number)
    for member in (1, 2, 3):
        await three.kill(member)
    for member in (1, 2, 3):
        await three.start(member)
    await three.write(b"again")
    await three.same()
    data = next(iter(three.members.values())).machine.data()
    assert [one for one in data if one.isdigit()] == [b"%d" % number for number in range(10)]


async def test_nobody_votes_before_a_hello_with_a_majority(world: Made) -> None:
    three = await world(1, 2, 3)
    await three.write(b"x")
    for member in (1, 2, 3):
        await three.kill(member)
    alone = await three.start(1)
    await asyncio.sleep(0.3)
    assert alone.host.standing(GROUP) is Standing.ASKING
    assert alone.group.core.role.value == "follower", "it asks for no vote"
    await three.start(2)
    await three.led()


async def test_a_leader_that_is_cut_off_has_unknown_outcomes_and_comes_back_as_a_follower(world: Made) -> None:
    three = await world(1, 2, 3)
    await three.write(b"first")
    old = await three.led()
    three.isolate(old.host.member)
    proposal = old.group.propose(b"nobody hears this")
    others = [one for one in three.members.values() if one is not old]
    await until(lambda: any(one.group.leader for one in others))
    outcome = await asyncio.wait_for(proposal.applied, 30)
    assert outcome.kind == "unknown"
    with pytest.raises(ZaibeiError) as caught:
        await proposal.committed
    assert not caught.value.trouble.definite
    with pytest.raises(ZaibeiError):
        await old.group.barrier(0.1)
    await three.write(b"second")
    three.heal()
    await three.same()
    assert b"nobody hears this" not in old.machine.data()


async def test_a_read_barrier_sees_all_that_was_acknowledged_on_every_member(world: Made) -> None:
    three = await world(1, 2, 3)
    for number in range(10):
        await three.write(b"%d" % number)
        for one in three.members.values():
            await one.group.barrier(30)
            assert b"%d" % number in one.machine.data()


async def test_a_group_with_nothing_to_do_sleeps_on_all_members_and_wakes_at_once(world: Made) -> None:
    three = await world(1, 2, 3)
    await three.write(b"x")
    await until(lambda: all(one.host.groups[GROUP].asleep for one in three.members.values()))
    terms = {one.group.term for one in three.members.values()}
    await asyncio.sleep(0.5)
    assert {one.group.term for one in three.members.values()} == terms, "nobody campaigns against a sleeping leader"
    assert max(one.host.silent_ms(GROUP) for one in three.members.values()) < 2_000
    leader = await three.led()
    await three.write(b"y")
    assert await three.led() is leader
    await three.same()


async def test_the_death_of_a_sleeping_leader_wakes_the_group(world: Made) -> None:
    three = await world(1, 2, 3)
    await three.write(b"x")
    await until(lambda: all(one.host.groups[GROUP].asleep for one in three.members.values()))
    await three.kill((await three.led()).host.member)
    await three.write(b"y")


async def test_a_member_too_far_behind_is_fed_the_whole_state(world: Made) -> None:
    three = await world(1, 2, 3)
    leader = await three.led()
    behind = next(member for member in three.members if member != leader.host.member)
    await three.kill(behind)
    for number in range(30):
        await three.write(b"%d" % number)
    for one in three.members.values():
        one.machine.durable = one.machine.applied()[0]
        one.journal._groups["g"].truncate(20)
    three.fetch_fails = 1  # the first try breaks off
    await three.start(behind)
    await three.same()
    await three.write(b"goes on")
    await three.same()


async def test_a_learner_is_added_fed_and_promoted(world: Made) -> None:
    three = await world(1, 2, 3)
    await three.write(b"x")
    new = await three.start(4)  # it knows the first voters and is none of them
    leader = await three.led()
    await leader.group.change(MembershipChange((Step(Act.ADD_LEARNER, 4),)))
    await three.write(b"y")
    await three.same()
    membership = await leader.group.change(MembershipChange((Step(Act.ADD_VOTER, 4), Step(Act.REMOVE, leader.host.member))))
    await until(lambda: new.group.membership.voters == frozenset({1, 2, 3, 4} - {leader.host.member}))
    assert membership.joint
    await three.kill(leader.host.member)
    await three.write(b"z")


async def in_place_of(five: HostWorld, lost: int, new: int) -> None:
    """A member is lost for good, and a new one takes its place."""
    await five.kill(lost)
    await five.start(new)
    leader = await five.led()
    await leader.group.change(MembershipChange((Step(Act.ADD_LEARNER, new),)))
    await until(lambda: leader.group.matched(new) >= leader.group.committed)
    await leader.group.change(MembershipChange((Step(Act.ADD_VOTER, new), Step(Act.REMOVE, lost))))
    await until(lambda: all(_counts(one, new) for one in five.members.values()))


def _counts(one: One, new: int) -> bool:
    """The change is over where this member looks: until then the old voters, of whom one is lost, must agree too."""
    membership = one.group.membership
    return new in membership.voters and not membership.joint


async def test_members_come_when_the_first_ones_are_gone(world: Made) -> None:
    """Each knows the first voters alone, and waits for a majority of those who are there: of the first, one is, then none."""
    three = await world(1, 2, 3)
    await three.write(b"x")
    for lost, new in ((1, 4), (2, 5), (3, 6), (4, 7)):
        await in_place_of(three, lost, new)
        await three.write(b"%d" % new)
        await three.same()
        assert three.members[new].host.standing(GROUP) is Standing.SOUND


async def test_who_was_away_while_others_were_replaced_comes_back(world: Made) -> None:
    """Its disk names voters of whom most are gone: it hears from whoever is there who counts now."""
    five = await world(1, 2, 3, 4, 5)
    await five.write(b"x")
    await five.same()
    leader = (await five.led()).host.member
    away = 5 if leader != 5 else 4
    await five.kill(away)
    for lost, new in ((1, 6), (2, 7), (3, 8)):
        await in_place_of(five, lost, new)
    back = await five.start(away)
    await five.write(b"y")
    await five.same()
    assert back.host.standing(GROUP) is Standing.SOUND


async def test_the_newest_membership_that_was_told_counts_and_who_forgot_tells_none(world: Made) -> None:
    three = await world(1, 2, 3)
    hosted = next(iter(three.members.values())).host.groups[GROUP]
    told = peer_pb2.GroupMessage(group=GROUP, kind=peer_pb2.GroupMessage.KIND_REMINDED, index=9)
    told.voters.voters.extend([4, 5, 6])
    hosted.learn_membership(told)
    told.index, told.voters.voters[:] = 8, [1, 2, 3]
    hosted.learn_membership(told)
    assert hosted.halves() == [frozenset({4, 5, 6}), frozenset()]
    await in_place_of(three, 3, 4)
    hosted = next(iter(three.members.values())).host.groups[GROUP]
    assert hosted.recall is not None
    assert list(hosted.reminder(hosted.recall).voters.voters) == [1, 2, 4]
    hosted.recall.standing = Standing.AMNESIAC
    assert hosted.reminder(hosted.recall).reject and not hosted.reminder(hosted.recall).HasField("voters")


async def test_yesterdays_disk_may_not_vote_and_is_fed_anew_as_a_learner(world: Made) -> None:
    """RAFT rule 6: a rolled-back member is found by what the others remember of it."""
    three = await world(1, 2, 3)
    await three.write(b"old")
    leader = (await three.led()).host.member
    victim = next(member for member in three.members if member != leader)
    await three.kill(victim)
    image = copy.deepcopy((three.disks[victim], list(three.kept[victim])))
    await three.start(victim)
    for number in range(10):
        await three.write(b"%d" % number)
    await three.same()
    await three.kill(victim)
    three.disks[victim], three.kept[victim] = image
    back = await three.start(victim)
    assert back.host.standing(GROUP) is Standing.AMNESIAC
    head = await three.led()
    await until(lambda: victim in head.host.groups[GROUP].amnesiac)
    await head.group.change(MembershipChange((Step(Act.REMOVE, victim),)))
    await head.group.change(MembershipChange((Step(Act.ADD_LEARNER, victim),)))
    await until(lambda: back.host.standing(GROUP) is Standing.FED)
    await three.write(b"more")
    await three.same()
    await head.group.change(MembershipChange((Step(Act.ADD_VOTER, victim),)))
    await until(lambda: back.host.standing(GROUP) is Standing.SOUND)
    held = {number: one.host.groups[GROUP].amnesiac for number, one in three.members.items()}
    assert not any(held.values()), "whoever leads next would make it a learner once more"
    await three.kill(head.host.member)
    await three.write(b"it counts again")


async def test_a_message_of_a_group_that_is_not_open_here_is_counted_and_changes_nothing(world: Made) -> None:
    three = await world(1, 2, 3)
    await three.write(b"x")
    leader = await three.led()
    leader.host._send(GROUP, [])
    for one in three.members.values():
        before = one.host.unknown
        wire = leader.host.memory()
        assert wire
        one.host.received(2, [peer_pb2.GroupMessage(group=99, kind=peer_pb2.GroupMessage.KIND_HEARTBEAT, term=99)])
        assert one.host.unknown == before + 1
    with pytest.raises(ZaibeiError) as caught:
        next(one for one in three.members.values() if one is not leader).group.propose(b"x")
    assert caught.value.code is Code.UNREACHABLE


async def test_a_change_of_the_membership_that_the_store_lost_is_not_taken_twice(world: Made) -> None:
    """The row beside the log may be ahead of a store that went back: the change is replayed there, and is in force already."""
    three = await world(1, 2, 3)
    await three.write(b"x")
    await three.start(4)
    leader = await three.led()
    behind = next(member for member in (1, 2, 3) if member != leader.host.member)
    store = list(three.members[behind].machine.entries)
    await leader.group.change(MembershipChange((Step(Act.ADD_LEARNER, 4),)))
    await three.write(b"y")
    await three.same()
    await three.kill(behind)
    three.kept[behind] = store  # what the store had made durable
    back = await three.start(behind)
    await three.write(b"z")
    await three.same()
    assert back.group.membership.learners == {4}


async def test_a_member_that_was_alone_and_gave_others_a_vote_does_not_decide_alone_again(world: Made) -> None:
    one = await world(1)
    await one.write(b"alone")
    await one.start(2)
    leader = await one.led()
    await leader.group.change(MembershipChange((Step(Act.ADD_LEARNER, 2),)))
    await one.same()
    await leader.group.change(MembershipChange((Step(Act.ADD_VOTER, 2),)))
    await one.write(b"two")
    await one.same()
    await one.kill(1)
    await one.kill(2)
    one.disks[1].groups["g"].kept.pop(KEPT_MEMBERSHIP)  # the row had not reached the disk
    back = await one.start(1)
    await asyncio.sleep(0.2)
    assert back.group.membership.voters == {1, 2} and not back.group.leader
    await one.start(2)
    await one.write(b"both")
    await one.same()


async def test_a_sleeping_group_stays_with_its_leader(world: Made) -> None:
    """A heartbeat of the tick in which the leader fell asleep would wake the others alone, and depose it."""
    three = await world(1, 2, 3)
    for turn in range(5):
        await three.write(b"%d" % turn)
        leader, term = await three.led(), (await three.led()).group.term
        await until(lambda: all(one.host.groups[GROUP].asleep for one in three.members.values()))
        await asyncio.sleep(0.15)
        assert (await three.led(), leader.group.term) == (leader, term)


async def test_a_member_that_lacks_its_store_alone_keeps_no_journal_of_the_leader(world: Made) -> None:
    """Its log has everything: it acknowledges nothing more, so a pin would stay, and it would count as being fed for ever."""
    three = await world(1, 2, 3)
    await three.write(b"all")
    await three.same()
    leader = await three.led()
    hungry = next(one for one in three.members.values() if one is not leader)
    hosted = leader.host.groups[GROUP]
    await until(lambda: leader.group.matched(hungry.host.member) == leader.group.last)
    hungry.host.hungry(GROUP)
    leader.host.transfers.offer_soon(hosted, hungry.host.member)
    await until(lambda: hosted.offering[hungry.host.member].done())
    await asyncio.sleep(0.1)
    assert hosted.pinned == {}


async def test_a_journal_that_lost_flushed_entries_is_not_forgotten_by_beginning_it_anew(world: Made) -> None:
    """The store stands beyond the cut, so the log is begun behind it; the next start must still know of the loss."""
    three = await world(1, 2, 3)
    for number in range(10):
        await three.write(b"%d" % number)
    await three.same()
    leader = (await three.led()).host.member
    victim = next(member for member in three.members if member != leader)
    await three.kill(victim)
    rows = three.disks[victim].groups["g"]
    rows.marks = replace(rows.marks, flushed=max(rows.entries))
    for index in sorted(rows.entries)[4:]:
        del rows.entries[index]  # damage took what had been flushed
    three.kept[victim] = three.kept[victim][:8]  # and the store stands between
    for _ in range(2):
        back = await three.start(victim)
        assert back.host.standing(GROUP) is Standing.AMNESIAC
        back.journal.flush()
        await three.kill(victim)


async def test_a_store_that_waited_and_was_fed_takes_changes_in_once_its_member_leads(world: Made) -> None:
    """It had asked to wait: with what it was fed that is over, else its member would lead and let nothing in for ever."""
    three = await world(1, 2, 3)
    await three.write(b"first")
    await three.same()
    leader = await three.led()
    hungry = next(one for one in three.members.values() if one is not leader)
    refusing = True

    def lacking(_entry: object) -> None:
        if refusing:
            raise ZaibeiError(Code.BUSY, "its content is not here", retry=True)

    hungry.machine.before_apply = lacking
    await three.write(b"second")
    await until(lambda: hungry.group._machine_busy)
    hungry.host.hungry(GROUP)
    await until(lambda: not hungry.host.groups[GROUP].hungry)
    refusing = False
    await three.same()
    leader.group.transfer(hungry.host.member)
    await until(lambda: hungry.group.leader)
    assert not hungry.group.pressure


async def test_a_member_that_starts_again_answers_with_nothing_older_than_before(world: Made) -> None:
    """A store keeps what it flushed; the journal has the rest, and knows how much of it was committed."""
    at = await world(1, 2, 3)
    for number in range(20):
        await at.write(b"%d" % number)
    await at.same()
    seen = at.members[2].group.applied
    await at.kill(2)
    at.kept[2] = at.kept[2][:3]
    for other in (1, 3):
        at.hub.cut |= {(2, other), (other, 2)}
    again = await at.start(2)
    assert again.group.applied >= seen - 1, "all but what the last flush could not know yet"
    assert again.host.standing(GROUP) is Standing.ASKING


async def test_who_forgot_itself_is_no_witness_that_nothing_was_promised(world: Made) -> None:
    three = await world(1, 2, 3)
    await three.write(b"x")
    for member in (1, 2, 3):
        await three.kill(member)
    asker = await three.start(1)
    told = peer_pb2.GroupMemory(group=GROUP, term=1, forgot=True)
    asker.host.connected(2, peer_pb2.Hello(member=2, boot=2, groups=[told]))
    assert asker.host.standing(GROUP) is Standing.ASKING
    told.promises.add(member=1, boot=1, term=99, index=0)
    asker.host.connected(2, peer_pb2.Hello(member=2, boot=2, groups=[told]))
    assert asker.host.standing(GROUP) is Standing.AMNESIAC, "what it does remember counts"
