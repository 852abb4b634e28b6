"""The synthetic registry as a file: snapshot parts in key order, so that any number of its first parts is a whole snapshot.

Made once a run (about 10 µs a record) and shared by every process that needs it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ops.bench.synthetic import columns, record, serial
from replica import native
from replica.model.digest import MODULUS, ContentDigest
from replica.model.position import Position
from replica.v1 import source_pb2

PART_RECORDS = 1_000
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Material:
    """A material on disk.

    Args:
        path: of the parts: u32 length and octets each.
        totals: digest sum after each part; hashes: ordered SHA-256 after each part.
    """

    path: Path
    totals: tuple[int, ...]
    hashes: tuple[str, ...]

    @property
    def records(self) -> int:
        return len(self.totals) * PART_RECORDS

    def parts(self, records: int) -> Iterator[bytes]:
        """The first parts, together that many records."""
        with self.path.open("rb") as source:
            for _ in range(records // PART_RECORDS):
                (length,) = _LENGTH.unpack(source.read(_LENGTH.size))
                yield source.read(length)

    def end(self, records: int, position: Position) -> source_pb2.SnapshotEnd:
        """What a source states at the end of a snapshot of that many records; not signed."""
        parts = records // PART_RECORDS
        digest = ContentDigest(position, records, self.totals[parts - 1])
        return source_pb2.SnapshotEnd(parts=parts, digest=digest.to_wire(), ordered_hash=bytes.fromhex(self.hashes[parts - 1]))

    def keys(self, records: int) -> list[bytes]:
        """Keys of the first records."""
        return [key for part in self.parts(records) for key in native.split(part)[0]]


def make_material(path: Path, records: int, tell: Callable[[int, int], None]) -> Material:
    """Write a material; `tell(done, total)` is called as it grows. `records` is a multiple of PART_RECORDS."""
    numbers = sorted(range(records), key=serial)
    totals: list[int] = []
    hashes: list[str] = []
    total, ordered = 0, sha256()
    with path.open("wb") as out:
        for first in range(0, records, PART_RECORDS):
            pairs = [record(number) for number in numbers[first : first + PART_RECORDS]]
            part = columns(pairs)
            _, _, added, _ = native.delta([k for k, _ in pairs], b"\x01" * len(pairs), [v for _, v in pairs], [None] * len(pairs))
            total = (total + added) % MODULUS
            ordered.update(part)
            totals.append(total)
            hashes.append(ordered.hexdigest())
            out.write(_LENGTH.pack(len(part)))
            out.write(part)
            tell(first + len(pairs), records)
    path.with_suffix(".json").write_text(json.dumps({"totals": [f"{one:x}" for one in totals], "hashes": hashes}))
    return Material(path, tuple(totals), tuple(hashes))


def open_material(path: Path) -> Material:
    """Open what another process made."""
    found = json.loads(path.with_suffix(".json").read_text())
    return Material(path, tuple(int(one, 16) for one in found["totals"]), tuple(found["hashes"]))
