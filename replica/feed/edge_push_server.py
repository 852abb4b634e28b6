"""ChangeFeed for sources that may only call out: Push is the session, Questions our proofs and digests, PushSnapshot content."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

from replica.feed.commands import fault
from replica.feed.edge_driver import FeedDriver
from replica.feed.edge_source_server import SourceService, add_source_service, read, write
from replica.feed.edge_tls import Context, caller_of, caller_stands, identify, standing, status_of
from replica.feed.edge_turn import wait_for_turn
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.identity import Peer, Trusts
from replica.model.position import Position
from replica.v1 import feed_pb2, feed_pb2_grpc, source_pb2

ANSWER_S_MAX = 10.0
SNAPSHOT_S_MAX = 30.0  # until a wanted snapshot begins, and between two of its parts
PARTS_MAX = 4  # parts in memory between the network and the loader
QUESTIONS_MAX = 64


@dataclass(slots=True)
class _Desk:
    """What lies between the three calls of one pushing source."""

    questions: asyncio.Queue[feed_pb2.Question] = field(default_factory=lambda: asyncio.Queue(QUESTIONS_MAX))
    answers: dict[int, asyncio.Future[feed_pb2.QuestionAnswer]] = field(default_factory=dict)
    parts: asyncio.Queue[source_pb2.SnapshotPart | ZaibeiError] | None = None
    verdict: asyncio.Future[Trouble | None] | None = None
    serial: int = 0


class PushLink:
    """The server's end of a Push."""

    def __init__(self, context: Context, desk: _Desk) -> None:
        self._context, self._desk = context, desk
        self.said: list[source_pb2.SourceMessage] = []  # read already

    async def receive(self) -> source_pb2.SourceMessage | None:
        if self.said:
            return self.said.pop(0)
        message = await read(self._context)
        return message if isinstance(message, source_pb2.SourceMessage) else None

    async def send(self, message: source_pb2.ReplicaMessage) -> None:
        await write(self._context, message)

    async def prove(self, position: Position) -> source_pb2.Proof:
        answer = await self._ask(feed_pb2.Question(prove=source_pb2.ProveRequest(position=position.to_wire())))
        if not answer.HasField("proof"):
            raise ZaibeiError(Code.MALFORMED, "the source answered a question for a proof with something else")
        return answer.proof

    async def digest(self, request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
        answer = await self._ask(feed_pb2.Question(digest=request))
        if not answer.HasField("digest"):
            raise ZaibeiError(Code.MALFORMED, "the source answered a question for a digest with something else")
        return answer.digest

    async def _ask(self, question: feed_pb2.Question) -> feed_pb2.QuestionAnswer:
        desk = self._desk
        desk.serial += 1
        question.id = desk.serial
        future: asyncio.Future[feed_pb2.QuestionAnswer] = asyncio.get_running_loop().create_future()
        desk.answers[question.id] = future
        try:
            desk.questions.put_nowait(question)
            async with asyncio.timeout(ANSWER_S_MAX):
                answer = await future
        except (TimeoutError, asyncio.QueueFull):
            raise ZaibeiError(Code.UNREACHABLE, "the source does not answer questions (stream Questions)", retry=True) from None
        finally:
            del desk.answers[question.id]
        if answer.HasField("fault"):
            raise ZaibeiError(Code.CONFLICT, f"the source refuses a question: {answer.fault.message[:300]}", retry=True)
        return answer

    async def snapshot(self, request: source_pb2.SnapshotRequest) -> AsyncIterator[source_pb2.SnapshotPart]:
        """Ask for the content by the fault `snapshot_wanted`; the parts come in on PushSnapshot."""
        del request  # a broken snapshot is asked for anew
        desk = self._desk
        parts: asyncio.Queue[source_pb2.SnapshotPart | ZaibeiError] = asyncio.Queue(PARTS_MAX)
        verdict: asyncio.Future[Trouble | None] = asyncio.get_running_loop().create_future()
        desk.parts, desk.verdict = parts, verdict

        def over(trouble: Trouble | None) -> None:
            if not verdict.done():  # its own: another load may have begun since
                verdict.set_result(trouble)
            if desk.parts is parts:
                desk.parts = None

        try:
            wanted = fault(Trouble(Code.SNAPSHOT_WANTED, "push the full content", retry=True))
            await self.send(source_pb2.ReplicaMessage(fault=wanted))
            while True:
                async with asyncio.timeout(SNAPSHOT_S_MAX):
                    part = await parts.get()
                if isinstance(part, ZaibeiError):
                    raise part
                if part.HasField("end"):  # who reads may leave with it, and leave us to be ended much later
                    over(None)
                yield part
                if part.HasField("end"):
                    return
        except TimeoutError:
            raise ZaibeiError(Code.UNREACHABLE, "the pushed snapshot does not come on", retry=True) from None
        finally:
            over(Trouble(Code.SNAPSHOT_REFUSED, "the load was given up", retry=True))


async def _at_once(_source: str) -> None:
    """Default of `turn`: a group of one member is always led here."""


class PushService(feed_pb2_grpc.ChangeFeedServicer):
    """Takes pushes.

    Args:
        driver_for: the driver of a source; None: we copy no source of that name. Raises ZaibeiError: it must not push.
        trusts: who may come in, by now; looked at again as long as a call runs.
        turn: returns when this member leads the source's group. A stream that came to another member waits there (edge_turn.py),
            so that it goes on at once when that member is the next to lead.
    """

    def __init__(
        self,
        driver_for: Callable[[str], FeedDriver | None],
        trusts: Callable[[], Trusts],
        turn: Callable[[str], Awaitable[None]] = _at_once,
    ) -> None:
        self._driver_for, self._trusts, self._turn = driver_for, trusts, turn
        self._desks: dict[str, _Desk] = {}

    async def _open(self, context: Context, *, push: bool = False) -> tuple[Peer, FeedDriver, _Desk]:
        try:
            peer = identify(context, self._trusts())
            driver = self._driver_for(peer.name)
            if driver is None:
                raise ZaibeiError(Code.NOT_AUTHORISED, f"no source {peer.name!r} is copied here")
        except ZaibeiError as exc:
            if exc.code is Code.CONFLICT and push:  # known here, and to be told in its own terms
                await write(context, source_pb2.ReplicaMessage(fault=fault(exc.trouble)))
            await _abort(context, exc)
        return peer, driver, self._desks.setdefault(peer.name, _Desk())

    async def Push(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]
        del request_iterator
        peer, driver, desk = await self._open(context, push=True)
        try:
            async with standing(caller_stands(context, self._trusts)):
                link = PushLink(context, desk)
                link.said = await wait_for_turn(link, self._turn(peer.name))
                if not link.said:
                    return
                where = caller_of(context)
                driver.met(link.said[0].offer, where)  # before it takes the stream from who is kept
                trouble = await driver.run(link, peer.signing_key, where)
            if trouble is not None:
                raise ZaibeiError(trouble.code, trouble.message, definite=trouble.definite, retry=trouble.retry)
        except ZaibeiError as exc:
            await _abort(context, exc)

    async def PushSnapshot(
        self, request_iterator: AsyncIterator[source_pb2.SnapshotPart], context: Context
    ) -> feed_pb2.SnapshotVerdict:
        peer, _, desk = await self._open(context)
        parts, verdict = desk.parts, desk.verdict
        if parts is None or verdict is None:
            refusal = Trouble(Code.SNAPSHOT_REFUSED, f"no snapshot of {peer.name!r} was asked for")
            return feed_pb2.SnapshotVerdict(accepted=False, fault=fault(refusal))
        taken = 0
        try:
            async for part in request_iterator:
                if not await _put(parts, part, verdict):
                    break
                taken += int(part.HasField("chunk"))
            else:
                broken = ZaibeiError(Code.UNREACHABLE, "the pushed snapshot broke off", retry=True)
                await _put(parts, broken, verdict)
        except asyncio.CancelledError:
            if not verdict.done() and not parts.full():
                parts.put_nowait(ZaibeiError(Code.UNREACHABLE, "the pushed snapshot broke off", retry=True))
            raise
        trouble = await verdict
        return feed_pb2.SnapshotVerdict(
            accepted=trouble is None, next_part=taken, fault=None if trouble is None else fault(trouble)
        )

    async def Questions(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]
        del request_iterator
        _, _, desk = await self._open(context)
        asking = asyncio.get_running_loop().create_task(_put_questions(desk, context))
        try:
            async with standing(caller_stands(context, self._trusts)):
                while isinstance(answer := await read(context), feed_pb2.QuestionAnswer):
                    future = desk.answers.get(answer.id)
                    if future is not None and not future.done():
                        future.set_result(answer)
        except ZaibeiError as exc:
            await _abort(context, exc)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def _put_questions(desk: _Desk, context: Context) -> None:
    while True:
        question = await desk.questions.get()
        if question.id in desk.answers:  # nobody waits for the others any more
            await write(context, question)


async def _put(
    parts: asyncio.Queue[source_pb2.SnapshotPart | ZaibeiError],
    part: source_pb2.SnapshotPart | ZaibeiError,
    verdict: asyncio.Future[Trouble | None],
) -> bool:
    """Hand a part to the loader; False when it wants no more."""
    putting: asyncio.Future[None] = asyncio.ensure_future(parts.put(part))
    both: set[asyncio.Future[Any]] = {putting, verdict}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if not putting.done():
        putting.cancel()
        return False
    return not verdict.done()


async def _abort(context: Context, exc: ZaibeiError) -> NoReturn:
    await context.abort(status_of(exc.trouble), str(exc))
    raise exc


def add_feed_services(
    server: grpc.aio.Server, push: PushService | None = None, source: SourceService | None = None
) -> tuple[str, ...]:
    """Put the feed's services on a gRPC server; health and reflection are the composition's.

    Returns:
        Full names of the services added.
    """
    names = []
    if push is not None:
        feed_pb2_grpc.add_ChangeFeedServicer_to_server(push, server)
        names.append(feed_pb2.DESCRIPTOR.services_by_name["ChangeFeed"].full_name)
    if source is not None:
        add_source_service(server, source)
        names.append(source_pb2.DESCRIPTOR.services_by_name["RegistrySource"].full_name)
    return tuple(names)
