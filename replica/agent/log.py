"""The agent's own log, as octets and arithmetic: frames of a segment, what a reopened segment is good for, the index.

A segment is a run of frames; its first frame is the head. Octets of a frame (big-endian):
    magic "ZBf1" | u32 length of kind and body | u32 CRC-32 of everything behind it | u64 synced | kind octet | body
`synced` is the length of this segment that an fsync was known to cover when the frame was written: a bad frame below a later
frame's `synced` is damage, a bad frame behind all of them is a write that a crash cut off and nobody was told of.
Kinds: H head (JSON: format, source, position the segment starts at, grant or null), B a serialized replica.v1.Batch.
Source: our own design; SEMANTICS 12 (fsynced before a batch is sent or offered).
"""

from __future__ import annotations

import json
import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.v1 import source_pb2

MAGIC = b"ZBf1"
LOG_FORMAT = 1
KIND_HEAD, KIND_BATCH = 0x48, 0x42
FRAME_OCTETS_MAX = 4 * 1024 * 1024
SEGMENT_OCTETS_MAX = 16 * 1024 * 1024
SEGMENT_BATCHES_MAX = 65_536

_PREFIX = struct.Struct(">4sII")
_BODY = struct.Struct(">QB")
FRAME_OVERHEAD_OCTETS = _PREFIX.size + _BODY.size


@dataclass(frozen=True, slots=True)
class Frame:
    """A valid frame: `offset` of its magic, `start` and `end` of its body inside the segment."""

    offset: int
    kind: int
    start: int
    end: int
    synced: int


@dataclass(frozen=True, slots=True)
class Walk:
    """What a segment's octets hold.

    Args:
        frames: valid frames from the start on, without a hole.
        end: where they end; octets behind it are not to be trusted.
        torn: why reading stopped before the end of the octets; "" when it did not.
        damaged: the bad octets lie where an fsync had returned: nothing heals that.
    """

    frames: tuple[Frame, ...]
    end: int
    torn: str = ""
    damaged: bool = False


def frame(kind: int, body: bytes, synced: int) -> bytes:
    """One frame. Raises ZaibeiError(MALFORMED) over FRAME_OCTETS_MAX."""
    if len(body) > FRAME_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a frame of {len(body)} octets is over {FRAME_OCTETS_MAX}")
    rest = _BODY.pack(synced, kind) + body
    return _PREFIX.pack(MAGIC, len(body) + 1, zlib.crc32(rest)) + rest


def _frame_at(octets: bytes, offset: int) -> Frame | str:
    """The frame at an offset, or why there is none."""
    if len(octets) - offset < FRAME_OVERHEAD_OCTETS:
        return "the last frame is cut off"
    magic, length, checksum = _PREFIX.unpack_from(octets, offset)
    if magic != MAGIC:
        return "no frame starts here"
    if not 1 <= length <= FRAME_OCTETS_MAX + 1:
        return f"a frame of {length} octets cannot be"
    start, end = offset + FRAME_OVERHEAD_OCTETS, offset + FRAME_OVERHEAD_OCTETS + length - 1
    if end > len(octets):
        return "the last frame is cut off"
    if zlib.crc32(memoryview(octets)[offset + _PREFIX.size : end]) != checksum:
        return "a frame does not have its checksum"
    synced, kind = _BODY.unpack_from(octets, offset + _PREFIX.size)
    return Frame(offset, kind, start, end, synced)


def walk(octets: bytes, *, last: bool) -> Walk:
    """Read a segment as found on disk.

    Args:
        octets: the whole file.
        last: True for the newest segment: only there a cut-off end is no damage (an older one was fsynced before the next began).
    Returns:
        Valid frames and the judgement on what follows them.
    """
    frames: list[Frame] = []
    offset = 0
    while offset < len(octets):
        found = _frame_at(octets, offset)
        if isinstance(found, str):
            return Walk(tuple(frames), offset, f"{found} (octet {offset})", not last or _vouched(octets, offset))
        frames.append(found)
        offset = found.end
    return Walk(tuple(frames), offset)


