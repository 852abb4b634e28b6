"""A returning source copies our history over gRPC, from whichever member's feed port answers (agent/edge_follow.py decides).

It ends when an epoch was handed to the source, which comes to it over the feed as every grant does. Until then nothing of the
registry's own is taken.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import grpc

from replica.agent import edge_follow as follow
from replica.agent.config import SourceConfig
from replica.agent.edge_follow import Taken
from replica.agent.edge_log import AgentLog
from replica.agent.log import same_epoch
from replica.feed.commands import trouble_of
from replica.feed.edge_puller import WatchLink
from replica.feed.edge_source_server import SOURCE_METADATA
from replica.feed.edge_tls import find_peer, open_channel, translate
from replica.feed.snapshot import check_end
from replica.model.digest import ContentDigest
from replica.model.edge_identity import Identity
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer, Trusts
from replica.model.position import Position
from replica.model.trust import Role
from replica.v1 import source_pb2, source_pb2_grpc

PAUSE_S = 0.2
CALL_S_MAX = 10.0
CREDIT_BATCHES, CREDIT_OCTETS = 64, 48 * 1024 * 1024
SETTLE_S = 0.02  # batches that arrive together go to the disk together
SILENCE_S_MAX = 10.0  # beats come every 0.5 s
TAKE_MAX = 32

log = logging.getLogger("zaibei.agent")


@dataclass(frozen=True, slots=True)
class Way:
    """A member and where its feed port answers."""

    peer: Peer
    address: str


def ways_of(config: SourceConfig, given: Sequence[tuple[str, str]] = ()) -> tuple[Way, ...]:
    """Members and addresses to follow: those given as (member, address), else those we push to.

    Raises:
        ZaibeiError(INVALID_CONFIG): a member that is not pinned, where no CA is configured.
    """
    pinned = {peer.name: peer for peer in config.pins.peers}
    ways = []
    for name, address in given or config.push:
        if name not in pinned and config.trust is None:
            raise ZaibeiError(Code.INVALID_CONFIG, f"no [[member]] {name!r} is pinned (there are: {', '.join(pinned) or 'none'})")
        ways.append(Way(pinned.get(name) or Peer(name, b"", role=Role.MEMBER), address))
    return tuple(ways)


def take_nothing(changes: Sequence[object]) -> None:
    """For a registry that is written from the agent's content when all is over."""


