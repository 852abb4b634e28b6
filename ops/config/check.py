"""From a parsed file to a MemberConfig: every key by the schema, then the rules that span several keys. Pure.

Rules beyond single keys:
    same protocol and port twice; beyond loopback without allow_public; two entries of one name; a prefix owned by two sources;
    a certificate that is missing, given twice, of another name or fingerprint; a secret file missing or readable by others;
    one key under two operators' names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hosting.guard.limits import GuardLimits
from ops.config.address import Address
from ops.config.faults import ConfigError, Reading
from ops.config.https import https_files
from ops.config.pki import pki_part
from ops.config.publishing import adapters_of, site_key
from ops.config.read import WrongError, pem
from ops.config.schema import SECTIONS
from ops.config.security import security_part
from ops.config.values import (
    ClusterPart,
    Limits,
    Listen,
    MemberConfig,
    MemberPart,
    OperatorKey,
    ProbeSettings,
    Published,
    Recursive,
    Registrar,
    Site,
    Source,
    TakeoverPolicy,
    TopLevelKey,
)
from replica.model.errors import ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.identity import Peer, fingerprint, name_of
from replica.model.states import Mode

OPERATORS_MIN = 2
TTL_READY_S_MAX = 300
# Which transports a listener of [listen] binds.
TRANSPORTS = {
    "handle": ("udp", "tcp"),
    "http": ("tcp",),
    "https": ("tcp",),
    "grpc": ("tcp",),
    "feed": ("tcp",),
    "beats": ("udp",),
    "registration": ("tcp",),
    "metrics": ("tcp",),
}
Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the check must know of the machine.

    Args:
        folder: relative paths of the file start here.
        ipv6: False drops IPv6 loopback from defaults (never from what was written).
        read_file: (path, secret) -> octets; raises WrongError when missing, too large, or a secret that others may read.
    """

    folder: Path
    host_name: str
    ipv6: bool
    read_file: Callable[[Path, bool], bytes]


def check(root: Mapping[str, object], origin: str, around: Surroundings) -> tuple[MemberConfig, dict[str, str]]:
    """Check a whole configuration.

    Args:
        root: as tomllib gives it; empty: all defaults.
        origin: name of the file, for messages.
    Returns:
        The configuration, and for every path where its value comes from.
    Raises:
        ConfigError: carries all faults at once.
    """
    reading = Reading(origin)
    reading.unknown_sections(root)
    sections = {
        name: reading.section(root, name)
        for name in ("member", "listen", "site", "limits", "guard", "security", "cluster", "pki", "probes")
    }
    many = [name for name, section in SECTIONS.items() if section.many]
    arrays = {name: reading.sections(root, name) for name in many}
    _drop_ipv6_defaults(reading, sections, around)
    _check_listen(reading, sections)
    sections["listen"] = https_files(reading, sections["listen"], around.folder, around.read_file)
    _check_names(reading, sections["member"], arrays)
    pki = pki_part(reading, sections["pki"], around.folder, around.read_file)
    security = security_part(reading, sections["security"], around.folder, around.read_file)
    sources = [
        _source(reading, f"source[{at}]", table, around, by_ca=bool(pki.roots)) for at, table in enumerate(arrays["source"], 1)
    ]
    _check_prefixes(reading, arrays["source"])
    recursives = [_recursive(reading, f"recursive[{at}]", table, around) for at, table in enumerate(arrays["recursive"], 1)]
    adapters = adapters_of(reading, arrays, around.folder, around.read_file)
    for name in ("operator", "top_level"):
        _check_keys(reading, name, arrays[name])
    key_file = site_key(reading, sections["site"], around.folder, around.read_file)
    if reading.faults:
        raise ConfigError(origin, tuple(reading.faults))
    listen = Listen(**sections["listen"])
    config = MemberConfig(
        member=_member(reading, sections["member"], around),
        listen=listen,
        site=_site(reading, sections["site"], listen, key_file),
        limits=Limits(**sections["limits"]),
        guard=GuardLimits(**sections["guard"]),
        security=security,
        probes=ProbeSettings(**{**sections["probes"], "networks": tuple(sections["probes"]["networks"])}),
        cluster=ClusterPart(**sections["cluster"]),
        pki=pki,
        sources=tuple(source for source in sources if source is not None),
        recursives=tuple(recursive for recursive in recursives if recursive is not None),
        operators=tuple(OperatorKey(**table) for table in arrays["operator"]),
        top_levels=tuple(TopLevelKey(**table) for table in arrays["top_level"]),
        **adapters,
    )
    return _with_notes(config), reading.origins


