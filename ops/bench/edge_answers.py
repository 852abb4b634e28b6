"""Stages 3 and 6 to 9: a real member in its own process, a source in another, a load sender in a third."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ops.bench.bench import Bench
from ops.bench.edge_member import Addresses, World, addresses, world
from ops.bench.edge_process import Child, drop_pages, family, rss_mb
from ops.bench.edge_sender import CODE_AT, SenderConfig, handle_request
from ops.bench.synthetic import RAW_OCTETS
from ops.bench.table import Row, row
from replica import native
from replica.model.identifier import key_text

FEED_TARGET, P99_TARGET_MS, RESTART_TARGET_S = 130_000, 5.0, 2.0
TARGETS = {"udp": 60_000, "tcp": 80_000, "http": 25_000, "grpc": 150_000}
NAMES = {"udp": "UDP", "tcp": "TCP, pipelined", "http": "HTTP JSON, pipelined", "grpc": "gRPC, batches of 100"}
WARM_MB, USUAL_MB, SMALL_MB = 1_024, 512, 64  # of [limits] memory_mb, 512 where not set; half of it is block cache
CHANGES_A_S, REQUESTS_A_S, PACED_S = 20_000, 200, 6.0
BATCH = 1_000
FRONTS = 2
FIRST_NEW = 10_000_000  # number of the first streamed record; none of them is in the material
READY_S_MAX = 120.0
PROBE_S = 0.005
REFUSED_SHARE_MAX = 0.25  # fronts say 2 while their owner is silent for 10 ms, which happens when all cores are busy


@dataclass(frozen=True, slots=True)
class Load:
    """What the sender keeps under way: on UDP together, on streams and calls for each connection."""

    depth: int
    connections: int


LOADS = {"udp": Load(64, 4), "tcp": Load(64, 4), "http": Load(32, 4), "grpc": Load(4, 2)}


class Running:
    """A member that answers, and the means to load it."""

    def __init__(self, bench: Bench, one: World, member: Child, refused_share_max: float = 0.0) -> None:
        self.bench, self.world, self.member = bench, one, member
        self._refused_share_max = refused_share_max
        self.at: Addresses = addresses(member)
        self.names = _some_names(bench)

    def wait_for_answers(self) -> float:
        """Seconds until a random record is answered right; from now."""
        return first_right_answer(self.at.handle, self.names)

    def send(self, kind: str, seconds: float, **more: Any) -> dict[str, float]:
        """One run of the sender.

        Raises:
            RuntimeError: an answer was not the record; of fronts, more than REFUSED_SHARE_MAX of them.
        """
        load = LOADS.get(kind, Load(1, 1))
        port = {"http": self.at.http, "grpc": self.at.grpc}.get(kind, self.at.handle)
        given = SenderConfig(
            kind=kind, port=port, material=str(self.bench.material.path), records=self.bench.scale.records,
            seconds=seconds, pids=family(self.member.pid), depth=load.depth, connections=load.connections, **more,
        )  # fmt: skip
        path = self.bench.folder / "sender.json"
        path.write_text(json.dumps({name: getattr(given, name) for name in given.__struct_fields__}))
        with Child(["-m", "ops.bench.edge_sender", str(path)], self.world.errors) as sender:
            result: dict[str, float] = sender.say()
        if result["wrong"] > result["answered"] * self._refused_share_max:
            raise RuntimeError(f"{kind}: {result['wrong']} of {result['answered']} answers were wrong")
        return result


@dataclass(slots=True)
class Figures:
    """Runs of one kind under one condition."""

    per_cpu: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    lost: float = 0.0
    refused: float = 0.0
    rss_mb: float = 0.0

    def add(self, result: dict[str, float], rss: float) -> None:
        right = result["answered"] - result["wrong"]
        self.per_cpu.append(right / result["cpu_s"])
        self.per_s.append(right / result["seconds"])
        self.lost += result["lost"]
        self.refused += result["wrong"]
        self.rss_mb = max(self.rss_mb, rss)

    def row(self, stage: str, kind: str, how: str, *, targets: bool) -> Row:
        note = f"{median(self.per_s):,.0f}/s of wall time; RSS {self.rss_mb:.0f} MB"
        note += f", {self.lost:,.0f} datagrams lost" if self.lost else ""
        note += f", {self.refused:,.0f} answers said 2 and do not count" if self.refused else ""
        unit = "identifiers/CPU-s" if kind == "grpc" else "answers/CPU-s"
        target = TARGETS[kind] if targets else None
        return row(stage, f"resolution, {NAMES[kind]}, {how}", self.per_cpu, unit, target=target, note=note)


def measure(running: Running, stage: str, kinds: Sequence[str], how: str, *, targets: bool) -> list[Row]:
    """Answers for a CPU second of one member, the kinds taking turns."""
    bench = running.bench
    figures = {kind: Figures() for kind in kinds}
    for turn in range(bench.scale.runs):
        for kind, one in figures.items():
            bench.tell(f"resolution over {NAMES[kind]}, {how}, run {turn + 1} of {bench.scale.runs}")
            one.add(running.send(kind, bench.scale.seconds), rss_mb(family(running.member.pid)))
    return [one.row(stage, kind, how, targets=targets) for kind, one in figures.items()]


def measure_cold(bench: Bench, one: World, kinds: Sequence[str]) -> list[Row]:
    """The same from nothing: a process just started, the page cache of its files dropped, no warm-up."""
    how = f"cold: just started, empty block cache of {USUAL_MB // 2} MiB, page cache dropped"
    figures = {kind: Figures() for kind in kinds}
    for turn in range(bench.scale.runs):
        for kind, found in figures.items():
            bench.tell(f"resolution over {NAMES[kind]}, cold, run {turn + 1} of {bench.scale.runs}")
            with one.member(memory_mb=USUAL_MB) as member:
                running = Running(bench, one, member)
                running.wait_for_answers()
                drop_pages(one.data / "stores")
                found.add(running.send(kind, bench.scale.seconds, warm_up_s=0.0), rss_mb(family(member.pid)))
    return [found.row("6", kind, how, targets=True) for kind, found in figures.items()]


def _some_names(bench: Bench) -> list[bytes]:
    part = next(bench.material.parts(BATCH))
    return [key_text(key).encode() for key in native.split(part)[0]]


def first_right_answer(port: int, names: Sequence[bytes], limit_s: float = READY_S_MAX) -> float:
    """Ask over UDP until one of the names is answered with its record; seconds it took. Raises RuntimeError: it never was."""
    began = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", port))
        probe.settimeout(PROBE_S)
        while time.monotonic() - began < limit_s:
            try:
                probe.send(handle_request(random.choice(names), 1))
                if probe.recv(2_048)[CODE_AT] == 1:
                    return time.monotonic() - began
                time.sleep(PROBE_S)
            except OSError:
                time.sleep(PROBE_S / 5)  # nobody listens yet, or no answer came
    raise RuntimeError(f"no right answer within {limit_s} s")


# ------------------------------------------------------------------------------------------------------------- stage 3
def end_to_end(bench: Bench) -> list[Row]:
    """From the source's disk to the receipt: gRPC, mTLS, session, journal, store."""
    scale = bench.scale
    figures = []
    with bench.room() as room, world(room, Path(), 0, 0, scale.ingest * scale.runs) as one, one.member() as member:
        addresses(member)
        for turn in range(scale.runs):
            bench.tell(f"end to end through the feed, run {turn + 1} of {scale.runs}")
            one.source.tell(f"stream {scale.ingest} 0")
            figures.append(scale.ingest * BATCH / one.source.say()["seconds"])
    return [
        row(
            "3", "end to end: source process, gRPC, mTLS, member, quorum receipt", figures, "records/s",
            note="source and member share the machine's cores",
        )
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- stages 6 to 9
def resolution(bench: Bench) -> list[Row]:
    """One process, warm; small cache, cold; owner and fronts."""
    records, kinds = bench.scale.records, tuple(TARGETS)
    rows: list[Row] = []
    with bench.room() as room, world(room, bench.material.path, records, FIRST_NEW, 0) as one:
        with one.member(memory_mb=WARM_MB) as member:
            running = Running(bench, one, member)
            bench.tell(f"first contact: {records:,} records come over the feed")
            took = running.wait_for_answers()
            rows.append(row("3", "first contact over the feed, from ready to the first answer", [records / took], "records/s"))
            rows += measure(running, "6", kinds, f"warm, block cache {WARM_MB // 2} MiB", targets=True)
        rows += measure_cold(bench, one, kinds)
        with one.member(memory_mb=SMALL_MB) as member:
            running = Running(bench, one, member)
            running.wait_for_answers()
            share = SMALL_MB // 2 * 2**20 / (records * RAW_OCTETS)
            how = f"block cache {SMALL_MB // 2} MiB = {min(1.0, share):.0%} of the blocks, page cache warm"
            rows += measure(running, "6", kinds, how, targets=False)
        with one.member(memory_mb=WARM_MB, fronts=FRONTS) as member:
            running = Running(bench, one, member, REFUSED_SHARE_MAX)
            running.wait_for_answers()
            rows += measure(running, "7", ("udp", "tcp"), f"owner and {FRONTS} fronts", targets=False)
    return rows


def under_changes(bench: Bench) -> list[Row]:
    """Latency while changes come in, then restarts after SIGKILL with what they left."""
    records, scale = bench.scale.records, bench.scale
    seconds = PACED_S if scale.runs > 1 else 2.0
    rate = CHANGES_A_S // BATCH
    batches = int((seconds + 2) * rate)
    results = []
    starts = []
    with bench.room() as room, world(room, bench.material.path, records, FIRST_NEW, batches * scale.runs) as one:
        member = one.member()
        try:
            running = Running(bench, one, member)
            running.wait_for_answers()
            for turn in range(scale.runs):
                bench.tell(f"answers while changes come in, run {turn + 1} of {scale.runs}")
                one.source.tell(f"stream {batches} {rate}")
                results.append(running.send("paced", seconds, rate=REQUESTS_A_S))
                streamed = one.source.say()
                if streamed["seconds"] > batches / rate * 1.1:
                    raise RuntimeError(f"the changes did not keep their rate: {streamed}")
            for turn in range(max(3, scale.runs)):
                bench.tell(f"restart after SIGKILL, run {turn + 1}")
                member.kill()
                began = time.monotonic()
                member = one.member(handle_port=running.at.handle)
                first_right_answer(running.at.handle, running.names)
                starts.append(time.monotonic() - began)
                addresses(member)
        finally:
            member.end()
    what = f"{REQUESTS_A_S} requests/s over UDP while {CHANGES_A_S:,} changes/s come in"
    return [
        row("8", f"answer p99, {what}", [one["p99_ms"] for one in results], "ms", target=P99_TARGET_MS, fewer=True,
            note=f"p50 {min(one['p50_ms'] for one in results):.2f} ms, worst {max(one['max_ms'] for one in results):.1f} ms, "
            f"{sum(one['lost'] for one in results):.0f} lost; whole batches of 1,000"),
        row("9", f"restart after SIGKILL with {records:,} records: exec to first right answer", starts, "s",
            target=RESTART_TARGET_S, fewer=True, note="source alive; the journal replays what the store had not flushed"),
    ]  # fmt: skip
