"""Values and stored records."""

from __future__ import annotations

import pytest
from hypothesis import given

from replica import native
from replica.model.handle import values
from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.values import HandleRecord, HandleValue, Permission, Reference, encode_record
from tests.unit.handle import strategies as some
from tests.unit.handle.golden import OCTETS

ONE = HandleValue(1, b"URL", b"x")


@given(some.handle_values)
def test_a_value_survives(value: HandleValue) -> None:
    assert values.decode_value(values.encode_value(value)) == value


@given(some.value_lists)
def test_a_list_of_values_survives(some_values: tuple[HandleValue, ...]) -> None:
    assert values.decode_values(values.encode_values(some_values)) == some_values


@given(some.value_lists, some.st.none() | some.st.binary(max_size=10))
def test_a_record_survives_and_the_scan_of_batches_takes_it(found: tuple[HandleValue, ...], spelling: bytes | None) -> None:
    unique = {value.index: value for value in found}
    record = encode_record(unique.values(), spelling)
    assert values.decode_record(record) == HandleRecord(tuple(unique[index] for index in sorted(unique)), spelling)
    assert values.spelling_of(record) == spelling
    field = b"\x0a\x02h1\x12" + varint(len(record)) + record + b"\x1a\x01\x01"
    assert native.scan(field, 1).faults == []
    filtered = native.filter_values(record, (), (), False)
    assert filtered is not None
    assert values.decode_values(filtered) == tuple(
        unique[index] for index in sorted(unique) if unique[index].permissions & values.READABLE
    )


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def test_records_are_sorted_and_unique() -> None:
    record = encode_record([HandleValue(7, b"B", b""), HandleValue(2, b"A", b"")])
    assert [value.index for value in values.decode_record(record).values] == [2, 7]
    with pytest.raises(CodecMisuse, match="index 7 comes twice"):
        encode_record([HandleValue(7, b"B", b""), HandleValue(7, b"A", b"")])
    for second in (2, 7):
        unsorted = b"\x01" + values.encode_values([HandleValue(7, b"B", b""), HandleValue(second, b"A", b"")])
        with pytest.raises(ProtocolFault, match="order"):
            values.decode_record(unsorted)


def test_limits_of_a_record() -> None:
    room = values.RECORD_OCTETS_MAX - 5 - values.VALUE_OCTETS_MIN
    assert len(encode_record([HandleValue(1, b"", bytes(room))])) == values.RECORD_OCTETS_MAX
    for bad in ([HandleValue(1, b"", bytes(room + 1))], [HandleValue(i, b"", b"") for i in range(2_049)]):
        with pytest.raises(CodecMisuse, match="at most"):
            encode_record(bad)
    assert encode_record([HandleValue(i, b"", b"") for i in range(2_048)])
    with pytest.raises(CodecMisuse, match="2048 octets"):
        encode_record([], bytes(2_049))
    with pytest.raises(CodecMisuse, match="neither 0 nor 1"):
        encode_record([HandleValue(1, b"", b"", ttl_type=2)])


@pytest.mark.parametrize(
    "make",
    [
        lambda: HandleValue(-1, b"", b""),
        lambda: HandleValue(2**32, b"", b""),
        lambda: HandleValue(1, b"", b"", ttl=2**32),
        lambda: HandleValue(1, b"", b"", timestamp=-1),
        lambda: HandleValue(1, b"", b"", permissions=256),
        lambda: Reference(b"", 2**32),
    ],
)
def test_what_has_no_octets_is_our_misuse(make: object) -> None:
    with pytest.raises(CodecMisuse):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        OCTETS["value_url"][:-1],
        OCTETS["value_url"] + b"\0",
        OCTETS["value_url"][:14] + b"\xff\xff\xff\xff" + OCTETS["value_url"][18:],
        OCTETS["value_url"][:-4] + b"\0\0\0\x01",
        OCTETS["value_url"][:8] + b"\x02" + OCTETS["value_url"][9:],
    ],
)
def test_bad_octets_are_their_fault(octets: bytes) -> None:
    with pytest.raises(ProtocolFault) as caught:
        values.decode_value(octets)
    assert caught.value.code is ResponseCode.INVALID_VALUE


@pytest.mark.parametrize("record", [b"", b"\x02\0\0\0\0", b"\x81", b"\x81\0\x05a", b"\x01\0\0\x08\x01", b"\x01\0\0\0\0\0"])
def test_bad_records_are_refused(record: bytes) -> None:
    with pytest.raises(ProtocolFault):
        values.decode_record(record)


def test_types_match_themselves_and_their_subtypes() -> None:
    found = [kind for kind in (b"URL", b"url", b"url.cn", b"URLX", b"UR", b"") if values.type_matches(b"URL", kind)]
    assert found == [b"URL", b"url", b"url.cn"]
    assert values.type_matches(b"url.", b"URL.cn")
    assert values.type_matches(b"url.", b"URL")
    assert HandleRecord((ONE, HandleValue(2, b"HS_SITE.6", b""))).find(b"HS_SITE") == (HandleValue(2, b"HS_SITE.6", b""),)


def test_permissions() -> None:
    assert ONE.public
    assert not HandleValue(1, b"", b"", permissions=Permission.ADMIN_READ).public
