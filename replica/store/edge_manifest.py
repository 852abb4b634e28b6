"""The manifest of a loaded generation: what was verified, and the SHA-256 of every file as it was then."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path

import msgspec

from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.store.edge_disk import disk_error, write_durable

MANIFEST = "LOAD"
MANIFEST_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Load:
    """A finished load.

    Args:
        begun: index of its LoadBegin entry: tells two loads of one number apart.
        position: boundary as text; total: hex; ordered: SHA-256 over the parts' columns in order, hex.
        files: name -> (octets, SHA-256 in hex).
    """

    format: int
    source: str
    generation: int
    begun: int
    position: str
    records: int
    total: str
    ordered: str
    quarantined: int
    parts: int
    files: dict[str, tuple[int, str]]

    @property
    def digest(self) -> ContentDigest:
        return ContentDigest(Position.parse(self.position), self.records, int(self.total, 16))

    @property
    def sha256(self) -> bytes:
        """Of its octets: what members say they staged."""
        return sha256(msgspec.json.encode(self)).digest()


_decode = msgspec.json.Decoder(Load).decode  # made once: see state_row.py


def describe_files(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file that belongs to the database. Raises OSError."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".sst", ".blob") or path.name == "CURRENT" or path.name.startswith("MANIFEST-"):
            with path.open("rb") as octets:
                found[path.name] = (path.stat().st_size, file_digest(octets, "sha256").hexdigest())
    return found


def write_load(folder: Path, load: Load) -> bytes:
    """Write the manifest durably; returns its octets. Raises ZaibeiError."""
    octets = msgspec.json.encode(load)
    write_durable(folder / MANIFEST, octets)
    return octets


def read_load(folder: Path) -> Load | None:
    """None: there is none. Raises ZaibeiError(DAMAGED)."""
    try:
        octets = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise disk_error(exc, f"reading {folder / MANIFEST}") from exc
    try:
        return _decode(octets)
    except msgspec.DecodeError as exc:
        raise ZaibeiError(Code.DAMAGED, f"{folder / MANIFEST} does not parse ({exc}): abort this load") from exc


def check_files(folder: Path, load: Load, *, hashes: bool = False) -> None:
    """Are the files those that were verified? Sizes always, contents where asked (RocksDB checks each block it reads).

    Raises:
        ZaibeiError(DAMAGED): names the first file that is not.
    """
    for name, (octets, sha) in load.files.items():
        path = folder / name
        if not path.exists() or path.stat().st_size != octets:
            raise ZaibeiError(Code.DAMAGED, f"{path} is missing or has another length than {octets}: abort this load")
        if hashes:
            with path.open("rb") as content:
                if file_digest(content, "sha256").hexdigest() != sha:
                    raise ZaibeiError(Code.DAMAGED, f"{path} has another content than was verified: abort this load")
