"""Another member as a sender of files, over gRPC; and gRPC's statuses in our words, for both sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from replica.model.edge_calls import channel_closed
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.transfer import TransferKind, open_manifest
from replica.transfer.ports import CHUNK_OCTETS_MAX, CLUSTER_OCTETS, TRANSFER_OCTETS, Chunk, Offer, Wanted
from replica.v1 import transfer_pb2, transfer_pb2_grpc

FORMAT = 1
OFFER_S_MAX = 900.0  # a checkpoint is hashed before it is offered: a second for a gigabyte, more where the disk is slow
RELEASE_S_MAX = 5.0

Call = grpc.aio.StreamStreamCall[transfer_pb2.ReadRequest, transfer_pb2.ReadReply]

_STATUS = {
    Code.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.NOT_AUTHORISED: grpc.StatusCode.PERMISSION_DENIED,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Code.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.DISK_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    Code.STOPPING: grpc.StatusCode.UNAVAILABLE,
}
_LATER = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
_BROKEN = (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError)
_SAID = frozenset({Code.MALFORMED, Code.NOT_AUTHORISED, Code.NOT_FOUND, Code.DAMAGED, Code.DISK_FAILED, Code.CONFLICT})


def status_of(trouble: Trouble) -> grpc.StatusCode:
    """gRPC status for a trouble that ends a call; its text, which begins with the code, goes into the details."""
    return _STATUS.get(trouble.code, grpc.StatusCode.FAILED_PRECONDITION)


def translate(exc: grpc.RpcError, whom: str) -> ZaibeiError:
    """A failed call as our error, once."""
    if not isinstance(exc, grpc.aio.AioRpcError):
        return ZaibeiError(Code.UNREACHABLE, f"{whom}: {exc}", definite=False, retry=True)
    return refusal(exc.code(), exc.details() or "", whom)


def refusal(status: grpc.StatusCode, details: str, whom: str) -> ZaibeiError:
    """A call's final status as our error. The sender's disk being full is its trouble, not ours: to us it is BUSY."""
    text = f"{whom}: {status.name.lower()}: {details[:300]}"
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ZaibeiError(Code.BUSY, text, retry=True)
    if status in _LATER:
        return ZaibeiError(Code.UNREACHABLE, text, definite=False, retry=True)
    return _said(Code.NOT_FOUND if status is grpc.StatusCode.UNIMPLEMENTED else details.partition(":")[0], text)


def _said(code: str, text: str) -> ZaibeiError:
    """What a sender says is wrong, as far as it is for us to say so too."""
    if code in (Code.BUSY, Code.DISK_FULL):
        return ZaibeiError(Code.BUSY, text, retry=True)
    if code in _SAID:
        return ZaibeiError(Code(code), text)
    return ZaibeiError(Code.UNREACHABLE, text, definite=False, retry=True)


class GrpcReading:
    """See Reading."""

    def __init__(self, call: Call, transfer: bytes, whom: str) -> None:
        self._call, self._transfer, self._whom = call, transfer, whom

    async def ask(self, file: str, offset: int) -> None:
        await self._write(transfer_pb2.ReadRequest(transfer=self._transfer, file=file, offset=offset))

    async def credit(self, chunks: int) -> None:
        await self._write(transfer_pb2.ReadRequest(transfer=self._transfer, credits=chunks))

    async def _write(self, request: transfer_pb2.ReadRequest) -> None:
        try:
            await self._call.write(request)
        except _BROKEN as exc:
            raise await self._ended(exc) from exc
        except asyncio.CancelledError as exc:
            raise channel_closed(self._whom) from exc

    async def _ended(self, exc: BaseException) -> ZaibeiError:
        """Why the stream can be written no more: what a failed write says is no reason."""
        if self._call.done():
            return refusal(await self._call.code(), await self._call.details() or "the stream is over", self._whom)
        return ZaibeiError(Code.UNREACHABLE, f"{self._whom}: the stream broke: {exc}", definite=False, retry=True)

    async def next(self) -> Chunk:
        try:
            reply = await self._call.read()
        except grpc.RpcError as exc:
            raise translate(exc, self._whom) from exc
        except _BROKEN as exc:
            raise await self._ended(exc) from exc
        except asyncio.CancelledError as exc:
            raise channel_closed(self._whom) from exc
        if not isinstance(reply, transfer_pb2.ReadReply):
            raise ZaibeiError(Code.UNREACHABLE, f"{self._whom} ended the stream early", definite=False, retry=True)
        if reply.code:
            raise _said(reply.code, f"{self._whom}: {reply.message[:300]}")
        if len(reply.octets) > CHUNK_OCTETS_MAX:
            raise ZaibeiError(
                Code.MALFORMED, f"{self._whom} sent a chunk of {len(reply.octets)} octets, at most {CHUNK_OCTETS_MAX}"
            )
        return Chunk(reply.file, reply.offset, reply.octets)


class GrpcSender:
    """See Sender.

    Args:
        channel: to that member alone (mTLS); the caller opens and closes it. cluster: 16 octets. member: our own number.
        name: of the other member, for people.
    """

    def __init__(self, channel: grpc.aio.Channel, cluster: bytes, member: int, name: str) -> None:
        self._stub = transfer_pb2_grpc.TransferStub(channel)
        self._cluster, self._member, self._name = cluster, member, name
        if len(cluster) != CLUSTER_OCTETS:
            raise ZaibeiError(Code.INVALID_CONFIG, f"a cluster id has {CLUSTER_OCTETS} octets")

    @property
    def name(self) -> str:
        return self._name

    async def offer(self, wanted: Wanted) -> Offer:
        """See Sender."""
        request = transfer_pb2.ManifestRequest(format=FORMAT, cluster=self._cluster, member=self._member, group=wanted.group)
        if wanted.transfer:
            request.transfer = wanted.transfer
        elif wanted.kind is TransferKind.CHECKPOINT:
            request.checkpoint.CopyFrom(transfer_pb2.CheckpointWanted(index_min=wanted.index_min))
        else:
            request.generation.CopyFrom(transfer_pb2.GenerationWanted(number=wanted.number, begun=wanted.begun))
        try:
            reply = await self._stub.Manifest(request, timeout=OFFER_S_MAX)
        except grpc.RpcError as exc:
            raise translate(exc, self._name) from exc
        except (grpc.aio.UsageError, asyncio.CancelledError) as exc:
            raise channel_closed(self._name) from exc
        return self._checked(reply, wanted)

    def _checked(self, reply: transfer_pb2.TransferManifest, wanted: Wanted) -> Offer:
        if reply.format != FORMAT or len(reply.transfer) != TRANSFER_OCTETS:
            raise ZaibeiError(Code.MALFORMED, f"{self._name} offers a transfer in format {reply.format}: we read {FORMAT}")
        if (reply.cluster, reply.group) != (self._cluster, wanted.group):
            text = f"{self._name} offers group {reply.group} of cluster {reply.cluster.hex()[:8]}: not asked for"
            raise ZaibeiError(Code.MALFORMED, text)
        return Offer(reply.transfer, open_manifest(reply.manifest, reply.sha256))

    @asynccontextmanager
    async def reading(self, transfer: bytes) -> AsyncIterator[GrpcReading]:
        """See Sender."""
        try:
            call: Call = self._stub.Read()
        except grpc.aio.UsageError as exc:
            raise channel_closed(self._name) from exc
        try:
            yield GrpcReading(call, transfer, self._name)
        finally:
            call.cancel()

    async def release(self, transfer: bytes) -> None:
        """See Sender."""
        try:
            await self._stub.Release(transfer_pb2.ReleaseRequest(transfer=transfer), timeout=RELEASE_S_MAX)
        except (grpc.RpcError, grpc.aio.UsageError):
            return  # its lease ends by itself
