"""The one TOML file of a source: read as a whole, all faults reported at once. Pure; files it names are read by the edge.

[source]      name, prefixes; title, data, mode, fence, case_sensitive, beat_ms, log
[serve]       listen, metrics: addresses `host:port`, IPv6 as `[::1]:port`, port 0 for any
[spool]       octets_max, keep_octets
[[input]]     path, format; record, route, document: mappings (none: the ready-made form); [files] rest_ms
[[member]]    name, certificate, fingerprint as `zaibei identity show` prints them; push: where to call (a list: in turn)
[pki]         roots, crl: PEM files of a CA whose members may copy us, certificate or not; cluster: of that one alone;
              reach: where certificates are renewed
[[resolution]] protocol, address, port: where the registry itself answers
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from replica.agent.mapping import AnyMapping, DocumentMapping, Naming, RecordMapping, RouteMapping, Template, ValueMapping
from replica.agent.nature import BEAT_INTERVAL_MS, Nature
from replica.agent.readers import Input
from replica.agent.records import SITE_PROTOCOLS, permissions_of
from replica.agent.retention import Spool
from replica.model.edge_trust import TrustFiles
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.codes import TTL_S_DEFAULT
from replica.model.identifier import prefix_key
from replica.model.identity import Peer, Pins
from replica.v1 import source_pb2

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_MODES = {
    "records": source_pb2.Description.MODE_RECORDS,
    "routes": source_pb2.Description.MODE_ROUTES,
    "mixed": source_pb2.Description.MODE_MIXED,
}
MIB = 1024 * 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """A checked configuration; paths are absolute."""

    nature: Nature
    naming: Naming
    data: Path
    listen: tuple[str, ...]
    metrics: tuple[str, ...]
    spool: Spool
    inputs: tuple[Input, ...]
    rest_s: float
    pins: Pins
    push: tuple[tuple[str, str], ...]  # member name, address; once for each address, those of one member in turn
    log: str = "text"
    trust: TrustFiles | None = None  # None: pinned members alone
    reach: tuple[str, ...] = ()  # where the CA is asked for a new certificate


class Table:
    """One table of the file, with the faults of all of them."""

    def __init__(self, fields: object, where: str, faults: list[str]) -> None:
        self.where, self.faults = where, faults
        self.fields: dict[str, Any] = dict(fields) if isinstance(fields, Mapping) else {}
        if not isinstance(fields, Mapping):
            self.fault("", "is not a table")

    def fault(self, name: str, what: str) -> None:
        self.faults.append(f"{self.where}{'.' if self.where and name else ''}{name} {what}")

    def take(self, name: str, kind: type[T], default: T | None, what: str) -> T:
        """A value of one type; `default` None: required."""
        value = self.fields.pop(name, default)
        if value is None:
            self.fault(name, f"is missing: write {what}")
        elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.fault(name, f"is {value!r}: write {what}")
        else:
            return value
        return kind()

    def texts(self, name: str, what: str, *, needed: bool = False) -> tuple[str, ...]:
        value = self.take(name, list, None if needed else [], what)
        if not all(isinstance(item, str) for item in value):
            self.fault(name, f"is {value!r}: write {what}")
            return ()
        return tuple(value)

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        value = self.take(name, int, default, f"a whole number from {low} to {high}")
        if not low <= value <= high:
            self.fault(name, f"is {value}: write a whole number from {low} to {high}")
            return default
        return value

    def choice(self, name: str, default: str, *words: str) -> str:
        value = self.take(name, str, default, "one of " + ", ".join(words))
        if value not in words:
            self.fault(name, f"is {value!r}: write one of " + ", ".join(words))
            return default
        return value

    def inner(self, name: str) -> Table:
        return Table(self.fields.pop(name, {}), f"{self.where}.{name}" if self.where else name, self.faults)

    def many(self, name: str) -> list[Table]:
        value = self.fields.pop(name, [])
        if not isinstance(value, list):
            self.fault(name, f"is no list: write [[{name}]]")
            return []
        return [
            Table(item, f"{self.where}{'.' if self.where else ''}{name}[{at}]", self.faults) for at, item in enumerate(value, 1)
        ]

    def end(self) -> None:
        for name in self.fields:
            self.fault(name, "is not known here")


def read_config(root: Mapping[str, Any], origin: str, folder: Path) -> SourceConfig:
    """Check a parsed file.

    Args:
        origin: the file's name, for messages; `folder`: where relative paths start.
    Raises:
        ZaibeiError(INVALID_CONFIG): every fault, one a line.
    """
    faults: list[str] = []
    top = Table(root, "", faults)
    source, serve, spool, files = top.inner("source"), top.inner("serve"), top.inner("spool"), top.inner("files")
    resolution = tuple(_endpoint(table) for table in top.many("resolution"))
    nature = _nature(source, resolution)
    data = folder / source.take("data", str, "zaibei-source", "a folder")
    log = source.choice("log", "text", "text", "json")
    naming = Naming.of((), ())
    try:
        naming = Naming.of(nature.prefixes, nature.case_sensitive)
    except ZaibeiError as exc:
        source.fault("prefixes", exc.trouble.message)
    inputs = tuple(_input(table, folder) for table in top.many("input"))
    if inputs and nature.fence != source_pb2.Description.FENCE_NONE:  # SEMANTICS 5.1
        source.fault("fence", 'is "write-path": the writers of files cannot be fenced; use a Publisher and its guard')
    rest_s = files.whole("rest_ms", 2_000, 50, 600_000) / 1_000
    listen, metrics = _addresses(serve, "listen"), _addresses(serve, "metrics")
    pki = top.inner("pki")
    trust, reach = _pki(pki, folder), _addresses(pki, "reach")
    pins, push = _members(top.many("member"), by_ca=trust is not None)
    limits = Spool(
        spool.whole("octets_max", Spool().octets_max, MIB, 2**50), spool.whole("keep_octets", Spool().keep_octets, 0, 2**50)
    )
    if not listen and not push:
        faults.append("serve.listen is empty and no [[member]] has `push`: nobody could copy this source")
    for table in (source, serve, spool, files, pki, top):
        table.end()
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise ZaibeiError(Code.INVALID_CONFIG, f"{origin}: {count}\n" + "\n".join(f"  {fault}" for fault in faults))
    return SourceConfig(nature, naming, data, listen, metrics, limits, inputs, rest_s, pins, push, log, trust, reach)


def _nature(source: Table, resolution: tuple[tuple[str, str, int], ...]) -> Nature:
    name = source.take("name", str, None, 'the source\'s name, like "node-a"')
    if name and not NAME.fullmatch(name):
        source.fault("name", f"is {name!r}: write lower-case letters, digits, dots and dashes, at most 63")
    prefixes = source.texts("prefixes", 'the prefixes it owns, like ["88.118"]', needed=True)
    case_sensitive = source.texts("case_sensitive", "prefixes")
    for key, listed in (("prefixes", prefixes), ("case_sensitive", case_sensitive)):
        for prefix in listed:
            try:
                prefix_key(prefix)
            except ZaibeiError as exc:
                source.fault(key, exc.trouble.message)
    fence = source.choice("fence", "none", "none", "write-path")
    return Nature(
        name,
        tuple(prefix for prefix in prefixes),
        source.take("title", str, name, "a text"),
        _MODES[source.choice("mode", "records", *_MODES)],
        fence=source_pb2.Description.FENCE_NONE if fence == "none" else source_pb2.Description.FENCE_WRITE_PATH,
        case_sensitive=case_sensitive,
        resolution=resolution,
        beat_interval_ms=source.whole("beat_ms", BEAT_INTERVAL_MS, 10, 5_000),
    )


def _endpoint(table: Table) -> tuple[str, str, int]:
    protocol = table.choice("protocol", "tcp", *SITE_PROTOCOLS)
    address = table.take("address", str, None, "an IP address")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        if address:
            table.fault("address", f"is {address!r}: write an IPv4 or IPv6 address")
    port = table.whole("port", 0, 1, 65_535)
    table.end()
    return protocol, address, port


def _addresses(table: Table, name: str) -> tuple[str, ...]:
    found = table.texts(name, 'addresses, like ["127.0.0.1:2643", "[::1]:2643"]')
    for address in found:
        _check_address(table, name, address)
    return found


def _check_address(table: Table, name: str, address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit() and int(port) < 65_536) or (":" in host and not host.startswith("[")):
        table.fault(name, f"is {address!r}: write host:port, IPv6 as [::1]:port")


def _pki(table: Table, folder: Path) -> TrustFiles | None:
    roots, lists = table.texts("roots", 'PEM files of the CA, like ["ca.pem"]'), table.texts("crl", "PEM files of the CA")
    cluster = table.take("cluster", str, "", "32 hex digits")
    if cluster and not re.fullmatch("[0-9a-f]{32}", cluster):
        table.fault("cluster", f"is {cluster!r}: write 32 hex digits")
        cluster = ""
    if not roots:
        if lists or cluster:
            table.fault("roots", 'is missing: write PEM files of the CA, like ["ca.pem"]')
        return None
    return TrustFiles(tuple(folder / one for one in roots), tuple(folder / one for one in lists), bytes.fromhex(cluster))


def _members(tables: list[Table], *, by_ca: bool) -> tuple[Pins, tuple[tuple[str, str], ...]]:
    peers: list[Peer] = []
    push: list[tuple[str, str]] = []
    for table in tables:
        name = table.take("name", str, None, "the member's name")
        certificate = table.take("certificate", str, "" if by_ca else None, "what `zaibei identity show` prints")
        print_ = table.take("fingerprint", str, "", "its fingerprint")
        for address in _pushed(table):
            _check_address(table, "push", address)
            push.append((name, address))
        table.end()
        try:
            known = by_ca and not certificate
            peer = Peer(name, b"" if known else _pem(certificate), role="member")
        except ZaibeiError as exc:
            if certificate:
                table.fault("certificate", exc.trouble.message)
            continue
        if print_ and print_.lower() != peer.fingerprint:
            table.fault("fingerprint", f"is {print_}, the certificate has {peer.fingerprint}")
        peers.append(peer)
    return Pins(tuple(peers)), tuple(push)


def _pushed(table: Table) -> tuple[str, ...]:
    """One address, or a list: of both IP families of that member."""
    if isinstance(table.fields.get("push"), list):
        return table.texts("push", "the member's feed addresses")
    address = table.take("push", str, "", "the member's feed address, or a list of them")
    return (address,) if address else ()


def _pem(text: str) -> bytes:
    """PEM as it is; base64 of DER in one line as PEM."""
    if "BEGIN CERTIFICATE" in text:
        return text.strip().encode() + b"\n"
    try:
        body = base64.encodebytes(base64.b64decode("".join(text.split()), validate=True))
    except (ValueError, binascii.Error) as exc:
        raise ZaibeiError(Code.MALFORMED, f"is neither PEM nor base64: {exc}") from None
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


def _input(table: Table, folder: Path) -> Input:
    path = table.take("path", str, None, "a file")
    guess = "csv" if path.endswith(".csv") else "jsonl"
    form = table.choice("format", guess, "csv", "jsonl")
    mappings: list[AnyMapping] = [_record(inner) for inner in table.many("record")]
    mappings += [_route(inner) for inner in table.many("route")]
    mappings += [_document(inner) for inner in table.many("document")]
    table.end()
    return Input(folder / path, form, tuple(mappings))


def _record(table: Table) -> RecordMapping:
    identifier = Template(table.take("identifier", str, None, 'a template, like "88.118.8/{code}"'))
    values = []
    for inner in table.many("values"):
        permissions = inner.take("permissions", str, "", "four digits 0 or 1")
        try:
            permissions_of(permissions)
        except ZaibeiError as exc:
            inner.fault("permissions", exc.trouble.message)
        values.append(
            ValueMapping(
                inner.whole("index", 1, 0, 2**32 - 1),
                inner.take("type", str, None, 'a type, like "URL"'),
                Template(inner.take("data", str, None, 'a template, like "https://example.cn/{code}"')),
                inner.whole("ttl", TTL_S_DEFAULT, 0, 2**32 - 1),
                permissions,
                inner.take("timestamp", str, "", "the name of a column"),
                inner.choice("format", "string", "string", "base64", "hex"),
            )
        )
        inner.end()
    if not values:
        table.fault("values", "is empty: write at least one [[input.record.values]]")
    if len({value.index for value in values}) != len(values):
        table.fault("values", "have the same index twice")
    table.end()
    return RecordMapping(identifier, tuple(values))


def _route(table: Table) -> RouteMapping:
    prefix = Template(table.take("prefix", str, None, 'a template, like "{prefix}"'))
    addresses = tuple(Template(text) for text in table.texts("addresses", 'templates, like ["{ip}", "{ip6}"]'))
    service = table.take("service", str, "", "a template naming a service handle")
    inner = table.inner("ports")
    ports = tuple((name, Template(inner.take(name, str, "", "a template"))) for name in SITE_PROTOCOLS if name in inner.fields)
    inner.end()
    if not service and not (addresses and ports):
        table.fault("addresses", "are missing: write addresses and ports, or service")
    serial, ttl = table.whole("serial", 1, 0, 65_535), table.whole("ttl", 300, 0, 2**32 - 1)
    timestamp = table.take("timestamp", str, "", "the name of a column")
    table.end()
    return RouteMapping(prefix, addresses, ports, Template(service) if service else None, serial, ttl, timestamp)


def _document(table: Table) -> DocumentMapping:
    kind = table.take("kind", str, None, 'a kind, like "enterprise"')
    ident = Template(table.take("id", str, None, 'a template, like "{id}"'))
    fields = table.texts("fields", "names of columns")
    table.end()
    return DocumentMapping(kind, ident, fields)
