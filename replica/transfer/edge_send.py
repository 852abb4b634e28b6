"""One stream of files to another member: what it asks for, in order, read in threads, as far as its credit goes."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import grpc

from replica.model.errors import Code, ZaibeiError
from replica.model.transfer import FileLine, Manifest
from replica.transfer.edge_metrics import TransferMetrics
from replica.transfer.edge_pace import Pace
from replica.transfer.ports import CHUNK_OCTETS, Held, Wanted
from replica.v1 import transfer_pb2

TELL_S_MAX = 5.0
BROKEN = (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError)
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class ServeLimits:
    """How much is done for others at once.

    Args:
        streams_max: open streams of files; one more is told to come later. held_max: sets of files held still.
        lease_s: files are held so long after the last reader left. credits_max: what a caller may give at most.
        files_waiting_max: asked for and not yet sent, of one stream. threads: that read and hash. idle_s_max: of a stream on
            which nothing is asked for.
    """

    streams_max: int = 4
    held_max: int = 32
    lease_s: float = 120.0
    credits_max: int = 64
    files_waiting_max: int = 64
    threads: int = 3
    idle_s_max: float = 120.0
    chunk_octets: int = CHUNK_OCTETS


@dataclass(slots=True)
class HeldSet:
    """Files held still, shared by all transfers of them. On the event loop."""

    transfer: bytes
    wanted: Wanted
    held: Held
    readers: int = 0
    claims: int = 0  # how often it was asked for, less those released
    ends: asyncio.TimerHandle | None = None

    @property
    def manifest(self) -> Manifest:
        return self.held.manifest

    def line(self, name: str) -> FileLine:
        """Raises ZaibeiError(MALFORMED): it is not one of its files (so no path of a caller's is ever opened)."""
        for line in self.manifest.files:
            if line.name == name:
                return line
        raise ZaibeiError(Code.MALFORMED, f"no file {name[:100]!r} belongs to this transfer")


async def tell(context: Context, exc: ZaibeiError) -> None:
    """Say in the stream why nothing more comes, and let the caller end it: a status alone is lost to one that is just writing."""
    try:
        await context.write(transfer_pb2.ReadReply(code=exc.code.value, message=exc.trouble.message))
        async with asyncio.timeout(TELL_S_MAX):
            while isinstance(await context.read(), transfer_pb2.ReadRequest):
                continue
    except (*BROKEN, TimeoutError):
        return


class Server(Protocol):
    """What a stream needs of the service."""

    limits: ServeLimits
    metrics: TransferMetrics | None
    pace: Pace
    threads: ThreadPoolExecutor

    def known(self, transfer: bytes) -> HeldSet: ...

    def rest(self, one: HeldSet) -> None: ...


class Serving:
    """One stream; `run` it, then `end`."""

    def __init__(self, server: Server, context: Context) -> None:
        self._server, self._context = server, context
        self._asked: deque[tuple[FileLine, int]] = deque()
        self._credits = 0
        self._set: HeldSet | None = None
        self._over = False  # nothing more will be asked
        self._fault: ZaibeiError | None = None
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until the caller asks for nothing more. Raises ZaibeiError."""
        listener = asyncio.get_running_loop().create_task(self._listen())
        try:
            while await self._until(lambda: bool(self._asked)):
                await self._send(*self._asked.popleft())
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    def end(self) -> None:
        """Its files need not be held for it any more."""
        if self._set is not None:
            self._set.readers -= 1
            self._server.rest(self._set)

    # ------------------------------------------------------------------------------------------------- from the caller
    async def _listen(self) -> None:
        try:
            while isinstance(request := await self._context.read(), transfer_pb2.ReadRequest):
                self._take(request)
                self._changed.set()
        except ZaibeiError as exc:
            self._fault = exc
        except BROKEN as exc:
            self._fault = ZaibeiError(Code.UNREACHABLE, f"the stream broke: {exc}", retry=True)
        finally:
            self._over = True
            self._changed.set()

    def _take(self, request: transfer_pb2.ReadRequest) -> None:
        limits = self._server.limits
        if self._set is None:
            self._set = self._server.known(request.transfer)
            self._set.readers += 1
            self._server.rest(self._set)
        elif request.transfer != self._set.transfer:
            raise ZaibeiError(Code.MALFORMED, "a stream serves one transfer")
        self._credits += request.credits
        if self._credits > limits.credits_max or len(self._asked) >= limits.files_waiting_max:
            text = f"{self._credits} chunks and {len(self._asked)} files asked for"
            raise ZaibeiError(Code.MALFORMED, f"{text}, at most {limits.credits_max} and {limits.files_waiting_max}")
        if request.file:
            line = self._set.line(request.file)
            if request.offset > line.octets:
                raise ZaibeiError(Code.MALFORMED, f"{line.name} has {line.octets} octets, {request.offset} is beyond")
            self._asked.append((line, request.offset))

    async def _until(self, met: Callable[[], bool]) -> bool:
        """Wait for the caller; False: it has ended its side. Raises ZaibeiError: what it did wrong, or nothing for long."""
        while True:
            if self._fault is not None:
                raise self._fault
            if met():
                return True
            if self._over:
                return False
            self._changed.clear()
            try:
                async with asyncio.timeout(self._server.limits.idle_s_max):
                    await self._changed.wait()
            except TimeoutError:
                raise ZaibeiError(Code.UNREACHABLE, "the caller asked for nothing for long", retry=True) from None

    # ------------------------------------------------------------------------------------------------- to the caller
    async def _send(self, line: FileLine, offset: int) -> None:
        if self._set is None:
            return
        loop, threads = asyncio.get_running_loop(), self._server.threads
        part = partial(read, self._set.held, line, self._server.limits.chunk_octets)
        ahead: asyncio.Future[bytes] | None = None
        try:
            while offset < line.octets:
                octets, ahead = await (ahead or loop.run_in_executor(threads, part, offset)), None
                if offset + len(octets) < line.octets:  # the next one is read while this one is sent
                    ahead = loop.run_in_executor(threads, part, offset + len(octets))
                await self._server.pace.wait(len(octets))
                if not await self._until(lambda: self._credits > 0):
                    return
                self._credits -= 1
                await self._write(transfer_pb2.ReadReply(file=line.name, offset=offset, octets=octets))
                offset += len(octets)
                if self._server.metrics is not None:
                    self._server.metrics.sent.labels(self._set.manifest.source).inc(len(octets))
        finally:
            if ahead is not None:
                await asyncio.gather(ahead, return_exceptions=True)  # its trouble is nobody's any more

    async def _write(self, reply: transfer_pb2.ReadReply) -> None:
        try:
            await self._context.write(reply)
        except BROKEN as exc:
            raise ZaibeiError(Code.UNREACHABLE, f"the stream broke: {exc}", retry=True) from exc


def read(held: Held, line: FileLine, octets_max: int, offset: int) -> bytes:
    """Octets of a file held still. Blocks; any thread.

    Opened each time: who waits for the octets may be cancelled, and the number of a file that is closed under a thread is soon
    another file's.

    Raises:
        ZaibeiError(DAMAGED): it is not as long as was promised, or gone.
    """
    try:
        handle = os.open(held.folder / line.name, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            whole = os.fstat(handle).st_size == line.octets
            octets = os.pread(handle, min(octets_max, line.octets - offset), offset)
        finally:
            os.close(handle)
    except OSError as exc:
        raise ZaibeiError(Code.DAMAGED, f"{line.name} cannot be read any more: {exc}") from exc
    if not whole or not octets:
        raise ZaibeiError(Code.DAMAGED, f"{line.name} is not {line.octets} octets long any more")
    return octets
