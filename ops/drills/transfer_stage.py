"""The stage on which a node withdraws for good and another provider takes over: registrations may move, a CA says who is who.

The provider is a second process of stand-in nodes, in the place of the first one: another folder, other ports, an empty registry,
and a certificate of the same name that the CA issued to it.
"""

from __future__ import annotations

import json
from typing import Any

from chaos.scenarios.scenario import Fence
from chaos.standin.edge_serve import Ports
from chaos.standin.secondary import own_site
from ops.drills.certified_stage import CertifiedStage
from ops.drills.edge_stage_files import HOST, SITE_TTL_S
from ops.drills.registering_stage import REGISTRAR, RegisteringStage
from ops.pki.edge_folder import ROOT_FILE
from ops.pki.edge_own import issue_into
from replica.model.trust import Claims, Role

PROVIDER = "provider"
PROVIDER_PORT = "twin"  # among the stage's ports


class TransferStage(RegisteringStage, CertifiedStage):
    """See the module."""

    def register_words(self) -> list[str]:
        """The member is believed by the CA, not by a pin."""
        server, root = f"{HOST}:{self.ports['registration']}", str(self.authority.path / ROOT_FILE)
        return ["--server", server, "--identity", str(self.folder / REGISTRAR), "--member-file", root]

    def write_provider(self, source: str) -> None:
        """The withdrawn node's certificate ends; the provider gets one. From here on `nodes` is the provider's process."""
        [old] = self.authority.book().named(source)
        self.authority.revoke(frozenset((old.serial,)))
        folder, port = self.folder / PROVIDER, self.ports[PROVIDER_PORT]
        issue_into(self.authority, folder / source / "agent" / "identity", Claims(Role.SOURCE, source))
        text = (self.folder / f"{source}.toml").read_text("utf-8").replace(str(self.nodes / source), str(folder / source))
        text = text.replace(f"port = {self.ports['nodes']}", f"port = {port}")
        text = text.replace(f'fence = "{Fence.WRITE_PATH.value}"', f'fence = "{Fence.NONE.value}"')
        (self.folder / f"{PROVIDER}.toml").write_text(text, encoding="utf-8")
        config: dict[str, Any] = json.loads((self.folder / "nodes.json").read_text("utf-8"))
        node = {**config["nodes"][0], "publisher": str(self.folder / f"{PROVIDER}.toml")}
        config |= {"folder": str(folder), "tally": str(self.tally_of(PROVIDER)), "udp": port, "tcp": port}
        self.write_json("nodes.json", config | {"records": 0, "guarded": False, "nodes": [node]})
        self.probe.turn([(HOST, port)])

    def parent_names(self, source: str, *, provider_first: bool) -> None:
        """What the parent's registry says of the prefix now: our site and the provider's."""
        port = self.ports[PROVIDER_PORT]
        sites = [own_site((HOST,), Ports(port, port), 1, primary=True, description=PROVIDER).hex(), self.site()]
        values = [
            {"index": place, "type": "HS_SITE", "data": {"format": "hex", "value": site}, "ttl": SITE_TTL_S}
            for place, site in enumerate(sites if provider_first else sites[::-1], 1)
        ]
        line = {"prefix": self.prefix_of[source], "values": values, "sites": []}
        fresh = self.folder / "top.jsonl.new"
        fresh.write_text(json.dumps(line) + "\n", encoding="utf-8")
        fresh.replace(self.folder / "top.jsonl")
