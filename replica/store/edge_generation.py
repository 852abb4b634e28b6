"""One generation: an open database with what is kept in memory beside it (digest sums, counts, quarantine).

Each change is one write: records, log row, boundary, digest change, counts and the position row together. Memory follows only
after the write succeeded, so BUSY leaves nothing half done. Changes come from the apply thread alone; reads from any thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat
from pathlib import Path

from rocksdict import RdictIter, WriteBatch

from replica import native
from replica.model.audit_documents import TENANTS
from replica.model.batch import OP_DELETE, OP_PUT, Batch
from replica.model.brake import Count, LiveCounts
from replica.model.digest import BUCKETS, LEVEL1_BUCKETS, MODULUS, SUM_OCTETS, ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import END, ROUTE, parent
from replica.model.position import Position
from replica.store.edge_log import ChangeLog, Pruned
from replica.store.edge_rocks import Rocks, StoreBudget, new_batch
from replica.store.rows import (
    POSITION_KEY,
    Kind,
    OctetsRow,
    PositionRow,
    after_kind,
    check_identity,
    count_row,
    history_of,
    history_row,
    identity_row,
    number_of,
    numbered,
    placed,
    stored_key,
)

PAGE_OCTETS = BUCKETS // LEVEL1_BUCKETS * SUM_OCTETS
FOLD_ROWS_MAX = 4_096
FOLD_OCTETS_MAX = 4 * 1024 * 1024  # digest changes are folded into the pages behind this many rows or octets
READ_ATTEMPTS_MAX = 8
HISTORY_ROWS_AT_ONCE = 1_000


def generation_folder(folder: Path, number: int, copy: int = 0) -> Path:
    """`copy`: how often it was installed anew from another member."""
    return folder / (f"gen-{number}.{copy}" if copy else f"gen-{number}")


def count_part(key: bytes) -> bytes:
    """Prefix part a record is counted under. OIDs and route records have one each: they count with their parent."""
    part = key.partition(END)[0]
    return (parent(part) or part) if key[:1] in (ROUTE, b"o") else part


def count_parts(keys: Sequence[bytes]) -> dict[bytes, int]:
    """How many of the keys are counted under which part; a batch of one prefix, the usual one, costs 40 ns a record."""
    if not keys:
        return {}
    first = keys[0]
    if first[:1] not in (ROUTE, b"o"):
        end = first.find(END) + 1
        head = first[:end]
        if head and all(map(bytes.startswith, keys, repeat(head))):
            return {head[:-1]: len(keys)}
    return Counter(map(count_part, keys))


def about_tenants(keys: Sequence[bytes], values: Sequence[bytes | None]) -> int:
    """Octets of the documents about a tenant among records; of a value None its key counts nothing either."""
    pairs = zip(keys, values, strict=True)
    return sum(len(key) + len(value) for key, value in pairs if value is not None and key.startswith(TENANTS))


@dataclass(slots=True)
class Change:
    """A change on its way into one write. `effects` on memory are carried out when the write succeeded."""

    wb: WriteBatch
    position: Position
    records: int
    total: int
    delta: bytes = b""
    counts: dict[bytes, int] = field(default_factory=dict)  # part -> difference
    touched: list[Count] = field(default_factory=list)
    octets: int = 0  # difference of all, and of the documents about a tenant
    about: int = 0
    quarantine: dict[bytes, str] = field(default_factory=dict)
    cleared: list[bytes] = field(default_factory=list)
    log_octets: int = 0
    boundary: bool = False


class Generation:
    """Open one with `create` or `open`."""

    def __init__(self, rocks: Rocks, number: int, budget: StoreBudget) -> None:
        self.rocks, self.number = rocks, number
        self.readers = 0  # pins, under the store's lock
        self.row = PositionRow()
        self.sums = bytearray(BUCKETS * SUM_OCTETS)
        self.counts = LiveCounts()
        self.octets: OctetsRow | None = None  # not known: of a store that was written without
        self.moved = OctetsRow()  # by how much they changed since this was opened
        self.quarantined: dict[bytes, str] = {}
        self.quarantined_total = 0
        self.quarantine_version = 0
        self.log = ChangeLog(rocks, budget.limits)
        self._quarantine_memory_max = budget.limits.quarantine_memory_max
        self._delta_first = self._delta_next = 0
        self._delta_octets = 0
        self._dirty: set[int] = set()
        self._row_seen: tuple[bytes, Position] = (b"", self.row.position)

    # ------------------------------------------------------------------------------------------------- opening
    @staticmethod
    def create(folder: Path, source: str, number: int, budget: StoreBudget) -> Generation:
        """An empty generation in a new directory, durable. Raises ZaibeiError."""
        rocks = Rocks(folder, budget, f"generation {number} of {source}")
        wb = new_batch()
        wb.put(Kind.IDENTITY, identity_row(source, number))
        wb.put(POSITION_KEY, PositionRow().pack())
        rocks.write(wb)
        rocks.flush()
        made = Generation(rocks, number, budget)
        made.octets = OctetsRow()
        return made

    @staticmethod
    def open(folder: Path, source: str, number: int, budget: StoreBudget) -> Generation:
        """Open what is there and check it against itself.

        Raises:
            ZaibeiError(DAMAGED): files missing or damaged, another source's directory, or the digest does not add up.
        """
        if not (folder / "CURRENT").exists():
            raise ZaibeiError(Code.DAMAGED, f"{folder} is missing or no database: re-seed this source, or put the directory back")
        rocks = Rocks(folder, budget, f"generation {number} of {source}")
        try:
            made = Generation(rocks, number, budget)
            check_identity(rocks.get(Kind.IDENTITY), source, number, str(folder))
            made._load()
        except ZaibeiError:
            rocks.close()
            raise
        return made

    def _load(self) -> None:
        octets = self.rocks.get(POSITION_KEY)
        if octets is None:
            raise ZaibeiError(Code.DAMAGED, f"{self.rocks.what} has no position: re-seed this source")
        self.row = PositionRow.unpack(octets)
        for key, page in self.rocks.rows(Kind.PAGE, after_kind(Kind.PAGE)):
            at = key[-1] * PAGE_OCTETS
            if len(page) != PAGE_OCTETS:
                raise ZaibeiError(Code.DAMAGED, f"{self.rocks.what}: digest page {key[-1]} has {len(page)} octets")
            self.sums[at : at + PAGE_OCTETS] = page
        deltas = [*self.rocks.rows(Kind.DELTA, after_kind(Kind.DELTA))]
        for _, blob in deltas:
            self._apply_delta(blob)
        if deltas:
            self._delta_first, self._delta_next = number_of(deltas[0][0]), number_of(deltas[-1][0]) + 1
        if native.sum_all(self.sums) != (self.row.records, self.row.total):
            raise ZaibeiError(
                Code.DAMAGED,
                f"{self.rocks.what}: the digest sums do not add up to the totals at {self.row.position.short()}: "
                "re-seed this source",
            )
        cut = len(Kind.COUNT)
        self.counts = LiveCounts(
            {key[cut:]: number_of(value) for key, value in self.rocks.rows(Kind.COUNT, after_kind(Kind.COUNT))}
        )
        self.octets = OctetsRow.of(self.rocks.get(Kind.OCTETS), self.row) if self.row.records else OctetsRow()
        for key, reason in self.rocks.rows(Kind.QUARANTINE, after_kind(Kind.QUARANTINE)):
            self._remember_quarantined(key[len(Kind.QUARANTINE) :], reason.decode())
        self.log.load()

    def _apply_delta(self, blob: bytes) -> None:
        try:
            native.apply_delta(self.sums, blob)
        except ValueError as exc:
            raise ZaibeiError(Code.DAMAGED, f"{self.rocks.what}: {exc}: re-seed this source") from exc
        self._delta_octets += len(blob)
        self._dirty.update(blob[1 :: native.CHANGE_OCTETS])  # high octet of the bucket = its page

    # ------------------------------------------------------------------------------------------------- changing
    def begin(self) -> Change:
        """A change that does not touch content."""
        return Change(new_batch(), self.row.position, self.row.records, self.row.total)

    def begin_batch(self, batch: Batch, quarantined: Sequence[tuple[int, str]]) -> Change:
        """All of a batch that follows the position.

        Args:
            batch: its columns were validated at the leader.
            quarantined: (place in the batch, reason).
        Raises:
            ZaibeiError: reading old values failed.
        """
        try:
            keys, values, ops = native.split(batch.columns)
        except native.ColumnsFault as exc:
            raise ZaibeiError(Code.DAMAGED, f"a committed batch does not parse: {exc}") from exc
        change = self.begin()
        bad = {keys[place]: reason for place, reason in quarantined if place < len(keys)}
        if len(set(keys)) != len(keys):  # only what a key has last counts
            last = {key: place for place, key in enumerate(keys)}
            places = [*last.values()]
            bad = {keys[place]: reason for place, reason in quarantined if last.get(keys[place]) == place}
            keys, values, ops = [keys[p] for p in places], [values[p] for p in places], bytes([ops[p] for p in places])
        at = keys if min(keys, default=b"\x01") >= b"\x01" else [stored_key(key) for key in keys]
        olds = self.rocks.get_many(at)
        self._put_records(change, at, values, ops)
        if ops.count(OP_DELETE):
            values = [value if op == OP_PUT else b"" for value, op in zip(values, ops, strict=True)]
        change.delta, records, total, change.octets = native.delta(keys, ops, values, olds)
        change.records += records
        change.total = (change.total + total) % MODULUS
        self._count(change, keys, values, ops, olds)
        if any(part.startswith(TENANTS) for part in (*change.counts, *(one[0] for one in change.touched))):
            now = [value if op == OP_PUT else None for value, op in zip(values, ops, strict=True)]
            change.about = about_tenants(keys, now) - about_tenants(keys, olds)
        self._quarantine(change, keys, bad)
        if change.delta:
            change.wb.put(numbered(Kind.DELTA, self._delta_next), change.delta)
        change.position, change.log_octets = batch.after, len(batch.raw)
        change.wb.put(placed(Kind.LOG, batch.after.epoch, batch.after.seq), batch.raw)
        return change

    @staticmethod
    def _put_records(change: Change, keys: Sequence[bytes], values: Sequence[bytes], ops: bytes) -> None:
        put, delete = change.wb.put, change.wb.delete
        if not ops.count(OP_DELETE):
            for key, value in zip(keys, values, strict=True):
                put(key, value)
            return
        for key, value, op in zip(keys, values, ops, strict=True):
            if op == OP_PUT:
                put(key, value)
            else:
                delete(key)

    @staticmethod
    def _count(change: Change, keys: Sequence[bytes], values: Sequence[bytes], ops: bytes, olds: Sequence[bytes | None]) -> None:
        if olds.count(None) == len(olds):
            added = keys if not ops.count(OP_DELETE) else [key for key, op in zip(keys, ops, strict=True) if op == OP_PUT]
            change.counts = dict(count_parts(added))
            return
        new: list[bytes] = []
        removed: list[bytes] = []
        rewritten: list[bytes] = []
        for key, value, op, old in zip(keys, values, ops, olds, strict=True):
            if op == OP_PUT:
                if old is None:
                    new.append(key)
                elif old != value:
                    rewritten.append(key)
            elif old is not None:
                removed.append(key)
        gone = count_parts(removed)
        again = count_parts(rewritten)
        change.counts = dict(count_parts(new))
        for part, count in gone.items():
            change.counts[part] = change.counts.get(part, 0) - count
        change.touched = [(part, gone.get(part, 0), again.get(part, 0)) for part in sorted(gone.keys() | again.keys())]

    def _quarantine(self, change: Change, keys: Sequence[bytes], bad: dict[bytes, str]) -> None:
        for key, reason in bad.items():
            change.quarantine[key] = reason
            change.wb.put(Kind.QUARANTINE + key, reason.encode())
        if not self.quarantined_total:
            return
        if self.quarantine_overflows:
            known = self.rocks.get_many([Kind.QUARANTINE + key for key in keys])
            change.cleared = [key for key, row in zip(keys, known, strict=True) if row is not None and key not in bad]
        else:
            change.cleared = [key for key in self.quarantined.keys() & set(keys) if key not in bad]
        for key in change.cleared:
            change.wb.delete(Kind.QUARANTINE + key)

    def boundary(self, change: Change, position: Position) -> None:
        """Put a boundary that is no batch's end: start of an epoch, position of a snapshot."""
        change.position, change.boundary = position, True
        change.wb.put(placed(Kind.HISTORY, position.epoch, position.seq), history_row(position, 0))

    def commit(self, change: Change, index: int, term: int) -> None:
        """Write a change, then let memory follow.

        Raises:
            ZaibeiError(BUSY): nothing changed; build the change anew. Others: nothing changed; the database has failed.
        """
        wb, row = change.wb, PositionRow(change.position, index, term, change.records, change.total)
        for part, difference in change.counts.items():
            if difference:
                self._put_count(wb, part, self.counts(part + END) + difference)
        if change.log_octets:
            place = placed(Kind.HISTORY, change.position.epoch, change.position.seq)
            wb.put(place, history_row(change.position, change.log_octets))
        pruned = self.log.prune(wb)
        packed = row.pack()
        wb.put(POSITION_KEY, packed)
        held = self.octets
        if held is not None and (change.records, change.total) != (self.row.records, self.row.total):
            held = OctetsRow(held.octets + change.octets, held.about + change.about)
            wb.put(Kind.OCTETS, held.pack(change.records, change.total))
        fresh = change.quarantine.keys() - self.quarantined.keys()
        if change.quarantine:  # before the write: nobody may read such a value and not know it
            self.quarantine_version += 1
            before, total = dict(self.quarantined), self.quarantined_total
            for key in fresh:
                self._remember_quarantined(key, change.quarantine[key])
        try:
            self.rocks.write(wb)
        except ZaibeiError:
            if change.quarantine:
                self.quarantined, self.quarantined_total = before, total
                self.quarantine_version += 1
            raise
        self.octets = held
        self._follow(change, row, pruned)

    def _put_count(self, wb: WriteBatch, part: bytes, count: int) -> None:
        if count:
            wb.put(Kind.COUNT + part, count_row(count))
        else:
            wb.delete(Kind.COUNT + part)

    def _follow(self, change: Change, row: PositionRow, pruned: Pruned) -> None:
        self.row = row
        if change.octets or change.about:
            self.moved = OctetsRow(self.moved.octets + change.octets, self.moved.about + change.about)
        for part, difference in change.counts.items():
            if difference:
                self.counts.change(part, difference)
        if change.delta:
            self._delta_next += 1
            self._apply_delta(change.delta)
        if change.cleared:
            self.quarantine_version += 1
            for key in change.cleared:
                self.quarantined.pop(key, None)
            self.quarantined_total -= len(change.cleared)
        self.log.wrote(change.position, change.log_octets, pruned)
        if change.boundary:
            self.log.boundary(change.position)

    def _remember_quarantined(self, key: bytes, reason: str) -> None:
        self.quarantined_total += 1
        if len(self.quarantined) < self._quarantine_memory_max:
            self.quarantined[key] = reason

    @property
    def quarantine_overflows(self) -> bool:
        """More are quarantined than fit in memory: their rows are asked too."""
        return self.quarantined_total > len(self.quarantined)

    def fold(self) -> bool:
        """Fold digest changes into their pages when enough have gathered. Raises ZaibeiError; BUSY: some other time."""
        rows = self._delta_next - self._delta_first
        if rows < FOLD_ROWS_MAX and self._delta_octets < FOLD_OCTETS_MAX:
            return False
        wb = new_batch()
        for page in self._dirty:
            wb.put(Kind.PAGE + bytes((page,)), bytes(self.sums[page * PAGE_OCTETS : (page + 1) * PAGE_OCTETS]))
        for number in range(self._delta_first, self._delta_next):
            wb.delete(numbered(Kind.DELTA, number))
        self.rocks.write(wb)
        self._delta_first, self._delta_octets = self._delta_next, 0
        self._dirty.clear()
        return True

    # ------------------------------------------------------------------------------------------------- reading
    @property
    def digest(self) -> ContentDigest:
        return ContentDigest(self.row.position, self.row.records, self.row.total)

    def get_many(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], Position]:
        """Values and the position they were read at, at one moment; b"" for a quarantined record. Any thread."""
        at = [*keys]
        if min(at, default=b"\x01") < b"\x01":
            at = [stored_key(key) for key in at]
        at.append(POSITION_KEY)
        for _ in range(READ_ATTEMPTS_MAX):
            version = self.quarantine_version
            values = self.rocks.get_many(at)
            position = self._position(values.pop() or b"")
            if self.quarantined_total:
                self._hide_quarantined(keys, values)
            if version == self.quarantine_version:  # checked last: what was quarantined when it was read is not unhidden since
                return values, position
        return [b""] * len(keys), position  # cannot be told apart just now: answered like quarantined ones

    def _hide_quarantined(self, keys: Sequence[bytes], values: list[bytes | None]) -> None:
        known = self.quarantined
        for place, key in enumerate(keys):
            if key in known:
                values[place] = b""
        if self.quarantine_overflows:
            rows = self.rocks.get_many([Kind.QUARANTINE + key for key in keys])
            for place, row in enumerate(rows):
                if row is not None:
                    values[place] = b""

    def _position(self, octets: bytes) -> Position:
        seen, position = self._row_seen
        if seen != octets:
            position = PositionRow.unpack(octets).position
            self._row_seen = (octets, position)
        return position

    def existing(self, keys: Sequence[bytes]) -> list[bool]:
        """Which keys are held. Any thread."""
        return [value is not None for value in self.rocks.get_many([stored_key(key) for key in keys])]

    def stored(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values as stored, quarantined ones too; what a rule at apply compares with. Raises ZaibeiError."""
        return self.rocks.get_many([stored_key(key) for key in keys])

    def chain_at(self, epoch: int, seq: int) -> Position | None:
        """Our boundary at a place, where still kept. Any thread."""
        if (epoch, seq) == self.row.position.place:
            return self.row.position
        key = placed(Kind.HISTORY, epoch, seq)
        value = self.rocks.get(key)
        return None if value is None else history_of(key, value)[0]

    def pinned(self) -> tuple[ContentDigest, bytes, RdictIter, int]:
        """Digest, sums, content and applied index of this moment; on the apply thread."""
        return self.digest, bytes(self.sums), self.rocks.moment(), self.row.index

    def copy_history(self, older: Generation, first: Position) -> None:
        """Take over the boundaries before our first one from an older generation that has it too. Raises ZaibeiError."""
        stop = placed(Kind.HISTORY, first.epoch, first.seq)
        known = older.rocks.get(stop)
        if known is None or history_of(stop, known)[0] != first:
            return
        rows = older.rocks.rows(Kind.HISTORY, stop)
        while chunk := [*islice(rows, HISTORY_ROWS_AT_ONCE)]:
            wb = new_batch()
            for key, value in chunk:
                wb.put(key, history_row(history_of(key, value)[0], 0))
            self.rocks.write(wb)
        self.log.load()
