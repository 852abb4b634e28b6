"""Every key of the file in one table: what reads it, its default, and the sentence that teaches it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from hosting.guard.limits import GuardLimits
from ops.config import read
from ops.config.read import Reader
from replica.model.audit_personal import KEPT_DAYS

REQUIRED = "(required)"
HANDLE_PORT, HTTP_PORT, GRPC_PORT, FEED_PORT, BEATS_PORT, METRICS_PORT = 2641, 8000, 2642, 2643, 2644, 9464
CLUSTER_PORT = 2646
ENROL_PORT = 2648
REGISTRATION_PORT = 2647  # 2645 is where the examples let a source listen
GUARD_LIMITS = GuardLimits()


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `default` is what tomllib would have given; REQUIRED: none."""

    name: str
    reader: Reader
    default: object
    help: str
    example: str = ""  # TOML of a value, where the default does not teach


@dataclass(frozen=True, slots=True)
class Section:
    """A table, or with `many` an array of tables."""

    name: str
    many: bool
    help: str
    keys: tuple[Key, ...]

    def key(self, name: str) -> Key | None:
        return next((key for key in self.keys if key.name == name), None)


def _loopback(port: int) -> list[str]:
    return [f"127.0.0.1:{port}", f"[::1]:{port}"]


_listen = read.listed(read.listen_address, '["127.0.0.1:2641", "[::1]:2641"]')
_prefixes = read.listed(read.prefix, '["88.118"]')

REGISTRAR_EXAMPLE = '[{ name = "tenant-a", fingerprint = "sha256:...", certificate = "MIIB..." }]'

