"""The pure-Python backend: the same functions as `fast.py`, for machines without a C compiler and as its second opinion."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence

from replica.native.addresses import pack_address, unpack_full
from replica.native.contract import (
    ADMIN_READ,
    BUCKETS,
    CHANGE_OCTETS,
    FORMAT_PLAIN,
    FORMAT_SPELLED,
    KEY_OCTETS_MAX,
    KINDS,
    LEVEL1_BUCKETS,
    OP_DELETE,
    OP_PUT,
    PAYLOAD_OCTETS_MAX,
    PLAIN_TYPE_OCTETS_MAX,
    PUBLIC_READ,
    RECORD_OCTETS_MAX,
    RECORD_VALUES_MAX,
    SPELLING_OCTETS_MAX,
    SUM_OCTETS,
    SUMS_OCTETS,
    VALUE_OCTETS_MIN,
    Scan,
    base_type,
    batch_fault,
    bucket_of,
    check_query,
    record_hash,
)

_MODULUS = 1 << 128
_U32 = struct.Struct(">I")
_SUM = struct.Struct("<Q16s")
_CHANGE = struct.Struct("<Hi16s")
_VARINT_OCTETS_MAX = 4
_DOCUMENT = KINDS[-1]


def scan(payload: bytes, count_max: int) -> Scan:
    if len(payload) > PAYLOAD_OCTETS_MAX:
        raise batch_fault("payload_too_long", 0)
    keys, values, ops = _walk(payload, count_max)
    faults: list[tuple[int, str]] = []
    runs: list[tuple[bytes, int, int]] = []
    for number, (key, op, value) in enumerate(zip(keys, ops, values, strict=True)):
        code = _check_record(key, op, value)
        if code:
            faults.append((number, code))
        prefix, puts, deletes = key.split(b"\0", 1)[0], op == OP_PUT, op == OP_DELETE
        if runs and runs[-1][0] == prefix:
            runs[-1] = (prefix, runs[-1][1] + puts, runs[-1][2] + deletes)
        else:
            runs.append((prefix, int(puts), int(deletes)))
    return Scan(payload, len(keys), ops, faults, runs)


def _walk(payload: bytes, count_max: int) -> tuple[list[bytes], list[bytes], bytes]:
    columns: dict[int, list[bytes]] = {0x0A: [], 0x12: []}
    ops, ops_at, at, end = b"", -1, 0, len(payload)
    while at < end:
        start, tag = at, payload[at]
        if tag not in (0x0A, 0x12, 0x1A):
            raise batch_fault("unknown_field", start)
        length, at = _varint(payload, at + 1, start)
        if length > end - at:
            raise batch_fault("truncated", start)
        octets = payload[at : at + length]
        if tag == 0x1A:
            if ops_at >= 0:
                raise batch_fault("duplicate_ops", start)
            ops, ops_at = octets, at
        else:
            if len(columns[tag]) == count_max:
                raise batch_fault("too_many_records", start)
            columns[tag].append(octets)
        at += length
    keys, values = columns[0x0A], columns[0x12]
    if not len(keys) == len(values) == len(ops):
        raise batch_fault("counts_differ", end)
    for number, op in enumerate(ops):
        if op not in (OP_PUT, OP_DELETE):
            raise batch_fault("unknown_op", ops_at + number)
    return keys, values, ops


def _varint(payload: bytes, at: int, start: int) -> tuple[int, int]:
    number = 0
    for i in range(_VARINT_OCTETS_MAX):
        if at + i >= len(payload):
            raise batch_fault("truncated", start)
        octet = payload[at + i]
        number |= (octet & 0x7F) << (7 * i)
        if octet < 0x80:
            if i > 0 and octet == 0:
                break
            return number, at + i + 1
    raise batch_fault("bad_varint", start)


def _check_record(key: bytes, op: int, value: bytes) -> str | None:
    if not key:
        return "key_empty"
    if len(key) > KEY_OCTETS_MAX:
        return "key_too_long"
    if key[0] not in KINDS:
        return "unknown_kind"
    if op == OP_DELETE:
        return "delete_with_value" if value else None
    if len(value) > RECORD_OCTETS_MAX:
        return "value_too_long"
    if key[0] != _DOCUMENT:
        return _check_values(value)
    if not value:
        return "value_truncated"
    return None if value[0] == FORMAT_PLAIN else "unknown_format"


def _check_values(value: bytes) -> str | None:
    at = _values_start(value)
    if isinstance(at, str):
        return at
    (count,) = _U32.unpack_from(value, at)
    at, last = at + 4, -1
    for _ in range(count):
        octets = _value_octets(value, at)
        if not octets:
            return "value_truncated"
        (index,) = _U32.unpack_from(value, at)
        if index <= last:
            return "values_not_sorted"
        if value[at + 8] > 1:
            return "bad_ttl_type"
        last, at = index, at + octets
    return None if at == len(value) else "trailing_octets"


def _values_start(value: bytes) -> int | str:
    """Offset of the value count, or the fault."""
    if not value:
        return "value_truncated"
    if value[0] == FORMAT_PLAIN:
        at = 1
    elif value[0] == FORMAT_SPELLED:
        if len(value) < 3:
            return "value_truncated"
        spelling = int.from_bytes(value[1:3], "big")
        if spelling > SPELLING_OCTETS_MAX:
            return "spelling_too_long"
        at = 3 + spelling
    else:
        return "unknown_format"
    if len(value) < at + 4:
        return "value_truncated"
    return "too_many_values" if _U32.unpack_from(value, at)[0] > RECORD_VALUES_MAX else at


def _value_octets(record: bytes, start: int) -> int:
    """Octets of the Handle value record at `start`, 0 when it does not fit."""
    room = len(record) - start - VALUE_OCTETS_MIN
    if room < 0:
        return 0
    at = start + 14
    for _ in ("type", "data"):
        (length,) = _U32.unpack_from(record, at)
        if length > room:
            return 0
        room -= length
        at += 4 + length
    (references,) = _U32.unpack_from(record, at)
    at += 4
    if references > room // 8:
        return 0
    for _ in range(references):
        if room < 8:
            return 0
        (length,) = _U32.unpack_from(record, at)
        if length > room - 8:
            return 0
        room -= 8 + length
        at += 8 + length
    return at - start


def delta(
    keys: Sequence[bytes], ops: bytes, values: Sequence[bytes], olds: Sequence[bytes | None]
) -> tuple[bytes, int, int, int]:
    if not len(keys) == len(ops) == len(values) == len(olds):
        raise ValueError("keys, ops, values and olds differ in number")
    buckets: dict[int, tuple[int, int]] = {}
    octets = 0
    for key, op, value, old in zip(keys, ops, values, olds, strict=True):
        if op not in (OP_PUT, OP_DELETE):
            raise ValueError("an op is neither put nor delete")
        count, total = buckets.get(bucket_of(key), (0, 0))
        if op == OP_PUT:
            count, total = count + 1, total + int.from_bytes(record_hash(key, value), "little")
            octets += len(key) + len(value)
        if old is not None:
            count, total = count - 1, total - int.from_bytes(record_hash(key, old), "little")
            octets -= len(key) + len(old)
        buckets[bucket_of(key)] = (count, total)
    changed = [(bucket, count, total % _MODULUS) for bucket, (count, total) in sorted(buckets.items())]
    blob = b"".join(
        [_CHANGE.pack(bucket, count, total.to_bytes(16, "little")) for bucket, count, total in changed if count or total]
    )
    return blob, sum(count for _, count, _ in changed), sum(total for _, _, total in changed) % _MODULUS, octets


def apply_delta(sums: bytearray, blob: bytes) -> None:
    _check_sums(sums)
    if len(blob) % CHANGE_OCTETS:
        raise ValueError("a digest change is not a list of ascending buckets")
    last, written = -1, []
    for bucket, change, sum_change in _CHANGE.iter_unpack(blob):
        if bucket <= last:
            raise ValueError("a digest change is not a list of ascending buckets")
        count, total = _SUM.unpack_from(sums, bucket * SUM_OCTETS)
        if not 0 <= count + change < 1 << 64:
            raise ValueError("a digest change would take a bucket's count below zero")
        total = (int.from_bytes(total, "little") + int.from_bytes(sum_change, "little")) % _MODULUS
        written.append((bucket * SUM_OCTETS, count + change, total.to_bytes(16, "little")))
        last = bucket
    for offset, count, total in written:
        _SUM.pack_into(sums, offset, count, total)


def _check_sums(sums: bytearray | bytes) -> None:
    if len(sums) != SUMS_OCTETS:
        raise ValueError(f"digest sums are {SUMS_OCTETS} octets, not {len(sums)}")


def sum_all(sums: bytearray | bytes) -> tuple[int, int]:
    total = _fold(sums, 1)
    return int.from_bytes(total[:8], "little"), int.from_bytes(total[8:], "little")


def level1(sums: bytearray | bytes) -> bytes:
    return _fold(sums, LEVEL1_BUCKETS)


def _fold(sums: bytearray | bytes, groups: int) -> bytes:
    _check_sums(sums)
    pairs = list(_SUM.iter_unpack(sums))
    size = BUCKETS // groups
    out = []
    for start in range(0, BUCKETS, size):
        part = pairs[start : start + size]
        count = sum(pair[0] for pair in part) % (1 << 64)
        total = sum(int.from_bytes(pair[1], "little") for pair in part) % _MODULUS
        out.append(_SUM.pack(count, total.to_bytes(16, "little")))
    return b"".join(out)


def filter_values(record: bytes, indexes: tuple[int, ...], types: tuple[bytes, ...], public_only: bool) -> bytes | None:
    check_query(indexes, types)
    struct.pack(f"={len(indexes)}I", *indexes)  # the same refusal of a number that is no u32
    start = _values_start(record)
    if isinstance(start, str):
        return None
    needed = PUBLIC_READ if public_only else PUBLIC_READ | ADMIN_READ
    wanted = [base_type(name).upper() for name in types]
    (count,) = _U32.unpack_from(record, start)
    at, kept = start + 4, []
    for _ in range(count):
        octets = _value_octets(record, at)
        if not octets:
            return None
        if record[at + 13] & needed and _asked_for(record, at, indexes, wanted):
            kept.append(record[at : at + octets])
        at += octets
    if at != len(record):
        return None
    return record[start:] if len(kept) == count else b"".join((_U32.pack(len(kept)), *kept))


def plain(values: Sequence[bytes]) -> bytes:
    return bytes(map(_plain, values))


def _plain(values: bytes) -> bool:
    """See contract.py."""
    if len(values) < _U32.size or len(values) >= RECORD_OCTETS_MAX or _check_values(bytes((FORMAT_PLAIN,)) + values):
        return False
    (count,) = _U32.unpack_from(values)
    at = _U32.size
    for _ in range(count):
        kind = values[at + 18 : at + 18 + int.from_bytes(values[at + 14 : at + 18], "big")]
        data_at = at + 18 + len(kind)
        references_at = data_at + 4 + int.from_bytes(values[data_at : data_at + 4], "big")
        if not (1 <= len(kind) <= PLAIN_TYPE_OCTETS_MAX and kind.isascii()) or any(values[references_at : references_at + 4]):
            return False
        at = references_at + 4
    return bool(count)


def _asked_for(record: bytes, at: int, indexes: tuple[int, ...], wanted: list[bytes]) -> bool:
    if not indexes and not wanted:
        return True
    if _U32.unpack_from(record, at)[0] in indexes:
        return True
    name = record[at + 18 : at + 18 + _U32.unpack_from(record, at + 14)[0]].upper()
    return any(name == base or name.startswith(base + b".") for base in wanted)


class Datagrams:
    """See `fast.Datagrams`: the same, one system call a datagram. Works on a duplicate of the descriptor."""

    def __init__(self, fd: int, batch_max: int = 64, octets_max: int = 2048) -> None:
        if not 1 <= batch_max <= 1024 or not 1 <= octets_max <= 65_536:
            raise ValueError("batch_max is 1 to 1024, octets_max 1 to 65536")
        self._socket = socket.socket(fileno=os.dup(fd))
        self._batch_max, self._octets_max = batch_max, octets_max
        self.oversized = 0
        self.refused = 0

    def receive(self) -> list[tuple[bytes, bytes]]:
        got: list[tuple[bytes, bytes]] = []
        for _ in range(self._batch_max):
            try:
                octets, address = self._socket.recvfrom(self._octets_max + 1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if len(octets) > self._octets_max:
                self.oversized += 1
            else:
                got.append((octets, pack_address(*address)))
        return got

    def send(self, datagrams: Sequence[tuple[bytes, bytes]]) -> int:
        for number, (octets, address) in enumerate(datagrams):
            try:
                self._socket.sendto(octets, socket.MSG_DONTWAIT, unpack_full(address))
            except BlockingIOError:
                return number
            except ValueError:
                self.refused += 1
            except OSError as exc:
                if self._socket_is_bad(exc):
                    raise
                self.refused += 1
        return len(datagrams)

    @staticmethod
    def _socket_is_bad(error: OSError) -> bool:
        return error.errno in (errno.EBADF, errno.ENOTSOCK, errno.ENOTCONN)

    def close(self) -> None:
        """Let go of the duplicate; the caller's descriptor stays open. Later calls raise OSError."""
        self._socket.close()
