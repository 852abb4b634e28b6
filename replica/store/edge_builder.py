"""The helper process that builds a generation from the parts of a snapshot: `python -m replica.store.edge_builder`.

Writing sorted files and taking them in hold the GIL for long, so they happen here and not in the member. Started afresh (never
forked); reads frames (frames.py) from standard input; says one Reply on standard output. When the member dies, its input ends,
and so does it; what it left is deleted at the member's next start.
"""

from __future__ import annotations

import os
import resource
import sys
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from operator import lt
from pathlib import Path
from typing import BinaryIO

import msgspec
from rocksdict import SstFileWriter

from replica import native
from replica.model.audit_documents import TENANTS
from replica.model.digest import BUCKETS, LEVEL1_BUCKETS, MODULUS, SUM_OCTETS
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import ROUTE
from replica.model.position import Position
from replica.store.edge_disk import disk_error, sync_folder
from replica.store.edge_generation import PAGE_OCTETS, about_tenants, count_parts
from replica.store.edge_manifest import MANIFEST_FORMAT, Load, describe_files, write_load
from replica.store.edge_rocks import Rocks, new_batch, options, translate
from replica.store.frames import END, FRAME, FRAME_OCTETS_MAX, JOB, JUDGED, PART, Job, Reply
from replica.store.rows import (
    POSITION_KEY,
    Kind,
    OctetsRow,
    PositionRow,
    count_row,
    history_row,
    identity_row,
    placed,
    stored_key,
)

FILE_OCTETS = 64 * 1024 * 1024
PART_RECORDS_MAX = 1_000_000
ROWS_A_WRITE_MAX = 500
TENANTS_END = TENANTS[:-1] + b"/"  # behind all keys of documents about a tenant
NICE = 5  # answering comes first


