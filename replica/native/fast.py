"""The C backend: thin calls into the cffi module. Same functions, results and errors as `twin.py`."""

from __future__ import annotations

import errno
import os
import struct
import threading
from array import array
from collections.abc import Sequence
from functools import lru_cache

from replica.native._native import ffi, lib
from replica.native.addresses import ADDRESS_OCTETS
from replica.native.contract import (
    BATCH_FAULTS,
    CHANGE_OCTETS,
    LEVEL1_BUCKETS,
    RECORD_FAULTS,
    RECORD_OCTETS_MAX,
    SUM_OCTETS,
    SUMS_OCTETS,
    Scan,
    base_type,
    batch_fault,
    check_query,
)

_RUN = struct.Struct("=4I")
_NULL = ffi.NULL
_NO_OLD = 0xFFFFFFFF
_OVERSIZED = 0xFFFFFFFF
_new_fast = ffi.new_allocator(should_clear_after_alloc=False)
_buffer = ffi.buffer
_from_buffer = ffi.from_buffer
_zb_filter = lib.zb_filter


def scan(payload: bytes, count_max: int) -> Scan:
    result = ffi.new("zb_scan_result *")
    code = lib.zb_scan(payload, len(payload), count_max, result)
    if code:
        if code < 0:
            raise MemoryError("no memory to scan a payload")
        raise batch_fault(BATCH_FAULTS[code - 1], result.where)
    try:
        count, ops_offset = result.count, result.ops_offset
        faults = [(fault.record, RECORD_FAULTS[fault.code - 1]) for fault in ffi.unpack(result.faults, result.n_faults)]
        numbers = list(_RUN.iter_unpack(_buffer(result.runs, _RUN.size * result.n_runs)))
    finally:
        lib.zb_scan_free(result)
    runs = [(payload[at : at + length], puts, deletes) for at, length, puts, deletes in numbers]
    return Scan(payload, count, payload[ops_offset : ops_offset + count], faults, runs)


def delta(
    keys: Sequence[bytes], ops: bytes, values: Sequence[bytes], olds: Sequence[bytes | None]
) -> tuple[bytes, int, int, int]:
    count = len(keys)
    if not count == len(ops) == len(values) == len(olds):
        raise ValueError("keys, ops, values and olds differ in number")
    if olds.count(None) == count:
        old_octets, old_lengths = b"", _NULL
    else:
        old_octets = b"".join([old for old in olds if old is not None])
        lengths = array("I", [_NO_OLD if old is None else len(old) for old in olds])
        old_lengths = _from_buffer("uint32_t[]", lengths)
    blob = _new_fast("uint8_t[]", CHANGE_OCTETS * count + 1)
    count_change, sum_change, octets_change = ffi.new("int64_t *"), ffi.new("uint8_t[16]"), ffi.new("int64_t *")
    octets = lib.zb_delta(
        count,
        b"".join(keys),
        _from_buffer("uint32_t[]", array("I", [*map(len, keys)])),
        ops,
        b"".join(values),
        _from_buffer("uint32_t[]", array("I", [*map(len, values)])),
        old_octets,
        old_lengths,
        blob,
        count_change,
        sum_change,
        octets_change,
    )
    if octets < 0:
        if octets == -1:
            raise MemoryError("no memory for the change of a digest")
        raise ValueError("an op is neither put nor delete")
    return _buffer(blob, octets)[:], count_change[0], int.from_bytes(_buffer(sum_change), "little"), octets_change[0]


def apply_delta(sums: bytearray, blob: bytes) -> None:
    _check_sums(sums)
    status = lib.zb_apply_delta(_from_buffer("uint8_t[]", sums, require_writable=True), blob, len(blob))
    if status == -1:
        raise ValueError("a digest change is not a list of ascending buckets")
    if status == -2:
        raise ValueError("a digest change would take a bucket's count below zero")


def sum_all(sums: bytearray | bytes) -> tuple[int, int]:
    total = _fold(sums, 1)
    return int.from_bytes(total[:8], "little"), int.from_bytes(total[8:], "little")


def level1(sums: bytearray | bytes) -> bytes:
    return _fold(sums, LEVEL1_BUCKETS)


def _check_sums(sums: bytearray | bytes) -> None:
    if len(sums) != SUMS_OCTETS:
        raise ValueError(f"digest sums are {SUMS_OCTETS} octets, not {len(sums)}")


def _fold(sums: bytearray | bytes, groups: int) -> bytes:
    _check_sums(sums)
    out = ffi.new("uint8_t[]", groups * SUM_OCTETS)
    lib.zb_fold(_from_buffer("uint8_t[]", sums), groups, out)
    return bytes(_buffer(out))


class _Scratch(threading.local):
    """Room for one filtered record, a thread's own: nothing else of that thread runs between writing and copying it."""

    def __init__(self) -> None:
        self.out = ffi.new("uint8_t[]", RECORD_OCTETS_MAX)
        self.view = ffi.buffer(self.out)


_scratch = _Scratch()


