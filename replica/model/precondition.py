"""What must hold of a key for a registration to be carried out: tested at the leader, and again at apply on every member."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

from replica.model.errors import Code, ZaibeiError
from replica.v1 import entry_pb2

HASH_OCTETS = 32


class Must(IntEnum):
    """Numbers of replica.v1.Precondition.Kind; persistent."""

    NOTHING = 0
    ABSENT = 1
    PRESENT = 2
    EQUAL = 3


def value_hash(value: bytes) -> bytes:
    """What `Must.EQUAL` compares: SHA-256 of a record as it is stored."""
    return sha256(value).digest()


@dataclass(frozen=True, slots=True)
class Precondition:
    """Of one key. `value_hash`: of the value that must be there, for `Must.EQUAL`. `move`: act of the move that drops it."""

    must: Must = Must.NOTHING
    value_hash: bytes = b""
    move: str = ""

    def met_by(self, value: bytes | None) -> bool:
        """Does it hold where this value is stored? None: no record is."""
        match self.must:
            case Must.NOTHING:
                return True
            case Must.ABSENT:
                return value is None
            case Must.PRESENT:
                return value is not None
        return value is not None and value_hash(value) == self.value_hash

    def __str__(self) -> str:
        match self.must:
            case Must.NOTHING:
                return "nothing"
            case Must.ABSENT:
                return "no record"
            case Must.PRESENT:
                return "a record"
        return f"the record {self.value_hash[:4].hex()}…"

    def to_wire(self) -> entry_pb2.Precondition:
        """For reading alone: the usual one is made once."""
        if self is NOTHING:
            return _NOTHING_WIRE
        kind = entry_pb2.Precondition.Kind.ValueType(int(self.must))
        return entry_pb2.Precondition(kind=kind, value_hash=self.value_hash, move=self.move)

    @staticmethod
    def from_wire(message: entry_pb2.Precondition) -> Precondition:
        """Raises ZaibeiError(MALFORMED): a kind that is not known, or a hash of another length than its kind wants."""
        if not (message.kind or message.value_hash or message.move):
            return NOTHING
        try:
            must = Must(message.kind)
        except ValueError:
            raise ZaibeiError(Code.MALFORMED, f"precondition {message.kind} is not known: 0 to {max(Must)}") from None
        wanted = HASH_OCTETS if must is Must.EQUAL else 0
        if len(message.value_hash) != wanted:
            raise ZaibeiError(
                Code.MALFORMED, f"a precondition {must.name} has a hash of {wanted} octets, not {len(message.value_hash)}"
            )
        return Precondition(must, message.value_hash, message.move)


NOTHING = Precondition()
_NOTHING_WIRE = entry_pb2.Precondition()
ABSENT = Precondition(Must.ABSENT)
PRESENT = Precondition(Must.PRESENT)


def equal_to(value: bytes) -> Precondition:
    """The record must be stored exactly as this one."""
    return Precondition(Must.EQUAL, value_hash(value))
