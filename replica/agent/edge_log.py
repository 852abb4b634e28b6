"""The agent's log joined with its content: the SourceLog that a feed serves and pushes.

The order of one append: cut, write the log, fsync, store the content, publish the new head. Only then may anybody read the batch,
so nothing is sent or offered before it is on disk (SEMANTICS 12). A crash in between is made good at the next open.
Appends and grants take turns on one lock, in worker threads; readers take only `_state`, held for microseconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from replica.agent.cutter import Piece, check, compact, cut, effective, pieces
from replica.agent.edge_clocks import Clocks
from replica.agent.edge_content import Content, Step
from replica.agent.edge_receipts import ReceiptBook
from replica.agent.edge_segments import Fsync, SegmentFiles
from replica.agent.edge_snapshot import Snapshots
from replica.agent.log import Segment, begins, floor_of, handed_back, locate, same_epoch
from replica.agent.nature import Counts, Nature, Transaction
from replica.agent.retention import Retention, Spool
from replica.agent.sums import Pins, answer
from replica.agent.waiters import Waiters
from replica.model.batch import OP_DELETE, Batch, open_batch
from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN, Position, epoch_start
from replica.model.signing import Signer, certificate_octets, grant_octets, verify
from replica.native import split
from replica.v1 import position_pb2, source_pb2

log = logging.getLogger("zaibei.agent")

CERTIFICATE_EVERY_S = 1.0  # at most this long between two certified boundaries while changes come in
IDLE_S = 0.25  # without an append for so long the head itself is certified when asked
GRANT_QUIET_S = 2.0  # after a grant lost the race against a new batch, cutting pauses so that the next one wins
ROOM_POLL_S = 0.5
READ_BATCHES_MAX = 256
APPEND_OCTETS_MAX = 8 * 1024 * 1024  # of one fsync; a larger call takes several
MARKER_FILE = "state-was-here"
OWN_END = "own-end"  # note: where the registry's own history ended, while it copies ours
_NEVER_S = -1e9


class AgentLog:
    """See the module docstring. `open` makes one; `close` when done."""

    def __init__(
        self, nature: Nature, files: SegmentFiles, content: Content, signer: Signer, spool: Spool, clocks: Clocks
    ) -> None:
        self.nature, self.counts, self.content = nature, Counts(), content
        self._files, self._signer, self._clocks = files, signer, clocks
        self._granters: tuple[bytes, ...] = ()
        self._turn = threading.Lock()  # appends, grants, releases
        self._state = threading.Lock()  # head and sums move together
        self._room = threading.Condition()
        self._waiters = Waiters()
        self._retention = Retention(spool)
        self._snapshots = Snapshots(nature.source, content.path, signer, clocks.boottime_s, self._turn)
        self._pins = Pins()
        self._appended_s, self._certified_s, self._quiet_until_s = _NEVER_S, _NEVER_S, _NEVER_S
        self._epoch_wanted = ""
        self._marker: Path | None = None
        self._book: ReceiptBook | None = None
        self._closed = self.sealed = False  # sealed: nothing is appended (edge_seal.py)
        noted = content.noted(OWN_END)
        self.own_end = Position.parse(noted) if noted else None  # set: it was taken over, and copies (edge_follow.py)

    @staticmethod
    def open(
        folder: Path,
        nature: Nature,
        signer: Signer,
        *,
        spool: Spool | None = None,
        clocks: Clocks | None = None,
        marker: Path | None = None,
        fsync: Fsync = os.fsync,
    ) -> AgentLog:
        """Open or make the log of one source.

        Args:
            folder: of this log alone; made when missing.
            marker: folder outside of `folder` (of the identity) that remembers that there was a log, so that its loss is seen.
        Raises:
            ZaibeiError(DAMAGED): see SegmentFiles.open; or the content vouches for batches that the log does not have.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = SegmentFiles.open(folder / "log", nature.source, fsync)
        if files.healed:
            log.warning("log healed after a crash", extra={"source": nature.source, "healed": files.healed})
        content = Content.open(folder / "content.db", nature.source)
        agent = AgentLog(nature, files, content, signer, spool or Spool(), clocks or Clocks())
        try:
            agent._recover()
            agent._read_receipt()
            agent._remember(marker)
        except BaseException:
            agent.close()
            raise
        return agent

    # ------------------------------------------------------------------------------------------------------- opening

    def _recover(self) -> None:
        """Bring the content up to the end of the log: at open, and after the content could not be stored."""
        at, files = self.head(), self._files
        if not files.segments:
            if at != ORIGIN:
                raise self._damage(f"its log is gone but its content stands at {at.short()}")
            files.start_segment(ORIGIN)
        behind = [segment for segment in files.segments if segment.end.place >= at.place]
        if not any(segment.holds(at) for segment in behind):
            ends = files.segments[-1].end.short()
            raise self._damage(f"its content stands at {at.short()}, which its log does not hold (that ends at {ends})")
        for segment in behind:
            self._replay(segment)
        for segment in files.segments:
            if grant := files.grant_of(segment):
                self._retention.granted(segment.start)
                if self.own_end is not None and handed_back(grant, self.nature.source, self.own_end):
                    self.own_end = None
        self._waiters.wake()

    def _damage(self, what: str) -> ZaibeiError:
        return ZaibeiError(
            Code.DAMAGED,
            f"source {self.nature.source!r}: {what}. Restore the whole state folder, or move it away: the agent then reads its "
            "input anew and asks for a new epoch",
        )

    def _replay(self, segment: Segment) -> None:
        at, grant = self.head(), self._files.grant_of(segment)
        if begins(grant, segment.start, at, self.own_end):
            self.content.begin_epoch(segment.start)
            at = segment.start
        first = segment.find(at.seq) if same_epoch(segment.start, at) else None
        if first is None:
            return
        for number in range(first, len(segment.befores)):
            batch = open_batch(self._files.read(segment, number), verify=False)
            keys, values, ops = split(batch.columns)
            known = self.content.values_of(keys)
            step = Step(keys, ops, values, [known.get(key) for key in keys], batch.after)
            published = self.content.apply([step])
            with self._state:
                self.content.publish(published)

    def _read_receipt(self) -> None:
        noted = self.content.noted("receipt")
        if noted is None:
            return
        receipted = Position.parse(noted)
        if receipted.place > self.head().place:
            raise self._damage(
                f"a receipt covers {receipted.short()} but its log ends at {self.head().short()}: an older copy was put back"
            )
        self._retention.receipt(receipted)

    def _remember(self, marker: Path | None) -> None:
        if marker is None:
            return
        marker.mkdir(parents=True, exist_ok=True)
        path = marker / MARKER_FILE
        if path.exists() and self.head().epoch == 0 and path.read_text() == "granted":
            self._epoch_wanted = "the agent's log was lost: it no longer holds the epoch it was granted"
        elif not path.exists() or self.head().epoch > 0:
            path.write_text("granted" if self.head().epoch > 0 else "new")
        self._marker = path

    # ----------------------------------------------------------------------------------------------------- appending

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One writer at a time: a second transaction would undo the first. Raises ZaibeiError(STOPPING): the log is closed."""
        with self._turn:
            if self._closed:
                raise ZaibeiError(Code.STOPPING, "the log is closed")
            yield

    def append(self, transactions: Sequence[Transaction]) -> list[Position]:
        """Cut transactions into batches, make them durable and publish them. Call from a worker thread.

        Returns:
            For each transaction the position after its last change (the head where it changed nothing).
        Raises:
            ZaibeiError(BUSY): the spool is full, nothing was taken; `wait_room` tells when to try again.
            ZaibeiError(MALFORMED): a change no batch may carry; nothing was taken.
            ZaibeiError(DISK_FULL, DISK_FAILED, STOPPING): a part may have been taken; taking it again changes nothing.
        """
        for transaction in transactions:
            for change in transaction.changes:
                check(change)
        self._wait_quiet()
        with self.turn():
            if self.own_end is not None:
                raise ZaibeiError(Code.FENCED, f"{self.nature.source} was taken over and copies: nothing of its own is taken")
            if self.sealed:
                raise ZaibeiError(Code.FENCED, f"{self.nature.source} is being switched over: nothing is taken here", retry=True)
            if self._files.segments[-1].end != self.head():
                self._recover()
            if self.full():
                limit = self._retention.spool.octets_max
                raise ZaibeiError(
                    Code.BUSY, f"the spool is full: {self.waiting()} octets wait for a receipt, {limit} may", retry=True
                )
            return self._append(transactions)

    def _append(self, transactions: Sequence[Transaction]) -> list[Position]:
        at, ends = self.head(), []
        batches: list[Batch] = []
        steps: list[Step] = []
        overlay: dict[bytes, bytes | None] = {}  # what is cut but not stored yet
        for transaction in transactions:
            for piece in self._pieces(transaction, overlay):
                batch = cut(self.nature.source, at, piece, self._clocks.unix_ms())
                batches.append(batch)
                steps.append(self._step(piece, batch))
                at = batch.after
                if sum(len(waiting.raw) for waiting in batches) > APPEND_OCTETS_MAX:
                    self._write(batches, steps)
                    batches, steps = [], []
            ends.append(at)
        if batches:
            self._write(batches, steps)
        return ends

    def _pieces(self, transaction: Transaction, overlay: dict[bytes, bytes | None]) -> list[Piece]:
        changes = compact(transaction.changes)
        olds = self.content.values_of([change.key for change in changes])
        if overlay:
            for change in changes:
                if change.key in overlay:
                    olds.pop(change.key, None)
                    if (value := overlay[change.key]) is not None:
                        olds[change.key] = value
        changes = list(effective(changes, olds))
        overlay.update((change.key, None if change.op == OP_DELETE else change.value) for change in changes)
        return list(pieces(changes, olds, more=transaction.more))

    def _step(self, piece: Piece, batch: Batch) -> Step:
        now = self._clocks.boottime_s()
        certified = now - self._certified_s >= CERTIFICATE_EVERY_S
        if certified:
            self._certified_s = now
        ops = bytes([change.op for change in piece.changes])
        return Step(piece.keys, ops, [change.value for change in piece.changes], piece.olds, batch.after, certified)

    def _write(self, batches: Sequence[Batch], steps: Sequence[Step]) -> None:
        self._files.append(batches)
        for step, published in zip(steps, self.content.apply(steps), strict=True):
            with self._state:
                self.content.publish([published])
                if step.certified:
                    self._pins.add(self.head(), bytes(self.content.sums))
        self._appended_s = self._clocks.boottime_s()
        self.counts.batches += len(batches)
        self.counts.changes += sum(batch.count for batch in batches)
        self.content.fold()
        self._release()
        self._waiters.wake()

    def _wait_quiet(self) -> None:
        while not self._closed and (left := self._quiet_until_s - self._clocks.boottime_s()) > 0:
            time.sleep(min(left, 0.05))

    # --------------------------------------------------------------------------------------------------------- spool

    def waiting(self) -> int:
        """Octets of batches that no quorum receipt covers."""
        return self._retention.waiting_octets(self._files.segments)

    def full(self) -> bool:
        """Intake stops: nothing is dropped, and it goes on with the next receipt."""
        return self.waiting() >= self._retention.spool.octets_max

    def wait_room(self, timeout_s: float) -> bool:
        """Block a worker thread until the spool has room. False when the time is over or the log was closed."""
        until = time.monotonic() + timeout_s
        while self.full() and not self._closed:
            if (left := until - time.monotonic()) <= 0:
                return False
            with self._room:
                self._room.wait(min(left, ROOM_POLL_S))
        return not self._closed

    def _release(self) -> None:
        """Let go of what receipts and leases allow. Under `_turn`."""
        chosen = self._retention.releasable(self._files.segments, self._clocks.boottime_s())
        if chosen:
            self.content.sync()
            self._files.release(chosen)
            self.counts.released_segments += len(chosen)

    def housekeeping(self) -> None:
        """Release, note the newest receipt, close forgotten snapshots. About every second, from a worker thread."""
        self._snapshots.expire()
        with self._turn:
            if self._closed:
                return
            if (receipted := self.receipted) is not None and str(receipted) != self.content.noted("receipt"):
                self.content.note("receipt", str(receipted))
            self._release()
        with self._room:
            self._room.notify_all()

    # -------------------------------------------------------------------------------------------------- SourceLog port

    def head(self) -> Position:
        return self.content.digest.position

    def floor(self) -> Position:
        return floor_of(self._files.segments)

    def describe(self) -> source_pb2.Description:
        description = self.nature.describe(self.head(), self.floor())
        if self.own_end is not None:
            description.own_end.CopyFrom(self.own_end.to_wire())
        return description

    def _known(self, position: Position) -> list[ContentDigest]:
        return self.content.boundaries_at(position.epoch, position.seq)

    def prove(self, position: Position) -> source_pb2.Proof:
        known = [digest.position for digest in self._known(position)]
        if position in known:
            return source_pb2.Proof(result=source_pb2.Proof.RESULT_PROVED, position=position.to_wire())
        if known:
            return source_pb2.Proof(result=source_pb2.Proof.RESULT_DIFFERENT, position=known[-1].to_wire())
        return source_pb2.Proof(result=source_pb2.Proof.RESULT_UNKNOWN)

    def read(self, after: Position, octets_max: int) -> list[bytes] | None:
        head = self.head()
        if after == head:
            return []
        batches: list[bytes] = []
        octets = 0
        for segment, number in locate(self._files.segments, after):
            size = segment.ends[number] - segment.offsets[number]
            over = bool(batches) and (octets + size > octets_max or len(batches) == READ_BATCHES_MAX)
            if over or (same_epoch(segment.start, head) and segment.befores[number] >= head.seq):  # or on disk but not published
                break
            try:
                raw = self._files.read(segment, number)
            except ZaibeiError as exc:
                if exc.code is not Code.NOT_FOUND:
                    raise
                break
            if not batches and open_batch(raw, verify=False).before != after:
                return None
            batches.append(raw)
            octets += size
        return batches or None

    async def wait(self, after: Position, timeout_s: float) -> None:
        await self._waiters.wait(lambda: self._closed or self.head() != after, timeout_s)
        if self._closed:  # who asks again and again would never let anybody else have a turn
            raise ZaibeiError(Code.STOPPING, "the log is closed")

    def certificate(self, position: Position) -> position_pb2.Certificate | None:
        digest = self.content.certified(position)
        with self._state:
            idle = self._clocks.boottime_s() - self._appended_s >= IDLE_S
            if position == self.head() and (idle or position in self._pins):
                digest = self.content.digest
                if position not in self._pins:
                    self._pins.add(position, bytes(self.content.sums))
        if digest is None:
            return None
        stated_ms = self._clocks.unix_ms()
        signature = self._signer.sign(certificate_octets(self.nature.source, 0, digest, stated_ms))
        return position_pb2.Certificate(
            source=self.nature.source, shard=0, digest=digest.to_wire(), stated_ms=stated_ms, signature=signature
        )

    def epoch_wanted(self) -> str:
        return self._epoch_wanted

    def trust_granters(self, keys: Sequence[bytes]) -> None:
        """Signing keys of the members whose grants count; without any, the edge that hands grants in has checked them."""
        self._granters = tuple(keys)

    async def accept_grant(self, grant: source_pb2.Grant) -> Position:
        return await asyncio.to_thread(self._accept_grant, grant)

    def _accept_grant(self, grant: source_pb2.Grant) -> Position:
        parent, start = Position.from_wire(grant.parent), Position.from_wire(grant.start)
        if grant.source != self.nature.source:
            raise ZaibeiError(Code.WRONG_SOURCE, f"a grant for {grant.source!r} reached {self.nature.source!r}")
        octets = grant_octets(grant.source, parent, start, grant.reason, grant.holder)
        if self._granters and not any(verify(key, octets, grant.signature) for key in self._granters):
            raise ZaibeiError(Code.NOT_AUTHORISED, "the grant is not signed by a member this source trusts")
        rises = start.lineage != parent.lineage or start.epoch > parent.epoch
        if not rises or start != epoch_start(parent, start.lineage, start.epoch):
            raise ZaibeiError(Code.MALFORMED, "the granted start does not follow from its parent, lineage and epoch")
        with self.turn():  # waits for a cut in flight
            if self._files.segments[-1].end != self.head():  # an earlier attempt got as far as the log
                self._recover()
            return self._begin_epoch(grant, parent, start)

    def _begin_epoch(self, grant: source_pb2.Grant, parent: Position, start: Position) -> Position:
        head = self.head()
        if same_epoch(head, start) and start in [digest.position for digest in self._known(start)]:
            self._in_epoch(start)  # taken before, perhaps by an attempt that a full disk ended half way
            return start
        if head != parent or start.epoch <= head.epoch:
            self.counts.grants_refused += 1
            self._quiet_until_s = self._clocks.boottime_s() + GRANT_QUIET_S
            raise ZaibeiError(
                Code.CONFLICT, f"the grant follows {parent.short()}, this source stands at {head.short()}", retry=True
            )
        self._files.start_segment(start, grant.SerializeToString())
        with self._state:
            self.content.begin_epoch(start)
            self._pins.clear()
        self.counts.grants += 1
        self._in_epoch(start)
        return start

    def _in_epoch(self, start: Position) -> None:
        self._retention.granted(start)
        self._epoch_wanted, self._quiet_until_s, self.sealed = "", _NEVER_S, False
        if self.own_end is not None:  # it is handed back: the registry writes again
            self.content.note(OWN_END, "")
            self.own_end = None
        if self._marker is not None:
            self._marker.write_text("granted")
        self._waiters.wake()

    def keep_receipts(self, book: ReceiptBook) -> None:
        """From now on a receipt counts once it lies in this book, fsynced: what a registry was told is what it can prove."""
        self._book = book

    def receipt(self, receipt: source_pb2.Receipt) -> None:
        position = Position.from_wire(receipt.position)
        ours = position in [digest.position for digest in self._known(position)]
        if receipt.source != self.nature.source or not ours:
            self.counts.foreign_receipts += 1
        elif self._book is None:
            self._receipted(receipt)
        else:
            self._book.keep(receipt, self._receipted)

    def _receipted(self, receipt: source_pb2.Receipt) -> None:
        if receipt.level == source_pb2.Receipt.LEVEL_QUORUM:
            self.counts.receipts += 1
            self._retention.receipt(Position.from_wire(receipt.position))
            self._waiters.wake()

    @property
    def receipted(self) -> Position | None:
        """Newest position covered by a quorum receipt."""
        return self._retention.receipted

    async def wait_receipt(self, position: Position, timeout_s: float) -> bool:
        """True when a quorum receipt covers `position`, False when the time is over first."""
        await self._waiters.wait(lambda: self._closed or self.covered(position), timeout_s)
        return self.covered(position)

    def covered(self, position: Position) -> bool:
        return self.receipted is not None and self.receipted.place >= position.place

    def retain(self, from_position: Position, duration_ms: int) -> None:
        self._retention.lease(from_position, self._clocks.boottime_s() + duration_ms / 1_000)

    def snapshot(self, request: source_pb2.SnapshotRequest) -> AsyncIterator[source_pb2.SnapshotPart]:
        return self._snapshots.parts(request)

    def digest(self, request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
        position = Position.from_wire(request.position)
        with self._state:
            sums = self._pins.get(position)
        known = next((digest for digest in self._known(position) if digest.position == position), None)
        return answer(request, known, sums, self.content.bucket)

    # -------------------------------------------------------------------------------------------------------- closing

    @property
    def failed(self) -> ZaibeiError | None:
        """Set for good after an fsync failed: the process must stop."""
        return self._files.failed or (self._book.failed if self._book is not None else None)

    def close(self) -> None:
        """Wait for an append in flight, then close. Calling twice is harmless."""
        self._closed = True
        with self._room:
            self._room.notify_all()
        with self._turn:
            self._snapshots.close()
            self._files.close()
            self.content.close()
        self._waiters.wake()
