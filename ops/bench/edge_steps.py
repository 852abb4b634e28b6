"""Stage 1: what one record costs in each step between its arrival and the disk, each step alone, in µs of wall time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ops.bench.bench import Bench
from ops.bench.edge_engine import START, WALL_MS
from ops.bench.synthetic import Stream
from ops.bench.table import Row, row
from replica import native
from replica.consensus.edge_rows import JournalRows
from replica.consensus.journal_ops import Append
from replica.model.batch import Batch, open_batch
from replica.model.outcome import LogEntry
from replica.store.edge_generation import Generation
from replica.store.edge_rocks import StoreBudget, new_batch
from replica.v1 import entry_pb2

BATCH = 1_000
ROUNDS = 60  # batches in one run
JOURNAL_GROUP = 1


def steps(bench: Bench) -> list[Row]:
    stream = Stream("88.118.8", START)
    batches = list(stream.inserts(0, ROUNDS * BATCH))
    with bench.room() as room:
        return _codec(bench, batches) + _disk(bench, batches, room)


def _time(bench: Bench, what: str, batches: list[Batch], work: Callable[[int, Batch], object], note: str = "") -> Row:
    figures = []
    for turn in range(max(3, bench.scale.runs)):
        bench.tell(f"{what}, run {turn + 1}")
        began = time.perf_counter()
        for place, batch in enumerate(batches, turn * len(batches)):
            work(place, batch)
        figures.append((time.perf_counter() - began) / len(batches) / BATCH * 1e6)
    return row("1", what, figures, "µs/record", note=note)


def _codec(bench: Bench, batches: list[Batch]) -> list[Row]:
    split = [native.split(batch.columns) for batch in batches]
    olds: list[bytes | None] = [None] * BATCH
    ops = bytes((1,)) * BATCH
    sums = bytearray(native.SUMS_OCTETS)
    blobs = [native.delta(keys, ops, values, olds)[0] for keys, values, _ in split]
    return [
        _time(bench, "open batch: parse, hash, chain", batches, lambda _, batch: open_batch(batch.raw)),
        _time(bench, "scan: walk and judge every record", batches, lambda _, batch: native.scan(batch.columns, BATCH)),
        _time(bench, "split: columns to keys and values", batches, lambda _, batch: native.split(batch.columns)),
        _time(bench, "digest change, new records", batches, lambda at, _: native.delta(*_new(split[at % ROUNDS], ops, olds))),
        _time(bench, "digest change, rewritten records", batches, lambda at, _: native.delta(*_new(split[at % ROUNDS], ops))),
        _time(bench, "digest change into the sums", batches, lambda at, _: native.apply_delta(sums, blobs[at % ROUNDS])),
    ]


def _new(
    columns: tuple[list[bytes], list[bytes], bytes], ops: bytes, olds: list[bytes | None] | None = None
) -> tuple[list[bytes], bytes, list[bytes], list[bytes | None]]:
    keys, values, _ = columns
    return keys, ops, values, [*values] if olds is None else olds


def _disk(bench: Bench, batches: list[Batch], room: Path) -> list[Row]:
    room.joinpath("store").mkdir()
    generation = Generation.create(room / "store" / "gen-0", "88.118.8", 0, StoreBudget(room))
    split = [native.split(batch.columns) for batch in batches]
    changes: list[object] = []

    def make(at: int, _: Batch) -> None:
        made = new_batch()
        put = made.put
        keys, values, _ops = split[at % ROUNDS]
        for key, value in zip(keys, values, strict=True):
            put(key, value)
        changes.append(made)

    rows = [_time(bench, "write batch built", batches, make)]
    made = iter(changes)
    rows.append(_time(bench, "write batch written", batches, lambda *_: generation.rocks.write(next(made)), "no WAL"))  # type: ignore[arg-type]
    generation.rocks.close()
    journal = JournalRows.open(room / "journal")
    entries = [
        entry_pb2.Entry(
            format=1, admitted_ms=WALL_MS, append=entry_pb2.AppendBatch(batch=batch.raw, live=True)
        ).SerializeToString()
        for batch in batches
    ]

    def append(at: int, _: Batch) -> None:
        entry = LogEntry(at + 1, 1, entries[at % ROUNDS])
        journal.write([Append(JOURNAL_GROUP, (entry,), None, len(entry.data))])

    rows.append(_time(bench, "journal append", batches, append, "not flushed"))

    def flushed(at: int, batch: Batch) -> None:
        append(at, batch)
        journal.flush()

    rows.append(_time(bench, "journal append and fsync", batches, flushed, "one fsync a batch; under load one covers several"))
    journal.close()
    return rows
