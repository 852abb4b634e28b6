"""Rows of a generation's database: one column family, so that any flush writes position, records, digest and log together.

(A flush asked for through rocksdict writes one column family alone, even with atomic flush: after a crash the others would be
behind. With a single family there is nothing that could be behind.)

| key | value |
| --- | --- |
| 0x00 | the position row: boundary, applied index and term, totals |
| 0x00 0x00; 0x00 0x01 rest | records with an empty key; with a key that starts with 0x00 (only quarantined ones can) |
| 0x00 0x10 kind rest | rows of ours, see `Kind` |
| anything else | records as the source keyed them |

All numbers in keys are big-endian, so that memcmp order is their order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from replica.model.errors import Code, ZaibeiError
from replica.model.position import CHAIN_OCTETS, LINEAGE_OCTETS, ORIGIN, Position

ROW_FORMAT = 1
POSITION_KEY = b"\0"
_OURS = b"\0\x10"
ESCAPED_RECORDS = (b"\0\0", _OURS)  # key ranges that hold records: [from, to)
PLAIN_RECORDS = (b"\x01", b"\xff" * 4_100)  # above every key of at most 4,096 octets, and any kind octet is below 0x80

_POSITION = struct.Struct(f">B{LINEAGE_OCTETS}sQQ{CHAIN_OCTETS}sQQQ16s")
_OCTETS = struct.Struct(">BQ16sQQ")
_HISTORY = struct.Struct(f">{LINEAGE_OCTETS}s{CHAIN_OCTETS}sI")
_PLACE = struct.Struct(">QQ")
_NUMBER = struct.Struct(">Q")


class Kind:
    """Kinds of rows of ours: prefix of their key."""

    IDENTITY = _OURS + b"I"  # whose generation this is
    STATE = _OURS + b"S"  # what entries decided (state_row.py)
    BRAKE = _OURS + b"B"  # + u8 part: brake counters
    COUNT = _OURS + b"C"  # + prefix part: u64 live records
    PAGE = _OURS + b"P"  # + u8 level-1 bucket: its 256 digest sums
    DELTA = _OURS + b"D"  # + u64: changes of digest sums not yet in the pages
    QUARANTINE = _OURS + b"Q"  # + record key: reason
    LOG = _OURS + b"L"  # + u64 epoch, u64 seq after: a raw batch
    HISTORY = _OURS + b"H"  # + u64 epoch, u64 seq: lineage, chain, octets of the batch; kept longer than LOG
    LEDGER = _OURS + b"R"  # + u64 epoch, u64 seq of the common position, 16 octets of the line's ident: a ledger line
    SIDE_LOG = _OURS + b"X"  # + u64 index: an entry for the side generation
    AUDIT = _OURS + b"A"  # + u64 number: a record of the audit; without a number: its head (edge_audit.py)
    OCTETS = _OURS + b"O"  # octets of the records, see OctetsRow
    SIDE_HISTORY = _OURS + b"Y"  # + u64 epoch, u64 seq: boundaries of the side generation


@dataclass(frozen=True, slots=True)
class PositionRow:
    """The one row that says where everything else stands; in the same write as each change.

    Args:
        position: boundary of the content; index, term: last applied entry; records, total: of the content's digest.
    """

    position: Position = ORIGIN
    index: int = 0
    term: int = 0
    records: int = 0
    total: int = 0

    def pack(self) -> bytes:
        place = self.position
        total = self.total.to_bytes(16, "little")
        return _POSITION.pack(
            ROW_FORMAT, place.lineage, place.epoch, place.seq, place.chain, self.index, self.term, self.records, total
        )

    @staticmethod
    def unpack(octets: bytes) -> PositionRow:
        """Raises ZaibeiError(DAMAGED)."""
        if len(octets) != _POSITION.size or octets[0] != ROW_FORMAT:
            raise ZaibeiError(
                Code.DAMAGED, f"a position row of {len(octets)} octets, format {octets[:1].hex()}: we read format 1"
            )
        _, lineage, epoch, seq, chain, index, term, records, total = _POSITION.unpack(octets)
        return PositionRow(Position(lineage, epoch, seq, chain), index, term, records, int.from_bytes(total, "little"))


@dataclass(frozen=True, slots=True)
class OctetsRow:
    """How many octets the records have, keys and values together; written with each change of content.

    It names the content by records and total of its digest, so that a row left behind (by a version that knows no such row, or
    without one) is seen to be another content's, and counts for nothing.

    Args:
        octets: of all records; about: of the documents about a tenant among them.
    """

    octets: int = 0
    about: int = 0

    def pack(self, records: int, total: int) -> bytes:
        return _OCTETS.pack(ROW_FORMAT, records, total.to_bytes(16, "little"), self.octets, self.about)

    @staticmethod
    def of(octets: bytes | None, row: PositionRow) -> OctetsRow | None:
        """The row of this content. None: there is none, so it has to be counted."""
        if octets is None or len(octets) != _OCTETS.size or octets[0] != ROW_FORMAT:
            return None
        _, records, total, held, about = _OCTETS.unpack(octets)
        return OctetsRow(held, about) if (records, int.from_bytes(total, "little")) == (row.records, row.total) else None


def stored_key(key: bytes) -> bytes:
    """Where a record is stored; keeps the order of keys."""
    if key >= b"\x01":
        return key
    return b"\0\x01" + key[1:] if key else b"\0\0"


def record_key(stored: bytes) -> bytes:
    """Inverse of `stored_key`."""
    if stored >= b"\x01":
        return stored
    return b"" if stored == b"\0\0" else b"\0" + stored[2:]


def numbered(kind: bytes, number: int) -> bytes:
    """Key of a row with one number."""
    return kind + _NUMBER.pack(number)


def placed(kind: bytes, epoch: int, seq: int) -> bytes:
    """Key of a row at a place of the history."""
    return kind + _PLACE.pack(epoch, seq)


def number_of(key: bytes) -> int:
    return int(_NUMBER.unpack(key[-8:])[0])


def place_of(key: bytes) -> tuple[int, int]:
    epoch, seq = _PLACE.unpack(key[-16:])
    return epoch, seq


def after_kind(kind: bytes) -> bytes:
    """First key behind all rows of a kind."""
    return kind[:-1] + bytes((kind[-1] + 1,))


def history_row(position: Position, batch_octets: int) -> bytes:
    """Value of a HISTORY row; 0 octets: the boundary is no batch's end (start of an epoch, a snapshot's position)."""
    return _HISTORY.pack(position.lineage, position.chain, batch_octets)


def history_of(key: bytes, value: bytes) -> tuple[Position, int]:
    """Boundary and octets of its batch. Raises ZaibeiError(DAMAGED)."""
    if len(value) != _HISTORY.size:
        raise ZaibeiError(Code.DAMAGED, f"a history row of {len(value)} octets")
    lineage, chain, octets = _HISTORY.unpack(value)
    epoch, seq = place_of(key)
    return Position(lineage, epoch, seq, chain), octets


def count_row(count: int) -> bytes:
    return _NUMBER.pack(count)


def identity_row(source: str, generation: int) -> bytes:
    """Value of the IDENTITY row: a directory put in another's place is recognised."""
    return bytes((ROW_FORMAT,)) + _NUMBER.pack(generation) + source.encode()


def check_identity(octets: bytes | None, source: str, generation: int, where: str) -> None:
    """Raises ZaibeiError(DAMAGED): not this source's generation."""
    if octets != identity_row(source, generation):
        found = "nobody" if octets is None else f"{octets[9:].decode('utf-8', 'replace')!r}, generation {number_of(octets[:9])}"
        raise ZaibeiError(
            Code.DAMAGED,
            f"{where} belongs to {found}, not to {source!r}, generation {generation}: a directory was put in another's place",
        )
