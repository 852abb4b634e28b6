"""What both backends of the native module share: formats, limits, fault names, results.

Columns payload: serialized `message Columns { repeated bytes keys = 1; repeated bytes values = 2; bytes ops = 3; }`.
Key: first octet names the kind (`KINDS`), the *prefix part* is everything before the first 0x00.
Value of an identifier or route record, format 1: 0x01, or 0x81 + u16 length + the name as it was spelled; then u32 n and n
Handle value records (4+4+1+4+1 octets, type, data, references; lengths u32, big-endian), indexes strictly ascending.
Value of a business document: 0x01 and JSON octets.

Plain values are u32 n and n Handle value records, 1 to 2,048 of them and within a record's octets, that stand in a stored
record as they are: indexes strictly ascending, types of 1 to 255 ASCII octets, ttl types 0 or 1, no references. Others may be
good too: they are looked at one by one.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

OP_PUT = 1
OP_DELETE = 2
KINDS = b"hoegdpb"
PAYLOAD_OCTETS_MAX = 16 * 1024 * 1024
KEY_OCTETS_MAX = 4_096
RECORD_OCTETS_MAX = 252 * 1024
RECORD_VALUES_MAX = 2_048
SPELLING_OCTETS_MAX = 2_048
QUERY_ITEMS_MAX = 2_048  # indexes, and types, of one question: bounds the work of one filter call
FORMAT_PLAIN = 0x01
FORMAT_SPELLED = 0x81
VALUE_OCTETS_MIN = 26
PLAIN_TYPE_OCTETS_MAX = 255
PUBLIC_READ = 0x02
ADMIN_READ = 0x08

BUCKETS = 65_536
SUM_OCTETS = 24  # u64le count, u128le sum
SUMS_OCTETS = BUCKETS * SUM_OCTETS
CHANGE_OCTETS = 22  # u16le bucket, i32le count change, u128le sum change
LEVEL1_BUCKETS = 256

# The C enums in csrc/records.c have the same order, starting at 1.
BATCH_FAULTS = (
    "unknown_field",
    "bad_varint",
    "truncated",
    "duplicate_ops",
    "counts_differ",
    "too_many_records",
    "unknown_op",
    "payload_too_long",
)
RECORD_FAULTS = (
    "key_empty",
    "key_too_long",
    "unknown_kind",
    "delete_with_value",
    "value_too_long",
    "unknown_format",
    "value_truncated",
    "too_many_values",
    "values_not_sorted",
    "bad_ttl_type",
    "trailing_octets",
    "spelling_too_long",
)


class ColumnsFault(ValueError):
    """A Columns payload is malformed as a whole: no record in it can be trusted.

    Args:
        code: one of BATCH_FAULTS.
        detail: for a person, with the octet where reading stopped.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def batch_fault(code: str, where: int) -> ColumnsFault:
    return ColumnsFault(code, f"reading stopped at octet {where}")


@dataclass(frozen=True)
class Scan:
    """A validated payload.

    Args:
        payload: as given.
        count: records.
        ops: one octet a record, OP_PUT or OP_DELETE.
        faults: (record number, one of RECORD_FAULTS), ascending, at most one a record; all other records are fine.
        runs: (prefix part, puts, deletes) of each maximal run of neighbours with the same prefix part; bad records count too.
    """

    payload: bytes
    count: int
    ops: bytes
    faults: list[tuple[int, str]]
    runs: list[tuple[bytes, int, int]]

    @cached_property
    def _columns(self) -> tuple[list[bytes], list[bytes], bytes]:
        return split(self.payload)

    @property
    def keys(self) -> list[bytes]:
        return self._columns[0]

    @property
    def values(self) -> list[bytes]:
        return self._columns[1]


def _columns_parser() -> Callable[[bytes], Message]:
    """The parser of a message made here, so that this room needs no generated code."""
    file = descriptor_pb2.FileDescriptorProto(name="columns.proto", syntax="proto3")
    message = file.message_type.add(name="Columns")
    bytes_type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
    repeated, optional = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED, descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    for number, (name, label) in enumerate((("keys", repeated), ("values", repeated), ("ops", optional)), 1):
        message.field.add(name=name, number=number, label=label, type=bytes_type)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Columns")).FromString


_parse_columns = _columns_parser()


def split(payload: bytes) -> tuple[list[bytes], list[bytes], bytes]:
    """Keys, values and ops of a payload that was validated before; protobuf's own parser is the fastest way (50 ns a record).

    Raises:
        ColumnsFault: it does not parse at all. Other faults of an unvalidated payload go unnoticed.
    """
    try:
        message = _parse_columns(payload)
    except DecodeError as exc:
        raise ColumnsFault("truncated", str(exc)) from exc
    return message.keys[:], message.values[:], message.ops  # type: ignore[attr-defined]


def record_hash(key: bytes, value: bytes) -> bytes:
    """16 octets of a record for the digest, a little-endian number where it is summed. A single one is fastest with hashlib."""
    return hashlib.sha256(b"".join((len(key).to_bytes(4, "big"), key, value))).digest()[:16]


def bucket_of(key: bytes) -> int:
    """Digest bucket of a key, 0..65535."""
    return zlib.crc32(key) >> 16


def check_query(indexes: tuple[int, ...], types: tuple[bytes, ...]) -> None:
    """Raises ValueError when a question of `filter_values` is over QUERY_ITEMS_MAX."""
    if len(indexes) > QUERY_ITEMS_MAX or len(types) > QUERY_ITEMS_MAX:
        raise ValueError(f"a question names at most {QUERY_ITEMS_MAX} indexes and {QUERY_ITEMS_MAX} types")


def base_type(wanted: bytes) -> bytes:
    """A wanted type without its final dot: `URL` and `URL.` both name the subtree of URL, URL included."""
    return wanted[:-1] if wanted.endswith(b".") else wanted
