"""Memory twin of a source's store: the rules of apply (SEMANTICS 1-3, 10) over dictionaries, for tests and drills of the feed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from replica import native
from replica.feed.ports import Difference, Staged
from replica.model.batch import OP_PUT, Batch, open_batch
from replica.model.brake import Count, LiveCounts
from replica.model.digest import LEVEL1_BUCKETS, MODULUS, ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState, Hold, SideGeneration
from replica.model.identifier import prefix_part
from replica.model.node import endpoints_of
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.position import Position
from replica.model.states import FeedState, check_feed_move
from replica.v1 import entry_pb2, source_pb2

Content = dict[bytes, bytes]


def digest_of(content: Content, position: Position) -> ContentDigest:
    """Digest of a small content, from scratch."""
    total = sum(int.from_bytes(native.record_hash(key, value), "little") for key, value in content.items()) % MODULUS
    return ContentDigest(position, len(content), total)


def digest_answer(content: Content, position: Position, level: int, bucket: int) -> source_pb2.DigestResponse:
    """Answer to a DigestRequest over a small content, from scratch."""
    digest = digest_of(content, position)
    answer = source_pb2.DigestResponse(digest=digest.to_wire(), pinned=True)
    if level == 3:
        answer.keys.extend(sorted(key for key in content if native.bucket_of(key) == bucket))
        answer.hashes.extend(native.record_hash(key, content[key]) for key in answer.keys)
        return answer
    groups: dict[int, Content] = {}
    for key, value in content.items():
        upper, lower = divmod(native.bucket_of(key), LEVEL1_BUCKETS)
        if level < 2 or upper == bucket:
            groups.setdefault((0, upper, lower)[level], {})[key] = value
    for number in range(LEVEL1_BUCKETS if level else 1):
        part = digest_of(groups.get(number, {}), position)
        answer.sums += part.records.to_bytes(8, "little") + part.total.to_bytes(16, "little")
    return answer


def change(content: Content, batch: Batch) -> None:
    """Carry out a batch."""
    keys, values, ops = native.split(batch.columns)
    for key, value, op in zip(keys, values, ops, strict=True):
        if op == OP_PUT:
            content[key] = value
        else:
            content.pop(key, None)


def hold_ident(follows: Position, side: int) -> str:
    """How people name a hold: hex of epoch and seq it follows, and the side generation when it is one."""
    return f"{follows.epoch:x}-{follows.seq:x}" + (f"-g{side}" if side else "")


@dataclass(slots=True)
class Side:
    """A side generation: content once its parts are staged, and the batches that came since its snapshot."""

    state: SideGeneration
    batches: list[Batch] = field(default_factory=list)
    content: Content | None = None
    quarantined: dict[bytes, str] = field(default_factory=dict)


class MemoryStore:
    """Applies entries in order; `content` is that of the live generation."""

    def __init__(self, source: str) -> None:
        self.content: Content = {}
        self.quarantined: dict[bytes, str] = {}
        self.side: Side | None = None
        self.chains: dict[tuple[int, int], Position] = {}
        self.no_lease = ""  # why no write-path lease is given
        self._held_counts: list[Count] = []
        self._state = GroupState(source)

    def state(self) -> GroupState:
        return self._state

    def live_records(self, level: bytes) -> int:
        return self._counts()(level)

    def _counts(self) -> LiveCounts:
        exact: dict[bytes, int] = {}
        for key in self.content:
            part = prefix_part(key)
            exact[part] = exact.get(part, 0) + 1
        return LiveCounts(exact)

    def existing(self, keys: Sequence[bytes]) -> list[bool]:
        return [key in self.content for key in keys]

    def chain_at(self, epoch: int, seq: int) -> Position | None:
        return self.chains.get((epoch, seq))

    # -- apply

    def apply(self, data: bytes) -> Outcome:
        """Apply one serialized entry."""
        entry = entry_pb2.Entry.FromString(data)
        body = entry.WhichOneof("body")
        if body is None:
            raise ZaibeiError(Code.DAMAGED, "an entry without a body")
        self._set(index=self._state.index + 1)
        outcome = getattr(self, f"_apply_{body}")(getattr(entry, body), entry.admitted_ms)
        if not isinstance(outcome, Outcome):
            raise ZaibeiError(Code.DAMAGED, f"no outcome of {body}")
        self._set(records=len(self.content), quarantined=len(self.quarantined))
        return outcome

    def _set(self, **fields: object) -> None:
        self._state = replace(self._state, **fields)  # type: ignore[arg-type]

    def _done(self, detail: str = "") -> Outcome:
        return Outcome(OutcomeKind.APPLIED, self._state.position, detail)

    def _no(self, kind: OutcomeKind, why: str) -> Outcome:
        return Outcome(kind, self._state.position, why)

    def _apply_no_op(self, _: entry_pb2.NoOp, __: int) -> Outcome:
        return self._done()

    def _apply_append(self, append: entry_pb2.AppendBatch, at_ms: int) -> Outcome:
        state, batch = self._state, open_batch(append.batch, verify=False)
        granted = state.granted
        if granted is None or (batch.after.lineage, batch.after.epoch) != (granted.lineage, granted.epoch):
            return self._no(OutcomeKind.FENCED, f"epoch {batch.after.epoch} is not the granted one")
        if state.hold is not None and state.hold.side == 0:
            return self._no(OutcomeKind.HELD, "waits behind a hold")
        side_outcome = self._append_side(batch) if self.side is not None and append.side == self.side.state.number else None
        live_outcome = self._append_live(batch, append, at_ms) if append.live else None
        if live_outcome is None or (live_outcome.kind is OutcomeKind.GAP and side_outcome is not None):
            return side_outcome or self._no(OutcomeKind.GAP, "no such generation")
        return live_outcome

    def _place(self, batch: Batch, position: Position) -> OutcomeKind:
        if batch.before == position:
            return OutcomeKind.APPLIED
        if batch.before.seq > position.seq or batch.before.epoch != position.epoch:
            return OutcomeKind.GAP
        if batch.after == position or self.chains.get((batch.after.epoch, batch.after.seq)) == batch.after:
            return OutcomeKind.ALREADY
        return OutcomeKind.CONFLICT

    def _append_side(self, batch: Batch) -> Outcome:
        side = self.side
        if side is None:
            return self._no(OutcomeKind.GAP, "no side generation")
        kind = self._place(batch, side.state.position)
        if kind is OutcomeKind.APPLIED:
            side.batches.append(batch)
            side.state = replace(side.state, position=batch.after)
            self.chains[batch.after.place] = batch.after
            self._set(side=side.state)
        return Outcome(kind, side.state.position)

    def _append_live(self, batch: Batch, append: entry_pb2.AppendBatch, at_ms: int) -> Outcome:
        kind = self._place(batch, self._state.position)
        if kind is not OutcomeKind.APPLIED:
            return Outcome(kind, self._state.position)
        for bad in append.quarantined:
            self.quarantined[native.split(batch.columns)[0][bad.ordinal]] = bad.reason
        self._carry_out(batch, at_ms)
        return self._done()

    def _carry_out(self, batch: Batch, at_ms: int, *, released: bool = False) -> None:
        keys, _, ops = native.split(batch.columns)
        counts = [
            (prefix_part(key), int(op != OP_PUT), int(op == OP_PUT))
            for key, op in zip(keys, ops, strict=True)
            if key in self.content
        ]
        brake = self._state.brake
        brake = brake.released(counts) if released else brake.add(counts, at_ms, self._counts())
        change(self.content, batch)
        self.chains[batch.after.place] = batch.after
        self._set(position=batch.after, brake=brake)

    def _apply_grant(self, grant: source_pb2.Grant, _: int) -> Outcome:
        parent, start, old = Position.from_wire(grant.parent), Position.from_wire(grant.start), self._state.granted
        if old is not None and start.lineage == old.lineage and start.epoch <= old.epoch:
            return self._no(OutcomeKind.ALREADY if start == old else OutcomeKind.FENCED, "a newer epoch was granted")
        self.chains[start.place] = start
        position = start if parent == self._state.position else self._state.position
        self._set(granted=start, grant_taken=False, position=position)
        return self._done()

    def _apply_grant_taken(self, taken: entry_pb2.GrantTaken, _: int) -> Outcome:
        if Position.from_wire(taken.position) != self._state.granted:
            return self._no(OutcomeKind.CONFLICT, "another epoch was granted meanwhile")
        self._set(grant_taken=True)
        return self._done()

    def _apply_epoch_ask(self, _: entry_pb2.EpochAsk, __: int) -> Outcome:
        return self._done()

    def _apply_mark(self, mark: entry_pb2.FeedMark, _: int) -> Outcome:
        feed = FeedState(mark.state)
        check_feed_move(self._state.feed, feed)
        self._set(feed=feed, feed_code=mark.code, feed_reason=mark.reason)
        return self._done()

    def _apply_node(self, stated: entry_pb2.NodeStated, _: int) -> Outcome:
        self._set(node=endpoints_of(stated.resolution))
        return self._done()

    def _apply_lease(self, lease: entry_pb2.LeaseRenewal, _: int) -> Outcome:
        granted = self.state().granted
        if self.no_lease or granted is None or lease.epoch != granted.epoch:
            return self._no(OutcomeKind.FENCED, self.no_lease or f"epoch {lease.epoch} is not the one that was granted")
        return self._done()

    def _apply_hold(self, hold: entry_pb2.HoldBatch, at_ms: int) -> Outcome:
        follows = Position.from_wire(hold.follows)
        if self._state.hold is not None:
            return self._no(OutcomeKind.HELD, "waits behind another one")
        if follows != self._state.position:
            return self._no(OutcomeKind.GAP, "does not follow")
        held = Hold(hold_ident(follows, hold.side), follows, hold.reason, hold.batch, hold.side, at_ms)
        check_feed_move(self._state.feed, FeedState.HELD)
        self._held_counts = [(line.prefix, line.removed, line.rewritten) for line in hold.would_be]
        self._set(hold=held, feed=FeedState.HELD, feed_code=str(Code.HELD), feed_reason=hold.reason)
        return Outcome(OutcomeKind.HELD, self._state.position)

    def _apply_decision(self, decision: entry_pb2.HoldDecision, at_ms: int) -> Outcome:
        hold = self._state.hold
        if hold is None or hold.ident != decision.hold or len({one.operator for one in decision.approvals}) < 2:
            return self._no(OutcomeKind.CONFLICT, "nothing of that name is held, or one person decided")
        if not decision.release:
            self._set(hold=None, feed=FeedState.GAP, feed_code="discarded", feed_reason="discarded by two people")
        elif hold.side:
            brake = self._state.brake.released(self._held_counts)
            self._set(hold=None, feed=FeedState.LOADING, feed_code="released", feed_reason="", brake=brake)
        else:
            self._set(hold=None, feed=FeedState.FLOWING, feed_code="", feed_reason="")
            self._carry_out(open_batch(hold.batch, verify=False), at_ms, released=True)
        return self._done()

    def _apply_check(self, check: entry_pb2.CheckResult, _: int) -> Outcome:
        stated = ContentDigest.from_wire(check.certificate.digest)
        if stated.position != self._state.position:
            return self._done("not here")
        equal = digest_of(self.content, stated.position).same_content(stated)
        self._set(certificate=stated, verified=equal)
        if not equal and self._state.feed is FeedState.FLOWING:
            self._set(feed=FeedState.DIVERGED, feed_code=str(Code.DIVERGED), feed_reason="content differs at equal chain")
        return self._done("equal" if equal else "different")

    # -- loads

    def _apply_load_begin(self, begin: entry_pb2.LoadBegin, _: int) -> Outcome:
        if self.side is not None:
            return self._no(OutcomeKind.CONFLICT, "a load runs already")
        position = Position.from_wire(begin.position)
        self.side = Side(SideGeneration(begin.side, position, False, self._state.index))
        self.chains[position.place] = position
        self._set(side=self.side.state)
        if self._state.feed is not FeedState.LOADING:
            check_feed_move(self._state.feed, FeedState.LOADING)
            self._set(feed=FeedState.LOADING, feed_code="", feed_reason=begin.reason)
        return self._done()

    def _apply_load_staged(self, staged: entry_pb2.LoadStaged, _: int) -> Outcome:
        if self.side is None or self.side.state.number != staged.side or self.side.content is None:
            return self._no(OutcomeKind.CONFLICT, "no such side generation")
        self.side.state = replace(self.side.state, staged=True)
        self._set(side=self.side.state)
        return self._done()

    def _apply_load_switch(self, switch: entry_pb2.LoadSwitch, at_ms: int) -> Outcome:
        side = self.side
        if side is None or side.state.number != switch.side or side.content is None or not side.state.staged:
            return self._no(OutcomeKind.CONFLICT, "no staged side generation of that number")
        ours, theirs = self._state.position, side.state.position
        same = (ours.lineage, ours.epoch) == (theirs.lineage, theirs.epoch)
        if same and theirs.seq < ours.seq and self._state.feed_code != "released":
            return self._no(OutcomeKind.GAP, "the side generation lacks what the live one has applied")
        lines = [(line.prefix, line.removed, line.rewritten) for line in switch.brake]
        brake = self._state.brake.add(lines, at_ms, self._counts())
        self.content, self.quarantined = self.side_content(), side.quarantined
        self.side = None
        self._set(generation=switch.side, ready=True, side=None, position=side.state.position, brake=brake)
        self._set(feed=FeedState.FLOWING, feed_code="", feed_reason="", verified=None)
        return self._done()

    def _apply_load_abort(self, abort: entry_pb2.LoadAbort, _: int) -> Outcome:
        if self.side is not None and self.side.state.number == abort.side:
            self.side = None
            self._set(side=None)
            if self._state.feed is FeedState.LOADING:
                self._set(feed=FeedState.GAP if self._state.ready else FeedState.FLOWING, feed_code=str(Code.GAP))
        return self._done()

    def side_content(self) -> Content:
        """Content of the side generation with everything that came since."""
        side = self.side
        if side is None or side.content is None:
            raise ZaibeiError(Code.NOT_FOUND, "no staged side generation")
        content = dict(side.content)
        for batch in side.batches:
            change(content, batch)
        return content

    def stage(self, number: int, content: Content, quarantined: dict[bytes, str]) -> None:
        """The parts of a side generation are on disk."""
        if self.side is None or self.side.state.number != number:
            raise ZaibeiError(Code.CONFLICT, "no such side generation")
        self.side.content, self.side.quarantined = content, quarantined

    def difference(self, number: int) -> list[Difference]:
        """What a switch would change, per prefix part."""
        del number
        new, found = self.side_content(), dict[bytes, list[int]]()
        for key in self.content.keys() | new.keys():
            if self.content.get(key) != new.get(key):
                place = 2 if key not in self.content else 0 if key not in new else 1
                found.setdefault(prefix_part(key), [0, 0, 0])[place] += 1
        return [Difference(part, *counts) for part, counts in sorted(found.items())]


class MemoryLoader:
    """Collects the parts of a snapshot and checks them as a store must."""

    def __init__(self, store: MemoryStore, side: int, position: Position) -> None:
        self._store, self._side, self._position = store, side, position
        self._content: Content = {}
        self._quarantined: dict[bytes, str] = {}
        self._hash = sha256()
        self._parts = 0

    async def write(self, columns: bytes, judged: Sequence[tuple[int, str]] = ()) -> None:
        self.take(columns, judged)

    def take(self, columns: bytes, judged: Sequence[tuple[int, str]] = ()) -> None:
        """Take one part. Raises ZaibeiError(MALFORMED)."""
        try:
            scan = native.scan(columns, 1_000_000)
        except native.ColumnsFault as exc:
            raise ZaibeiError(Code.MALFORMED, f"a part does not parse: {exc}") from exc
        last = next(reversed(self._content), b"")
        for key, value in zip(scan.keys, scan.values, strict=True):
            if key <= last:
                raise ZaibeiError(Code.MALFORMED, "the keys of a snapshot ascend")
            last = key
            self._content[key] = value
        self._quarantined |= {scan.keys[place]: reason for place, reason in (*judged, *scan.faults)}
        self._hash.update(columns)
        self._parts += 1

    async def finish(self, end: source_pb2.SnapshotEnd) -> Staged:
        return self.verify(end)

    def verify(self, end: source_pb2.SnapshotEnd) -> Staged:
        """Raises ZaibeiError(VERIFICATION_FAILED)."""
        stated = ContentDigest.from_wire(end.digest)
        ours = digest_of(self._content, self._position)
        if (end.parts, end.ordered_hash) != (self._parts, self._hash.digest()) or not ours.same_content(stated):
            raise ZaibeiError(Code.VERIFICATION_FAILED, "the snapshot is not what its end states")
        self._store.stage(self._side, self._content, self._quarantined)
        return Staged(stated, sha256(self._hash.digest()).digest())

    async def abort(self) -> None:
        self._content = {}
