"""Pull replicator: calls a RegistrySource and drives the session over its Watch; reconnects with bounded, jittered pauses.

A source may have several addresses: they are tried in turn, one stream at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from random import SystemRandom

import grpc

from replica.feed.edge_driver import FeedDriver
from replica.feed.edge_source_server import SOURCE_METADATA
from replica.feed.edge_tls import callee_stands, end_of, find_peer, open_channel, standing, translate
from replica.model.edge_calls import channel_closed
from replica.model.edge_identity import Identity
from replica.model.errors import Trouble, ZaibeiError
from replica.model.identity import Peer, Trusts
from replica.model.position import Position
from replica.v1 import source_pb2, source_pb2_grpc

LOGGER = logging.getLogger("zaibei.feed")
PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 2.0  # a member or node that is back must not wait longer for its feed
CALL_S_MAX = 10.0
LASTED_S = 1.0  # a stream that lasted so long resets the pause


class WatchLink:
    """Our end of a Watch, and the source's other calls on the same channel."""

    def __init__(self, channel: grpc.aio.Channel, source: str) -> None:
        self._source = source
        self._metadata = ((SOURCE_METADATA, source),)
        self._stub = source_pb2_grpc.RegistrySourceStub(channel)
        self._call = self._stub.Watch(metadata=self._metadata)

    async def receive(self) -> source_pb2.SourceMessage | None:
        try:
            message = await self._call.read()
        except (grpc.RpcError, asyncio.InvalidStateError) as exc:
            raise await end_of(self._call, self._source) from exc
        if isinstance(message, source_pb2.SourceMessage):
            return message
        if await self._call.code() is not grpc.StatusCode.OK:
            raise await end_of(self._call, self._source)
        return None

    async def send(self, message: source_pb2.ReplicaMessage) -> None:
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError) as exc:
            raise await end_of(self._call, self._source) from exc

    async def prove(self, position: Position) -> source_pb2.Proof:
        request = source_pb2.ProveRequest(position=position.to_wire())
        try:
            return await self._stub.Prove(request, metadata=self._metadata, timeout=CALL_S_MAX)
        except grpc.RpcError as exc:
            raise translate(exc, self._source) from exc
        except (grpc.aio.UsageError, asyncio.CancelledError) as exc:  # the stream ended meanwhile
            raise channel_closed(self._source) from exc

    async def digest(self, request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
        try:
            return await self._stub.Digest(request, metadata=self._metadata, timeout=CALL_S_MAX)
        except grpc.RpcError as exc:
            raise translate(exc, self._source) from exc
        except (grpc.aio.UsageError, asyncio.CancelledError) as exc:  # the stream ended meanwhile
            raise channel_closed(self._source) from exc

    async def snapshot(self, request: source_pb2.SnapshotRequest) -> AsyncIterator[source_pb2.SnapshotPart]:
        try:
            call = self._stub.Snapshot(request, metadata=self._metadata)
        except grpc.aio.UsageError as exc:
            raise channel_closed(self._source) from exc
        try:
            async for part in call:
                yield part
        except grpc.RpcError as exc:
            raise translate(exc, self._source) from exc
        except asyncio.CancelledError as exc:
            raise channel_closed(self._source) from exc
        finally:
            call.cancel()

    def close(self) -> None:
        self._call.cancel()


class Puller:
    """Keeps one source's Watch open as long as it runs.

    Args:
        addresses: `host:port`, IPv6 as `[::1]:port`, of one and the same source, at least one; peer: the source's pin.
        trusts: who may answer where the source is not pinned; None: pins alone count.
    """

    def __init__(
        self, driver: FeedDriver, addresses: Sequence[str], identity: Identity, peer: Peer, trusts: Trusts | None = None
    ) -> None:
        self._driver, self._addresses, self._identity, self._peer = driver, tuple(addresses), identity, peer
        self._trusts = trusts
        self._random = SystemRandom()
        self.last_trouble: Trouble | None = None

    async def run(self) -> None:
        """Until cancelled. A source that is down is normal: only the first failure in a row is logged.

        An address whose stream lasted is tried first again; the pause grows when none of them worked.
        """
        pause_s, silent, tried = PAUSE_S_MIN, False, 0
        place = 0
        loop = asyncio.get_running_loop()
        while True:
            address, began_s = self._addresses[place], loop.time()
            self.last_trouble = await self._once(address)
            if loop.time() - began_s > LASTED_S:
                pause_s, silent, tried = PAUSE_S_MIN, False, 0
            else:
                place, tried = (place + 1) % len(self._addresses), tried + 1
            if not silent:
                why = str(self.last_trouble) if self.last_trouble else "the source ended the stream"
                about = {"source": self._peer.name, "address": address, "why": why}
                LOGGER.info("feed stream over, connecting again", extra=about)
            silent = True
            await asyncio.sleep(pause_s * (0.5 + self._random.random()))
            if tried and tried % len(self._addresses) == 0:
                pause_s = min(pause_s * 2, PAUSE_S_MAX)

    async def _once(self, address: str) -> Trouble | None:
        try:
            peer = await find_peer(address, self._peer, self._trusts)
        except ZaibeiError as exc:
            return exc.trouble
        still = callee_stands(peer, self._identity, self._trusts)
        async with open_channel(address, self._identity, peer) as channel:
            link = WatchLink(channel, peer.name)
            try:
                async with standing(still):
                    return await self._driver.run(link, peer.signing_key, address)
            except ZaibeiError as exc:
                return exc.trouble
            finally:
                link.close()
