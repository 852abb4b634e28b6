"""Judges of what a source sent: snapshot parts, batches, heads and certificates. Pure: octets in, sights and faults out."""

from __future__ import annotations

from hashlib import sha256

from google.protobuf.message import DecodeError

from replica.kit.content import Contents, shown
from replica.kit.sheet import Sheet
from replica.model.batch import BATCH_CHANGES_MAX, BATCH_COLUMNS_OCTETS_MAX, BATCH_FORMAT, OP_DELETE, OP_PUT, SUITE
from replica.model.digest import ContentDigest
from replica.model.errors import ZaibeiError
from replica.model.position import ORIGIN, Position, chain_next
from replica.model.signing import certificate_octets, snapshot_octets, verify
from replica.native import ColumnsFault, split
from replica.v1 import position_pb2, source_pb2

HISTORY_KEYS_MAX = 1_000_000


class SnapshotJudge:
    """Takes every part of one snapshot in order."""

    def __init__(self, source: str, signing_key: bytes, contents: Contents, sheet: Sheet) -> None:
        self._source, self._signing_key, self._contents, self._sheet = source, signing_key, contents, sheet
        self._hash = sha256()
        self._last = b""
        self.header: source_pb2.SnapshotHeader | None = None
        self.position: Position | None = None
        self.part_hashes: list[bytes] = []
        self.ended = False

    def take(self, part: source_pb2.SnapshotPart) -> None:
        match part.WhichOneof("body"):
            case "header" if self.header is None:
                self._header(part.header)
            case "chunk" if self.header is not None and not self.ended:
                self._chunk(part.chunk)
            case "end" if self.header is not None and not self.ended:
                self._end(part.end)
            case other:
                self._sheet.fail("snapshot.parts", f"{other or 'an empty part'} out of place: header, chunks, end is the order")

    def _header(self, header: source_pb2.SnapshotHeader) -> None:
        self.header = header
        good = header.format == 1 and header.suite == SUITE and header.source == self._source and bool(header.snapshot_id)
        self._sheet.judge("snapshot.parts", good, "the header needs format 1, suite std, the source's name and an id")
        try:
            self.position = Position.from_wire(header.position)
        except ZaibeiError as exc:
            self._sheet.fail("snapshot.digest", f"the header's position: {exc.trouble.message}")

    def _chunk(self, chunk: source_pb2.SnapshotChunk) -> None:
        expected = len(self.part_hashes)
        self._sheet.judge("snapshot.parts", chunk.part == expected, f"part {chunk.part} where {expected} was due")
        size = len(chunk.columns)
        self._sheet.judge("snapshot.parts", size <= BATCH_COLUMNS_OCTETS_MAX, f"part {chunk.part} has {size} octets")
        self._hash.update(chunk.columns)
        self.part_hashes.append(sha256(chunk.columns).digest())
        looked = self._contents.look(chunk.columns)
        if looked is None:
            return
        keys, values, ops = looked
        for key, value, op in zip(keys, values, ops, strict=True):
            if op == OP_PUT and key > self._last:
                self._sheet.saw("snapshot.order")
            else:
                self._sheet.fail("snapshot.order", f"{shown(key)} is out of order, or no put")
            self._last = key
            self._contents.put(key, value)

    def _end(self, end: source_pb2.SnapshotEnd) -> None:
        self.ended = True
        sheet, contents = self._sheet, self._contents
        sheet.judge(
            "snapshot.parts", end.parts == len(self.part_hashes), f"{end.parts} parts stated, {len(self.part_hashes)} sent"
        )
        sheet.judge("snapshot.hash", end.ordered_hash == self._hash.digest(), "the ordered hash is not that of the parts sent")
        if not self.part_hashes:
            sheet.saw("snapshot.order")  # nothing can be out of order
        try:
            digest = ContentDigest.from_wire(end.digest)
        except ZaibeiError as exc:
            sheet.fail("snapshot.digest", exc.trouble.message)
            return
        sheet.judge("snapshot.count", digest.records == contents.records, f"{digest.records} stated, {contents.records} sent")
        sheet.judge("snapshot.digest", digest.total == contents.total, "the stated sum is not that of the records sent")
        sheet.judge("snapshot.digest", digest.position == self.position, "the digest is of another position than the header's")
        octets = snapshot_octets(self._source, digest, end.parts, end.ordered_hash)
        signed = verify(self._signing_key, octets, end.signature)
        sheet.judge("snapshot.signature", signed, "not signed by the key in the source's certificate")

    def close(self) -> None:
        """The stream is over."""
        if not self.ended:
            self._sheet.fail("snapshot.parts", "the snapshot broke off before its end")


