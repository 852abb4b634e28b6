"""Reading a generation out: a consistent snapshot in parts, ranges, and the digest's buckets (we are a source too)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from zlib import crc32

from rocksdict import RdictIter

from replica import native
from replica.model.batch import BATCH_COLUMNS_OCTETS_MAX
from replica.model.digest import LEVEL1_BUCKETS, MODULUS, SUM_OCTETS, ContentDigest
from replica.model.errors import Code, ZaibeiError, require
from replica.model.position import Position
from replica.store.edge_generation import Generation
from replica.store.rows import ESCAPED_RECORDS, PLAIN_RECORDS, POSITION_KEY, PositionRow, record_key, stored_key
from replica.v1 import position_pb2, source_pb2

PART_RECORDS_MAX = 16_384
FIELD_OCTETS_MAX = 13  # tags and lengths of a key and a value, and the op, beside their octets
SNAPSHOT_FORMAT = 1


def records(generation: Generation, moment: RdictIter | None = None) -> Iterator[tuple[bytes, bytes]]:
    """All records, keys ascending, at one moment per range, or at the given one. Raises ZaibeiError(DAMAGED)."""
    for stored, value in generation.rocks.rows(*ESCAPED_RECORDS, moment):
        yield record_key(stored), value
    yield from generation.rocks.rows(*PLAIN_RECORDS, moment)


def read_range(generation: Generation, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
    """Records with start <= key < stop, at most `limit`; only keys of a known kind. Raises ZaibeiError(DAMAGED)."""
    rows = generation.rocks.rows(max(stored_key(start), PLAIN_RECORDS[0]), min(stop, PLAIN_RECORDS[1]))
    return [*islice(rows, limit)]


@dataclass(frozen=True, slots=True)
class Pinned:
    """Digest, sums and content at the newest certificate's position, for finding a difference by bisection.

    Args:
        index: applied when it was pinned; lock: one bucket is read at a time.
    """

    digest: ContentDigest
    sums: bytes
    content: RdictIter
    index: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bucket_keys(self, generation: Generation, bucket: int) -> tuple[list[bytes], list[bytes]]:
        """Keys and hashes of one bucket. Raises ZaibeiError(DAMAGED)."""
        keys, hashes = [], []
        with self.lock:
            for key, value in records(generation, self.content):
                if crc32(key) >> 16 == bucket:
                    keys.append(key)
                    hashes.append(native.record_hash(key, value))
        return keys, hashes

    def named_keys(self, generation: Generation, bucket: int, named: Sequence[bytes]) -> tuple[list[bytes], list[bytes]] | None:
        """Keys and hashes of a bucket where it holds no other keys than `named`; None: it does, and must be looked for.

        Costs a seek a key, while `bucket_keys` reads the whole content. The bucket's pinned sum says whether these are all.
        """
        found: list[tuple[bytes, bytes]] = []
        with self.lock:
            for key in sorted(set(named)):
                stored = stored_key(key)
                for at, value in generation.rocks.rows(stored, stored + b"\0", self.content):
                    found.extend([(key, native.record_hash(key, value))] if at == stored else [])
        total = sum(int.from_bytes(octets, "little") for _, octets in found) % MODULUS
        stated = self.sums[bucket * SUM_OCTETS : (bucket + 1) * SUM_OCTETS]
        if stated != len(found).to_bytes(8, "little") + total.to_bytes(16, "little"):
            return None
        return [key for key, _ in found], [octets for _, octets in found]

    def answer(
        self, generation: Generation, request: source_pb2.DigestRequest, named: Sequence[bytes] = ()
    ) -> source_pb2.DigestResponse:
        """See DigestRequest.level; `named`: keys the other side has in that bucket. Raises ZaibeiError(MALFORMED)."""
        response = source_pb2.DigestResponse(digest=self.digest.to_wire(), pinned=True)
        width = LEVEL1_BUCKETS * SUM_OCTETS
        if request.level == 1:
            response.sums = native.level1(self.sums)
        elif request.level == 2 and request.bucket < LEVEL1_BUCKETS:
            response.sums = self.sums[request.bucket * width : (request.bucket + 1) * width]
        elif request.level == 3 and request.bucket < LEVEL1_BUCKETS**2:
            few = self.named_keys(generation, request.bucket, named) if named else None
            keys, hashes = few or self.bucket_keys(generation, request.bucket)
            response.keys.extend(keys)
            response.hashes.extend(hashes)
        elif request.level:
            raise ZaibeiError(Code.MALFORMED, f"a digest has levels 0 to 3; asked for {request.level}, bucket {request.bucket}")
        return response


class SnapshotReader:
    """The full content at exactly one position. Close it: it holds old versions of everything that changes meanwhile.

    Args:
        release: called once at `close`.
    """

    def __init__(self, generation: Generation, source: str, snapshot_id: bytes, release: Callable[[], None]) -> None:
        self._generation, self._source, self._release = generation, source, release
        self.snapshot_id = snapshot_id
        self._content: RdictIter | None = generation.rocks.moment()
        try:
            row = PositionRow.unpack(next(generation.rocks.rows(POSITION_KEY, ESCAPED_RECORDS[0], self._content))[1])
        except ZaibeiError:
            self.close()
            raise
        self.digest = ContentDigest(row.position, row.records, row.total)
        self._starts: list[tuple[bytes, object]] = [(b"", sha256())]

    @property
    def position(self) -> Position:
        return self.digest.position

    def parts(self, first_part: int = 0) -> Iterator[source_pb2.SnapshotPart]:
        """Header, chunks from `first_part` on, end (unsigned). Blocks; not on the event loop; one such call at a time.

        Raises:
            ZaibeiError: NOT_FOUND (a part that was never made), DAMAGED.
        """
        if self._content is None or not 0 <= first_part < len(self._starts):
            raise ZaibeiError(Code.NOT_FOUND, f"part {first_part} of this snapshot is not known: begin a new one")
        header = source_pb2.SnapshotHeader(
            format=SNAPSHOT_FORMAT, suite="std", source=self._source, snapshot_id=self.snapshot_id,
            position=self.position.to_wire(), records_estimate=self.digest.records,
        )  # fmt: skip
        yield source_pb2.SnapshotPart(header=header)
        start, before = self._starts[first_part]
        hashed = before.copy()  # type: ignore[attr-defined]
        part = first_part
        for columns, following in self._columns(start):
            hashed.update(columns)
            part += 1
            if part == len(self._starts):
                self._starts.append((following, hashed.copy()))
            yield source_pb2.SnapshotPart(chunk=source_pb2.SnapshotChunk(part=part - 1, columns=columns))
        self._moment()  # rows that were given up end early
        end = source_pb2.SnapshotEnd(parts=part, digest=self.digest.to_wire(), ordered_hash=hashed.digest())
        yield source_pb2.SnapshotPart(end=end)

    def _columns(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(columns, a key behind their last one and before the next one)."""
        keys: list[bytes] = []
        values: list[bytes] = []
        octets = 0
        for key, value in self._records_from(start):
            size = len(key) + len(value) + FIELD_OCTETS_MAX
            if keys and (octets + size > BATCH_COLUMNS_OCTETS_MAX - 16 or len(keys) == PART_RECORDS_MAX):
                yield _pack(keys, values), key
                keys, values, octets = [], [], 0
            keys.append(key)
            values.append(value)
            octets += size
        if keys:
            yield _pack(keys, values), keys[-1] + b"\0"

    def _records_from(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        if start < b"\x01":
            for stored, value in self._rows(max(stored_key(start), ESCAPED_RECORDS[0]), ESCAPED_RECORDS[1]):
                yield record_key(stored), value
        yield from self._rows(max(start, PLAIN_RECORDS[0]), PLAIN_RECORDS[1])

    def _rows(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._generation.rocks.rows(start, stop, self._moment())

    def _moment(self) -> RdictIter:
        """`_content` alone holds it, so that it is gone with `close`, whoever still has parts. Raises ZaibeiError(NOT_FOUND)."""
        if self._content is None:
            raise ZaibeiError(Code.NOT_FOUND, "this snapshot was closed: begin a new one")
        return self._content

    def close(self) -> None:
        """Let the content go. Idempotent."""
        if self._content is not None:
            self._content = None
            self._release()


def _pack(keys: list[bytes], values: list[bytes]) -> bytes:
    columns = position_pb2.Columns(keys=keys, values=values, ops=b"\x01" * len(keys)).SerializeToString()
    require(len(columns) <= BATCH_COLUMNS_OCTETS_MAX, "a part of a snapshot is over its limit")
    return columns
