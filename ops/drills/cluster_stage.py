"""The stage with three members: one cluster, a zone and an address each, as an operator makes them one (ops/demo/members.py)."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path

from chaos.scenarios.scenario import Plant, Scenario
from ops.admin.values import SourceStatus
from ops.demo.members import HOSTS, NAMES, PORTS, SEATS, Members
from ops.demo.stage import free_port
from ops.drills.edge_stage_files import HOST
from ops.drills.stage import Stage
from replica.agent.records import site_from_json
from replica.model.errors import Code, ZaibeiError

FORMED_S_MAX = 60.0
LOOK_S = 0.1


class ClusterStage(Stage):
    """See the module. `up`: members that run now, in their order; pushed_to: name of the port that nodes push to."""

    pushed_to = "feed"

    def __init__(self, folder: Path, scenario: Scenario, seed: int, plant: Plant | None) -> None:
        super().__init__(folder, scenario, seed, plant)
        self.ports |= {name: free_port() for name in PORTS if name not in self.ports}
        self.members = Members(self.folder, self.ports)
        self.up: list[str] = []

    def site(self) -> str:
        ours = {"desc": "zaibei", "addresses": list(HOSTS), "primary": False}
        return site_from_json({**ours, "tcp": self.ports["handle"], "udp": self.ports["handle"]}).hex()

    @property
    def ours(self) -> list[tuple[str, int]]:
        return [(host, self.ports["handle"]) for host in HOSTS]

    def write_member(self) -> None:
        self.members.begin()
        self.members.write(self.blocks())

    def blocks(self) -> list[str]:
        """What stands in the files of all members alike."""
        recursive = f'[[recursive]]\nname = "recursive"\nurl = "http://{HOST}:{self.ports["recursive-http"]}"\nflush = true'
        return [recursive, *(self.publisher(source) for source in self.sources)]

    def member_pins(self) -> list[str]:
        """A node pushes to whichever member leads its source; it knows them by the cluster's CA."""
        text = ["[pki]", f"roots = [{json.dumps(str(self.members.roots))}]", f'cluster = "{self.members.cluster}"']
        for name, host in zip(NAMES, HOSTS, strict=True):
            text += ["[[member]]", f'name = "{name}"', f'push = "{host}:{self.ports[self.pushed_to]}"']
        return text

    async def start_members(self) -> None:
        await self.start(NAMES[0])
        self.up = [NAMES[0]]
        for seat in SEATS[1:]:
            await asyncio.to_thread(self.members.join, seat)
        await asyncio.gather(*(self.start(seat.name) for seat in SEATS[1:]))
        self.up = list(NAMES)

    def command(self, name: str) -> list[str]:
        if name in NAMES:
            return [sys.executable, "-m", *self.program(), "up", "--config", f"{name}.toml", "--json"]
        return super().command(name)

    async def rows(self) -> dict[str, SourceStatus]:
        """Each source as the member sees it that knows most of it: who leads, else the first that is up."""

        def look() -> dict[str, SourceStatus]:
            found = dict[str, SourceStatus]()
            for name in self.up:
                with suppress(ZaibeiError), self.members.admin(name) as admin:
                    for row in admin.sources():
                        known = found.get(row.source)
                        if row.source not in self.prefix_of:
                            continue
                        if known is None or (row.connected and not known.connected):
                            found[row.source] = row
            if not found:
                raise ZaibeiError(Code.UNREACHABLE, "no member answers", retry=True)
            return found

        return await asyncio.to_thread(look)

    async def whole(self) -> None:
        """Wait until every source has three voters that hold what its leader holds. Raises TimeoutError."""
        async with asyncio.timeout(FORMED_S_MAX):
            while not await asyncio.to_thread(self._whole):  # noqa: ASYNC110 - of other processes
                await asyncio.sleep(LOOK_S)

    def _whole(self) -> bool:
        try:
            with self.members.admin(self.up[0]) as admin:
                groups = {group.group: group for group in admin.cluster_status().groups}
        except ZaibeiError:
            return False
        rows = [groups.get(source) for source in self.sources]
        return all(row is not None and len(row.voters) == len(NAMES) and not row.learners and row.leader for row in rows)
