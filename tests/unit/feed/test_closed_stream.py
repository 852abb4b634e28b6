"""Questions to a source whose stream ends meanwhile, so that its channel is closed: an error of ours, never a cancelled task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc
import pytest

from replica.feed.edge_puller import WatchLink
from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN
from replica.v1 import source_pb2, source_pb2_grpc


class Silent(source_pb2_grpc.RegistrySourceServicer):
    """A source that was asked and says nothing."""

    def __init__(self) -> None:
        self.came = asyncio.Event()

    async def _silent(self, *_: Any) -> Any:
        self.came.set()
        await asyncio.Event().wait()

    Describe = Prove = Digest = Watch = _silent  # type: ignore[assignment]

    async def Snapshot(self, *_: Any) -> AsyncIterator[source_pb2.SnapshotPart]:
        yield source_pb2.SnapshotPart(header=source_pb2.SnapshotHeader())
        await self._silent()


async def read_out(link: WatchLink) -> None:
    async for _ in link.snapshot(source_pb2.SnapshotRequest()):
        pass


Asks = Callable[[WatchLink], Coroutine[Any, Any, object]]
ASKED: dict[str, Asks] = {
    "digest": lambda link: link.digest(source_pb2.DigestRequest()),
    "proof": lambda link: link.prove(ORIGIN),
    "snapshot": read_out,
}


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_stream_that_ends_cancels_nobody_who_asks(what: str, cancelled: bool) -> None:
    """A failback asks for a digest by its own task: were that to end as if cancelled, it would never go on, and say nothing."""
    server, source = grpc.aio.server(), Silent()
    source_pb2_grpc.add_RegistrySourceServicer_to_server(source, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with asyncio.timeout(30), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            link = WatchLink(channel, "node-a")
            await source.came.wait()
            source.came.clear()
            asking = asyncio.create_task(ASKED[what](link))
            await source.came.wait()
            if cancelled:
                asking.cancel()
            else:
                await channel.close()
            await asyncio.wait([asking])
            assert asking.cancelled() is cancelled
            if not cancelled:
                trouble = asking.exception()
                assert isinstance(trouble, ZaibeiError)
                assert (trouble.code, trouble.trouble.retry) == (Code.UNREACHABLE, True)
                with pytest.raises(ZaibeiError, match="closed on our side"):
                    await ASKED[what](link)
    finally:
        await server.stop(0)
