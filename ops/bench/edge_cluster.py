"""Three real members (`zaibei up`) in processes of their own, made by `zaibei cluster init` and `join`, and their source.

All is on this machine's loopback: links, feed and registration over mutual TLS, every journal with fsync.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ops.admin.cluster_values import ClusterStatus, GroupRow
from ops.admin.edge_client import AdminClient
from ops.admin.values import SourceStatus
from ops.bench.edge_engine import SOURCE
from ops.bench.edge_member import free_ports
from ops.bench.edge_process import ROOT, Child, family
from ops.bench.edge_source import SourceConfig
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import ZaibeiError
from replica.model.position import Position

MEMBERS = 3
HOSTED, HOSTED_PREFIX = "region-9", "88.118.9"
COMMAND_S_MAX = 60.0
UNTIL_S_MAX = 120.0
LOOK_EVERY_S = 0.05
LISTENS = ("handle", "http", "grpc", "feed", "beats", "registration")
MEMORY_MB = 256
BEHIND_MAX = 100  # entries; a member under load is never quite level


@dataclass(slots=True)
class Seat:
    """One member's place. `child`: its process, while it runs."""

    number: int
    data: Path
    toml: Path
    ports: dict[str, int]
    child: Child | None = None


class Cluster:
    """Members 1 to 3 with one hosted source and, if `pull` is a port, one that is fetched from there."""

    def __init__(self, folder: Path, pull: int, memory_mb: int = MEMORY_MB, journal_keep_mb: int = 0) -> None:
        self.folder, self.errors = folder, folder / "stderr"
        self.registrar = ensure_identity(folder / "registrar", "tenant-9")
        self._source: Identity = ensure_identity(folder / "source", SOURCE)
        self._pull, self._memory_mb, self._journal_keep_mb = pull, memory_mb, journal_keep_mb
        self.seats: dict[int, Seat] = {}
        for number in range(1, MEMBERS + 1):
            names = (*LISTENS, "link", "enrol")
            ports = dict(zip(names, free_ports(len(names)), strict=True))
            seat = Seat(number, folder / f"m{number}", folder / f"m{number}.toml", ports)
            seat.toml.write_text(self._text(seat))
            self.seats[number] = seat

    def _text(self, seat: Seat) -> str:
        listen = "".join(f'{name} = ["127.0.0.1:{seat.ports[name]}"]\n' for name in LISTENS)
        der = x509.load_pem_x509_certificate(self.registrar.certificate_pem).public_bytes(Encoding.DER)
        line = base64.b64encode(der).decode()
        registrar = f'{{ name = "tenant-9", fingerprint = "{self.registrar.fingerprint}", certificate = "{line}" }}'
        fed = (
            f'[[source]]\nname = "{SOURCE}"\nfingerprint = "{self._source.fingerprint}"\n'
            f'certificate_file = "{self.folder / "source" / "certificate.pem"}"\nprefixes = ["{SOURCE}"]\n'
            f'pull = ["127.0.0.1:{self._pull}"]\ntakeover = "never"\n'
        )
        keep = f"journal_keep_mb = {self._journal_keep_mb}\n" if self._journal_keep_mb else ""
        return (
            f'[member]\nname = "m{seat.number}"\ndata = "{seat.data}"\nmachine = "machine-{seat.number}"\n'
            f'log_level = "warning"\n[listen]\n{listen}metrics = []\n[limits]\nmemory_mb = {self._memory_mb}\n{keep}'
            f'[cluster]\nlisten = ["127.0.0.1:{seat.ports["link"]}"]\n'
            f'[[source]]\nname = "{HOSTED}"\nhosted = true\nprefixes = ["{HOSTED_PREFIX}"]\nregistrars = [{registrar}]\n'
            f"{fed if self._pull else ''}"
        )

    @property
    def roots(self) -> Path:
        """Certificate of the cluster's CA."""
        return self.seats[1].data / "pki" / "ca.pem"

    @property
    def sources(self) -> tuple[str, ...]:
        return (HOSTED, SOURCE) if self._pull else (HOSTED,)

    # ------------------------------------------------------------------------------------------------------- processes

    def command(self, number: int, *words: str) -> dict[str, Any]:
        """An operator's command at a member; returns its document. Raises RuntimeError: it failed."""
        argv = [sys.executable, "-m", "ops.cli.main", *words, "--config", str(self.seats[number].toml), "--json"]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)
        if done.returncode:
            raise RuntimeError(f"zaibei {' '.join(words)} at m{number}: {done.stdout[-500:]} {done.stderr[-500:]}")
        document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return document

    def begin(self) -> None:
        """Found the cluster and let all members join. Raises RuntimeError."""
        self.command(1, "cluster", "init", "--zone", "a")
        first = self.seats[1]  # its usual port of enrolment may be another member's on this machine
        text = first.toml.read_text().replace("[pki]\n", f'[pki]\nenrol = ["127.0.0.1:{first.ports["enrol"]}"]\n')
        first.toml.write_text(text)
        self.up(1)
        self.until("member 1 answers", lambda: self.status(1) is not None)
        for number, zone in zip(range(2, MEMBERS + 1), "bc", strict=True):
            invited = self.command(1, "cluster", "invite", f"m{number}", "--zone", zone)
            self.command(number, "cluster", "join", str(invited["token"]), "--zone", zone)
            self.up(number)

    def placed(self, *, caught_up: bool = False) -> None:
        """Wait until every group has all members as voters and a leader, and all hold nearly all of it."""
        self.until("all members vote in all groups", lambda: all(self._is_placed(name, caught_up) for name in self.sources))

    def _is_placed(self, name: str, caught_up: bool) -> bool:
        rows = [self.group(name, number) for number in self.seats]
        if not all(
            row is not None and len(row.voters) == MEMBERS and row.leader and not row.learners and not row.out_of_service
            for row in rows
        ):
            return False
        behind = [entries for row in rows if row is not None for entries in row.behind.values()]
        return not caught_up or all(entries is not None and entries <= BEHIND_MAX for entries in behind)

    def up(self, number: int) -> None:
        """Start a member; `ready` waits for it."""
        self.seats[number].child = Child(
            ["-m", "ops.cli.main", "up", "--json", "--config", str(self.seats[number].toml)], self.errors
        )

    def kill(self, number: int) -> None:
        """SIGKILL."""
        child = self.seats[number].child
        if child is not None:
            child.kill()
            child.end()
        self.seats[number].child = None

    def end(self) -> None:
        for seat in self.seats.values():
            if seat.child is not None:
                seat.child.end()
                seat.child = None

    def pid(self, number: int) -> int:
        child = self.seats[number].child
        if child is None:
            raise RuntimeError(f"member {number} does not run")
        return child.pid

    def pids(self, number: int) -> list[int]:
        return family(self.pid(number))

    # --------------------------------------------------------------------------------------------------------- looking

    def status(self, number: int) -> ClusterStatus | None:
        """What a member says of the cluster; None while it does not answer."""
        try:
            with AdminClient(self.seats[number].data / "admin.sock") as client:
                return client.cluster_status()
        except (ZaibeiError, OSError):
            return None

    def group(self, name: str, number: int) -> GroupRow | None:
        found = self.status(number)
        return next((row for row in found.groups if row.group == name), None) if found is not None else None

    def words(self, number: int) -> Any:
        """The ready line of a member that was started."""
        child = self.seats[number].child
        if child is None:
            raise RuntimeError(f"member {number} does not run")
        return child.say()

    def _source_row(self, name: str, number: int) -> SourceStatus | None:
        try:
            with AdminClient(self.seats[number].data / "admin.sock") as client:
                return next((one for one in client.sources() if one.source == name), None)
        except (ZaibeiError, OSError):
            return None

    def records(self, name: str, number: int) -> int:
        """Records of a source at a member; -1 while it does not answer."""
        row = self._source_row(name, number)
        return -1 if row is None else row.records

    def seq(self, name: str, number: int) -> int | None:
        """Highest sequence number of a source that is applied at a member; None while it does not answer."""
        row = self._source_row(name, number)
        return Position.parse(row.position).seq if row is not None and row.position else None

    def leader(self, name: str) -> int:
        """Number of the member that leads a group, as the others see it."""
        found = 0

        def look() -> bool:
            nonlocal found
            for number, seat in self.seats.items():
                row = self.group(name, number) if seat.child is not None else None
                if row is not None and row.leader and self.seats[int(row.leader[1:])].child is not None:
                    found = int(row.leader[1:])
                    return True
            return False

        self.until(f"{name} has a leader", look)
        return found

    def lead(self, name: str, number: int) -> None:
        """Let a member lead a group."""
        if self.leader(name) != number:
            self.command(self.leader(name), "cluster", "transfer", name, "--to", f"m{number}")
            self.until(f"m{number} leads {name}", lambda: self.leader(name) == number)

    def until(self, what: str, reached: Callable[[], bool], limit_s: float = UNTIL_S_MAX, every_s: float = LOOK_EVERY_S) -> float:
        """Wait; returns seconds. Raises RuntimeError: it did not come true in time."""
        began = time.monotonic()
        while not reached():
            children = {seat.number: seat.child for seat in self.seats.values() if seat.child is not None}
            ended = {number: child.last_words() for number, child in children.items() if not child.runs}
            if ended or time.monotonic() - began > limit_s:
                tail = self.errors.read_text(errors="replace")[-2_000:]
                raise RuntimeError(f"not within {limit_s:.0f} s: {what}; members that ended: {ended}\n{tail}")
            time.sleep(every_s)
        return time.monotonic() - began

    def registrations(self, numbers: Sequence[int] = (1, 2, 3)) -> list[str]:
        """Addresses of the registration service."""
        return [f"127.0.0.1:{self.seats[number].ports['registration']}" for number in numbers]


