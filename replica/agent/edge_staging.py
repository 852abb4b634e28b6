"""Rows of the input, sorted on disk: a million lines never lie in memory as objects. And the file of lines that were left out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from replica.agent.edge_content import translated
from replica.agent.readers import Reject, Staged
from replica.model.errors import Code, ZaibeiError

ROWS_IN_MEMORY_MAX = 2_000
SORT_CACHE_KIB = 32 * 1024
REJECTS_WRITTEN_MAX = 100_000
FILES_SHIFT = 40  # line numbers carry the number of their file above this bit


class Staging:
    """A scratch table, deleted at the end; sorted by SQLite, which spills to disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[tuple[bytes, int, int, bytes, bytes]] = []
        path.unlink(missing_ok=True)
        with translated("stage the input"):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = OFF")
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute(f"PRAGMA cache_size = -{SORT_CACHE_KIB}")
            self._db.execute("PRAGMA temp_store = FILE")
            self._db.execute("CREATE TABLE staged(key BLOB, ordinal INTEGER, line INTEGER, payload BLOB, spelling BLOB)")
            self._db.execute("BEGIN")

    def add(self, row: Staged, file_number: int) -> None:
        line = file_number << FILES_SHIFT | row.line
        self._rows.append((row.key, row.ordinal, line, row.payload, row.spelling))
        if len(self._rows) >= ROWS_IN_MEMORY_MAX:
            self._flush()

    def _flush(self) -> None:
        with translated("stage the input"):
            self._db.executemany("INSERT INTO staged VALUES (?, ?, ?, ?, ?)", self._rows)
        self._rows.clear()

    def sorted_rows(self) -> Iterator[Staged]:
        """All rows by (key, ordinal, line)."""
        self._flush()
        with translated("sort the input"):
            query = "SELECT key, ordinal, line, payload, spelling FROM staged ORDER BY key, ordinal, line"
            for key, ordinal, line, payload, spelling in self._db.execute(query):
                yield Staged(key, ordinal, line, payload, spelling)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._db.close()
        self._path.unlink(missing_ok=True)


class RejectsFile:
    """Lines that were left out in the newest reading, one JSON object each; replaced at every reading."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._path, self._names = path, names
        self.count = 0
        with self._writing():
            self._file = path.with_suffix(".new").open("w", encoding="utf-8")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ZaibeiError(Code.DISK_FAILED, f"cannot write {self._path}: {exc}") from exc

    def add(self, reject: Reject, file_number: int | None = None) -> None:
        """`file_number` None: the line number carries it (rows that came back from Staging). Raises ZaibeiError(DISK_FAILED)."""
        line = reject.line
        if file_number is None:
            file_number, line = line >> FILES_SHIFT, line & ((1 << FILES_SHIFT) - 1)
        self.count += 1
        if self.count <= REJECTS_WRITTEN_MAX:
            entry = {"file": self._names[file_number], "line": line, "reason": _plain(reject.reason), "text": reject.text}
            with self._writing():
                self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Raises ZaibeiError(DISK_FAILED): the list of the reading before stays."""
        with self._writing():
            self._file.close()
            self._path.with_suffix(".new").replace(self._path)


def _plain(reason: str) -> str:
    """Line numbers inside a reason without the number of their file."""
    low = (1 << FILES_SHIFT) - 1
    return " ".join(str(int(word) & low) if word.isdigit() and len(word) < 20 else word for word in reason.split(" "))
