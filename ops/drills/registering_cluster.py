"""The stage of three members on which registrations may be taken over; whoever leads the source is asked."""

from __future__ import annotations

from pathlib import Path

from chaos.faults.edge_stream_proxy import StreamProxy, Way
from chaos.faults.rules import CUT, OPEN
from chaos.scenarios.scenario import Plant, Scenario
from ops.admin.edge_client import AdminClient
from ops.demo.members import HOSTS, NAMES
from ops.demo.stage import free_port
from ops.drills.cluster_stage import ClusterStage
from ops.drills.registering_stage import REGISTRAR, RegisteringStage
from replica.model.errors import Code, ZaibeiError


class RegisteringCluster(RegisteringStage, ClusterStage):
    """See the module. The nodes' feeds go through proxies of ours, one for each member."""

    pushed_to = "push"

    def __init__(self, folder: Path, scenario: Scenario, seed: int, plant: Plant | None) -> None:
        super().__init__(folder, scenario, seed, plant)
        self.ports["push"] = free_port()
        self._pushes = [
            StreamProxy([(host, self.ports["push"])], [(host, self.ports["feed"])], seed + place)
            for place, host in enumerate(HOSTS)
        ]

    async def __aenter__(self) -> RegisteringCluster:
        for proxy in self._pushes:
            await proxy.start()
        await self.probe.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        for proxy in self._pushes:
            await proxy.stop()

    def blocks(self) -> list[str]:
        return [*super().blocks(), *self.people()]

    def cut(self, cut: bool) -> None:
        for proxy in (*self._pushes, self.probe):
            for way in Way:
                proxy.set(way, CUT if cut else OPEN)

    # ------------------------------------------------------------------------------------------------------- who leads

    def leader(self) -> str:
        """The member that leads the source, of those that are up. Raises ZaibeiError(UNREACHABLE): nobody, as they say."""
        for name in self.up:
            try:
                with self.members.admin(name) as admin:
                    groups = {group.group: group for group in admin.cluster_status().groups}
            except ZaibeiError:
                continue
            group = groups.get(self.sources[0])
            if group is not None and group.leader in self.up:
                return group.leader
        raise ZaibeiError(Code.UNREACHABLE, f"nobody leads {self.sources[0]}", retry=True)

    def admin(self) -> AdminClient:
        return self.members.admin(self.leader())

    def member_words(self) -> list[str]:
        return ["--config", str(self.folder / f"{self.leader()}.toml")]

    def register_words(self) -> list[str]:
        host = HOSTS[NAMES.index(self.leader())]
        server = f"{host}:{self.ports['registration']}"
        return ["--server", server, "--identity", str(self.folder / REGISTRAR), "--member-file", str(self.members.roots)]
