"""A source in a process of its own: offers a snapshot of the material and a stream of changes, over gRPC and mTLS.

`python -m ops.bench.edge_source CONFIG.json` prints its port, then takes orders, one a line, on standard input:
`stream COUNT RATE` releases the next COUNT batches, RATE of them a second (0: all at once), and prints once all are receipted.
`flood SECONDS` releases batches as fast as receipts come, the same records again and again, and prints how many were receipted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path

import grpc
import msgspec
import uvloop

from ops.bench import registry
from ops.bench.edge_engine import SOURCE, WALL_MS
from ops.bench.material import Material, open_material
from ops.bench.synthetic import columns, record
from replica.feed.edge_push_server import add_feed_services
from replica.feed.edge_source_server import SourceService
from replica.feed.edge_tls import SERVER_OPTIONS, server_credentials
from replica.model.batch import BATCH_FORMAT, SUITE, cut_batch
from replica.model.digest import ContentDigest
from replica.model.edge_identity import ensure_identity
from replica.model.edge_trust import LiveTrust, TrustFiles
from replica.model.errors import Code, ZaibeiError, require
from replica.model.identity import Peer, Pins, Trusts
from replica.model.position import NO_LINEAGE, ORIGIN, Position
from replica.model.signing import Signer, snapshot_octets
from replica.model.trust import Role
from replica.v1 import position_pb2, source_pb2

BEAT_MS = 500
FLOOD_AHEAD = 128  # batches released and not receipted


class SourceConfig(msgspec.Struct, forbid_unknown_fields=True):
    """What one source process offers.

    Args:
        identity: folder of its identity; member: name and certificate file of whom it lets in.
        roots: file of a CA whose members come in as well; port: where it listens, 0: anywhere.
        material: file, or the name of the registry that is made as it is read.
        records: how many of its records are the content at the epoch's start.
        first: number of the first record of the stream; batches: how many can be streamed; batch: records in each.
    """

    identity: str
    member: str
    certificate: str
    material: str
    records: int
    first: int
    batches: int
    batch: int = 1_000
    roots: str = ""
    port: int = 0


def _inserts(first: int, count: int) -> bytes:
    return columns([record(number) for number in range(first, first + count)])


class StreamLog:
    """A log whose batches exist before they are released, so that cutting them costs nothing while it is measured."""

    def __init__(self, config: SourceConfig, signer: Signer) -> None:
        self._signer = signer
        made = config.material == registry.NAME
        self._material: Material | registry.Registry | None = None
        if config.records:
            self._material = registry.Registry() if made else open_material(Path(config.material))
        self._records, self._batch = config.records, config.batch
        self._columns = [
            registry.changes(config.records, number, config.batch) if made else _inserts(first, config.batch)
            for number, first in enumerate(range(config.first, config.first + config.batches * config.batch, config.batch))
        ]
        self._raws: list[bytes] = []  # those that were receipted in a flood are dropped
        self._again: list[bytes] = []
        self._first = Position(NO_LINEAGE, 0, config.records, sha256(b"history before").digest()) if config.records else ORIGIN
        self._boundaries = [self._first]  # of the batches of the epoch, once it is granted
        self._released = 0
        self._moved = asyncio.Event()
        self.granted = asyncio.Event()  # the epoch has begun: there is something to release
        self.receipted = asyncio.Event()
        self.receipted_place = 0  # batches under a quorum receipt

    def release(self, count: int) -> None:
        """Let the next batches be seen."""
        require(self._released + count <= len(self._raws), "as many batches were cut as are released")
        self._released += count
        self.receipted.clear()
        self._moved.set()

    # ------------------------------------------------------------------------------------------------- SourceLog
    def describe(self) -> source_pb2.Description:
        return source_pb2.Description(
            source=SOURCE, title="synthetic", suite=SUITE, formats=[BATCH_FORMAT], prefixes=[SOURCE],
            mode=source_pb2.Description.MODE_RECORDS, fence=source_pb2.Description.FENCE_NONE,
            deletes=source_pb2.Description.DELETES_IN_LOG, head=self.head().to_wire(), floor=self.floor().to_wire(),
            shards=1, beat_interval_ms=BEAT_MS,
        )  # fmt: skip

    def head(self) -> Position:
        return self._boundaries[self._released]

    def floor(self) -> Position:
        return self._boundaries[0]

    def prove(self, position: Position) -> source_pb2.Proof:
        ours = self._at(position)
        if ours is None:
            return source_pb2.Proof(result=source_pb2.Proof.RESULT_UNKNOWN)
        same = source_pb2.Proof.RESULT_PROVED if ours == position else source_pb2.Proof.RESULT_DIFFERENT
        return source_pb2.Proof(result=same, position=ours.to_wire())

    def _at(self, position: Position) -> Position | None:
        if position.place == self._first.place:
            return self._first
        place, rest = divmod(position.seq - self._boundaries[0].seq, self._batch)
        return self._boundaries[place] if not rest and 0 <= place <= self._released else None

    def read(self, after: Position, octets_max: int) -> list[bytes] | None:
        if self._at(after) != after or after.epoch != self._boundaries[0].epoch:
            return None
        place = (after.seq - self._boundaries[0].seq) // self._batch
        if place >= self._released:
            return []
        many = max(1, octets_max // len(self._raws[place]))
        return self._raws[place : min(place + many, self._released)]

    async def wait(self, after: Position, timeout_s: float) -> None:
        if self.head() == after:
            self._moved.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._moved.wait()
            except TimeoutError:
                return

    def certificate(self, position: Position) -> position_pb2.Certificate | None:
        return None  # the copy's content is compared at the load; later ones would measure the source's arithmetic

    def epoch_wanted(self) -> str:
        return ""

    async def accept_grant(self, grant: source_pb2.Grant) -> Position:
        start = Position.from_wire(grant.start)
        if start != self._boundaries[0]:
            if Position.from_wire(grant.parent) != self.head():
                raise ZaibeiError(Code.CONFLICT, f"our head is {self.head().short()}", retry=True)
            self._begin(start)
        return start

    def _begin(self, start: Position) -> None:
        """Cut every batch of the epoch; one epoch is granted in the life of this process."""
        require(not self._raws, "a benchmark's source is granted one epoch")
        self._boundaries, self._released = [start], 0
        for columns_ in self._columns:
            self._cut(columns_)
        self._again, self._columns = self._columns, []
        self._moved.set()
        self.granted.set()

    def _cut(self, columns_: bytes) -> None:
        cut = cut_batch(SOURCE, self._boundaries[-1], columns_, self._batch, WALL_MS)
        self._raws.append(cut.raw)
        self._boundaries.append(cut.after)

    async def flood(self, seconds: float) -> int:
        """Release batches until the time is over; returns how many came under a quorum receipt meanwhile."""
        first, until = self.receipted_place, time.monotonic() + seconds
        dropped = first
        while time.monotonic() < until:
            while self._released - self.receipted_place < FLOOD_AHEAD:
                if self._released == len(self._raws):
                    self._cut(self._again[self._released % len(self._again)])
                self.release(1)
            for place in range(dropped, self.receipted_place):
                self._raws[place] = b""
            dropped = self.receipted_place
            await asyncio.sleep(0.002)
        return self.receipted_place - first

    def receipt(self, receipt: source_pb2.Receipt) -> None:
        if receipt.level < source_pb2.Receipt.LEVEL_QUORUM:
            return
        position = Position.from_wire(receipt.position)
        if position.epoch == self._boundaries[0].epoch:
            place = (position.seq - self._boundaries[0].seq) // self._batch
            self.receipted_place = max(self.receipted_place, place)
        if position == self.head():
            self.receipted.set()

    def retain(self, from_position: Position, duration_ms: int) -> None:
        """Everything is kept."""

    async def snapshot(self, request: source_pb2.SnapshotRequest) -> AsyncIterator[source_pb2.SnapshotPart]:
        del request
        position = self._boundaries[0]
        header = source_pb2.SnapshotHeader(
            format=1, suite=SUITE, source=SOURCE, snapshot_id=position.chain[:16], position=position.to_wire(),
            records_estimate=self._records,
        )  # fmt: skip
        yield source_pb2.SnapshotPart(header=header)
        if self._material is None:
            end = source_pb2.SnapshotEnd(digest=ContentDigest(position, 0, 0).to_wire(), ordered_hash=_EMPTY_HASH)
        else:
            for number, part in enumerate(self._material.parts(self._records)):
                yield source_pb2.SnapshotPart(chunk=source_pb2.SnapshotChunk(part=number, columns=part))
            end = self._material.end(self._records, position)
        octets = snapshot_octets(SOURCE, ContentDigest.from_wire(end.digest), end.parts, end.ordered_hash)
        end.signature.CopyFrom(self._signer.sign(octets))
        yield source_pb2.SnapshotPart(end=end)

    def digest(self, request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
        return source_pb2.DigestResponse(pinned=False)


_EMPTY_HASH = sha256().digest()


def _trusts(config: SourceConfig) -> Trusts:
    if config.roots:
        return LiveTrust(Pins, TrustFiles((Path(config.roots),)), frozenset({Role.MEMBER}))
    return Pins((Peer(config.member, Path(config.certificate).read_bytes(), role="member"),))


async def _serve(config: SourceConfig) -> None:
    identity = ensure_identity(Path(config.identity), SOURCE)
    log = StreamLog(config, identity.signer)
    trusts = _trusts(config)
    server = grpc.aio.server(options=list(SERVER_OPTIONS))
    add_feed_services(server, source=SourceService(lambda _peer, _name: log, lambda: trusts))
    port = server.add_secure_port(f"127.0.0.1:{config.port}", server_credentials(identity, trusts))
    await server.start()
    _say(port=port)
    orders: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), _read_orders(orders))
    while order := await orders.get():
        match order.split():
            case [b"stream", count, rate]:
                await _stream(log, int(count), float(rate))
            case [b"flood", seconds]:
                await log.granted.wait()
                _say(receipted=await log.flood(float(seconds)))
    await server.stop(0.1)


def _read_orders(orders: asyncio.Queue[bytes]) -> Callable[[], None]:
    def readable() -> None:
        orders.put_nowait(sys.stdin.buffer.readline())

    return readable


async def _stream(log: StreamLog, count: int, rate: float) -> None:
    await log.granted.wait()
    began = time.monotonic()
    if rate:
        for number in range(count):
            await asyncio.sleep(began + number / rate - time.monotonic())
            log.release(1)
    else:
        log.release(count)
    await log.receipted.wait()
    _say(streamed=count, seconds=time.monotonic() - began)


def _say(**what: float) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=SourceConfig)
    uvloop.run(_serve(config))


if __name__ == "__main__":
    main()
