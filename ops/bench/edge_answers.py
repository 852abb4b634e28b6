"""Stages 3 and 6 to 9: a real member in its own process, a source in another, a load sender in a third."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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
WARM_MB, COLD_MB = 1_024, 64  # of [limits] memory_mb; half of it is block cache
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

    def measure(self, stage: str, kinds: Sequence[str], how: str, *, targets: bool) -> list[Row]:
        """Rows of answers for a CPU second, the kinds taking turns."""
        scale = self.bench.scale
        per_cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
        per_s: dict[str, list[float]] = {kind: [] for kind in kinds}
        lost = refused = 0.0
        for turn in range(scale.runs):
            for kind in kinds:
                self.bench.tell(f"resolution over {NAMES[kind]}, {how}, run {turn + 1} of {scale.runs}")
                result = self.send(kind, scale.seconds)
                right = result["answered"] - result["wrong"]
                per_cpu[kind].append(right / result["cpu_s"])
                per_s[kind].append(right / result["seconds"])
                lost += result["lost"]
                refused += result["wrong"]
        rss = rss_mb(family(self.member.pid))
        note = f"RSS {rss:.0f} MB" + (f", {lost:.0f} datagrams lost" if lost else "") + (f", {refused:,.0f} answers said 2 and do not count" if refused else "")
        unit = {"grpc": "identifiers/CPU-s"}
        return [
            row(
                stage, f"resolution, {NAMES[kind]}, {how}", per_cpu[kind], unit.get(kind, "answers/CPU-s"),
                target=TARGETS[kind] if targets else None,
                note=f"{sorted(per_s[kind])[len(per_s[kind]) // 2]:,.0f}/s of wall time; {note}",
            )
            for kind in kinds
        ]  # fmt: skip


def _some_names(bench: Bench) -> list[bytes]:
    part = next(bench.material.parts(BATCH))
    return [key_text(key).encode() for key in native.split(part)[0]]


def first_right_answer(port: int, names: Sequence[bytes]) -> float:
    """Ask over UDP until one of the names is answered with its record; seconds it took. Raises RuntimeError: it never was."""
    began = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", port))
        probe.settimeout(PROBE_S)
        while time.monotonic() - began < READY_S_MAX:
            try:
                probe.send(handle_request(random.choice(names), 1))
                if probe.recv(2_048)[CODE_AT] == 1:
                    return time.monotonic() - began
                time.sleep(PROBE_S)
            except OSError:
                time.sleep(PROBE_S / 5)  # nobody listens yet, or no answer came
    raise RuntimeError(f"no right answer within {READY_S_MAX} s")


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
            rows.append(row("3", "first contact over the feed: snapshot to answers", [records / took], "records/s"))
            rows += running.measure("6", kinds, f"warm, block cache {WARM_MB // 2} MiB", targets=True)
        with one.member(memory_mb=COLD_MB) as member:
            running = Running(bench, one, member)
            running.wait_for_answers()
            drop_pages(one.data / "stores")
            share = COLD_MB // 2 * 2**20 / (records * RAW_OCTETS)
            rows += running.measure(
                "6", kinds, f"cold, block cache {COLD_MB // 2} MiB = {share:.0%} of the blocks", targets=False
            )
        with one.member(memory_mb=WARM_MB, fronts=FRONTS) as member:
            running = Running(bench, one, member, REFUSED_SHARE_MAX)
            running.wait_for_answers()
            rows += running.measure("7", ("udp", "tcp"), f"owner and {FRONTS} fronts", targets=False)
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
