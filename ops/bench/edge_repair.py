"""Stages of a cluster: a member that was away comes back by entries and by files, a large state is sent, memory stays bounded."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import linear_regression
from threading import Event, Thread

from ops.bench.bench import Bench
from ops.bench.edge_cluster import HOSTED, Cluster, Fed, fed_cluster
from ops.bench.edge_engine import SOURCE
from ops.bench.edge_process import Child, family, rss_mb
from ops.bench.edge_replicated import DEPTH, LARGE, client_of, ours
from ops.bench.edge_sender import SenderConfig
from ops.bench.table import Row, row

ENTRIES_TARGET, FILES_TARGET = 80_000, 200_000
TRANSFER_SHARE, P99_TIMES = 0.5, 2.0
BATCH = 1_000
LOOK_S = 0.01
KEEP_MB_LEAST = 64  # of the journal: the least that [limits] journal_keep_mb takes, so that little makes a member too far behind
FIRST_NEW = 10_000_000
ANSWERS_A_S, INTAKE_A_S = 200, 5  # requests; batches of 1,000
SETTLE_S = 2.0
RSS_EVERY_S = 0.5
WARM_UP_SHARE = 1 / 3  # of the flood: caches and buffers fill
GROWTH_MB_A_MINUTE_MAX = 10.0
COPY_CHUNK = 1 << 20


def catch_up(bench: Bench) -> list[Row]:
    """One member is killed, the others go on, it comes back: once with the journal at hand, once too far behind for it."""
    scale = bench.scale
    rows = []
    for what, batches, keep_mb, target in (
        ("by entries", scale.behind, 0, ENTRIES_TARGET),
        ("by files", scale.behind_far, KEEP_MB_LEAST, FILES_TARGET),
    ):
        bench.tell(f"a member misses {batches * BATCH:,} records, to come back {what}")
        with bench.room() as room, fed_cluster(room, batches + 1, journal_keep_mb=keep_mb) as fed:
            speed, whole = _comes_back(fed, batches, by_files=bool(keep_mb))
        note = f"{batches * BATCH:,} records; {whole:.1f} s from exec to level"
        rows.append(row("13", f"three members: a member that was away catches up {what}", [speed], "records/s", target=target,
                        note=f"{note}; from its ready line on"))  # fmt: skip
    return rows


def _comes_back(fed: Fed, batches: int, *, by_files: bool) -> tuple[float, float]:
    """Records a second from the ready line on, and seconds from its start. Raises RuntimeError: it came the other way."""
    cluster = fed.cluster
    fed.stream(1)
    away = next(number for number in cluster.seats if number != cluster.leader(SOURCE))
    cluster.until("all begin level", lambda: cluster.seq(SOURCE, away) == BATCH)
    cluster.kill(away)
    before = _generations(cluster, away)
    fed.stream(batches)
    time.sleep(SETTLE_S)
    began = time.monotonic()
    cluster.up(away)
    cluster.words(away)
    ready = time.monotonic()
    wanted = (batches + 1) * BATCH
    cluster.until("the member is level again", lambda: cluster.seq(SOURCE, away) == wanted, every_s=LOOK_S)
    level = time.monotonic()
    if (_generations(cluster, away) != before) is not by_files:
        raise RuntimeError(f"the member came back {'by entries' if by_files else 'by files'}, which is not what is measured")
    return batches * BATCH / (level - ready), level - began


def _generations(cluster: Cluster, number: int) -> list[str]:
    """A fetched state is a new generation of the store."""
    return sorted(path.name for path in (cluster.seats[number].data / "stores" / SOURCE).glob("gen-*"))


# ---------------------------------------------------------------------------------------------------------------- transfer
def transfer(bench: Bench) -> list[Row]:
    """A member lacks a state of 1 GB that does not compress; it is sent while the same leader takes records and answers."""
    megabytes = bench.scale.transfer_mb
    with bench.room() as room:
        records = min(bench.scale.records, 100_000)
        material = bench.material.path
        intake = 600 * INTAKE_A_S
        with fed_cluster(room, intake, material=material, records=records, first=FIRST_NEW, journal_keep_mb=KEEP_MB_LEAST) as fed:
            cluster = fed.cluster
            cluster.until("the content is there", lambda: cluster.records(SOURCE, 1) >= records)
            leader = cluster.leader(HOSTED)
            cluster.lead(SOURCE, leader)
            away = next(number for number in cluster.seats if number != leader)
            cluster.kill(away)
            bench.tell(f"{megabytes:,} MB are registered while a member is away")
            _fill(room, cluster, megabytes)
            copied = _copy_rate(cluster.seats[leader].data / "stores" / HOSTED, room / "copy")
            bench.tell("answers and intake, nothing sent")
            fed.source.tell(f"stream {intake // 4} {INTAKE_A_S}")
            alone = _answers(room, cluster, leader, material, records, SETTLE_S * 2)
            bench.tell(f"{megabytes:,} MB are sent to the member")
            with _asking(room, cluster, leader, material, records) as results:
                began = time.monotonic()
                cluster.up(away)
                cluster.words(away)
                wanted = cluster.records(HOSTED, leader)
                cluster.until(
                    "the member has it all", lambda: cluster.records(HOSTED, away) == wanted, limit_s=600.0, every_s=0.05
                )
                took = time.monotonic() - began
            octets = sum(
                path.stat().st_size for path in (cluster.seats[away].data / "stores" / HOSTED).rglob("*") if path.is_file()
            )
            meanwhile = max(results)
    rate = octets / 1e6 / took
    return [
        row(
            "14", f"three members: {octets / 1e6:,.0f} MB of state sent to a member", [rate], "MB/s",
            target=copied * TRANSFER_SHARE,
            note=f"its start, SHA-256, fsync and switch included; plain copy of the same files with fsync: {copied:,.0f} MB/s; "
            f"{INTAKE_A_S * BATCH:,} records/s and {ANSWERS_A_S} answers/s go on at the sender",
        ),
        row(
            "14", "answer p99 meanwhile", [meanwhile], "ms", target=max(alone, 1.0) * P99_TIMES, fewer=True,
            note=f"{alone:.2f} ms before, under the same intake",
        ),
    ]  # fmt: skip


def _fill(room: Path, cluster: Cluster, megabytes: int) -> None:
    wanted = megabytes * 1_000_000 // LARGE
    with client_of(room, ours(cluster, LARGE)) as client:
        while (have := cluster.records(HOSTED, cluster.leader(HOSTED))) < wanted:
            client.tell(f"run {min(5.0, (wanted - have) / 200):.1f} {DEPTH}")
            client.say()
        client.tell("stop")


def _copy_rate(folder: Path, to: Path) -> float:
    """MB a second of a plain copy, each file made durable."""
    octets, began = 0, time.perf_counter()
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        target = to / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, COPY_CHUNK)
            out.flush()
            os.fsync(out.fileno())
        octets += target.stat().st_size
    took = time.perf_counter() - began
    shutil.rmtree(to)
    return octets / 1e6 / took


def _answers(room: Path, cluster: Cluster, number: int, material: Path, records: int, seconds: float) -> float:
    """p99 in ms of an open loop over UDP."""
    given = SenderConfig(
        kind="paced", port=cluster.seats[number].ports["handle"], material=str(material), records=records, seconds=seconds,
        pids=family(cluster.pid(number)), rate=ANSWERS_A_S,
    )  # fmt: skip
    path = room / "sender.json"
    path.write_text(json.dumps({name: getattr(given, name) for name in given.__struct_fields__}))
    with Child(["-m", "ops.bench.edge_sender", str(path)], room / "stderr") as sender:
        return float(sender.say()["p99_ms"])


@contextmanager
def _asking(room: Path, cluster: Cluster, number: int, material: Path, records: int) -> Iterator[list[float]]:
    """p99 of one stretch after the other, as long as the block runs; at least one."""
    results: list[float] = []
    over = Event()

    def ask() -> None:
        while not results or not over.is_set():
            results.append(_answers(room, cluster, number, material, records, SETTLE_S))

    thread = Thread(target=ask, name="answers")
    thread.start()
    try:
        yield results
    finally:
        over.set()
        thread.join()


# ------------------------------------------------------------------------------------------------------------------ memory
def memory(bench: Bench) -> list[Row]:
    """Intake at full speed with one follower dead: the leader's resident memory."""
    seconds = bench.scale.flood_s
    with bench.room() as room, fed_cluster(room, 500) as fed:
        cluster = fed.cluster
        leader = cluster.leader(SOURCE)
        fed.stream(500)
        cluster.kill(next(number for number in cluster.seats if number != leader))
        bench.tell(f"intake at full speed for {seconds:.0f} s with one follower dead")
        fed.source.tell(f"flood {seconds}")
        samples: list[tuple[float, float]] = []
        began = time.monotonic()
        while (at := time.monotonic() - began) < seconds:
            samples.append((at, rss_mb(cluster.pids(leader))))
            time.sleep(RSS_EVERY_S)
        taken = fed.source.say(seconds + 60)["receipted"] * BATCH
        if cluster.leader(SOURCE) != leader:
            raise RuntimeError("the leader changed meanwhile: the machine is too busy to tell")
    calm = [one for one in samples if one[0] >= seconds * WARM_UP_SHARE]
    slope, _ = linear_regression(*zip(*calm, strict=True))
    note = f"{seconds:.0f} s, {taken / seconds:,.0f} records/s; from {samples[0][1]:,.0f} MB"
    most = max(mb for _, mb in samples)
    return [
        row("15", "leader's RSS, intake at full speed, one follower dead: maximum", [most], "MB", note=note),
        row("15", "the same, growth after the first third", [slope * 60], "MB/min", target=GROWTH_MB_A_MINUTE_MAX, fewer=True),
    ]  # fmt: skip