class Builder:
    """Builds one generation. Raises ZaibeiError from every method: MALFORMED (their snapshot), DISK_FULL, DISK_FAILED."""

    def __init__(self, job: Job) -> None:
        self._job, self._folder = job, Path(job.folder)
        self._parts_folder = self._folder.with_name(self._folder.name + ".files")
        self._files: list[Path] = []
        self._writer: SstFileWriter | None = None
        self._options = options()
        self._sums = bytearray(BUCKETS * SUM_OCTETS)
        self._records = self._total = self._parts = self._octets = self._about = 0
        self._counts: Counter[bytes] = Counter()
        self._quarantined: dict[bytes, str] = {}
        self._last = b""
        self._ordered = sha256()
        try:
            self._parts_folder.mkdir()
        except OSError as exc:
            raise disk_error(exc, f"building generation {job.generation} of {job.source}") from exc

    def part(self, columns: bytes, judged: Sequence[tuple[int, str]]) -> None:
        """Take the next part: validate, check the order, write, sum."""
        self._ordered.update(columns)
        try:
            scan = native.scan(columns, PART_RECORDS_MAX)
        except native.ColumnsFault as exc:
            raise self._malformed(str(exc)) from exc
        keys, values = scan.keys, scan.values
        if not keys:
            raise self._malformed("it holds nothing")
        if scan.ops.count(1) != len(keys):
            raise self._malformed("a snapshot holds puts only")
        if (self._parts and keys[0] <= self._last) or not all(map(lt, keys, keys[1:])):
            raise self._malformed("its keys do not ascend")
        for place, reason in (*judged, *scan.faults):  # what the octets show is said first, as of batches
            if place < len(keys):
                self._quarantined[keys[place]] = reason
        at = keys if keys[0] >= b"\x01" else [stored_key(key) for key in keys]
        blob, records, total, octets = native.delta(keys, scan.ops, values, [None] * len(keys))
        native.apply_delta(self._sums, blob)
        self._records += records
        self._octets += octets
        if keys[-1] >= TENANTS and keys[0] < TENANTS_END:
            self._about += about_tenants(keys, values)
        self._total = (self._total + total) % MODULUS
        self._count(scan.runs, keys)
        self._write(at, values)
        self._last = keys[-1]
        self._parts += 1

    def _malformed(self, why: str) -> ZaibeiError:
        return ZaibeiError(Code.MALFORMED, f"part {self._parts} of the snapshot: {why}; the source's fault")

    def _count(self, runs: Sequence[tuple[bytes, int, int]], keys: Sequence[bytes]) -> None:
        if keys[0][:1] in (ROUTE, b"o") or keys[-1][:1] in (ROUTE, b"o") or keys[0] < b"o" < keys[-1]:
            self._counts.update(count_parts(keys))
        else:
            for part, puts, _ in runs:
                self._counts[part] += puts

    def _write(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        try:
            writer = self._writer or self._next_file()
            put = writer.__setitem__
            for key, value in zip(keys, values, strict=True):
                put(key, value)
            if writer.file_size() >= FILE_OCTETS:
                writer.finish()
                self._writer = None
        except ZaibeiError:
            raise
        except Exception as exc:
            raise translate(exc, f"building generation {self._job.generation} of {self._job.source}") from exc

    def _next_file(self) -> SstFileWriter:
        path = self._parts_folder / f"{len(self._files):06}.sst"
        writer = SstFileWriter(self._options)
        writer.open(str(path))
        self._files.append(path)
        self._writer = writer
        return writer

    def finish(self) -> Reply:
        """Take the files in, add the rows of ours, make everything durable, write the manifest."""
        what = f"generation {self._job.generation} of {self._job.source}"
        try:
            if self._writer is not None:
                self._writer.finish()
        except Exception as exc:
            raise translate(exc, f"building {what}") from exc
        rocks = Rocks(self._folder, None, what)
        if self._files:
            rocks.ingest(self._files)
        self._own_rows(rocks)
        rocks.flush()
        rocks.close()
        try:
            self._parts_folder.rmdir()
            for path in self._folder.iterdir():
                with path.open("rb") as octets:
                    os.fsync(octets.fileno())
            sync_folder(self._folder)
            files = describe_files(self._folder)
        except OSError as exc:
            raise disk_error(exc, f"building {what}") from exc
        job = self._job
        load = Load(
            MANIFEST_FORMAT, job.source, job.generation, job.begun, job.position, self._records, f"{self._total:x}",
            self._ordered.hexdigest(), len(self._quarantined), self._parts, files,
        )  # fmt: skip
        manifest = sha256(write_load(self._folder, load)).hexdigest()
        used = resource.getrusage(resource.RUSAGE_SELF)
        return Reply(
            records=load.records, total=load.total, ordered=load.ordered, manifest=manifest, parts=load.parts,
            cpu_ms=int((used.ru_utime + used.ru_stime) * 1000),
        )  # fmt: skip

    def _own_rows(self, rocks: Rocks) -> None:
        position = Position.parse(self._job.position)
        rows = [
            *((Kind.COUNT + part, count_row(count)) for part, count in self._counts.items()),
            *((Kind.QUARANTINE + key, reason.encode()) for key, reason in self._quarantined.items()),
        ]
        for page in range(LEVEL1_BUCKETS):
            octets = bytes(self._sums[page * PAGE_OCTETS : (page + 1) * PAGE_OCTETS])
            if any(octets):
                rows.append((Kind.PAGE + bytes((page,)), octets))
        rows += [
            (placed(Kind.HISTORY, position.epoch, position.seq), history_row(position, 0)),
            (Kind.IDENTITY, identity_row(self._job.source, self._job.generation)),
            (POSITION_KEY, PositionRow(position, 0, 0, self._records, self._total).pack()),
            (Kind.OCTETS, OctetsRow(self._octets, self._about).pack(self._records, self._total)),
        ]
        for start in range(0, len(rows), ROWS_A_WRITE_MAX):
            wb = new_batch()
            for key, value in rows[start : start + ROWS_A_WRITE_MAX]:
                wb.put(key, value)
            rocks.write(wb)


def build(source: BinaryIO) -> Reply | None:
    """Read frames to the end; None: the input ended before END, nobody waits any more. Raises ZaibeiError."""
    builder: Builder | None = None
    judged: list[tuple[int, str]] = []
    while True:
        header = source.read(FRAME.size)
        if len(header) < FRAME.size:
            return None
        kind, length = FRAME.unpack(header)
        octets = source.read(length) if length <= FRAME_OCTETS_MAX else b""
        if len(octets) != length:
            return None
        if kind == JOB:
            builder = Builder(msgspec.json.decode(octets, type=Job))
        elif builder is None:
            return None
        elif kind == JUDGED:
            judged = msgspec.json.decode(octets, type=list[tuple[int, str]])
        elif kind == PART:
            builder.part(octets, judged)
            judged = []
        elif kind == END:
            return builder.finish()


def main() -> int:
    os.nice(NICE)
    try:
        reply = build(sys.stdin.buffer)
    except ZaibeiError as exc:
        reply = Reply(code=exc.code.value, message=exc.trouble.message)
    if reply is None:
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
