"""A small source that keeps every rule, and one that breaks just the rule it is told to break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import grpc

from replica.model.batch import Change, columns_of, cut_batch
from replica.model.digest import MODULUS, ContentDigest
from replica.model.edge_identity import Identity
from replica.model.identifier import Identifier
from replica.model.identity import Pins
from replica.model.position import ORIGIN, Position
from replica.model.signing import Signer, certificate_octets, snapshot_octets
from replica.native import record_hash
from replica.v1 import position_pb2, source_pb2, source_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
BEAT_MS = 50
CERTIFICATE_S = 0.2
PART_RECORDS = 4


def put(name: str, text: str = "x") -> Change:
    value = b"\x01" + (1).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes(4) + b"\0" + (60).to_bytes(4, "big") + b"\x0e"
    value += (3).to_bytes(4, "big") + b"URL" + len(text).to_bytes(4, "big") + text.encode() + bytes(4)
    return Change(1, Identifier.parse(f"88.118.8/{name}").key(), value)


def delete(name: str) -> Change:
    return Change(2, Identifier.parse(f"88.118.8/{name}").key())


def history() -> list[list[Change]]:
    return [[put(f"A{number}") for number in range(9)], [delete("A3"), put("A4", "y")], [put("B")], [delete("B"), put("C")]]


@dataclass
class Registry:
    """Batches, boundaries and the content at each."""

    source: str
    batches: list[position_pb2.Batch] = field(default_factory=list)
    content: dict[bytes, bytes] = field(default_factory=dict)
    boundaries: list[Position] = field(default_factory=lambda: [ORIGIN])

    def write(self, changes: list[Change]) -> None:
        batch = cut_batch(self.source, self.boundaries[-1], columns_of(changes), len(changes), 1)
        for change in changes:
            if change.op == 1:
                self.content[change.key] = change.value
            else:
                self.content.pop(change.key, None)
        self.batches.append(position_pb2.Batch.FromString(batch.raw))
        self.boundaries.append(batch.after)

    def digest(self) -> ContentDigest:
        total = sum(int.from_bytes(record_hash(key, value), "little") for key, value in self.content.items()) % MODULUS
        return ContentDigest(self.boundaries[-1], len(self.content), total)


class PlantedSource(source_pb2_grpc.RegistrySourceServicer):
    """`plant` names the rule it breaks; "" keeps all."""

    def __init__(self, identity: Identity, plant: str = "") -> None:
        self.identity, self.plant = identity, plant
        self.signer: Signer = identity.signer
        self.registry = Registry(identity.name)
        self.readings = 0
        self.heads = 0
        for changes in history():
            self.registry.write(changes)
        if plant == "keys.owned":
            self.registry.write([Change(1, Identifier.parse("88.119/X").key(), put("X").value)])
        if plant == "records.canonical":
            self.registry.write([Change(1, put("BAD").key, b"\x01\x00\x00\x00\x09")])
        if plant == "deletes.exact":
            self.registry.write([delete("A3")])

    @property
    def head(self) -> Position:
        return self.registry.boundaries[-1]

    # --------------------------------------------------------------------------------------------------------- unary

    async def Describe(self, request: source_pb2.DescribeRequest, context: Context) -> source_pb2.Description:
        return source_pb2.Description(
            source="another" if self.plant == "describe.sane" else self.registry.source,
            suite="std",
            formats=[1],
            prefixes=["88.118"],
            mode=source_pb2.Description.MODE_RECORDS,
            fence=source_pb2.Description.FENCE_NONE,
            deletes=source_pb2.Description.DELETES_IN_LOG,
            head=self.head.to_wire(),
            floor=ORIGIN.to_wire(),
            shards=1,
            beat_interval_ms=BEAT_MS,
        )

    async def Prove(self, request: source_pb2.ProveRequest, context: Context) -> source_pb2.Proof:
        position, proof = Position.from_wire(request.position), source_pb2.Proof
        known = next((one for one in self.registry.boundaries if one.place == position.place), None)
        if self.plant == "prove.true" and known == position:
            return proof(result=proof.RESULT_UNKNOWN)
        if self.plant == "prove.foreign" and (known is None or known.lineage != position.lineage):
            return proof(result=proof.RESULT_PROVED)
        if known is None:
            return proof(result=proof.RESULT_UNKNOWN)
        if known == position or (self.plant == "prove.forged" and known.lineage == position.lineage):
            return proof(result=proof.RESULT_PROVED, position=known.to_wire())
        return proof(result=proof.RESULT_DIFFERENT, position=known.to_wire())

    # ------------------------------------------------------------------------------------------------------ snapshot

    async def Snapshot(self, request: source_pb2.SnapshotRequest, context: Context) -> AsyncIterator[source_pb2.SnapshotPart]:
        digest, plant = self.registry.digest(), self.plant
        yield source_pb2.SnapshotPart(
            header=source_pb2.SnapshotHeader(
                format=1, suite="std", source=self.registry.source, snapshot_id=b"one", position=self.head.to_wire()
            )
        )
        keys = sorted(self.registry.content, reverse=plant == "snapshot.order")
        running, parts = sha256(), 0
        for at in range(0, len(keys), PART_RECORDS):
            chosen = keys[at : at + PART_RECORDS]
            columns = columns_of([Change(1, key, self.registry.content[key]) for key in chosen])
            running.update(columns)
            if parts >= request.first_part or plant == "snapshot.resume":
                number = parts + 1 if plant == "snapshot.parts" and parts > request.first_part == 0 else parts
                yield source_pb2.SnapshotPart(chunk=source_pb2.SnapshotChunk(part=number, columns=columns))
            parts += 1
        ordered = bytes(32) if plant == "snapshot.hash" else running.digest()
        if plant == "snapshot.digest":
            digest = ContentDigest(digest.position, digest.records, digest.total ^ 1)
        if plant == "snapshot.count":
            digest = ContentDigest(digest.position, digest.records + 1, digest.total)
        signature = self.signer.sign(snapshot_octets(self.registry.source, digest, parts, ordered))
        if plant == "snapshot.signature":
            signature.signature = bytes(64)
        yield source_pb2.SnapshotPart(
            end=source_pb2.SnapshotEnd(parts=parts, digest=digest.to_wire(), ordered_hash=ordered, signature=signature)
        )

    # --------------------------------------------------------------------------------------------------------- watch

    async def Watch(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override]
        await Stream(self, context).run()

    def raw(self, number: int) -> bytes:
        """One batch as sent, spoilt where the plant says so."""
        batch = position_pb2.Batch()
        batch.CopyFrom(self.registry.batches[number])
        if self.plant == "batch.header":
            batch.suite = "other"
        elif self.plant == "batch.limits":
            batch.count = 1_001
        elif self.plant == "chain.follows":
            batch.after.chain = bytes(32)
        elif self.plant == "resume.repeat" and self.readings == 2:
            batch.stated_ms += self.readings
        return batch.SerializeToString()

    def certificate(self) -> position_pb2.Certificate:
        digest = self.registry.digest()
        if self.plant == "certificate.equal":
            digest = ContentDigest(digest.position, digest.records, digest.total ^ 1)
        signature = self.signer.sign(certificate_octets(self.registry.source, 0, digest, 5))
        if self.plant == "certificate.signature":
            signature.signature = bytes(64)
        return position_pb2.Certificate(source=self.registry.source, digest=digest.to_wire(), stated_ms=5, signature=signature)


class Stream:
    """One Watch."""

    def __init__(self, source: PlantedSource, context: Context) -> None:
        self.source, self.context, self.plant = source, context, source.plant
        self.nonce = b""
        self.first_nonce = b""
        self.credit = (0, 0)
        self.sent = (0, 0)
        self.next: int | None = None
        self.woken = asyncio.Event()
        self.refused = False
        self.turn = asyncio.Lock()

    async def _write(self, message: source_pb2.SourceMessage) -> None:
        """One at a time: gRPC ends a stream that two tasks write to at once."""
        async with self.turn:
            await self.context.write(message)

    async def run(self) -> None:
        offer = source_pb2.Offer(description=await self.source.Describe(source_pb2.DescribeRequest(), self.context))
        await self._write(source_pb2.SourceMessage(offer=offer))
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._beat()), asyncio.create_task(self._certify())]
        try:
            while not tasks[0].done():
                await self._send_batches()
                self.woken.clear()
                waiting = asyncio.create_task(self.woken.wait())
                await asyncio.wait({tasks[0], waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        while (message := await self.context.read()) is not grpc.aio.EOF:
            match message.WhichOneof("body"):
                case "resume":
                    await self._resume(message.resume)
                case "credit":
                    self._credit(message.credit)
                case "nonce":
                    self.nonce = message.nonce.nonce
                    self.first_nonce = self.first_nonce or self.nonce
            self.woken.set()

    def _credit(self, credit: source_pb2.Credit) -> None:
        if self.plant == "credit.total":
            self.credit = (self.credit[0] + credit.batches_total, self.credit[1] + credit.octets_total)
        else:
            self.credit = (max(self.credit[0], credit.batches_total), max(self.credit[1], credit.octets_total))

    async def _resume(self, resume: source_pb2.Resume) -> None:
        position = Position.from_wire(resume.position)
        self._credit(resume.credit)
        known = self.source.registry.boundaries
        careless = {"refuse.lineage": position.lineage != ORIGIN.lineage, "refuse.epoch": position.epoch > 0}.get(
            self.plant, False
        )
        if position in known or careless:
            self.next = next(number for number, one in enumerate(known) if one.seq == position.seq)
            if position == ORIGIN:
                self.source.readings += 1
            elif self.plant == "resume.boundary" and self.next in (1, 2):
                self.next += 1
            return
        await self._write(source_pb2.SourceMessage(fault=source_pb2.Fault(code="snapshot_wanted", message="not ours")))

    async def _send_batches(self) -> None:
        while self.next is not None and self.next < len(self.source.registry.batches):
            if self.plant == "chain.gapless" and self.next == 1:
                self.next = 2
            raw = self.source.raw(self.next)
            free = self.plant == "credit.zero"
            if not free and (self.sent[0] >= self.credit[0] or self.sent[1] + len(raw) > self.credit[1]):
                return
            self.sent = (self.sent[0] + 1, self.sent[1] + len(raw))
            self.next += 1
            await self._write(source_pb2.SourceMessage(batch=raw))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(1.5 if self.plant == "beats.interval" else BEAT_MS / 1_000)
            self.source.heads += 1
            backwards = self.plant == "head.forward" and self.source.heads % 2
            head = self.source.registry.boundaries[-2] if backwards else self.source.head
            nonce = self.first_nonce if self.plant == "beats.nonce" else self.nonce
            await self._write(source_pb2.SourceMessage(beat=source_pb2.Beat(head=head.to_wire(), nonce=nonce)))

    async def _certify(self) -> None:
        while self.plant != "certificate.interval":
            await asyncio.sleep(CERTIFICATE_S)
            if self.next == len(self.source.registry.batches):
                await self._write(source_pb2.SourceMessage(certificate=self.source.certificate()))


async def serve(source: PlantedSource, pins: Pins, address: str = "127.0.0.1:0") -> tuple[grpc.aio.Server, str]:
    """A server and where it listens."""
    server = grpc.aio.server()
    source_pb2_grpc.add_RegistrySourceServicer_to_server(source, server)
    host = address.rpartition(":")[0]
    pair = (source.identity.tls_key_pem, source.identity.certificate_pem)
    strict = source.plant != "tls.client"
    credentials = grpc.ssl_server_credentials([pair], root_certificates=pins.roots_pem(), require_client_auth=strict)
    port = server.add_secure_port(address, credentials)
    await server.start()
    return server, f"{host}:{port}"
