"""Synthetic registrations: shaped like the Handle records of a product registry, 240 octets raw (key and value together).

Synthetic means: one URL, one description, one HS_ADMIN; serials and lot numbers vary, the rest repeats as in one
enterprise's registry. Real registries compress better or worse; no disk figure taken on these is a promise about yours.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from replica.model.batch import BATCH_CHANGES_MAX, OP_PUT, Batch, cut_batch
from replica.model.position import Position
from replica.v1 import position_pb2

RAW_OCTETS = 240
PREFIX_KEY = b"h88\x01118\x018\x00"
_STAMP = (1_700_000_000).to_bytes(4, "big")
_TAIL = bytes.fromhex("0fff0000000d302e4e412f38382e3131382e380000012c")  # HS_ADMIN, all bits, 0.NA/88.118.8:300
_FILLER = b" line 4, checked, industrial controller type"  # brings a record to RAW_OCTETS


def _value(index: int, kind: bytes, data: bytes) -> bytes:
    return b"".join(
        (
            index.to_bytes(4, "big"), _STAMP, b"\0", (86_400).to_bytes(4, "big"), b"\x0e",
            len(kind).to_bytes(4, "big"), kind, len(data).to_bytes(4, "big"), data, bytes(4),
        )
    )  # fmt: skip


def serial(number: int) -> bytes:
    """A 16-octet serial; multiplication by an odd constant spreads neighbours over the key space."""
    return b"%016X" % ((number * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)


def record(number: int, version: int = 0) -> tuple[bytes, bytes]:
    """(key, value) of one record, RAW_OCTETS together."""
    name = serial(number)
    key = PREFIX_KEY + name
    values = (
        _value(1, b"URL", b"https://id.example.cn/p/" + name),
        _value(2, b"LOT", b"%07x-%02d" % (number * 2_654_435_761 % 0xFFFFFFF, version % 100) + _FILLER),
        _value(100, b"HS_ADMIN", _TAIL),
    )
    return key, b"\x01" + len(values).to_bytes(4, "big") + b"".join(values)


def columns(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Columns octets that put these records."""
    return position_pb2.Columns(
        keys=[key for key, _ in pairs], values=[value for _, value in pairs], ops=bytes((OP_PUT,)) * len(pairs)
    ).SerializeToString()


@dataclass(slots=True)
class Stream:
    """Batches of a synthetic source, one after the other.

    Args:
        source: name of the source.
        position: where the next batch starts; moves on.
    """

    source: str
    position: Position

    def inserts(self, start: int, count: int, batch: int = BATCH_CHANGES_MAX) -> Iterator[Batch]:
        """Batches that insert records number start to start + count."""
        for first in range(start, start + count, batch):
            yield self._cut([record(number) for number in range(first, min(first + batch, start + count))])

    def updates(self, among: int, count: int, seed: int, batch: int = BATCH_CHANGES_MAX) -> Iterator[Batch]:
        """Batches that rewrite `count` records drawn at random among the first `among`."""
        draw = random.Random(seed)
        for first in range(0, count, batch):
            numbers = draw.sample(range(among), min(batch, count - first))
            yield self._cut([record(number, version=1 + seed) for number in numbers])

    def _cut(self, pairs: list[tuple[bytes, bytes]]) -> Batch:
        cut = cut_batch(self.source, self.position, columns(pairs), len(pairs), 0)
        self.position = cut.after
        return cut
