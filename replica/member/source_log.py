"""Our store as a source: the same feed run the other way, for a node that lost its data, a second site, failback and graduation.

Satisfies replica.feed.source_port.SourceLog. Epochs of a copy are granted by its own group alone, so a reader takes the copy in
the epochs it has and never grants one to us.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

from replica.model.batch import BATCH_FORMAT, SUITE
from replica.model.digest import ContentDigest
from replica.model.edge_threads import ended_in_thread, made_in_thread
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.position import Position
from replica.model.signing import Signer, certificate_octets, grant_octets, snapshot_octets
from replica.store.edge_readout import SnapshotReader
from replica.store.edge_store import SourceStore
from replica.v1 import position_pb2, source_pb2

BEAT_INTERVAL_MS = 500
SNAPSHOT_ID_OCTETS = 16
HOLDER = "copy"  # holds the epochs between a takeover and its failback


class StoreSourceLog:
    """One reader's way into a store.

    Args:
        signer: this member's key; certificates and snapshots read out here are signed with it.
        prefixes: as people write them.
    """

    def __init__(self, store: SourceStore, signer: Signer, prefixes: Sequence[str]) -> None:
        self._store, self._signer, self._prefixes = store, signer, tuple(prefixes)

    def describe(self) -> source_pb2.Description:
        state = self._store.state()
        said = source_pb2.Description(
            source=state.source,
            title=f"copy of {state.source}",
            suite=SUITE,
            formats=[BATCH_FORMAT],
            prefixes=self._prefixes,
            mode=source_pb2.Description.Mode.ValueType(int(state.mode)),
            fence=source_pb2.Description.FENCE_NONE,
            deletes=source_pb2.Description.DELETES_IN_LOG,
            head=self.head().to_wire(),
            floor=self.floor().to_wire(),
            shards=1,
            beat_interval_ms=BEAT_INTERVAL_MS,
        )
        ladder, ledger = state.ladder, state.ledger
        if ladder.closed and ladder.closed_at is not None and state.granted is not None:
            said.granted.CopyFrom(self._epoch_of_ours(state.source, ladder.closed_at, state.granted, ladder.act))
            if ledger is not None and ledger.common == ladder.closed_at and ledger.complete:
                said.taken_in.CopyFrom(ledger.theirs.to_wire())
        return said

    def _epoch_of_ours(self, source: str, common: Position, start: Position, act: str) -> source_pb2.Grant:
        """The epoch we write in, for a returning source or a node that begins: its parent is the newest position both hold."""
        octets = grant_octets(source, common, start, act, HOLDER)
        signature = self._signer.sign(octets)
        return source_pb2.Grant(
            source=source, parent=common.to_wire(), start=start.to_wire(), reason=act, holder=HOLDER, signature=signature
        )

    def head(self) -> Position:
        return self._store.state().position

    def floor(self) -> Position:
        return self._store.floor()

    def prove(self, position: Position) -> source_pb2.Proof:
        ours = self._store.chain_at(position.epoch, position.seq)
        if ours is None:
            return source_pb2.Proof(result=source_pb2.Proof.RESULT_UNKNOWN)
        proved = source_pb2.Proof.RESULT_PROVED if ours == position else source_pb2.Proof.RESULT_DIFFERENT
        return source_pb2.Proof(result=proved, position=ours.to_wire())

    def read(self, after: Position, octets_max: int) -> list[bytes] | None:
        return self._store.changes_after(after, octets_max)

    async def wait(self, after: Position, timeout_s: float) -> None:
        """Return when the applied position moved beyond `after`, or the time is over."""
        loop, moved = asyncio.get_running_loop(), asyncio.Event()

        def look(state: GroupState) -> None:  # on the apply thread
            if state.position != after:
                loop.call_soon_threadsafe(moved.set)

        end = self._store.subscribe(look)
        try:
            if self.head() == after:
                async with asyncio.timeout(timeout_s):
                    await moved.wait()
        except TimeoutError:
            return
        finally:
            end()

    def certificate(self, position: Position) -> position_pb2.Certificate | None:
        digest = self._store.digest_at(position)
        if digest is None:
            return None
        source, stated_ms = self._store.source, time.time_ns() // 1_000_000
        signature = self._signer.sign(certificate_octets(source, 0, digest, stated_ms))
        return position_pb2.Certificate(source=source, digest=digest.to_wire(), stated_ms=stated_ms, signature=signature)

    def epoch_wanted(self) -> str:
        return ""

    async def accept_grant(self, grant: source_pb2.Grant) -> Position:
        raise ZaibeiError(Code.CONFLICT, f"epochs of {self._store.source} are granted by its own group, not by a reader")

    def receipt(self, receipt: source_pb2.Receipt) -> None:
        """Nothing of ours is released on a reader's word: the change log is kept by size."""

    def retain(self, from_position: Position, duration_ms: int) -> None:
        """The change log is kept by size; a reader that falls behind it loads the content anew."""

    async def snapshot(self, request: source_pb2.SnapshotRequest) -> AsyncIterator[source_pb2.SnapshotPart]:
        if request.first_part:
            raise ZaibeiError(Code.NOT_FOUND, "this snapshot is not held any more: begin a new one")
        reader = await made_in_thread(partial(self._store.snapshot, os.urandom(SNAPSHOT_ID_OCTETS)), SnapshotReader.close)
        parts = reader.parts()
        try:
            while (part := await ended_in_thread(partial(next, parts, None))) is not None:
                yield self._signed(reader, part)
        finally:
            await asyncio.to_thread(reader.close)

    def _signed(self, reader: SnapshotReader, part: source_pb2.SnapshotPart) -> source_pb2.SnapshotPart:
        if part.HasField("end"):
            end, digest = part.end, ContentDigest.from_wire(part.end.digest)
            octets = snapshot_octets(self._store.source, digest, end.parts, end.ordered_hash)
            end.signature.CopyFrom(self._signer.sign(octets))
        return part

    def digest(self, request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
        return self._store.answer_digest(request)
