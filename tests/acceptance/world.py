"""A whole member as a real process, nodes that push to it from this process, and what clients and operators see of both."""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from click.testing import CliRunner, Result

from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Question, Reply, Server
from ops.admin.edge_client import AdminClient
from ops.admin.values import SourceStatus
from ops.cli.main import cli
from ops.fronts import left_behind
from ops.operators import edge_keys
from replica.agent.config import read_config
from replica.client import Publisher
from replica.model.edge_identity import ensure_identity
from replica.model.errors import ZaibeiError
from replica.model.position import Position
from replica.v1 import source_pb2
from tests.shim.shim import Recording

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("127.0.0.1", "::1")
MEMBER = "member-1"
OPERATORS = ("li.wei", "zhang.min")
WAIT_S = 45.0  # patience only; nothing is judged by it
PORTS = (15_000, 31_000)  # below the range the system gives to outgoing connections, so that a restart finds its ports free
ASKED_AT_ONCE = 64
QUORUM = source_pb2.Receipt.LEVEL_QUORUM
RECEIVED = source_pb2.Receipt.LEVEL_RECEIVED

T = TypeVar("T")
_given: set[int] = set()


def stable_port() -> int:
    """A port free over UDP and TCP, IPv4 and IPv6, that nobody gets by chance while its process is down."""
    while True:
        port = random.SystemRandom().randrange(*PORTS)
        if port in _given:
            continue
        with suppress(OSError):
            for family, host in ((socket.AF_INET, HOSTS[0]), (socket.AF_INET6, HOSTS[1])):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(family, kind) as probe:
                        probe.bind((host, port))
            _given.add(port)
            return port


