"""A stream that came before its turn waits at a member that does not lead; what the source said meanwhile is not believed later.

The source states its head once, when the stream opens. By the time this member leads, another one has taken batches behind that
head: judged by it, a sound source would look as if it had gone back. So when the turn has come the source is asked once more, by
a nonce: it echoes it with its head as it is then, and that head stands in the offer which the session is given.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from typing import Any, Protocol

from replica.feed.limits import NONCE_OCTETS
from replica.model.errors import Code, ZaibeiError
from replica.v1 import position_pb2, source_pb2

ECHO_S_MAX = 5.0


class Opened(Protocol):
    """The server's end of a stream whose source speaks."""

    async def receive(self) -> source_pb2.SourceMessage | None: ...

    async def send(self, message: source_pb2.ReplicaMessage) -> None: ...


async def wait_for_turn(link: Opened, turn: Awaitable[None]) -> list[source_pb2.SourceMessage]:
    """Read and forget what comes until the turn has come, then ask for the head.

    Returns:
        The offer, with the head as it is now, and what was said with it; empty: the source ended the stream before.
    Raises:
        ZaibeiError(UNREACHABLE, retry): what it said cannot be brought up to date; it shall call again.
    """
    waiting: asyncio.Future[None] = asyncio.ensure_future(turn)
    reading: asyncio.Task[source_pb2.SourceMessage | None] | None = None
    said, nonce = list[source_pb2.SourceMessage](), b""
    try:
        async with asyncio.timeout(None) as limit:
            while True:
                if reading is None:
                    reading = asyncio.create_task(link.receive())
                awaited: set[asyncio.Future[Any]] = {reading} if nonce else {reading, waiting}
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done() and not nonce:
                    waiting.result()
                    nonce = secrets.token_bytes(NONCE_OCTETS)
                    limit.reschedule(asyncio.get_running_loop().time() + ECHO_S_MAX)
                    await link.send(source_pb2.ReplicaMessage(nonce=source_pb2.Nonce(nonce=nonce)))
                if not reading.done():
                    continue
                message, reading = reading.result(), None
                if message is None:
                    return []
                if not message.HasField("beat"):
                    _note(said, message, waited=not nonce)
                elif nonce and message.beat.nonce == nonce:
                    return _with_head(said, message.beat.head)
    except TimeoutError:
        raise ZaibeiError(
            Code.UNREACHABLE, f"the source did not echo a nonce within {ECHO_S_MAX} s: call again", retry=True
        ) from None
    finally:
        for task in (waiting, reading):
            if task is not None and not task.done():
                task.cancel()


def _note(said: list[source_pb2.SourceMessage], message: source_pb2.SourceMessage, *, waited: bool) -> None:
    """Keep the offer, and what follows it once the turn has come. Raises ZaibeiError: it may be long settled by the turn."""
    if waited and said:
        raise ZaibeiError(Code.BUSY, "this was said to a member before it led: call again", retry=True)
    said.append(message)


def _with_head(said: list[source_pb2.SourceMessage], head: position_pb2.Position) -> list[source_pb2.SourceMessage]:
    """What was said, if the head that was said with it is the one of now. Raises ZaibeiError."""
    if not said or not said[0].HasField("offer"):
        raise ZaibeiError(Code.MALFORMED, "a source speaks first with its offer")
    for message in said:
        if message.HasField("epoch_request") and message.epoch_request.head != head:
            raise ZaibeiError(Code.BUSY, "an epoch was asked for at a head that moved on: call again", retry=True)
    said[0].offer.description.head.CopyFrom(head)
    return said
