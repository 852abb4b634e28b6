"""Stores that share a budget flush when they are asked to or have much, not at every write because there are many of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from replica.store.edge_rocks import BudgetLimits, Rocks, StoreBudget, new_batch
from tests.unit.store.support import NO_DISK_LIMITS

MEMORY, STORES = 64 << 20, 20
ROUNDS = 5


def _write(stores: Sequence[Rocks], number: int) -> None:
    for rocks in stores:
        batch = new_batch()
        batch.put(b"%06d" % number, b"x" * 20_000)
        rocks.write(batch)


def test_nearly_empty_memtables_of_all_stores_fit_the_budget(tmp_path: Path) -> None:
    """A flush of all at once is followed by none: seen with ten stores and 64 MB, a hundred flushes a second from then on."""
    budget = StoreBudget(tmp_path, BudgetLimits(write_buffer_octets=MEMORY, stores_max=STORES, compacts=False), NO_DISK_LIMITS)
    stores = [Rocks(tmp_path / str(number), budget, "a store") for number in range(STORES)]
    _write(stores, 0)
    assert budget.buffers.get_usage() < MEMORY / 4
    for rocks in stores:
        rocks.flush()
    for number in range(1, ROUNDS):
        _write(stores, number)
    for rocks in stores:
        rocks.close()  # flushes what the rounds wrote
    files = [len(list((tmp_path / str(number)).glob("*.sst"))) for number in range(STORES)]
    assert files == [2] * STORES