def _vouched(octets: bytes, bad: int) -> bool:
    """True when a valid frame behind `bad` says that an fsync covered it."""
    at = octets.find(MAGIC, bad + 1)
    while at >= 0:
        found = _frame_at(octets, at)
        if isinstance(found, Frame) and found.synced > bad:
            return True
        at = octets.find(MAGIC, at + 1)
    return False


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """First frame of a segment. `grant`: serialized replica.v1.Grant when the segment opens a granted epoch, else empty."""

    source: str
    position: Position
    grant: bytes = b""

    def encode(self) -> bytes:
        return json.dumps(
            {"format": LOG_FORMAT, "source": self.source, "position": str(self.position), "grant": self.grant.hex()}
        ).encode()

    @staticmethod
    def decode(octets: bytes) -> SegmentHead:
        """Raises ZaibeiError(DAMAGED)."""
        try:
            fields = json.loads(octets)
            if fields["format"] != LOG_FORMAT:
                raise ZaibeiError(Code.DAMAGED, f"log format {fields['format']}: this version reads {LOG_FORMAT}")
            return SegmentHead(str(fields["source"]), Position.parse(fields["position"]), bytes.fromhex(fields["grant"]))
        except (ValueError, KeyError, TypeError) as exc:
            raise ZaibeiError(Code.DAMAGED, f"not the head of a log segment: {exc}") from exc


@dataclass(slots=True)
class Segment:
    """Index of one segment: where each batch lies. Batches of one segment are of one epoch.

    Args:
        number: rises by one; names the file.
        start: position before its first batch; `end`: after its last.
        befores: seq before each batch, ascending; `offsets`: where its frame's body starts; `ends`: and ends.
    """

    number: int
    start: Position
    end: Position
    octets: int = 0
    befores: array[int] = field(default_factory=lambda: array("Q"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, after: Position, body_start: int, body_end: int) -> None:
        self.offsets.append(body_start)
        self.ends.append(body_end)
        self.befores.append(self.end.seq)  # behind the others: readers on other threads count by it
        self.end = after

    def find(self, seq: int) -> int | None:
        """Number of the batch that follows the boundary at `seq`; None when no boundary (with a batch behind it) is there."""
        number = bisect_left(self.befores, seq)
        return number if number < len(self.befores) and self.befores[number] == seq else None

    def holds(self, position: Position) -> bool:
        """It has this boundary: at its ends, or before one of its batches."""
        return position in (self.start, self.end) or (same_epoch(self.start, position) and self.find(position.seq) is not None)

    def full(self) -> bool:
        return self.octets >= SEGMENT_OCTETS_MAX or len(self.befores) >= SEGMENT_BATCHES_MAX


def same_epoch(one: Position, other: Position) -> bool:
    return (one.lineage, one.epoch) == (other.lineage, other.epoch)


def begins(grant: bytes, start: Position, at: Position, own_end: Position | None) -> bool:
    """Does a segment with this grant move a content that stands at `at` to its start? That of our epoch begins at the common
    position, whatever the source wrote by itself behind it; one that begins with a whole content moves nothing by itself."""
    if not grant:
        return False
    given = source_pb2.Grant.FromString(grant)
    parent = Position.from_wire(given.parent)
    return Position.from_wire(given.start) == start and (at == parent or (at == own_end and same_epoch(parent, at)))


def handed_back(grant: bytes, source: str, own_end: Position) -> bool:
    """Does this grant give the source an epoch after the one in which its own history ended? (The one between is ours.)"""
    given = source_pb2.Grant.FromString(grant)
    return given.holder == source and Position.from_wire(given.start).epoch > own_end.epoch


def locate(segments: Sequence[Segment], after: Position) -> Iterator[tuple[Segment, int]]:
    """Batches that follow a boundary, in order: (segment, number of the batch in it).

    Only batches of the boundary's own epoch: the next epoch starts at its granted position, not here.
    """
    for number, segment in enumerate(segments):
        if same_epoch(segment.start, after) and segment.start.seq <= after.seq < segment.end.seq:
            first = segment.find(after.seq)
            if first is None:
                return
            yield from ((segment, batch) for batch in range(first, len(segment.befores)))
            for later in segments[number + 1 :]:
                if not same_epoch(later.start, after):
                    return
                yield from ((later, batch) for batch in range(len(later.befores)))
            return


def floor_of(segments: Sequence[Segment]) -> Position:
    """Oldest boundary of the newest epoch from which every later batch is held. `segments`: at least one."""
    newest = segments[-1]
    oldest = newest.start
    for segment in reversed(segments):
        if not same_epoch(segment.start, newest.start):
            break
        oldest = segment.start
    return oldest