def filter_values(record: bytes, indexes: tuple[int, ...], types: tuple[bytes, ...], public_only: bool) -> bytes | None:
    query = _query(indexes, types) if indexes or types else b""
    scratch = _scratch if len(record) <= RECORD_OCTETS_MAX else _Larger(len(record))
    octets = _zb_filter(record, len(record), query, len(query), public_only, scratch.out)
    if octets < -1:
        return record[-2 - octets :]
    return scratch.view[:octets] if octets >= 0 else None


def plain(values: Sequence[bytes]) -> bytes:
    out = _new_fast("uint8_t[]", len(values) + 1)
    lib.zb_plain(len(values), b"".join(values), _from_buffer("uint32_t[]", array("I", [*map(len, values)])), out)
    return bytes(_buffer(out, len(values)))


class _Larger:
    """Scratch room for a record over the limit, which no store of ours holds."""

    def __init__(self, octets: int) -> None:
        self.out = ffi.new("uint8_t[]", octets)
        self.view = ffi.buffer(self.out)


@lru_cache(maxsize=64)  # one question is at most a message of 256 KiB: 16 MiB in the worst case
def _query(indexes: tuple[int, ...], types: tuple[bytes, ...]) -> bytes:
    check_query(indexes, types)
    parts = [struct.pack(f"={len(indexes) + 1}I", len(indexes), *indexes)]
    for wanted in types:
        base = base_type(wanted)
        parts += (struct.pack("=I", len(base)), base)
    return b"".join(parts)


class Datagrams:
    """Receives and sends UDP datagrams in batches on a non-blocking socket's descriptor, which stays the caller's.

    Args:
        fd: descriptor of a bound UDP socket.
        batch_max: datagrams a system call, 1..1024.
        octets_max: longer datagrams are dropped on receiving and counted in `oversized`.
    """

    def __init__(self, fd: int, batch_max: int = 64, octets_max: int = 2048) -> None:
        if not 1 <= batch_max <= 1024 or not 1 <= octets_max <= 65_536:
            raise ValueError("batch_max is 1 to 1024, octets_max 1 to 65536")
        self._fd = fd
        self._stride = octets_max
        out = [ffi.new("uint8_t **"), ffi.new("uint8_t **"), ffi.new("uint32_t **"), ffi.new("uint32_t **")]
        udp = lib.zb_udp_new(batch_max, octets_max, *out)
        if udp == _NULL:
            raise MemoryError("no memory for a datagram arena")
        self._udp = ffi.gc(udp, lib.zb_udp_free)
        self._arena = _buffer(out[0][0], batch_max * octets_max)
        self._addresses = _buffer(out[1][0], batch_max * ADDRESS_OCTETS)
        self._lengths, self._address_lengths = out[2][0], out[3][0]
        self._refused_now = ffi.new("uint32_t *")
        self.oversized = 0
        self.refused = 0

    def receive(self) -> list[tuple[bytes, bytes]]:
        """What has arrived, at most batch_max: (octets, sockaddr). Empty also when all of it was oversized.

        Raises:
            OSError: the socket is bad.
        """
        count = lib.zb_udp_receive(self._open(), self._fd)
        if count <= 0:
            if count < 0:
                raise OSError(-count, os.strerror(-count))
            return []
        arena, addresses, stride = self._arena, self._addresses, self._stride
        lengths = ffi.unpack(self._lengths, count)
        got = [
            (arena[at : at + length], addresses[name : name + name_length])
            for at, length, name, name_length in zip(
                range(0, count * stride, stride),
                lengths,
                range(0, count * ADDRESS_OCTETS, ADDRESS_OCTETS),
                ffi.unpack(self._address_lengths, count),
                strict=True,
            )
            if length != _OVERSIZED
        ]
        self.oversized += count - len(got)
        return got

    def send(self, datagrams: Sequence[tuple[bytes, bytes]]) -> int:
        """Send until done or the socket's buffer is full.

        Returns:
            How many of the front were dealt with: sent, or refused by the kernel for their own fault (`refused` counts those).
        Raises:
            OSError: the socket is bad.
        """
        if not datagrams:
            return 0
        data = [datagram[0] for datagram in datagrams]
        addresses = [datagram[1] for datagram in datagrams]
        done = lib.zb_udp_send(
            self._open(),
            self._fd,
            len(datagrams),
            b"".join(data),
            _from_buffer("uint32_t[]", array("I", [*map(len, data)])),
            b"".join(addresses),
            _from_buffer("uint32_t[]", array("I", [*map(len, addresses)])),
            self._refused_now,
        )
        if done < 0:
            raise OSError(-done, os.strerror(-done))
        self.refused += self._refused_now[0]
        return int(done)

    def close(self) -> None:
        """Let go of the arena at once; the descriptor stays open. Later calls raise OSError."""
        if self._udp is not None:
            ffi.release(self._udp)
            self._udp = self._arena = self._addresses = self._lengths = self._address_lengths = None

    def _open(self) -> object:
        if self._udp is None:
            raise OSError(errno.EBADF, "closed: bad file descriptor")
        return self._udp
