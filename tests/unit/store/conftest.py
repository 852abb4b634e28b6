"""A store with a source that was granted its first epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replica.store import SourceStore, StoreBudget
from tests.unit.store.support import SOURCE, Group, Source, octets_add_up, small_budget


@dataclass
class World:
    """A store, its group's journal, the source; `restart` closes and opens as a new process would."""

    folder: Path
    budget: StoreBudget
    store: SourceStore
    group: Group
    source: Source

    def restart(self, *, replay: bool = True) -> SourceStore:
        self.store.close()
        self.store = SourceStore.open(self.folder, SOURCE, self.budget)
        if replay:
            self.group.replay(self.store)
        return self.store


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    budget = small_budget(tmp_path)
    store = SourceStore.open(tmp_path / "store", SOURCE, budget)
    made = World(tmp_path / "store", budget, store, Group(store), Source())
    yield made
    try:
        octets_add_up(made.store)
    finally:
        made.store.close()


@pytest.fixture
def granted(world: World) -> World:
    world.group.grant(world.source.grant())
    return world
