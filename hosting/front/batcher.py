"""Gathers the questions of one loop tick and answers them with one call of the port.

Sinks (one per socket or connection) call `ask` while they read; the batch goes out when the loop has run what was ready, and
each sink gets its answers back in one go, then `finish`. At most `in_flight_max` calls are under way; what comes meanwhile
makes the next batch, so a slow owner makes batches larger and never a queue of calls. Nothing here reads a socket or a clock;
`paused` tells a pause of this very process (SEMANTICS 4: requests that waited over one are not answered as if nothing had been).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hosting.answer.heads import Heads
from hosting.answer.port import AnswerPort, Found
from hosting.answer.question import Answer, Question
from hosting.answer.resolve import answer_plan, answer_record, plan
from hosting.answer.standing import TRY_ANOTHER, Standing, no_standing, standing_of
from hosting.front.lanes import Lane, held_back
from hosting.guard.guard import Guard
from replica.model.errors import ZaibeiError
from replica.model.identifier import NAME_OCTETS_MAX

CROWDED = 1 / 2  # of the questions that may wait: from here on each source has its share
SHEDDING = 3 / 4  # from here on only short ways are gone


class Sink(Protocol):
    """Where answers go. Both calls come from the event loop and must not block."""

    def answered(self, context: Any, question: Question, answer: Answer) -> None:
        """One answer; `context` is what was given to `ask`."""
        ...

    def finish(self) -> None:
        """All answers of a batch were given: write them out."""
        ...


_Job = tuple[Sink, Any, Question, bytes]
"""Who asked, its context, what, and the key part of the prefix."""
_Lane = Lane[_Job]


@dataclass(slots=True)
class Counters:
    """What the batcher did; read by metrics."""

    questions: int = 0
    batches: int = 0
    overflowed: int = 0
    unfair: int = 0  # of a source that had more than its share while many waited
    shed: int = 0  # dear or unknown, while many waited
    paused: int = 0
    failed_reads: int = 0
    by_code: dict[int, int] = field(default_factory=dict)


class Batcher:
    """See the module.

    Args:
        port: whoever owns the stores.
        paused: True while requests that are read now may have waited over a pause of this process (`PauseWatch.paused`).
        in_flight_max: calls of the port under way at once; 2 keep a socket port busy.
        waiting_max: questions waiting for their call; more are refused with 2 (datagrams: dropped).
        wall_clock: Unix seconds, for the end of orders to block.
        guard: says which identifiers are asked for too often, and which tenants are over their quota.
    """

    def __init__(
        self,
        port: AnswerPort,
        paused: Callable[[], bool] = lambda: False,
        *,
        in_flight_max: int = 2,
        waiting_max: int = 20_000,
        wall_clock: Callable[[], float] = time.time,
        guard: Guard | None = None,
    ) -> None:
        self.port = port
        self.counters = Counters()
        self._paused, self._wall_clock = paused, wall_clock
        self._in_flight_max, self._waiting_max = in_flight_max, waiting_max
        self._crowded_from, self._shed_from = waiting_max * CROWDED, waiting_max * SHEDDING
        self._guard = guard or Guard()
        self._flying: dict[str, int] = {}  # source -> questions of calls under way
        self._heads = Heads()
        self._lanes: dict[str, _Lane] = {}
        self._waiting = 0
        self._scheduled = False
        self._calls: set[asyncio.Task[None]] = set()

    def ask(self, sink: Sink, context: Any, question: Question) -> bool:
        """Take a question; its answer comes through the sink, at once when no store is needed for it.

        Returns:
            False: refused, nothing will come (too many are waiting, or the request may have waited over a pause of ours).
        """
        if self._waiting >= self._waiting_max:
            self.counters.overflowed += 1
            return False
        if not self._scheduled:  # first question of a tick
            if self._paused():
                self.counters.paused += 1
                return False
            try:
                self._heads.catch_up(self.port.catalog())
            except ZaibeiError as exc:
                self.counters.failed_reads += 1
                self._answer_now(
                    sink, context, question, Answer(TRY_ANOTHER, f"{exc.trouble.message}; ask another site".encode())
                )
                return True
            self._schedule()
        prefix, slash, suffix = question.handle.partition(b"/")
        head = self._heads.find(prefix)
        if head is not None and slash and len(question.handle) <= NAME_OCTETS_MAX:
            if self._waiting >= self._crowded_from and self._has_its_share(head.source):
                return False
            self._waiting += 1
            lane = self._lanes.get(head.source)
            if lane is None:
                lane = self._lanes[head.source] = Lane()
            lane.keys.append(head.start + (suffix.upper() if head.fold else suffix))
            lane.jobs.append((sink, context, question, head.prefix))
        elif self._waiting >= self._shed_from:
            self.counters.shed += 1  # cheap and known first: this one needs a plan, or its prefix is nobody's
            return False
        else:
            return self._ask_slowly(sink, context, question)
        return True

    @property
    def crowded(self) -> bool:
        """Do so many questions wait that nothing dear is begun?"""
        return self._waiting >= self._crowded_from

    def close(self) -> None:
        """Give up what is under way; its questions stay without an answer."""
        self._lanes = {}
        for call in self._calls:
            call.cancel()

    def _has_its_share(self, source: str) -> bool:
        """While many wait: has this source its part of the room, of which a quarter is left for one that comes anew?"""
        room = self._waiting_max - self._waiting_max // 4
        if self._held(source) < room // len(self._lanes.keys() | self._flying.keys() | {source}):
            return False
        self.counters.unfair += 1
        return True

    def _held(self, source: str) -> int:
        lane = self._lanes.get(source)
        return self._flying.get(source, 0) + (len(lane) if lane is not None else 0)

    def _ask_slowly(self, sink: Sink, context: Any, question: Question) -> bool:
        catalog = self._heads.catalog
        todo = plan(question, catalog, int(self._wall_clock() * 1_000) if catalog.blocks else 0)
        if isinstance(todo, Answer):
            self._answer_now(sink, context, question, todo)
            return True
        if self._waiting >= self._crowded_from and self._has_its_share(todo.source):
            return False
        self._waiting += 1
        self._lanes.setdefault(todo.source, Lane()).plans.append(((sink, context, question, todo.prefix), todo))
        return True

    def _answer_now(self, sink: Sink, context: Any, question: Question, answer: Answer) -> None:
        self.counters.questions += 1
        self._count(answer.code)
        sink.answered(context, question, answer)
        asyncio.get_running_loop().call_soon(sink.finish)

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if not self._lanes or len(self._calls) >= self._in_flight_max:
            return  # a call that ends flushes again
        lanes, self._lanes = self._lanes, {}
        call = asyncio.get_running_loop().create_task(self._call(lanes))
        self._calls.add(call)
        call.add_done_callback(self._ended)

    def _ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not call.cancelled() and call.exception() is not None:  # a bug: whoever composed this process decides what to do
            fault = {"message": "a batch of questions was not answered", "exception": call.exception(), "task": call}
            asyncio.get_running_loop().call_exception_handler(fault)
        if self._lanes and not self._scheduled:
            self._flush()

    async def _call(self, lanes: dict[str, _Lane]) -> None:
        found: Found = {}
        why = "not held here"
        sinks: set[Sink] = set()
        counts = {source: len(lane) for source, lane in lanes.items()}
        for source, count in counts.items():
            self._flying[source] = self._flying.get(source, 0) + count
        now_s = asyncio.get_running_loop().time()
        for jobs, answer in held_back(lanes, self._guard, self._heads.catalog.tenants, now_s):
            self._refuse(jobs, answer, sinks)
        try:
            if lanes:
                found = await self.port.get_many({source: lane.wants for source, lane in lanes.items()})
        except ZaibeiError as exc:
            self.counters.failed_reads += 1
            why = exc.trouble.message
        finally:
            self._landed(counts)
        self.counters.batches += 1
        for source, lane in lanes.items():
            values, view = found.get(source, ((), None))
            standing = no_standing(f"{source}: {why}") if view is None else standing_of(view)
            self._deliver(lane, values, standing, sinks)
        for sink in sinks:
            sink.finish()

    def _landed(self, counts: dict[str, int]) -> None:
        for source, count in counts.items():
            self._waiting -= count
            self._flying[source] -= count
            if not self._flying[source]:
                del self._flying[source]

    def _refuse(self, jobs: Sequence[_Job], answer: Answer, sinks: set[Sink]) -> None:
        self.counters.questions += len(jobs)
        for sink, context, question, _ in jobs:
            self._count(answer.code)
            sinks.add(sink)
            sink.answered(context, question, answer)

    def _deliver(self, lane: _Lane, values: Sequence[bytes | None], standing: Standing, sinks: set[Sink]) -> None:
        if standing.view is None:
            refusal = Answer(TRY_ANOTHER, standing.text.encode(), standing)
            self._refuse([*lane.jobs, *(job for job, _ in lane.plans)], refusal, sinks)
            return
        self.counters.questions += len(lane)
        by_code = self.counters.by_code
        for (sink, context, question, prefix), value, key in zip(lane.jobs, values, lane.keys, strict=False):
            answer = answer_record(question, value, standing, prefix, key)
            by_code[answer.code] = by_code.get(answer.code, 0) + 1
            sinks.add(sink)
            sink.answered(context, question, answer)
        at = len(lane.keys)
        own_site = self._heads.catalog.own_site
        for (sink, context, question, _), todo in lane.plans:
            answer = answer_plan(question, todo, values[at : at + len(todo.keys)], standing, own_site)
            at += len(todo.keys)
            self._count(answer.code)
            sinks.add(sink)
            sink.answered(context, question, answer)

    def _count(self, code: int) -> None:
        self.counters.by_code[code] = self.counters.by_code.get(code, 0) + 1
