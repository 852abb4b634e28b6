"""Hosting on three members: registrations of 64 clients, bulk streams, an import, and how soon what is registered is answered."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from chaos.drills.percentile import nearest_rank
from ops.bench.bench import Bench
from ops.bench.edge_bulk import BulkConfig, values_of
from ops.bench.edge_cluster import HOSTED, HOSTED_PREFIX, Cluster, cluster_of
from ops.bench.edge_etcd import etcd_if_installed
from ops.bench.edge_process import ROOT, Child, cpu_s
from ops.bench.edge_replicated import NOT_INSTALLED, SMALL, committed, ours, rate_of, theirs
from ops.bench.edge_sessions import SessionsConfig
from ops.bench.table import Row, row

CLIENTS, CLIENTS_TARGET = 64, 2_000
STREAMS, STREAM_TARGET = 4, 20_000
VISIBLE_MS_MAX, VISIBLE = 100, 300
IMPORT_S_MAX, IMPORT_ROWS = 90, 1_000_000
IMPORT_LIMIT_S, STREAM_S_MAX = 900.0, 600.0
ROWS_AT_ONCE = 50_000


def hosting(bench: Bench) -> list[Row]:
    """All of it on one cluster; etcd beside the 64 clients."""
    with bench.room() as room, cluster_of(room) as cluster, etcd_if_installed(room / "etcd") as etcd:
        rows = [_clients(bench, room, cluster, etcd), *_sessions(bench, room, cluster)]
        with _registrar(room, cluster) as child:
            rows += [*_streams(bench, child), _visible(bench, child)]
        return [*rows, *_imported(bench, room, cluster)]


def _clients(bench: Bench, room: Path, cluster: Cluster, etcd: Any) -> Row:
    mine, peers = list[dict[str, Any]](), list[dict[str, Any]]()
    for turn in range(bench.scale.runs):
        bench.tell(f"three members: {CLIENTS} clients register one by one, run {turn + 1} of {bench.scale.runs}")
        mine.append(committed(room, ours(cluster, SMALL, CLIENTS), bench.scale.seconds, CLIENTS))
        if etcd is not None:
            peers.append(committed(room, theirs(etcd, SMALL, connections=CLIENTS), bench.scale.seconds, CLIENTS))
    note = (
        f"1 KB, {CLIENTS} connections with mTLS that stand, one call under way on each; all clients in one process; "
        f"p50 {median(one['p50_ms'] for one in mine):.1f} ms, p99 {median(one['p99_ms'] for one in mine):.1f} ms; "
        "etcd: without TLS"
    )
    what = f"three members: registrations of {CLIENTS} clients, one by one"
    made = row("17", what, [rate_of(one) for one in mine], "commits/s", target=CLIENTS_TARGET, note=note)
    return made.beside(NOT_INSTALLED if etcd is None else etcd.name, [rate_of(one) for one in peers])


def _sessions(bench: Bench, room: Path, cluster: Cluster) -> list[Row]:
    leader = cluster.leader(HOSTED)
    order = [leader, *(number for number in cluster.seats if number != leader)]
    config = SessionsConfig(
        handle=cluster.seats[leader].ports["handle"], servers=cluster.registrations(order),
        identity=str(cluster.folder / "registrar"), name="tenant-9", roots=str(cluster.roots), octets=SMALL,
        pids=[pid for number in order for pid in cluster.pids(number)],
    )  # fmt: skip
    path, done = room / "sessions.json", list[dict[str, Any]]()
    path.write_text(json.dumps({name: getattr(config, name) for name in config.__struct_fields__}))
    with Child(["-m", "ops.bench.edge_sessions", str(path)], room / "stderr") as child:
        child.tell(f"open {CLIENTS}")
        opened = child.say()
        for turn in range(bench.scale.runs):
            bench.tell(f"three members: {CLIENTS} Handle clients register one by one, run {turn + 1} of {bench.scale.runs}")
            child.tell(f"run {bench.scale.seconds}")
            done.append(child.say())
        child.tell("stop")
    note = (
        f"1 KB, {CLIENTS} connections, a session with a proved key and MACs on each, one request under way; all clients in one "
        f"process; p50 {median(one['p50_ms'] for one in done):.1f} ms, p99 {median(one['p99_ms'] for one in done):.1f} ms"
    )
    logins = f"key exchange by RSA, challenge, proof and a first registration in each of {CLIENTS}, one after the other"
    what = f"three members: registrations of {CLIENTS} clients in sessions of the Handle protocol, one by one"
    return [
        row("17", what, [rate_of(one) for one in done], "registrations/s", target=CLIENTS_TARGET, note=note),
        row("17", "opening such a session", [opened["seconds"] / CLIENTS * 1e3], "ms", fewer=True, note=logins),
    ]


@contextmanager
def _registrar(room: Path, cluster: Cluster) -> Iterator[Child]:
    leader = cluster.leader(HOSTED)
    order = [leader, *(number for number in cluster.seats if number != leader)]
    config = BulkConfig(
        servers=cluster.registrations(order), identity=str(cluster.folder / "registrar"), name="tenant-9",
        roots=str(cluster.roots), resolvers=[cluster.seats[number].ports["handle"] for number in order],
        pids=[pid for number in order for pid in cluster.pids(number)],
    )  # fmt: skip
    path = room / "bulk.json"
    path.write_text(json.dumps({name: getattr(config, name) for name in config.__struct_fields__}))
    with Child(["-m", "ops.bench.edge_bulk", str(path)], room / "stderr") as child:
        yield child
        child.tell("stop")


def _streams(bench: Bench, child: Child) -> list[Row]:
    count = bench.scale.ingest * 250  # 150,000 a run in full
    walls, cpus = list[float](), list[float]()
    for turn in range(bench.scale.runs):
        bench.tell(f"three members: {count:,} registrations over {STREAMS} streams, run {turn + 1} of {bench.scale.runs}")
        child.tell(f"stream {count} {STREAMS}")
        done = child.say(STREAM_S_MAX)
        if done["bad"]:
            raise RuntimeError(f"{done['bad']} of {count} were not registered: {done['failed']}")
        walls.append(count / done["seconds"])
        cpus.append(count / done["cpu_s"])
    note = (
        f"{STREAMS} streams of PutMany, 5,000 changes under way on each; every one with an outcome of its own; about 200 octets"
    )
    what = "three members: registrations in bulk streams"
    return [
        row("17", what, walls, "registrations/s", target=STREAM_TARGET, note=note),
        row(
            "17",
            "the same, for a CPU second of all three members",
            cpus,
            "registrations/CPU-s",
            note="without the client's process",
        ),
    ]


def _visible(bench: Bench, child: Child) -> Row:
    bench.tell("three members: from the acknowledgement to an answer at every member")
    child.tell(f"visible {VISIBLE}")
    took = child.say()["ms"]
    note = f"{VISIBLE} registrations, one each 20 ms; asked over UDP at all three; "
    note += f"p50 {took[len(took) // 2]:.1f} ms, worst {took[-1]:.1f} ms"
    what = "registered until every member answers it: p99"
    return row("17", what, [nearest_rank(took, 0.99)], "ms", target=VISIBLE_MS_MAX, fewer=True, note=note)


def _imported(bench: Bench, room: Path, cluster: Cluster) -> list[Row]:
    rows = bench.scale.records if bench.scale.runs == 1 else IMPORT_ROWS
    path = room / "names.csv"
    bench.tell(f"writing a file of {rows:,} rows")
    _write(path, rows)
    leader = cluster.leader(HOSTED)
    words = ["tenant", "import", str(path), "--identity", str(cluster.folder / "registrar"), "--member-file", str(cluster.roots)]
    words += [part for server in cluster.registrations([leader]) for part in ("--server", server)]
    bench.tell(f"three members: zaibei tenant import of {rows:,} rows")
    cpu = cpu_s(pids := [pid for number in cluster.seats for pid in cluster.pids(number)])
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli.main", *words, "--json"], cwd=ROOT, capture_output=True, text=True,
        timeout=IMPORT_LIMIT_S, check=False,
    )  # fmt: skip
    took = time.perf_counter() - began
    told = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    if done.returncode or told["import"]["done"] != rows:
        raise RuntimeError(f"the import ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}")
    note = f"whole command, one process; {rows / took:,.0f} rows/s; members took {(cpu_s(pids) - cpu) / took:.2f} cores"
    target = IMPORT_S_MAX * rows / IMPORT_ROWS
    return [row("17", f"zaibei tenant import, CSV of {rows:,} rows", [took], "s", target=target, fewer=True, note=note)]


def _write(path: Path, rows: int) -> None:
    with path.open("w", encoding="ascii") as file:
        file.write("identifier,URL,DESCRIPTION\n")
        for first in range(0, rows, ROWS_AT_ONCE):
            lines = []
            for number in range(first, min(first + ROWS_AT_ONCE, rows)):
                url, text = (one.data.decode() for one in values_of(number))
                lines.append(f'{HOSTED_PREFIX}/I{number:010d},{url},"{text}"\n')
            file.write("".join(lines))
