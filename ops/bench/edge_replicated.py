"""Stages of a cluster: intake and commits on three members, and how long nobody leads after a SIGKILL; etcd in the same run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from ops.bench.bench import Bench
from ops.bench.edge_cluster import HOSTED, Cluster, cluster_of, fed_cluster
from ops.bench.edge_commits import CommitsConfig
from ops.bench.edge_engine import SOURCE
from ops.bench.edge_etcd import ELECTION_MS, HEARTBEAT_MS, Etcd, etcd_if_installed
from ops.bench.edge_process import Child, cpu_s
from ops.bench.table import Row, row

INGEST_TARGET, INGEST_AIM = 60_000, 100_000
SEQUENTIAL_SHARE, LARGE_SHARE = 0.9, 1.3  # of etcd's figure
FAILOVER_TARGET_MS = 600
BATCH = 1_000
SMALL, LARGE, DEPTH = 1_024, 64 * 1_024, 16
PUTS = 100  # in one transaction of etcd; its limit is 128 operations
NOT_INSTALLED = "etcd: not installed"
SETTLE_S_MAX = 60.0
CALM_S = 0.5  # after a restart, before the next kill


@contextmanager
def client_of(folder: Path, config: CommitsConfig) -> Iterator[Child]:
    """The committing client, ready for orders."""
    path = folder / f"client-{config.kind}.json"
    path.write_text(json.dumps({name: getattr(config, name) for name in config.__struct_fields__}))
    with Child(["-m", "ops.bench.edge_commits", str(path)], folder / "stderr") as client:
        yield client


def ours(cluster: Cluster, octets: int, connections: int = 1) -> CommitsConfig:
    """Of the hosted source; its leader first."""
    leader = cluster.leader(HOSTED)
    order = [leader, *(number for number in cluster.seats if number != leader)]
    return CommitsConfig(
        kind="zaibei", targets=cluster.registrations(order), identity=str(cluster.folder / "registrar"), name="tenant-9",
        roots=str(cluster.roots), octets=octets, connections=connections,
        pids=[pid for number in order if cluster.seats[number].child is not None
        for pid in cluster.pids(number)],
    )  # fmt: skip


def theirs(etcd: Etcd, octets: int, kind: str = "etcd", connections: int = 1) -> CommitsConfig:
    leader = etcd.leader()
    order = [leader, *(number for number in etcd.clients if number != leader)]
    targets = [f"127.0.0.1:{etcd.clients[number]}" for number in order]
    return CommitsConfig(kind=kind, targets=targets, octets=octets, puts=PUTS, connections=connections, pids=etcd.pids())


def committed(folder: Path, config: CommitsConfig, seconds: float, depth: int) -> dict[str, Any]:
    """What a client of its own process did in so many seconds with so many calls under way. Raises RuntimeError: nothing."""
    with client_of(folder, config) as client:
        client.tell(f"run {seconds} {depth}")
        done: dict[str, Any] = client.say()
        client.tell("stop")
    if not done["commits"]:
        raise RuntimeError(f"nothing was committed: {done['failed']}")
    return done


def rate_of(done: dict[str, Any]) -> float:
    """Commits a second."""
    return float(done["commits"]) / float(done["seconds"])


def replicated(bench: Bench) -> list[Row]:
    """New records over the feed; then registrations, one after the other and large ones at once. Peers take turns."""
    return [*_intake(bench), *_commits(bench)]


def _intake(bench: Bench) -> list[Row]:
    scale = bench.scale
    walls: list[float] = []
    cpus: list[float] = []
    puts: list[float] = []
    name = NOT_INSTALLED
    with bench.room() as room, etcd_if_installed(room / "etcd") as etcd:
        bench.tell("three members come up")
        with fed_cluster(room, scale.ingest * (scale.runs + 1)) as fed:
            fed.stream(scale.ingest)
            for turn in range(scale.runs):
                bench.tell(f"three members: new records, run {turn + 1} of {scale.runs}")
                pids = [pid for number in fed.cluster.seats for pid in fed.cluster.pids(number)]
                cpu = cpu_s(pids)
                took = fed.stream(scale.ingest)
                walls.append(scale.ingest * BATCH / took)
                cpus.append(scale.ingest * BATCH / (cpu_s(pids) - cpu))
            _all_hold_it(fed.cluster)
        if etcd is not None:
            name = f"{etcd.name}, transactions of {PUTS} puts of 240 octets"
            for turn in range(scale.runs):
                bench.tell(f"{name}, run {turn + 1}")
                puts.append(rate_of(committed(room, theirs(etcd, 1, "etcd-txn"), scale.seconds, DEPTH)) * PUTS)
    what = "three members: durable intake of new records, from source to quorum receipt"
    note = f"whole members over mTLS, fsync, digest and validation on all three; aim {INGEST_AIM:,}"
    return [
        row("10", what, walls, "records/s", target=INGEST_TARGET, note=note).beside(name, puts),
        row("10", "the same, for a CPU second of all three members", cpus, "records/CPU-s", note="without the source's process"),
    ]


def _all_hold_it(cluster: Cluster) -> None:
    """What was receipted arrives at every member."""
    cluster.until(
        "all members applied the same",
        lambda: len({cluster.seq(SOURCE, number) for number in cluster.seats}) == 1 and cluster.seq(SOURCE, 1) is not None,
    )


def _commits(bench: Bench) -> list[Row]:
    scale = bench.scale
    small: list[dict[str, Any]] = []
    large: list[dict[str, Any]] = []
    small_peer: list[dict[str, Any]] = []
    large_peer: list[dict[str, Any]] = []
    name = NOT_INSTALLED
    with bench.room() as room, cluster_of(room) as cluster, etcd_if_installed(room / "etcd") as etcd:
        name = etcd.name if etcd is not None else name
        for turn in range(scale.runs):
            for octets, depth, mine, peers in ((SMALL, 1, small, small_peer), (LARGE, DEPTH, large, large_peer)):
                bench.tell(f"three members: commits of {octets:,} octets, {depth} under way, run {turn + 1} of {scale.runs}")
                mine.append(committed(room, ours(cluster, octets), scale.seconds, depth))
                if etcd is not None:
                    peers.append(committed(room, theirs(etcd, octets), scale.seconds, depth))
    at = f"p50 {median(one['p50_ms'] for one in small):.2f} ms, p99 {median(one['p99_ms'] for one in small):.2f} ms"
    if small_peer:
        at += f"; etcd p50 {median(one['p50_ms'] for one in small_peer):.2f} ms"
    at += "; a registration over gRPC with mTLS, durable on a majority and applied; etcd: Put without TLS"
    return [
        _against(
            "registrations of 1 KB, one after the other", [rate_of(one) for one in small], "commits/s", name,
            [rate_of(one) for one in small_peer], SEQUENTIAL_SHARE, at,
        ),
        _against(
            "registrations of 64 KiB, 16 under way", [_megabytes(one) for one in large], "MB/s", name,
            [_megabytes(one) for one in large_peer], LARGE_SHARE, "values that do not compress",
        ),
    ]  # fmt: skip


def _megabytes(done: dict[str, Any]) -> float:
    return rate_of(done) * LARGE / 1e6


def _against(what: str, figures: Sequence[float], unit: str, peer: str, peers: Sequence[float], share: float, note: str) -> Row:
    """The target is a share of what the peer did in this run; without a peer there is none."""
    target = median(peers) * share if peers else None
    return row("11", f"three members: {what}", figures, unit, target=target, note=note).beside(peer, peers)


# ---------------------------------------------------------------------------------------------------------------- failover
def failover(bench: Bench) -> list[Row]:
    """The leader is killed again and again while a client asks all members all the time."""
    kills = bench.scale.kills
    mine = _kills_of_ours(bench, kills)
    peers: list[float] = []
    name = NOT_INSTALLED
    with bench.room() as room, etcd_if_installed(room / "etcd", tuned=True) as etcd:
        if etcd is not None:
            name = f"{etcd.name}, heartbeat {HEARTBEAT_MS} ms, election {ELECTION_MS} ms"
            peers = _kills_of_etcd(bench, room, etcd, kills)
    spread = f"p50 {median(mine):.0f} ms, p90 {sorted(mine)[len(mine) * 9 // 10]:.0f} ms"
    if peers:
        spread += f"; etcd p50 {median(peers):.0f} ms, p90 {sorted(peers)[len(peers) * 9 // 10]:.0f} ms"
    note = f"{kills} kills; last commit of the old to first commit of the new, as a client that asks every 10 ms sees it"
    longest = Row(
        "12", "leader killed: longest time without commits", max(mine), "ms", kills, min(mine), max(mine),
        FAILOVER_TARGET_MS, fewer=True, note=f"{note}; {spread}",
    )  # fmt: skip
    return [longest.beside(name, [max(peers)] if peers else [])]


def _gap_ms(client: Child, at: float) -> float:
    client.tell(f"gap {at}")
    found = client.say()
    if found["seconds"] is None:
        raise RuntimeError(f"nothing was committed after a kill: {found['failed']}")
    return float(found["seconds"]) * 1e3


def _kills_of_ours(bench: Bench, kills: int) -> list[float]:
    gaps: list[float] = []
    with bench.room() as room, cluster_of(room) as cluster, client_of(room, ours(cluster, SMALL)) as client:
        client.tell("watch")
        client.say()
        for number in range(kills):
            bench.tell(f"leader killed, {number + 1} of {kills}; longest so far {max(gaps, default=0):.0f} ms")
            time.sleep(CALM_S)
            leader = cluster.leader(HOSTED)
            at = time.monotonic()
            cluster.kill(leader)
            gaps.append(_gap_ms(client, at))
            cluster.up(leader)
            cluster.placed(caught_up=True)
        client.tell("stop")
    return gaps


def _kills_of_etcd(bench: Bench, room: Path, etcd: Etcd, kills: int) -> list[float]:
    gaps: list[float] = []
    with client_of(room, theirs(etcd, SMALL)) as client:
        client.tell("watch")
        client.say()
        for number in range(kills):
            bench.tell(f"etcd's leader killed, {number + 1} of {kills}")
            time.sleep(CALM_S)
            leader = etcd.leader()
            at = time.monotonic()
            etcd.kill(leader)
            gaps.append(_gap_ms(client, at))
            etcd.up(leader)
            until = time.monotonic() + SETTLE_S_MAX
            while not etcd.healthy():
                if time.monotonic() > until:
                    raise RuntimeError("etcd did not become healthy again")
        client.tell("stop")
    return gaps
