"""A snapshot that lacks what we gave a receipt for is never switched to unseen (SEMANTICS 3.3)."""

from __future__ import annotations

from replica.model.states import FeedState
from tests.simulation.feed_world import World, key, put
from tests.simulation.test_feed_planted import copied, run


def test_a_snapshot_behind_our_receipts_stays_beside() -> None:
    """The source proves our position and serves a snapshot of yesterday: the change since then was receipted."""
    world = World(3)
    copied(world, "A")
    yesterday = world.log.snapshot_parts()
    world.write(put("B"))
    run(world, 6)
    held = world.state().position
    assert [position for position, level in world.receipts if level == 2][-1] == held
    world.cut()
    world.write(put("C"))
    world.log.forget_before(world.log.head())
    world.log.snapshot_parts = lambda: yesterday  # type: ignore[method-assign]
    world.connect()
    run(world, 30)
    state = world.state()
    assert (state.feed, state.position) == (FeedState.HELD, held)
    assert state.hold is not None and "lacks changes we gave a receipt for" in state.hold.reason
    assert key("B") in world.store.content
