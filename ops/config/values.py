"""The configuration as values: what the member's composition is built from. Names carry their units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from hosting.guard.edge_webhook import WebhookPlace
from hosting.guard.limits import GuardLimits
from ops.config.address import Address
from replica.model.audit_personal import KEPT_DAYS
from replica.model.identity import Peer, Pins
from replica.model.states import Mode

ADMIN_SOCKET_FILE = "admin.sock"
LOCK_FILE = "lock"
IDENTITY_FOLDER = "identity"


class TakeoverPolicy(StrEnum):
    """Who may start a resolution takeover of a source."""

    AUTOMATIC = "automatic"  # the detector, by SEMANTICS 6
    MANUAL = "manual"  # an operator's plan only
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class MemberPart:
    """`[member]`. `machine`: observers on different machines count as two."""

    name: str
    data: Path
    machine: str
    log: str
    log_level: str

    @property
    def admin_socket(self) -> Path:
        return self.data / ADMIN_SOCKET_FILE

    @property
    def lock_file(self) -> Path:
        return self.data / LOCK_FILE

    @property
    def identity_folder(self) -> Path:
        return self.data / IDENTITY_FOLDER


@dataclass(frozen=True, slots=True)
class Listen:
    """`[listen]`. `handle` is served over UDP and TCP; `fronts` 0: in the member's own process, N: owner and N fronts."""

    handle: tuple[Address, ...]
    http: tuple[Address, ...]
    https: tuple[Address, ...]
    grpc: tuple[Address, ...]
    feed: tuple[Address, ...]
    beats: tuple[Address, ...]
    registration: tuple[Address, ...]
    metrics: tuple[Address, ...]
    fronts: int
    allow_public: bool
    basic_in_clear: bool = False
    https_certificate: str = ""
    https_key: str = ""
    https_clients: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """An address clients are told; a port of 0 means the one that is bound."""

    host: str
    handle_port: int
    http_port: int
    https_port: int = 0


@dataclass(frozen=True, slots=True)
class Site:
    """`[site]`: how the cluster names itself to clients (HS_SITE). `key_file` None: the member's own, beside its identity."""

    description: str
    addresses: tuple[Published, ...]
    ttl_s: int
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """Where to ask whether a node itself still answers."""

    protocol: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Registrar:
    """Who may register in a hosted source, as written; the check makes a pin of it."""

    name: str
    fingerprint: str
    certificate_pem: bytes


@dataclass(frozen=True, slots=True)
class Source:
    """`[[source]]`.

    Args:
        peer: the pin: name, certificate, fingerprint, key parts of its prefixes; None: it is hosted here.
        prefixes: as written, in the order written.
        case_sensitive: prefixes below which suffixes keep their case.
        pull: where to pull from; empty: it pushes to us.
        horizon_s: how old a copy may be and still be answered before a takeover.
        rpo_s, rpo_changes: how far we may be behind it before that is an alarm; 0: not limited.
        armed: beats every 50 ms instead of 500.
        probes: empty: those of its own Description.
        registration_probes: where its node registers; empty: that is not probed.
        unavailable_s: how long most probes must fail before its takeover may be declared.
        zone: the place its node stands in; empty: not said.
        registrars: pins of those who may change it here, while it is hosted or taken over.
    """

    name: str
    peer: Peer | None
    prefixes: tuple[str, ...]
    case_sensitive: tuple[str, ...]
    mode: Mode
    pull: tuple[Address, ...]
    horizon_s: int
    armed: bool
    takeover: TakeoverPolicy
    probe_name: str
    probes: tuple[Probe, ...]
    hosted: bool = False  # with a peer: it leaves for that node
    registrars: tuple[Peer, ...] = ()
    rpo_s: int = 5
    rpo_changes: int = 0
    registration_probes: tuple[Probe, ...] = ()
    unavailable_s: int = 300
    zone: str = ""

    @property
    def fingerprint(self) -> str:
        """Empty for a hosted one."""
        return "" if self.peer is None else self.peer.fingerprint


@dataclass(frozen=True, slots=True)
class Recursive:
    """`[[recursive]]`: a recursive node we may tell about a takeover. The token is read from the file when it is used."""

    name: str
    url: str
    token_file: Path | None
    flush: bool