class Follower:
    """See the module.

    Args:
        taken: the registry takes our changes into its own records.
    """

    def __init__(
        self, agent: AgentLog, identity: Identity, ways: Sequence[Way], trusts: Trusts | None, taken: Taken = take_nothing
    ) -> None:
        if not ways:
            raise ZaibeiError(Code.INVALID_CONFIG, "no member to follow: name one with its feed address")
        self._agent, self._identity, self._ways, self._trusts, self._taken = agent, identity, tuple(ways), trusts, taken
        self.state = "stopping its own writing"  # for people
        self.trouble = ""

    async def run(self) -> Position:
        """Until an epoch is handed to this source.

        Returns:
            Its first position.
        Raises:
            ZaibeiError: what no repetition helps against (a disk, a wrong member); everything else is tried again.
        """
        await asyncio.to_thread(follow.stop_writing, self._agent)
        place = 0
        while self._agent.own_end is not None:
            way = self._ways[place % len(self._ways)]
            try:
                await self._once(way)
                self.trouble = ""
            except ZaibeiError as exc:
                if exc.code in (Code.DISK_FAILED, Code.DAMAGED, Code.WRONG_SOURCE):
                    raise
                if str(exc) != self.trouble:
                    log.info("follow", extra={"source": self._agent.nature.source, "trouble": str(exc)})
                self.trouble = str(exc)
                place += 1
            await asyncio.sleep(PAUSE_S)
        self.state = "handed back"
        return self._agent.head()

    async def _once(self, way: Way) -> None:
        peer = await find_peer(way.address, way.peer, self._trusts)
        async with open_channel(way.address, self._identity, peer) as channel:
            member = _Member(channel, self._agent.nature.source, peer)
            said = await member.describe()
            head, own = self._agent.head(), self._agent.own_end
            if own is None:
                return
            if not said.HasField("granted"):
                self.state = f"waits: {way.peer.name} is not the authority of this source"
                return
            _, start = follow.check_grant(self._agent, said.granted, peer.signing_key)
            if same_epoch(head, start):
                await self._watch_or_load(channel, member)
            elif not said.HasField("taken_in"):
                self.state = "waits: what it wrote by itself is being taken into the ledger"
            elif not await asyncio.to_thread(follow.begin, self._agent, said.granted, Position.from_wire(said.taken_in)):
                self.state = "takes the whole content"
                await self._load(member, said.granted)

    # -- batch by batch

    async def _watch_or_load(self, channel: grpc.aio.Channel, member: _Member) -> None:
        try:
            await self._watch(channel, member.peer)
        except ZaibeiError as exc:
            if exc.code is not Code.SNAPSHOT_WANTED:
                raise
            said = await member.describe()
            if said.HasField("granted") and self._agent.own_end is not None:  # else its epoch has come meanwhile
                follow.check_grant(self._agent, said.granted, member.peer.signing_key)
                await self._load(member, said.granted)

    async def _watch(self, channel: grpc.aio.Channel, peer: Peer) -> None:
        link = WatchLink(channel, self._agent.nature.source)
        try:
            async with aclosing(self._batches(link, peer)) as chunks:
                async for raws in chunks:
                    at = await asyncio.to_thread(follow.take, self._agent, raws, self._taken)
                    self.state = f"follows at {at.short()}"
        finally:
            link.close()

    async def _batches(self, link: WatchLink, peer: Peer) -> AsyncGenerator[list[bytes], None]:
        """Chunks of batches behind our head, until the epoch is handed over or the stream ends."""
        batches, octets = CREDIT_BATCHES, CREDIT_OCTETS
        resume = source_pb2.Resume(
            position=self._agent.head().to_wire(),
            member=self._agent.nature.source,
            credit=source_pb2.Credit(batches_total=batches, octets_total=octets),
            state="following",
        )
        await link.send(source_pb2.ReplicaMessage(resume=resume))
        reading = asyncio.ensure_future(link.receive())
        try:
            while self._agent.own_end is not None:
                chunk: list[bytes] = []
                limit = SILENCE_S_MAX
                while len(chunk) < TAKE_MAX:
                    done, _ = await asyncio.wait([reading], timeout=limit)
                    if not done:
                        break
                    message = reading.result()
                    if message is None:
                        return
                    reading = asyncio.ensure_future(link.receive())
                    if message.HasField("fault"):
                        trouble = trouble_of(message.fault)
                        raise ZaibeiError(trouble.code, f"{peer.name} reports: {trouble.message}", retry=True)
                    if message.HasField("batch"):
                        chunk.append(message.batch)
                        limit = SETTLE_S
                    elif not chunk:
                        break  # a beat: look whether an epoch was handed over meanwhile
                if not chunk and limit == SILENCE_S_MAX and not done:
                    raise ZaibeiError(Code.UNREACHABLE, f"{peer.name} said nothing for {SILENCE_S_MAX} s", retry=True)
                if chunk:
                    yield chunk
                    batches, octets = batches + len(chunk), octets + sum(map(len, chunk))
                    credit = source_pb2.Credit(batches_total=batches, octets_total=octets)
                    await link.send(source_pb2.ReplicaMessage(credit=credit))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    # -- as a whole

    async def _load(self, member: _Member, grant: source_pb2.Grant) -> None:
        parts = member.snapshot()
        header = await anext(parts, None)
        if header is None or not header.HasField("header"):
            raise ZaibeiError(Code.MALFORMED, "a snapshot begins with its header")
        position = Position.from_wire(header.header.position)
        if not same_epoch(position, Position.from_wire(grant.start)):
            raise ZaibeiError(Code.CONFLICT, f"the content is of {position.short()}, not of the epoch shown", retry=True)
        loop = asyncio.get_running_loop()
        ends: list[source_pb2.SnapshotEnd] = []

        def columns() -> Iterator[bytes]:  # in a worker thread
            hashed, count = hashlib.sha256(), 0
            while True:
                part = asyncio.run_coroutine_threadsafe(_next(parts), loop).result()
                if part is None:
                    raise ZaibeiError(Code.UNREACHABLE, f"the content broke off after {count} parts", retry=True)
                if part.HasField("end"):
                    end = part.end
                    check_end(self._agent.nature.source, position, member.peer.signing_key, end)
                    if end.parts != count or end.ordered_hash != hashed.digest():
                        raise ZaibeiError(Code.VERIFICATION_FAILED, "the content is not what its signed end says", retry=True)
                    ends.append(end)
                    return
                count += 1
                hashed.update(part.chunk.columns)
                yield part.chunk.columns

        await asyncio.to_thread(follow.load, self._agent, grant, position, columns(), self._taken)
        if ContentDigest.from_wire(ends[0].digest) != self._agent.content.digest:
            raise ZaibeiError(Code.VERIFICATION_FAILED, "the content taken has another digest than the member signed", retry=True)
        log.info("took the whole content", extra={"source": self._agent.nature.source, "position": position.short()})


async def _next(parts: AsyncIterator[source_pb2.SnapshotPart]) -> source_pb2.SnapshotPart | None:
    return await anext(parts, None)


class _Member:
    """RegistrySource of a member, for one source."""

    def __init__(self, channel: grpc.aio.Channel, source: str, peer: Peer) -> None:
        self.peer = peer
        self._metadata = ((SOURCE_METADATA, source),)
        self._stub: source_pb2_grpc.RegistrySourceAsyncStub = source_pb2_grpc.RegistrySourceStub(channel)

    async def describe(self) -> source_pb2.Description:
        try:
            return await self._stub.Describe(source_pb2.DescribeRequest(), metadata=self._metadata, timeout=CALL_S_MAX)
        except grpc.RpcError as exc:
            raise translate(exc, self.peer.name) from exc

    async def snapshot(self) -> AsyncIterator[source_pb2.SnapshotPart]:
        call = self._stub.Snapshot(source_pb2.SnapshotRequest(), metadata=self._metadata)
        try:
            async for part in call:
                yield part
        except grpc.RpcError as exc:
            raise translate(exc, self.peer.name) from exc
        finally:
            call.cancel()
