"""Reading a source's own history behind a boundary over the stream it holds open, while nothing of it is applied (SEMANTICS 8).

The source is asked to resume from the boundary, as any replica would ask it; its batches are taken aside. The stream ends
afterwards: the source connects again with a credit of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from replica.feed.commands import trouble_of
from replica.feed.edge_driver import FeedDriver
from replica.model.batch import Batch, open_batch
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.v1 import source_pb2

WAITING_MAX = 64  # batches taken and not yet read
SILENCE_S_MAX = 30.0
CREDIT_BATCHES = 1 << 40  # the stream ends when the history is read: what waits is bounded by not reading on
CREDIT_OCTETS = 1 << 60


class HistoryTap:
    """Satisfies Tap."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | ZaibeiError] = asyncio.Queue(WAITING_MAX)

    async def took(self, message: source_pb2.SourceMessage) -> bool:
        match message.WhichOneof("body"):
            case "batch":
                await self._queue.put(message.batch)
                return True
            case "fault":
                trouble = trouble_of(message.fault)
                if trouble.code is Code.SNAPSHOT_WANTED:
                    await self._queue.put(ZaibeiError(trouble.code, trouble.message, retry=True))
                    return True
        return False

    def broke(self) -> None:
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(ZaibeiError(Code.UNREACHABLE, "the source's stream ended while its history was read", retry=True))

    async def next(self) -> bytes:
        """Raises ZaibeiError: UNREACHABLE (silent, or the stream ended), SNAPSHOT_WANTED (its log does not go back there)."""
        try:
            async with asyncio.timeout(SILENCE_S_MAX):
                item = await self._queue.get()
        except TimeoutError:
            raise ZaibeiError(Code.UNREACHABLE, f"the source sent nothing for {SILENCE_S_MAX} s", retry=True) from None
        if isinstance(item, ZaibeiError):
            raise item
        return item


async def history(driver: FeedDriver, after: Position, until: Position) -> AsyncGenerator[Batch, None]:
    """Batches of the source between two of its boundaries, checked and in order.

    Raises:
        ZaibeiError: UNREACHABLE; SNAPSHOT_WANTED (its log does not go back to `after`); FORKED (what it sends does not follow);
            CONFLICT (somebody reads already).
    """
    if after == until:
        return
    if driver.tap is not None:
        raise ZaibeiError(Code.CONFLICT, f"the history of {driver.source} is being read already", retry=True)
    driver.tap = tap = HistoryTap()
    try:
        credit = source_pb2.Credit(batches_total=CREDIT_BATCHES, octets_total=CREDIT_OCTETS)
        resume = source_pb2.Resume(position=after.to_wire(), member=driver.setup.member, credit=credit)
        driver.say(source_pb2.ReplicaMessage(resume=resume))
        at = after
        while at != until:
            batch = open_batch(await tap.next())
            if batch.before != at or batch.source != driver.source or batch.after.place > until.place:
                raise ZaibeiError(
                    Code.FORKED, f"{driver.source} sends {batch.after.short()} behind {at.short()}: not its own history"
                )
            at = batch.after
            yield batch
    finally:
        driver.tap = None
        driver.meet_again("its history was read: connect again")