def _drop_ipv6_defaults(reading: Reading, sections: Mapping[str, Table], around: Surroundings) -> None:
    if around.ipv6:
        return
    for section, name in (*(("listen", name) for name in TRANSPORTS), ("cluster", "listen"), ("pki", "enrol")):
        at, table = f"{section}.{name}", sections[section]
        if reading.origins.get(at) == "default" and any(address.is_ipv6 for address in table[name]):
            table[name] = tuple(address for address in table[name] if not address.is_ipv6)
            reading.origins[at] = "default (no IPv6 on this machine)"


def _check_listen(reading: Reading, sections: Mapping[str, Table]) -> None:
    listen, cluster, pki = sections["listen"], sections["cluster"], sections["pki"]
    taken: dict[tuple[str, str, int], str] = {}
    wanted = [(f"listen.{name}", transports, listen.get(name, ())) for name, transports in TRANSPORTS.items()]
    wanted.append(("cluster.listen", ("tcp",), cluster.get("listen", ())))
    wanted.append(("pki.enrol", ("tcp",), pki.get("enrol", ()) if pki.get("folder") else ()))
    for name, transports, addresses in wanted:
        for address in addresses:
            if not address.is_loopback and not listen.get("allow_public", False):
                reading.fault(
                    name,
                    f"{address} can be reached from other machines",
                    "allow_public = true in [listen] if that is meant",
                )
            for transport in transports:
                other = _clash(taken, transport, address)
                if other is not None:
                    reading.fault(name, f"{address} ({transport}) is already used by {other}", "a port of its own")
                if address.port:
                    taken[transport, address.host, address.port] = name


def _clash(taken: Mapping[tuple[str, str, int], str], transport: str, address: Address) -> str | None:
    for (transport_, host, port), name in taken.items():
        if (transport_, port) == (transport, address.port) and (host == address.host or _covers(Address(host, port), address)):
            return name
    return None


def _covers(one: Address, other: Address) -> bool:
    """One of them is every address of the other's family."""
    return one.is_ipv6 == other.is_ipv6 and (one.is_any or other.is_any)


def _check_names(reading: Reading, member: Table, arrays: Mapping[str, list[Table]]) -> None:
    for kind, tables in arrays.items():
        seen: dict[str, int] = {}
        for at, table in enumerate(tables, 1):
            name = table.get("name")
            if name is None:
                continue
            if name in seen:
                reading.fault(f"{kind}[{at}].name", f"{name!r} is already {kind}[{seen[name]}]", "another name")
            elif kind == "source" and name == member.get("name"):
                reading.fault(f"{kind}[{at}].name", f"{name!r} is this member's own name", "another name for one of them")
            seen.setdefault(name, at)


def _check_prefixes(reading: Reading, tables: list[Table]) -> None:
    owners: dict[bytes, int] = {}
    for at, table in enumerate(tables, 1):
        prefixes = table.get("prefixes")
        if prefixes == ():
            reading.fault(f"source[{at}].prefixes", "is empty, so it could write nothing", 'prefixes = ["88.118"]')
        keys = [prefix_key(prefix) for prefix in prefixes or ()]
        for key, prefix in zip(keys, prefixes or (), strict=True):
            if owners.setdefault(key, at) != at:
                reading.fault(
                    f"source[{at}].prefixes", f"{prefix} already belongs to source[{owners[key]}]", "each prefix at one source"
                )
        for prefix in table.get("case_sensitive", ()):
            if not any(_at_or_below(prefix_key(prefix), key) for key in keys):
                reading.fault(f"source[{at}].case_sensitive", f"{prefix} is not below its prefixes", "prefixes of this source")


