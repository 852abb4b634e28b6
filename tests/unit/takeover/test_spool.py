"""The file that sorts a ledger: a disk without room is an error of ours, at its making too, and is tried again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replica.model.errors import Code, ZaibeiError
from replica.takeover.edge_spool import Spool
from replica.takeover.ledger import SourceWrite


def full_after(pages: int) -> Callable[..., sqlite3.Connection]:
    """SQLite on a disk with so much room."""
    connect = sqlite3.connect

    def connected(*args: Any, **how: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **how)
        db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    return connected


@pytest.mark.parametrize("pages", [1, 8])
def test_a_full_disk_is_told_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    """One page: none of its tables could be made. Whoever gives a registry back tries again, and does not stop for good."""
    monkeypatch.setattr(sqlite3, "connect", full_after(pages))
    with pytest.raises(ZaibeiError, match="full") as caught:
        spool = Spool(tmp_path)
        try:
            spool.add_theirs(SourceWrite(b"key %d" % number, number, bytes(500)) for number in range(1_000))
        finally:
            spool.close()
    assert (caught.value.code, caught.value.trouble.retry) == (Code.DISK_FULL, True)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_takes_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ZaibeiError) as caught:
        Spool(tmp_path / "none")
    assert (caught.value.code, caught.value.trouble.retry) == (Code.DISK_FULL, True)
