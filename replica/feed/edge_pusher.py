"""Pusher: a source that may only call out keeps Push and Questions open to us, and pushes a snapshot when it is wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from random import SystemRandom

import grpc

from replica.feed.commands import fault, trouble_of
from replica.feed.edge_puller import LASTED_S, PAUSE_S_MAX, PAUSE_S_MIN
from replica.feed.edge_source_driver import SourceDriver
from replica.feed.edge_tls import callee_stands, end_of, find_peer, open_channel, standing, translate
from replica.feed.source_port import LeaseHolder, SourceLog
from replica.model.edge_identity import Identity
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.identity import Peer, Trusts
from replica.model.position import Position
from replica.v1 import feed_pb2, feed_pb2_grpc, source_pb2

LOGGER = logging.getLogger("zaibei.feed.source")


class PushedLink:
    """The source's end of a Push."""

    def __init__(self, stub: feed_pb2_grpc.ChangeFeedAsyncStub, replica: str) -> None:
        self._replica = replica
        self._call = stub.Push()
        self.heard = False  # the replica said something: the stream stands

    async def receive(self) -> source_pb2.ReplicaMessage | None:
        try:
            message = await self._call.read()
        except (grpc.RpcError, asyncio.InvalidStateError) as exc:
            raise await end_of(self._call, self._replica) from exc
        if isinstance(message, source_pb2.ReplicaMessage):
            self.heard = self.heard or not message.HasField("fault")
            return message
        if await self._call.code() is not grpc.StatusCode.OK:
            raise await end_of(self._call, self._replica)
        return None

    async def send(self, message: source_pb2.SourceMessage) -> None:
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError) as exc:
            raise await end_of(self._call, self._replica) from exc

    def close(self) -> None:
        self._call.cancel()


def _error(exc: Exception, replica: str) -> ZaibeiError:
    if isinstance(exc, grpc.RpcError):
        return translate(exc, replica)
    return ZaibeiError(Code.UNREACHABLE, f"{replica}: the stream is over", retry=True)


class Pusher:
    """Publishes a log to one replica as long as it runs; makes outbound connections only.

    Args:
        address: `host:port` of the replica; replica: its pin. others: further addresses of it, as of its other IP family:
            the next one is tried when the stream at one ended, or none came about.
        trusts: who may answer where the replica is not pinned; None: pins alone count.
        met: told who answers, before its first word.
        holder: the guard that asks for write-path leases, where there is one by now.
    """

    def __init__(
        self,
        log: SourceLog,
        address: str,
        identity: Identity,
        replica: Peer,
        trusts: Trusts | None = None,
        met: Callable[[Peer], None] | None = None,
        holder: Callable[[], LeaseHolder | None] = lambda: None,
        others: Sequence[str] = (),
    ) -> None:
        self._trusts, self._met, self._holder = trusts, met, holder
        self._log, self._identity, self._replica = log, identity, replica
        self._addresses, self._place = (address, *others), 0
        self._random = SystemRandom()
        self.last_trouble: Trouble | None = None
        self._link: PushedLink | None = None

    @property
    def replica(self) -> str:
        """Its name."""
        return self._replica.name

    @property
    def address(self) -> str:
        """Where it calls, or is connected to, at present."""
        return self._addresses[self._place]

    @property
    def connected(self) -> bool:
        """The replica takes our stream at present."""
        return self._link is not None and self._link.heard

    async def run(self) -> None:
        """Until cancelled; a replica that is down is normal, the log goes on and waits."""
        pause_s, silent, tried = PAUSE_S_MIN, False, 0
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            self.last_trouble = await self._once()
            self._link = None
            if loop.time() - began_s > LASTED_S:
                pause_s, silent, tried = PAUSE_S_MIN, False, 0
            self._place, tried = (self._place + 1) % len(self._addresses), tried + 1
            if not silent:
                why = str(self.last_trouble) if self.last_trouble else "the replica ended the stream"
                LOGGER.info("push stream over, connecting again", extra={"replica": self._replica.name, "why": why})
            silent = True
            await asyncio.sleep(pause_s * (0.5 + self._random.random()))
            if tried % len(self._addresses) == 0:
                pause_s = min(pause_s * 2, PAUSE_S_MAX)

    async def _once(self) -> Trouble | None:
        address = self.address
        try:
            replica = await find_peer(address, self._replica, self._trusts)
        except ZaibeiError as exc:
            return exc.trouble
        if self._met is not None:
            self._met(replica)
        still = callee_stands(replica, self._identity, self._trusts)
        async with open_channel(address, self._identity, replica) as channel:
            stub: feed_pb2_grpc.ChangeFeedAsyncStub = feed_pb2_grpc.ChangeFeedStub(channel)
            answering = asyncio.get_running_loop().create_task(self._answer(stub))
            link = self._link = PushedLink(stub, self._replica.name)
            try:
                driver = SourceDriver(self._log, link, replica.signing_key, lambda: self._push_snapshot(stub), self._holder)
                async with standing(still):
                    return await driver.run()
            except ZaibeiError as exc:
                return exc.trouble
            finally:
                link.close()
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)

    async def _answer(self, stub: feed_pb2_grpc.ChangeFeedAsyncStub) -> None:
        """Answer the replica's questions until the stream ends; the Push beside it decides about connecting again."""
        call = stub.Questions()
        try:
            await call.write(feed_pb2.QuestionAnswer(id=0, source=self._identity.name))
            while isinstance(question := await call.read(), feed_pb2.Question):
                await call.write(self._answer_to(question))
        except (grpc.RpcError, asyncio.InvalidStateError) as exc:
            LOGGER.info("questions stream over", extra={"why": str(_error(exc, self._replica.name))})
        finally:
            call.cancel()

    def _answer_to(self, question: feed_pb2.Question) -> feed_pb2.QuestionAnswer:
        try:
            match question.WhichOneof("body"):
                case "prove":
                    proof = self._log.prove(Position.from_wire(question.prove.position))
                    return feed_pb2.QuestionAnswer(id=question.id, proof=proof)
                case "digest":
                    return feed_pb2.QuestionAnswer(id=question.id, digest=self._log.digest(question.digest))
            trouble = Trouble(Code.MALFORMED, "a question we do not know")
        except ZaibeiError as exc:
            trouble = exc.trouble
        return feed_pb2.QuestionAnswer(id=question.id, fault=fault(trouble))

    async def _push_snapshot(self, stub: feed_pb2_grpc.ChangeFeedAsyncStub) -> None:
        """Push the full content; a refusal is the replica's to repeat."""
        try:
            verdict = await stub.PushSnapshot(self._parts())
        except grpc.RpcError as exc:
            LOGGER.warning("the snapshot did not go through", extra={"why": str(_error(exc, self._replica.name))})
            return
        if not verdict.accepted:
            LOGGER.warning("the replica did not take the snapshot", extra={"why": str(trouble_of(verdict.fault))})

    async def _parts(self) -> AsyncIterator[source_pb2.SnapshotPart]:
        async for part in self._log.snapshot(source_pb2.SnapshotRequest()):
            yield part
