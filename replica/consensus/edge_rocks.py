"""RocksDB for the journal: options, the one place that iterates, and library errors translated once.

Traps this file avoids (DESIGN 5): column-family options must be passed again at each open (a), an iterator ends silently at a
damaged block and only its status tells (b), errors are plain exceptions with a prefix (f).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rocksdict import DBCompressionType, DBRecoveryMode, Options, Rdict, WriteBatch, WriteOptions

from replica.model.errors import Code, ZaibeiError

WRITE_BUFFER_OCTETS = 128 * 1024 * 1024  # four flushes of a store: most of what is in it was truncated before it is written out
OPEN_FILES_MAX = 64
KEEP_LOG_FILES = 2
LOG_FILE_OCTETS_MAX = 1024 * 1024
L0_COMPACTION_TRIGGER = 2  # most rows are dropped before they are old: compacting early gives their room back


def options() -> Options:
    made = Options(raw_mode=True)
    made.create_if_missing(True)
    made.set_write_buffer_size(WRITE_BUFFER_OCTETS)
    made.set_compression_type(DBCompressionType.none())
    made.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    made.set_level_zero_file_num_compaction_trigger(L0_COMPACTION_TRIGGER)
    made.set_max_open_files(OPEN_FILES_MAX)
    made.set_keep_log_file_num(KEEP_LOG_FILES)
    made.set_max_log_file_size(LOG_FILE_OCTETS_MAX)
    made.set_stats_dump_period_sec(0)
    made.set_stats_persist_period_sec(0)
    return made


def write_options() -> WriteOptions:
    made = WriteOptions()
    made.no_slowdown = True  # a stalled write would hold every Python thread (SEMANTICS 11.3)
    return made


def open_rocks(folder: Path) -> Rdict:
    """Raises ZaibeiError: DISK_FULL, DISK_FAILED, DAMAGED, CONFLICT (another process has it open)."""
    try:
        return Rdict(str(folder), options(), column_families={"default": options()})
    except Exception as exc:
        raise translate(exc, f"opening the journal {folder}") from exc


def write(db: Rdict, batch: WriteBatch, how: WriteOptions) -> None:
    """Raises ZaibeiError: BUSY (again with a new batch), DISK_FULL, DISK_FAILED, DAMAGED."""
    try:
        db.write(batch, how)
    except Exception as exc:
        raise translate(exc, "writing to the journal") from exc


def flush_wal(db: Rdict) -> None:
    """Raises ZaibeiError(DISK_FAILED), whatever the cause: after a failed flush nobody knows what is on disk."""
    try:
        db.flush_wal(True)
    except Exception as exc:
        raise ZaibeiError(
            Code.DISK_FAILED,
            f"a flush of the journal failed ({exc}): this member must stop; check the disk, then start again",
            definite=False,
        ) from exc


def rows(db: Rdict, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All rows with start <= key < stop, ascending.

    Raises:
        ZaibeiError(DAMAGED): after the last row that could be read, when a file is damaged there.
    """
    try:
        iterator = db.iter()
        iterator.seek(start)
        while iterator.valid():
            key = iterator.key()
            if key >= stop:
                return
            yield key, iterator.value()
            iterator.next()
        iterator.status()
    except GeneratorExit:
        raise
    except Exception as exc:
        raise translate(exc, "reading the journal") from exc


def values(db: Rdict, keys: list[bytes]) -> list[bytes | None]:
    """Values of keys; releases the GIL. Raises ZaibeiError."""
    try:
        found: list[bytes | None] = db.get(keys)  # type: ignore[assignment, arg-type]
    except Exception as exc:
        raise translate(exc, "reading the journal") from exc
    return found


def translate(exc: Exception, what: str) -> ZaibeiError:
    """RocksDB's exception in our words."""
    if isinstance(exc, ZaibeiError):
        return exc
    text = str(exc)
    if "Result incomplete" in text:
        return ZaibeiError(Code.BUSY, f"{what}: RocksDB asks to wait ({text})", retry=True)
    if "No space left" in text or "Space limit" in text:
        return ZaibeiError(Code.DISK_FULL, f"{what}: the disk is full ({text}); free room, intake resumes by itself", retry=True)
    if "Too many open files" in text:  # like a full disk: nothing is wrong with the data, and it passes
        message = f"{what}: no file can be opened ({text}); raise the limit (ulimit -n, LimitNOFILE), intake resumes by itself"
        return ZaibeiError(Code.DISK_FULL, message, retry=True)
    if "lock hold" in text or "While lock file" in text:
        return ZaibeiError(Code.CONFLICT, f"{what}: another process has it open ({text})")
    if text.startswith("Corruption") or "Corruption:" in text:
        return ZaibeiError(
            Code.DAMAGED,
            f"{what}: its files are damaged ({text}); move the journal's folder away: groups then start where their stores "
            "stand. A member of a cluster has lost its promises with it: there, zaibei cluster replace MEMBER",
        )
    return ZaibeiError(Code.DISK_FAILED, f"{what}: {text}", definite=False)
