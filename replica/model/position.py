"""Position: a batch boundary in one source's history, and the hash chain that makes a fork visible.

Octets hashed (suite "std", all integers big-endian):
    chain after a batch = SHA-256("zaibei-chain-1\\0" | chain before | u64 epoch | u64 seq after | u32 count |
        columns hash)
    chain at the start of an epoch = SHA-256("zaibei-epoch-1\\0" | lineage | u64 epoch | parent lineage |
        u64 parent epoch | u64 seq | parent chain)
    chain before any change = 32 zero octets (epoch 0, seq 0)
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from replica.model.errors import Code, ZaibeiError, require
from replica.v1 import position_pb2

LINEAGE_OCTETS = 16
CHAIN_OCTETS = 32
NO_CHAIN = bytes(CHAIN_OCTETS)
NO_LINEAGE = bytes(LINEAGE_OCTETS)
SEQ_MAX = 2**63 - 1
RESTORE_EPOCH_SKIP = 2**20


@dataclass(frozen=True, slots=True, order=False)
class Position:
    """A batch boundary.

    Args:
        lineage: 16 octets, incarnation of the copying cluster.
        epoch: incarnation of the source's authority; 0 is the source's own history before it met us.
        seq: number of the last change at or before the boundary.
        chain: 32 octets.
    """

    lineage: bytes
    epoch: int
    seq: int
    chain: bytes

    def __post_init__(self) -> None:
        if len(self.lineage) != LINEAGE_OCTETS or len(self.chain) != CHAIN_OCTETS:
            raise ZaibeiError(Code.MALFORMED, "a position needs a lineage of 16 and a chain of 32 octets")
        if not (0 <= self.epoch <= SEQ_MAX and 0 <= self.seq <= SEQ_MAX):
            raise ZaibeiError(Code.MALFORMED, "epoch and seq of a position are numbers from 0 to 2^63-1")

    @property
    def place(self) -> tuple[int, int]:
        """(epoch, seq): comparable between positions of one lineage; says nothing about a fork."""
        return (self.epoch, self.seq)

    def covers(self, other: Position) -> bool:
        """True when `other` lies at or before this boundary by place, in the same lineage."""
        return self.lineage == other.lineage and self.place >= other.place

    def __str__(self) -> str:
        return f"{self.lineage.hex()}:{self.epoch:016x}:{self.seq:016x}:{self.chain.hex()}"

    def short(self) -> str:
        """For people: `epoch/seq·chain4`."""
        return f"{self.epoch}/{self.seq}·{self.chain[:4].hex()}"

    @staticmethod
    def parse(text: str) -> Position:
        """Inverse of `str`. Raises ZaibeiError(MALFORMED)."""
        try:
            lineage, epoch, seq, chain = text.split(":")
            return Position(bytes.fromhex(lineage), int(epoch, 16), int(seq, 16), bytes.fromhex(chain))
        except ValueError:
            raise ZaibeiError(Code.MALFORMED, f"not a position: {text[:120]!r}") from None

    def to_wire(self) -> position_pb2.Position:
        return position_pb2.Position(lineage=self.lineage, epoch=self.epoch, seq=self.seq, chain=self.chain)

    @staticmethod
    def from_wire(message: position_pb2.Position) -> Position:
        """Raises ZaibeiError(MALFORMED)."""
        return Position(message.lineage, message.epoch, message.seq, message.chain)


ORIGIN = Position(NO_LINEAGE, 0, 0, NO_CHAIN)
"""Before any change of a source that has never met us."""


def chain_next(before: bytes, epoch: int, seq_after: int, count: int, columns_hash: bytes) -> bytes:
    """Chain after one batch; see the octets in the module docstring."""
    return sha256(
        b"zaibei-chain-1\0"
        + before
        + epoch.to_bytes(8, "big")
        + seq_after.to_bytes(8, "big")
        + count.to_bytes(4, "big")
        + columns_hash
    ).digest()


def epoch_start(parent: Position, lineage: bytes, epoch: int) -> Position:
    """First position of a granted epoch: the parent's seq, a chain bound to parent, epoch and lineage.

    Raises:
        InvariantBroken: the epoch does not rise within a lineage.
    """
    require(lineage != parent.lineage or epoch > parent.epoch, "an epoch must rise")
    chain = sha256(
        b"zaibei-epoch-1\0"
        + lineage
        + epoch.to_bytes(8, "big")
        + parent.lineage
        + parent.epoch.to_bytes(8, "big")
        + parent.seq.to_bytes(8, "big")
        + parent.chain
    ).digest()
    return Position(lineage, epoch, parent.seq, chain)
