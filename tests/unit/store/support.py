"""A source in miniature for the store's tests: cuts batches, makes entries, keeps a model of what the store must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from replica import native
from replica.model.batch import OP_DELETE, OP_PUT, Batch, Change, columns_of, cut_batch
from replica.model.digest import ContentDigest
from replica.model.errors import ZaibeiError
from replica.model.outcome import LogEntry, Outcome
from replica.model.position import ORIGIN, Position, epoch_start
from replica.store import BudgetLimits, DiskLimits, SourceStore, StoreBudget
from replica.store.edge_generation import about_tenants
from replica.store.edge_readout import records
from replica.store.rows import OctetsRow
from replica.v1 import entry_pb2, position_pb2, source_pb2

SOURCE = "88.118.8"
LINEAGE = b"L" * 16
NO_DISK_LIMITS = DiskLimits(free_octets_min=0, free_octets_resume=0, ballast_octets=0)


def small_budget(folder: Path, **changes: int) -> StoreBudget:
    limits = {"cache_octets": 8 << 20, "write_buffer_octets": 32 << 20, "memtable_octets": 4 << 20, **changes}
    return StoreBudget(folder, BudgetLimits(**limits), NO_DISK_LIMITS)


def key(number: int, prefix: str = "88\x01118\x018") -> bytes:
    return b"h" + prefix.encode() + b"\0" + f"XYZ-{number:06}".encode()


def value(text: str, octets: int = 0) -> bytes:
    """A sound Handle record with one URL value."""
    data = text.encode().ljust(octets, b".")
    field_ = b"\0\0\0\x03URL" + len(data).to_bytes(4, "big") + data + b"\0\0\0\0"
    return b"\x01\0\0\0\x01" + b"\0\0\0\x01" + b"\0\0\0\x00" + b"\0" + b"\0\x01\x51\x80" + b"\x0e" + field_


def put(number: int, text: str = "", prefix: str = "88\x01118\x018") -> Change:
    return Change(OP_PUT, key(number, prefix), value(text or f"https://example.cn/{number}"))


def delete(number: int, prefix: str = "88\x01118\x018") -> Change:
    return Change(OP_DELETE, key(number, prefix))


@dataclass
class Source:
    """The source's side: its content and head."""

    head: Position = ORIGIN
    content: dict[bytes, bytes] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)

    def grant(self, epoch: int = 1, lineage: bytes = LINEAGE) -> source_pb2.Grant:
        parent = self.head
        self.head = epoch_start(parent, lineage, epoch)
        return source_pb2.Grant(source=SOURCE, parent=parent.to_wire(), start=self.head.to_wire(), reason="test")

    def cut(self, changes: Sequence[Change]) -> Batch:
        batch = cut_batch(SOURCE, self.head, columns_of(changes), len(changes), 0)
        self.head = batch.after
        for change in changes:
            if change.op == OP_PUT:
                self.content[change.key] = change.value
            else:
                self.content.pop(change.key, None)
        self.batches.append(batch)
        return batch

    def digest(self) -> ContentDigest:
        return ContentDigest(self.head, len(self.content), content_sum(self.content))

    def fork(self) -> Source:
        return Source(self.head, dict(self.content), [*self.batches])


def content_sum(content: dict[bytes, bytes]) -> int:
    return sum(int.from_bytes(native.record_hash(k, v), "little") for k, v in content.items()) % (1 << 128)


