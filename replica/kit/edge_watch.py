"""One Watch stream as the kit sees it: messages handed out one by one, with limits in time; and failed calls in words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc

from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.v1 import source_pb2, source_pb2_grpc

if TYPE_CHECKING:
    Stub = source_pb2_grpc.RegistrySourceAsyncStub

MEMBER = "conformance-kit"
OCTETS_MANY = 2**50
BATCHES_MANY = 2**40


class Watch:
    """An open stream. `ended`: why it is over, empty while it is not."""

    def __init__(self, call: grpc.aio.StreamStreamCall[source_pb2.ReplicaMessage, source_pb2.SourceMessage]) -> None:
        self._call = call
        self.ended = ""
        self._reading: asyncio.Task[source_pb2.SourceMessage | None] | None = None

    async def send(self, message: source_pb2.ReplicaMessage) -> None:
        if self.ended:
            return
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError) as exc:
            self.ended = reason_of(exc)

    async def resume(self, position: Position, batches: int, octets: int = OCTETS_MANY) -> None:
        credit = source_pb2.Credit(batches_total=batches, octets_total=octets)
        await self.send(
            source_pb2.ReplicaMessage(resume=source_pb2.Resume(position=position.to_wire(), member=MEMBER, credit=credit))
        )

    async def credit(self, batches: int, octets: int = OCTETS_MANY) -> None:
        await self.send(source_pb2.ReplicaMessage(credit=source_pb2.Credit(batches_total=batches, octets_total=octets)))

    async def nonce(self, octets: bytes) -> None:
        await self.send(source_pb2.ReplicaMessage(nonce=source_pb2.Nonce(nonce=octets)))

    async def receive(self, timeout_s: float) -> source_pb2.SourceMessage | None:
        """The next message; None when none came in time or the stream is over (`ended`)."""
        if self.ended:
            return None
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        done, _ = await asyncio.wait({self._reading}, timeout=max(timeout_s, 0.0))
        if not done:
            return None
        message, self._reading = self._reading.result(), None
        return message

    async def _read(self) -> source_pb2.SourceMessage | None:
        try:
            message = await self._call.read()
        except (grpc.RpcError, asyncio.InvalidStateError) as exc:
            self.ended = reason_of(exc)
            return None
        if isinstance(message, source_pb2.SourceMessage):
            return message
        self.ended = "the source ended the stream"
        return None

    async def batches(self, number: int, within_s: float) -> list[bytes]:
        """Up to `number` batches that come within a time; other messages are passed over."""
        loop = asyncio.get_running_loop()
        until, found = loop.time() + within_s, list[bytes]()
        while len(found) < number and not self.ended and (left := until - loop.time()) > 0:
            message = await self.receive(left)
            if message is not None and message.WhichOneof("body") == "batch":
                found.append(message.batch)
        return found

    async def close(self) -> None:
        self._call.cancel()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)


@asynccontextmanager
async def watching(stub: Stub) -> AsyncIterator[Watch]:
    """Open a stream; it is cancelled at the end of the block."""
    watch = Watch(stub.Watch())
    try:
        yield watch
    finally:
        await watch.close()


def reason_of(error: BaseException) -> str:
    """A failed call in words."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name.lower()}: {(error.details() or '')[:200]}"
    return f"{type(error).__name__}: {error}"[:200]


def translated(error: grpc.RpcError, address: str) -> ZaibeiError:
    """A call that could not be made at all."""
    code = error.code() if isinstance(error, grpc.aio.AioRpcError) else grpc.StatusCode.UNKNOWN
    if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        return ZaibeiError(
            Code.NOT_AUTHORISED,
            f"{address} does not let us in ({reason_of(error)}). Next: have our certificate pinned there, or use --identity",
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ZaibeiError(Code.NOT_FOUND, f"{address} does not offer replica.v1.RegistrySource")
    return ZaibeiError(
        Code.UNREACHABLE,
        f"{address}: {reason_of(error)}. Next: check the address, that the source runs, that --pin is its certificate, that it "
        "has pinned ours",
        retry=True,
    )
