"""What a member is built from, as values; the command's configuration is turned into these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from replica.cluster.card import Card
from replica.feed.findings import RpoTarget
from replica.model.audit_seal import NO_KEYS, AuditKeys
from replica.model.edge_identity import Identity
from replica.model.edge_trust import TrustFiles
from replica.model.errors import require
from replica.model.identifier import prefix_key
from replica.model.identity import Peer, Pins, Trusts
from replica.model.node import Endpoint
from replica.model.states import Mode
from replica.model.view import STALE_HORIZON_MS
from replica.takeover.hand_back import Ask
from replica.takeover.publish import Publisher

MB = 1024 * 1024
Address = tuple[str, int]
RPO = RpoTarget()


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """One registry that is copied.

    Args:
        peer: its pin, with the key parts it may write; None: it is hosted here. Beside `hosted`: the node it leaves for.
        prefixes, case_sensitive: as people write them.
        pull: addresses `host:port` we fetch from; empty: it pushes.
        armed: beats every 50 ms, otherwise every 500; automatic: the detector may start a resolution takeover.
        operable: False: nobody may take it over.
        rpo: how much of it may be lost with it, before that is an alarm.
        hosted: the name of a source that lives here: nobody feeds it, its changes are registered with us.
        probe_name: what probes ask for; empty: its first prefix. probes: where; empty: what its description says.
        registration_probes: where its node registers; unavailable_ms: how long probes must fail before they count as a threshold.
    """

    peer: Peer | None
    prefixes: tuple[str, ...]
    case_sensitive: tuple[str, ...] = ()
    mode: Mode = Mode.RECORDS
    pull: tuple[str, ...] = ()
    horizon_ms: int = STALE_HORIZON_MS
    rpo: RpoTarget = RPO
    armed: bool = True
    automatic: bool = False
    operable: bool = True
    probe_name: str = ""
    probes: tuple[Endpoint, ...] = ()
    registration_probes: tuple[Endpoint, ...] = ()
    unavailable_ms: int = 300_000
    hosted: str = ""

    def __post_init__(self) -> None:
        require(self.peer is not None or bool(self.hosted), "a source has a pinned node, or a name and lives here")
        require(self.peer is None or self.hosted in ("", self.peer.name), "a source that leaves is named as its node is")

    @property
    def name(self) -> str:
        return self.hosted if self.peer is None else self.peer.name

    @property
    def written(self) -> frozenset[bytes]:
        """Key parts of the prefixes below which it may be changed."""
        return frozenset(map(prefix_key, self.prefixes) if self.peer is None else self.peer.prefixes)


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """This member's place in a cluster.

    Args:
        card: which cluster, and our number there. trusts: whom we take for a member.
        links_listen: where others call us; reach: `host:port` they are told, empty: where we listen.
        feeds, answers: `host:port` told to sources and to programs; empty: where we listen.
        zone: place that can be lost at once; replicas: voters a group shall have.
    """

    card: Card
    trusts: Trusts
    links_listen: tuple[Address, ...]
    reach: tuple[str, ...] = ()
    feeds: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    zone: str = ""
    replicas: int = 3


@dataclass(frozen=True, slots=True)
class MemberSettings:
    """One member.

    Args:
        data: folder of everything; machine: the machine it counts as.
        feed_listen, beats_listen: numeric addresses; port 0 takes a free one.
        beats_reach: addresses sources send datagram beats to; empty: where we listen.
        own_site: HS_SITE data octets of this cluster.
        publishers: adapters that make a takeover known, by their names.
        shadow_prefix: for rehearsals.
        issuers: name -> Ed25519 public key of the top-level nodes whose orders count.
        scrub_days: between two scrubs of one copy, 0: only when asked for; scrub_mb_s: million octets read in a second.
        cluster: None: this member works alone.
        trust_files: of the CA whose sources may come in beside the pinned ones; None: pins alone count.
        audit_keys: seal the personal words of what is proposed here; none: they stand plain in the log.
        ask: asks a node what it answers itself; None: nobody does, and no hand-back waits for it.
    """

    name: str
    data: Path
    machine: str
    identity: Identity
    sources: tuple[SourceSettings, ...] = ()
    feed_listen: tuple[Address, ...] = ()
    beats_listen: tuple[Address, ...] = ()
    beats_reach: tuple[Address, ...] = ()
    own_site: bytes = b""
    publishers: tuple[Publisher, ...] = ()
    shadow_prefix: str = ""
    issuers: Mapping[str, bytes] = field(default_factory=dict)
    memory_octets: int = 512 * MB
    open_files: int = 512
    journal_keep_octets: int = 2_048 * MB
    disk_reserve_octets: int = 256 * MB
    scrub_days: int = 0
    scrub_mb_s: int = 16
    cluster: ClusterSettings | None = None
    trust_files: TrustFiles | None = None
    ask: Ask | None = None
    audit_keys: AuditKeys = NO_KEYS
    pins: Pins = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pins", Pins(tuple(source.peer for source in self.sources if source.peer is not None)))