def _at_or_below(key: bytes, prefix: bytes) -> bool:
    return key == prefix or key.startswith(prefix + b"\x01")


def _source(reading: Reading, at: str, table: Table, around: Surroundings, *, by_ca: bool) -> Source | None:
    hosted, leaves, registrars = table.pop("hosted", False), table.pop("leaves", False), table.pop("registrars", ())
    if leaves and not hosted:
        reading.fault(f"{at}.leaves", "it does not live here", "hosted = true beside it, or leave it out")
    if hosted and not leaves:
        return _hosted(reading, at, table, registrars)
    pins = _registrars(reading, at, registrars)
    unpinned = not any(table.get(name, True) for name in ("fingerprint", "certificate", "certificate_file"))
    if by_ca and unpinned and {"name", "prefixes"} <= table.keys():
        peer = Peer(table["name"], b"", tuple(prefix_key(prefix) for prefix in table["prefixes"]))
        return _source_value(table, peer, pins, hosted=hosted)
    if table.get("fingerprint") == "":
        reading.fault(f"{at}.fingerprint", "is missing", 'fingerprint = "sha256:..."')
        table.pop("fingerprint")
    certificate = _certificate(reading, at, table, around)
    if certificate is None or not {"name", "prefixes", "fingerprint"} <= table.keys():
        return None
    try:
        named, printed = name_of(certificate), fingerprint(certificate)
        if named != table["name"]:
            reading.fault(
                f"{at}.name", f"{table['name']!r}, but its certificate names {named!r}", f'name = "{named}" if that is the one'
            )
        elif printed != table["fingerprint"]:
            reading.fault(
                f"{at}.fingerprint",
                f"the certificate has another one, {printed}",
                "the one its operator reads to you; if it is the certificate that is wrong, ask for the right one",
            )
        else:
            keys = tuple(prefix_key(prefix) for prefix in table["prefixes"])
            return _source_value(table, Peer(named, certificate, keys), pins, hosted=hosted)
    except ZaibeiError as exc:
        reading.fault(f"{at}.certificate", exc.trouble.message, "the certificate line that `zaibei source identity` prints")
    return None


def _hosted(reading: Reading, at: str, table: Table, registrars: Sequence[Registrar]) -> Source | None:
    """A source that lives here: nothing of a node's is said of it."""
    for name in ("fingerprint", "certificate", "certificate_file", "pull", "probe_name", "probes", "registration_probes"):
        if table.get(name):
            reading.fault(f"{at}.{name}", "a hosted source has no node", "leaves = true if it leaves for it, or leave it out")
    never = {"takeover": TakeoverPolicy.NEVER.value}
    return _source_value(table | never, None, _registrars(reading, at, registrars), hosted=True)


def _registrars(reading: Reading, at: str, registrars: Sequence[Registrar]) -> tuple[Peer, ...]:
    pins = [pin for place, one in enumerate(registrars, 1) if (pin := _registrar(reading, f"{at}.registrars[{place}]", one))]
    if len({one.fingerprint for one in pins}) != len(pins) or len({one.name for one in pins}) != len(pins):
        reading.fault(f"{at}.registrars", "a registrar is there twice", "each once")
    return tuple(pins)


def _registrar(reading: Reading, at: str, one: Registrar) -> Peer | None:
    try:
        named, printed = name_of(one.certificate_pem), fingerprint(one.certificate_pem)
        if named != one.name:
            reading.fault(
                f"{at}.name", f"{one.name!r}, but its certificate names {named!r}", f'name = "{named}" if that is the one'
            )
        elif printed != one.fingerprint:
            reading.fault(f"{at}.fingerprint", f"the certificate has another one, {printed}", "the one its holder reads to you")
        else:
            return Peer(named, one.certificate_pem, role="registrar")
    except ZaibeiError as exc:
        reading.fault(f"{at}.certificate", exc.trouble.message, "the certificate that `zaibei register identity` prints")
    return None


