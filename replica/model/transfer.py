"""What a transfer between members carries: a manifest of files, each with its length and SHA-256, as canonical octets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

import msgspec

from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position

MANIFEST_FORMAT = 1
MANIFEST_OCTETS_MAX = 3 * 1024 * 1024  # with its envelope below what gRPC takes unless told otherwise
FILES_MAX = 20_000
FILE_OCTETS_MAX = 1 << 40
KEPT_MANIFEST = "TRANSFER"  # name under which a receiver keeps the manifest beside the files
PART_SUFFIX = ".part"  # of a file that is not complete
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TOTAL = re.compile(r"0|[1-9a-f][0-9a-f]{0,31}", re.ASCII)


class TransferKind(StrEnum):
    """What the files are."""

    CHECKPOINT = "checkpoint"  # of a live generation, at one applied entry
    GENERATION = "generation"  # loaded beside, not yet switched to


@dataclass(frozen=True, slots=True)
class FileLine:
    """One file: its name (no folder), length in octets, SHA-256 in hex."""

    name: str
    octets: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of one checkpoint or generation.

    Args:
        generation: its number. begun: index of the LoadBegin entry of a generation; 0 of a checkpoint.
        index, term: last entry applied in it.
        position, records, total: digest of its content: boundary as text, count, sum in hex.
        files: by name, ascending.
    """

    format: int
    kind: TransferKind
    source: str
    generation: int
    begun: int
    index: int
    term: int
    position: str
    records: int
    total: str
    files: tuple[FileLine, ...]

    @property
    def octets(self) -> int:
        """Of all files together."""
        return sum(line.octets for line in self.files)

    @property
    def digest(self) -> ContentDigest:
        return ContentDigest(Position.parse(self.position), self.records, int(self.total, 16))

    def encode(self) -> bytes:
        """Canonical octets: the same manifest always gives the same ones."""
        return msgspec.json.encode(self)

    @property
    def sha256(self) -> bytes:
        return sha256(self.encode()).digest()


_decode = msgspec.json.Decoder(Manifest).decode  # made once, as in replica/store/state_row.py: members fetch side by side


def make_manifest(
    kind: TransferKind,
    source: str,
    generation: int,
    begun: int,
    entry: tuple[int, int],
    digest: ContentDigest,
    files: Sequence[FileLine],
) -> Manifest:
    """The manifest of files just described. Raises ZaibeiError(MALFORMED): more than may be carried."""
    index, term = entry
    ordered = tuple(sorted(files, key=lambda line: line.name))
    made = Manifest(
        MANIFEST_FORMAT, kind, source, generation, begun, index, term,
        str(digest.position), digest.records, f"{digest.total:x}", ordered,
    )  # fmt: skip
    _check(made, len(made.encode()))
    return made


def open_manifest(octets: bytes, stated_sha256: bytes | None = None) -> Manifest:
    """A manifest from elsewhere, checked: its hash, its limits, every name, and that nothing is in it that we would not write.

    Raises:
        ZaibeiError(MALFORMED): the sender's fault; says what.
    """
    if len(octets) > MANIFEST_OCTETS_MAX:
        raise _malformed(f"{len(octets)} octets, at most {MANIFEST_OCTETS_MAX}")
    if stated_sha256 is not None and sha256(octets).digest() != stated_sha256:
        raise _malformed("its octets are not those its SHA-256 was made of")
    try:
        found = _decode(octets)
    except msgspec.DecodeError as exc:
        raise _malformed(str(exc)) from exc
    if found.format != MANIFEST_FORMAT:
        raise _malformed(f"format {found.format}, we read {MANIFEST_FORMAT}")
    if found.encode() != octets:
        raise _malformed("it is not in the canonical form")
    _check(found, len(octets))
    return found


def _check(manifest: Manifest, octets: int) -> None:
    if octets > MANIFEST_OCTETS_MAX or not 0 < len(manifest.files) <= FILES_MAX:
        raise _malformed(f"{len(manifest.files)} files in {octets} octets; at most {FILES_MAX} and {MANIFEST_OCTETS_MAX}")
    if min(manifest.generation, manifest.begun, manifest.index, manifest.term, manifest.records) < 0:
        raise _malformed("a number below 0")
    names = [line.name for line in manifest.files]
    if names != sorted(set(names)):
        raise _malformed("its files are not in order, or one is named twice")
    for line in manifest.files:
        check_name(line.name)
        if not 0 <= line.octets <= FILE_OCTETS_MAX or _HASH.fullmatch(line.sha256) is None:
            raise _malformed(f"{line.name} has {line.octets} octets and hash {line.sha256[:80]!r}")
    if _TOTAL.fullmatch(manifest.total) is None or str(Position.parse(manifest.position)) != manifest.position:
        raise _malformed(f"its digest is {manifest.total[:80]!r} at {manifest.position[:120]!r}")


def check_name(name: str) -> None:
    """Raises ZaibeiError(MALFORMED): not a plain file name, or one we keep for ourselves."""
    if _NAME.fullmatch(name) is None or name == KEPT_MANIFEST or name.endswith(PART_SUFFIX):
        raise _malformed(f"file name {name[:100]!r}")


def _malformed(why: str) -> ZaibeiError:
    return ZaibeiError(Code.MALFORMED, f"a transfer's manifest: {why}; the sending member's fault, nothing was taken")
