"""A sealed file: lines that a member wrote out and signed, so that a stranger can check them without us. Pure.

Lines, UTF-8: first a JSON object `{"head": …}` with format, algorithm, suite and what the file is about; then the content, a line
each; last a JSON object `{"seal": …}` with the number of content lines, SHA-256 over all octets before that line, the member's
certificate, and its signature over
    canonical("zaibei-sealed-1", format, member, SHA-256)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from replica.model.errors import Code, ZaibeiError
from replica.model.signing import SUITE, Signer, canonical, key_id, verify
from replica.v1 import position_pb2

ALGORITHM = "sha256"
FILE_OCTETS_MAX = 512 * 1024 * 1024
_CHUNK_LINES = 1_000


@dataclass(frozen=True, slots=True)
class Seal:
    """Who signed a file, and what the signature covers."""

    octets: bytes
    signature: position_pb2.Signature
    chain_pem: bytes

    def by(self, public: bytes) -> bool:
        """True when this key signed it."""
        return verify(public, self.octets, self.signature)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file as it was read. `broken`: why its octets are not those that were sealed; empty: they are."""

    head: Mapping[str, Any]
    lines: list[bytes]
    seal: Seal | None
    broken: str = ""

    @property
    def member(self) -> str:
        return str(self.head.get("member", ""))


def sealed_octets(form: str, member: str, digest: bytes) -> bytes:
    return canonical("zaibei-sealed-1", form, member, digest)


def write_sealed(
    form: str, member: str, about: Mapping[str, Any], lines: Iterable[bytes], signer: Signer, chain_pem: bytes
) -> Iterator[bytes]:
    """The file's octets, in pieces.

    Args:
        form: names the format and its version; about: further fields of the head.
        lines: without their line ends, and with none inside.
    """
    hashed, count = sha256(), 0
    head = {**about, "format": form, "algorithm": ALGORITHM, "suite": SUITE, "member": member}
    waiting = [json.dumps({"head": head}, sort_keys=True).encode()]
    for line in lines:
        waiting.append(line)
        count += 1
        if len(waiting) >= _CHUNK_LINES:
            piece = b"\n".join(waiting) + b"\n"
            hashed.update(piece)
            yield piece
            waiting = []
    if waiting:
        piece = b"\n".join(waiting) + b"\n"
        hashed.update(piece)
        yield piece
    signature = signer.sign(sealed_octets(form, member, hashed.digest()))
    seal = {
        "lines": count,
        "sha256": hashed.hexdigest(),
        "signature": signature.signature.hex(),
        "key_id": key_id(signer.public).hex(),
        "certificate": chain_pem.decode(),
    }
    yield json.dumps({"seal": seal}, sort_keys=True).encode() + b"\n"


def read_sealed(octets: bytes, form: str) -> Sealed:
    """Read a file as a whole; whether its signer counts is the caller's to judge, and so is `broken`.

    Raises:
        ZaibeiError(MALFORMED): not such a file, or another version's.
    """
    if len(octets) > FILE_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a file of {len(octets)} octets is over {FILE_OCTETS_MAX}")
    body, newline, last = octets.removesuffix(b"\n").rpartition(b"\n")
    first, *lines = (body if newline else octets).split(b"\n")
    head = _object(first, "head")
    if head is None or (head.get("format"), head.get("algorithm"), head.get("suite")) != (form, ALGORITHM, SUITE):
        found = "no head" if head is None else f"format {head.get('format')!r}, algorithm {head.get('algorithm')!r}"
        raise ZaibeiError(Code.MALFORMED, f"not a file of format {form}: it has {found}")
    seal = _object(last, "seal")
    if seal is None:
        kept = [line for line in [*lines, last] if line]
        return Sealed(head, kept, None, "its end is missing: it was cut, or never sealed")
    digest = sha256(body + b"\n").digest()
    member = str(head.get("member", ""))
    try:
        whole = digest.hex() == seal["sha256"] and len(lines) == seal["lines"]
        signature = position_pb2.Signature(
            suite=SUITE, key_id=bytes.fromhex(seal["key_id"]), signature=bytes.fromhex(seal["signature"])
        )
        found_seal = Seal(sealed_octets(form, member, digest), signature, str(seal["certificate"]).encode())
    except (KeyError, TypeError, ValueError) as exc:
        return Sealed(head, lines, None, f"its seal cannot be read: {exc}")
    return Sealed(head, lines, found_seal, "" if whole else "it was changed or cut after it was sealed")


def _object(line: bytes, name: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)[name]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None
