"""What the registry holds at the head of the agent's log: an SQLite file (records, boundaries with their digests, digest pages).

SQLite and not RocksDB: one file, in the standard library, an ordered scan at one exact position beside a writer, and its speed is
far above that of reading the files (measured in the project's bench). It is written after the log, without an fsync per
commit: the log replays what a power cut takes; the WAL is fsynced before the log lets go of anything.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from replica.agent.edge_segments import sync_folder
from replica.model.batch import OP_PUT
from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN, Position
from replica.native import SUMS_OCTETS, apply_delta, bucket_of, delta, sum_all

CONTENT_FORMAT = "1"
LOOKUP_KEYS_MAX = 500  # below SQLite's oldest limit of variables in one statement
FOLD_EVERY_DELTAS = 256  # a page write of 1.5 MB instead of deltas of 22 KB
BOUNDARIES_MAX = 1_000_000  # chain rows outlive the batches by far: 150 octets each
CACHE_KIB = 32 * 1024
WAL_OCTETS_KEPT = 32 * 1024 * 1024  # of what a long reading made it grow to; several times what usual writes need of it

_SCHEMA = """
CREATE TABLE IF NOT EXISTS content(key BLOB PRIMARY KEY, value BLOB NOT NULL, bucket INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS content_bucket ON content(bucket);
CREATE TABLE IF NOT EXISTS boundary(
    ordinal INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, lineage BLOB NOT NULL, chain BLOB NOT NULL,
    records INTEGER NOT NULL, total BLOB NOT NULL, certified INTEGER NOT NULL, UNIQUE(epoch, seq, lineage));
CREATE TABLE IF NOT EXISTS delta(ordinal INTEGER PRIMARY KEY, blob BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One batch ready to be stored: columns, the values they replace, the boundary after it; `certified`: for a certificate."""

    keys: Sequence[bytes]
    ops: bytes
    values: Sequence[bytes]
    olds: Sequence[bytes | None]
    after: Position
    certified: bool = False


@contextmanager
def translated(what: str) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.OperationalError as exc:
        code = getattr(exc, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_FULL:
            raise ZaibeiError(Code.DISK_FULL, f"no room to {what}: free some space, it goes on by itself", retry=True) from exc
        raise ZaibeiError(Code.DISK_FAILED, f"cannot {what}: {exc}", definite=False) from exc
    except sqlite3.DatabaseError as exc:
        raise ZaibeiError(
            Code.DAMAGED, f"cannot {what}: {exc}. Remove the agent's content file: it is built anew from its input"
        ) from exc


class Content:
    """The one writer of the file, and the sums of its digest in memory. Methods that write belong to one thread at a time."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self._db = db
        self._reader = connect(path, read_only=True)
        self._reading = threading.Lock()  # one connection serves short reads of every thread, also of the event loop
        self._lookups = connect(path, read_only=True)
        self._looking = threading.Lock()  # and one the long ones of appends
        self.sums = bytearray(SUMS_OCTETS)
        self.digest = ContentDigest(ORIGIN, 0, 0)
        self._deltas = 0

    @staticmethod
    def open(path: Path, source: str) -> Content:
        """Open or make the file; totals are checked against the sum of all buckets.

        Raises:
            ZaibeiError(DAMAGED): not ours, another format or source, or sums that do not add up.
        """
        with translated(f"open {path}"):
            fresh = not path.exists()
            db = connect(path)
            db.executescript(_SCHEMA)
            if fresh:
                sync_folder(path.parent)
            stored = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('format', 'source')"))
            if not stored:
                with db:
                    db.execute("BEGIN IMMEDIATE")
                    db.executemany("INSERT INTO meta VALUES (?, ?)", [("format", CONTENT_FORMAT), ("source", source)])
                    _boundary(db, ContentDigest(ORIGIN, 0, 0))
            elif stored != {"format": CONTENT_FORMAT, "source": source}:
                raise ZaibeiError(
                    Code.WRONG_SOURCE, f"{path} is of source {stored.get('source')!r}, format {stored.get('format')!r}"
                )
            content = Content(path, db)
            content._load()
        return content

    def _load(self) -> None:
        row = self._db.execute(
            "SELECT lineage, epoch, seq, chain, records, total FROM boundary ORDER BY ordinal DESC LIMIT 1"
        ).fetchone()
        self.digest = _digest_of(row)
        page = self._db.execute("SELECT value FROM meta WHERE name = 'sums'").fetchone()
        if page is not None:
            self.sums = bytearray(page[0])
        for (blob,) in self._db.execute("SELECT blob FROM delta ORDER BY ordinal"):
            apply_delta(self.sums, blob)
            self._deltas += 1
        if sum_all(self.sums) != (self.digest.records, self.digest.total):
            raise ZaibeiError(Code.DAMAGED, f"the digest pages of {self.path} do not add up to its total: remove the file")

    # ------------------------------------------------------------------------------------------------------------ writing

    def apply(self, steps: Sequence[Step]) -> list[tuple[ContentDigest, bytes]]:
        """Store batches in one transaction.

        Returns:
            For each the digest after it and the change of the sums, which the caller publishes with `publish`.
        """
        digests: list[tuple[ContentDigest, bytes]] = []
        records, total = self.digest.records, self.digest.total
        with translated("store the registry's content"), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for step in steps:
                blob, count_change, sum_change, _ = delta(list(step.keys), step.ops, list(step.values), list(step.olds))
                records, total = records + count_change, (total + sum_change) % (1 << 128)
                columns = zip(step.keys, step.values, step.ops, strict=True)
                puts = [(key, value, bucket_of(key)) for key, value, op in columns if op == OP_PUT]
                self._db.executemany("INSERT OR REPLACE INTO content VALUES (?, ?, ?)", puts)
                if len(puts) < len(step.keys):
                    gone = [(key,) for key, op in zip(step.keys, step.ops, strict=True) if op != OP_PUT]
                    self._db.executemany("DELETE FROM content WHERE key = ?", gone)
                self._db.execute("INSERT INTO delta(blob) VALUES (?)", (blob,))
                digest = ContentDigest(step.after, records, total)
                _boundary(self._db, digest, certified=step.certified)
                digests.append((digest, blob))
        return digests

    def publish(self, digests: Iterable[tuple[ContentDigest, bytes]]) -> None:
        """Move the sums and the digest on. In memory only and short: callers hold the lock that readers of the sums take."""
        for digest, blob in digests:
            apply_delta(self.sums, blob)
            self.digest = digest
            self._deltas += 1

    def begin_epoch(self, start: Position) -> None:
        """Note the first boundary of a granted epoch: the same content at a new position."""
        digest = ContentDigest(start, self.digest.records, self.digest.total)
        with translated("store a granted epoch"), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            _boundary(self._db, digest)
        self.digest = digest

    def replace(
        self, parts: Iterable[tuple[Sequence[bytes], Sequence[bytes]]], position: Position
    ) -> tuple[ContentDigest, bytearray]:
        """Store another content as a whole, at a position; in one transaction, so that a failure leaves the old one.

        Args:
            parts: (keys, values), keys ascending over all of them.
        Returns:
            Its digest and sums, which the caller publishes with `publish_whole`.
        """
        sums, records, total = bytearray(SUMS_OCTETS), 0, 0
        with translated("take a whole content"), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM content")
            for keys, values in parts:
                ops = bytes([OP_PUT]) * len(keys)
                blob, count_change, sum_change, _ = delta(list(keys), ops, list(values), [None] * len(keys))
                apply_delta(sums, blob)
                records, total = records + count_change, (total + sum_change) % (1 << 128)
                rows = [(key, value, bucket_of(key)) for key, value in zip(keys, values, strict=True)]
                self._db.executemany("INSERT INTO content VALUES (?, ?, ?)", rows)
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('sums', ?)", (bytes(sums),))
            self._db.execute("DELETE FROM delta")
            _boundary(self._db, ContentDigest(position, records, total))
        return ContentDigest(position, records, total), sums

    def publish_whole(self, digest: ContentDigest, sums: bytearray) -> None:
        """As `publish`, of a content that took the place of the one before."""
        self.digest, self.sums, self._deltas = digest, sums, 0

    def fold(self) -> None:
        """Write the sums as a whole when enough deltas lie behind them, and drop the oldest boundaries over BOUNDARIES_MAX."""
        if self._deltas < FOLD_EVERY_DELTAS:
            return
        with translated("fold the digest"), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('sums', ?)", (bytes(self.sums),))
            self._db.execute("DELETE FROM delta")
            self._db.execute("DELETE FROM boundary WHERE ordinal <= (SELECT max(ordinal) FROM boundary) - ?", (BOUNDARIES_MAX,))
        self._deltas = 0

    def sync(self) -> None:
        """Make every commit so far durable; the log may then release what they hold."""
        with translated("sync the content"):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        for name in (self.path, self.path.with_name(self.path.name + "-wal")):
            if name.exists():
                handle = os.open(name, os.O_RDONLY)
                try:
                    os.fsync(handle)
                except OSError as exc:
                    raise ZaibeiError(Code.DISK_FAILED, f"cannot fsync {name}: {exc}", definite=False) from exc
                finally:
                    os.close(handle)

    def note(self, name: str, value: str) -> None:
        """Keep a small fact, e.g. the newest receipt."""
        with translated("store a note"), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"note-{name}", value))

    # ------------------------------------------------------------------------------------------------------------ reading

    def noted(self, name: str) -> str | None:
        with translated("read a note"), self._reading:
            row = self._reader.execute("SELECT value FROM meta WHERE name = ?", (f"note-{name}",)).fetchone()
        return None if row is None else str(row[0])

    def values_of(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Present values by key, of any number of keys."""
        found: dict[bytes, bytes] = {}
        if not self.digest.records:
            return found
        with translated("read the content"), self._looking:
            for start in range(0, len(keys), LOOKUP_KEYS_MAX):
                part = keys[start : start + LOOKUP_KEYS_MAX]
                marks = ",".join("?" * len(part))
                found.update(self._lookups.execute(f"SELECT key, value FROM content WHERE key IN ({marks})", part))
        return found

    def bucket(self, number: int) -> list[tuple[bytes, bytes]]:
        """Records of one digest bucket, keys ascending."""
        with translated("read a bucket"), self._reading:
            return self._reader.execute("SELECT key, value FROM content WHERE bucket = ? ORDER BY key", (number,)).fetchall()

    def certified(self, position: Position) -> ContentDigest | None:
        """Digest at a boundary that was marked for a certificate when it was cut."""
        with translated("read a boundary"), self._reading:
            row = self._reader.execute(
                "SELECT lineage, epoch, seq, chain, records, total FROM boundary"
                " WHERE epoch = ? AND seq = ? AND lineage = ? AND certified",
                (position.epoch, position.seq, position.lineage),
            ).fetchone()
        digest = None if row is None else _digest_of(row)
        return digest if digest is not None and digest.position == position else None

    def boundaries_at(self, epoch: int, seq: int) -> list[ContentDigest]:
        """Boundaries known at a place with the digest there; more than one only where lineages meet."""
        with translated("read a boundary"), self._reading:
            rows = self._reader.execute(
                "SELECT lineage, epoch, seq, chain, records, total FROM boundary WHERE epoch = ? AND seq = ?", (epoch, seq)
            ).fetchall()
        return [_digest_of(row) for row in rows]

    def close(self) -> None:
        with self._reading:
            self._reader.close()
        with self._looking:
            self._lookups.close()
        self._db.close()


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection of its own; transactions are begun by hand."""
    db = sqlite3.connect(f"file:{path}{'?mode=ro' if read_only else ''}", uri=True, isolation_level=None, check_same_thread=False)
    if not read_only:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA journal_size_limit = {WAL_OCTETS_KEPT}")  # without one the file stays as long as it ever was
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return db


def _boundary(db: sqlite3.Connection, digest: ContentDigest, *, certified: bool = True) -> None:
    at = digest.position
    db.execute(
        "INSERT INTO boundary(epoch, seq, lineage, chain, records, total, certified) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (at.epoch, at.seq, at.lineage, at.chain, digest.records, digest.total.to_bytes(16, "little"), certified),
    )


def _digest_of(row: tuple[bytes, int, int, bytes, int, bytes]) -> ContentDigest:
    lineage, epoch, seq, chain, records, total = row
    return ContentDigest(Position(lineage, epoch, seq, chain), records, int.from_bytes(total, "little"))


class View:
    """A fixed look at the content: everything read through it is of one position. Close it: it holds back the file's clean-up."""

    def __init__(self, path: Path) -> None:
        with translated("read the content"):
            self._db = connect(path, read_only=True)
            self._db.execute("BEGIN")
            row = self._db.execute(
                "SELECT lineage, epoch, seq, chain, records, total FROM boundary ORDER BY ordinal DESC LIMIT 1"
            ).fetchone()
        self.digest = _digest_of(row)

    def scan(self, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Records from a key on, ascending."""
        with translated("read the content"):
            for row in self._db.execute("SELECT key, value FROM content WHERE key >= ? ORDER BY key", (start,)):  # noqa: UP028 - the next line says why
                yield row  # `yield from` closes the cursor with the generator, which fails once the view is closed

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()
