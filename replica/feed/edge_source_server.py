"""RegistrySource over a source's log: what every registry that is copied offers, and what our own stores offer too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc

from replica.feed.edge_source_driver import SourceDriver
from replica.feed.edge_tls import Context, caller_stands, identify, standing, status_of
from replica.feed.source_port import LeaseHolder, SourceLog
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer, Trusts
from replica.model.position import Position
from replica.v1 import source_pb2, source_pb2_grpc

SOURCE_METADATA = "zaibei-source"  # names the source where one address offers several
LogFor = Callable[[Peer, str], SourceLog | None]


class WatchedLink:
    """The server's end of a Watch stream."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def receive(self) -> source_pb2.ReplicaMessage | None:
        message = await read(self._context)
        return message if isinstance(message, source_pb2.ReplicaMessage) else None

    async def send(self, message: source_pb2.SourceMessage) -> None:
        await write(self._context, message)


async def read(context: Context) -> object | None:
    """Next message of a stream to us; None at its end. Raises ZaibeiError(UNREACHABLE)."""
    try:
        message = await context.read()
    except (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError) as exc:
        raise ZaibeiError(Code.UNREACHABLE, f"the stream broke: {exc}", retry=True) from exc
    return None if message is grpc.aio.EOF else message


async def write(context: Context, message: object) -> None:
    """Raises ZaibeiError(UNREACHABLE)."""
    try:
        await context.write(message)
    except (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError) as exc:
        raise ZaibeiError(Code.UNREACHABLE, f"the stream broke: {exc}", retry=True) from exc


class SourceService(source_pb2_grpc.RegistrySourceServicer):
    """Offers logs.

    Args:
        log_for: the log this peer may read, by the name it asks for ("" when it names none); None: it may not.
        trusts: who may come in at all, by now; looked at again as long as a stream runs.
        holder: the guard that asks for write-path leases, where there is one by now.
    """

    def __init__(
        self, log_for: LogFor, trusts: Callable[[], Trusts], holder: Callable[[], LeaseHolder | None] = lambda: None
    ) -> None:
        self._log_for, self._trusts, self._holder = log_for, trusts, holder

    async def _open(self, context: Context) -> tuple[Peer, SourceLog]:
        try:
            peer = identify(context, self._trusts())
            wanted = next((str(value) for name, value in context.invocation_metadata() or () if name == SOURCE_METADATA), "")
            log = self._log_for(peer, wanted)
            if log is None:
                raise ZaibeiError(Code.NOT_AUTHORISED, f"{peer.name!r} may not read {wanted or 'what is offered here'!r}")
        except ZaibeiError as exc:
            await context.abort(status_of(exc.trouble), str(exc))
        return peer, log

    async def Describe(self, request: source_pb2.DescribeRequest, context: Context) -> source_pb2.Description:
        _, log = await self._open(context)
        return log.describe()

    async def Prove(self, request: source_pb2.ProveRequest, context: Context) -> source_pb2.Proof:
        _, log = await self._open(context)
        try:
            return log.prove(Position.from_wire(request.position))
        except ZaibeiError as exc:
            await context.abort(status_of(exc.trouble), str(exc))

    async def Digest(self, request: source_pb2.DigestRequest, context: Context) -> source_pb2.DigestResponse:
        _, log = await self._open(context)
        try:
            return await asyncio.to_thread(log.digest, request)  # the keys of a bucket may take a scan
        except ZaibeiError as exc:
            await context.abort(status_of(exc.trouble), str(exc))

    async def Snapshot(self, request: source_pb2.SnapshotRequest, context: Context) -> AsyncIterator[source_pb2.SnapshotPart]:
        _, log = await self._open(context)
        try:
            async for part in log.snapshot(request):
                yield part
        except ZaibeiError as exc:
            await context.abort(status_of(exc.trouble), str(exc))

    async def Watch(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]
        del request_iterator  # read through the context: reading and writing do not wait for each other
        peer, log = await self._open(context)
        try:
            async with standing(caller_stands(context, self._trusts)):
                driver = SourceDriver(log, WatchedLink(context), peer.signing_key, holder=self._holder)
                trouble = await driver.run()
        except ZaibeiError as exc:
            trouble = exc.trouble
        if trouble is not None:
            await context.abort(status_of(trouble), str(trouble))


def add_source_service(server: grpc.aio.Server, service: SourceService) -> None:
    """Put RegistrySource on a server."""
    source_pb2_grpc.add_RegistrySourceServicer_to_server(service, server)