MEMBER = Section(
    "member",
    False,
    "This process.",
    (
        Key("name", read.name, "member-1", "Name of this member; goes into its certificate at first start."),
        Key("data", read.text, "./zaibei-data", "Folder of all data; relative to this file. One process per folder."),
        Key(
            "machine",
            read.text,
            "",
            "Two observers count as two only on different machines. Default: the host's name.",
            '"dr-host-1"',
        ),
        Key("log", read.choice("text", "json"), "text", 'How log lines are written to standard error: "text" or "json".'),
        Key("log_level", read.choice("debug", "info", "warning", "error"), "info", "Lowest level that is written."),
    ),
)
LISTEN = Section(
    "listen",
    False,
    "Where servers listen. Port 0: any free port. Everything is on loopback until you say otherwise.",
    (
        Key("handle", _listen, _loopback(HANDLE_PORT), "Handle protocol, UDP and TCP."),
        Key("http", _listen, _loopback(HTTP_PORT), "JSON API: /api/handles/..., /api/site, /healthz."),
        Key("https", _listen, [], "The same over TLS; without https_certificate with this member's own certificate."),
        Key("grpc", _listen, _loopback(GRPC_PORT), "gRPC: batch resolve, health, reflection."),
        Key("feed", _listen, _loopback(FEED_PORT), "The feed: sources push here, mutual TLS with pinned certificates."),
        Key("beats", _listen, _loopback(BEATS_PORT), "Authenticated UDP beats of armed sources."),
        Key(
            "registration",
            _listen,
            _loopback(REGISTRATION_PORT),
            "Registrations in hosted sources, mutual TLS with their registrars; opened only where a source has one.",
        ),
        Key(
            "metrics",
            _listen,
            _loopback(METRICS_PORT),
            "Prometheus metrics, /metrics; front N is at the port N + 1 above. An empty list: none.",
        ),
        Key("fronts", read.whole(0, 64), 0, "0: answers come from this process; N: N answering processes beside it."),
        Key("allow_public", read.flag, False, "Must be true before any server listens beyond loopback."),
        Key(
            "https_certificate",
            read.text,
            "",
            "Certificate of https and its issuers, PEM; a new one in its place is used from the next connection on.",
            '"https.pem"',
        ),
        Key("https_key", read.text, "", "Its private key, PEM, for its owner alone.", '"https.key"'),
        Key(
            "https_clients",
            read.text,
            "",
            "Roots of clients' certificates, or these themselves, PEM. Empty: clients show no certificate.",
            '"clients.pem"',
        ),
        Key(
            "basic_in_clear",
            read.flag,
            False,
            "The JSON API takes secrets by Basic from other machines without TLS; where a proxy in front of it has TLS, say.",
        ),
    ),
)
SITE = Section(
    "site",
    False,
    "How clients are told about us (HS_SITE).",
    (
        Key("description", read.text, "zaibei disaster recovery site", "Text in the published site."),
        Key(
            "addresses",
            read.listed(read.published, '["203.0.113.5"]'),
            [],
            "Addresses clients reach us at, with a Handle port where it differs. Default: those listened on.",
            '["203.0.113.5", "[2001:db8::5]:2641"]',
        ),
        Key("http_port", read.whole(0, 65_535), 0, "Published port of the JSON API. 0: the one listened on."),
        Key("https_port", read.whole(0, 65_535), 0, "Published port of the JSON API over TLS. 0: the one listened on, if any."),
        Key("ttl_s", read.whole(1, 86_400), 60, "Seconds clients may keep our site; at most 300 to be takeover-ready."),
        Key(
            "key_file",
            read.text,
            "",
            "RSA key, PEM, that signs answers (CT). Default: this member's own. Members behind the same addresses share one.",
            '"site.key"',
        ),
    ),
)
LIMITS = Section(
    "limits",
    False,
    "Budgets of the whole member, shared by all sources.",
    (
        Key("memory_mb", read.whole(64, 1_048_576), 512, "Block cache and write buffers of all stores together."),
        Key("open_files", read.whole(128, 1_048_576), 512, "Files all stores together keep open."),
        Key(
            "journal_keep_mb", read.whole(64, 1_048_576), 2_048, "Journal kept for members that are behind; beyond it: snapshot."
        ),
        Key("disk_reserve_mb", read.whole(16, 1_048_576), 256, "Intake stops while less is free on the disk; answers go on."),
        Key(
            "scrub_days",
            read.whole(0, 365),
            7,
            "Each copy is read through and its digest made anew so often. 0: only when asked for.",
        ),
        Key("scrub_mb_s", read.whole(1, 10_000), 16, "Million octets a second read for it."),
        Key("connections_max", read.whole(16, 1_000_000), 4_096, "Client connections, TCP and HTTP each."),
        Key("feed_streams_max", read.whole(1, 10_000), 64, "Feed streams at once, in and out."),
        Key(
            "audit_kept_days",
            read.whole(KEPT_DAYS, 36_500),
            KEPT_DAYS,
            "Days the audit of refusals is kept, the same at every member; what is older is dropped. Never below six months.",
        ),
    ),
)
GUARD = Section(
    "guard",
    False,
    "How much a client (a /24 of IPv4, a /56 of IPv6) or an identifier may take of one answering process; 0: not limited.",
    (
        Key(
            "udp_requests_per_s",
            read.whole(0, 10**9),
            GUARD_LIMITS.udp_requests_per_s,
            "Of a client over UDP; more are dropped or told to ask over TCP.",
        ),
        Key(
            "udp_calm_per_s",
            read.whole(0, 10**9),
            GUARD_LIMITS.udp_calm_per_s,
            "Of all clients together over UDP; above, it is a flood, and only proved addresses are answered there.",
        ),
        Key(
            "udp_answer_octets_max",
            read.whole(512, 65_536),
            GUARD_LIMITS.udp_answer_octets_max,
            "Longer answers are told to ask over TCP.",
        ),
        Key(
            "udp_long_octets_per_s",
            read.whole(0, 10**12),
            GUARD_LIMITS.udp_long_octets_per_s,
            "To a client over UDP, in answers of several datagrams.",
        ),
        Key(
            "stream_requests_per_s",
            read.whole(0, 10**9),
            GUARD_LIMITS.stream_requests_per_s,
            "Of a client over TCP, HTTP and gRPC together.",
        ),
        Key(
            "identifier_per_s",
            read.whole(0, 10**9),
            GUARD_LIMITS.identifier_per_s,
            "Questions for one identifier, by all clients.",
        ),
        Key(
            "trusted",
            read.listed(read.network, '["203.0.113.0/24"]'),
            list(GUARD_LIMITS.trusted),
            "Networks that are not counted: your recursive nodes.",
            '["127.0.0.0/8", "203.0.113.0/24"]',
        ),
        Key(
            "refused", read.listed(read.network, '["198.51.100.0/24"]'), [], "Networks that get no answer.", '["198.51.100.0/24"]'
        ),
    ),
)
SECURITY = Section(
    "security",
    False,
    "Where security events go beside the log: attacks, guessed keys, scans.",
    (
        Key(
            "syslog", read.listed(read.syslog, '["udp://127.0.0.1:514"]'), [], "Collectors, RFC 5424.", '["udp://127.0.0.1:514"]'
        ),
        Key("webhook", read.text, "", "One POST an event, signed; https, or http on loopback.", '"https://soc.example/zaibei"'),
        Key("webhook_secret_file", read.text, "", "File with the secret that signs, mode 0600.", '"webhook.secret"'),
        Key("webhook_ca_file", read.text, "", "PEM file of the CA that signed the receiver; else the system's.", '"soc-ca.pem"'),
    ),
)
CLUSTER = Section(
    "cluster",
    False,
    "Several members as one cluster; counts once `zaibei cluster init` or `zaibei cluster join` has written this member's card.",
    (
        Key("listen", _listen, _loopback(CLUSTER_PORT), "Links between members, mutual TLS with the cluster's certificates."),
        Key(
            "reach",
            read.listed(read.peer_address, '["member-1.example:2646"]'),
            [],
            "Addresses other members are told. Default: those listened on.",
            '["member-1.example:2646"]',
        ),
        Key("zone", read.zone, "", "Place that can be lost at once: a site, a room. None of three holds a majority.", '"dc-1"'),
        Key("replicas", read.one_of(3, 5), 3, "Voters of each group, 3 or 5; read when the cluster is begun."),
    ),
)
PKI = Section(
    "pki",
    False,
    "A CA instead of pins: `zaibei pki init` makes one, or name your own. Who it signed as source NAME is that [[source]].",
    (
        Key("folder", read.text, "", "Folder of the private CA, at the one member that enrols; nowhere else.", '"pki"'),
        Key("passphrase_file", read.text, "", "File with the passphrase of its key, mode 0600; only if it has one.", '"ca.pass"'),
        Key(
            "roots",
            read.listed(read.text, '["ca.pem"]'),
            [],
            "PEM files of the CA: root, and intermediates if there are. Default: that of folder.",
            '["ca.pem"]',
        ),
        Key(
            "crl",
            read.listed(read.text, '["crl.pem"]'),
            [],
            "Revocation lists, PEM; changed files count within seconds. Default: that of folder.",
            '["crl.pem"]',
        ),
        Key(
            "enrol",
            _listen,
            _loopback(ENROL_PORT),
            "Enrolment by one-time tokens, and renewal; opened only where folder is set.",
        ),
        Key(
            "reach",
            read.listed(read.peer_address, '["member-1.example:2648"]'),
            [],
            "Addresses of the member that enrols, as others reach it. Default, at that member: those listened on.",
            '["member-1.example:2648"]',
        ),
        Key(
            "feeds",
            read.listed(read.peer_address, '["member-1.example:2643"]'),
            [],
            "Where enrolled sources push to. Default: [listen] feed.",
            '["member-1.example:2643"]',
        ),
    ),
)
SOURCE = Section(
    "source",
    True,
    "A registry we copy. `zaibei source identity` on its side prints name, fingerprint and certificate.",
    (
        Key("name", read.name, REQUIRED, "Name in its certificate.", '"node-a"'),
        Key(
            "fingerprint",
            read.fingerprint,
            "",
            "Needed unless hosted, or known by the CA of [pki]. Compare it with its operator by another way than this file.",
            '"sha256:..."',
        ),
        Key("certificate", read.certificate, "", "The pinned certificate: PEM, or base64 of DER in one line.", '"MIIB..."'),
        Key("certificate_file", read.text, "", "The same in a file, instead of certificate.", '"node-a.pem"'),
        Key("prefixes", _prefixes, REQUIRED, "What it may write: these prefixes and all below them.", '["88.118"]'),
        Key("case_sensitive", _prefixes, [], "Prefixes whose suffixes keep their case; all others are folded.", '["88.118.7"]'),
        Key(
            "mode",
            read.choice("records", "routes", "mixed"),
            "records",
            "records: we answer; routes: we refer; mixed: by prefix.",
        ),
        Key(
            "pull",
            read.listed(read.peer_address, '["node-a.example:2643"]'),
            [],
            "Where we fetch from. Empty: it connects to us and pushes.",
            '["node-a.example:2643"]',
        ),
        Key("horizon_s", read.whole(2, 86_400), 300, "Without a takeover, a copy older than this is no longer answered."),
        Key("rpo_s", read.whole(0, 86_400), 5, "RPO target: our position may be so old before it is an alarm; 0: never."),
        Key("rpo_changes", read.whole(0, 10**12), 0, "Likewise: so many changes may be missing; 0: not limited."),
        Key("armed", read.flag, True, "Beats every 50 ms, so that its death is seen at once; false: every 500 ms."),
        Key(
            "takeover",
            read.choice("automatic", "manual", "never"),
            "manual",
            "Who starts answering in its place: the detector, an operator, or nobody.",
        ),
        Key(
            "probe_name",
            read.text,
            "",
            "An identifier its node always answers; default: the record of its first prefix.",
            '"88.118/ALIVE"',
        ),
        Key(
            "probes",
            read.listed(read.probe, '[{ protocol = "tcp", address = "192.0.2.7", port = 2641 }]'),
            [],
            "Where its node answers. Default: what it says of itself.",
            '[{ protocol = "tcp", address = "192.0.2.7", port = 2641 }]',
        ),
        Key(
            "registration_probes",
            read.listed(read.probe, '[{ protocol = "tcp", address = "192.0.2.7", port = 2642 }]'),
            [],
            "Where its node registers: probed for `zaibei takeover --registration`. Default: that is not probed.",
            '[{ protocol = "tcp", address = "192.0.2.7", port = 2642 }]',
        ),
        Key(
            "unavailable_s",
            read.whole(10, 86_400),
            300,
            "So long most probes must fail before taking over its registrations may be declared.",
        ),
        Key(
            "zone",
            read.zone,
            "",
            "Place its node stands in: what can be lost with it, for `zaibei takeover mass plan --zone`.",
            '"yichang"',
        ),
        Key("hosted", read.flag, False, "It lives here: no node feeds it, registrars change it through [listen] registration."),
        Key("leaves", read.flag, False, "Beside hosted: it leaves for the node pinned here, or known by the CA of [pki]."),
        Key(
            "registrars",
            read.listed(read.registrar, REGISTRAR_EXAMPLE),
            [],
            "Who may register below its prefixes here, while it is hosted or taken over. Nobody else can.",
            REGISTRAR_EXAMPLE,
        ),
    ),
)
RECURSIVE = Section(
    "recursive",
    True,
    "A recursive node that is told when we answer in a source's place.",
    (
        Key("name", read.name, REQUIRED, "Your name for it.", '"national"'),
        Key("url", read.url, REQUIRED, "Its control API.", '"https://resolver.example/control"'),
        Key("token_file", read.text, "", "File with its bearer token, mode 0600.", '"national.token"'),
        Key("flush", read.flag, True, "Also empty its cache for the prefix."),
    ),
)
REQUEST_FOLDER = Section(
    "request_folder",
    True,
    "A top-level node that is asked by signed files; how they travel is yours. See publishing.md.",
    (
        Key("name", read.name, REQUIRED, "Your name for it.", '"beijing-files"'),
        Key("folder", read.text, REQUIRED, "Folder into which requests are put; it must exist.", '"requests"'),
        Key("answers", read.text, "", "Folder in which answers are looked for. Default: the same.", '"answers"'),
        Key("top_level", read.text, "", "Name of the [[top_level]] whose key signs answers.", '"beijing"'),
        Key("resolver", read.peer_address, "", "Its Handle server over TCP: what it answers confirms too.", '"192.0.2.10:2641"'),
    ),
)
TOP_RECORD = Section(
    "top_record",
    True,
    "A top-level node whose records 0.NA/PREFIX we may change over the Handle protocol. See publishing.md.",
    (
        Key("name", read.name, REQUIRED, "Your name for it.", '"beijing-records"'),
        Key("server", read.peer_address, REQUIRED, "Its Handle server that takes changes, over TCP.", '"192.0.2.10:2641"'),
        Key("admin", read.text, REQUIRED, "Our key there, as HS_ADMIN of the records names it.", '"300:0.NA/88.118"'),
        Key("secret_file", read.text, "", "File with the octets of that HS_SECKEY value, mode 0600.", '"beijing.secret"'),
        Key("key_file", read.text, "", "Instead: PEM file with the RSA key of that HS_PUBKEY value, mode 0600.", '"beijing.pem"'),
        Key("index", read.whole(2, 2**31 - 1), 7_300, "Index of our own value in each record; more sites follow it."),
    ),
)
ANNOUNCE = Section(
    "announce",
    True,
    "A program that announces service addresses from our site: PROGRAM announce|withdraw PREFIX SERIAL. See publishing.md.",
    (
        Key("name", read.name, REQUIRED, "Your name for it.", '"routes"'),
        Key("program", read.text, REQUIRED, "Its absolute path. No shell; exit code 0 confirms.", '"/usr/local/sbin/announce"'),
        Key("run_s", read.whole(1, 4), 4, "Seconds it may run; then it is killed with all it started."),
    ),
)
OPERATOR = Section(
    "operator",
    True,
    "A person whose signature counts. What is held, and taking over registrations, needs two of them.",
    (
        Key("name", read.name, REQUIRED, "The person's name.", '"li.wei"'),
        Key("public_key", read.public_key, REQUIRED, "As `zaibei operator add` prints it.", '"<64 hex digits>"'),
    ),
)
TOP_LEVEL = Section(
    "top_level",
    True,
    "A top-level node whose signed orders count: `zaibei takeover order`.",
    (
        Key("name", read.name, REQUIRED, "Your name for it.", '"beijing"'),
        Key("public_key", read.public_key, REQUIRED, "Its Ed25519 key, told to you by another way.", '"<64 hex digits>"'),
    ),
)

PROBES = Section(
    "probes",
    False,
    "Sites of enterprises below tenants, to which clients are referred: probed, so that their health is known. See tenants.md.",
    (
        Key("per_s", read.whole(0, 100), 5, "Probes a second, over all tenants led here; 0: none."),
        Key("interval_s", read.whole(5, 3_600), 60, "Between two probes of one interface; longer where there are too many."),
        Key(
            "networks",
            read.listed(read.network, '["10.8.0.0/16"]'),
            [],
            "Networks that are probed although they are not public. Tenants write the addresses: name no more than you must.",
            '["10.8.0.0/16"]',
        ),
    ),
)

_ALL = (
    *(MEMBER, LISTEN, SITE, LIMITS, GUARD, SECURITY, CLUSTER, PKI, PROBES, SOURCE),
    *(RECURSIVE, REQUEST_FOLDER, TOP_RECORD, ANNOUNCE),
    *(OPERATOR, TOP_LEVEL),
)
SECTIONS = MappingProxyType({section.name: section for section in _ALL})