class Group:
    """Gives entries their index and applies them: a journal of one member, in memory."""

    def __init__(self, store: SourceStore) -> None:
        self.store = store
        self.log: list[LogEntry] = []
        self.term = 1

    def apply(self, entry: entry_pb2.Entry) -> Outcome:
        entry.format = 1
        entry.admitted_ms = entry.admitted_ms or 1_700_000_000_000
        logged = LogEntry(len(self.log) + 1, self.term, entry.SerializeToString())
        self.log.append(logged)
        [outcome] = self.store.apply([logged])
        return outcome

    def replay(self, store: SourceStore) -> None:
        """What a restart does: apply what the store lacks."""
        self.store = store
        index, _ = store.applied()
        for entry in self.log[index:]:
            store.apply([entry])

    def grant(self, grant: source_pb2.Grant) -> Outcome:
        return self.apply(entry_pb2.Entry(grant=grant))

    def append(
        self, batch: Batch, *, live: bool = True, side: int = 0, quarantined: Sequence[tuple[int, str]] = (), at_ms: int = 0
    ) -> Outcome:
        body = entry_pb2.AppendBatch(batch=batch.raw, follows=batch.before.to_wire(), live=live, side=side)
        body.quarantined.extend(entry_pb2.Quarantined(ordinal=place, reason=reason) for place, reason in quarantined)
        return self.apply(entry_pb2.Entry(append=body, admitted_ms=at_ms))

    def mark(self, state: int, code: str = "", reason: str = "") -> Outcome:
        return self.apply(entry_pb2.Entry(mark=entry_pb2.FeedMark(state=state, code=code, reason=reason)))  # type: ignore[arg-type]

    def check(self, digest: ContentDigest) -> Outcome:
        certificate = position_pb2.Certificate(source=SOURCE, digest=digest.to_wire())
        return self.apply(entry_pb2.Entry(check=entry_pb2.CheckResult(certificate=certificate)))

    def load_begin(self, side: int, position: Position) -> Outcome:
        return self.apply(
            entry_pb2.Entry(load_begin=entry_pb2.LoadBegin(side=side, position=position.to_wire(), members_needed=1))
        )

    def load_staged(self, side: int) -> Outcome:
        return self.apply(entry_pb2.Entry(load_staged=entry_pb2.LoadStaged(side=side, member="a", manifest_hash=b"m")))

    def load_switch(self, side: int, digest: ContentDigest | None = None) -> Outcome:
        body = entry_pb2.LoadSwitch(side=side, digest=None if digest is None else digest.to_wire())
        return self.apply(entry_pb2.Entry(load_switch=body))

    def load_abort(self, side: int) -> Outcome:
        return self.apply(entry_pb2.Entry(load_abort=entry_pb2.LoadAbort(side=side, reason="test")))

    def hold(self, batch: Batch | None, side: int = 0, **fields: object) -> Outcome:
        body = entry_pb2.HoldBatch(batch=batch.raw if batch else b"", side=side, reason="too much", **fields)  # type: ignore[arg-type]
        return self.apply(entry_pb2.Entry(hold=body))

    def decide(self, hold: str, *, release: bool, operators: Sequence[str] = ("ann", "bo")) -> Outcome:
        body = entry_pb2.HoldDecision(hold=hold, release=release)
        body.approvals.extend(entry_pb2.Approval(operator=name) for name in operators)
        return self.apply(entry_pb2.Entry(decision=body))


def parts_of(content: dict[bytes, bytes], part_records: int = 500) -> list[bytes]:
    rows = sorted(content.items())
    return [
        columns_of([Change(OP_PUT, k, v) for k, v in rows[start : start + part_records]])
        for start in range(0, len(rows), part_records)
    ]


def end_of(parts: Sequence[bytes], digest: ContentDigest) -> source_pb2.SnapshotEnd:
    ordered = sha256()
    for part in parts:
        ordered.update(part)
    return source_pb2.SnapshotEnd(parts=len(parts), digest=digest.to_wire(), ordered_hash=ordered.digest())


async def load(store: SourceStore, side: int, content: dict[bytes, bytes], digest: ContentDigest) -> ContentDigest:
    """Load a whole content beside; returns what was staged."""
    loader = store.loader(side, digest.position)
    parts = parts_of(content)
    for part in parts:
        await loader.write(part)
    return (await loader.finish(end_of(parts, digest))).digest


def octets_add_up(store: SourceStore) -> None:
    """Whatever a test did to a store, their sum is a recount's; of content that a test damaged nothing is said."""
    live = store._live
    try:
        content = dict(records(live))
    except ZaibeiError:
        return
    if live.octets is not None and content_sum(content) == live.row.total:
        octets = sum(len(key) + len(value) for key, value in content.items())
        assert live.octets == OctetsRow(octets, about_tenants([*content], [*content.values()]))


def held(store: SourceStore) -> dict[bytes, bytes]:
    """Everything the live generation holds."""
    return dict(store.scan(b"\x01", b"\xff", 10**9))
