"""What the processes of a drill's stage read: the files of the member, its nodes and the top-level node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chaos.scenarios.scenario import Plant, Scenario
from chaos.standin.edge_serve import Ports
from chaos.standin.secondary import own_site
from ops.demo.stage import free_port
from replica.agent.records import site_from_json
from replica.model.edge_identity import ensure_identity

HOST, MEMBER = "127.0.0.1", "member-1"
TOP_PREFIX = "88.118"
SITE_TTL_S = 60
PORTS = (
    "handle",
    "http",
    "grpc",
    "feed",
    "beats",
    "metrics",
    "push",
    "probe",
    "nodes",
    "top",
    "recursive",
    "recursive-http",
    "twin",
)


class StageFiles:
    """Names, ports and files of one stage.

    Args:
        plant: the bug of a red run; None: none.
    """

    def __init__(self, folder: Path, scenario: Scenario, plant: Plant | None) -> None:
        self.folder, self.scenario, self.plant = folder.resolve(), scenario, plant
        self.ports = {name: free_port() for name in PORTS}
        self.sources = [f"node-{number:02}" for number in range(1, scenario.load.sources + 1)]
        self.prefix_of = {source: f"{TOP_PREFIX}.{number}" for number, source in enumerate(self.sources, 1)}
        self.told, self.nodes = self.folder / "told", self.folder / "nodes"
        self._pin: list[str] = []

    def write(self) -> None:
        """All configurations."""
        self.told.mkdir(parents=True)
        self.write_member()
        self.write_top([{"prefix": self.prefix_of[source], "values": self.published(source)} for source in self.sources])
        self.write_nodes(self.site())

    def published(self, source: str) -> list[dict[str, Any]]:
        """What the top-level node says of a source's prefix: the node's own site, ours behind it."""
        port = self.node_port(source)
        sites = [own_site((HOST,), Ports(port, port), 1, primary=True, description="nodes").hex(), self.site()]
        return [
            {"index": place, "type": "HS_SITE", "data": {"format": "hex", "value": site}, "ttl": SITE_TTL_S}
            for place, site in enumerate(sites, 1)
        ]

    def write_top(self, routes: list[dict[str, Any]]) -> None:
        """The top-level node's file and configuration."""
        self._write("top.jsonl", "".join(json.dumps({**line, "sites": []}) + "\n" for line in routes))
        port = self.ports["top"]
        self._write(
            "top.toml", f'name = "top"\nfiles = ["top.jsonl"]\nprefixes = ["88", "{TOP_PREFIX}"]\nhosts = ["{HOST}"]\n'
            f"tcp = {port}\nudp = {port}\n",
        )  # fmt: skip

    def write_nodes(self, second_site: str, **more: object) -> None:
        """The file of the nodes' process."""
        self._write("nodes.json", json.dumps({**self._nodes(second_site), **more}))

    def node_port(self, source: str) -> int:
        """Where a source's own node answers."""
        return self.ports["nodes"]

    def probed(self, source: str) -> tuple[str, int]:
        """Protocol and port of our probes."""
        return ("udp", self.node_port(source)) if self.scenario.load.direct else ("tcp", self.ports["probe"])

    def mode(self, source: str) -> str:
        return "records"

    def site(self) -> str:
        """HS_SITE of ours, hex."""
        ours = {"desc": "zaibei", "addresses": [HOST], "tcp": self.ports["handle"], "udp": self.ports["handle"], "primary": False}
        return site_from_json(ours).hex()

    @property
    def ours(self) -> list[tuple[str, int]]:
        """Where clients that know us ask."""
        return [(HOST, self.ports["handle"])]

    def write_member(self) -> None:
        """The member's file, and those of its sources."""
        certificate = ensure_identity(self.folder / "member" / "identity", MEMBER).certificate_pem.decode()
        push = self.ports["feed" if self.scenario.load.direct else "push"]
        self._pin = [
            "[[member]]", f'name = "{MEMBER}"', f"certificate = '''{certificate}'''", f'push = "{HOST}:{push}"',
        ]  # fmt: skip
        self._write("member.toml", "\n".join([*self._member(), *map(self.publisher, self.sources)]))

    def member_pins(self) -> list[str]:
        """What a node's file says about us."""
        return self._pin

    def _member(self) -> list[str]:
        names = ("handle", "http", "grpc", "feed", "beats", "metrics")
        listen = [f'{name} = ["{HOST}:{self.ports[name]}"]' for name in names]
        listen += [] if "registration" in self.ports else ["registration = []"]  # not its usual port: stages stand side by side
        return [
            "[member]", f'name = "{MEMBER}"', 'data = "member"', 'log = "json"', "[listen]", *listen,
            "[site]", f'addresses = ["{HOST}:{self.ports["handle"]}"]', f"ttl_s = {SITE_TTL_S}",
            "[limits]", "disk_reserve_mb = 16", "memory_mb = 128", *self.scenario.limits, "[guard]", *self.scenario.guard,
            "[[recursive]]", 'name = "recursive"', f'url = "http://{HOST}:{self.ports["recursive-http"]}"', "flush = true",
        ]  # fmt: skip

    def publisher(self, source: str) -> str:
        """The node's own file; returns the member's part about it."""
        prefix, data = self.prefix_of[source], self.nodes / source / "agent"
        text = [
            "[source]", f'name = "{source}"', f'prefixes = ["{prefix}"]', f"data = {json.dumps(str(data))}", "beat_ms = 50",
            f'mode = "{self.mode(source)}"',
            "[spool]", "keep_octets = 0", *self.member_pins(),
        ]  # fmt: skip
        for protocol in ("tcp", "udp"):
            text += ["[[resolution]]", f'protocol = "{protocol}"', f'address = "{HOST}"', f"port = {self.node_port(source)}"]
        self._write(f"{source}.toml", "\n".join(text) + "\n")
        protocol, port = self.probed(source)
        takeover = "never" if self.plant is Plant.NEVER_TAKES_OVER else "automatic"
        return "\n".join(
            [
                "[[source]]", f'name = "{source}"', *self.known_by(source, data / "identity"), f'prefixes = ["{prefix}"]',
                f'mode = "{self.mode(source)}"', f'takeover = "{takeover}"', f"horizon_s = {self.scenario.load.horizon_s}",
                f'probes = [{{ protocol = "{protocol}", address = "{HOST}", port = {port} }}]',
            ]
        )  # fmt: skip

    def known_by(self, source: str, folder: Path) -> list[str]:
        """How the member knows a node, whose identity is made here: by a pin."""
        identity = ensure_identity(folder, source)
        pem = identity.certificate_pem.decode()
        return [f'fingerprint = "{identity.fingerprint}"', f"certificate = '''{pem}'''"]

    def _nodes(self, second_site: str, child: str = "nodes") -> dict[str, Any]:
        nodes = [
            {"name": source, "prefix": self.prefix_of[source], "publisher": str(self.folder / f"{source}.toml")}
            for source in self.hosted_by(child)
        ]
        return {
            "folder": str(self.nodes), "told": str(self.told), "nodes": nodes, "hosts": [HOST], "udp": self.ports[child],
            "tcp": self.ports[child], "records": self.scenario.load.records, "every_ms": self.scenario.load.every_ms or 1_000,
            "tally": str(self.tally_of(child)), "site_ttl_s": SITE_TTL_S, "second_site": second_site,
        }  # fmt: skip

    def hosted_by(self, child: str) -> list[str]:
        """Sources whose nodes are in that process."""
        return self.sources

    def write_json(self, name: str, value: object) -> None:
        """The configuration of a process that an act starts."""
        self._write(name, json.dumps(value))

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    @property
    def tally(self) -> Path:
        return self.tally_of("nodes")

    def tally_of(self, child: str) -> Path:
        """When that process last answered somebody."""
        return self.folder / f"{child}-answered"

    @property
    def history(self) -> Path:
        """What outside clients saw."""
        return self.folder / "history.jsonl"
