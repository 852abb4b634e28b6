"""Beside a transfer of a whole state: other leaders, lost messages, hungry leaders, promises that come to light."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from replica.consensus import host_transfers
from replica.consensus.group import GroupLog
from replica.consensus.group_base import SAVE_ANEW
from replica.consensus.group_limits import GroupLimits
from replica.consensus.hello import Standing
from replica.consensus.memory import ManualApply, MemoryJournal, inline
from replica.consensus.port import HardState
from replica.consensus.raft.membership import Act, Membership, MembershipChange, Step
from replica.consensus.raft.values import Kind, Message, SnapshotMeta
from replica.consensus.seat import GroupSeat
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry
from replica.v1 import peer_pb2
from tests.unit.consensus.host_world import GROUP, HostWorld, One, until
from tests.unit.consensus.machines import BUSY, ListMachine
from tests.unit.consensus.test_contracts import Ears

Made = Callable[..., Awaitable[HostWorld]]
Wire = peer_pb2.GroupMessage
THREE = Membership(frozenset({1, 2, 3}))


@pytest.fixture
async def world() -> AsyncIterator[Made]:
    made: list[HostWorld] = []
    broken: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: broken.append(context))

    async def make(*members: int) -> HostWorld:
        one = HostWorld(frozenset(members))
        made.append(one)
        for member in members:
            await one.start(member)
        return one

    yield make
    for one in made:
        one.fetch_gate.set()
        await one.stop()
    assert not broken, broken


class Follower:
    """A group of three on member 1, moved by hand: entries 1 to 8 of term 1 in its log, `applied` of them in its machine."""

    def __init__(self, applied: int) -> None:
        first = MemoryJournal()
        self.old = [LogEntry(index, 1, b"%d" % index) for index in range(1, 9)]
        first.attach("g", Ears()).append(self.old, HardState(1, 0, 1))
        first.flush()
        self.journal, self.apply, self.machine = MemoryJournal(first.disk), ManualApply(), ListMachine(self.old[:applied])
        self.sent: list[Message] = []
        seat = GroupSeat(1, THREE, send=self.sent.extend)
        self.group = GroupLog("g", self.journal, self.machine, self.apply, limits=GroupLimits(), run_blocking=inline, seat=seat)

    async def settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)
            self.journal.flush()
            await asyncio.sleep(0)
            while self.apply.step():  # noqa: ASYNC110
                await asyncio.sleep(0)

    def switch(self, index: int) -> tuple[int, int]:
        self.machine.entries = self.old[:index]
        return self.machine.applied()


async def test_a_deposed_leaders_state_may_arrive_after_the_new_one_fed_entries() -> None:
    """The machine is ahead of what the core knows to be committed: what it has already is not applied twice."""
    rig = Follower(applied=2)
    await rig.group.start()
    rig.group.receive(Message(Kind.APPEND, 1, 3, 5, 1, 8, (), 4))  # a new leader, in term 5: committed up to 4
    await rig.settle()
    state = Message(Kind.SNAPSHOT, 1, 2, 1, snapshot=SnapshotMeta(6, 1, THREE))  # of the leader of term 1
    install = asyncio.ensure_future(rig.group.install(state, lambda: rig.switch(6)))
    await rig.settle()
    await install
    rig.group.receive(Message(Kind.APPEND, 1, 3, 5, 1, 8, (LogEntry(9, 5, b"9"),), 9))
    await rig.settle()
    assert rig.machine.data() == [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9"]
    assert rig.group.failure is None
    await rig.group.stop()


async def test_the_membership_row_never_claims_entries_that_the_log_did_not_hand_out() -> None:
    """A change of the voters may be among those that the machine has and the log has not."""
    rig = Follower(applied=2)
    await rig.group.start()
    rig.group.receive(Message(Kind.APPEND, 1, 3, 5, 1, 8, (), 4))
    await rig.settle()
    state = Message(Kind.SNAPSHOT, 1, 2, 1, snapshot=SnapshotMeta(6, 1, THREE))
    install = asyncio.ensure_future(rig.group.install(state, lambda: rig.switch(6)))
    await rig.settle()
    await install
    rig.group._truncate()  # as a flush that began before the switch does when it is done
    await rig.settle()
    assert rig.group.part is not None and rig.group.part.floor <= 4
    await rig.group.stop()


async def test_a_save_that_shares_its_flush_with_a_row_of_the_host_lets_its_answers_go() -> None:
    rig = Follower(applied=8)
    await rig.group.start()
    rig.group.receive(Message(Kind.APPEND, 1, 3, 5, 1, 8, (LogEntry(9, 5, b"9"),), 8))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    saving = asyncio.ensure_future(rig.group._save_now(None))
    await asyncio.sleep(0)
    rig.group._on_saved(SAVE_ANEW)  # the journal tells the newest save of a flush alone
    assert [one.index for one in rig.sent if one.kind is Kind.APPEND_REPLY] == [9]
    await saving
    await rig.settle()
    await rig.group.stop()


async def test_a_row_of_the_host_that_shares_its_flush_with_a_later_save_is_on_disk_too() -> None:
    """The core of a member that takes another one's state for its machine goes on saving meanwhile."""
    rig = Follower(applied=8)
    await rig.group.start()
    saving = asyncio.ensure_future(rig.group._save_now(None, 7))
    await asyncio.sleep(0)
    before = rig.group._anew
    rig.group._on_saved(7)
    assert not before.is_set(), "that save was on its way before ours"
    rig.group._on_saved(8)  # the journal tells the newest save of a flush alone
    assert before.is_set()
    async with asyncio.timeout(30):
        await saving
    await rig.settle()
    await rig.group.stop()


