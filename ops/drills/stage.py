"""The stage of a drill: one member, nodes in one process, a top-level node, a recursive node, outside clients; all on loopback.

| process | what it is |
| --- | --- |
| member | `zaibei up`: the copy, on trial; with a planted bug in a red run |
| nodes | secondary nodes, all in one process, so that all can die in one moment (chaos/standin/registries.py) |
| top | the top-level node: where each prefix answers |
| recursive | what clients ask; TTL 0 |
| prober | the outside clients |

The feed and the probes go through proxies of ours. Every process is our own child; only those are ever killed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from chaos.faults.edge_stream_proxy import StreamProxy, Way
from chaos.faults.rules import CUT, OPEN
from chaos.scenarios.scenario import Plant, Scenario
from ops.admin.edge_client import AdminClient
from ops.admin.values import SourceStatus
from ops.drills.edge_children import Children
from ops.drills.edge_stage_files import HOST, StageFiles
from ops.drills.planted import BY_CONFIGURATION

LOOK_S, LOOK_SOURCE_S = 0.1, 0.02  # between looks at the member, and so much longer for each source: a look costs it time


class Stage(StageFiles, Children):
    """Builds and runs the stage in one folder; an async context that ends all its processes.

    Args:
        plant: the bug of a red run; None: none.
    """

    def __init__(self, folder: Path, scenario: Scenario, seed: int, plant: Plant | None) -> None:
        StageFiles.__init__(self, folder, scenario, plant)
        Children.__init__(self, folder)
        self.seed = seed
        self.look_s = max(LOOK_S, LOOK_SOURCE_S * scenario.load.sources)
        self.push = StreamProxy([(HOST, self.ports["push"])], [(HOST, self.ports["feed"])], seed)
        self.probe = StreamProxy([(HOST, self.ports["probe"])], [(HOST, self.ports["nodes"])], seed)

    async def __aenter__(self) -> Stage:
        await self.push.start()
        await self.probe.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.end_all)
        await self.push.stop()
        await self.probe.stop()

    # ------------------------------------------------------------------------------------------------------- processes

    async def start_all(self) -> None:
        """Everything but the clients. Raises ZaibeiError(UNREACHABLE)."""
        self.write()
        await asyncio.gather(self.start("top"), self.start_members())
        await asyncio.gather(self.start("recursive"), self.start("nodes"))

    async def start_members(self) -> None:
        await self.start("member")

    async def whole(self) -> None:
        """Wait until all members hold everything; one is always whole."""

    def program(self) -> list[str]:
        """A member's program: the planted one in a red run."""
        if self.plant is None or self.plant in BY_CONFIGURATION:
            return ["ops.cli.main"]
        return ["ops.drills.planted", self.plant.name]

    def command(self, name: str) -> list[str]:
        python = [sys.executable, "-m"]
        top = f"tcp://{HOST}:{self.ports['top']}"
        port = str(self.ports["recursive"])
        return {
            "member": [*python, *self.program(), "up", "--config", "member.toml", "--json"],
            "nodes": [*python, "chaos.standin.registries", "--config", "nodes.json"],
            "twin": [*python, "chaos.standin.registries", "--config", "twin.json"],
            "top": [*python, "chaos.standin.secondary", "--config", "top.toml"],
            "recursive": [
                *python, "chaos.standin.recursive", "--roots", top, "--ttl-cap", "0", "--hosts", HOST, "--tcp", port,
                "--udp", port,
                "--http", str(self.ports["recursive-http"]),
            ],
            "flood": [*python, "chaos.faults.edge_flood", "flood.json"],
            "crowd": [*python, "chaos.drills.crowd", "crowd.json"],
            "prober": [*python, "chaos.drills.prober", "prober.json"],
        }[name]  # fmt: skip

    # ------------------------------------------------------------------------------------------------------- links, looks

    def cut(self, cut: bool) -> None:
        """Feed and probes, both directions, silently; or open again."""
        for proxy in (self.push, self.probe):
            for way in Way:
                proxy.set(way, CUT if cut else OPEN)

    async def rows(self) -> dict[str, SourceStatus]:
        """Each source as the member sees it. Raises ZaibeiError."""

        def look() -> dict[str, SourceStatus]:
            with AdminClient(self.folder / "member" / "admin.sock") as admin:
                return {row.source: row for row in admin.sources()}

        return await asyncio.to_thread(look)

    async def start_prober(self) -> None:
        config = {
            "history": str(self.history), "told": str(self.told), "seed": self.seed, "sources": self.prefix_of,
            "recursive": ["tcp", HOST, self.ports["recursive"]], "ours": self.ours,
            "lanes": {str(lane): rate for lane, rate in self.scenario.load.lanes},
        }  # fmt: skip
        self.write_json("prober.json", config)
        await self.start("prober")
