"""Stages 2, 4 and 5: durable ingest, updates of cold records, snapshot loads and octets on disk, in this process."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from ops.bench.bench import Bench
from ops.bench.edge_engine import SOURCE, START, engine
from ops.bench.edge_postgres import Postgres
from ops.bench.edge_process import drop_pages
from ops.bench.synthetic import RAW_OCTETS, Stream
from ops.bench.table import Row, row
from replica.store.edge_folder import find_live
from replica.store.edge_rocks import BudgetLimits, StoreBudget

INGEST_TARGET, UPDATE_TARGET, LOAD_TARGET, DISK_TARGET = 130_000, 50_000, 450_000, 52
COLD_CACHE = BudgetLimits(cache_octets=32 * 1024 * 1024)
BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Speed:
    """Records a second of wall time, and a CPU second of this process with all its threads."""

    wall: float
    cpu: float


async def _ingest(room: Path, raws: Sequence[bytes], limits: BudgetLimits | None = None) -> Speed:
    async with engine(room, limits) as one:
        began, cpu = time.perf_counter(), time.process_time()
        records = await one.ingest(raws)
        return Speed(records / (time.perf_counter() - began), records / (time.process_time() - cpu))


def ingest(bench: Bench) -> list[Row]:
    """Product and peer take turns."""
    raws = [batch.raw for batch in Stream(SOURCE, START).inserts(0, bench.scale.ingest * BATCH)]
    speeds: list[Speed] = []
    copies: list[float] = []
    applies: list[float] = []
    with Postgres.if_installed(bench) as peer:
        for turn in range(bench.scale.runs):
            bench.tell(f"durable ingest, run {turn + 1} of {bench.scale.runs}")
            with bench.room() as room:
                speeds.append(uvloop.run(_ingest(room, raws)))
            if peer is not None:
                bench.tell(f"the same through PostgreSQL, run {turn + 1}")
                copies.append(peer.copy(bench.scale.ingest))
                applies.append(peer.logical_apply())
        name = peer.name if peer is not None else "PostgreSQL: not installed"
    rows = row(
        "2", "durable ingest of new records", [one.wall for one in speeds], "records/s", target=INGEST_TARGET,
        note="batches of 1,000; judged, journaled with fsync, digest and change log written, applied",
    )  # fmt: skip
    return [
        rows.beside(f"{name} logical apply", applies),
        row("2", "the same, beside COPY", [one.wall for one in speeds], "records/s").beside(f"{name} COPY, fsync", copies),
        row("2", "the same, for a second of CPU", [one.cpu for one in speeds], "records/CPU-s", note="all threads"),
    ]


def updates(bench: Bench) -> list[Row]:
    """Random rewrites among all records of a store whose block cache holds a fraction of it."""
    records, scale = bench.scale.cold_records, bench.scale
    material, stream = bench.material, Stream(SOURCE, START)
    warm: list[Speed] = []
    dropped: list[Speed] = []
    with bench.room() as room:
        bench.tell(f"loading {records:,} records to update")

        async def load() -> None:
            async with engine(room, COLD_CACHE) as one:
                await one.load(material, records)

        uvloop.run(load())
        for turn in range(scale.runs + 1):
            raws = [batch.raw for batch in stream.updates(records, scale.updates * BATCH, seed=turn)]
            bench.tell(f"updates of cold records, run {turn + 1} of {scale.runs + 1}")
            if not turn:
                drop_pages(room / "store")
            (warm if turn else dropped).append(uvloop.run(_ingest(room, raws, COLD_CACHE)))
    cold = f"{records:,} records, {records * RAW_OCTETS // 2**20} MiB of blocks, block cache 32 MiB"
    return [
        row(
            "2", "random updates of cold records", [one.wall for one in warm], "records/s", target=UPDATE_TARGET,
            note=f"cold: {cold}; the page cache holds the compressed files",
        ),
        row(
            "2", "the same, page cache dropped before", [one.wall for one in dropped], "records/s",
            note="reads wait for the disk",
        ),
    ]  # fmt: skip


def load(bench: Bench) -> list[Row]:
    """Snapshot loads, then what the loaded store takes on disk."""
    records, material = bench.scale.records, bench.material
    per_cpu, per_s, octets = [], [], []
    for turn in range(bench.scale.runs):
        bench.tell(f"snapshot load, run {turn + 1} of {bench.scale.runs}")
        with bench.room() as room:

            async def one(room: Path = room) -> tuple[float, float]:
                async with engine(room) as opened:
                    began, cpu = time.perf_counter(), time.process_time()
                    helper_ms = await opened.load(material, records)
                    return time.perf_counter() - began, time.process_time() - cpu + helper_ms / 1e3

            wall, cpu = uvloop.run(one())
            per_cpu.append(records / cpu)
            per_s.append(records / wall)
            octets.append(_compacted(room / "store") / records)
    return [
        row(
            "4", "sorted snapshot load with digest", per_cpu, "records/CPU-s", target=LOAD_TARGET,
            note="member and helper process together; validated, summed, compared, made durable, switched to",
        ),
        row("4", "the same, wall time", per_s, "records/s"),
        row(
            "5", "disk for one identifier, compacted", octets, "octets", target=DISK_TARGET, fewer=True,
            note=f"{RAW_OCTETS} raw; synthetic records (one enterprise's, much repeats): real ones take more",
        ),
    ]  # fmt: skip


def _compacted(store: Path) -> int:
    """Octets of the live generation's files after a full compaction."""
    live = find_live(store, SOURCE, StoreBudget(store))
    live.rocks.compact()
    live.rocks.close()
    return sum(path.stat().st_size for path in live.rocks.folder.iterdir() if path.suffix in (".sst", ".blob"))


def use_member_threading() -> None:
    """Threads give way as in a member's process."""
    sys.setswitchinterval(0.0005)
