"""The stage whose member and nodes know each other by a CA of its own instead of by pins; and forgers who say they are a node."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from chaos.scenarios.scenario import Plant, Scenario
from ops.drills.edge_stage_files import HOST, MEMBER
from ops.drills.stage import Stage
from ops.pki.edge_folder import LIST_FILE, ROOT_FILE, PkiFolder
from ops.pki.edge_own import issue_into
from replica.model.trust import Claims, Role

FORGED_FIRST, FORGED_COUNT = 700_000, 20  # numbers of names that only a forger publishes
FORGED_TEXT = "forged"


class CertifiedStage(Stage):
    """See the module. `ca`: the drill's own."""

    def __init__(self, folder: Path, scenario: Scenario, seed: int, plant: Plant | None) -> None:
        super().__init__(folder, scenario, seed, plant)
        self.ca: PkiFolder | None = None
        self._forgers: list[str] = []

    @property
    def authority(self) -> PkiFolder:
        """Made when the stage is written."""
        assert self.ca is not None, "the stage was not written yet"
        return self.ca

    def _trust(self, ca: PkiFolder) -> list[str]:
        return ["[pki]", f"roots = {json.dumps([str(ca.path / ROOT_FILE)])}", f"crl = {json.dumps([str(ca.path / LIST_FILE)])}"]

    def write_member(self) -> None:
        self.ca = PkiFolder.create(self.folder / "pki", "CA of the drill")
        issue_into(self.ca, self.folder / "member" / "identity", Claims(Role.MEMBER, MEMBER, 1))
        self._pin = [*self._trust(self.ca), "[[member]]", f'name = "{MEMBER}"', f'push = "{HOST}:{self.ports["push"]}"']
        self._write("member.toml", "\n".join([*self._member(), *map(self.publisher, self.sources)]))

    def _member(self) -> list[str]:
        return [*super()._member(), *self._trust(self.authority)]

    def known_by(self, source: str, folder: Path) -> list[str]:
        """By the CA alone."""
        issue_into(self.authority, folder, Claims(Role.SOURCE, source))
        return []

    def identity_of(self, source: str) -> Path:
        """Folder of a node's certificate and keys."""
        return self.nodes / source / "agent" / "identity"

    # ------------------------------------------------------------------------------------------------------- forgers

    def forge(self, forger: str, source: str, identity: Path, name: str) -> None:
        """The configuration of an agent that publishes names of its own as those of a node, with somebody's keys.

        Args:
            identity: folder that is copied; what it holds decides who the forger is. name: what it calls itself.
        """
        home = self.folder / forger
        (home / "agent").mkdir(parents=True)
        shutil.copytree(identity, home / "agent" / "identity")
        lines = [
            {"handle": name, "values": [{"index": 1, "type": "URL", "data": f"https://example.cn/{FORGED_TEXT}", "ttl": 60}]}
            for name in self.forged_names(source)
        ]
        (home / "registry.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        text = [
            "[source]", f'name = "{name}"', f'prefixes = ["{self.prefix_of[source]}"]', 'data = "agent"', "beat_ms = 50",
            *self.member_pins(), "[[input]]", 'path = "registry.jsonl"', "[files]", "rest_ms = 50",
        ]  # fmt: skip
        (home / "source.toml").write_text("\n".join(text) + "\n", encoding="utf-8")
        self._forgers.append(forger)

    def forged_names(self, source: str) -> list[str]:
        return [f"{self.prefix_of[source]}/N-{FORGED_FIRST + number}" for number in range(FORGED_COUNT)]

    def command(self, name: str) -> list[str]:
        if name in self._forgers:
            config = str(self.folder / name / "source.toml")
            return [sys.executable, "-m", "ops.cli.main", "source", "serve", "--config", config, "--json"]
        return super().command(name)
