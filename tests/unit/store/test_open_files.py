"""A store that may keep its files open does: opening one anew reads its filter and index, for the answer to one name."""

from __future__ import annotations

import os
from pathlib import Path

from rocksdict import SstFileWriter

from replica.store.edge_rocks import BudgetLimits, Rocks, StoreBudget, options

FILES = 50  # with 64 descriptors, of which RocksDB keeps ten for itself


def test_as_many_files_as_may_be_open_stay_open(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:02}.sst" for number in range(FILES)]
    for number, path in enumerate(paths):
        writer = SstFileWriter(options())
        writer.open(str(path))
        writer[b"%02d" % number] = b"value"
        writer.finish()
    budget = StoreBudget(tmp_path, BudgetLimits(open_files=64, stores_max=1))
    assert budget.open_files_each == 64
    rocks = Rocks(tmp_path / "db", budget, "a store")
    rocks.ingest(paths)
    keys = [b"%02d" % number for number in range(FILES)]
    for _ in range(2):
        assert rocks.get_many(keys) == [b"value"] * FILES
    links = [Path(os.readlink(entry)) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
    assert sum(link.is_relative_to(tmp_path) and link.suffix == ".sst" for link in links) == FILES
    rocks.close()
