"""Handle values, and stored records: what a resolution answers, in the octets in which it is kept.

value = u32 index | u32 timestamp (seconds) | u8 ttl type | u32 ttl | u8 permissions | string type | bytes data |
        u32 n, n x (string handle, u32 index)
stored record, format 1 = 0x01, or 0x81 and u16 length and the name's original spelling; then u32 n, n values, indexes ascending

Source: protocol 2.11 (HSv9) for the value (RFC 3651 §3.1 writes the timestamp in 8 octets, which nobody deploys); the
record is our own design, the value layout of `replica.native`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntFlag
from itertools import pairwise

from replica.model.handle.codes import HANDLE_OCTETS_MAX, TTL_S_DEFAULT, VALUES_MAX, ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault, within_u32
from replica.model.handle.wire import U32, Reader

_HEAD = struct.Struct(">IIBIBI")  # up to and with the length of the type
VALUE_OCTETS_MIN = 26
REFERENCE_OCTETS_MIN = 8
_NO_REFERENCES = U32.pack(0)
RECORD_OCTETS_MAX = 252 * 1024
FORMAT_PLAIN = 0x01
FORMAT_SPELLED = 0x81
TTL_RELATIVE = 0
TTL_ABSOLUTE = 1


class Permission(IntFlag):
    PUBLIC_WRITE = 0x01
    PUBLIC_READ = 0x02
    ADMIN_WRITE = 0x04
    ADMIN_READ = 0x08


PERMISSIONS_DEFAULT = 0x0E
READABLE = Permission.ADMIN_READ | Permission.PUBLIC_READ


@dataclass(frozen=True, slots=True)
class Reference:
    """A value of another handle: its name as spelled, and the value's index (0 in HS_ADMIN: any)."""

    handle: bytes
    index: int

    def __post_init__(self) -> None:
        within_u32("an index", self.index)


@dataclass(frozen=True, slots=True)
class HandleValue:
    """One typed value of an identifier.

    Args:
        index: 0 to 2^32-1, unique in its record.
        type: UTF-8, compared without ASCII case.
        data: any octets.
        ttl_type: TTL_RELATIVE (ttl is seconds; 0 = do not cache) or TTL_ABSOLUTE (ttl is a Unix time).
        ttl: see ttl_type.
        permissions: Permission bits.
        timestamp: Unix seconds of the last change.
        references: as given by the owner, usually none.
    """

    index: int
    type: bytes
    data: bytes
    ttl_type: int = TTL_RELATIVE
    ttl: int = TTL_S_DEFAULT
    permissions: int = PERMISSIONS_DEFAULT
    timestamp: int = 0
    references: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        within_u32("an index", self.index)
        within_u32("a ttl", self.ttl)
        within_u32("a timestamp", self.timestamp)
        if not (0 <= self.ttl_type <= 255 and 0 <= self.permissions <= 255):
            raise CodecMisuse(f"ttl type and permissions are octets, not {self.ttl_type} and {self.permissions}")

    @property
    def public(self) -> bool:
        return bool(self.permissions & Permission.PUBLIC_READ)


Content = frozenset[tuple[int, bytes, bytes]]


def content_of(values: Iterable[HandleValue]) -> Content:
    """What two answers must have in common: index, type and data of the values that anybody may read."""
    return frozenset((value.index, value.type, value.data) for value in values if value.public)


def type_matches(wanted: bytes, found: bytes) -> bool:
    """True for the type itself and its subtypes: `URL` and `URL.` match URL, url and URL.CN, not URLX."""
    base, folded = wanted.removesuffix(b".").upper(), found.upper()
    return folded == base or folded.startswith(base + b".")


def encode_value(value: HandleValue) -> bytes:
    """Wire octets of one value."""
    kind, data = value.type, value.data
    head = _HEAD.pack(value.index, value.timestamp, value.ttl_type, value.ttl, value.permissions, len(kind))
    if not value.references:
        return b"".join((head, kind, U32.pack(len(data)), data, _NO_REFERENCES))
    parts = [head, kind, U32.pack(len(data)), data, U32.pack(len(value.references))]
    for reference in value.references:
        parts += (U32.pack(len(reference.handle)), reference.handle, U32.pack(reference.index))
    return b"".join(parts)


def encode_values(values: Sequence[HandleValue]) -> bytes:
    """u32 count and the values, in the order given. Raises CodecMisuse over 2,048."""
    if len(values) > VALUES_MAX:
        raise CodecMisuse(f"a message holds at most {VALUES_MAX} values, not {len(values)}")
    return b"".join((U32.pack(len(values)), *map(encode_value, values)))