def _source_value(table: Table, peer: Peer | None, registrars: tuple[Peer, ...], *, hosted: bool) -> Source | None:
    plain = (
        "name", "prefixes", "case_sensitive", "pull", "horizon_s", "rpo_s", "rpo_changes", "armed", "probe_name", "probes",
        "registration_probes", "unavailable_s", "zone",
    )  # fmt: skip
    if not {*plain, "mode", "takeover"} <= table.keys():
        return None  # a fault is already told
    return Source(
        peer=peer,
        hosted=hosted,
        registrars=registrars,
        mode=Mode[table["mode"].upper()],
        takeover=TakeoverPolicy(table["takeover"]),
        **{name: table[name] for name in plain},
    )


def _certificate(reading: Reading, at: str, table: Table, around: Surroundings) -> bytes | None:
    given, file = table.get("certificate"), table.get("certificate_file")
    if given is None or file is None:
        return None  # unreadable, told already
    if given and file:
        reading.fault(f"{at}.certificate_file", "stands beside certificate", "one of the two")
        return None
    if given:
        return bytes(given)
    if not file:
        reading.fault(f"{at}.certificate", "is missing", 'certificate = "...", as `zaibei source identity` prints it')
        return None
    try:
        octets = around.read_file(around.folder / file, False)
    except WrongError as wrong:
        reading.fault(f"{at}.certificate_file", wrong.what, wrong.instead)
        return None
    return octets if octets.lstrip().startswith(b"-----BEGIN") else pem(octets)


def _recursive(reading: Reading, at: str, table: Table, around: Surroundings) -> Recursive | None:
    file = table.pop("token_file", None)
    path = around.folder / file if file else None
    if path is not None:
        try:
            if not around.read_file(path, True).strip():
                reading.fault(f"{at}.token_file", f"{path} is empty", "the token in one line of that file")
        except WrongError as wrong:
            reading.fault(f"{at}.token_file", wrong.what, wrong.instead)
    return Recursive(token_file=path, **table) if {"name", "url", "flush"} <= table.keys() else None


def _check_keys(reading: Reading, section: str, tables: list[Table]) -> None:
    seen: dict[bytes, int] = {}
    for at, table in enumerate(tables, 1):
        key = table.get("public_key")
        if key is not None and seen.setdefault(key, at) != at:
            reading.fault(
                f"{section}[{at}].public_key",
                f"is the key of {section}[{seen[key]}]",
                "a key of each one's own: two names must be two people",
            )


def _member(reading: Reading, table: Table, around: Surroundings) -> MemberPart:
    if not table["machine"]:
        reading.origins["member.machine"] = "default (host name)"
    data = (around.folder / table["data"]).absolute()
    return MemberPart(
        name=table["name"],
        data=data,
        machine=table["machine"] or around.host_name,
        log=table["log"],
        log_level=table["log_level"],
    )


def _site(reading: Reading, table: Table, listen: Listen, key_file: Path | None) -> Site:
    http = table["http_port"] or (listen.http[0].port if listen.http else 0)
    https = table["https_port"] or (listen.https[0].port if listen.https else 0)
    handle = listen.handle[0].port if listen.handle else 0
    if table["addresses"]:
        addresses = tuple(Published(address.host, address.port or handle, http, https) for address in table["addresses"])
    else:
        reading.origins["site.addresses"] = "default (listen.handle)"
        addresses = tuple(Published(address.host, address.port, http, https) for address in listen.handle if not address.is_any)
    return Site(table["description"], addresses, table["ttl_s"], key_file)


def _with_notes(config: MemberConfig) -> MemberConfig:
    notes = []
    if config.sources and len(config.operators) < OPERATORS_MIN:
        notes.append(
            f"{len(config.operators)} of {OPERATORS_MIN} operators are configured: what is held could never be released. "
            "Next: zaibei operator add NAME"
        )
    if config.site.ttl_s > TTL_READY_S_MAX:
        notes.append(f"site.ttl_s = {config.site.ttl_s}: above {TTL_READY_S_MAX} no source is ever takeover-ready")
    if not config.site.addresses:
        notes.append("site.addresses is empty and listen.handle names no address: nobody can be told where we answer")
    return replace(config, notes=tuple(notes))
