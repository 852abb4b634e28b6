"""The cluster on the stage: three members, each in a zone with an address of its own, made one as an operator makes them one.

`cluster init` at the first, `cluster invite` there and `cluster join` at each other one: the functions behind these commands are
called, so that no interpreter is started for each. All members have the same ports, each at its own loopback address.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from ops.admin.edge_client import AdminClient
from ops.cluster.edge_begin import PKI_FOLDER, begin_cluster, join_cluster
from replica.enrol.token import decode_token
from replica.model.edge_identity import Identity, ensure_identity

INVITE_VALID_S = 600
HOSTED, HOSTED_PREFIX, REGISTRAR = "towns", "88.310", "registrar"
GUEST, GUEST_PREFIX = "islands", "88.320"  # lives here until it has a node
LISTENS = ("handle", "http", "grpc", "feed", "beats", "registration", "metrics")
PORTS = (*LISTENS, "link", "enrol")
SITE_TTL_S = 60
MEMORY_MB = 128  # of each member; three of them share this machine


@dataclass(frozen=True, slots=True)
class Seat:
    """One member's place; `machine`: what its observer counts as, so that three of them are three."""

    name: str
    host: str
    zone: str
    machine: str


SEATS = (
    Seat("member-1", "127.0.0.1", "east", "machine-1"),
    Seat("member-2", "127.0.0.2", "west", "machine-2"),
    Seat("member-3", "127.0.0.3", "north", "machine-3"),
)
NAMES = tuple(seat.name for seat in SEATS)
HOSTS = tuple(seat.host for seat in SEATS)


class Members:
    """See the module.

    Args:
        folder: of the whole stage. ports: by name, the same at each member.
    """

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        self._folder, self._ports = folder, ports
        self.cluster = ""

    def data(self, name: str) -> Path:
        return self._folder / f"{name}-data"

    def admin(self, name: str) -> AdminClient:
        return AdminClient(self.data(name) / "admin.sock")

    @property
    def roots(self) -> Path:
        """The certificate of the cluster's CA."""
        return self.data(NAMES[0]) / PKI_FOLDER / "ca.pem"

    def begin(self) -> None:
        """`zaibei cluster init`, before anything else: sources must know the CA. Raises ZaibeiError."""
        self.registrar = ensure_identity(self._folder / REGISTRAR, REGISTRAR)
        begun = begin_cluster(self.data(NAMES[0]), NAMES[0], (self._link(SEATS[0]),), None)
        self.cluster = begun.card.cluster.hex()

    def join(self, seat: Seat) -> None:
        """`zaibei cluster invite` at the first member, `zaibei cluster join` at this one. Raises ZaibeiError."""
        with self.admin(NAMES[0]) as first:
            token = first.cluster_invite(seat.name, seat.zone, INVITE_VALID_S).token
        feeds = (f"{seat.host}:{self._ports['feed']}",)
        asyncio.run(join_cluster(self.data(seat.name), decode_token(token), seat.zone, (self._link(seat),), feeds))

    def write(self, blocks: list[str]) -> None:
        """Each member's file; `blocks`: what stands in all of them alike."""
        for seat in SEATS:
            text = "\n".join([*self._own(seat), *self._shared(), *blocks, _block(HOSTED, HOSTED_PREFIX, self.registrar)])
            (self._folder / f"{seat.name}.toml").write_text(text + "\n", encoding="utf-8")

    def _own(self, seat: Seat) -> list[str]:
        first = seat is SEATS[0]
        hosts = [seat.host, *(["[::1]"] if first else [])]  # one member shows that IPv6 answers alike
        listen = [f"{name} = {json.dumps([f'{host}:{self._ports[name]}' for host in hosts])}" for name in LISTENS]
        enrol = f'"{SEATS[0].host}:{self._ports["enrol"]}"'
        pki = [f'folder = "{self.data(seat.name).name}/{PKI_FOLDER}"', f"enrol = [{enrol}]"]
        if not first:
            pki = [f'roots = ["{self.data(seat.name).name}/{PKI_FOLDER}/ca.pem"]', f"reach = [{enrol}]"]
        return [
            "[member]", f'name = "{seat.name}"', f'data = "{seat.name}-data"', f'machine = "{seat.machine}"', 'log = "json"',
            "[listen]", *listen, "[limits]", f"memory_mb = {MEMORY_MB}",
            "[cluster]", f'listen = ["{self._link(seat)}"]', f'zone = "{seat.zone}"', "[pki]", *pki,
        ]  # fmt: skip

    def leaving(self, node: Identity) -> str:
        """The block of a region that lives here and leaves for its own node, which does not run before."""
        own = f'fingerprint = "{node.fingerprint}"\ncertificate = {json.dumps(node.certificate_pem.decode())}'
        return f'{_block(GUEST, GUEST_PREFIX, self.registrar)}\nleaves = true\n{own}\ntakeover = "manual"'

    def _shared(self) -> list[str]:
        """One site for all: every member's front answers for every source."""
        addresses = json.dumps([f"{host}:{self._ports['handle']}" for host in HOSTS])
        return [
            "[site]",
            'description = "zaibei"',
            f"addresses = {addresses}",
            f"http_port = {self._ports['http']}",
            f"ttl_s = {SITE_TTL_S}",
        ]

    def _link(self, seat: Seat) -> str:
        return f"{seat.host}:{self._ports['link']}"


def _block(name: str, prefix: str, registrar: Identity) -> str:
    """A region that has no node: it lives here, and one registrar may change it."""
    pin, print_ = json.dumps(registrar.certificate_pem.decode()), registrar.fingerprint
    return (
        f'[[source]]\nname = "{name}"\nhosted = true\nprefixes = ["{prefix}"]\n'
        f'registrars = [{{ name = "{REGISTRAR}", fingerprint = "{print_}", certificate = {pin} }}]'
    )
