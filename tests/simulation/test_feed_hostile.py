"""Interleavings in which a copy would lose, invent or lie about a record: each scenario was red before its rule stood."""

from __future__ import annotations

import pytest

from replica.feed.commands import Command
from replica.feed.session import ReplicaSession
from replica.model.errors import Code
from replica.model.states import FeedState, ReceiptLevel
from replica.v1 import entry_pb2, source_pb2
from tests.simulation.feed_world import World, delete, put

NAMES = [f"R{place}" for place in range(300)]


def run(world: World, steps: int) -> None:
    for _ in range(steps):
        world.step()
        world.check()


def copied(world: World) -> None:
    world.write(*[put(name) for name in NAMES])
    world.connect()
    run(world, 14)
    assert world.caught_up()


def decide(world: World, *, release: bool) -> None:
    """Two people act, whether anybody is connected or not."""
    hold = world.state().hold
    assert hold is not None
    body = entry_pb2.HoldDecision(hold=hold.ident, release=release)
    body.approvals.extend(entry_pb2.Approval(operator=name) for name in ("an", "bo"))
    world.journal.append((None, 0, entry_pb2.Entry(format=1, decision=body).SerializeToString()))
    world.commit()


def source_wants_a_snapshot(world: World) -> None:
    fault = source_pb2.Fault(code=str(Code.SNAPSHOT_WANTED), message="take the full content", retry=True)
    world.down.append(source_pb2.SourceMessage(fault=fault))


def loading_beside(world: World, slow: int) -> None:
    """A load runs, and the live copy has no gap."""
    world.slow_load = slow
    source_wants_a_snapshot(world)
    run(world, 8)
    side = world.state().side
    assert side is not None and side.position == world.state().position


def receipted(world: World) -> int:
    return max(position.seq for position, level in world.receipts if level == ReceiptLevel.QUORUM)


def never_back(world: World, steps: int) -> None:
    """The copy never stands before what it gave a receipt for."""
    for _ in range(steps):
        world.step()
        world.check()
        assert world.state().position.seq >= receipted(world), "what had a receipt is gone:\n" + "\n".join(world.history[-30:])


@pytest.mark.parametrize("connected", [True, False])
def test_a_batch_released_while_a_load_runs_is_not_lost_by_the_switch(connected: bool) -> None:
    """The release applies it to the live generation alone: the loading one must get it too before it may take over."""
    world = World(1)
    copied(world)
    loading_beside(world, slow=60)
    world.write(*[delete(name) for name in NAMES[:150]])
    run(world, 6)
    assert world.state().feed is FeedState.HELD
    if not connected:
        world.cut()
    decide(world, release=True)
    world.write(put("AFTER"))
    if not connected:
        world.connect()
    never_back(world, 400)
    assert world.caught_up() and world.state().feed is FeedState.FLOWING


class LongCompare(World):
    """A comparison reads long: its result is of the moment it began."""

    waits = 12

    def _compare(self, session: ReplicaSession, side: int) -> list[Command]:
        found = self.store.difference(side)
        left = self.waits

        def result(again: ReplicaSession) -> list[Command]:
            nonlocal left
            left -= 1
            if left:
                self._job(result)
                return []
            return again.difference(found, self.now)

        self._job(result)
        return []


def test_what_comes_while_a_side_generation_is_compared_is_judged() -> None:
    """The live copy has a gap, so changes go to the side one alone: a mass delete must not slip through beside the comparison."""
    world = LongCompare(2)
    copied(world)
    world.cut()
    world.write(put("LOST-1"))
    world.log.forget_before(world.log.head())
    world.connect()
    for _ in range(60):
        world.step()
        world.check()
        if world.session is not None and world.session.load.step.value == "comparing":
            break
    else:
        raise AssertionError("never compared")
    world.write(*[delete(name) for name in NAMES[:200]])
    run(world, 300)
    assert world.state().feed is FeedState.HELD, "\n".join(world.history[-30:])
    assert sum(len(content) for content in [world.store.content]) >= len(NAMES)


@pytest.mark.parametrize("release", [True, False])
def test_a_decision_taken_while_nobody_is_connected_counts(release: bool) -> None:
    world = World(3)
    copied(world)
    world.cut()
    world.write(*[delete(name) for name in NAMES[:150]])
    world.write(put("LATER"))
    world.log.forget_before(world.log.head())
    world.connect()
    run(world, 60)
    state = world.state()
    assert state.feed is FeedState.HELD and state.hold is not None and state.hold.side
    world.cut()
    decide(world, release=release)
    held = sum(line.startswith("entry hold") for line in world.history)
    world.connect()
    run(world, 40)
    assert sum(line.startswith("entry hold") for line in world.history) == held, "held again, as if nobody had decided"
    assert world.caught_up() is release
    if not release:
        assert any(line.startswith("entry load_abort") for line in world.history)


def test_received_is_said_of_what_is_stored_only() -> None:
    """A second hold is not stored: it waits behind the first."""
    world = World(4)
    copied(world)
    other = entry_pb2.HoldBatch(side=0, follows=world.state().position.to_wire(), reason="an earlier one", batch=b"x")
    world.write(*[delete(name) for name in NAMES[:150]])
    entry = entry_pb2.Entry(format=1, hold=other)
    world.journal.append((None, 0, entry.SerializeToString()))
    run(world, 6)
    assert world.state().feed is FeedState.HELD
    assert not [level for _, level in world.receipts if level == ReceiptLevel.RECEIVED]


def test_a_rewound_head_vouches_for_nothing() -> None:
    """While a batch waits for two people nothing else is judged; the source is restored from an old backup meanwhile."""
    world = World(5)
    copied(world)
    back = world.log.head()
    world.write(put("B"))
    run(world, 6)
    world.write(*[delete(name) for name in NAMES[:150]])
    run(world, 6)
    assert world.state().feed is FeedState.HELD
    world.log.rewind(back)
    world.log.contents[back] = dict(world.log.content)
    world.write(put("X"), put("Y"))  # another history, at no boundary of ours
    world.log.rewind(back)
    world.write(put("X", "https://other.cn/"))  # and one at the very seq of ours
    run(world, 250)
    age = world.age.age_ms(world.boot_ns)
    assert age is None or age > 2_000


def test_questions_for_an_epoch_cost_one_entry() -> None:
    world = World(6)
    copied(world)
    ask = source_pb2.EpochRequest(head=world.log.head().to_wire(), reason="again and again")
    for _ in range(200):
        world.down.append(source_pb2.SourceMessage(epoch_request=ask))
    run(world, 60)
    assert sum(line.startswith("entry epoch_ask") for line in world.history) <= 2
