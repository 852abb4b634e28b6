"""A real member (`zaibei up`) in a process of its own, fed by a source process over the feed on loopback."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.bench.edge_engine import SOURCE
from ops.bench.edge_process import Child
from ops.bench.edge_sender import SenderConfig
from ops.bench.edge_source import SourceConfig
from replica.model.edge_identity import Identity, ensure_identity

MEMBER = "member-1"
PORTS = (15_000, 31_000)
_GIVEN: set[int] = set()  # by this process
PORTS_SHARED = 3  # handle, http, grpc: fronts in processes of their own need real ports


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a member answers."""

    handle: int
    http: int
    grpc: int


class World:
    """Folders and identities of a source and a member that know each other; starts either, any number of times."""

    def __init__(self, folder: Path, source: Child, identity: Identity) -> None:
        self.folder, self.source, self._identity = folder, source, identity
        self._port = source.say()["port"]
        self.errors = folder / "stderr"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def member(self, *, memory_mb: int = 512, fronts: int = 0, handle_port: int = 0, more: Sequence[str] = ()) -> Child:
        """Start `zaibei up`; `addresses` reads its ready line. `more`: lines of its file, whole sections."""
        ports = free_ports(PORTS_SHARED) if fronts else [handle_port, 0, 0]
        lines = [
            "[member]", f'name = "{MEMBER}"', f'data = "{self.data}"', 'log_level = "warning"',
            "[listen]", *(f'{name} = ["127.0.0.1:{port}"]' for name, port in zip(("handle", "http", "grpc"), ports, strict=True)),
            'feed = ["127.0.0.1:0"]', 'beats = ["127.0.0.1:0"]', "metrics = []", f"fronts = {fronts}",
            "[limits]", f"memory_mb = {memory_mb}", *more,
            "[[source]]", f'name = "{SOURCE}"', f'fingerprint = "{self._identity.fingerprint}"',
            f'certificate_file = "{self.folder / "source" / "certificate.pem"}"', f'prefixes = ["{SOURCE}"]',
            f'pull = ["127.0.0.1:{self._port}"]', 'takeover = "never"',
        ]  # fmt: skip
        path = self.folder / "member.toml"
        path.write_text("\n".join(lines))
        return Child(["-m", "ops.cli.main", "up", "--json", "--config", str(path)], self.errors)

    def ask(self, given: SenderConfig) -> dict[str, float]:
        """One run of the load sender, judged by nobody."""
        path = self.folder / "sender.json"
        path.write_text(json.dumps({name: getattr(given, name) for name in given.__struct_fields__}))
        with Child(["-m", "ops.bench.edge_sender", str(path)], self.errors) as sender:
            result: dict[str, float] = sender.say()
        return result


def addresses(member: Child) -> Addresses:
    """Ports out of the ready line of a member."""
    listed = member.say()["addresses"]
    first = {name: int(listed[name][0].rpartition(":")[2]) for name in ("handle", "http", "grpc")}
    return Addresses(**first)


@contextmanager
def world(folder: Path, material: Path, records: int, first: int, batches: int, batch: int = 1_000) -> Iterator[World]:
    """A source process and what a member of it needs.

    Args:
        records: content at first contact; first: number of the first streamed record; batches: how many can be streamed.
    """
    identity = ensure_identity(folder / "source", SOURCE)
    ensure_identity(folder / "data" / "identity", MEMBER)
    config = SourceConfig(
        identity=str(folder / "source"), member=MEMBER, certificate=str(folder / "data" / "identity" / "certificate.pem"),
        material=str(material), records=records, first=first, batches=batches, batch=batch,
    )  # fmt: skip
    path = folder / "source.json"
    path.write_text(json.dumps({name: getattr(config, name) for name in config.__struct_fields__}))
    with Child(["-m", "ops.bench.edge_source", str(path)], folder / "stderr") as source:
        yield World(folder, source, identity)


def free_ports(count: int) -> list[int]:
    """Ports free for TCP and UDP, below the range the system gives to outgoing connections: nobody gets them by chance. None is
    given twice: who asked before may not have bound his yet."""
    found: list[int] = []
    chance = random.SystemRandom()
    while len(found) < count:
        port = chance.randrange(*PORTS)
        if port not in _GIVEN and all(_is_free(port, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)):
            _GIVEN.add(port)
            found.append(port)
    return found


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
