"""RocksDB as the store uses it: options, one wrapper for all calls, library errors translated once.

Traps this file avoids (DESIGN 5, SEMANTICS 11):
(a) column-family options are passed again at each open, otherwise the stored ones come back with an 8 MB cache;
(b) an iterator ends silently at a damaged block, so `rows` is the only place that iterates, and it asks for the status;
(d) after a disk error the database stays failed: `failed` is kept, the owner reopens;
(f) errors are plain exceptions with a prefix.
No write-ahead log (the journal replays), `no_slowdown` in every write, one column family (rows.py says why).
"""

from __future__ import annotations

import resource
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import ref

from rocksdict import (
    BlockBasedOptions,
    Cache,
    Checkpoint,
    ChecksumType,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from replica.model.errors import Code, ZaibeiError
from replica.store.edge_disk import DiskLimits, DiskRoom, remove_tree

BLOB_OCTETS_MIN = 32 * 1024  # larger values (raw batches of the log, mostly) lie in blob files and are never compacted
BLOCK_OCTETS = 8 * 1024  # at 16 KiB a cold update costs twice as much to read (measured)
BLOCK_RESTARTS = 4  # keys between restart points: a cached read costs 2.7 µs instead of 3.1, for 1 octet a record (measured)
READAHEAD_OCTETS = 2 * 1024 * 1024
OPEN_FILES_MAX = 1 << 20  # what we raise our soft limit to where the system allows it
OPEN_FILES_SPARE = 256  # descriptors for sockets, the journal and Python itself
MEMTABLE_BLOOM_SHARE = 0.02  # of a memtable, taken at once: 54 bits a record of 240 octets
MEMTABLE_BLOCKS = 128  # a memtable grows by such parts: what an empty one takes, beside its filter, once anything is written
MEMTABLES_AHEAD = 8  # shares of the budget that one store's memtable may grow to: seldom are all stores busy
MEMTABLE_OCTETS_MIN = 64 * 1024


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """Limits over all stores of a member (SEMANTICS 11.5).

    Args:
        cache_octets: block cache; write_buffer_octets: memtables of all stores together.
        memtable_octets: one store's memtable at most (StoreBudget.memtable_octets_each); memtables_max: of one store.
        open_files: descriptors of all stores together; stores_max: how many stores share them.
        log_octets_max, log_batches_max: change log kept by one store; chains_max: boundaries kept, longer than the log.
        background_jobs: flush and compaction threads; compacts: files are merged in the background.
    """

    cache_octets: int = 256 * 1024 * 1024
    write_buffer_octets: int = 256 * 1024 * 1024
    memtable_octets: int = 32 * 1024 * 1024
    memtables_max: int = 4
    open_files: int = 4_096
    stores_max: int = 16
    log_octets_max: int = 256 * 1024 * 1024
    log_batches_max: int = 65_536
    chains_max: int = 262_144
    quarantine_memory_max: int = 100_000
    background_jobs: int = 2
    compacts: bool = True


class StoreBudget:
    """One memory, file and disk budget for all stores of a member.

    Args:
        folder: where the stores lie; its disk is watched.
    """

    def __init__(self, folder: Path, limits: BudgetLimits | None = None, disk: DiskLimits | None = None) -> None:
        self.limits = limits or BudgetLimits()
        self.cache = Cache.new_hyper_clock_cache(self.limits.cache_octets, BLOCK_OCTETS)  # no lock between readers
        self.buffers = WriteBufferManager(self.limits.write_buffer_octets, False)
        self.disk = DiskRoom(folder, disk or DiskLimits())

    @property
    def open_files_each(self) -> int:
        return max(64, self.limits.open_files // self.limits.stores_max)

    @property
    def memtable_octets_each(self) -> int:
        """One store's memtable, so that nearly empty ones of all stores take less than a quarter of `write_buffer_octets`.

        Were they to take half of it, RocksDB would flush at every write once as much again waited to be flushed, and so for good.
        """
        share = MEMTABLES_AHEAD * self.limits.write_buffer_octets // self.limits.stores_max
        return max(MEMTABLE_OCTETS_MIN, min(self.limits.memtable_octets, share))


def check_open_files(limits: BudgetLimits) -> None:
    """Raise the soft limit of open files as far as it goes: a store that cannot open a file stops intake, and connections of
    strangers count against the same limit.

    Raises:
        ZaibeiError(INVALID_CONFIG): the hard limit is too low; says what to set.
    """
    needed = limits.open_files + OPEN_FILES_SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ZaibeiError(
            Code.INVALID_CONFIG,
            f"{needed} open files are needed, the system allows {hard}: "
            "raise the limit (ulimit -n, LimitNOFILE) or lower open_files",
        )
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, max(needed, OPEN_FILES_MAX))
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def options(budget: StoreBudget | None = None) -> Options:
    """Options of a generation; without a budget those of a file writer or a builder in its own process."""
    limits = budget.limits if budget else BudgetLimits()
    made = Options(raw_mode=True)
    made.create_if_missing(True)
    memtable_octets = budget.memtable_octets_each if budget else limits.memtable_octets
    made.set_write_buffer_size(memtable_octets)
    made.set_arena_block_size(memtable_octets // MEMTABLE_BLOCKS)
    made.set_max_write_buffer_number(limits.memtables_max)
    made.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_SHARE)
    made.set_memtable_whole_key_filtering(True)
    table = BlockBasedOptions()
    table.set_block_cache(budget.cache if budget else Cache(8 * 1024 * 1024))
    table.set_block_size(BLOCK_OCTETS)
    table.set_block_restart_interval(BLOCK_RESTARTS)
    table.set_bloom_filter(10, False)
    table.set_format_version(5)
    table.set_checksum_type(ChecksumType.xxh3())
    made.set_block_based_table_factory(table)
    # lz4 at the bottom too: zstd takes 30 octets a record instead of 45, and a third off cold updates and cold reads (measured)
    made.set_compression_type(DBCompressionType.lz4())
    made.set_level_compaction_dynamic_level_bytes(True)
    made.set_max_background_jobs(limits.background_jobs)
    made.set_disable_auto_compactions(not limits.compacts)
    made.set_enable_blob_files(True)
    made.set_min_blob_size(BLOB_OCTETS_MIN)
    made.set_blob_file_size(64 * 1024 * 1024)
    made.set_enable_blob_gc(True)
    made.set_max_open_files(budget.open_files_each if budget else 256)
    # One shard: of 64 that share the open files the fuller ones open theirs anew all the time (reads cost twice: measured)
    made.set_table_cache_num_shard_bits(0)
    made.set_keep_log_file_num(2)
    made.set_max_log_file_size(1024 * 1024)
    made.set_stats_dump_period_sec(0)
    made.set_stats_persist_period_sec(0)
    if budget:
        made.set_write_buffer_manager(budget.buffers)
    return made


def write_options() -> WriteOptions:
    made = WriteOptions()
    made.no_slowdown = True  # a stalled write would hold every Python thread (SEMANTICS 11.3)
    made.disable_wal = True  # type: ignore[method-assign, assignment]  # a property, whatever its stub says
    return made


def new_batch() -> WriteBatch:
    return WriteBatch(raw_mode=True)


class Rocks:
    """One open database. Calls may come from any thread; `close` only when nobody else calls.

    Args:
        folder: its directory.
        what: for messages, e.g. "the store of 88.118".
    Raises:
        ZaibeiError: DAMAGED, DISK_FULL, DISK_FAILED, CONFLICT (another process has it open).
    """

    __slots__ = ("_db", "_walks", "_write_options", "failed", "folder", "what")

    def __init__(self, folder: Path, budget: StoreBudget | None, what: str) -> None:
        self.folder, self.what = folder, what
        self.failed: ZaibeiError | None = None
        made = options(budget)
        try:
            self._db = Rdict(str(folder), made, column_families={"default": made})
        except Exception as exc:
            raise translate(exc, f"opening {what}") from exc
        self._write_options = write_options()
        self._walks: set[ref[Generator[tuple[bytes, bytes]]]] = set()  # that are not over

    def get(self, key: bytes) -> bytes | None:
        """Value of one key. Raises ZaibeiError."""
        return self.get_many([key])[0]

    def get_many(self, keys: list[bytes]) -> list[bytes | None]:
        """Values of keys, all at one moment (one snapshot inside RocksDB); releases the GIL. Raises ZaibeiError."""
        try:
            found: list[bytes | None] = self._db.get(keys)  # type: ignore[arg-type, assignment]
        except Exception as exc:
            raise translate(exc, f"reading {self.what}") from exc
        return found

    def write(self, batch: WriteBatch) -> None:
        """All or nothing.

        Raises:
            ZaibeiError(BUSY): nothing was written; come again with a NEW batch. DISK_FULL, DISK_FAILED, DAMAGED: `failed` is set.
        """
        try:
            self._db.write(batch, self._write_options)
        except Exception as exc:
            raise self._broken(translate(exc, f"writing {self.what}")) from exc

    def flush(self) -> None:
        """Everything written before is on disk when this returns; releases the GIL. Raises ZaibeiError."""
        try:
            self._db.flush(True)
        except Exception as exc:
            raise self._broken(translate(exc, f"flushing {self.what}")) from exc

    def _broken(self, error: ZaibeiError) -> ZaibeiError:
        if error.code is not Code.BUSY:
            self.failed = error
        return error

    def moment(self) -> RdictIter:
        """The content at this moment, for `rows`. It holds back files and memtables: drop it soon, and before `close`.

        An iterator, because those of rocksdict's Snapshot read what is there now, not what was there then (seen with 0.3.29).
        Raises ZaibeiError.
        """
        how = ReadOptions()
        how.set_readahead_size(READAHEAD_OCTETS)
        return self._iterator(how)

    def _iterator(self, how: ReadOptions | None = None) -> RdictIter:
        try:
            return self._db.iter(how)
        except Exception as exc:
            raise translate(exc, f"reading {self.what}") from exc

    def rows(self, start: bytes, stop: bytes, moment: RdictIter | None = None) -> Generator[tuple[bytes, bytes]]:
        """Rows with start <= key < stop, ascending, at one moment: now, or a given one (which serves one caller at a time).

        Raises:
            ZaibeiError(DAMAGED): after the last row that could be read, when a file is damaged there.
        """
        walk = self._rows(start, stop, moment)
        self._walks.add(ref(walk, self._walks.discard))
        return walk

    def _rows(self, start: bytes, stop: bytes, moment: RdictIter | None) -> Generator[tuple[bytes, bytes]]:
        iterator = self.moment() if moment is None else moment
        valid, key, value, following = iterator.valid, iterator.key, iterator.value, iterator.next
        try:
            iterator.seek(start)
            while valid():
                at = key()
                if at >= stop:
                    return
                yield at, value()
                following()
            iterator.status()
        except Exception as exc:
            del iterator, moment, valid, key, value, following  # who keeps the error keeps this frame: see `close`
            raise translate(exc, f"reading {self.what}") from exc

    def first_keys(self, start: bytes, stop: bytes, count_max: int) -> list[bytes]:
        """At most that many keys with start <= key < stop; values are not read. Raises ZaibeiError."""
        found: list[bytes] = []
        iterator = self._iterator()
        try:
            iterator.seek(start)
            while len(found) < count_max and iterator.valid() and (key := iterator.key()) < stop:
                found.append(key)
                iterator.next()
            iterator.status()
        except Exception as exc:
            del iterator  # as in `_rows`
            raise translate(exc, f"reading {self.what}") from exc
        return found

    def ingest(self, files: Sequence[Path]) -> None:
        """Take finished sorted files in; they are moved. Raises ZaibeiError."""
        how = IngestExternalFileOptions()
        how.set_move_files(True)
        try:
            self._db.ingest_external_file([str(file) for file in files], how)
        except Exception as exc:
            raise translate(exc, f"taking files into {self.what}") from exc

    def compact(self) -> None:
        """Compact everything; for measurements and operators. Raises ZaibeiError."""
        try:
            self._db.compact_range(None, None)
        except Exception as exc:
            raise translate(exc, f"compacting {self.what}") from exc

    def checkpoint(self, folder: Path) -> None:
        """Link all files into a new folder, as they are now; holds the GIL, for 3 to 9 ms just after a flush (measured).

        Raises:
            ZaibeiError: nothing is left of it.
        """
        try:
            Checkpoint(self._db).create_checkpoint(str(folder))
        except Exception as exc:
            remove_tree(folder)
            raise translate(exc, f"holding the files of {self.what}") from exc

    def close(self, *, under_readers: bool = False) -> None:
        """Close; RocksDB flushes what it can. Raises ZaibeiError.

        As long as an iterator is left the database stays open, and cannot be opened again: rows that nobody reads to their end
        are given up, whoever still knows of them (the frames of an error that is kept, as a rule).

        Args:
            under_readers: somebody was waited for in vain, and is let read on: rows that end early would look like all of them.
        """
        for known in [] if under_readers else list(self._walks):
            if (walk := known()) is not None:
                walk.close()
        try:
            self._db.close()
        except Exception as exc:
            raise translate(exc, f"closing {self.what}") from exc

    def abandon(self) -> ZaibeiError | None:
        """Close a failed database: what it cannot write any more, the journal has. Returns what that was."""
        try:
            self.close()
        except ZaibeiError as exc:
            return exc
        return None


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
        return ZaibeiError(Code.CONFLICT, f"{what}: it is open already ({text})")
    if "Corruption" in text or "No such file" in text or "Invalid argument" in text:
        return ZaibeiError(
            Code.DAMAGED, f"{what}: its files are damaged ({text}); re-seed this source: its copy is loaded anew beside"
        )
    if "While pread" in text or "While reading" in text:  # one file's block, and nothing that was promised: others go on
        return ZaibeiError(Code.DAMAGED, f"{what}: a file cannot be read ({text}); look at the disk, then re-seed this source")
    return ZaibeiError(Code.DISK_FAILED, f"{what}: {text}", definite=False)
