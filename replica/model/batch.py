"""A batch of changes: built once by the source, carried as opaque octets, checked at every door.

SEMANTICS 1.1: at most 1,000 changes and 768 KiB, never cut again afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from google.protobuf.message import DecodeError

from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position, chain_next
from replica.v1 import position_pb2

BATCH_FORMAT = 1
SUITE = "std"
BATCH_CHANGES_MAX = 1_000
BATCH_COLUMNS_OCTETS_MAX = 768 * 1024
BATCH_OCTETS_MAX = BATCH_COLUMNS_OCTETS_MAX + 4_096  # header and names beside the columns
RECORD_OCTETS_MAX = 252 * 1024
RECORD_VALUES_MAX = 2_048
KEY_OCTETS_MAX = 4_096

OP_PUT = 1
OP_DELETE = 2


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `value` is empty for a delete; keys and values as replica/model/identifier.py and record.py make them."""

    op: int
    key: bytes
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class Batch:
    """A decoded header with the untouched octets it came in.

    Args:
        raw: the serialized message, what is journaled, archived and passed on.
        columns: serialized Columns; only `replica.native` looks inside.
    """

    source: str
    shard: int
    before: Position
    after: Position
    count: int
    columns: bytes
    stated_ms: int
    continues: bool
    raw: bytes

    def __repr__(self) -> str:
        return f"Batch({self.source} {self.before.short()} -> {self.after.short()}, {self.count} changes)"


def columns_of(changes: Sequence[Change]) -> bytes:
    """Serialize changes into Columns octets."""
    return position_pb2.Columns(
        keys=[c.key for c in changes],
        values=[c.value for c in changes],
        ops=bytes([c.op for c in changes]),
    ).SerializeToString()


def cut_batch(
    source: str, before: Position, columns: bytes, count: int, stated_ms: int, *, continues: bool = False, shard: int = 0
) -> Batch:
    """Make the batch that follows `before`. The only place where a batch is born.

    Raises:
        ZaibeiError(MALFORMED): over a limit (the caller cuts smaller).
    """
    if not 1 <= count <= BATCH_CHANGES_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a batch holds 1 to {BATCH_CHANGES_MAX} changes, not {count}")
    if len(columns) > BATCH_COLUMNS_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"{len(columns)} octets of changes are over {BATCH_COLUMNS_OCTETS_MAX}: cut smaller")
    columns_hash = sha256(columns).digest()
    seq = before.seq + count
    after = Position(before.lineage, before.epoch, seq, chain_next(before.chain, before.epoch, seq, count, columns_hash))
    raw = position_pb2.Batch(
        format=BATCH_FORMAT,
        suite=SUITE,
        source=source,
        shard=shard,
        before=before.to_wire(),
        after=after.to_wire(),
        count=count,
        columns=columns,
        columns_hash=columns_hash,
        stated_ms=stated_ms,
        continues=continues,
    ).SerializeToString()
    return Batch(source, shard, before, after, count, columns, stated_ms, continues, raw)


def open_batch(raw: bytes, *, verify: bool = True) -> Batch:
    """Decode a batch and check that it is what it says: limits, hash, chain. The records inside are judged by `native.scan`.

    Args:
        raw: serialized Batch.
        verify: False only for octets read back from our own checked journal.
    Raises:
        ZaibeiError(MALFORMED): the sender's fault; nothing was applied.
    """
    if len(raw) > BATCH_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a batch of {len(raw)} octets is over {BATCH_OCTETS_MAX}")
    try:
        message = position_pb2.Batch.FromString(raw)
    except DecodeError as exc:
        raise ZaibeiError(Code.MALFORMED, f"not a batch: {exc}") from exc
    before, after = Position.from_wire(message.before), Position.from_wire(message.after)
    columns = message.columns
    if verify:
        _check(message, before, after, columns)
    return Batch(message.source, message.shard, before, after, message.count, columns, message.stated_ms, message.continues, raw)


def _check(message: position_pb2.Batch, before: Position, after: Position, columns: bytes) -> None:
    if message.format != BATCH_FORMAT or message.suite != SUITE:
        raise ZaibeiError(Code.MALFORMED, f"batch format {message.format}, suite {message.suite!r}: we speak 1, 'std'")
    if not 1 <= message.count <= BATCH_CHANGES_MAX or len(columns) > BATCH_COLUMNS_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a batch of {message.count} changes, {len(columns)} octets is over the limits")
    if (before.lineage, before.epoch) != (after.lineage, after.epoch) or after.seq != before.seq + message.count:
        raise ZaibeiError(Code.MALFORMED, f"a batch of {message.count} cannot lead from {before.short()} to {after.short()}")
    if sha256(columns).digest() != message.columns_hash:
        raise ZaibeiError(
            Code.MALFORMED, "the batch's content does not have the hash it states: damaged on its way, send again", retry=True
        )
    if chain_next(before.chain, before.epoch, after.seq, message.count, message.columns_hash) != after.chain:
        raise ZaibeiError(Code.MALFORMED, "the batch's chain does not follow from its content: the sender computes it wrongly")
