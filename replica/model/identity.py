"""Who a process is and whom it trusts: certificates pinned by fingerprint; replica/model/trust.py sets a CA beside the pins.

A process has a TLS key (ECDSA P-256, what gRPC speaks) and a signing key (Ed25519, suite "std"); the certificate carries the
signing public key in a private extension, so that one fingerprint pins both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from replica.model.errors import Code, ZaibeiError

# Under the UUID arc (X.667), so that it needs no registration; non-critical, holds the 32 octets of the Ed25519 public key.
SIGNING_KEY_OID = x509.ObjectIdentifier("2.25.207533846253213347113279214087623718641")
TLS_NAME = "zaibei.internal"  # every certificate carries it; the pin, not the name, says who it is
FINGERPRINT_PREFIX = "sha256:"
CHAIN_CERTIFICATES_MAX = 8
ENDS_KEPT_MAX = 64  # certificates whose end is remembered


def fingerprint(certificate_pem: bytes) -> str:
    """`sha256:` and hex of the DER octets. Raises ZaibeiError(MALFORMED)."""
    return FINGERPRINT_PREFIX + sha256(_load(certificate_pem).public_bytes(Encoding.DER)).hexdigest()


def signing_key_of(certificate_pem: bytes) -> bytes:
    """The Ed25519 public key in the certificate, 32 octets. Raises ZaibeiError(MALFORMED)."""
    try:
        extension = _load(certificate_pem).extensions.get_extension_for_oid(SIGNING_KEY_OID)
    except x509.ExtensionNotFound:
        raise ZaibeiError(Code.MALFORMED, "the certificate carries no signing key: make it with zaibei") from None
    value = extension.value
    octets = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
    if len(octets) != 32:
        raise ZaibeiError(Code.MALFORMED, "the certificate's signing key is not 32 octets")
    return octets


def name_of(certificate_pem: bytes) -> str:
    """The common name: source, member or operator. Raises ZaibeiError(MALFORMED)."""
    names = _load(certificate_pem).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise ZaibeiError(Code.MALFORMED, "a certificate names exactly one common name")
    return str(names[0].value)


@lru_cache(maxsize=ENDS_KEPT_MAX)
def ends_s_of(certificate_pem: bytes) -> int:
    """Unix seconds at which the certificate ends; asked of the same few again and again. Raises ZaibeiError(MALFORMED)."""
    return int(_load(certificate_pem).not_valid_after_utc.timestamp())


def leaf_of(chain_pem: bytes) -> bytes:
    """The first certificate of a chain, as PEM. Raises ZaibeiError(MALFORMED)."""
    return _load(chain_pem).public_bytes(Encoding.PEM)


def _load(certificate_pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate_pem)
    except ValueError as exc:
        raise ZaibeiError(Code.MALFORMED, f"not a certificate: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer: pinned by its certificate, or only named because a CA says who it is.

    Args:
        name: source or member name; must equal the certificate's common name.
        certificate_pem: the certificate, pinned or as presented; empty: whatever certificate of this name the CA signed.
        prefixes: key parts of the prefixes this source may write (replica/model/identifier.py); empty for members.
        number, cluster: what a member's certificate says of it; 0 and empty otherwise.
        issuers_pem: certificates of CAs that came with it.
    """

    name: str
    certificate_pem: bytes
    prefixes: tuple[bytes, ...] = ()
    role: str = "source"
    number: int = 0
    cluster: bytes = b""
    issuers_pem: bytes = b""
    signing_key: bytes = field(init=False)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.certificate_pem:
            object.__setattr__(self, "signing_key", b"")
            object.__setattr__(self, "fingerprint", "")
            return
        if name_of(self.certificate_pem) != self.name:
            raise ZaibeiError(Code.MALFORMED, f"the certificate pinned for {self.name!r} names {name_of(self.certificate_pem)!r}")
        object.__setattr__(self, "signing_key", signing_key_of(self.certificate_pem))
        object.__setattr__(self, "fingerprint", fingerprint(self.certificate_pem))


class Trusts(Protocol):
    """Whom a process lets in. Satisfied by Pins, by Trust (replica/model/trust.py) and, with files that change, by LiveTrust."""

    def roots_pem(self) -> bytes:
        """What TLS may accept at all; `identify` then says who it is."""
        ...

    def identify(self, chain_pem: Sequence[bytes], now_s: float) -> Peer:
        """Who presented this chain, the leaf first, one PEM each or several in one.

        Raises:
            ZaibeiError(NOT_AUTHORISED): nobody who may come in; says why.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pins:
    """All peers a process trusts by their exact certificate, never by a name somebody states."""

    peers: tuple[Peer, ...] = ()

    def roots_pem(self) -> bytes:
        """What TLS may accept at all; `identify` then says who it is."""
        return b"".join(peer.certificate_pem for peer in self.peers)

    def by_certificate(self, certificate_pem: bytes) -> Peer | None:
        """The peer whose pinned certificate this is, octet for octet."""
        print_ = fingerprint(certificate_pem)
        return next((peer for peer in self.peers if peer.fingerprint == print_), None)

    def named(self, name: str, role: str) -> Peer | None:
        """The peer of this name in this role, pinned or not."""
        return next((peer for peer in self.peers if (peer.name, peer.role) == (name, role)), None)

    def identify(self, chain_pem: Sequence[bytes], now_s: float) -> Peer:
        """The pinned peer. Raises ZaibeiError(NOT_AUTHORISED)."""
        peer = self.by_certificate(chain_pem[0]) if chain_pem else None
        if peer is None:
            raise ZaibeiError(
                Code.NOT_AUTHORISED, "this certificate is not pinned here: add its fingerprint to the configuration"
            )
        if ends_s_of(peer.certificate_pem) <= now_s:
            raise ZaibeiError(Code.NOT_AUTHORISED, f"the certificate of {peer.name!r} has ended: it needs a new one")
        return peer
