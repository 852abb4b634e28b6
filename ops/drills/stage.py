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
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from chaos.faults.edge_stream_proxy import StreamProxy, Way
from chaos.faults.rules import OPEN, StreamRule
from chaos.scenarios.scenario import Plant, Scenario
from chaos.standin.edge_serve import Ports
from chaos.standin.secondary import own_site
from ops.admin.edge_client import AdminClient
from ops.admin.values import SourceStatus
from ops.demo.stage import free_port
from ops.drills.planted import BY_CONFIGURATION
from replica.agent.records import site_from_json
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError

HOST, MEMBER = "127.0.0.1", "member-1"
TOP_PREFIX = "88.118"
SITE_TTL_S = 60
READY_S_MAX = 60.0
ANSWER_S_MAX = 60.0
END_S_MAX = 5.0
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
CUT = StreamRule(cut=True)
LOOK_S, LOOK_SOURCE_S = 0.1, 0.02  # between looks at the member, and so much longer for each source: a look costs it time


@dataclass(slots=True)
class Child:
    """A process of ours."""

    name: str
    process: subprocess.Popen[bytes]
    ready: dict[str, Any] = field(default_factory=dict)


class Stage:
    """Builds and runs the stage in one folder; an async context that ends all its processes.

    Args:
        plant: the bug of a red run; None: none.
    """

    def __init__(self, folder: Path, scenario: Scenario, seed: int, plant: Plant | None) -> None:
        self.folder, self.scenario, self.seed, self.plant = folder.resolve(), scenario, seed, plant
        self.ports = {name: free_port() for name in PORTS}
        self.sources = [f"node-{number:02}" for number in range(1, scenario.load.sources + 1)]
        self.prefix_of = {source: f"{TOP_PREFIX}.{number}" for number, source in enumerate(self.sources, 1)}
        self.look_s = max(LOOK_S, LOOK_SOURCE_S * scenario.load.sources)
        self.told, self.nodes = self.folder / "told", self.folder / "nodes"
        self.children: dict[str, Child] = {}
        self._logs: list[IO[bytes]] = []
        self._pin: list[str] = []
        self._begin, self._over = threading.Lock(), False
        self._asking = asyncio.Lock()
        self.push = StreamProxy([(HOST, self.ports["push"])], [(HOST, self.ports["feed"])], seed)
        self.probe = StreamProxy([(HOST, self.ports["probe"])], [(HOST, self.ports["nodes"])], seed)

    async def __aenter__(self) -> Stage:
        await self.push.start()
        await self.probe.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._end_all)
        await self.push.stop()
        await self.probe.stop()
        for log in self._logs:
            log.close()

    def _end_all(self) -> None:
        with self._begin:
            self._over = True
        for child in reversed(list(self.children.values())):
            if child.process.poll() is None:
                os.kill(child.process.pid, signal.SIGCONT)
                child.process.terminate()
        for child in self.children.values():
            try:
                child.process.wait(END_S_MAX)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    # ------------------------------------------------------------------------------------------------------- files

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

    async def start(self, name: str) -> Child:
        """Start one and wait until it said that it serves. Raises ZaibeiError(UNREACHABLE): with its last lines."""
        return await asyncio.to_thread(self._start, name)

    def _start(self, name: str) -> Child:
        log = (self.folder / f"{name}.log").open("ab")
        self._logs.append(log)
        with self._begin:  # whoever ends the stage meanwhile knows of every process that was begun
            if self._over:
                raise ZaibeiError(Code.STOPPING, "the stage has ended")
            process = subprocess.Popen(
                self.command(name), cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
            child = self.children[name] = Child(name, process)
        child.ready = self._line(child, READY_S_MAX)
        if "error" in child.ready:
            raise ZaibeiError(Code.UNREACHABLE, f"{name} does not begin: {child.ready['error']}")
        return child

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

    def _line(self, child: Child, seconds: float) -> dict[str, Any]:
        """The next line it prints, as JSON."""
        stdout, until = child.process.stdout, time.monotonic() + seconds
        assert stdout is not None
        os.set_blocking(stdout.fileno(), False)
        line = b""
        while not line.endswith(b"\n"):
            line += stdout.readline() or b""
            if not line.endswith(b"\n") and (child.process.poll() is not None or time.monotonic() > until):
                said = line.decode("utf-8", "replace")[-300:] + self.tail(child.name)
                raise ZaibeiError(Code.UNREACHABLE, f"{child.name} does not answer: {said}")
            time.sleep(0 if line.endswith(b"\n") else 0.005)
        found: dict[str, Any] = json.loads(line)
        return found

    def tail(self, name: str) -> str:
        """The last lines of a process's log."""
        try:
            return (self.folder / f"{name}.log").read_text("utf-8", "replace")[-800:]
        except FileNotFoundError:
            return ""

    def pid(self, name: str) -> int:
        return self.children[name].process.pid

    async def gone(self, name: str) -> None:
        """Wait for a process that was killed."""
        await asyncio.to_thread(self.children[name].process.wait, END_S_MAX)

    async def ask(self, child: str = "nodes", **command: Any) -> dict[str, Any]:
        """One command to the nodes' process, or to another of its kind. Raises ZaibeiError(UNREACHABLE)."""
        async with self._asking:
            process = self.children[child].process

            def said() -> dict[str, Any]:
                assert process.stdin is not None
                try:
                    process.stdin.write(json.dumps(command).encode() + b"\n")
                    process.stdin.flush()
                except OSError as exc:
                    raise ZaibeiError(Code.UNREACHABLE, f"the nodes' process is gone: {exc}") from exc
                return self._line(self.children[child], ANSWER_S_MAX)

            found = await asyncio.to_thread(said)
        if "error" in found:
            raise ZaibeiError(Code.UNREACHABLE, f"nodes: {found['error']}")
        return found

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

    @property
    def history(self) -> Path:
        return self.folder / "history.jsonl"

    async def start_prober(self) -> None:
        config = {
            "history": str(self.history), "told": str(self.told), "seed": self.seed, "sources": self.prefix_of,
            "recursive": ["tcp", HOST, self.ports["recursive"]], "ours": self.ours,
            "lanes": {str(lane): rate for lane, rate in self.scenario.load.lanes},
        }  # fmt: skip
        self._write("prober.json", json.dumps(config))
        await self.start("prober")
