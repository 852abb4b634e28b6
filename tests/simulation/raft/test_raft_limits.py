"""Limits of the simulator: when a disk may go back, when it is good again, who hears a Hello, how long catching up takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replica.consensus.hello import Standing
from replica.consensus.raft.membership import Act, Membership, MembershipChange, Step
from replica.consensus.raft.values import Duties
from replica.model.outcome import EntryKind, LogEntry
from tests.simulation.raft.checks import GroupTruth
from tests.simulation.raft.disk import Save
from tests.simulation.raft.net import CALM
from tests.simulation.raft.setting import PLAIN
from tests.simulation.raft.world import World

REMOVAL = MembershipChange((Step(Act.REMOVE, 1),)).encode()
THREE, TWO = Membership(frozenset({1, 2, 3})), Membership(frozenset({2, 3}))


def running(ticks: float = 20.0) -> World:
    """Three sound members of one group, as they stand after so long without any fault."""
    world = World(replace(PLAIN, seed=1, ticks=ticks))
    for member in world.members.values():
        member.start()
    world.run_until(ticks)
    assert {member.seats[1].recall.standing for member in world.members.values()} == {Standing.SOUND}
    return world


def removal(index: int, term: int = 1) -> LogEntry:
    return LogEntry(index, term, REMOVAL, EntryKind.MEMBERSHIP)


def test_a_change_that_is_in_some_log_may_come_until_it_is_applied() -> None:
    truth = GroupTruth(1)
    truth.membership = THREE
    assert not truth.may_change()
    truth.appended(1, removal(2), 1)
    assert truth.may_change()
    truth.handed_out(1, removal(2), 1)
    assert truth.may_change()  # committed, and nobody has applied it yet
    truth.changed(1, 2, TWO)
    assert not truth.may_change()


def test_a_change_whose_place_another_entry_took_never_comes() -> None:
    truth = GroupTruth(1)
    truth.membership = THREE
    truth.appended(1, removal(2), 1)
    truth.handed_out(2, LogEntry(2, 2, b"other"), 2)
    assert not truth.may_change()


@pytest.mark.parametrize("applied", [False, True])
def test_no_disk_goes_back_over_a_change_that_nobody_has_applied(*, applied: bool) -> None:
    world = running()
    truth = world.truths[1]
    for member in world.members.values():
        member.set_apply_stands(not applied)
    world.desired[1] = frozenset({2, 3})
    world.later(0.0, world._operate)
    world.run_until(40.0)
    assert truth.changes
    assert len(truth.entries) >= truth.changes[-1].index  # committed
    assert bool(truth.memberships) is applied
    assert not world._can_spare(2)  # two voters are left, or soon will be
    assert world._can_spare(1) is applied


def test_a_disk_is_not_good_again_while_somebody_may_have_heard_of_more() -> None:
    world = running()
    machine = world.members[1]
    world.damaged = 1
    machine.boot_told += 1  # what an older disk does not know: a later opening
    world.check_damage()
    assert world.damaged == 1
    machine.boot_told -= 1
    term, index = machine.made[1]
    machine.made[1] = (term, index + 100)
    world.check_damage()
    assert world.damaged == 1
    machine.made[1] = (term, index)
    world.check_damage()
    assert world.damaged is None


def test_a_hello_is_heard_in_the_life_that_it_was_said_to() -> None:
    world = running()
    world.net.weather = replace(CALM, delay_min=3.0)
    heard: list[str] = []
    source, target = world.members[1], world.members[2]
    world.net.tell(source, 2, heard.append, "to a life that ends")
    target.stop()
    world.net.tell(source, 2, heard.append, "to the next")
    target.start()
    world.net.tell(source, 2, heard.append, "to this one")
    world.run_until(world.now + 5.0)
    assert sorted(heard) == ["to the next", "to this one"]


def test_catching_up_counts_entries_that_are_not_committed_yet() -> None:
    world = World(replace(PLAIN, append_octets=1, inflight_messages=1))
    for member in world.members.values():
        member.start()
    world.run_until(20.0)
    before = world._catch_up_ticks()
    for member in world.members.values():
        member.full = True  # no save ends: nothing is committed
    leader = world._leader_of(1)
    assert leader is not None
    for _ in range(50):
        world.clients.write(1)
    accepted = leader.seats[1].log.last_index() - len(world.truths[1].entries)
    assert accepted > 20
    assert world._catch_up_ticks() >= before + accepted * 2


def test_a_write_that_is_awaited_ends_the_flush_under_way_and_saves_end_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    world = running()
    member = world.members[1]
    seat = member.seats[1]
    ended: list[int] = []
    monkeypatch.setattr(member, "_saved", lambda op: ended.append(op.duties.number))

    def save(number: int) -> Save:
        return Save(1, Duties(number), seat, seat.life)

    for group in world.members.values():
        group.clock_stands = True  # nothing else is written meanwhile
    world.run_until(world.now + 10.0)
    ended.clear()
    member.write(save(101))
    under_way = member.flushes
    member.write_now(save(102))
    member.write(save(103))
    member.flushed(member.life, under_way, 1)  # as after a freeze: the flush of before ends late
    assert ended == []
    world.run_until(world.now + 10.0)
    assert ended == [101, 103]  # who awaited 102 does not wait to be told
