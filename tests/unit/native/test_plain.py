"""plain: which values stand in a record as they came, on both backends; what is called plain must be what the slow way makes."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hosting.tenant.records import put_of
from replica.native import twin
from tests.unit.native.conftest import fast, handle_value, mutated, needs_c, record, records

KEY = b"h88\x01118\x00XYZ"
GOOD = record(handle_value(1), handle_value(2, b"HS_SITE"))[1:]
ROOM = 252 * 1024 - 1 - len(record(handle_value(1, data=b""))[1:])
NOT_PLAIN = [
    ("no values", record()[1:]),
    ("nothing at all", b""),
    ("cut off", GOOD[:-1]),
    ("more behind", GOOD + b"\0"),
    ("an index twice", record(handle_value(1), handle_value(1))[1:]),
    ("out of order", record(handle_value(2), handle_value(1))[1:]),
    ("a ttl type nobody knows", record(handle_value(1, ttl_type=2))[1:]),
    ("no type", record(handle_value(1, b""))[1:]),
    ("a type too long", record(handle_value(1, b"T" * 256))[1:]),
    ("a type beyond ASCII", record(handle_value(1, "类".encode()))[1:]),
    ("a type that is not UTF-8", record(handle_value(1, b"\xff"))[1:]),
    ("a reference", record(handle_value(1, references=[(b"0.NA/1", 1)]))[1:]),
    ("too large", record(handle_value(1, data=bytes(ROOM + 1)))[1:]),
    ("too many", record(*(handle_value(index) for index in range(2_049)))[1:]),
]


@pytest.mark.parametrize("octets", [octets for _, octets in NOT_PLAIN], ids=[name for name, _ in NOT_PLAIN])
def test_what_must_be_looked_at_is_not_plain(backend: ModuleType, octets: bytes) -> None:
    assert backend.plain([GOOD, octets, GOOD]) == b"\1\0\1"


def test_the_largest_ones_are_plain(backend: ModuleType) -> None:
    most = [
        record(handle_value(1, data=bytes(ROOM)))[1:],
        record(handle_value(1, b"T" * 255, ttl_type=1), handle_value(2**32 - 1))[1:],
        record(*(handle_value(index, data=b"") for index in range(2_048)))[1:],
    ]
    assert backend.plain(most) == b"\1\1\1"
    assert backend.plain([]) == b""


@given(st.lists(mutated(records.map(lambda octets: octets[1:])), max_size=4))
@example([octets for _, octets in NOT_PLAIN])
def test_what_is_plain_is_kept_as_the_slow_way_keeps_it(some: list[bytes]) -> None:
    for octets, plain in zip(some, twin.plain(some), strict=True):
        if plain:
            assert put_of(KEY, b"", octets).value == b"\1" + octets


@needs_c
@given(st.lists(mutated(records.map(lambda octets: octets[1:])), max_size=4))
@example([octets for _, octets in NOT_PLAIN])
def test_both_say_the_same(some: list[bytes]) -> None:
    assert fast.plain(some) == twin.plain(some)
