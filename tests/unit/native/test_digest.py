"""Digest sums: record hash, buckets, the change of a batch, folding; on both backends."""

from __future__ import annotations

import hashlib
import struct
import zlib
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica import native
from replica.native import SUMS_OCTETS, twin
from tests.unit.native.conftest import fast, needs_c

MODULUS = 1 << 128


def slow_hash(key: bytes, value: bytes) -> int:
    return int.from_bytes(hashlib.sha256(struct.pack(">I", len(key)) + key + value).digest()[:16], "little")


def test_record_hash_and_bucket_follow_their_definition() -> None:
    assert native.record_hash(b"hkey", b"value") == slow_hash(b"hkey", b"value").to_bytes(16, "little")
    assert native.record_hash(b"ab", b"c") != native.record_hash(b"a", b"bc")
    assert native.bucket_of(b"hkey") == zlib.crc32(b"hkey") >> 16


@pytest.mark.parametrize("octets", [0, 1, 8, *range(47, 62), *range(111, 122), 1_000])  # 4 + 3 octets come before them
@pytest.mark.parametrize("sha_ni", [True, False])
def test_one_new_record_at_every_block_edge(backend: ModuleType, octets: int, sha_ni: bool) -> None:
    key, value = b"hk" + bytes([octets % 7]), bytes(i % 251 for i in range(octets))
    if backend is fast:
        fast.lib.zb_sha_ni_use(sha_ni)
    try:
        blob, count, total, octets_more = backend.delta([key], b"\x01", [value], [None])
    finally:
        if backend is fast:
            fast.lib.zb_sha_ni_use(1)
    assert (count, total, octets_more) == (1, slow_hash(key, value), len(key) + len(value))
    assert blob == struct.pack("<Hi", zlib.crc32(key) >> 16, 1) + total.to_bytes(16, "little")


def test_put_update_delete_and_missing(backend: ModuleType) -> None:
    keys, ops = [b"hnew", b"hupdated", b"hgone", b"hmissing", b"hsame"], b"\x01\x01\x02\x02\x01"
    values, olds = [b"1", b"2", b"", b"", b"s"], [None, b"old", b"older", None, b"s"]
    blob, count, total, octets = backend.delta(keys, ops, values, olds)
    assert count == 0
    assert octets == (4 + 1) + (1 - 3) - (5 + 5)  # new, updated, gone
    expected = (
        slow_hash(b"hnew", b"1") + slow_hash(b"hupdated", b"2") - slow_hash(b"hupdated", b"old") - slow_hash(b"hgone", b"older")
    )
    assert total == expected % MODULUS
    buckets = [bucket for bucket, _, _ in struct.iter_unpack("<Hi16s", blob)]
    assert buckets == sorted({zlib.crc32(key) >> 16 for key in keys[:3]})  # nothing for what did not change


def test_an_empty_old_value_is_not_no_value(backend: ModuleType) -> None:
    assert backend.delta([b"h"], b"\x02", [b""], [b""])[1] == -1
    assert backend.delta([b"h"], b"\x02", [b""], [None])[1] == 0


def test_deltas_add_up_to_the_sums_of_the_content(backend: ModuleType) -> None:
    sums = bytearray(SUMS_OCTETS)
    content: dict[bytes, bytes] = {}
    octets = 0
    for step in range(6):
        keys = [b"h%d" % (i * (step + 1) % 97) for i in range(step * 3, step * 3 + 60)]
        keys = list(dict.fromkeys(keys))
        ops = bytes(1 + (i + step) % 3 // 2 for i in range(len(keys)))
        values = [b"" if op == 2 else b"%d-%d" % (step, i) for i, op in enumerate(ops)]
        blob, count, total, more = backend.delta(keys, ops, values, [content.get(key) for key in keys])
        before, octets = backend.sum_all(sums), octets + more
        backend.apply_delta(sums, blob)
        assert backend.sum_all(sums) == (before[0] + count, (before[1] + total) % MODULUS)
        for key, op, value in zip(keys, ops, values, strict=True):
            content.pop(key, None)
            if op == 1:
                content[key] = value
        assert octets == sum(len(key) + len(value) for key, value in content.items())
    assert backend.sum_all(sums) == (len(content), sum(slow_hash(*pair) for pair in content.items()) % MODULUS)
    fresh = bytearray(SUMS_OCTETS)
    backend.apply_delta(
        fresh, backend.delta(list(content), b"\x01" * len(content), list(content.values()), [None] * len(content))[0]
    )
    assert fresh == sums


def test_level1_adds_256_neighbours(backend: ModuleType) -> None:
    sums = bytearray(SUMS_OCTETS)
    for bucket, total in ((0, 5), (255, 7), (256, MODULUS - 1), (257, 2), (65_535, 11)):
        struct.pack_into("<Q16s", sums, bucket * 24, 1, total.to_bytes(16, "little"))
    level = [(count, int.from_bytes(total, "little")) for count, total in struct.iter_unpack("<Q16s", backend.level1(sums))]
    assert len(level) == 256
    assert (level[0], level[1], level[255], level[2]) == ((2, 12), (2, 1), (1, 11), (0, 0))
    assert backend.sum_all(sums) == (5, 24)


def change(bucket: int, count: int, total: int = 0) -> bytes:
    return struct.pack("<Hi16s", bucket, count, total.to_bytes(16, "little"))


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (change(1, 1)[:-1], "ascending"),
        (change(2, 1) + change(1, 1), "ascending"),
        (change(2, 1) + change(2, 1), "ascending"),
        (change(0, 1) + change(1, -2), "below zero"),
    ],
)
def test_a_bad_change_alters_nothing(backend: ModuleType, blob: bytes, words: str) -> None:
    sums = bytearray(SUMS_OCTETS)
    backend.apply_delta(sums, change(1, 1, 9))
    before = bytes(sums)
    with pytest.raises(ValueError, match=words):
        backend.apply_delta(sums, blob)
    assert sums == before


def test_misuse_is_refused(backend: ModuleType) -> None:
    with pytest.raises(ValueError, match="differ in number"):
        backend.delta([b"h"], b"\x01", [], [None])
    with pytest.raises(ValueError, match="neither put nor delete"):
        backend.delta([b"h"], b"\x07", [b""], [None])
    for call in (lambda: backend.apply_delta(bytearray(10), b""), lambda: backend.sum_all(b""), lambda: backend.level1(b"")):
        with pytest.raises(ValueError, match="1572864 octets"):
            call()


@needs_c
def test_immutable_sums_are_not_written_to() -> None:
    with pytest.raises((BufferError, ValueError, TypeError)):
        fast.apply_delta(bytes(SUMS_OCTETS), change(1, 1))


rows = st.lists(
    st.tuples(
        st.integers(0, 300).map(lambda i: b"h%d" % i) | st.binary(max_size=40),
        st.sampled_from([1, 1, 2]),
        st.binary(max_size=200),
        st.none() | st.binary(max_size=200),
    ),
    max_size=40,
)


@needs_c
@given(rows)
def test_both_backends_sum_alike(rows: list[tuple[bytes, int, bytes, bytes | None]]) -> None:
    keys, ops = [row[0] for row in rows], bytes(row[1] for row in rows)
    values, olds = [row[2] for row in rows], [row[3] for row in rows]
    both = [module.delta(keys, ops, values, olds) for module in (fast, twin)]
    assert both[0] == both[1]
    none = [module.delta(keys, ops, values, [None] * len(keys)) for module in (fast, twin)]
    assert none[0] == none[1]
