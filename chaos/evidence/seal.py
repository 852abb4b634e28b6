"""A bundle to octets and back: header, parts, and a seal that signs the SHA-256 of every octet before it. Pure.

line 1      header: format, version, algorithms, number, SHA-256 of the whole previous bundle
lines       what the drill left (bundle.py)
last line   seal: number of lines before it, SHA-256 over them, Ed25519 signature over DOMAIN + that digest's 32 octets
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chaos.evidence import canonical
from chaos.evidence.bundle import (
    BUNDLE_OCTETS_MAX,
    DIGEST,
    FIRST,
    FORMAT,
    LINES_MAX,
    SIGNATURE,
    SUITE,
    VERSION,
    Bundle,
    Header,
    Part,
    Seal,
    check,
)
from replica.model.errors import Code, ZaibeiError
from replica.model.signing import Signer, key_id

DOMAIN = b"zaibei-evidence-1\0"
EXPECTED = (FORMAT, VERSION, SUITE, SIGNATURE, DIGEST)
T = TypeVar("T")
_header = msgspec.json.Decoder(Header).decode
_part: Callable[[bytes], Part] = msgspec.json.Decoder(Part).decode
_seal = msgspec.json.Decoder(Seal).decode


def seal(parts: Sequence[Part], number: int, previous: str, signer: Signer) -> bytes:
    """A whole bundle.

    Args:
        number: its place in the chain, from 1.
        previous: SHA-256 over the bundle before it, hex; FIRST for the first one.
    Raises:
        ZaibeiError(MALFORMED): parts that are no whole drill, too many, or too long.
    """
    check(parts)
    key = key_id(signer.public).hex()
    body = b"".join(_line(one) for one in (Header(number, previous, key), *parts))
    digest = sha256(body).digest()
    signature = signer.private.sign(DOMAIN + digest).hex()
    whole = body + _line(Seal(len(parts) + 1, digest.hex(), key, signature))
    if len(whole) > BUNDLE_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a bundle of {len(whole)} octets, at most {BUNDLE_OCTETS_MAX}")
    if read(whole, signer.public).sha256 != sha256(whole).hexdigest():  # looked at twice: what is written can be read
        raise ZaibeiError(Code.VERIFICATION_FAILED, "the bundle that was made does not read back")
    return whole


def read(octets: bytes, public: bytes) -> Bundle:
    """A bundle that this key signed.

    Raises:
        ZaibeiError(VERIFICATION_FAILED): the first thing that is wrong, with its line.
    """
    if len(octets) > BUNDLE_OCTETS_MAX:
        raise _wrong(f"{len(octets)} octets, at most {BUNDLE_OCTETS_MAX}")
    lines = octets.splitlines(keepends=True)
    if not 2 <= len(lines) <= LINES_MAX or b"".join(lines) != octets or not octets.endswith(b"\n"):
        raise _wrong(f"{len(lines)} lines; a bundle has 2 to {LINES_MAX}, each with its end")
    for number, line in enumerate(lines, 1):
        try:
            canonical.decode(line)
        except ZaibeiError as exc:
            raise _wrong(f"line {number}: {exc.trouble.message}") from exc
    header, last = _read(_header, lines[0], 1), _read(_seal, lines[-1], len(lines))
    _check_seal(header, last, lines, public)
    parts = tuple(_read(_part, line, number) for number, line in enumerate(lines[1:-1], 2))
    try:
        check(parts)
    except ZaibeiError as exc:
        raise _wrong(exc.trouble.message) from exc
    return Bundle(header, parts, sha256(octets).hexdigest())


def _check_seal(header: Header, last: Seal, lines: Sequence[bytes], public: bytes) -> None:
    found = (header.format, header.version, header.suite, header.signature_algorithm, header.digest_algorithm)
    if found != EXPECTED:
        raise _wrong(f"format {found}; this reader knows {EXPECTED}")
    key = key_id(public).hex()
    if header.key_id != key or last.key_id != key:
        raise _wrong(f"signed by key {header.key_id[:16]}, not by the one that was given ({key[:16]})")
    if (header.number == 1) != (header.previous == FIRST):
        raise _wrong("only bundle 1 has none before it")
    digest = sha256(b"".join(lines[:-1])).digest()
    if last.lines != len(lines) - 1 or last.digest != digest.hex():
        raise _wrong("the lines are not those that were signed")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(last.signature), DOMAIN + digest)
    except (InvalidSignature, ValueError) as exc:
        raise _wrong("the signature is not this key's over these lines") from exc


def _line(value: msgspec.Struct) -> bytes:
    return canonical.encode(msgspec.to_builtins(value))


def _read(decoder: Callable[[bytes], T], line: bytes, number: int) -> T:
    try:
        return decoder(line)
    except msgspec.MsgspecError as exc:
        raise _wrong(f"line {number}: {exc}") from exc


def _wrong(why: str) -> ZaibeiError:
    return ZaibeiError(Code.VERIFICATION_FAILED, f"not a genuine bundle: {why}")