def until(what: str, look: Callable[[], T], seconds: float = WAIT_S) -> T:
    """The first true thing `look` returns; raises AssertionError when there is none."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)
    return found


@dataclass(frozen=True, slots=True)
class Got:
    """A receipt as it came in at the node: CLOCK_MONOTONIC ns, level, position."""

    at_ns: int
    level: int
    position: Position


class Node:
    """A registry that pushes. `open` it, `close` it (as when it burns down), `open` it again."""

    def __init__(self, folder: Path, name: str, prefix: str, member_pem: bytes, push: str) -> None:
        self.name, self.prefix = name, prefix
        table = {
            "source": {"name": name, "prefixes": [prefix], "data": name, "beat_ms": 50},
            "spool": {"octets_max": 2**28, "keep_octets": 0},
            "member": [{"name": MEMBER, "certificate": member_pem.decode(), "push": push}],
        }
        self._config = read_config(table, name, folder)
        self.identity = ensure_identity(folder / name / "identity", name)
        self.got: list[Got] = []
        self._publisher: Publisher | None = None

    @property
    def publisher(self) -> Publisher:
        assert self._publisher is not None, "open it first"
        return self._publisher

    @property
    def agent(self) -> Any:
        return self.publisher._source.agent

    def open(self) -> Self:
        self._publisher = Publisher(self._config)
        taken = self.agent.receipt

        def receipt(receipt: source_pb2.Receipt) -> None:
            self.got.append(Got(time.monotonic_ns(), receipt.level, Position.from_wire(receipt.position)))
            taken(receipt)

        self.agent.receipt = receipt
        return self

    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    def name_of(self, number: int) -> str:
        return f"{self.prefix}/N-{number}"

    def put(self, numbers: Iterable[int], text: str = "v1") -> Position:
        """Register these in one commit; returns its position."""
        for number in numbers:
            self.publisher.put(self.name_of(number), {"URL": url(number, text)})
        return self.publisher.commit().position

    def delete(self, numbers: Iterable[int]) -> Position:
        for number in numbers:
            self.publisher.delete(self.name_of(number))
        return self.publisher.commit().position

    def quorum_ns(self, position: Position) -> int | None:
        """When the first quorum receipt that covers it came in."""
        times = [got.at_ns for got in self.got if got.level == QUORUM and got.position.place >= position.place]
        return min(times, default=None)

    def digest_at(self, position: Position) -> tuple[int, str] | None:
        """(records, sum) as this node knows them at a boundary."""
        known = self.agent.content.boundaries_at(position.epoch, position.seq)
        return next(((one.records, f"{one.total:032x}") for one in known if one.position == position), None)


LISTENS = ("handle", "http", "grpc", "feed", "beats", "metrics", "registration")  # all: a member may run here on its defaults


def url(number: int, text: str = "v1") -> str:
    return f"https://example.cn/{number}/{text}"


class World:
    """One member on one folder with its nodes; a context that ends all it started.

    Args:
        fronts: answering processes beside the owner.
        recording: run the member under the durability recorder, with its data where the recorder looks.
        takeover: policy of all sources; their nodes' own sites never answer probes.
    """

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[str] = ("node-a",),
        *,
        fronts: int = 0,
        recording: Recording | None = None,
        takeover: str = "automatic",
    ) -> None:
        self.folder, self.recording = folder, recording
        self.data = recording.root if recording is not None else folder / "m"
        self.errors = folder / "stderr"
        self.ports = {name: stable_port() for name in LISTENS}
        self._dead = socket.socket()  # bound and not listening: whoever probes there is refused, and nobody else gets the port
        self.ports["dead"] = stable_port()
        self._dead.bind((HOSTS[0], self.ports["dead"]))
        member = ensure_identity(self.data / "identity", MEMBER)
        push = f"127.0.0.1:{self.ports['feed']}"
        self.nodes = [
            Node(folder, name, f"88.118.{number}", member.certificate_pem, push) for number, name in enumerate(nodes, 1)
        ]
        self.keys = {name: folder / f"{name}.key" for name in OPERATORS}
        self.toml = folder / "m.toml"
        self._takeover = takeover
        self.operators = {name: edge_keys.create(path).public.hex() for name, path in self.keys.items()}
        self.configure(fronts=fronts)
        self.process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}
        self._started: list[subprocess.Popen[bytes]] = []

    def configure(self, *, fronts: int = 0) -> None:
        """Write the member's file; it is read at the next start."""
        listen = "".join(f'{name} = ["127.0.0.1:{self.ports[name]}", "[::1]:{self.ports[name]}"]\n' for name in LISTENS)
        text = f'[member]\nname = "{MEMBER}"\ndata = "{self.data}"\nlog = "json"\n[listen]\nfronts = {fronts}\n{listen}'
        text += "[limits]\ndisk_reserve_mb = 16\nmemory_mb = 64\n"
        for node in self.nodes:
            text += (
                f'[[source]]\nname = "{node.name}"\nfingerprint = "{node.identity.fingerprint}"\n'
                f"certificate = '''{node.identity.certificate_pem.decode()}'''\n"
                f'prefixes = ["{node.prefix}"]\ntakeover = "{self._takeover}"\n'
                f'probes = [{{ protocol = "tcp", address = "127.0.0.1", port = {self.ports["dead"]} }}]\n'
            )
        for name, public_key in self.operators.items():
            text += f'[[operator]]\nname = "{name}"\npublic_key = "{public_key}"\n'
        self.toml.write_text(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._dead.close()
        for pid in self.front_pids():
            os.kill(pid, signal.SIGKILL)

    def site_port(self) -> int:
        """Where the members' probes go, for a test whose node has a site of its own: let go of, to be listened on."""
        self._dead.close()
        return self.ports["dead"]

    # ------------------------------------------------------------------------------------------------ the process

    def launch(self, module: str = "ops.cli.main", *, recorded: bool = True) -> subprocess.Popen[bytes]:
        """Start `zaibei up` and do not wait."""
        argv = [sys.executable, "-m", module, "up", "--config", str(self.toml), "--json"]
        with self.errors.open("ab") as errors:
            how: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": errors, "stdin": subprocess.DEVNULL}
            if self.recording is not None and recorded:
                self.process = self.recording.start(argv, **how)
            else:
                self.process = subprocess.Popen(argv, **how)
        self._started.append(self.process)
        return self.process

    def start(self, module: str = "ops.cli.main", *, recorded: bool = True) -> Self:
        """Start it and wait until it is ready."""
        process = self.launch(module, recorded=recorded)
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], WAIT_S)
        line = process.stdout.readline() if readable else b""
        self.ready = json.loads(line) if line else {}
        assert self.ready.get("event") == "ready", f"{line!r}\n{self.said()}"
        return self

    def kill(self) -> int:
        """SIGKILL; returns CLOCK_MONOTONIC ns right after it was sent."""
        assert self.process is not None
        self.process.kill()
        at_ns = time.monotonic_ns()
        self.process.wait()
        return at_ns

    def stop(self) -> int:
        """Stop in order; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(WAIT_S)

    def ended(self) -> int:
        """Wait until it ended by itself; returns the exit code."""
        assert self.process is not None
        return self.process.wait(WAIT_S)

    def said(self) -> str:
        return self.errors.read_text("utf-8", "replace") if self.errors.exists() else ""

    def front_pids(self) -> list[int]:
        """Fronts that live, whoever started them."""
        return [pid for place in left_behind(self.data) if (pid := place.holder())]

    # ------------------------------------------------------------------------------------------------ who looks

    def status(self, source: str = "node-a") -> SourceStatus:
        with AdminClient(self.data / "admin.sock") as client:
            return next(one for one in client.sources() if one.source == source)

    def seen(self, source: str = "node-a") -> SourceStatus | None:
        """Status, or None while nobody answers."""
        try:
            return self.status(source)
        except ZaibeiError:
            return None

    def flowing(self, source: str = "node-a") -> SourceStatus:
        """Wait until the copy flows, is fresh (or we answer for a node whose own site never answers) and stands where it does."""
        node = next(one for one in self.nodes if one.name == source)

        def look() -> SourceStatus | None:
            seen = self.seen(source)
            if seen is None or (seen.feed, seen.lag_entries, seen.verified) != ("FLOWING", 0, True):
                return None
            if Position.parse(seen.position) != node.publisher.head:
                return None  # it has not heard of the newest changes yet
            return seen if seen.freshness in ("fresh", "degraded") else None

        return self.until(f"{source} flows", look, source)

    def answered(self, name: str, wanted: tuple[int, tuple[bytes, ...]], source: str = "node-a") -> None:
        """Wait until it is answered so."""
        self.until(f"{name} is answered", lambda: shown(self.ask(name)) == wanted, source)

    def until(self, what: str, look: Callable[[], T], source: str) -> T:
        """As `until`; what the member says is in the failure."""
        try:
            return until(what, look)
        except AssertionError as exc:
            raise AssertionError(f"{exc}: {self.seen(source)}\n{self.said()[-3000:]}") from None

    def zaibei(self, *words: str, typed: str | None = None) -> Result:
        """A command as an operator types it."""
        given = (*words, "--config", str(self.toml))
        return CliRunner().invoke(cli, list(given), input=typed, env={"COLUMNS": "200"})

    def document(self, *words: str) -> Any:
        return json.loads(self.zaibei(*words, "--json").stdout)

    def server(self, protocol: str = "udp", host: str = HOSTS[0]) -> Server:
        return Server(protocol, host, self.ports["http" if protocol == "http" else "handle"])

    def ask(self, name: str, protocol: str = "udp", host: str = HOSTS[0]) -> Reply:
        return self.ask_many([name], protocol, host)[name]

    def ask_many(self, names: Sequence[str], protocol: str = "udp", host: str = HOSTS[0]) -> dict[str, Reply]:
        """Every answer, whatever it says. Raises ZaibeiError: none came."""
        server, turns = self.server(protocol, host), asyncio.Semaphore(ASKED_AT_ONCE)

        async def all_of_them() -> list[Reply]:
            async with HandleClient(ClientConfig((server,))) as client:

                async def one(name: str) -> Reply:
                    async with turns:
                        return await client.ask(server, Question(name))

                return await asyncio.gather(*(one(name) for name in names))

        return dict(zip(names, asyncio.run(all_of_them()), strict=True))

    def everywhere(self, name: str) -> set[tuple[int, tuple[bytes, ...]]]:
        """The answers over UDP, TCP and HTTP, IPv4 and IPv6: (code, data); one element when all agree."""
        return {shown(self.ask(name, protocol, host)) for protocol in ("udp", "tcp", "http") for host in HOSTS}


def shown(reply: Reply) -> tuple[int, tuple[bytes, ...]]:
    return reply.code, tuple(value.data for value in reply.values)


def right(number: int, text: str = "v1") -> tuple[int, tuple[bytes, ...]]:
    """The right answer for one of a node's records."""
    return 1, (url(number, text).encode(),)
