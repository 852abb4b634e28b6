"""Pinned sums: the digest buckets as they were at the newest certificates, and the answers to questions about them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from replica.model.digest import LEVEL1_BUCKETS, SUM_OCTETS, ContentDigest
from replica.model.position import Position
from replica.native import level1, record_hash
from replica.v1 import source_pb2

PINS_MAX = 4  # sums of 1.5 MB each

Bucket = Callable[[int], Sequence[tuple[bytes, bytes]]]


class Pins:
    """Sums by position, the newest few."""

    def __init__(self) -> None:
        self._sums: OrderedDict[Position, bytes] = OrderedDict()

    def __contains__(self, position: Position) -> bool:
        return position in self._sums

    def add(self, position: Position, sums: bytes) -> None:
        self._sums[position] = sums
        while len(self._sums) > PINS_MAX:
            self._sums.popitem(last=False)

    def clear(self) -> None:
        self._sums.clear()

    def get(self, position: Position) -> bytes | None:
        return self._sums.get(position)


def answer(
    request: source_pb2.DigestRequest, digest: ContentDigest | None, sums: bytes | None, bucket: Bucket
) -> source_pb2.DigestResponse:
    """Answer one question of a bisection.

    Args:
        digest: total at the position asked about, None when that is no boundary of ours.
        sums: the buckets pinned there, None when they are no longer held.
        bucket: reads the records of one bucket as they are now.
    Returns:
        `pinned` False when the answer says nothing about that position.
    """
    if digest is None:
        return source_pb2.DigestResponse(pinned=False)
    response = source_pb2.DigestResponse(digest=digest.to_wire(), pinned=sums is not None)
    if sums is None:
        return response
    if request.level == 1:
        response.sums = level1(sums)
    elif request.level == 2 and request.bucket < LEVEL1_BUCKETS:
        size = LEVEL1_BUCKETS * SUM_OCTETS
        response.sums = sums[request.bucket * size : (request.bucket + 1) * size]
    elif request.level == 3 and request.bucket < LEVEL1_BUCKETS * LEVEL1_BUCKETS:
        pinned = sums[request.bucket * SUM_OCTETS : (request.bucket + 1) * SUM_OCTETS]
        _keys(bucket(request.bucket), pinned, response)
    return response


def _keys(records: Sequence[tuple[bytes, bytes]], pinned: bytes, response: source_pb2.DigestResponse) -> None:
    """Keys of a bucket; the content moves on, so they are said only when the bucket still has the pinned sum."""
    hashes = [record_hash(key, value) for key, value in records]
    total = sum(int.from_bytes(octets, "little") for octets in hashes) % (1 << 128)
    if pinned != len(records).to_bytes(8, "little") + total.to_bytes(16, "little"):
        response.pinned = False
        return
    response.keys.extend(key for key, _ in records)
    response.hashes.extend(hashes)
