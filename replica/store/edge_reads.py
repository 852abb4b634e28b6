"""Reading the live generation of a source's store from any thread: values, ranges, history, digest, the full content."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.ledger import Line
from replica.model.position import Position
from replica.store.edge_audit import AuditPage, read_page
from replica.store.edge_generation import Generation
from replica.store.edge_ledger import read_lines
from replica.store.edge_readout import Pinned, SnapshotReader, read_range
from replica.store.rows import Kind, history_of, placed
from replica.store.state_row import Stored
from replica.v1 import source_pb2


class StoreReads:
    """What any thread may call. A reader pins the generation it reads: that one is not closed meanwhile."""

    def __init__(self, source: str, live: Generation, stored: Stored) -> None:
        self.source = source
        self._pins = threading.Condition()
        self._live = live
        self._stored = stored
        self._pinned: Pinned | None = None
        self._subscribers: tuple[Callable[[GroupState], None], ...] = ()
        self._closed = False
        self._stood_at = 0  # index applied before the store was reopened

    @contextmanager
    def _reading(self, generation: Generation | None = None) -> Iterator[Generation]:
        """A generation that is not closed meanwhile; the live one unless another is named."""
        pinned = self._pin(generation)
        try:
            yield pinned
        finally:
            self._unpin(pinned)

    def _pin(self, generation: Generation | None = None) -> Generation:
        with self._pins:
            if self._closed and generation is None:
                raise ZaibeiError(Code.BUSY, f"the store of {self.source} is being opened again after a disk error", retry=True)
            pinned = self._live if generation is None else generation
            pinned.readers += 1
        return pinned

    def _unpin(self, pinned: Generation) -> None:
        with self._pins:
            pinned.readers -= 1
            if not pinned.readers:
                self._pins.notify_all()

    def state(self) -> GroupState:
        """Everything entries decided, at one applied index; made anew at each apply. Any thread."""
        return self._stored.group

    @property
    def behind(self) -> bool:
        """It was reopened after a disk error and the journal has not yet replayed all it had: nothing here may be vouched for."""
        return self._live.row.index < self._stood_at

    def held_counts(self) -> tuple[tuple[bytes, int, int], ...]:
        """(prefix part, removed, rewritten) of what is held, as its committed entry states them; empty when nothing is."""
        return self._stored.hold_counts

    def subscribe(self, callback: Callable[[GroupState], None]) -> Callable[[], None]:
        """Call back after each applied entry, on the apply thread; must not block. The result ends the subscription."""
        with self._pins:
            self._subscribers = (*self._subscribers, callback)

        def end() -> None:
            with self._pins:
                self._subscribers = tuple(one for one in self._subscribers if one is not callback)

        return end

    def get_many(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], Position]:
        """Values and the position they were read at, at one moment. Any thread; b"" = quarantined (answer code 2).

        Raises:
            ZaibeiError(DAMAGED, DISK_FAILED): reading failed. ZaibeiError(BUSY, retry): it is being opened again.
        """
        live = self._pin()
        try:
            return live.get_many(keys)
        finally:
            self._unpin(live)

    def existing(self, keys: Sequence[bytes]) -> list[bool]:
        """Which keys the live generation holds. Any thread."""
        with self._reading() as live:
            return live.existing(keys)

    def live_records(self, level: bytes) -> int:
        """Live records of a brake level (prefix part and 0x00, subtree, or b"" for all). Any thread."""
        return self._live.counts(level)

    def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Records with start <= key < stop, ascending, at most `limit`. Raises ZaibeiError(DAMAGED), never a short answer."""
        with self._reading() as live:
            return read_range(live, start, stop, limit)

    def stored(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values as they are stored, quarantined ones too. Any thread. Raises ZaibeiError."""
        with self._reading() as live:
            return live.stored(keys)

    def ledger_lines(self, common: Position, after: bytes, limit: int) -> list[Line]:
        """Lines of a failback's ledger behind an ident (b"": from the first), as the source's history goes. Any thread."""
        with self._reading() as live:
            return read_lines(live, common, after, limit)

    def chain_at(self, epoch: int, seq: int) -> Position | None:
        """Our boundary there; kept longer than data. Any thread."""
        with self._reading() as live:
            return live.chain_at(epoch, seq)

    def boundaries(self) -> tuple[Position, list[Position]]:
        """Where the live copy stands, and every boundary up to there that is still known, ascending. Blocks long, any thread."""
        with self._reading() as live:
            head = live.row.position
            rows = live.rocks.rows(Kind.HISTORY, placed(Kind.HISTORY, head.epoch, head.seq))
            return head, [*(history_of(key, value)[0] for key, value in rows), head]

    def audit_page(self, after: int, limit: int) -> AuditPage:
        """Records of the audit behind a number, ascending, and its head. Any thread. Raises ZaibeiError."""
        with self._reading() as live:
            return read_page(live, after, limit)

    def floor(self) -> Position:
        """The oldest boundary from which `changes_after` goes on."""
        with self._reading() as live:
            return live.log.floor(live.row.position)

    def changes_after(self, position: Position, octets_max: int) -> list[bytes] | None:
        """Raw batches after a boundary; [] at the head; None: no longer held, or not on our chain. Any thread."""
        with self._reading() as live:
            head = live.row.position
            if position == head:
                return []
            if live.chain_at(*position.place) != position or not live.log.holds_after(position, head):
                return None
            return live.log.read(position, octets_max)

    def batch_after(self, boundary: Position) -> bytes | None:
        """The raw batch behind a boundary, of that boundary's epoch whatever came later; None: it is not held. Any thread."""
        with self._reading() as live:
            if live.chain_at(*boundary.place) != boundary:
                return None
            return next(iter(live.log.read(boundary, 1)), None)

    def digest_at(self, position: Position) -> ContentDigest | None:
        """Our digest at exactly that boundary: the newest one, or the pinned one; otherwise None."""
        digest, pinned = self._live.digest, self._pinned
        if digest.position == position:
            return digest
        return pinned.digest if pinned is not None and pinned.digest.position == position else None

    @property
    def pinned_at(self) -> Position | None:
        """Boundary of the newest certificate, whose content is held; None: none is."""
        pinned = self._pinned
        return None if pinned is None else pinned.digest.position

    def pinned_sums(self, position: Position) -> bytes | None:
        """65,536 sums of 24 octets of the last certificate's position; None: not held any more."""
        pinned = self._pinned
        return pinned.sums if pinned is not None and pinned.digest.position == position else None

    def answer_digest(self, request: source_pb2.DigestRequest, named: Sequence[bytes] = ()) -> source_pb2.DigestResponse:
        """Sums at the pinned position; `pinned` False when that is another one. Raises ZaibeiError(MALFORMED, DAMAGED).

        Args:
            named: keys the other side has in the bucket that is asked for: most often ours are the same.
        """
        with self._reading() as live:
            pinned = self._pinned
            if pinned is None or pinned.digest.position != Position.from_wire(request.position):
                return source_pb2.DigestResponse(pinned=False)
            return pinned.answer(live, request, named)

    def bucket_keys(self, bucket: int, position: Position) -> tuple[list[bytes], list[bytes]] | None:
        """Keys and record hashes of one of 65,536 buckets at the pinned position (a full scan: seconds a million records)."""
        with self._reading() as live:
            pinned = self._pinned
            if pinned is None or pinned.digest.position != position:
                return None
            return pinned.bucket_keys(live, bucket)

    def snapshot(self, snapshot_id: bytes) -> SnapshotReader:
        """The full content at one position, for reading out; close it. Any thread."""
        live = self._pin()
        return SnapshotReader(live, self.source, snapshot_id, lambda: self._unpin(live))
