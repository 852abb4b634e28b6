"""scan and split: the one walk that judges a batch's octets, on both backends."""

from __future__ import annotations

import itertools
from types import ModuleType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replica import native
from replica.native import contract, twin
from replica.native.contract import BATCH_FAULTS, RECORD_FAULTS, ColumnsFault, Scan
from tests.unit.native.conftest import columns, fast, handle_value, mutated, needs_c, record, records, sorted_records, varint

GOOD = record(handle_value(1), handle_value(2, b"HS_SITE"))
KEY = b"h88\x01118\x018\x00XYZ"


def outcome(module: ModuleType, payload: bytes, count_max: int = 1_000) -> object:
    try:
        scan: Scan = module.scan(payload, count_max)
    except ColumnsFault as fault:
        return fault.code, fault.detail
    return scan.count, scan.ops, scan.faults, scan.runs, scan.keys, scan.values


def test_good_records_pass_with_their_runs(backend: ModuleType) -> None:
    keys = [b"h88\x01118\x00a", b"h88\x01118\x00b", b"h88\x01118\x011\x00a", b"b88\x01118\x00c", b"h88\x01118", b"p" + KEY]
    values = [GOOD, b"", GOOD, b"\x01{}", record(), record(spelling=b"88.118")]
    scan = backend.scan(columns(keys, values, b"\x01\x02\x01\x01\x01\x01"), 6)
    assert (scan.count, scan.faults, scan.keys, scan.values) == (6, [], keys, values)
    assert scan.runs == [
        (b"h88\x01118", 1, 1),
        (b"h88\x01118\x011", 1, 0),
        (b"b88\x01118", 1, 0),
        (b"h88\x01118", 1, 0),
        (b"ph88\x01118\x018", 1, 0),
    ]


def test_nothing_is_a_batch_of_nothing(backend: ModuleType) -> None:
    assert outcome(backend, b"", 0) == (0, b"", [], [], [], [])


ONE = handle_value(1)
BAD_RECORDS = [
    ("key_empty", b"", 1, GOOD),
    ("key_too_long", b"h" * 4_097, 1, GOOD),
    ("unknown_kind", b"x88\x00a", 1, GOOD),
    ("delete_with_value", KEY, 2, GOOD),
    ("value_too_long", KEY, 1, record(handle_value(1, data=bytes(252 * 1024)))),
    ("value_too_long", b"b1", 1, b"\x01" + bytes(252 * 1024)),
    ("unknown_format", KEY, 1, b"\x02" + GOOD[1:]),
    ("unknown_format", b"b1", 1, b"{}"),
    ("value_truncated", KEY, 1, b""),
    ("value_truncated", b"b1", 1, b""),
    ("value_truncated", KEY, 1, GOOD[:-1]),
    ("value_truncated", KEY, 1, b"\x81\x00"),
    ("value_truncated", KEY, 1, b"\x81\x00\x05abc\x00\x00"),
    ("value_truncated", KEY, 1, b"\x01\x00\x00\x00\x02" + ONE),
    ("value_truncated", KEY, 1, b"\x01\x00\x00\x00\x01" + ONE[:14] + b"\xff\xff\xff\xff" + ONE[18:]),
    ("value_truncated", KEY, 1, b"\x01\x00\x00\x00\x01" + ONE[:-4] + b"\x00\x00\x00\x01"),
    ("value_truncated", KEY, 1, b"\x01\x00\x00\x00\x01" + ONE[:-4] + b"\x00\x00\x00\x02" + bytes(11)),
    ("too_many_values", KEY, 1, b"\x01\x00\x00\x08\x01" + b"".join(handle_value(i) for i in range(2_049))),
    ("values_not_sorted", KEY, 1, record(handle_value(2), handle_value(1))),
    ("values_not_sorted", KEY, 1, record(handle_value(2), handle_value(2))),
    ("bad_ttl_type", KEY, 1, record(handle_value(1, ttl_type=2))),
    ("trailing_octets", KEY, 1, GOOD + b"\x00"),
    ("spelling_too_long", KEY, 1, record(handle_value(1), spelling=bytes(2_049))),
]


@pytest.mark.parametrize(("code", "key", "op", "value"), BAD_RECORDS)
def test_a_bad_record_is_named_while_the_rest_passes(backend: ModuleType, code: str, key: bytes, op: int, value: bytes) -> None:
    scan = backend.scan(columns([KEY, key, KEY], [GOOD, value, b""], bytes([1, op, 2])), 1_000)
    assert scan.faults == [(1, code)]
    assert sum(puts + deletes for _, puts, deletes in scan.runs) == 3


REFERRING = handle_value(1, b"AB", b"xyz", references=[(b"0.NA/1", 300), (b"0.NA/22", 1)])


