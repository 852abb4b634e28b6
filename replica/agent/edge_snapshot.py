"""The full content at one position, read out in parts; a broken transfer may be resumed with the same octets for a while.

A transfer's view is a read transaction: as long as it is open, SQLite's WAL grows with every write and cannot begin again. So a
view is open no longer than somebody may come back to it:

| the transfer | its view is closed |
| --- | --- |
| is being read | never |
| broke off | after RESUME_S_MAX |
| had its end sent | after FINISHED_S_MAX |
| lost its reader before the header | at once: nobody knows its id |
Looked at by `expire`, about every second, asked or not; when all places are taken, the one that ends first makes room.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from replica.agent.edge_content import View
from replica.model.batch import OP_PUT
from replica.model.errors import Code, ZaibeiError
from replica.model.signing import Signer, snapshot_octets
from replica.v1 import position_pb2, source_pb2

PART_OCTETS = 256 * 1024  # sweet spot of a gRPC message; a single record may make one longer
RECORD_OVERHEAD_OCTETS = 9
SNAPSHOTS_MAX = 4
RESUME_S_MAX = 120.0  # a transfer that broke off and nobody goes on with is forgotten
FINISHED_S_MAX = 5.0  # sent is not arrived: who lost the connection with the last parts on it is back by then
SNAPSHOT_ID_OCTETS = 16


class Transfer:
    """One snapshot being read. Parts are made in order; earlier ones are made again from the key they began with."""

    def __init__(self, path: Path, now_s: float) -> None:
        self.ident = os.urandom(SNAPSHOT_ID_OCTETS)
        self.view = View(path)
        self.until_s = now_s  # kept until then, where nobody reads it
        self.told = False  # a reader may know its id
        self.lock = threading.Lock()  # held by its reader
        self._growing = threading.Lock()
        self._starts: list[bytes] = [b""]  # first key of part n; the last entry is where the next new part begins
        self._hashes = [hashlib.sha256()]  # over all parts before part n

    def parts(self, first: int) -> Iterator[bytes]:
        """Columns octets of part `first` and all that follow."""
        records = self.view.scan(self._starts[first])
        keys: list[bytes] = []
        values: list[bytes] = []
        octets, number = 0, first
        for key, value in records:
            size = len(key) + len(value) + RECORD_OVERHEAD_OCTETS
            if keys and octets + size > PART_OCTETS:
                yield self._part(number, keys, values, key)
                keys, values, octets, number = [], [], 0, number + 1
            keys.append(key)
            values.append(value)
            octets += size
        if keys:
            yield self._part(number, keys, values, keys[-1] + b"\0")

    def _part(self, number: int, keys: list[bytes], values: list[bytes], next_start: bytes) -> bytes:
        columns = position_pb2.Columns(keys=keys, values=values, ops=bytes([OP_PUT]) * len(keys)).SerializeToString()
        with self._growing:  # a reader that was cut off may still be at work in its thread when the next one begins
            if number == len(self._starts) - 1:
                running = self._hashes[number].copy()
                running.update(columns)
                self._hashes.append(running)
                self._starts.append(next_start)
        return columns

    @property
    def made(self) -> int:
        """Parts made so far."""
        return len(self._starts) - 1

    def ordered_hash(self) -> bytes:
        return self._hashes[-1].digest()

    def lay_down(self, until_s: float) -> None:
        """Its reader is gone; somebody may go on with it until then."""
        self.until_s = until_s
        self.lock.release()


class Snapshots:
    """Running transfers of one source.

    Args:
        turn: held by whoever changes the content until it is published: no view is of a position that the head has not reached.
    """

    def __init__(self, source: str, path: Path, signer: Signer, boottime_s: Callable[[], float], turn: threading.Lock) -> None:
        self._source, self._path, self._signer, self._boottime_s, self._turn = source, path, signer, boottime_s, turn
        self._running: dict[bytes, Transfer] = {}
        self._lock = threading.Lock()
        self._closed = False

    async def parts(self, request: source_pb2.SnapshotRequest) -> AsyncIterator[source_pb2.SnapshotPart]:
        """Header, chunks, signed end.

        An id that is no longer held (or a part never sent) begins a new snapshot: the header's id says so.
        Raises:
            ZaibeiError(BUSY): SNAPSHOTS_MAX transfers run already. ZaibeiError(STOPPING): the log is closed.
        """
        transfer, first = await self._begun(request)
        keep_s, loop = RESUME_S_MAX, asyncio.get_running_loop()
        reading: asyncio.Future[bytes | None] | None = None  # no task: those are cancelled when a loop ends, under their thread
        try:
            transfer.told = True
            yield self._header(transfer)
            columns, number = transfer.parts(first), first
            while True:
                reading = loop.run_in_executor(None, next, columns, None)
                if (octets := await asyncio.shield(reading)) is None:
                    break
                yield source_pb2.SnapshotPart(chunk=source_pb2.SnapshotChunk(part=number, columns=octets))
                number += 1
            yield self._end(transfer)
            keep_s = FINISHED_S_MAX  # who goes away at the end, or before, may not have it
        finally:
            if reading is None or reading.done():
                self._laid_down(transfer, keep_s)
            else:  # cancelled: the thread reads on for a moment, and the view must not be closed under it
                reading.add_done_callback(lambda ended: self._laid_down(transfer, keep_s, ended))

    def _laid_down(self, transfer: Transfer, keep_s: float, ended: asyncio.Future[bytes | None] | None = None) -> None:
        if ended is not None and not ended.cancelled():
            ended.exception()  # of a reading whose reader is gone: nobody's
        transfer.lay_down(self._boottime_s() + keep_s)
        if self._closed:  # `close` left it to us
            transfer.view.close()

    async def _begun(self, request: source_pb2.SnapshotRequest) -> tuple[Transfer, int]:
        """A reader that is gone before it began must not keep its place: the thread that opens it cannot be stopped."""
        opening = asyncio.get_running_loop().run_in_executor(None, self._begin, request)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._let_go)
            raise

    def _let_go(self, opening: asyncio.Future[tuple[Transfer, int]]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            transfer, _ = opening.result()
            self._laid_down(transfer, RESUME_S_MAX if transfer.told else 0.0)

    def _header(self, transfer: Transfer) -> source_pb2.SnapshotPart:
        digest = transfer.view.digest
        header = source_pb2.SnapshotHeader(
            format=1, suite="std", source=self._source, shard=0, snapshot_id=transfer.ident,
            position=digest.position.to_wire(), records_estimate=digest.records,
        )  # fmt: skip
        return source_pb2.SnapshotPart(header=header)

    def _end(self, transfer: Transfer) -> source_pb2.SnapshotPart:
        digest, ordered = transfer.view.digest, transfer.ordered_hash()
        signature = self._signer.sign(snapshot_octets(self._source, digest, transfer.made, ordered))
        return source_pb2.SnapshotPart(
            end=source_pb2.SnapshotEnd(parts=transfer.made, digest=digest.to_wire(), ordered_hash=ordered, signature=signature)
        )

    def _begin(self, request: source_pb2.SnapshotRequest) -> tuple[Transfer, int]:
        self.expire()
        with self._turn, self._lock:
            if self._closed:
                raise ZaibeiError(Code.STOPPING, "the log is closed")
            held = self._running.get(request.snapshot_id)
            if held is not None and request.first_part <= held.made and held.lock.acquire(blocking=False):
                return held, request.first_part
            if len(self._running) >= SNAPSHOTS_MAX:
                idle = [transfer for transfer in self._running.values() if not transfer.lock.locked()]
                if not idle:
                    raise ZaibeiError(Code.BUSY, f"{SNAPSHOTS_MAX} snapshots are being read already", retry=True)
                self._forget(min(idle, key=lambda transfer: transfer.until_s))
            transfer = Transfer(self._path, self._boottime_s())
            transfer.lock.acquire()
            self._running[transfer.ident] = transfer
            return transfer, 0

    def _forget(self, transfer: Transfer) -> None:
        del self._running[transfer.ident]
        transfer.view.close()

    def expire(self) -> None:
        """Close the views of transfers that nobody reads, and whose time is over. About every second, from a worker thread."""
        now = self._boottime_s()
        with self._lock:
            for transfer in list(self._running.values()):
                if not transfer.lock.locked() and now >= transfer.until_s:
                    self._forget(transfer)

    def close(self) -> None:
        """Close all views; one that is being read is closed by its reader, when that goes."""
        with self._lock:
            self._closed = True
            for transfer in list(self._running.values()):
                if not transfer.lock.locked():
                    self._forget(transfer)
            self._running.clear()
