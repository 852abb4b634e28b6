"""Positions, chains and batches (SEMANTICS 1.1, 1.2)."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.model.batch import (
    BATCH_CHANGES_MAX,
    BATCH_COLUMNS_OCTETS_MAX,
    BATCH_OCTETS_MAX,
    Batch,
    Change,
    columns_of,
    cut_batch,
    open_batch,
)
from replica.model.errors import Code, InvariantBroken, ZaibeiError
from replica.model.position import ORIGIN, Position, epoch_start
from replica.v1 import position_pb2

LINEAGE = bytes(range(16))
START = epoch_start(ORIGIN, LINEAGE, 1)


def a_batch(before: Position = START, value: bytes = b"v", count: int = 2) -> Batch:
    changes = [Change(1, b"h88\0%d" % number, value) for number in range(count)]
    return cut_batch("s", before, columns_of(changes), count, 5)


def test_a_position_survives_text_and_wire() -> None:
    after = a_batch().after
    assert Position.parse(str(after)) == after == Position.from_wire(after.to_wire())
    assert str(after) > str(START), "fixed-width text sorts by time"


@pytest.mark.parametrize("text", ["", "x", "0:1:2:3", "zz" * 16 + ":0:0:" + "00" * 32])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ZaibeiError):
        Position.parse(text)


def test_the_chain_depends_on_content_cut_epoch_and_lineage() -> None:
    ends = {
        a_batch().after.chain,
        a_batch(value=b"w").after.chain,
        a_batch(a_batch(count=1).after, count=1).after.chain,
        a_batch(epoch_start(START, LINEAGE, 2)).after.chain,
        a_batch(epoch_start(ORIGIN, LINEAGE[::-1], 1)).after.chain,
    }
    assert len(ends) == 5


def test_an_epoch_rises_within_a_lineage() -> None:
    with pytest.raises(InvariantBroken):
        epoch_start(START, LINEAGE, 1)
    assert epoch_start(START, LINEAGE[::-1], 1).seq == START.seq


def test_a_batch_reads_back_as_it_was_cut() -> None:
    batch = a_batch()
    assert open_batch(batch.raw) == batch


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"columns": b"other"}, "hash"),
        ({"count": 3}, "cannot lead"),
        ({"count": BATCH_CHANGES_MAX + 1}, "limits"),
        ({"format": 2}, "format"),
        ({"suite": "sm"}, "suite"),
        ({"columns_hash": bytes(32)}, "hash"),
    ],
)
def test_a_batch_that_is_not_what_it_says_is_refused(change: dict[str, object], word: str) -> None:
    message = position_pb2.Batch.FromString(a_batch().raw)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ZaibeiError, match=word) as caught:
        open_batch(message.SerializeToString())
    assert caught.value.code == Code.MALFORMED


def test_a_forged_chain_is_refused() -> None:
    message = position_pb2.Batch.FromString(a_batch().raw)
    message.after.chain = bytes(32)
    with pytest.raises(ZaibeiError, match="chain"):
        open_batch(message.SerializeToString())


def test_a_batch_never_crosses_an_epoch() -> None:
    message = position_pb2.Batch.FromString(a_batch().raw)
    message.after.epoch = 2
    with pytest.raises(ZaibeiError, match="cannot lead"):
        open_batch(message.SerializeToString())


def test_the_limits_of_a_cut() -> None:
    with pytest.raises(ZaibeiError):
        cut_batch("s", START, b"", 0, 0)
    with pytest.raises(ZaibeiError):
        cut_batch("s", START, b"", BATCH_CHANGES_MAX + 1, 0)
    with pytest.raises(ZaibeiError):
        cut_batch("s", START, bytes(BATCH_COLUMNS_OCTETS_MAX + 1), 1, 0)
    with pytest.raises(ZaibeiError):
        open_batch(bytes(BATCH_OCTETS_MAX + 1))


@given(st.binary(max_size=200))
def test_any_octets_end_in_a_batch_or_a_clear_refusal(octets: bytes) -> None:
    try:
        open_batch(octets)
    except ZaibeiError as exc:
        assert exc.code == Code.MALFORMED


def test_positions_cover_by_place_within_a_lineage_only() -> None:
    after = a_batch().after
    assert after.covers(START)
    assert not START.covers(after)
    assert not replace(after, lineage=LINEAGE[::-1]).covers(START)