@pytest.mark.parametrize("at", [14, 20, 27, 31, 45])  # type, data, references, both handles
@pytest.mark.parametrize("more", range(1, 10))
def test_a_length_that_says_too_much(backend: ModuleType, at: int, more: int) -> None:
    rest = len(REFERRING) - at - 4  # what follows the length; the last fields after it are fixed
    too_long = REFERRING[:at] + (rest + more - (8 if at < 20 else 4)).to_bytes(4, "big") + REFERRING[at + 4 :]
    assert backend.scan(columns([KEY], [record(REFERRING)], b"\x01"), 1).faults == []
    assert backend.scan(columns([KEY], [record(too_long)], b"\x01"), 1).faults == [(0, "value_truncated")]
    assert backend.filter_values(record(too_long), (), (), True) is None


def test_every_record_fault_is_reachable() -> None:
    assert {bad[0] for bad in BAD_RECORDS} == set(RECORD_FAULTS)


LIMITS = [
    (b"h" + b"a" * 4_095, GOOD),
    (KEY, b"\x01\x00\x00\x08\x00" + b"".join(handle_value(i) for i in range(2_048))),
    (KEY, record(handle_value(2**32 - 1, data=bytes(252 * 1024 - 26 - 5 - 3)))),
    (KEY, record(handle_value(0), spelling=bytes(2_048))),
    (b"b", b"\x01" + bytes(252 * 1024 - 1)),
]


@pytest.mark.parametrize(("key", "value"), LIMITS)
def test_exactly_at_the_limits(backend: ModuleType, key: bytes, value: bytes) -> None:
    assert backend.scan(columns([key], [value], b"\x01"), 1).faults == []


BAD_BATCHES = [
    ("unknown_field", b"\x22\x00"),
    ("unknown_field", b"\x0b\x00"),
    ("unknown_field", b"\x8a\x00\x01a"),  # field 1, tag not in its shortest form
    ("bad_varint", b"\x0a\x81\x00a"),  # length not in its shortest form
    ("bad_varint", b"\x0a\xff\xff\xff\xff\x0f"),
    ("truncated", b"\x0a"),
    ("truncated", b"\x0a\x80"),
    ("truncated", b"\x0a\x05abc"),
    ("duplicate_ops", columns([KEY], [GOOD], b"\x01") + b"\x1a\x01\x01"),
    ("counts_differ", columns([KEY, KEY], [GOOD], b"\x01\x01")),
    ("counts_differ", columns([KEY], [GOOD], b"\x01\x01")),
    ("counts_differ", columns([KEY], [GOOD], b"")),
    ("too_many_records", columns([KEY] * 4, [GOOD] * 4, b"\x01" * 4)),
    ("unknown_op", columns([KEY], [GOOD], b"\x03")),
    ("payload_too_long", bytes(contract.PAYLOAD_OCTETS_MAX + 1)),
]


@pytest.mark.parametrize(("code", "payload"), BAD_BATCHES, ids=itertools.count())
def test_a_malformed_payload_is_refused_as_a_whole(backend: ModuleType, code: str, payload: bytes) -> None:
    with pytest.raises(ColumnsFault) as caught:
        backend.scan(payload, 3)
    assert caught.value.code == code


def test_every_batch_fault_is_reachable() -> None:
    assert {bad[0] for bad in BAD_BATCHES} == set(BATCH_FAULTS)


def test_fields_may_come_in_any_order(backend: ModuleType) -> None:
    parts = [b"\x1a" + varint(2) + b"\x01\x02"]
    for key, value in ((KEY, GOOD), (KEY + b"2", b"")):
        parts += [b"\x12" + varint(len(value)) + value, b"\x0a" + varint(len(key)) + key]
    scan = backend.scan(b"".join(parts), 2)
    assert (scan.keys, scan.values, scan.ops, scan.faults) == ([KEY, KEY + b"2"], [GOOD, b""], b"\x01\x02", [])


def test_split_agrees_with_protobuf_and_refuses_garbage() -> None:
    payload = columns([KEY, b"b1"], [GOOD, b"\x01{}"], b"\x01\x01")
    assert native.split(payload) == ([KEY, b"b1"], [GOOD, b"\x01{}"], b"\x01\x01")
    with pytest.raises(ColumnsFault):
        native.split(payload[:-1])


keys = st.sampled_from([KEY, KEY + b"1", b"h88\x00", b"h88", b"p", b"b1\x00", b"x", b"", b"\x00", b"g1\x00\x00"]) | st.binary(
    max_size=9
)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    rows = draw(st.lists(st.tuples(keys, mutated(sorted_records) | records, st.sampled_from([1, 1, 1, 2, 3])), max_size=8))
    ops = bytes(row[2] for row in rows)
    return columns([row[0] for row in rows], [b"" if row[2] == 2 else row[1] for row in rows], ops)


@needs_c
@given(mutated(payloads()), st.sampled_from([1_000, 3]))
@example(b"\x0a\x00\x12\x00\x1a\x01\x02", 1)
def test_both_backends_judge_alike(payload: bytes, count_max: int) -> None:
    assert outcome(fast, payload, count_max) == outcome(twin, payload, count_max)


@needs_c
@given(payloads())
def test_what_scan_accepts_protobuf_reads_the_same(payload: bytes) -> None:
    judged = outcome(fast, payload)
    if isinstance(judged, tuple) and len(judged) == 6:
        found = twin._walk(payload, 1_000)
        assert found == native.split(payload) == (judged[4], judged[5], judged[1])
