"""A store that is to lose, bring back or show what it must not: switches at the wrong moment, readers beside writers."""

from __future__ import annotations

from pathlib import Path

import pytest

from replica.model.batch import Batch
from replica.model.outcome import OutcomeKind
from replica.model.states import FeedState
from replica.store import SourceStore
from replica.store.edge_generation import Generation
from replica.store.edge_rocks import Rocks
from tests.unit.store.conftest import World
from tests.unit.store.support import SOURCE, Group, Source, delete, held, key, load, put, small_budget


async def staged(world: World, count: int = 100) -> Source:
    """A load of the present content, staged; returns the source as it was then."""
    world.group.append(world.source.cut([put(n) for n in range(count)]))
    then, digest = world.source.fork(), world.source.digest()
    world.group.load_begin(1, digest.position)
    await load(world.store, 1, dict(then.content), digest)
    world.group.load_staged(1)
    return then


async def test_a_side_generation_that_lacks_applied_changes_is_not_switched_to(granted: World) -> None:
    then = await staged(granted)
    missed = granted.source.cut([put(500)])
    assert granted.group.append(missed).kind is OutcomeKind.APPLIED  # for the live one alone, and receipted
    refused = granted.group.load_switch(1, then.digest())
    assert (refused.kind, granted.store.state().generation) == (OutcomeKind.GAP, 0)
    assert held(granted.store) == granted.source.content
    assert granted.group.append(missed, side=1).kind is OutcomeKind.ALREADY  # it comes again for the other one
    assert granted.group.load_switch(1, then.digest()).kind is OutcomeKind.APPLIED
    assert held(granted.store) == granted.source.content


async def test_two_people_may_switch_to_what_lacks_changes(granted: World) -> None:
    then = await staged(granted)
    granted.group.append(granted.source.cut([put(500)]))
    granted.group.hold(None, side=1)
    hold = granted.store.state().hold
    assert hold is not None
    granted.group.decide(hold.ident, release=True)
    assert granted.group.load_switch(1, then.digest()).kind is OutcomeKind.APPLIED
    assert held(granted.store) == then.content


async def test_a_switch_does_not_forget_a_fork(granted: World) -> None:
    then = await staged(granted)
    granted.group.mark(int(FeedState.FORKED), "forked", "the source went back")
    assert granted.group.load_switch(1, then.digest()).kind is OutcomeKind.CONFLICT
    assert granted.store.state().feed is FeedState.FORKED


async def test_what_came_behind_the_snapshot_is_compared_too(granted: World) -> None:
    """The live copy has a gap; a disaster that comes as batches for the side generation alone is seen before the switch."""
    granted.group.append(granted.source.cut([put(n) for n in range(100)]))
    granted.source.cut([put(900)])  # never reached the live one
    digest, content = granted.source.digest(), dict(granted.source.content)
    granted.group.load_begin(1, digest.position)
    for n in range(90):
        granted.group.append(granted.source.cut([delete(n)]), live=False, side=1)
    await load(granted.store, 1, content, digest)
    granted.group.load_staged(1)
    [found] = granted.store.difference(1)
    assert (found.removed, found.added) == (90, 1)
    granted.group.append(granted.source.cut([put(901)]), live=False, side=1)
    assert granted.group.load_switch(1, digest).kind is OutcomeKind.APPLIED
    assert held(granted.store) == granted.source.content


def test_a_record_read_while_quarantined_is_not_shown_because_it_was_corrected_meanwhile(
    granted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted.group.append(granted.source.cut([put(1, "bad")]), quarantined=[(0, "not_owner")])
    live = granted.store._live
    fixed: list[Batch] = [granted.source.cut([put(1, "good")])]
    hide = Generation._hide_quarantined

    def corrected_first(self: Generation, keys, values) -> None:  # type: ignore[no-untyped-def]
        while fixed:
            assert granted.group.append(fixed.pop()).kind is OutcomeKind.APPLIED
        hide(self, keys, values)

    monkeypatch.setattr(Generation, "_hide_quarantined", corrected_first)
    values, position = live.get_many([key(1)])
    assert values[0] is not None and b"bad" not in values[0]
    assert position == granted.source.head


def test_the_floor_is_found_without_stepping_over_what_was_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SourceStore.open(tmp_path / "store", SOURCE, small_budget(tmp_path, log_batches_max=64))
    source, group = Source(), Group(store)
    group.grant(source.grant())
    for n in range(300):
        group.append(source.cut([put(n)]))
    starts: list[bytes] = []
    rows = Rocks.rows

    def noted(self, start, stop, moment=None):  # type: ignore[no-untyped-def]
        starts.append(start)
        return rows(self, start, stop, moment)

    monkeypatch.setattr(Rocks, "rows", noted)
    floor = store.floor()
    assert int.from_bytes(starts[-1][-8:], "big") >= floor.seq > 0
    store.close()


def test_a_floor_remembered_is_the_floor(tmp_path: Path) -> None:
    store = SourceStore.open(tmp_path / "store", SOURCE, small_budget(tmp_path, log_batches_max=16))
    source, group = Source(), Group(store)
    group.grant(source.grant())
    for n in range(60):
        group.append(source.cut([put(n)]))
        floor = store.floor()
        assert store.changes_after(floor, 10**9) == [one.raw for one in source.batches if one.before.seq >= floor.seq]
    start = Source(source.head, source.content)
    group.grant(start.grant(epoch=2))
    assert store.floor() == start.head
    batch = start.cut([put(99)])
    group.append(batch)
    assert (store.floor(), store.changes_after(batch.before, 10**9)) == (batch.before, [batch.raw])
    store.close()
