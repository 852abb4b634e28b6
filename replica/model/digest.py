"""Digest of content, comparable between source and copy at the same position (SEMANTICS 10).

record hash = first 16 octets of SHA-256(u32be key length | key | value), a little-endian number;
bucket = CRC-32 of the key >> 16 (65,536 buckets); a sum is the record hashes of its bucket added mod 2^128;
level 1 adds 256 neighbouring buckets, level 0 all. A sum finds loss and drift, not an attacker: signed snapshots
also carry an ordered SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass

from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.v1 import position_pb2

DIGEST_FORMAT = 1
ALGORITHM = "sum128-sha256/crc32-65536"
BUCKETS = 65_536
LEVEL1_BUCKETS = 256
SUM_OCTETS = 24  # u64le count, u128le sum
MODULUS = 1 << 128


@dataclass(frozen=True, slots=True)
class ContentDigest:
    """Total of a registry at a position.

    Args:
        position: what it is the content of.
        records: number of keys.
        total: sum mod 2^128.
    """

    position: Position
    records: int
    total: int

    def same_content(self, other: ContentDigest) -> bool:
        """Equal content; the caller has made sure that the positions are the ones to compare."""
        return (self.records, self.total) == (other.records, other.total)

    def to_wire(self) -> position_pb2.ContentDigest:
        return position_pb2.ContentDigest(
            format=DIGEST_FORMAT,
            algorithm=ALGORITHM,
            position=self.position.to_wire(),
            records=self.records,
            sum=self.total.to_bytes(16, "little"),
        )

    @staticmethod
    def from_wire(message: position_pb2.ContentDigest) -> ContentDigest:
        """Raises ZaibeiError(MALFORMED)."""
        if message.format != DIGEST_FORMAT or message.algorithm != ALGORITHM or len(message.sum) != 16:
            raise ZaibeiError(
                Code.MALFORMED, f"digest format {message.format}, algorithm {message.algorithm!r}: we speak 1, {ALGORITHM!r}"
            )
        return ContentDigest(Position.from_wire(message.position), message.records, int.from_bytes(message.sum, "little"))