def read_value(reader: Reader) -> HandleValue:
    """The next value. Raises ProtocolFault."""
    index, timestamp, ttl_type, ttl, permissions, length = _HEAD.unpack(reader.take(_HEAD.size))
    kind, data = reader.take(length), reader.string()
    if ttl_type not in (TTL_RELATIVE, TTL_ABSOLUTE):
        raise reader.fault(f"ttl type {ttl_type} is neither 0 nor 1")
    count = reader.count(VALUES_MAX, REFERENCE_OCTETS_MIN)
    references = tuple([Reference(reader.string(), reader.u32()) for _ in range(count)])
    return HandleValue(index, kind, data, ttl_type, ttl, permissions, timestamp, references)


def read_values(reader: Reader) -> tuple[HandleValue, ...]:
    """u32 count and the values. Raises ProtocolFault."""
    return tuple([read_value(reader) for _ in range(reader.count(VALUES_MAX, VALUE_OCTETS_MIN))])


def decode_value(octets: bytes) -> HandleValue:
    """Exactly one value. Raises ProtocolFault(INVALID_VALUE)."""
    reader = Reader(octets, code=ResponseCode.INVALID_VALUE)
    value = read_value(reader)
    reader.done()
    return value


def decode_values(octets: bytes) -> tuple[HandleValue, ...]:
    """u32 count and exactly that many values. Raises ProtocolFault(INVALID_VALUE)."""
    reader = Reader(octets, code=ResponseCode.INVALID_VALUE)
    values = read_values(reader)
    reader.done()
    return values


@dataclass(frozen=True, slots=True)
class HandleRecord:
    """A stored record: values by index, and the name as its owner spelled it, where folding changed it."""

    values: tuple[HandleValue, ...]
    spelling: bytes | None = None

    def find(self, kind: bytes) -> tuple[HandleValue, ...]:
        """Values of a type and its subtypes."""
        return tuple([value for value in self.values if type_matches(kind, value.type)])


def encode_record(values: Iterable[HandleValue], spelling: bytes | None = None) -> bytes:
    """A stored record in format 1; the values are sorted by index.

    Args:
        values: 0 to 2,048, indexes unique.
        spelling: the name as written, when the key does not show it any more.
    Raises:
        CodecMisuse: an index twice, or a limit passed (252 KiB a record).
    """
    ordered = sorted(values, key=lambda value: value.index)
    for one, other in pairwise(ordered):
        if one.index == other.index:
            raise CodecMisuse(f"index {one.index} comes twice")
    for value in ordered:
        if value.ttl_type not in (TTL_RELATIVE, TTL_ABSOLUTE):
            raise CodecMisuse(f"ttl type {value.ttl_type} is neither 0 nor 1")
    octets = record_head(spelling) + encode_values(ordered)
    if len(octets) > RECORD_OCTETS_MAX:
        raise CodecMisuse(f"a record holds at most {RECORD_OCTETS_MAX} octets, not {len(octets)}")
    return octets


def record_head(spelling: bytes | None) -> bytes:
    """What comes before the values of a stored record. Raises CodecMisuse."""
    if spelling is None:
        return bytes((FORMAT_PLAIN,))
    if len(spelling) > HANDLE_OCTETS_MAX:
        raise CodecMisuse(f"a name has at most {HANDLE_OCTETS_MAX} octets, not {len(spelling)}")
    return bytes((FORMAT_SPELLED,)) + len(spelling).to_bytes(2, "big") + spelling


def decode_record(record: bytes) -> HandleRecord:
    """A stored record. Raises ProtocolFault(INVALID_VALUE): not one, or indexes out of order."""
    reader = Reader(record, code=ResponseCode.INVALID_VALUE)
    form = reader.u8()
    if form not in (FORMAT_PLAIN, FORMAT_SPELLED):
        raise ProtocolFault(f"a record of format {form:#04x}: we read 0x01 and 0x81", ResponseCode.INVALID_VALUE)
    spelling = reader.take(reader.u16()) if form == FORMAT_SPELLED else None
    values = read_values(reader)
    reader.done()
    if any(one.index >= other.index for one, other in pairwise(values)):
        raise ProtocolFault("the values of a record are not in the order of their indexes", ResponseCode.INVALID_VALUE)
    return HandleRecord(values, spelling)


def spelling_of(record: bytes) -> bytes | None:
    """The original spelling in a stored record, without decoding the rest; None when there is none."""
    if record[:1] != b"\x81":
        return None
    return record[3 : 3 + int.from_bytes(record[1:3], "big")]
