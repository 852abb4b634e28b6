"""The stage with tenants: sources that live at the member, beside its node; the loud one has a registrar of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from chaos.scenarios.scenario import Plant, Scenario
from ops.admin.values import SourceStatus
from ops.demo.stage import free_port
from ops.drills.registering_stage import COMMANDS_NICE, REGISTRAR, RegisteringStage
from replica.model.edge_identity import ensure_identity

LOUD: Final = "loud"  # the registrar of the first tenant; of all others it is the registrar of the stage
PREFIXES: Final = "88.119"


class TenantsStage(RegisteringStage):
    """See the module. `tenants`: by name, the prefix of each; the first is the loud one."""

    def __init__(self, folder: Path, scenario: Scenario, seed: int, plant: Plant | None) -> None:
        super().__init__(folder, scenario, seed, plant)
        self.ports["sink"] = free_port()

    @property
    def tenants(self) -> dict[str, str]:
        return {name: f"{PREFIXES}.{number}" for number, name in enumerate(self.scenario.tenants, 1)}

    def _member(self) -> list[str]:
        lines = super()._member()
        for number, (name, prefix) in enumerate(self.tenants.items()):
            who = REGISTRAR if number else LOUD
            identity = ensure_identity(self.folder / who, who)
            pin = "".join(identity.certificate_pem.decode().splitlines()[1:-1])
            lines += [
                "[[source]]", f'name = "{name}"', "hosted = true", f'prefixes = ["{prefix}"]',
                f'registrars = [{{ name = "{who}", fingerprint = "{identity.fingerprint}", certificate = "{pin}" }}]',
            ]  # fmt: skip
        return lines

    def command(self, name: str) -> list[str]:
        modules = {"noise": "chaos.faults.edge_noise", "sink": "chaos.standin.edge_sink", "quiet": "chaos.drills.quiet"}
        if name not in modules:
            return super().command(name)
        # a noise comes from other machines: what making it costs must not slow who is measured
        first = [] if name == "quiet" else ["nice", "-n", COMMANDS_NICE]
        return [*first, sys.executable, "-m", modules[name], f"{name}.json"]

    async def rows(self) -> dict[str, SourceStatus]:
        """Of the sources that have a node."""
        return {source: row for source, row in (await super().rows()).items() if source in self.sources}
