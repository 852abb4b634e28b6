"""One source of any size on one member: loaded by snapshot, changed, read out, killed, started again, resolved cold and warm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from ops.bench import registry
from ops.bench.bench import Bench
from ops.bench.edge_answers import LOADS, first_right_answer
from ops.bench.edge_engine import SOURCE
from ops.bench.edge_member import MEMBER, World, world
from ops.bench.edge_process import Child, drop_pages, family, rss_mb
from ops.bench.edge_sender import SenderConfig
from ops.bench.scale_page import Size
from replica.feed.edge_puller import WatchLink
from replica.feed.edge_tls import open_channel
from replica.model.edge_identity import ensure_identity
from replica.model.errors import require
from replica.model.identifier import key_text
from replica.model.identity import Peer
from replica.v1 import source_pb2

MEMORY_MB = 512  # of [limits] memory_mb, its default: the block cache does not grow with the store
CHANGES_MAX = 200  # batches of 1,000
CHANGED_SHARE = 0.2  # at most, of a source: a feed that rewrites more is held for a person, which is not measured here
LOAD_A_S_LEAST = 5_000  # records; a load that is slower is given up
RSS_EVERY_S = 0.25
OCTETS_EACH_MAX = 300  # of disk that must be free for each record before a size begins
RESTART_S_MAX = 300.0


class MostMemory:
    """Highest resident memory of a process and its children while the block runs."""

    def __init__(self, pid: int) -> None:
        self.mb = 0.0
        self._pid, self._over = pid, Event()

    @contextmanager
    def watch(self) -> Iterator[None]:
        def look() -> None:
            while not self._over.wait(RSS_EVERY_S):
                try:
                    self.mb = max(self.mb, rss_mb(family(self._pid)))
                except OSError:
                    continue  # a helper ended meanwhile

        thread = Thread(target=look, name="resident memory")
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


def measure(bench: Bench, records: int) -> Size:
    """One size. Raises RuntimeError: something was not as it must be."""
    tell, seconds = bench.tell, bench.scale.seconds
    names = [key_text(key).encode() for key in registry.some_keys(records, 1_000, seed=2)]
    batches = max(1, min(CHANGES_MAX, int(records * CHANGED_SHARE) // 1_000))
    with bench.room() as room, world(room, Path(registry.NAME), records, 0, batches) as one:
        member = one.member(memory_mb=MEMORY_MB)
        try:
            ports = _ports(member)
            most = MostMemory(member.pid)
            tell(f"{records:,} records are loaded")
            with most.watch():
                load_s = first_right_answer(ports["handle"], names, records / LOAD_A_S_LEAST + 60)
            tell(f"{batches * 1_000:,} changes to {records:,} records")
            one.source.tell(f"stream {batches} 0")
            changes_a_s = batches * 1_000 / one.source.say(600)["seconds"]
            tell(f"{records:,} records are read out")
            began = time.monotonic()
            count = asyncio.run(_read_out(one, ports["feed"], tell))
            require(count >= records, f"{count} of at least {records} records were read out")
            readout_a_s = count / (time.monotonic() - began)
            octets = sum(path.stat().st_size for path in (one.data / "stores").rglob("*") if path.is_file())
            member.kill()
            tell(f"restart with {records:,} records")
            drop_pages(one.data)
            began = time.monotonic()
            member = one.member(memory_mb=MEMORY_MB)
            ports = _ports(member)
            first_right_answer(ports["handle"], names, RESTART_S_MAX)
            restart_s = time.monotonic() - began
            drop_pages(one.data / "stores")
            tell(f"answers out of {records:,} records")
            cold = _answers(one, member, ports["handle"], records, seconds, warm_up_s=0.0)
            warm = _answers(one, member, ports["handle"], records, seconds, warm_up_s=seconds)
            rss, files = rss_mb(family(member.pid)), len(list(Path(f"/proc/{member.pid}/fd").iterdir()))
        finally:
            member.end()
    return Size(
        records=records, load_s=load_s, load_a_s=records / load_s, load_rss_mb=most.mb, disk_mb=octets / 1e6,
        octets=octets / count, files=files, changes_a_s=changes_a_s, cold=cold, warm=warm, rss_mb=rss, readout_a_s=readout_a_s,
        restart_s=restart_s,
    )  # fmt: skip


def _ports(member: Child) -> dict[str, int]:
    """Of the ready line."""
    listed = member.say(RESTART_S_MAX)["addresses"]
    return {name: int(listed[name][0].rpartition(":")[2]) for name in ("handle", "feed")}


def _answers(one: World, member: Child, port: int, records: int, seconds: float, warm_up_s: float) -> float:
    """Answers over TCP for a CPU second; over UDP they would not fit one datagram."""
    load = LOADS["tcp"]
    given = SenderConfig(
        kind="tcp", port=port, material=registry.NAME, records=records, seconds=seconds, pids=family(member.pid),
        depth=load.depth, connections=load.connections, warm_up_s=warm_up_s, seed=3,
    )  # fmt: skip
    result = one.ask(given)
    if result["wrong"]:
        raise RuntimeError(f"{result['wrong']} of {result['answered']} answers were wrong")
    return result["answered"] / result["cpu_s"]


async def _read_out(one: World, port: int, tell: Callable[[str], None]) -> int:
    """Fetch the whole copy back, as a node would that lost its data; returns how many records came."""
    identity = ensure_identity(one.folder / "source", SOURCE)
    certificate = (one.data / "identity" / "certificate.pem").read_bytes()
    count = octets = 0
    async with open_channel(f"127.0.0.1:{port}", identity, Peer(MEMBER, certificate, role="member")) as channel:
        link = WatchLink(channel, SOURCE)
        async for part in link.snapshot(source_pb2.SnapshotRequest()):
            if part.HasField("chunk"):
                octets += len(part.chunk.columns)
                tell(f"read out: {octets / 1e6:,.0f} MB")
            elif part.HasField("end"):
                count = part.end.digest.records
        link.close()
    return count
