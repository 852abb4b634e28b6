"""The stage on which the top-level node is copied too: recursive nodes ask it first and us behind it.

It says where every prefix is served: those of the secondary nodes of the stage, and two of other provinces, which nobody here
holds. Secondary nodes that live on while others die have a process of their own.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from chaos.scenarios.scenario import Plant, Scenario
from chaos.standin.edge_serve import Ports
from chaos.standin.secondary import own_site
from hosting.answer.sites import Endpoints, endpoints_of
from ops.demo.stage import free_port
from ops.drills.edge_stage_files import HOST, SITE_TTL_S
from ops.drills.stage import Stage
from replica.agent.records import site_from_json

TOP_LEVEL, OWN_PREFIX = "top-level", "88"
TOP, LIVING, NODES = "top", "living", "nodes"  # processes
DELEGATED, SERVED = "88.300", "88.301"  # of other provinces: with a site for all below it, and by a service handle
SERVICE = "88/SERVICE-1"
ELSEWHERE = Ports(udp=2641, tcp=2641)  # nobody answers there, and nobody asks


class TopStage(Stage):
    """See the module. `prefixes`: every prefix that the top-level node says where to find."""

    def __init__(self, folder: Path, scenario: Scenario, seed: int, plant: Plant | None) -> None:
        super().__init__(folder, scenario, seed, plant)
        self.ports[LIVING] = free_port()
        count = len(self.sources) - scenario.load.living
        self._hosted = {NODES: self.sources[:count], LIVING: self.sources[count:], TOP: [TOP_LEVEL]}
        self.processes = [child for child, sources in self._hosted.items() if sources]
        self.sources = [*self.sources, TOP_LEVEL]
        self.prefix_of[TOP_LEVEL] = OWN_PREFIX
        elsewhere = own_site(("192.0.2.1",), ELSEWHERE, 1, primary=True, description="another province").hex()
        self.delegation = bytes.fromhex(elsewhere)

    def hosted_by(self, child: str) -> list[str]:
        return self._hosted[child]

    def host_of(self, source: str) -> str:
        """The process of a source's node."""
        return next(child for child, sources in self._hosted.items() if source in sources)

    def node_port(self, source: str) -> int:
        return self.ports[self.host_of(source)]

    def probed(self, source: str) -> tuple[str, int]:
        """The proxy stands before one port; who has another is asked there."""
        return super().probed(source) if self.host_of(source) == NODES else ("tcp", self.node_port(source))

    def site(self) -> str:
        """As the member itself publishes it, with every port: so that nobody is told of it twice."""
        ports = {"tcp": self.ports["handle"], "udp": self.ports["handle"], "http": self.ports["http"]}
        return site_from_json({"desc": "zaibei", "addresses": [HOST], "primary": False, **ports}).hex()

    def mode(self, source: str) -> str:
        return "mixed" if source == TOP_LEVEL else "records"

    def write_top(self, routes: list[dict[str, Any]]) -> None:
        site = {"data": {"format": "hex", "value": self.delegation.hex()}, "ttl": SITE_TTL_S}
        below = [{"index": 1, "type": "HS_SITE", **site}, {"index": 2, "type": "HS_SITE.PREFIX", **site}]
        service = [{"index": 1, "type": "HS_SERV", "data": SERVICE, "ttl": SITE_TTL_S}]
        known = [line for line in routes if line["prefix"] != OWN_PREFIX]
        known += [{"prefix": DELEGATED, "values": below}, {"prefix": SERVED, "values": service}]
        for child in self.processes:
            config = self._nodes(self.site(), child)
            if child == TOP:
                config["nodes"][0]["routes"] = known
            self._write(f"{child}.json", json.dumps(config))

    def owners(self, dead: set[str]) -> dict[str, list[Endpoints]]:
        """Prefix -> sites that a recursive node may be given, the one that must come first before the others."""
        found = {DELEGATED: [endpoints_of(self.delegation)]}
        for source, prefix in self.prefix_of.items():
            own, ours = (endpoints_of(bytes.fromhex(value["data"]["value"])) for value in self.published(source))
            found[prefix] = [ours, own] if source in dead else [own, ours]
        return found

    # ------------------------------------------------------------------------------------------------------- processes

    async def start_all(self) -> None:
        self.write()
        await asyncio.gather(self.start_members(), *(self.start(child) for child in self.processes))
        await self.start("recursive")

    def command(self, name: str) -> list[str]:
        if name in (TOP, LIVING):
            return [*super().command(NODES)[:-1], f"{name}.json"]
        found = super().command(name)
        if name == "recursive":
            place = found.index("--roots") + 1
            found[place] = ",".join([found[place], *(f"tcp://{host}:{port}" for host, port in self.ours)])
        return found

    async def ask(self, child: str = "", **command: Any) -> dict[str, Any]:
        """To the process of the node that it names; what names none is for all of them."""
        if child or "node" in command:
            return await super().ask(child or self.host_of(command["node"]), **command)
        for one in self.processes:
            await super().ask(one, **command)
        return {}
