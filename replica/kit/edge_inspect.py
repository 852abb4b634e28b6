"""Connects to a source as a replica that asks for everything and changes nothing: no grant, no receipt, no lease."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

import grpc
from google.protobuf.message import DecodeError

from replica.kit.content import Contents
from replica.kit.edge_live import look_live
from replica.kit.edge_watch import reason_of, translated, watching
from replica.kit.judges import HeadJudge, HistoryJudge, SnapshotJudge
from replica.kit.rules import RULES, Group
from replica.kit.settings import Settings
from replica.kit.sheet import Finding, Sheet
from replica.model.batch import BATCH_OCTETS_MAX
from replica.model.edge_identity import Identity
from replica.model.errors import ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.identity import TLS_NAME, Peer
from replica.model.position import LINEAGE_OCTETS, ORIGIN, Position, epoch_start
from replica.v1 import position_pb2, source_pb2, source_pb2_grpc

MESSAGE_OCTETS_MAX = BATCH_OCTETS_MAX + 64 * 1024
OPTIONS: Sequence[tuple[str, int | str]] = (
    ("grpc.max_receive_message_length", MESSAGE_OCTETS_MAX),
    ("grpc.ssl_target_name_override", TLS_NAME),
    ("grpc.use_local_subchannel_pool", 1),
)
MANY = 2**40


class Inspection:
    """One look at one source.

    Args:
        address: `host:port`; `also`: further addresses that must be the same source (the name's other family).
        identity: ours; the source must have pinned it.
        pin: the source's certificate.
        only: groups to look at; None: all.
    """

    def __init__(
        self,
        address: str,
        identity: Identity,
        pin: Peer,
        settings: Settings,
        also: Sequence[str] = (),
        only: frozenset[Group] | None = None,
    ) -> None:
        self.address, self.identity, self.pin, self.settings = address, identity, pin, settings
        self.also, self.only = tuple(also), only
        self.sheet = Sheet()
        self.description = source_pb2.Description()
        self.prefixes: tuple[bytes, ...] = ()
        self.head = self.floor = ORIGIN
        self._heads = HeadJudge(self.sheet)

    async def run(self) -> tuple[Finding, ...]:
        """Look and judge.

        Raises:
            ZaibeiError(UNREACHABLE, NOT_AUTHORISED, NOT_FOUND): there was nothing to judge.
        """
        async with self._channel(self.address) as channel:
            self.stub: source_pb2_grpc.RegistrySourceAsyncStub = source_pb2_grpc.RegistrySourceStub(channel)
            try:
                self.description = await self.stub.Describe(source_pb2.DescribeRequest(), timeout=self.settings.call_s)
            except grpc.RpcError as exc:
                raise translated(exc, self.address) from exc
            await self._look()
        if not self.also:
            self.sheet.leave_out(["ipv6"])
        if self.only is not None:
            self.sheet.leave_out(rule.ident for rule in RULES if rule.group not in self.only)
        return self.sheet.findings()

    def _channel(self, address: str) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(
            self.pin.certificate_pem, self.identity.tls_key_pem, self.identity.certificate_pem
        )
        return grpc.aio.secure_channel(address, credentials, options=list(OPTIONS))

    def _wants(self, group: Group) -> bool:
        return self.only is None or group in self.only

    async def _look(self) -> None:
        if not self._describe():
            for group in (Group.PROVE, Group.SNAPSHOT, Group.HISTORY, Group.CREDIT, Group.LIVE, Group.REFUSE):
                self.sheet.unknown_group(group, "the description is not usable")
            return
        steps: list[tuple[Group, Callable[[], Awaitable[None]]]] = [
            (Group.TLS, self._tls),
            (Group.PROVE, self._prove),
            (Group.HISTORY, self._history),
            (Group.CREDIT, self._credit),
            (Group.REFUSE, self._refuse),
        ]
        wanted = [self._guarded(group, step) for group, step in steps if self._wants(group)]
        if self._wants(Group.SNAPSHOT) or self._wants(Group.LIVE):
            wanted.append(self._guarded(Group.SNAPSHOT, self._snapshot_and_live))
        await asyncio.gather(*wanted)

    async def _guarded(self, group: Group, step: Callable[[], Awaitable[None]]) -> None:
        """A call that breaks makes its group unknown, never passed."""
        try:
            await step()
        except (grpc.RpcError, ZaibeiError) as exc:
            reason = exc.trouble.message if isinstance(exc, ZaibeiError) else reason_of(exc)
            self.sheet.unknown_group(group, reason)

    # ------------------------------------------------------------------------------------------------------ describe

    def _describe(self) -> bool:
        """False when nothing more can be asked."""
        told, sheet = self.description, self.sheet
        sheet.judge("describe.sane", told.source == self.pin.name, f"it says {told.source!r}, its certificate {self.pin.name!r}")
        sheet.judge("describe.sane", told.suite == "std" and 1 in told.formats, "suite std and format 1 are due")
        for name in ("mode", "fence", "deletes", "beat_interval_ms", "shards"):
            sheet.judge("describe.sane", getattr(told, name) != 0, f"{name} is not stated")
        sheet.judge("describe.sane", bool(told.prefixes), "no prefix is stated")
        try:
            self.prefixes = tuple(prefix_key(prefix) for prefix in told.prefixes)
            self.head, self.floor = Position.from_wire(told.head), Position.from_wire(told.floor)
        except ZaibeiError as exc:
            sheet.fail("describe.sane", exc.trouble.message)
            return False
        sheet.judge("describe.sane", self.floor.place <= self.head.place, "the floor lies above the head")
        self._heads.take(told.head)
        return True

    # ----------------------------------------------------------------------------------------------------------- tls

    async def _tls(self) -> None:
        plain = grpc.aio.insecure_channel(self.address)
        await self._must_refuse("tls.required", plain, "it answers without TLS")
        anonymous = grpc.ssl_channel_credentials(self.pin.certificate_pem)
        channel = grpc.aio.secure_channel(self.address, anonymous, options=list(OPTIONS))
        await self._must_refuse("tls.client", channel, "it answers a caller that shows no certificate")
        for address in self.also:
            async with self._channel(address) as other:
                stub: source_pb2_grpc.RegistrySourceAsyncStub = source_pb2_grpc.RegistrySourceStub(other)
                try:
                    told = await stub.Describe(source_pb2.DescribeRequest(), timeout=self.settings.call_s)
                except grpc.RpcError as exc:
                    self.sheet.fail("ipv6", f"{address}: {reason_of(exc)}")
                    continue
                self.sheet.judge("ipv6", told.source == self.description.source, f"{address} is {told.source!r}")

    async def _must_refuse(self, ident: str, channel: grpc.aio.Channel, fault: str) -> None:
        async with channel:
            stub: source_pb2_grpc.RegistrySourceAsyncStub = source_pb2_grpc.RegistrySourceStub(channel)
            try:
                await stub.Describe(source_pb2.DescribeRequest(), timeout=self.settings.refusal_s)
            except grpc.RpcError:
                self.sheet.saw(ident)
            else:
                self.sheet.fail(ident, fault)

    # --------------------------------------------------------------------------------------------------------- prove

    async def _prove(self) -> None:
        proof = source_pb2.Proof
        for position in dict.fromkeys((self.floor, self.head)):
            result = await self._proof(position)
            self.sheet.judge("prove.true", result == proof.RESULT_PROVED, f"{position.short()}: {self._named(result)}")
        forged = Position(self.head.lineage, self.head.epoch, self.head.seq, bytes(octet ^ 0xFF for octet in self.head.chain))
        result = await self._proof(forged)
        self.sheet.judge("prove.forged", result == proof.RESULT_DIFFERENT, f"a flipped chain at its head: {self._named(result)}")
        lineage = os.urandom(LINEAGE_OCTETS)
        foreign = Position(lineage, self.head.epoch, self.head.seq, self.head.chain)
        future = Position(self.head.lineage, self.head.epoch + 7, self.head.seq + 1_000_000, os.urandom(32))
        for position, what in ((foreign, "its head in another lineage"), (future, "a position of the future")):
            result = await self._proof(position)
            good = result in (proof.RESULT_DIFFERENT, proof.RESULT_UNKNOWN)
            self.sheet.judge("prove.foreign", good, f"{what}: {self._named(result)}")

    async def _proof(self, position: Position) -> int:
        answer = await self.stub.Prove(source_pb2.ProveRequest(position=position.to_wire()), timeout=self.settings.call_s)
        return int(answer.result)

    @staticmethod
    def _named(result: int) -> str:
        return source_pb2.Proof.Result.Name(source_pb2.Proof.Result.ValueType(result))

    # ------------------------------------------------------------------------------------------------ snapshot, live

    async def _snapshot_and_live(self) -> None:
        contents = Contents(self.prefixes, self.sheet)
        judge = SnapshotJudge(self.pin.name, self.pin.signing_key, contents, self.sheet)
        broken = ""
        try:
            async for part in self.stub.Snapshot(source_pb2.SnapshotRequest()):
                judge.take(part)
            judge.close()
        except grpc.RpcError as exc:
            broken = reason_of(exc)
            self.sheet.unknown_group(Group.SNAPSHOT, f"the snapshot broke off: {broken}")
        if not contents.records:
            for ident in ("records.canonical", "keys.owned"):
                self.sheet.unknown(ident, "the source holds no record")
        if judge.ended and self._wants(Group.SNAPSHOT):  # at once: a source keeps a finished snapshot for seconds
            await self._guarded(Group.SNAPSHOT, lambda: self._resume_snapshot(judge))
        if self._wants(Group.LIVE):
            whole = contents if judge.ended and judge.position is not None else None
            start = judge.position or self.head
            live = look_live(
                self.stub, self.pin, start, whole, self.sheet, self._heads, self.settings, self.description.beat_interval_ms
            )
            await self._guarded(Group.LIVE, lambda: live)

    async def _resume_snapshot(self, judge: SnapshotJudge) -> None:
        """Ask for the second half again (with one part: for that one)."""
        if judge.header is None:
            return  # nothing ended, so nothing can be resumed
        first = len(judge.part_hashes) // 2
        request = source_pb2.SnapshotRequest(snapshot_id=judge.header.snapshot_id, first_part=first)
        again = Contents(self.prefixes, Sheet())
        second = SnapshotJudge(self.pin.name, self.pin.signing_key, again, Sheet())
        numbers: list[int] = []
        async for part in self.stub.Snapshot(request):
            second.take(part)
            if part.WhichOneof("body") == "chunk":
                numbers.append(part.chunk.part)
        new = second.header is None or second.header.snapshot_id != judge.header.snapshot_id
        begin = 0 if new else first
        self.sheet.judge(
            "snapshot.resume", numbers == list(range(begin, begin + len(numbers))), f"asked from part {first}, got {numbers[:3]}…"
        )
        if not new:
            same = second.part_hashes == judge.part_hashes[first:]
            self.sheet.judge("snapshot.resume", same, "the resumed parts have other octets under the same snapshot id")

    # ------------------------------------------------------------------------------------------------------- history

    async def _history(self) -> None:
        judge = HistoryJudge(self.pin.name, self.floor, self.sheet)
        raws = await self._read(self.floor, self.settings.batches_max, self.head)
        for raw in raws:
            judge.take(raw)
        reached = judge.at.place >= self.head.place or len(raws) == self.settings.batches_max
        self.sheet.judge(
            "chain.gapless", reached, f"from the floor the batches lead to {judge.at.short()}, not to the stated head"
        )
        if not raws:
            for ident in ("batch.header", "batch.limits", "chain.follows", "chain.gapless", "resume.repeat", "resume.boundary"):
                self.sheet.unknown(ident, "the log holds no batch: change a record and look again")
            return
        again = HistoryJudge(self.pin.name, self.floor, Sheet())
        for raw in await self._read(self.floor, len(raws), judge.at):
            again.take(raw)
        self.sheet.judge("resume.repeat", again.octets == judge.octets[: len(raws)], "a second reading gave other octets")
        await self._boundaries(judge)

    async def _boundaries(self, judge: HistoryJudge) -> None:
        count = len(judge.octets)
        chosen = sorted(
            {round(place * (count - 1) / self.settings.boundaries_max) for place in range(self.settings.boundaries_max + 1)}
        )
        for number in chosen:
            at = judge.boundaries[number]
            expected = judge.octets[number : number + self.settings.batches_after_boundary]
            found = HistoryJudge(self.pin.name, at, Sheet())
            for raw in await self._read(at, len(expected), None):
                found.take(raw)
            self.sheet.judge(
                "resume.boundary", found.octets == expected, f"resumed at {at.short()} the octets are others, or none came"
            )

    async def _read(self, after: Position, number: int, until: Position | None) -> list[bytes]:
        """Up to `number` batches after a boundary; stops at `until`."""
        raws: list[bytes] = []
        if until is not None and after == until:
            return raws
        async with watching(self.stub) as watch:
            await watch.resume(after, number)
            while len(raws) < number:
                got = await watch.batches(1, self.settings.batch_s)
                if not got:
                    break
                raws += got
                if until is not None and source_end(got[0]) == until:
                    break
        return raws

    # -------------------------------------------------------------------------------------------------------- credit

    async def _credit(self) -> None:
        if self.floor == self.head:
            self.sheet.unknown_group(Group.CREDIT, "the log holds no batch: change a record and look again")
            return
        quiet_s = self.settings.quiet_s
        async with watching(self.stub) as watch:
            await watch.resume(self.floor, 0)
            got = await watch.batches(1, quiet_s)
            self.sheet.judge("credit.zero", not got and not watch.ended, f"a batch came, or the stream ended: {watch.ended}")
            await watch.credit(1)
            first = await watch.batches(1, self.settings.batch_s)
            self.sheet.judge("credit.total", len(first) == 1, "one batch of credit brought none")
            await watch.credit(1)
            more = await watch.batches(1, quiet_s)
            self.sheet.judge("credit.total", not more and not watch.ended, f"the same total again brought a batch; {watch.ended}")
        async with watching(self.stub) as watch:
            await watch.resume(self.floor, MANY, 0)
            got = await watch.batches(1, quiet_s)
            self.sheet.judge("credit.zero", not got, "a batch came without credit in octets")

    # -------------------------------------------------------------------------------------------------------- refuse

    async def _refuse(self) -> None:
        floor = self.floor
        lineage = os.urandom(LINEAGE_OCTETS)
        await self._refused("refuse.lineage", Position(lineage, floor.epoch, floor.seq, floor.chain))
        await self._refused("refuse.epoch", epoch_start(floor, floor.lineage, floor.epoch + 5))

    async def _refused(self, ident: str, position: Position) -> None:
        """No batch, and it must say so: a fault, a request for an epoch, or the end of the stream."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.settings.batch_s
        async with watching(self.stub) as watch:
            await watch.resume(position, MANY)
            said = False
            while not said and not watch.ended and (left := until - loop.time()) > 0:
                message = await watch.receive(left)
                body = message.WhichOneof("body") if message is not None else None
                if body == "batch":
                    self.sheet.fail(ident, f"it sent a batch after {position.short()}")
                    return
                said = body in ("fault", "epoch_request")
            self.sheet.judge(ident, said or bool(watch.ended), "it neither refuses by name nor ends the stream")


def source_end(raw: bytes) -> Position | None:
    """Position after a batch, None when it cannot be read."""
    try:
        return Position.from_wire(position_pb2.Batch.FromString(raw).after)
    except (ZaibeiError, DecodeError):
        return None
