"""Octets of the journal's rows: what is read is what was written under that very key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.consensus import record
from replica.consensus.port import HardState
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry

u64 = st.integers(0, 2**64 - 1)


@given(u64, u64, u64, st.binary(max_size=200))
def test_entry_comes_back(number: int, index: int, term: int, data: bytes) -> None:
    entry = LogEntry(index, term, data)
    assert record.decode_entry(number, index, record.encode_entry(number, entry)) == entry
    assert record.entry_index(record.entry_key(number, index)) == index


@given(st.binary(max_size=60), st.data())
def test_any_changed_bit_is_seen(data: bytes, draw: st.DataObject) -> None:
    row = bytearray(record.encode_entry(3, LogEntry(7, 2, data)))
    bit = draw.draw(st.integers(0, len(row) * 8 - 1))
    row[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ZaibeiError) as caught:
        record.decode_entry(3, 7, bytes(row))
    assert caught.value.code is Code.DAMAGED


@pytest.mark.parametrize(("number", "index"), [(4, 7), (3, 8)])
def test_a_row_under_another_key_is_refused(number: int, index: int) -> None:
    row = record.encode_entry(3, LogEntry(7, 2, b"data"))
    with pytest.raises(ZaibeiError, match="checksum"):
        record.decode_entry(number, index, row)


def test_keys_sort_by_group_then_index() -> None:
    places = [(1, 255), (1, 256), (2, 0), (256, 1)]
    assert sorted(record.entry_key(*place) for place in places) == [record.entry_key(*place) for place in places]


def test_small_rows_come_back_and_short_ones_are_refused() -> None:
    meta, marks, hard = record.Meta(3, 9, b"i" * 16), record.Marks(1, 2, 3), HardState(4, 12, 5)
    assert record.decode_meta(record.encode_meta(meta)) == meta
    assert record.decode_marks(record.encode_marks(marks)) == marks
    assert record.decode_hard(record.encode_hard(hard)) == hard
    assert record.decode_group(record.encode_group(77)) == 77
    for decode in (record.decode_meta, record.decode_marks, record.decode_hard, record.decode_group):
        with pytest.raises(ZaibeiError) as caught:
            decode(b"\1\0")
        assert caught.value.code is Code.DAMAGED


def test_another_format_is_refused_by_name() -> None:
    for row, decode in (
        (record.encode_meta(record.Meta(1, 1, b"i" * 16)), record.decode_meta),
        (record.encode_marks(record.Marks()), record.decode_marks),
    ):
        with pytest.raises(ZaibeiError, match="format 9"):
            decode(b"\x09" + row[1:])


def test_the_octets_of_format_1_stay() -> None:
    """A persistent format: this row was written by the first version."""
    row = record.encode_entry(1, LogEntry(2, 3, b"zaibei"))
    assert row.hex() == "017d996bb008e3bb8100000000000000037a6169626569"
    assert record.entry_key(1, 2).hex() == "6500000000000000010000000000000002"
