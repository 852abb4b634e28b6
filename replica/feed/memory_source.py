"""Memory twin of a source's log: a small registry that keeps all its batches, for tests and drills."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256

from replica.feed.memory_store import Content, change, digest_answer, digest_of
from replica.model.batch import BATCH_FORMAT, SUITE, Batch, Change, columns_of, cut_batch, open_batch
from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN, Position
from replica.model.signing import Signer, certificate_octets, snapshot_octets
from replica.v1 import position_pb2, source_pb2

PART_RECORDS = 500


class MemorySourceLog:
    """A source in memory; `write` is its registry's side. Satisfies `SourceLog`."""

    def __init__(self, source: str, signer: Signer, prefixes: Sequence[str] = (), beat_interval_ms: int = 500) -> None:
        self.source, self.signer, self.prefixes = source, signer, tuple(prefixes)
        self.beat_interval_ms = beat_interval_ms
        self.content: Content = {}
        self.batches: list[Batch] = []
        self.boundaries: dict[tuple[int, int], Position] = {(0, 0): ORIGIN}
        self.contents: dict[Position, Content] = {ORIGIN: {}}
        self.receipts: list[source_pb2.Receipt] = []
        self.retained: list[tuple[Position, int]] = []
        self.wanted = ""
        self.wall_ms = 0
        self._head = self._floor = ORIGIN
        self._moved = asyncio.Event()

    # -- the registry's side

    def write(self, changes: Sequence[Change]) -> Batch:
        """Cut one batch of changes; on "disk" at once."""
        batch = cut_batch(self.source, self._head, columns_of(changes), len(changes), self.wall_ms)
        self.batches.append(batch)
        change(self.content, batch)
        self._at(batch.after)
        return batch

    def _at(self, head: Position) -> None:
        self._head = head
        self.boundaries[head.place] = head
        self.contents[head] = dict(self.content)
        self._moved.set()

    def forget_before(self, floor: Position) -> None:
        """Batches up to `floor` are gone; chains are kept."""
        self._floor = floor
        self.batches = [batch for batch in self.batches if batch.before.seq >= floor.seq and batch.before.epoch >= floor.epoch]

    def rewind(self, to: Position) -> None:
        """Restored from an old backup: the history after `to` never happened."""
        self.batches = [batch for batch in self.batches if batch.after.place <= to.place]
        self.boundaries = {place: one for place, one in self.boundaries.items() if place <= to.place}
        self.content = dict(self.contents[to])
        self._at(to)

    # -- SourceLog

    def describe(self) -> source_pb2.Description:
        return source_pb2.Description(
            source=self.source,
            title=self.source,
            suite=SUITE,
            formats=[BATCH_FORMAT],
            prefixes=self.prefixes,
            mode=source_pb2.Description.MODE_RECORDS,
            fence=source_pb2.Description.FENCE_NONE,
            deletes=source_pb2.Description.DELETES_IN_LOG,
            head=self._head.to_wire(),
            floor=self._floor.to_wire(),
            shards=1,
            beat_interval_ms=self.beat_interval_ms,
        )

    def head(self) -> Position:
        return self._head

    def floor(self) -> Position:
        return self._floor

    def prove(self, position: Position) -> source_pb2.Proof:
        ours = self.boundaries.get(position.place)
        if ours is None:
            return source_pb2.Proof(result=source_pb2.Proof.RESULT_UNKNOWN)
        result = source_pb2.Proof.RESULT_PROVED if ours == position else source_pb2.Proof.RESULT_DIFFERENT
        return source_pb2.Proof(result=result, position=ours.to_wire())

    def read(self, after: Position, octets_max: int) -> list[bytes] | None:
        if after == self._head:
            return []
        if self.boundaries.get(after.place) != after or after.place < self._floor.place:
            return None
        found: list[bytes] = []
        size, at = 0, after
        for batch in self.batches:
            if batch.before == at:
                size += len(batch.raw)
                if found and size > octets_max:
                    break
                found.append(batch.raw)
                at = batch.after
        return found or None

    async def wait(self, after: Position, timeout_s: float) -> None:
        if self._head == after:
            self._moved.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._moved.wait()
            except TimeoutError:
                pass

    def certificate(self, position: Position) -> position_pb2.Certificate | None:
        content = self.contents.get(position)
        if content is None:
            return None
        digest = digest_of(content, position)
        signature = self.signer.sign(certificate_octets(self.source, 0, digest, self.wall_ms))
        return position_pb2.Certificate(source=self.source, digest=digest.to_wire(), stated_ms=self.wall_ms, signature=signature)

    def epoch_wanted(self) -> str:
        return self.wanted

    async def accept_grant(self, grant: source_pb2.Grant) -> Position:
        return self.take_grant(grant)

    def take_grant(self, grant: source_pb2.Grant) -> Position:
        """Raises ZaibeiError(CONFLICT)."""
        parent, start = Position.from_wire(grant.parent), Position.from_wire(grant.start)
        if start != self._head:
            if parent != self._head:
                raise ZaibeiError(Code.CONFLICT, f"our head is {self._head.short()}, not {parent.short()}", retry=True)
            self._at(start)
            self.wanted = ""
        return start

    def receipt(self, receipt: source_pb2.Receipt) -> None:
        self.receipts.append(receipt)

    def retain(self, from_position: Position, duration_ms: int) -> None:
        self.retained.append((from_position, duration_ms))

    async def snapshot(self, request: source_pb2.SnapshotRequest) -> AsyncIterator[source_pb2.SnapshotPart]:
        del request
        for part in self.snapshot_parts():
            yield part

    def snapshot_parts(self) -> list[source_pb2.SnapshotPart]:
        """The whole snapshot at the head."""
        position, items = self._head, sorted(self.content.items())
        header = source_pb2.SnapshotHeader(
            format=1, suite=SUITE, source=self.source, snapshot_id=position.chain[:16], position=position.to_wire(),
            records_estimate=len(items),
        )  # fmt: skip
        parts, whole = [source_pb2.SnapshotPart(header=header)], sha256()
        for number, start in enumerate(range(0, len(items), PART_RECORDS)):
            columns = columns_of([Change(1, key, value) for key, value in items[start : start + PART_RECORDS]])
            whole.update(columns)
            parts.append(source_pb2.SnapshotPart(chunk=source_pb2.SnapshotChunk(part=number, columns=columns)))
        digest: ContentDigest = digest_of(self.content, position)
        end = source_pb2.SnapshotEnd(parts=len(parts) - 1, digest=digest.to_wire(), ordered_hash=whole.digest())
        end.signature.CopyFrom(self.signer.sign(snapshot_octets(self.source, digest, end.parts, end.ordered_hash)))
        parts.append(source_pb2.SnapshotPart(end=end))
        return parts

    def digest(self, request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
        position = Position.from_wire(request.position)
        content = self.contents.get(position)
        if content is None:
            return source_pb2.DigestResponse(pinned=False)
        return digest_answer(content, position, request.level, request.bucket)


def after_of(raw: bytes) -> Position:
    """End boundary of a serialized batch of our own."""
    return open_batch(raw, verify=False).after
