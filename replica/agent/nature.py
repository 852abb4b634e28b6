"""Values that describe a source and its agent: what it says of itself, transactions, counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replica.model.batch import Change
from replica.model.position import Position
from replica.v1 import source_pb2

BEAT_INTERVAL_MS = 500


@dataclass(frozen=True, slots=True)
class Nature:
    """What a source says of itself, beside positions.

    Args:
        prefixes: as people write them (`88.118`, `oid:1.2.156`).
        resolution: where the registry itself answers: (protocol, address, port).
    """

    source: str
    prefixes: tuple[str, ...]
    title: str = ""
    mode: source_pb2.Description.Mode.ValueType = source_pb2.Description.MODE_RECORDS
    deletes: source_pb2.Description.Deletes.ValueType = source_pb2.Description.DELETES_BY_RESCAN
    fence: source_pb2.Description.Fence.ValueType = source_pb2.Description.FENCE_NONE
    case_sensitive: tuple[str, ...] = ()
    resolution: tuple[tuple[str, str, int], ...] = ()
    beat_interval_ms: int = BEAT_INTERVAL_MS

    def describe(self, head: Position, floor: Position) -> source_pb2.Description:
        return source_pb2.Description(
            source=self.source,
            title=self.title,
            suite="std",
            formats=[1],
            prefixes=self.prefixes,
            mode=self.mode,
            fence=self.fence,
            deletes=self.deletes,
            head=head.to_wire(),
            floor=floor.to_wire(),
            shards=1,
            resolution=[source_pb2.Endpoint(protocol=p, address=a, port=n) for p, a, n in self.resolution],
            beat_interval_ms=self.beat_interval_ms,
            case_sensitive=self.case_sensitive,
        )


@dataclass(slots=True)
class Counts:
    """For metrics and status; numbers since the process began."""

    batches: int = 0
    changes: int = 0
    receipts: int = 0
    foreign_receipts: int = 0
    grants: int = 0
    grants_refused: int = 0
    released_segments: int = 0


@dataclass(frozen=True, slots=True)
class Transaction:
    """Changes that belong together. `more`: the same transaction goes on in a later one."""

    changes: Sequence[Change]
    more: bool = False