@dataclass(frozen=True, slots=True)
class Fed:
    """A cluster and the source process it is fed from."""

    cluster: Cluster
    source: Child

    def stream(self, batches: int, rate: float = 0.0, limit_s: float = 600.0) -> float:
        """Release batches and wait for their quorum receipts; returns seconds."""
        self.source.tell(f"stream {batches} {rate}")
        seconds: float = self.source.say(limit_s)["seconds"]
        return seconds


@contextmanager
def cluster_of(folder: Path, *, memory_mb: int = MEMORY_MB) -> Iterator[Cluster]:
    """Three members with the hosted source alone, all voting in it."""
    made = Cluster(folder, 0, memory_mb)
    try:
        made.begin()
        made.placed()
        yield made
    finally:
        made.end()


@contextmanager
def fed_cluster(
    folder: Path,
    batches: int,
    *,
    material: Path = Path(),
    records: int = 0,
    first: int = 0,
    memory_mb: int = MEMORY_MB,
    journal_keep_mb: int = 0,
) -> Iterator[Fed]:
    """Three members that vote in a hosted source and one that is fed; arguments as of SourceConfig."""
    port = free_ports(1)[0]
    made = Cluster(folder, port, memory_mb, journal_keep_mb)
    source: Child | None = None
    try:
        made.begin()
        config = SourceConfig(
            identity=str(folder / "source"), member="", certificate="", material=str(material), records=records, first=first,
            batches=batches, roots=str(made.roots), port=port,
        )  # fmt: skip
        path = folder / "source.json"
        path.write_text(json.dumps({name: getattr(config, name) for name in config.__struct_fields__}))
        source = Child(["-m", "ops.bench.edge_source", str(path)], folder / "stderr")
        source.say()
        made.placed()
        yield Fed(made, source)
    finally:
        made.end()
        if source is not None:
            source.end()
