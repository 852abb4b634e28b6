"""Signatures of suite "std" (Ed25519) over canonical octets, and the octets for each thing we sign.

Canonical octets = a domain string, then length-prefixed fields (u32 big-endian length, octets): no field can run into the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from replica.model.digest import ContentDigest
from replica.model.position import Position
from replica.v1 import position_pb2

SUITE = "std"


def canonical(domain: str, *fields: bytes | str | int) -> bytes:
    """Length-prefixed fields behind a domain; numbers as u64 big-endian."""
    out = [domain.encode() + b"\0"]
    for value in fields:
        octets = value.to_bytes(8, "big") if isinstance(value, int) else value.encode() if isinstance(value, str) else value
        out.append(len(octets).to_bytes(4, "big"))
        out.append(octets)
    return b"".join(out)


def receipt_octets(source: str, shard: int, position: Position, level: int, member: str, stated_ms: int) -> bytes:
    return canonical("zaibei-receipt-1", source, shard, str(position), level, member, stated_ms)


def certificate_octets(source: str, shard: int, digest: ContentDigest, stated_ms: int) -> bytes:
    return canonical(
        "zaibei-certificate-1",
        source,
        shard,
        str(digest.position),
        digest.records,
        digest.total.to_bytes(16, "little"),
        stated_ms,
    )


def grant_octets(source: str, parent: Position, start: Position, reason: str, holder: str) -> bytes:
    return canonical("zaibei-grant-1", source, str(parent), str(start), reason, holder)


def snapshot_octets(source: str, digest: ContentDigest, parts: int, ordered_hash: bytes) -> bytes:
    return canonical(
        "zaibei-snapshot-1",
        source,
        str(digest.position),
        digest.records,
        digest.total.to_bytes(16, "little"),
        parts,
        ordered_hash,
    )


def key_id(public: bytes) -> bytes:
    """SHA-256 of the raw public key, 32 octets."""
    return sha256(public).digest()


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with one private key; never shows it."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """Raw public key, 32 octets."""
        return self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, octets: bytes) -> position_pb2.Signature:
        return position_pb2.Signature(suite=SUITE, key_id=key_id(self.public), signature=self.private.sign(octets))

    def __repr__(self) -> str:
        return f"Signer({key_id(self.public).hex()[:16]})"


def verify(public: bytes, octets: bytes, signature: position_pb2.Signature) -> bool:
    """True when `signature` is this key's over these octets. Anything odd is False, never an exception."""
    if signature.suite != SUITE or signature.key_id != key_id(public):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature.signature, octets)
    except (InvalidSignature, ValueError):
        return False
    return True
