"""The journal's rows in RocksDB: opening with a walk over every group, writing operations, flushing, reading."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rocksdict import Rdict, WriteBatch

from replica.consensus import edge_rocks, record
from replica.consensus.journal_ops import Append, DropAfter, DropTo, Keep, Op, RaiseBoot, Register, Retire, SetMarks
from replica.consensus.port import KEPT_KINDS, HardState, Recovered
from replica.consensus.walk import walk
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry

READ_KEYS_AT_ONCE = 16
INDEX_END = 2**64 - 1


@dataclass(slots=True)
class GroupFound:
    """A group as the walk found it."""

    number: int
    name: str
    recovered: Recovered
    octets: int


@dataclass(slots=True)
class JournalRows:
    """An open journal. Use by one thread, `read` by any."""

    folder: Path
    db: Rdict
    meta: record.Meta
    groups: dict[str, GroupFound] = field(default_factory=dict)
    closed: bool = False
    close_trouble: ZaibeiError | None = None  # why closing failed; for a person

    @classmethod
    def open(cls, folder: Path) -> JournalRows:
        """Open or make the journal, with a new boot number that is flushed, and walk every group.

        Raises:
            ZaibeiError: DISK_FULL, DISK_FAILED, DAMAGED, CONFLICT.
        """
        db = edge_rocks.open_rocks(folder)
        opened = cls(folder, db, record.Meta(0, 1, b""))
        try:
            row = edge_rocks.values(db, [record.META_KEY])[0]
            old = record.decode_meta(row) if row else record.Meta(0, 1, os.urandom(record.IDENTITY_OCTETS))
            opened.meta = record.Meta(old.boot + 1, old.next_number, old.identity)
            for key, value in edge_rocks.rows(db, b"g", b"h"):
                name, number = key[1:].decode(), record.decode_group(value)
                opened.groups[name] = opened.walk_group(name, number)
            batch = WriteBatch(raw_mode=True)
            batch.put(record.META_KEY, record.encode_meta(opened.meta))
            edge_rocks.write(db, batch, edge_rocks.write_options())
            edge_rocks.flush_wal(db)
        except ZaibeiError:
            opened.close()
            raise
        return opened

    def walk_group(self, name: str, number: int) -> GroupFound:
        """Walk one group's rows; damage is part of the result."""
        hard_row, marks_row = edge_rocks.values(self.db, [record.hard_key(number), record.marks_key(number)])
        hard = record.decode_hard(hard_row) if hard_row else HardState()
        marks = record.decode_marks(marks_row) if marks_row else record.Marks()
        recovered, octets = walk(number, self._entry_rows(number, marks.floor + 1), marks, hard)
        rows = edge_rocks.values(self.db, [record.kept_key(kind, number) for kind in KEPT_KINDS])
        kept = {kind: record.decode_kept(kind, number, row) for kind, row in zip(KEPT_KINDS, rows, strict=True) if row}
        return GroupFound(number, name, replace(recovered, kept=kept), octets)

    def _entry_rows(self, number: int, first: int) -> Iterator[tuple[int, bytes]]:
        stop = record.entry_key(number + 1, 0)
        for key, row in edge_rocks.rows(self.db, record.entry_key(number, first), stop):
            yield record.entry_index(key), row

    def read(self, number: int, first: int, last: int, octets_max: int) -> list[LogEntry]:
        """Entries first..last, until octets_max is passed. Raises ZaibeiError(DAMAGED)."""
        found: list[LogEntry] = []
        octets = 0
        while first <= last and octets <= octets_max:
            indexes = range(first, min(last + 1, first + READ_KEYS_AT_ONCE))
            rows = edge_rocks.values(self.db, [record.entry_key(number, index) for index in indexes])
            for index, row in zip(indexes, rows, strict=True):
                if row is None:
                    raise ZaibeiError(Code.DAMAGED, f"the journal lost the record at index {index}")
                found.append(record.decode_entry(number, index, row))
                octets += len(row)
                if octets > octets_max:
                    break
            first = found[-1].index + 1
        return found

    def write(self, ops: Sequence[Op]) -> None:
        """Write operations in one RocksDB write, unflushed. Repeating it is harmless.

        Raises:
            ZaibeiError: BUSY (nothing written, call again), DISK_FULL, DISK_FAILED, DAMAGED.
        """
        batch = WriteBatch(raw_mode=True)
        for op in ops:
            self._put(batch, op)
        edge_rocks.write(self.db, batch, edge_rocks.write_options())

    def _put(self, batch: WriteBatch, op: Op) -> None:
        number = op.number
        match op:
            case Append():
                for entry in op.entries:
                    batch.put(record.entry_key(number, entry.index), record.encode_entry(number, entry))
                if op.hard is not None:
                    batch.put(record.hard_key(number), record.encode_hard(op.hard))
            case Keep():
                batch.put(record.kept_key(op.kind, number), record.encode_kept(op.kind, number, op.row))
            case DropAfter():
                batch.delete_range(record.entry_key(number, op.index + 1), record.entry_key(number, INDEX_END))
                batch.put(record.marks_key(number), record.encode_marks(op.marks))
            case DropTo():
                start, end = (0, INDEX_END) if op.all_rows else (op.old_floor + 1, op.index + 1)
                batch.delete_range(record.entry_key(number, start), record.entry_key(number, end))
                batch.put(record.marks_key(number), record.encode_marks(record.Marks(op.index, op.term, op.flushed)))
            case RaiseBoot():
                self.meta = record.Meta(max(self.meta.boot, op.boot), self.meta.next_number, self.meta.identity)
                batch.put(record.META_KEY, record.encode_meta(self.meta))
            case Register():
                next_number = max(self.meta.next_number, number + 1)
                self.meta = record.Meta(self.meta.boot, next_number, self.meta.identity)
                batch.put(record.META_KEY, record.encode_meta(self.meta))
                batch.put(record.group_key(op.name), record.encode_group(number))
            case Retire():
                batch.delete_range(record.entry_key(number, 0), record.entry_key(number, INDEX_END))
                kept = [record.kept_key(kind, number) for kind in KEPT_KINDS]
                for key in (record.group_key(op.name), record.hard_key(number), record.marks_key(number), *kept):
                    batch.delete(key)
            case SetMarks():
                batch.put(record.marks_key(number), record.encode_marks(op.marks))

    def flush(self) -> None:
        """Raises ZaibeiError(DISK_FAILED): for good."""
        edge_rocks.flush_wal(self.db)

    def close(self) -> None:
        """Close; never raises: what was flushed is on disk already."""
        self.closed = True
        try:
            self.db.close()
        except Exception as exc:  # noqa: BLE001  a failed database cannot be closed cleanly, and need not
            self.close_trouble = edge_rocks.translate(exc, "closing the journal")
