"""Readers of single TOML values. Each takes what tomllib gives and returns the value, or says what is wrong and what to write."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any, TypeVar
from urllib.parse import urlsplit

from hosting.guard.edge_syslog import SyslogPlace
from ops.config.address import PORT_MAX, Address, parse_host
from ops.config.values import Probe, Registrar
from replica.model.errors import ZaibeiError
from replica.model.identifier import prefix_key

NAME_PATTERN = r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?"
TEXT_CHARACTERS_MAX = 4_096
LIST_ITEMS_MAX = 4_096
PROBE_PROTOCOLS = ("udp", "tcp", "http", "https")

T = TypeVar("T")
Reader = Callable[[object], Any]


class WrongError(ValueError):
    """A value that cannot stand. `what` is wrong, `instead` is what to write."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(what)
        self.what, self.instead = what, instead


def shown(value: object) -> str:
    """A value in a message: short, one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def text(value: object) -> str:
    if not isinstance(value, str) or len(value) > TEXT_CHARACTERS_MAX or "\0" in value:
        raise WrongError(f"{shown(value)} is not a text", 'a text in quotes, like "zaibei"')
    return value


def name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(NAME_PATTERN, value):
        raise WrongError(
            f"{shown(value)} is not a name",
            'lower-case letters, digits, dots and dashes (1 to 63, no dash at an end), like "member-1"',
        )
    return value


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongError(f"{shown(value)} is neither true nor false", "true or false, without quotes")
    return value


def whole(low: int, high: int) -> Reader:
    """A whole number from `low` to `high`."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise WrongError(f"{shown(value)} is out of range", f"a whole number from {low:,} to {high:,}".replace(",", "_"))
        return value

    return read


def one_of(*numbers: int) -> Reader:
    """One of some whole numbers."""

    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value not in numbers:
            raise WrongError(f"{shown(value)} is not a choice", "one of " + ", ".join(map(str, numbers)))
        return value

    return read


def zone(value: object) -> str:
    """A name of a place, or nothing."""
    return name(value) if value else text(value)


