"""Nodes die again and again, one after the other; the outside clients of the drills say when each was answered again.

Sixteen nodes, each a process with a source of its own, one member, a top-level node, a recursive node (TTL 0), all on loopback.
*kill*: SIGKILL and a new start; *freeze*: SIGSTOP, connections stay open and nothing comes; *black hole*: feed, probes, beats and
clients' connections to the node go through links of ours that swallow everything. A source is taken only when its copy is fresh,
verified and answered by its node again.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from math import inf
from pathlib import Path

from chaos.drills.outside import Lane, read_history, read_lates
from chaos.drills.prober import Tail
from chaos.faults.edge_process import gone
from chaos.faults.edge_stream_proxy import StreamProxy, Way
from chaos.faults.rules import CUT, OPEN
from chaos.scenarios.scenario import Load, Plant, Scenario
from ops.admin.edge_client import AdminClient
from ops.admin.values import SourceStatus
from ops.bench import bench as stages
from ops.bench.bench import Bench
from ops.bench.table import Row
from ops.bench.takeovers import Death, Found, Late, answered, happened, joined, judge, kept, read_kept, rows, slow
from ops.demo.stage import free_port
from ops.drills.edge_stage_files import HOST, SITE_TTL_S
from ops.drills.stage import Stage
from replica.agent.records import site_from_json
from replica.model.errors import ZaibeiError

NODES = 16
WATCHED_S, WATCHED_S_MAX = 2.2, 15.0  # from a death to its heal: until a client was answered, but no shorter and no longer
FINISHED_S = 3.5  # after the last heal: the patience of every lookup that was begun before it, and until it is written down
CALM_S = 2.2  # clients ask before the first death
LOOK_S = 0.1
COPIED_S_MAX = 120.0
READY_S_MAX = 90.0  # until one of the sources may die again
TRIES = 1.25  # times as many deaths as are wanted, at most: those of a late moment do not count
LOAD = Load(
    sources=NODES, records=100, every_ms=1_000, direct=True, lanes=((Lane.RECURSIVE, 20.0), (Lane.HEDGED, 5.0), (Lane.PORT, 1.0))
)
SCENE = Scenario("takeovers", 33, "", (), (), Plant.NEVER_TAKES_OVER, "", 120, load=LOAD)
KINDS = ("kill", "freeze", "black hole")


class ManyNodes(Stage):
    """A process for each node. proxied: everything of a node goes over links of ours, TCP alone."""

    def __init__(self, folder: Path, *, proxied: bool) -> None:
        super().__init__(folder, SCENE, 1, None)
        self.proxied = proxied
        self.own = {source: free_port() for source in self.sources}
        self.reach = {source: free_port() for source in self.sources} if proxied else self.own
        self.pushed = {source: free_port() for source in self.sources} if proxied else dict.fromkeys(self.own, self.ports["feed"])
        self.links: dict[str, list[StreamProxy]] = {source: [] for source in self.sources}

    async def __aenter__(self) -> ManyNodes:
        for source in self.sources if self.proxied else ():
            for near, far in ((self.reach[source], self.own[source]), (self.pushed[source], self.ports["feed"])):
                link = StreamProxy([(HOST, near)], [(HOST, far)], 1)
                await link.start()
                self.links[source].append(link)
        await super().__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        for link in (one for links in self.links.values() for one in links):
            await link.stop()

    def publisher(self, source: str) -> str:
        """See Stage; its own ports."""
        self.ports["nodes"] = self.reach[source]
        text = super().publisher(source)
        return text.replace('protocol = "udp"', 'protocol = "tcp"') if self.proxied else text

    def member_pins(self) -> list[str]:
        return [line.replace(str(self.ports["feed"]), "FEED") for line in super().member_pins()]

    def write(self) -> None:
        """See Stage: then what is each node's own."""
        super().write()
        routes = []
        for source, prefix in self.prefix_of.items():
            path = self.folder / f"{source}.toml"
            text = path.read_text("utf-8").replace("FEED", str(self.pushed[source]))
            path.write_text(text, encoding="utf-8")
            port = self.reach[source]
            face = {"tcp": port} if self.proxied else {"tcp": port, "udp": port}
            sites = [site_from_json({"desc": source, "addresses": [HOST], "primary": True, **face}).hex(), self.site()]
            values = [
                {"index": place, "type": "HS_SITE", "data": {"format": "hex", "value": site}, "ttl": SITE_TTL_S}
                for place, site in enumerate(sites, 1)
            ]
            routes.append({"prefix": prefix, "sites": [], "values": values})
            config = self._nodes(sites[1])
            config |= {"udp": self.own[source], "tcp": self.own[source], "tally": str(self.folder / f"{source}-answered")}
            config["nodes"] = [one for one in config["nodes"] if one["name"] == source]
            self._write(f"{source}.json", json.dumps(config))
        self._write("top.jsonl", "".join(json.dumps(line) + "\n" for line in routes))

    def command(self, name: str) -> list[str]:
        if name in self.prefix_of:
            return [*super().command("nodes")[:-1], f"{name}.json"]
        return super().command(name)

    async def start_all(self) -> None:
        """See Stage; four nodes at a time."""
        self.write()
        await asyncio.gather(self.start("top"), self.start_members())
        await self.start("recursive")
        turns = asyncio.Semaphore(4)

        async def one(source: str) -> None:
            async with turns:
                await self.start(source)

        await asyncio.gather(*map(one, self.sources))

    async def began_anew(self, source: str) -> int:
        """How often the member's detector of this source was late and began anew. Raises ZaibeiError."""

        def look() -> int:
            with AdminClient(self.folder / "member" / "admin.sock") as admin:
                return int(admin.takeover_status(source)[0]["began_anew"])

        return await asyncio.to_thread(look)

    @asynccontextmanager
    async def dead(self, kind: str, source: str) -> AsyncIterator[int]:
        """Yields the moment of its death, CLOCK_MONOTONIC ns; healed afterwards."""
        pid = self.pid(source)
        if kind == "black hole":
            await self.ask(child=source, do="mute", on=True)
            self._swallow(source, True)
            at_ns = time.monotonic_ns()
            yield at_ns
            self._swallow(source, False)
            await self.ask(child=source, do="mute", on=False)
            return
        os.kill(pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        at_ns = time.monotonic_ns()
        yield at_ns
        if kind == "kill":
            await self.gone(source)
            await gone(pid)
            await self.start(source)
        else:
            os.kill(pid, signal.SIGCONT)

    def _swallow(self, source: str, cut: bool) -> None:
        for link in self.links[source]:
            for way in Way:
                link.set(way, CUT if cut else OPEN)


def _calm(row: SourceStatus) -> bool:
    return row.ready and row.feed == "FLOWING" and row.verified is True and row.freshness == "fresh" and row.authority == "SOURCE"


async def _calm_ones(stage: ManyNodes, wanted: int, seconds: float) -> list[str]:
    """Sources that may die. Raises TimeoutError: too few came to be so."""
    until = time.monotonic() + seconds
    while True:
        with suppress(ZaibeiError):
            found = [source for source, row in (await stage.rows()).items() if _calm(row)]
            if len(found) >= wanted:
                return found
        if time.monotonic() > until:
            raise TimeoutError(f"not {wanted} sources are fresh, verified and answered by their nodes within {seconds:.0f} s")
        await asyncio.sleep(LOOK_S)


async def _play(bench: Bench, folder: Path, kind: str, wanted: int) -> Found:
    deaths: list[Death] = []
    async with ManyNodes(folder, proxied=kind == "black hole") as stage:
        await stage.start_all()
        await _calm_ones(stage, NODES, COPIED_S_MAX)
        await stage.start_prober()
        await asyncio.sleep(CALM_S)
        died, tail = dict.fromkeys(stage.sources, 0), Tail(stage.history)
        found, told = judge((), (), ()), list[str]()
        while len(found.first_ms) < wanted and len(deaths) < wanted * TRIES:
            source = min(await _calm_ones(stage, 1, READY_S_MAX), key=lambda one: died[one])
            died[source] = time.monotonic_ns()
            before = await stage.began_anew(source)
            async with stage.dead(kind, source) as at_ns:
                await _watch(tail, source, at_ns)
                healed_ns = time.monotonic_ns()
                deaths.append(Death(source, at_ns, healed_ns, await stage.began_anew(source) > before))
            bench.tell(f"takeovers, {kind}: {len(deaths)} of {wanted}")
            if len(deaths) >= wanted:
                await asyncio.sleep(FINISHED_S)
                found, told = await asyncio.to_thread(_judged, stage, deaths)
    for line in told:
        bench.say(line)
    return found


async def _watch(told: Tail, source: str, at_ns: int) -> None:
    """Clients' lookups, until the dead node's source was answered again."""
    seen = False
    while True:
        seen = answered(told.read(), source, at_ns) or seen
        past_s = (time.monotonic_ns() - at_ns) / 1e9
        if past_s >= WATCHED_S_MAX or (seen and past_s >= WATCHED_S):
            return
        await asyncio.sleep(LOOK_S)


def _judged(stage: ManyNodes, deaths: list[Death]) -> tuple[Found, list[str]]:
    """What came of it, and what happened in the runs that took long."""
    octets = stage.history.read_bytes()
    lookups = read_history(octets)[0]
    log = (stage.folder / "member.log").read_text("utf-8", "replace").splitlines()
    told = list[str]()
    for death, first_ms in slow(deaths, lookups):
        told.append(f"{death.source}, first answer after {first_ms or inf:.0f} ms:")
        told += happened(death, lookups, log, time.time_ns() - time.monotonic_ns())
    return judge(deaths, lookups, [Late(*one) for one in read_lates(octets)]), told


def _stage(kind: str) -> stages.Stage:
    def run(bench: Bench) -> list[Row]:
        with bench.room() as folder:
            pieces = read_kept(kind, bench.keep.read_bytes()) if bench.keep is not None and bench.keep.exists() else []
            found = asyncio.run(_play(bench, folder, kind, bench.scale.deaths))
        if bench.keep is not None:
            with bench.keep.open("ab") as file:
                file.write(kept(kind, found))
        return rows(kind, joined([*pieces, found]))

    return run


TAKEOVERS: dict[str, stages.Stage] = {f"node-{kind.replace(' ', '-')}": _stage(kind) for kind in KINDS}