async def test_a_group_has_not_stopped_while_its_machine_is_switched() -> None:
    """Who closes a store that becomes another one meanwhile leaves that one open for ever."""
    rig, gate = Follower(applied=2), asyncio.Event()
    await rig.group.start()

    async def slowly(work: Callable[[], Any], /) -> Any:
        await gate.wait()
        return work()

    rig.group._run_blocking = slowly
    state = Message(Kind.SNAPSHOT, 1, 2, 5, snapshot=SnapshotMeta(6, 1, THREE))
    install = asyncio.ensure_future(rig.group.install(state, lambda: rig.switch(6)))
    await rig.settle()
    stopping = asyncio.ensure_future(rig.group.stop())
    await rig.settle()
    assert not stopping.done()
    gate.set()
    await asyncio.wait_for(asyncio.gather(stopping, install), 30)
    assert rig.machine.applied() == (6, 1)


async def test_the_machine_of_a_group_that_has_stopped_is_not_switched() -> None:
    """The state came while the group stopped; its store is closed by then, or another one's."""
    rig = Follower(applied=2)
    await rig.group.start()
    rig.group._tail.changed(7, THREE)  # nothing of the state's membership is to be kept first
    await rig.group.stop()
    state = Message(Kind.SNAPSHOT, 1, 2, 5, snapshot=SnapshotMeta(6, 1, THREE))
    with pytest.raises(ZaibeiError) as refused:
        await rig.group.install(state, lambda: rig.switch(6))
    assert refused.value.code is Code.STOPPING and rig.machine.applied() == (2, 1)


async def lagging(three: HostWorld) -> tuple[One, int]:
    """(leader, a member that can be fed by a whole state alone), that member not started."""
    leader = await three.led()
    behind = next(member for member in three.members if member != leader.host.member)
    await three.kill(behind)
    for number in range(30):
        await three.write(b"%d" % number)
    for one in three.members.values():
        one.machine.durable = one.machine.applied()[0]
        one.journal._groups["g"].truncate(20)
    return leader, behind


async def test_a_lost_offer_is_said_again(world: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_transfers, "SAY_AGAIN_S", 0.1)
    three = await world(1, 2, 3)
    _, behind = await lagging(three)
    dropped: list[int] = []

    def lost(message: Wire) -> bool:
        if message.kind == Wire.KIND_SNAPSHOT and not dropped:
            dropped.append(message.kind)
            return True
        return False

    three.hub.lost = lost
    await three.start(behind)
    await three.same()
    assert dropped


async def test_a_lost_refusal_of_an_offer_does_not_end_the_feeding(world: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_transfers, "SAY_AGAIN_S", 0.1)
    three = await world(1, 2, 3)
    _, behind = await lagging(three)
    three.fetch_fails = 1
    three.hub.lost = lambda message: message.kind == Wire.KIND_SNAPSHOT and message.reject
    await three.start(behind)
    await three.same()