@dataclass(frozen=True, slots=True)
class RequestFolder:
    """`[[request_folder]]`: a top-level node that is asked by signed files.

    Args:
        top_level: name of the one whose key signs answers; empty: answers do not count.
        resolver: whose answers confirm too.
    """

    name: str
    folder: Path
    answers: Path
    top_level: str
    resolver: Address | None


@dataclass(frozen=True, slots=True)
class TopRecord:
    """`[[top_record]]`: a top-level node whose records we may change. The secret or key is read from its file when it is used.

    Args:
        admin: INDEX:HANDLE of our key there. secret_file, key_file: one of them.
    """

    name: str
    server: Address
    admin: str
    secret_file: Path | None
    key_file: Path | None
    index: int


@dataclass(frozen=True, slots=True)
class Announce:
    """`[[announce]]`: a program that announces service addresses."""

    name: str
    program: Path
    run_s: int


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """`[[operator]]`: a person whose signature counts; raw Ed25519 public key, 32 octets."""

    name: str
    public_key: bytes


@dataclass(frozen=True, slots=True)
class TopLevelKey:
    """`[[top_level]]`: a top-level node whose orders count; raw Ed25519 public key, 32 octets."""

    name: str
    public_key: bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """`[limits]` of the whole member."""

    memory_mb: int
    open_files: int
    journal_keep_mb: int
    disk_reserve_mb: int
    scrub_days: int
    scrub_mb_s: int
    connections_max: int
    feed_streams_max: int
    audit_kept_days: int = KEPT_DAYS


@dataclass(frozen=True, slots=True)
class ClusterPart:
    """`[cluster]`: how this member takes part in a cluster. Without a card in the data folder it does not, and nothing listens.

    Args:
        listen: links between members; reach: addresses others are told, as written; empty: those listened on.
        zone: place that can be lost at once; replicas: voters of a group, read when the cluster is begun.
    """

    listen: tuple[Address, ...] = ()
    reach: tuple[Address, ...] = ()
    zone: str = ""
    replicas: int = 3

    def links(self) -> tuple[str, ...]:
        """host:port where other members reach this one."""
        return tuple(str(address) for address in self.reach or self.listen if not address.is_any)


@dataclass(frozen=True, slots=True)
class SecurityPart:
    """`[security]`: where security events go, beside the log. `webhook`: None: nowhere."""

    syslog: tuple[str, ...] = ()
    webhook: WebhookPlace | None = None


@dataclass(frozen=True, slots=True)
class PkiPart:
    """`[pki]`: a CA beside the pins.

    Args:
        folder: of the private CA, where this member has it; passphrase_file: of its key.
        roots, lists: PEM files; empty roots: pins alone count.
        enrol: where this member enrols, if it has the folder; reach: where the one that enrols is reached, as written.
        feeds: where enrolled sources push to, as written.
    """

    folder: Path | None = None
    passphrase_file: Path | None = None
    roots: tuple[Path, ...] = ()
    lists: tuple[Path, ...] = ()
    enrol: tuple[Address, ...] = ()
    reach: tuple[Address, ...] = ()
    feeds: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How enterprises' sites are probed. `networks`: asked although their addresses are not public."""

    per_s: int = 5
    interval_s: int = 60
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemberConfig:
    """One member's whole configuration, checked."""

    member: MemberPart
    listen: Listen
    site: Site
    limits: Limits
    sources: tuple[Source, ...] = ()
    recursives: tuple[Recursive, ...] = ()
    operators: tuple[OperatorKey, ...] = ()
    cluster: ClusterPart = field(default_factory=ClusterPart)
    pki: PkiPart = field(default_factory=PkiPart)
    top_levels: tuple[TopLevelKey, ...] = ()
    request_folders: tuple[RequestFolder, ...] = ()
    top_records: tuple[TopRecord, ...] = ()
    announces: tuple[Announce, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)  # legal, but worth a look
    guard: GuardLimits = field(default_factory=GuardLimits)
    security: SecurityPart = field(default_factory=SecurityPart)
    probes: ProbeSettings = field(default_factory=ProbeSettings)

    def pins(self) -> Pins:
        """Every peer this member trusts."""
        return Pins(tuple(source.peer for source in self.sources if source.peer is not None))

    def operator_keys(self) -> Mapping[str, bytes]:
        """Name -> public key of the operators whose signatures count."""
        return {operator.name: operator.public_key for operator in self.operators}

    def issuers(self) -> Mapping[str, bytes]:
        """Name -> public key of the top-level nodes whose orders count."""
        return {one.name: one.public_key for one in self.top_levels}
