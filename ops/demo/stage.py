"""The stage of the demo: folders, configurations, real processes. Every process is our own child; only those are ever killed.

| process | what it is |
| --- | --- |
| member-1, member-2, member-3 | `zaibei up`: the copy, on trial; three members of one cluster |
| manufacturers | a node that answers Handle itself and publishes from its own code (pushes) |
| regions, regions-agent | a node and, beside it, `zaibei source serve` publishing its files (we pull) |
| top, top-agent | the top-level node: who owns which prefix |
| enterprise | the node behind one region's prefix: where identifiers of a `routes` node live |
| recursive, national | recursive nodes, TTL 0 and TTL kept; all that clients know |
| prober | the outside clients |
| registering | who registers in the region that lives at the cluster |
| guests | who registers and resolves in the region that lives there and leaves |
| islands-follow, islands | that region's own node: copies what is here, then publishes its files (pushes) |
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ops.demo import material
from ops.demo.members import GUEST, GUEST_PREFIX, HOSTS, NAMES, PORTS, SITE_TTL_S, Members
from replica.agent.config import SourceConfig
from replica.agent.records import site_from_json
from replica.client.edge_agent import identity_of, load_source_config
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError

HOST, HOST6 = "127.0.0.1", "::1"
NATIONAL_TTL_S = 10
READY_S_MAX = 45.0
PORT_RANGE, PORT_TRIES_MAX = (15_000, 32_000), 1_000  # below what systems give to outgoing connections
_given: set[int] = set()
END_S_MAX = 5.0
ENTERPRISES = 40  # regions whose identifiers really exist at the enterprise node
REGISTER_EVERY_MS = 60
TOP, MANUFACTURERS, REGIONS = "top", "manufacturers", "regions"
SOURCES = (TOP, MANUFACTURERS, REGIONS)
PROCESSES_OF = {MANUFACTURERS: ("manufacturers",), REGIONS: ("regions", "regions-agent"), TOP: ("top", "top-agent")}
TOP_NAMES = {f"{material.TOP_PREFIX}/NODE-{n}": f"https://example.cn/node/{n}" for n in range(1, 6)}
PREFIX_OF = {TOP: material.TOP_PREFIX, MANUFACTURERS: material.MANUFACTURERS_PREFIX, REGIONS: material.REGIONS_PREFIX}
PREFIX_OF[GUEST] = GUEST_PREFIX


def free_port() -> int:
    """A port that is free over UDP and TCP at every member's address and on IPv6, and stays so while its process is down.

    It is none of those that the system gives to outgoing connections: one of these could take it meanwhile.
    """
    places = [*((socket.AF_INET, host) for host in HOSTS), (socket.AF_INET6, HOST6)]
    for _ in range(PORT_TRIES_MAX):
        port = random.SystemRandom().randrange(*PORT_RANGE)
        if port in _given:
            continue
        try:
            for family, host in places:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(family, kind) as probe:
                        probe.bind((host, port))
        except OSError:
            continue
        _given.add(port)
        return port
    told = f"{', '.join(HOSTS)} and {HOST6}"
    raise ZaibeiError(Code.CONFLICT, f"no port is free over UDP and TCP on {told}: is one of these loopback addresses missing?")


@dataclass(slots=True)
class Child:
    """A process of ours and the line it printed when it was ready."""

    name: str
    process: subprocess.Popen[bytes]
    ready: dict[str, Any] = field(default_factory=dict)

    def shoot(self) -> int:
        """SIGKILL, not waited for; returns CLOCK_MONOTONIC ns right after the signal was sent."""
        self.process.send_signal(signal.SIGKILL)
        return time.monotonic_ns()

    def kill(self) -> int:
        """SIGKILL; returns CLOCK_MONOTONIC ns right after the signal was sent."""
        at_ns = self.shoot()
        self.process.wait()
        return at_ns

    def end(self) -> None:
        """Stop in order; kill what does not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_S_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Stage:
    """Builds the stage in one folder; use it as a context, it ends all its processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.python = [sys.executable]
        self.ports = {
            name: free_port()
            for name in (
                *PORTS, "top", "manufacturers", "regions", "enterprise", "recursive", "recursive-http", "national",
                "national-http", "top-agent", "regions-agent",
            )
        }  # fmt: skip
        self.members = Members(self.folder, self.ports)
        self.children: dict[str, Child] = {}
        self._starts = ThreadPoolExecutor(1, "demo-starts")
        self._commands: dict[str, list[str]] = {}
        self._logs: list[IO[bytes]] = []
        self.records = 0
        self.enterprise_names: dict[str, str] = {}

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._starts.shutdown()
        for child in reversed(list(self.children.values())):
            child.end()
        for log in self._logs:
            log.close()

    # ------------------------------------------------------------------------------------------------------- files

    def write(self) -> None:
        """All registries and configurations. Real data; about 58,000 lines."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.members.begin()
        self.records += self._lines("manufacturers.jsonl", material.manufacturers())
        self.records += self._lines("regions.jsonl", material.regions(HOST, self.ports["enterprise"]))
        self._enterprise()
        self._write_top(version=1)
        blocks = [*self._recursives(), *(self._source(source) for source in SOURCES), self._guest()]
        self.members.write(blocks)
        self._nodes()

    def _lines(self, name: str, lines: Any) -> int:
        count = 0
        fresh = self.folder / f".{name}.new"
        with fresh.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
        fresh.replace(self.folder / name)
        return count

    def _write_top(self, version: int) -> None:
        ours = {
            "desc": "zaibei", "addresses": list(HOSTS), "tcp": self.ports["handle"], "udp": self.ports["handle"],
            "http": self.ports["http"], "primary": False,
        }  # fmt: skip
        sites = {
            prefix: [{"desc": name, "address": HOST, "tcp": self.ports[name], "udp": self.ports[name]}, ours]
            for name, prefix in ((MANUFACTURERS, material.MANUFACTURERS_PREFIX), (REGIONS, material.REGIONS_PREFIX))
        }
        own = [{"handle": name, "values": [_url(url)]} for name, url in TOP_NAMES.items()]
        added = [{"handle": f"{material.TOP_PREFIX}/RETURNED-{version}", "values": [_url("https://example.cn/returned")]}]
        lines = [*material.ownership(sites), *own, *(added if version > 1 else [])]
        written = self._lines("top.jsonl", lines)
        self.records += written if version == 1 else 0

    def change_files(self, source: str, version: int) -> None:
        """What a returning node registered while it was away: its files change, by one atomic replacement."""
        if source == TOP:
            self._write_top(version)

    def _enterprise(self) -> None:
        prefixes = [
            line["prefix"]
            for line in map(json.loads, (self.folder / "regions.jsonl").read_text(encoding="utf-8").splitlines())
            if "prefix" in line
        ][:: max(1, 6_800 // ENTERPRISES)]
        self.enterprise_names = {f"{prefix}/UNIT-1": f"https://example.cn/{prefix}" for prefix in prefixes}
        lines = [{"handle": name, "values": [_url(url)]} for name, url in self.enterprise_names.items()]
        self._lines("enterprise.jsonl", lines)
        self._toml(
            "enterprise",
            {"name": "enterprise", "files": ["enterprise.jsonl"], "prefixes": prefixes, "tcp": self.ports["enterprise"],
             "udp": self.ports["enterprise"]},
        )  # fmt: skip

    def _source(self, name: str) -> str:
        port = self.ports.get(f"{name}-agent")
        text = [
            "[source]", f'name = "{name}"', f'prefixes = ["{PREFIX_OF[name]}"]', f'data = "{name}-agent"',
            f'mode = "{"routes" if name == REGIONS else "mixed" if name == TOP else "records"}"', "beat_ms = 50",
            "[serve]", f"listen = {_list([f'{HOST}:{port}', f'[{HOST6}]:{port}'] if port else [])}", "[files]", "rest_ms = 200",
        ]  # fmt: skip
        if port:
            text += ["[[input]]", f'path = "{name}.jsonl"']
        text += ["[pki]", f'roots = ["{self.members.roots}"]', f'cluster = "{self.members.cluster}"']
        for member, host in zip(NAMES, HOSTS, strict=True):
            text += ["[[member]]", f'name = "{member}"', *([] if port else [f'push = "{host}:{self.ports["feed"]}"'])]
        for protocol in ("tcp", "udp"):
            text += ["[[resolution]]", f'protocol = "{protocol}"', f'address = "{HOST}"', f"port = {self.ports[name]}"]
        path = self.folder / f"{name}-source.toml"
        path.write_text("\n".join(text) + "\n", encoding="utf-8")
        config: SourceConfig = load_source_config(path)
        identity = ensure_identity(config.data / "identity", name)
        return "\n".join(
            [
                "[[source]]", f'name = "{name}"', f'fingerprint = "{identity.fingerprint}"',
                f"certificate = '''{identity.certificate_pem.decode()}'''", f'prefixes = ["{PREFIX_OF[name]}"]',
                f'mode = "{"routes" if name == REGIONS else "mixed" if name == TOP else "records"}"',
                f"pull = {_list([f'{HOST}:{port}'] if port else [])}", "armed = true", 'takeover = "automatic"',
            ]
        )  # fmt: skip

    def _guest(self) -> str:
        """The own node of a region that lives at the cluster: it copies with the file's place empty, and publishes it later."""
        text = [
            "[source]", f'name = "{GUEST}"', f'prefixes = ["{GUEST_PREFIX}"]', f'data = "{GUEST}-agent"', "beat_ms = 50",
            "[files]", "rest_ms = 200", "[[input]]", f'path = "{GUEST}.jsonl"',
            "[pki]", f'roots = ["{self.members.roots}"]', f'cluster = "{self.members.cluster}"',
        ]  # fmt: skip
        for member, host in zip(NAMES, HOSTS, strict=True):
            text += ["[[member]]", f'name = "{member}"', f'push = "{host}:{self.ports["feed"]}"']
        path = self.folder / f"{GUEST}-source.toml"
        path.write_text("\n".join(text) + "\n", encoding="utf-8")
        return self.members.leaving(identity_of(load_source_config(path)))

    def _recursives(self) -> list[str]:
        return [
            f'[[recursive]]\nname = "{name}"\nurl = "http://{HOST}:{self.ports[name + "-http"]}"\nflush = {flush}'
            for name, flush in (("recursive", "true"), ("national", "false"))
        ]

    def _our_site(self) -> str:
        """HS_SITE of the cluster, hex: what the root publishes behind the top-level node's own site."""
        ports = {"tcp": self.ports["handle"], "udp": self.ports["handle"], "http": self.ports["http"]}
        return site_from_json({"desc": "zaibei", "addresses": list(HOSTS), "primary": False, **ports}).hex()

    def _nodes(self) -> None:
        for name in (TOP, REGIONS):
            self._toml(
                name,
                {
                    "name": name,
                    "files": [f"{name}.jsonl"],
                    "prefixes": [PREFIX_OF[name]],
                    "tcp": self.ports[name],
                    "udp": self.ports[name],
                    "site_ttl_s": SITE_TTL_S,
                    "tally": f"{name}-answered",
                    "second_site": self._our_site(),
                },
            )
        own = PREFIX_OF[MANUFACTURERS]
        self._toml(
            MANUFACTURERS,
            {
                "name": MANUFACTURERS,
                "base": "manufacturers.jsonl",
                "work": "manufacturers-own",
                "prefixes": [own],
                "publisher": "manufacturers-source.toml",
                "prefix": own,
                "tcp": self.ports[MANUFACTURERS],
                "udp": self.ports[MANUFACTURERS],
                "every_ms": REGISTER_EVERY_MS,
            },
        )
        python, zaibei = sys.executable, [sys.executable, "-m", "ops.cli.main"]
        roots = ",".join([f"tcp://{HOST}:{self.ports['top']}", *(f"tcp://{host}:{self.ports['handle']}" for host in HOSTS)])
        self._commands = {
            **{name: [*zaibei, "up", "--config", f"{name}.toml", "--json"] for name in NAMES},
            "manufacturers": [python, "-m", "chaos.standin.pushing", "--config", "manufacturers.toml"],
            "enterprise": [python, "-m", "chaos.standin.secondary", "--config", "enterprise.toml"],
        }
        for name in (TOP, REGIONS):
            self._commands[name] = [python, "-m", "chaos.standin.secondary", "--config", f"{name}.toml"]
            self._commands[f"{name}-agent"] = [*zaibei, "source", "serve", "--config", f"{name}-source.toml", "--json"]
        theirs = ["--config", f"{GUEST}-source.toml", "--json"]
        self._commands[GUEST] = [*zaibei, "source", "serve", *theirs]
        self._commands[f"{GUEST}-follow"] = [*zaibei, "source", "follow", *theirs, "--export", f"{GUEST}-copied.jsonl"]
        for name, cap in (("recursive", 0), ("national", NATIONAL_TTL_S)):
            self._commands[name] = [
                python, "-m", "chaos.standin.recursive", "--roots", roots, "--ttl-cap", str(cap),
                "--tcp", str(self.ports[name]), "--udp", str(self.ports[name]), "--http", str(self.ports[f"{name}-http"]),
            ]  # fmt: skip

    def _toml(self, name: str, fields: dict[str, Any]) -> None:
        lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
        (self.folder / f"{name}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    # ------------------------------------------------------------------------------------------------------- processes

    def start(self, name: str, command: list[str] | None = None, *, wait: bool = True) -> Child:
        """Start a process; with `wait` return when it said that it is ready.

        Raises:
            ZaibeiError(UNREACHABLE): it ended or stayed silent; its last lines are in the message.
        """
        child = self._starts.submit(self._begin, name, command).result()
        if wait:
            self.await_ready(child)
        return child

    def _begin(self, name: str, command: list[str] | None) -> Child:
        """In a thread of its own, which no signal interrupts: a process that was begun is always among the children."""
        log = (self.folder / f"{name}.log").open("ab")
        self._logs.append(log)
        process = subprocess.Popen(
            command or self._commands[name],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        child = self.children[name] = Child(name, process)
        return child

    def start_client(self, name: str, config: dict[str, Any]) -> None:
        """A client of the story, `python -m ops.demo.NAME`, with its settings in a file; returns when it is ready."""
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        self.start(name, [*self.python, "-m", f"ops.demo.{name}", str(path)])

    def await_ready(self, child: Child) -> None:
        """Read the line a process prints when it serves."""
        if child.process.stdout is None:
            return
        os.set_blocking(child.process.stdout.fileno(), False)
        line, until = b"", time.monotonic() + READY_S_MAX
        while not line.endswith(b"\n"):
            line += child.process.stdout.read(65_536) or b""
            if child.process.poll() is not None or time.monotonic() > until:
                said = line.decode("utf-8", "replace")[-600:] or self.tail(child.name)
                raise ZaibeiError(Code.UNREACHABLE, f"{child.name} did not start: {said}")
            time.sleep(0.005)
        child.ready = json.loads(line.splitlines()[0])

    def tail(self, name: str) -> str:
        """The last lines of a process's log."""
        try:
            return (self.folder / f"{name}.log").read_text("utf-8", "replace")[-600:]
        except FileNotFoundError:
            return "no log"


def _url(url: str) -> dict[str, Any]:
    return {"index": 1, "type": "URL", "data": url, "ttl": 60}


def _list(items: list[str]) -> str:
    return json.dumps(items)