async def test_a_leader_whose_store_is_hungry_takes_the_state_of_others_and_leads_on(world: Made) -> None:
    """Both others offer theirs: the second one comes when nobody is hungry any more."""
    three = await world(1, 2, 3)
    await three.write(b"before")
    leader = await three.led()
    term, stuck = leader.group.term, [True]

    def before_apply(_entry: LogEntry) -> None:
        if stuck[0]:
            raise BUSY

    leader.machine.before_apply = before_apply
    proposals = [leader.group.propose(b"%d" % number) for number in range(5)]
    others = [one for one in three.members.values() if one is not leader]
    await until(lambda: all(one.machine.data()[-1:] == [b"4"] for one in others))
    leader.host.hungry(GROUP)
    await until(lambda: leader.machine.data()[-1:] == [b"4"])
    outcomes = await asyncio.wait_for(asyncio.gather(*(one.applied for one in proposals)), 30)
    assert {outcome.kind for outcome in outcomes} == {"unknown"}, "committed, and what came of them is not known here"
    stuck[0] = False
    await three.write(b"after")
    await three.same()
    await asyncio.sleep(0.2)
    assert (leader.group.leader, leader.group.term) == (True, term)


async def test_a_voter_that_is_found_to_have_forgotten_while_it_is_fed_stays_out(world: Made) -> None:
    """RAFT rule 6: it comes back as a learner, with a state that holds all it had promised, or not at all."""
    three = await world(1, 2, 3)
    leader, behind = await lagging(three)
    three.fetch_gate.clear()
    back = await three.start(behind)
    hosted = back.host.groups[GROUP]
    await until(lambda: hosted.fetching is not None)
    more = peer_pb2.Promise(member=behind, boot=1, term=leader.group.term, index=10_000)
    back.host._reminded(hosted, leader.host.member, 1, leader.group.term, [more], forgot=False)
    assert back.host.standing(GROUP) is Standing.AMNESIAC
    three.fetch_gate.set()
    await asyncio.sleep(0.3)
    assert back.host.standing(GROUP) is Standing.AMNESIAC


async def test_who_asks_still_takes_no_state_of_a_leader_it_did_not_hear(world: Made) -> None:
    """Its acknowledgement would take the place of the promise by which others know that it forgot."""
    three = await world(1, 2, 3)
    await three.write(b"x")
    leader = await three.led()
    behind = next(member for member in three.members if member != leader.host.member)
    hosted = three.members[behind].host.groups[GROUP]
    assert hosted.recall is not None
    hosted.recall.standing, hosted.recall.heard = Standing.ASKING, set()
    sent: list[Wire] = []

    def note(message: Wire) -> bool:
        sent.append(message)
        return False

    three.hub.lost = note
    meta = peer_pb2.SnapshotMeta(index=50, term=leader.group.term, voters=peer_pb2.Voters(voters=[1, 2, 3]), transfer=bytes(16))
    told = Wire(group=GROUP, kind=Wire.KIND_SNAPSHOT, term=leader.group.term, snapshot=meta)
    three.members[behind].host.transfers.take(hosted, leader.host.member, told)
    assert hosted.fetching is None
    assert [one.reject for one in sent if one.kind == Wire.KIND_SNAPSHOT] == [True]


async def test_who_went_while_it_was_fed_counts_as_being_fed_no_longer(world: Made) -> None:
    """Placement feeds few members at once: one that never comes back must not hold a place for ever."""
    three = await world(1, 2, 3)
    leader, behind = await lagging(three)
    three.fetch_gate.clear()
    await three.start(behind)
    hosted = leader.host.groups[GROUP]
    await until(lambda: behind in hosted.pinned)
    await three.kill(behind)
    assert hosted.pinned == {}
    hosted.pinned[behind] = 5
    await leader.group.change(MembershipChange((Step(Act.REMOVE, behind),)))
    assert hosted.pinned == {}


async def test_a_leader_that_was_restarted_feeds_who_needs_entries_that_are_gone(world: Made) -> None:
    """Its journal begins before the last change of who takes part, and of the time before that change it knows no membership."""
    three = await world(1, 2, 3)
    leader, behind = await lagging(three)
    await leader.group.change(MembershipChange((Step(Act.ADD_LEARNER, 4),)))
    others = [number for number in three.members if number != behind]
    for word in (b"who takes part", b"is on disk"):
        await three.write(word)
        await three.same()
    for number in others:
        await three.kill(number)
    for number in others:
        await three.start(number)
    known = (await three.led()).group._tail
    assert known._memberships[0][0] > known.first_index()
    await three.start(behind)
    await three.write(b"after")
    await three.same()
