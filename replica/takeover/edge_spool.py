"""Sorts what a ledger is made of on disk: a source's writes, the keys we wrote ourselves, what the ledger let in before.

One SQLite file in the member's folder, gone when it is closed; histories of any length need bounded memory. For worker threads.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from replica.model.errors import Code, ZaibeiError
from replica.model.ledger import Line, Verdict, Written
from replica.takeover.ledger import OurSide, SourceWrite, our_written

KEYS_AT_ONCE = 500
CACHE_KIB = 16 * 1024
_SCHEMA = """
CREATE TABLE theirs(key BLOB, seq INTEGER, value BLOB, certain INTEGER, PRIMARY KEY(key, seq DESC)) WITHOUT ROWID;
CREATE TABLE ours(key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE entered(key BLOB, value BLOB);
CREATE INDEX entered_key ON entered(key);
"""
Held = Callable[[Sequence[bytes]], Sequence[bytes | None]]
"""Values we hold, by key."""


class Spool:
    """See the module. `ours_known` False: our change log does not reach back to the common position."""

    def __init__(self, folder: Path) -> None:
        """Raises ZaibeiError(DISK_FULL, retry)."""
        self.ours_known = True
        try:
            self._file = tempfile.NamedTemporaryFile(dir=folder, prefix="ledger-", suffix=".db")  # noqa: SIM115 - see `close`
        except OSError as exc:
            raise _no_room(exc) from exc
        self._db = sqlite3.connect(self._file.name, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = OFF")
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._db.executescript(_SCHEMA)
        except sqlite3.OperationalError as exc:
            self.close()
            raise _no_room(exc) from exc

    def add_theirs(self, writes: Iterable[SourceWrite]) -> None:
        """Raises ZaibeiError(FORKED): another write of that key is known at that place."""
        for write in writes:
            row = (write.key, write.seq, write.value, write.certain)
            try:
                self._run("INSERT INTO theirs VALUES (?, ?, ?, ?)", row)
            except sqlite3.IntegrityError:
                known = self._db.execute("SELECT value FROM theirs WHERE key = ? AND seq = ?", row[:2]).fetchone()
                if known != (write.value,):
                    raise ZaibeiError(Code.FORKED, f"the source has two different changes at {write.seq}") from None

    def add_ours(self, keys: Iterable[bytes]) -> None:
        """Keys of our own history behind the common position, changes from the ledger included."""
        self._many("INSERT OR IGNORE INTO ours VALUES (?)", ((key,) for key in keys))

    def add_lines(self, lines: Iterable[Line]) -> None:
        """What the ledger let in already."""
        entered = ((line.key, line.theirs) for line in lines if line.verdict is Verdict.ENTERED)
        self._many("INSERT INTO entered VALUES (?, ?)", entered)

    def theirs(self) -> Iterator[SourceWrite]:
        """In the order `classify` reads."""
        for key, seq, value, certain in self._db.execute("SELECT key, seq, value, certain FROM theirs ORDER BY key, seq DESC"):
            yield SourceWrite(key, seq, value, bool(certain))

    def ours(self, held: Held) -> Iterator[OurSide]:
        """Our side of each key the source wrote, ascending."""
        after = b""
        while rows := self._db.execute(
            "SELECT DISTINCT key FROM theirs WHERE key > ? ORDER BY key LIMIT ?", (after, KEYS_AT_ONCE)
        ).fetchall():
            keys = [key for (key,) in rows]
            for key, value in zip(keys, held(keys), strict=True):
                yield OurSide(key, value, self.written(key, value))
            after = keys[-1]

    def written(self, key: bytes, value: bytes | None) -> Written:
        """Did we write that key ourselves since the common position?"""
        if self._db.execute("SELECT 1 FROM ours WHERE key = ?", (key,)).fetchone() is None:
            return Written.NO if self.ours_known else Written.UNKNOWN
        entered = self._db.execute("SELECT value FROM entered WHERE key = ?", (key,)).fetchall()
        return our_written(value, Written.YES, [one for (one,) in entered])

    def _run(self, text: str, row: Sequence[object]) -> None:
        try:
            self._db.execute(text, row)
        except sqlite3.OperationalError as exc:
            raise _no_room(exc) from exc

    def _many(self, text: str, rows: Iterable[Sequence[object]]) -> None:
        try:
            self._db.executemany(text, rows)
        except sqlite3.OperationalError as exc:
            raise _no_room(exc) from exc

    def close(self) -> None:
        self._db.close()
        self._file.close()


def _no_room(exc: Exception) -> ZaibeiError:
    return ZaibeiError(Code.DISK_FULL, f"no room to sort the ledger: {exc}", retry=True)