def choice(*words: str) -> Reader:
    """One of some words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise WrongError(f"{shown(value)} is not a choice", "one of " + ", ".join(f'"{word}"' for word in words))
        return value

    return read


def listed(reader: Callable[[object], T], example: str) -> Callable[[object], tuple[T, ...]]:
    """A list whose items `reader` reads; the first wrong item is named by its place."""

    def read(value: object) -> tuple[T, ...]:
        if not isinstance(value, list) or len(value) > LIST_ITEMS_MAX:
            raise WrongError(f"{shown(value)} is not a list", f"a list, like {example}")
        items: list[T] = []
        for place, item in enumerate(value, 1):
            try:
                items.append(reader(item))
            except WrongError as wrong:
                raise WrongError(f"item {place}: {wrong.what}", wrong.instead) from None
        if len(set(items)) != len(items):
            raise WrongError("an item is there twice", "each item once")
        return tuple(items)

    return read


def listen_address(value: object) -> Address:
    try:
        return Address.parse(text(value))
    except WrongError:
        raise
    except ValueError as exc:
        raise WrongError(str(exc), 'an address to listen on, like "127.0.0.1:2641" or "[::1]:2641"') from None


def peer_address(value: object) -> Address:
    try:
        address = Address.parse(text(value), names=True)
    except WrongError:
        raise
    except ValueError as exc:
        raise WrongError(str(exc), 'an address to connect to, like "node.example:2643" or "[2001:db8::1]:2643"') from None
    if address.port == 0 or address.is_any:
        raise WrongError(f"{shown(value)} cannot be connected to", "the host and port the other side listens on")
    return address


def published(value: object) -> Address:
    """`IP` or `IP:PORT`; port 0 where none is given."""
    octets = text(value)
    try:
        bare = parse_host(octets)
    except ValueError:
        bare = ""
    try:
        address = Address(bare, 0) if bare else Address.parse(octets)
    except ValueError as exc:
        raise WrongError(
            str(exc), 'an address clients can reach, like "203.0.113.5", "203.0.113.5:2641" or "[2001:db8::5]:2641"'
        ) from None
    if address.is_any:
        raise WrongError(f"{shown(value)} is no address a client can reach", "the address clients reach this member at")
    return address


def prefix(value: object) -> str:
    octets = text(value)
    try:
        prefix_key(octets)
    except (ZaibeiError, ValueError) as exc:
        reason = exc.trouble.message if isinstance(exc, ZaibeiError) else str(exc)
        raise WrongError(reason, 'a prefix, like "88.118", "oid:1.2.156", "gs1:6901234" or "did:bid"') from None
    return octets


def fingerprint(value: object) -> str:
    octets = text(value).lower().replace("sha256:", "", 1).replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{64}", octets):
        raise WrongError(
            f"{shown(value)} is not a fingerprint", '"sha256:" and 64 hex digits, as `zaibei source identity` prints them'
        )
    return "sha256:" + octets


def public_key(value: object) -> bytes:
    octets = text(value).strip()
    try:
        raw = bytes.fromhex(octets) if len(octets) == 64 else base64.b64decode(octets, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != 32:
        raise WrongError(
            f"{shown(value)} is not an Ed25519 public key",
            "64 hex digits or 44 base64 characters, as `zaibei operator add` prints them",
        )
    return raw


def certificate(value: object) -> bytes:
    """PEM text, or base64 of DER in one line; returned as PEM."""
    octets = text(value).strip()
    if octets.startswith("-----BEGIN CERTIFICATE-----"):
        return octets.encode() + b"\n"
    try:
        der = base64.b64decode("".join(octets.split()), validate=True)
    except (ValueError, binascii.Error):
        der = b""
    if not der:
        raise WrongError(f"{shown(value)} is not a certificate", "the certificate line that `zaibei source identity` prints")
    return pem(der)


def pem(der: bytes) -> bytes:
    lines = base64.encodebytes(der).decode().replace("\n", "")
    body = "\n".join(lines[at : at + 64] for at in range(0, len(lines), 64))
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n".encode()


def registrar(value: object) -> Registrar:
    example = (
        '{ name = "tenant-a", fingerprint = "sha256:...", certificate = "MIIB..." }, as `zaibei register identity` prints it'
    )
    if not isinstance(value, dict) or set(value) != {"name", "fingerprint", "certificate"}:
        raise WrongError(f"{shown(value)} is not a registrar", example)
    return Registrar(name(value["name"]), fingerprint(value["fingerprint"]), certificate(value["certificate"]))


def network(value: object) -> str:
    """A network of IPv4 or IPv6 addresses, as it was written."""
    octets = text(value)
    try:
        ip_network(octets)
    except ValueError:
        raise WrongError(f"{shown(value)} is no network", '"192.0.2.0/24" or "2001:db8::/32"') from None
    return octets


def syslog(value: object) -> str:
    """Where a syslog collector listens, as it was written."""
    octets = text(value)
    try:
        SyslogPlace.parse(octets)
    except ZaibeiError as exc:
        raise WrongError(exc.trouble.message, '"udp://127.0.0.1:514"') from None
    return octets


def url(value: object) -> str:
    octets = text(value)
    try:
        parts = urlsplit(octets)
        port_ok = parts.port is None or 0 < parts.port <= PORT_MAX
    except ValueError:
        raise WrongError(f"{shown(value)} is not a URL", '"http://[::1]:8080" or "https://resolver.example"') from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok:
        raise WrongError(f"{shown(value)} is not a URL", '"http://[::1]:8080" or "https://resolver.example"')
    if parts.username or parts.password:
        raise WrongError("the URL carries a password", "the URL without it, and the secret in token_file")
    return octets.rstrip("/")


def probe(value: object) -> Probe:
    example = '{ protocol = "tcp", address = "192.0.2.7", port = 2641 }'
    if not isinstance(value, dict) or set(value) != {"protocol", "address", "port"}:
        raise WrongError(f"{shown(value)} is not a probe", example)
    protocol = choice(*PROBE_PROTOCOLS)(value["protocol"])
    port = whole(1, PORT_MAX)(value["port"])
    try:
        return Probe(protocol, parse_host(text(value["address"])), port)
    except WrongError:
        raise
    except ValueError as exc:
        raise WrongError(str(exc), example) from None
