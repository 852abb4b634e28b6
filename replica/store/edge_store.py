"""The store of one source: committed entries in, content out. Satisfies the state machine of the consensus room.

`apply` runs on the member's apply thread; everything that reads (edge_reads.py) may be called from any thread and never waits for
it. A generation that was replaced is closed when its last reader left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from google.protobuf.message import DecodeError

from replica import native
from replica.model.audit import SEALED_FORMAT
from replica.model.batch import Batch, open_batch
from replica.model.brake import BrakeWindows
from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import Hold
from replica.model.outcome import LogEntry, Outcome, OutcomeKind
from replica.model.position import Position
from replica.model.states import FeedState
from replica.model.transfer import TransferKind
from replica.store.edge_audit import AuditTrail, copy_audit
from replica.store.edge_beside import StoreBeside
from replica.store.edge_checkpoint import Throttle, no_throttle
from replica.store.edge_compare import Difference
from replica.store.edge_disk import write_current
from replica.store.edge_folder import find_live, remove_leftovers
from replica.store.edge_generation import Change, Generation
from replica.store.edge_install import name_live, open_beside, read_fetched, undo_beside
from replica.store.edge_ledger import apply_ledger, copy_ledgers
from replica.store.edge_loader import Staged
from replica.store.edge_metrics import StoreMetrics
from replica.store.edge_readout import Pinned
from replica.store.edge_rocks import StoreBudget
from replica.store.edge_side import Side, load_mismatch, sweep
from replica.store.edge_state import load_state, put_brake, put_state, switched
from replica.store.order import judge
from replica.store.registration import judge_registration
from replica.store.rows import Kind
from replica.store.rules import BLOCKED, DISCARDED, RELEASED, RULES, Moment, Step, switch_refused
from replica.store.state_row import Quarantined, Stored, hold_ident, pack_state, quarantined_of
from replica.v1 import entry_pb2

ENTRY_FORMATS = (1, SEALED_FORMAT)
APPROVALS_MIN = 2
CLOSE_WAIT_S_MAX = 10  # for readers to leave
PINNED_ENTRIES_MAX = 20_000  # a certificate's content holds back old files: let go when no newer one comes for so long

__all__ = ["Difference", "SourceStore", "Staged"]


class SourceStore(StoreBeside):
    """Open one with `open`; `close` ends it. One instance per source and member."""

    def __init__(
        self, folder: Path, source: str, budget: StoreBudget, live: Generation, metrics: StoreMetrics | None = None
    ) -> None:
        stored, self._state_octets = load_state(live, source)
        super().__init__(folder, source, budget, live, stored)
        self._metrics = metrics
        self._earlier: dict[int, Outcome] = {}  # of an `apply` call that ended early
        self._failed: ZaibeiError | None = None
        self._trail = AuditTrail(live)
        self._deciding: tuple[str, entry_pb2.Entry] = ("", entry_pb2.Entry())
        self._sweeping = True  # rows of a load that was given up may be left
        self._durable = live.row.index
        self._being_read = False  # when it was to be opened again
        self.fed = False  # True in a cluster: another member loads, and files come here by themselves

    @staticmethod
    def open(folder: Path, source: str, budget: StoreBudget, metrics: StoreMetrics | None = None) -> SourceStore:
        """Open a source's store, or make an empty one in an empty folder.

        Args:
            folder: this source's own; generations lie in it.
        Raises:
            ZaibeiError: DAMAGED (says what to do), DISK_FULL, DISK_FAILED, CONFLICT (open elsewhere).
        """
        live = find_live(folder, source, budget)
        remove_leftovers(folder, live)
        return SourceStore(folder, source, budget, live, metrics)

    def close(self) -> None:
        """Flush and close; nobody may call any more. Raises ZaibeiError."""
        self._let_go(CLOSE_WAIT_S_MAX)
        with self._pins:
            self._pins.wait_for(lambda: self._live.readers == 0, CLOSE_WAIT_S_MAX)
        if self._failed is None and self._live.rocks.failed is None:
            self._live.rocks.flush()
        if not self._closed:
            self._closed = True
            self._live.rocks.close(under_readers=self._live.readers > 0)

    def reopen(self) -> tuple[int, int] | None:
        """After a disk error: close, open again, verify (trap d). On the apply thread; what is applied may have gone back.

        Returns:
            What is applied now: the journal replays the rest. None: nothing had failed.
        Raises:
            ZaibeiError: DISK_FULL (again later; reads go on), or why the store stays out of service.
        """
        side = self._side
        side_failed = side is not None and side.generation.rocks.failed is not None
        if self._failed is None and self._live.rocks.failed is None and not side_failed:
            return None
        self._budget.disk.release_ballast()
        self._budget.disk.require_room()
        self._let_go(CLOSE_WAIT_S_MAX)
        with self._pins:
            if not self._pins.wait_for(lambda: self._live.readers == 0, 0 if self._being_read else CLOSE_WAIT_S_MAX):
                self._being_read = True  # waited for long enough: all groups wait with it
                raise ZaibeiError(Code.DISK_FULL, f"{self.source} is read out: it is opened again when that is over", retry=True)
            self._being_read = False
            self._stood_at = max(self._stood_at, self._live.row.index)
            if not self._closed:
                self._closed = True
                self._live.rocks.abandon()
            self._live = find_live(self._folder, self.source, self._budget)
            self._closed = False
        self._stored, self._state_octets = load_state(self._live, self.source)
        self._failed = None
        self._durable = self._live.row.index
        self._budget.disk.restore_ballast()
        self._publish()
        return self.applied()

    # ------------------------------------------------------------------------------------------------- state machine
    def applied(self) -> tuple[int, int]:
        """(index, term) as stored with the data; (0, 0) when nothing was applied. Any thread."""
        row = self._live.row
        return row.index, row.term

    def durable_applied(self) -> int:
        """Index that was applied before a flush that returned. Any thread."""
        return self._durable

    def keep_from(self) -> int | None:
        """None: what a side generation still needs is kept here, in the same writes as the applied index."""
        return None

    def flush(self) -> int:
        """Make what is applied durable; may overlap `apply`. Returns durable_applied. Raises ZaibeiError."""
        with self._reading() as live:
            index = live.row.index  # read BEFORE the flush: later writes may miss it
            live.rocks.flush()
            self._durable = max(self._durable, index)
        return self._durable

    def apply(self, entries: Sequence[LogEntry]) -> list[Outcome]:
        """Apply in order, on the apply thread.

        Returns:
            One outcome an entry; an entry that was applied before is ALREADY.
        Raises:
            ZaibeiError(BUSY or DISK_FULL, retry): the same call again later goes on where this one stopped.
            ZaibeiError(DAMAGED, DISK_FAILED): the group goes out of service; see `reopen`.
        """
        outcomes: list[Outcome] = []
        for entry in entries:
            if entry.index <= self._live.row.index:
                again = Outcome(OutcomeKind.ALREADY, self._live.row.position, "entry applied before")
                outcomes.append(self._earlier.get(entry.index, again))
                continue
            try:
                outcome = self._apply(entry)
            except ZaibeiError as exc:
                self._earlier = {done.index: outcome for done, outcome in zip(entries, outcomes, strict=False)}
                if not exc.trouble.retry:
                    self._failed = exc
                if self._metrics is not None:
                    self._metrics.refused.labels(self.source, exc.code.value).inc()
                raise
            outcomes.append(outcome)
        self._earlier = {}
        return outcomes

    def _apply(self, entry: LogEntry) -> Outcome:
        live = self._live
        if live.row.index and entry.index != live.row.index + 1:
            raise ZaibeiError(Code.DAMAGED, f"the journal goes from entry {live.row.index} to {entry.index}: entries are missing")
        self._budget.disk.require_room()
        try:
            message = entry_pb2.Entry.FromString(entry.data)
        except DecodeError as exc:
            raise ZaibeiError(Code.DAMAGED, f"entry {entry.index} does not parse: {exc}") from exc
        kind = message.WhichOneof("body")
        if message.format not in ENTRY_FORMATS or kind is None:
            raise ZaibeiError(
                Code.DAMAGED, f"entry {entry.index} has format {message.format}, kind {kind}: a newer version wrote it"
            )
        self._deciding = (kind, message)
        if self._trail.of is not live:
            self._trail = AuditTrail(live)
        match kind:
            case "append" | "hold" if self._stored.group.closed:
                outcome = self._nothing(entry, OutcomeKind.FENCED, "nothing of its node's is applied: taken over, or lives here")
            case "append":
                outcome = self._append(entry, message)
            case "hold":
                outcome = self._hold(entry, message)
            case "decision":
                outcome = self._decide(entry, message)
            case "load_switch":
                outcome = self._switch(entry, message)
            case "registration":
                outcome = self._register(entry, message)
            case "ledger" | "ledger_decision" | "ledger_enter":
                outcome = self._ledger(entry, kind, message)
            case _:
                outcome = self._rule(entry, kind, message)
        self._publish()
        self._afterwards()
        return outcome

    def _afterwards(self) -> None:
        if self._pinned is not None and self._live.row.index > self._pinned.index + PINNED_ENTRIES_MAX:
            self._pinned = None
        try:
            self._live.fold()
            if self._sweeping:
                side = self._stored.group.side
                self._sweeping = sweep(self._live, None if side is None else side.first_index)
        except ZaibeiError as exc:
            if exc.code is not Code.BUSY:
                raise

    # ------------------------------------------------------------------------------------------------- batches
    def _append(self, entry: LogEntry, message: entry_pb2.Entry) -> Outcome:
        body, group = message.append, self._stored.group
        batch = open_batch(body.batch, verify=False)
        if Position.from_wire(body.follows) != batch.before:
            return self._nothing(entry, OutcomeKind.CONFLICT, "the entry names another boundary than its batch follows")
        if body.live and group.hold is not None and not group.hold.side:
            return self._nothing(entry, OutcomeKind.HELD, f"waits behind what is held at {group.hold.ident}")
        live_outcome = side_outcome = None
        change, stored = self._live.begin(), self._stored
        if body.live:
            kind, detail = judge(self._live.row.position, batch.before, batch.after, group.granted, self._live.chain_at)
            if kind is OutcomeKind.APPLIED:
                change = self._live.begin_batch(batch, quarantined_of(body.quarantined))
                stored = self._braked(stored, change, message.admitted_ms)
            live_outcome = Outcome(kind, change.position, detail)
        if body.side:
            side_outcome, stored = self._log_for_side(entry, batch, body.side, change, stored)
        self._commit(entry, change, stored)
        if side_outcome is not None and side_outcome.kind is OutcomeKind.APPLIED:
            self._catch_up_side()
        if live_outcome is None or (live_outcome.kind is OutcomeKind.GAP and side_outcome is not None):
            return side_outcome or Outcome(OutcomeKind.GAP, change.position, "the entry names no generation")
        return live_outcome

    def _log_for_side(self, entry: LogEntry, batch: Batch, number: int, change: Change, stored: Stored) -> tuple[Outcome, Stored]:
        """Keep an entry for the side generation, in the same write."""
        side = stored.group.side
        if side is None or side.number != number:
            return Outcome(OutcomeKind.GAP, None, f"generation {number} is not being loaded"), stored
        known = Side.history(self._live, side.first_index)
        kind, detail = judge(side.position, batch.before, batch.after, stored.group.granted, known)
        if kind is not OutcomeKind.APPLIED:
            return Outcome(kind, side.position, detail), stored
        Side.keep(change, side.first_index, entry, batch.after)
        return Outcome(kind, batch.after), stored.with_group(side=replace(side, position=batch.after))

    def _braked(self, stored: Stored, change: Change, at_ms: int) -> Stored:
        if not change.touched:
            return stored
        windows = stored.group.brake.add(change.touched, at_ms, self._live.counts)
        return stored.with_group(brake=windows)

    def _register(self, entry: LogEntry, message: entry_pb2.Entry) -> Outcome:
        live, group = self._live, self._stored.group
        batch, (kind, detail) = judge_registration(message.registration, group, live.row.position, live.chain_at, live.stored)
        if batch is None:
            return self._nothing(entry, kind, detail)
        change = live.begin_batch(batch, ())
        self._commit(entry, change, self._braked(self._stored, change, message.admitted_ms))
        return Outcome(kind, change.position)

    def _ledger(self, entry: LogEntry, kind: str, message: entry_pb2.Entry) -> Outcome:
        stored, change, outcome = apply_ledger(kind, message, self._live, self._stored)
        self._commit(entry, change, self._braked(stored, change, message.admitted_ms))
        return outcome

    # ------------------------------------------------------------------------------------------------- holds
    def _hold(self, entry: LogEntry, message: entry_pb2.Entry) -> Outcome:
        body, group = message.hold, self._stored.group
        position = self._live.row.position
        if group.hold is not None:
            return self._nothing(entry, OutcomeKind.HELD, f"waits behind what is held at {group.hold.ident}")
        if body.side:
            if group.side is None or group.side.number != body.side:
                return self._nothing(entry, OutcomeKind.CONFLICT, f"generation {body.side} is not being loaded")
        else:
            batch = open_batch(body.batch, verify=False)
            kind, detail = judge(position, batch.before, batch.after, group.granted, self._live.chain_at)
            if kind is not OutcomeKind.APPLIED:
                return self._nothing(entry, kind, detail)
        hold = Hold(hold_ident(position), position, body.reason, body.batch, body.side, message.admitted_ms)
        feed = group.feed if group.feed in BLOCKED else FeedState.HELD
        stored = replace(
            self._stored.with_group(hold=hold, feed=feed, feed_code=Code.HELD.value, feed_reason=body.reason),
            hold_quarantined=quarantined_of(body.quarantined),
            hold_counts=tuple((count.prefix, count.removed, count.rewritten) for count in body.would_be),
        )
        self._commit(entry, self._live.begin(), stored)
        return Outcome(OutcomeKind.HELD, position, f"held at {hold.ident} for two people")

    def _decide(self, entry: LogEntry, message: entry_pb2.Entry) -> Outcome:
        body, group = message.decision, self._stored.group
        hold = group.hold
        if hold is None or hold.ident != body.hold:
            return self._nothing(entry, OutcomeKind.CONFLICT, f"nothing is held at {body.hold}")
        if len({approval.operator for approval in body.approvals}) < APPROVALS_MIN:
            return self._nothing(entry, OutcomeKind.CONFLICT, f"{APPROVALS_MIN} different operators must approve")
        if group.feed in BLOCKED and body.release:
            return self._nothing(
                entry, OutcomeKind.CONFLICT, f"the feed is {group.feed.name}: what is held can only be discarded"
            )
        counts = self._stored.hold_counts
        cleared = replace(self._stored.with_group(hold=None), hold_quarantined=(), hold_counts=())
        change = self._live.begin()
        outcome = Outcome(OutcomeKind.APPLIED, change.position)
        if not body.release:
            feed = group.feed if group.feed in BLOCKED else FeedState.GAP
            stored = cleared.with_group(feed=feed, feed_code=DISCARDED, feed_reason=f"discarded by two people: {hold.reason}")
        elif hold.side:
            stored = cleared.with_group(
                feed=FeedState.LOADING, feed_code=RELEASED, feed_reason="", brake=group.brake.released(counts)
            )
        else:
            change, outcome, feed = self._release(hold, self._stored.hold_quarantined)
            brake = group.brake.released([*counts, *change.touched])
            stored = cleared.with_group(feed=feed, feed_code="", feed_reason="", brake=brake)
        self._commit(entry, change, stored)
        return outcome

    def _release(self, hold: Hold, quarantined: tuple[Quarantined, ...]) -> tuple[Change, Outcome, FeedState]:
        batch = open_batch(hold.batch, verify=False)
        kind, detail = judge(self._live.row.position, batch.before, batch.after, self._stored.group.granted, self._live.chain_at)
        if kind is not OutcomeKind.APPLIED:
            change = self._live.begin()
            return change, Outcome(kind, change.position, detail), FeedState.GAP
        faults = dict(native.scan(batch.columns, batch.count).faults) | dict(quarantined)
        change = self._live.begin_batch(batch, sorted(faults.items()))
        return change, Outcome(OutcomeKind.APPLIED, batch.after), FeedState.FLOWING

    # ------------------------------------------------------------------------------------------------- everything else
    def _rule(self, entry: LogEntry, kind: str, message: entry_pb2.Entry) -> Outcome:
        live = self._live
        moment = Moment(entry.index, live.row.position, live.digest, live.chain_at)
        step: Step = RULES[kind](self._stored, getattr(message, kind), moment)
        change = live.begin()
        if step.moved is not None:
            live.boundary(change, step.moved)
        side = self._stored.group.side
        if step.side_moved is not None and side is not None:
            Side.keep(change, side.first_index, entry, step.side_moved)
        dropped = side if step.side_dropped else None
        self._commit(entry, change, step.stored)
        if dropped is not None:
            self._sweeping = True
            self._drop_side(delete=True, begun=dropped.first_index, number=dropped.number)
        if step.pin:
            self._pinned = Pinned(*live.pinned())
        if kind == "load_staged":
            self._catch_up_side()
        return step.outcome

    def _nothing(self, entry: LogEntry, kind: OutcomeKind, detail: str) -> Outcome:
        """A no-op: only the applied index moves."""
        change = self._live.begin()
        self._commit(entry, change, self._stored)
        return Outcome(kind, change.position, detail)

    def _commit(self, entry: LogEntry, change: Change, stored: Stored) -> None:
        octets = put_state(self._stored, self._state_octets, stored, change)
        audit = self._trail.add(self.source, change, entry, *self._deciding, effect=self._has_effect(stored, change))
        with self._turn:
            self._live.commit(change, entry.index, entry.term)
        self._stored, self._state_octets = stored, octets
        self._trail.wrote(audit)

    def _has_effect(self, stored: Stored, change: Change) -> bool:
        """A certificate moves what was compared last each time; what it decides is whether the feed goes on. A registration moves
        the position, and the group's state only where it replaces something."""
        if self._deciding[0] == "registration":
            return change.position != self._live.row.position
        checked = self._deciding[0] == "check"
        return stored.group.feed != self._stored.group.feed if checked else stored is not self._stored

    # ------------------------------------------------------------------------------------------------- side generation
    def _catch_up_side(self) -> None:
        """Bring the side generation a few entries nearer, where that is possible now: only a switch must succeed.

        While the journal is replayed, a load may be met that was given up later: its directory is gone, or another load's.
        """
        side = self._stored.group.side
        if side is not None and side.staged:
            try:
                self._open_side().step(self._live)
            except ZaibeiError as exc:
                if exc.code is not Code.DAMAGED and not exc.trouble.retry:
                    raise

    def _switch(self, entry: LogEntry, message: entry_pb2.Entry) -> Outcome:
        """Bring the side generation up to date, make it durable, name it, move readers over."""
        body, group, old = message.load_switch, self._stored.group, self._live
        if (refused := switch_refused(group, body.side)) is not None:
            return self._nothing(entry, *refused)
        if self.fed and group.side is not None and not self.has_side(group.side):
            text = f"generation {body.side} of {self.source} is still being fetched from another member"
            raise ZaibeiError(Code.BUSY, text, retry=True)
        side = self._open_side()
        stated = ContentDigest.from_wire(body.digest) if body.HasField("digest") else None
        wrong = load_mismatch(side.load, stated)
        if wrong:
            raise ZaibeiError(Code.DAMAGED, f"generation {body.side} of {self.source}: {wrong}: re-seed this source")
        side.drain(self._live, None)
        fresh = side.generation
        stored = switched(self._stored, side.load.digest, fresh.row.position)
        if body.brake:  # a disaster that comes as a snapshot counts like one that comes as batches
            lines = [(line.prefix, line.removed, line.rewritten) for line in body.brake]
            stored = stored.with_group(brake=group.brake.add(lines, message.admitted_ms, old.counts))
        fresh.copy_history(old, side.load.digest.position)
        copy_audit(old, fresh)
        copy_ledgers(old, fresh)
        change = fresh.begin()
        change.wb.put(Kind.STATE, pack_state(stored))
        put_brake(change, BrakeWindows(), stored.group.brake)
        trail = AuditTrail(fresh)
        trail.wrote(trail.add(self.source, change, entry, "load_switch", message, effect=True))
        fresh.commit(change, entry.index, entry.term)
        fresh.rocks.flush()
        write_current(self._folder, self.source, body.side)
        self._go_live(fresh, stored, pack_state(stored))
        self._trail = trail
        with self._side_lock:
            self._side = None
        return Outcome(OutcomeKind.APPLIED, fresh.row.position)

    def _go_live(self, fresh: Generation, stored: Stored, state_octets: bytes) -> None:
        """Readers move over; the old one is closed when its last reader left, then deleted."""
        old = self._live
        with self._pins:  # what is pinned lies in the old one: gone before anybody can pin the new one
            self._live, self._pinned = fresh, None
        row = fresh.row  # whoever asks before the entry is published must not see the new position with the old counts
        seen = stored.with_group(index=row.index, position=row.position, records=row.records, quarantined=fresh.quarantined_total)
        self._stored, self._state_octets = seen, state_octets
        self._durable = fresh.row.index
        self._hashes.forget()
        self._retire(old, delete=True)

    def install(self, throttle: Throttle = no_throttle) -> tuple[int, int]:
        """Let the checkpoint that was fetched into `fetching` become the live copy. Blocks long, any thread but the loop's.

        Nothing may be applied meanwhile; readers go on, and move over. `reopen` is not called meanwhile either.

        Returns:
            What is applied now.
        Raises:
            ZaibeiError: REFUSED (it would go back), NOT_FOUND, CONFLICT, MALFORMED, VERIFICATION_FAILED, DISK_FULL, DISK_FAILED:
                what was live stays so, and what was fetched is still there.
        """
        came = read_fetched(self.fetching, TransferKind.CHECKPOINT, self.source)
        if came.index < self._live.row.index or came.generation < self._live.number:
            at = self._live.row.index
            raise ZaibeiError(
                Code.REFUSED, f"a checkpoint at entry {came.index} would take a store at {at} back: nothing was done"
            )
        fresh, copy = open_beside(self._folder, self.source, self._budget, throttle)
        try:
            stored, octets = load_state(fresh, self.source)
            name_live(self._folder, self.source, fresh, copy)
        except ZaibeiError:
            undo_beside(self._folder, self.source, fresh, copy)
            raise
        before, after = self._stored.group.side, stored.group.side
        with self._turn:
            self._go_live(fresh, stored, octets)
        self._earlier, self._failed, self._sweeping = {}, None, True
        if before is not None and (after is None or (after.number, after.first_index) != (before.number, before.first_index)):
            self._drop_side(delete=True, begun=before.first_index, number=before.number)
        self._publish()
        return self.applied()

    def _publish(self) -> None:
        live = self._live
        self._stored = self._stored.with_group(
            index=live.row.index, position=live.row.position, records=live.row.records, quarantined=live.quarantined_total
        )
        if self._metrics is not None:
            self._metrics.applied(self._stored.group, live.log.octets)
        for callback in self._subscribers:
            callback(self._stored.group)
