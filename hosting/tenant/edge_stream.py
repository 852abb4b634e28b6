"""One PutMany stream: changes in as long as there is room for their outcomes, outcomes out as they are decided."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import takewhile
from typing import NamedTuple

from hosting.tenant.desk import Asked, Verdict
from hosting.tenant.edge_clerk import Told
from hosting.tenant.edge_turns import MS_PER_S, Turn, Turns
from hosting.tenant.limits import ALIKE_MAX, CHANGES_MAX, LOT_MAX, OUTCOME_S_MAX, STREAM_CHANGES_MAX
from hosting.tenant.offices import Office
from hosting.v1 import registration_pb2
from replica.model.batch import OP_PUT
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.position import Position
from replica.model.precondition import value_hash
from replica.v1 import position_pb2


class Taken(NamedTuple):
    """A change that a desk took."""

    office: Office
    asked: Asked


class NotTaken(NamedTuple):
    """A change that nobody took, and why.

    Args:
        below: its prefix as written, where all names that begin so are this office's.
        again: counts so many more that are refused like it.
    """

    trouble: Trouble
    office: Office | None
    below: str = ""
    again: Callable[[int], None] = lambda _: None


class _Open(NamedTuple):
    """A change without an outcome: its place in the stream, and the caller's number of it."""

    place: int
    number: int
    office: Office


Take = Callable[[Sequence[registration_pb2.Change], Told], Awaitable[Sequence[Taken | NotTaken]]]


class ChangeStream:
    """See the module.

    Args:
        take: hands changes to their desks, the first or as many more as it judges at once: what became of each of these. Whom it
            is given is told the outcome of those that were taken.
        refusal: a trouble as it travels.
        turns: of the tenant whose stream it is; one for all its streams.
    """

    def __init__(
        self,
        take: Take,
        refusal: Callable[[Trouble, Office | None], registration_pb2.Refusal],
        turns: Turns,
    ) -> None:
        self._take, self._refusal, self._turns = take, refusal, turns
        self._results: list[registration_pb2.Result] = []
        self._open: dict[Asked, _Open] = {}  # taken, without an outcome; in the order of the stream
        self._at: tuple[Position, position_pb2.Position] | None = None  # where the newest outcomes took effect; one for a batch
        self._unsent = 0  # changes read whose outcome was not handed out
        self._place = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def run(
        self, requests: AsyncIterator[registration_pb2.PutManyRequest]
    ) -> AsyncIterator[registration_pb2.PutManyResponse]:
        """Outcomes, until every change that was sent has one.

        Raises:
            ZaibeiError(MALFORMED): a message over the limit; the outcomes of those before it were handed out.
        """
        self._reader = reader = asyncio.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._news.set())
        while True:
            self._news.clear()
            if self._results:
                results, self._results = self._results[:CHANGES_MAX], self._results[CHANGES_MAX:]
                self._unsent -= len(results)
                self._room.set()
                yield registration_pb2.PutManyResponse(results=results)
            elif reader.done() and not self._unsent:
                reader.result()
                return
            else:
                await self._news.wait()

    async def _read(self, requests: AsyncIterator[registration_pb2.PutManyRequest]) -> None:
        loop = asyncio.get_running_loop()
        async for request in requests:
            if len(request.changes) > CHANGES_MAX:
                raise ZaibeiError(Code.MALFORMED, f"{len(request.changes)} changes in one message, at most {CHANGES_MAX}")
            while self._unsent + len(request.changes) > STREAM_CHANGES_MAX:
                self._room.clear()
                await self._room.wait()
            over = await self._work(request.changes)
            loop.call_later(OUTCOME_S_MAX, self._expire, self._place)
            await self._tell_late(over)

    async def _work(self, changes: Sequence[registration_pb2.Change]) -> list[tuple[list[int], NotTaken]]:
        """Take the changes of one message; those that were refused over quota, by their numbers."""
        over: list[tuple[list[int], NotTaken]] = []
        refused: NotTaken | None = None
        at = 0
        async with Turn(self._turns) as turn:
            while at < len(changes):
                await turn.go_on()
                if refused is not None and (alike := _alike(changes[at : at + ALIKE_MAX], refused)):
                    self._place += len(alike)
                    self._unsent += len(alike)
                    refused.again(len(alike))
                    over[-1][0].extend(alike)
                    at += len(alike)
                    continue
                refused = None
                part = changes[at : at + LOT_MAX]
                for wire, taken in zip(part, found := await self._take(part, self._ended), strict=False):
                    self._place += 1
                    self._unsent += 1
                    if isinstance(taken, Taken):
                        self._open[taken.asked] = _Open(self._place, wire.number, taken.office)
                    elif taken.trouble.code is Code.OVER_QUOTA:
                        over.append(([wire.number], refused := taken))
                    else:
                        self._refuse(wire.number, taken.trouble, taken.office)
                at += len(found)
        return over

    async def _tell_late(self, over: list[tuple[list[int], NotTaken]]) -> None:
        """All of a message at once; meanwhile nothing is read."""
        waits = [(one.office.held_ms(one.trouble, len(numbers)), one.office) for numbers, one in over if one.office is not None]
        if waits:
            await _held(max(ms for ms, _ in waits), {office for _, office in waits})
        for numbers, one in over:
            refusal = self._refusal(one.trouble, one.office)
            self._results += [registration_pb2.Result(number=number, refusal=refusal) for number in numbers]
        self._news.set()

    def _ended(self, verdict: Verdict) -> None:
        one, change = self._open.pop(verdict.asked, None), verdict.asked.change
        if one is None:
            return
        if verdict.position is None:
            self._refuse(one.number, verdict.trouble or Trouble(Code.UNKNOWN, "no outcome", definite=False), one.office)
            return
        if self._at is None or self._at[0] is not verdict.position:
            self._at = verdict.position, verdict.position.to_wire()
        hashed = value_hash(change.value) if change.op == OP_PUT else b""
        self._tell(registration_pb2.Result(number=one.number, position=self._at[1], value_hash=hashed))

    def _refuse(self, number: int, trouble: Trouble, office: Office | None) -> None:
        self._tell(registration_pb2.Result(number=number, refusal=self._refusal(trouble, office)))

    def _tell(self, result: registration_pb2.Result) -> None:
        self._results.append(result)
        self._news.set()

    def _expire(self, last: int) -> None:
        """Who came up to this place and has no outcome after OUTCOME_S_MAX gets a definite one, or UNKNOWN."""
        for asked, one in [*self._open.items()]:
            if one.place > last:
                break
            one.office.clerk.late(asked)

    async def close(self) -> None:
        """The caller is gone, or all is told: what was not proposed is taken back."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        for asked, one in self._open.items():
            one.office.clerk.withdraw(asked)
        self._open.clear()


async def _held(held_ms: int, offices: set[Office]) -> None:
    """One answer that is held back, of each tenant whose changes it refuses."""
    for office in offices:
        office.held += 1
    try:
        await asyncio.sleep(held_ms / MS_PER_S)
    finally:
        for office in offices:
            office.held -= 1


def _alike(changes: Sequence[registration_pb2.Change], refused: NotTaken) -> list[int]:
    """Numbers of the first of these that are refused for the same reason as the one before them: their tenant's rate. One look
    at it counts for all, since a noise is many of these."""
    below, office = refused.below, refused.office
    if not below or office is None or not office.full():
        return []
    same = takewhile(lambda change: change.identifier.startswith(below), changes)
    return [change.number for change in same]