class HistoryJudge:
    """Takes batches that follow a position, in order."""

    def __init__(self, source: str, at: Position, sheet: Sheet, contents: Contents | None = None) -> None:
        self._source, self._sheet, self._contents = source, sheet, contents
        self.at = at
        self.octets: list[bytes] = []  # SHA-256 of each batch as it came
        self.boundaries: list[Position] = [at]
        self._there: dict[bytes, bool] = {}  # keys this history touched: is there a record now
        self._from_nothing = at == ORIGIN

    def take(self, raw: bytes) -> None:
        try:
            batch = position_pb2.Batch.FromString(raw)
            before, after = Position.from_wire(batch.before), Position.from_wire(batch.after)
        except (DecodeError, ZaibeiError) as exc:
            self._sheet.fail("batch.header", f"not a batch: {exc}")
            return
        where = f"batch after {before.short()}"
        self._header(batch, where)
        self._chain(batch, before, after, where)
        self.at = after
        self.octets.append(sha256(raw).digest())
        self.boundaries.append(after)
        if self._contents is None:
            self._deletes(batch.columns)
        elif (looked := self._contents.look(batch.columns)) is not None:
            keys, values, ops = looked
            self._sheet.judge("batch.header", len(ops) == batch.count, f"{where}: {batch.count} stated, {len(ops)} inside")
            self._contents.apply(keys, values, ops)

    def _deletes(self, columns: bytes) -> None:
        """A key's second delete in a row is wrong wherever the history began; its first only where that was before any change."""
        try:
            keys, _, ops = split(columns)
        except ColumnsFault:
            return
        for key, op in zip(keys, ops, strict=False):
            if op == OP_DELETE and (key in self._there or self._from_nothing):
                there = self._there.get(key, False)
                self._sheet.judge("deletes.exact", there, f"deletes {shown(key)}, which is not there")
            if len(self._there) < HISTORY_KEYS_MAX:
                self._there[key] = op != OP_DELETE

    def _header(self, batch: position_pb2.Batch, where: str) -> None:
        stated = batch.format == BATCH_FORMAT and batch.suite == SUITE and batch.source == self._source and batch.shard == 0
        self._sheet.judge("batch.header", stated, f"{where}: format 1, suite std, shard 0 and the source's name are due")
        hashed = sha256(batch.columns).digest() == batch.columns_hash
        self._sheet.judge("batch.header", hashed, f"{where}: the columns do not have the stated hash")
        size = len(batch.columns)
        within = 1 <= batch.count <= BATCH_CHANGES_MAX and size <= BATCH_COLUMNS_OCTETS_MAX
        self._sheet.judge("batch.limits", within, f"{where}: {batch.count} changes, {size} octets")

    def _chain(self, batch: position_pb2.Batch, before: Position, after: Position, where: str) -> None:
        self._sheet.judge("chain.gapless", before == self.at, f"{where}: {self.at.short()} was due")
        counted = after.seq == before.seq + batch.count and (after.lineage, after.epoch) == (before.lineage, before.epoch)
        self._sheet.judge("chain.gapless", counted, f"{where}: {batch.count} changes do not lead to {after.short()}")
        chain = chain_next(before.chain, after.epoch, after.seq, batch.count, sha256(batch.columns).digest())
        self._sheet.judge("chain.follows", chain == after.chain, f"{where}: the chain does not follow from the content")


class HeadJudge:
    """Takes every head a source states, in the order in which it stated them."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        self.head: Position | None = None

    def take(self, message: position_pb2.Position) -> None:
        try:
            head = Position.from_wire(message)
        except ZaibeiError as exc:
            self._sheet.fail("head.forward", exc.trouble.message)
            return
        if self.head is not None and head.lineage == self.head.lineage:
            forward = head.place > self.head.place or head == self.head
            self._sheet.judge("head.forward", forward, f"the head went from {self.head.short()} to {head.short()}")
        self.head = head


def judge_certificate(
    certificate: position_pb2.Certificate, source: str, signing_key: bytes, at: Position, contents: Contents | None, sheet: Sheet
) -> None:
    """A certificate that came when the changes before it led to `at`."""
    try:
        digest = ContentDigest.from_wire(certificate.digest)
    except ZaibeiError as exc:
        sheet.fail("certificate.equal", exc.trouble.message)
        return
    octets = certificate_octets(source, certificate.shard, digest, certificate.stated_ms)
    signed = certificate.source == source and verify(signing_key, octets, certificate.signature)
    sheet.judge("certificate.signature", signed, f"the one at {digest.position.short()} is not signed by the source's key")
    if contents is None or not contents.whole:
        sheet.unknown("certificate.equal", "there is no whole snapshot to add the changes to, or it is too large to follow")
    elif digest.position == at:
        sheet.judge(
            "certificate.equal",
            contents.same(digest),
            f"at {at.short()}: {digest.records} records stated, {contents.records} here",
        )
    elif digest.position.place >= at.place:
        sheet.fail("certificate.equal", f"it is of {digest.position.short()}, the changes before it lead to {at.short()}")
