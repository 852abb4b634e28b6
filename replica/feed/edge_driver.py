"""Runs replica sessions of one source over the streams that come: the only place where the pure session meets time, tasks and IO.

Everything happens on the event loop: a message, an outcome, a tick each call the session and carry out its commands at once;
sending, proofs and snapshots are tasks. One stream at a time: a newer one replaces the older.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial

from replica.feed.admission import judge_part
from replica.feed.commands import Alarm, Close, Command, Compare, DropSnapshot, FetchSnapshot, LoadParts, LookUp, Prove, Send
from replica.feed.commands import Propose as ProposeCommand
from replica.feed.desk import Setup
from replica.feed.edge_clock import now
from replica.feed.edge_difference import Located, Ours, locate
from replica.feed.edge_metrics import SourceMetrics
from replica.feed.findings import Finding, RpoTarget, Watch, digest_finding, lag_finding
from replica.feed.freshness import CopyAge, Lag
from replica.feed.limits import BEAT_KEY_OCTETS
from replica.feed.phases import Phase
from replica.feed.ports import BeatGate, Group, Link, Loader, Tap
from replica.feed.session import ReplicaSession
from replica.feed.snapshot import check_end
from replica.feed.twins import Twins
from replica.model.drained import Drained
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.outcome import Outcome
from replica.model.position import Position
from replica.model.progress import Progress, Report, silent
from replica.v1 import entry_pb2, source_pb2

LOGGER = logging.getLogger("zaibei.feed")
TICK_S = 0.1
SETTLE_S = 0.01
OUTBOX_MAX = 4_096  # messages to the source that wait for the network; beyond it the stream is dead and ends
REPLACED_S_MAX = 10.0
FLUSH_ROUNDS = 20

_UNKNOWN = Trouble(Code.UNKNOWN, "the outcome of a proposal is not known", definite=False, retry=True)


class FeedDriver:
    """The feed of one source on this member.

    Args:
        setup: who is who; group: the source's group; metrics: None for none; report: progress of loads.
        beats: where datagram beats are let in; None: nowhere.
        target: how much of the source may be lost with it, beyond which somebody is told; None: nobody is.
    """

    def __init__(
        self,
        setup: Setup,
        group: Group,
        metrics: SourceMetrics | None = None,
        report: Report = silent,
        beats: BeatGate | None = None,
        target: RpoTarget | None = None,
    ) -> None:
        self.setup, self.group, self.beats = setup, group, beats
        self.target = target
        self._watches = (Watch(), Watch())
        self.age = CopyAge()
        self.description: source_pb2.Description | None = None  # what the source last said of itself, and the epoch it said it in
        self.described_in: Position | None = None
        self._metrics, self._report = metrics, report
        self.drained: Drained | None = None  # its newest statement that its writing ended, or goes on
        self.heard_ns = 0  # boot time of the newest message of the source
        self.twins = Twins(setup.source)
        self.on_twins: Callable[[str], None] = lambda told: None  # each time a second sender is refused; names both
        self.tap: Tap | None = None  # takes the source's batches in place of the session: edge_history.py
        self._stream: _Stream | None = None
        self._last: _Stream | None = None

    @property
    def source(self) -> str:
        return self.setup.source

    @property
    def phase(self) -> Phase:
        """Phase of the present stream; CLOSED without one."""
        return self._stream.session.phase if self._stream is not None else Phase.CLOSED

    @property
    def stated_head(self) -> Position | None:
        """The newest head the source stated on the present stream; None: it is not connected, or said none yet."""
        return self._stream.session.head if self._stream is not None else None

    def lag(self) -> Lag:
        """Lag at this moment; UNKNOWN within 2 s of losing its input."""
        return self.age.lag(now().boot_ns)

    def findings(self) -> tuple[Finding, Finding]:
        """Lag and digest at this moment, each in three values."""
        age_ms = self.age.compared_age_ms(now().boot_ns)
        return lag_finding(self.lag(), self.target or RpoTarget()), digest_finding(self.group.state().verified, age_ms)

    async def difference(self, position: Position, ours: Ours) -> Located:
        """Which keys differ from the source's at a position both sides pinned; asks the source of the present stream.

        Raises:
            ZaibeiError(UNREACHABLE): no stream of the source ends here. See also edge_difference.locate.
        """
        if self._stream is None:
            text = f"no stream of {self.source} ends at this member: ask the one that leads"
            raise ZaibeiError(Code.UNREACHABLE, text, retry=True)
        return await locate(position, ours, self._stream.link.digest)

    def observe(self) -> None:
        """Bring the gauges up to date, also without a stream; tell what passed its target, or is not known any more."""
        told_of = self.target is not None and not self.group.state().lives_here  # else there is nobody it could be behind
        findings = self.findings() if told_of else ()
        for watch, finding in zip(self._watches, findings, strict=False):
            if told := watch.look(finding):
                LOGGER.warning(told, extra={"source": self.source})
        if self._metrics is not None:
            self._metrics.findings(findings, self.target or RpoTarget(0))
            if self._stream is not None:
                self._metrics.observe(self._stream.session, self.group.state().feed, self.lag())
            else:
                self._metrics.lag(self.lag())

    def described(self, description: source_pb2.Description) -> None:
        """The source says what it is."""
        self.description, self.described_in = description, self.group.state().granted

    def met(self, offer: source_pb2.Offer, where: str) -> None:
        """Who speaks. Raises ZaibeiError(CONFLICT): another living process publishes under the same identity, and is kept."""
        self._hear()
        if told := self.twins.opened(offer.instance, where, now().boot_ns):
            self.on_twins(told)
            raise ZaibeiError(Code.CONFLICT, told, retry=True)

    def two_senders(self) -> str:
        """A sentence that names two living processes that publish as this source; empty: there are not two."""
        self._hear()
        return self.twins.told(now().boot_ns)

    def _hear(self) -> None:
        if self._stream is not None:
            self.twins.heard(self._stream.instance, self.heard_ns)

    async def run(self, link: Link, source_key: bytes = b"", where: str = "") -> Trouble | None:
        """Drive one stream to its end.

        Args:
            source_key: the source's signing key as this stream's certificate has it; empty: as set up.
            where: the source's address, for people.
        Returns:
            Why it ended; None: the source ended it in order.
        Raises:
            ZaibeiError(BUSY): an earlier stream's proposals did not settle in time; connect again.
        """
        await self._replace()
        if source_key:
            self.setup = replace(self.setup, source_key=source_key)
        key = self.setup.random(BEAT_KEY_OCTETS)
        if self.beats is not None:
            self.beats.allow(key)  # raises BUSY; before anything could be left waiting for a stream that never began
        stream = _Stream(self, link, replace(self.setup, beat_key=key), where)
        self._stream = self._last = stream
        if self._metrics is not None:
            self._metrics.connected(True)
        try:
            return await stream.run()
        finally:
            if self.beats is not None:
                self.beats.revoke(key)
            self.twins.heard(stream.instance, now().boot_ns)
            if self.tap is not None:
                self.tap.broke()
            if self._stream is stream:
                self.observe()
                self._stream = None
                if self._metrics is not None:
                    self._metrics.connected(False)

    async def _replace(self) -> None:
        while (old := self._last) is not None and not old.settled.is_set():  # another one may have come while we waited
            old.end(Trouble(Code.BUSY, "a newer stream of this source replaces this one", retry=True))
            try:
                async with asyncio.timeout(REPLACED_S_MAX):
                    await old.settled.wait()
            except TimeoutError:
                raise ZaibeiError(Code.BUSY, "the earlier stream's proposals are not settled yet", retry=True) from None

    async def digest(self, request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
        """Ask the source for sums, on the present stream. Raises ZaibeiError(UNREACHABLE) without one."""
        if self._stream is None:
            raise ZaibeiError(Code.UNREACHABLE, f"{self.source} is not connected", retry=True)
        return await self._stream.link.digest(request)

    async def snapshot(self) -> AsyncIterator[source_pb2.SnapshotPart]:
        """The source's full content, on the present stream. Raises ZaibeiError(UNREACHABLE) without one."""
        if self._stream is None:
            raise ZaibeiError(Code.UNREACHABLE, f"{self.source} is not connected", retry=True)
        async for part in self._stream.link.snapshot(source_pb2.SnapshotRequest()):
            yield part

    def say(self, message: source_pb2.ReplicaMessage) -> None:
        """Say something on the present stream. Raises ZaibeiError(UNREACHABLE) without one."""
        if self._stream is None:
            raise ZaibeiError(Code.UNREACHABLE, f"{self.source} is not connected", retry=True)
        self._stream._post(message)

    def meet_again(self, why: str) -> None:
        """End the present stream, if there is one: the source connects again, and describes itself anew."""
        if self._stream is not None:
            self._stream.end(Trouble(Code.BUSY, why, retry=True))

    async def stop(self) -> None:
        """End the present stream; proposals that have no outcome by then stay with the log."""
        stream = self._stream
        if stream is not None:
            stream.end(Trouble(Code.STOPPING, "this member stops", retry=True))
            try:
                async with asyncio.timeout(REPLACED_S_MAX):
                    await stream.settled.wait()
            except TimeoutError:
                LOGGER.warning("stopped with unsettled proposals", extra={"source": self.source})

    def alarm(self, code: Code, message: str) -> None:
        LOGGER.warning(message, extra={"source": self.source, "code": str(code)})
        if self._metrics is not None:
            self._metrics.fault(code)

    def progress(self, side: int, done: int, total: int | None) -> None:
        self._report(Progress(f"load {self.source} generation {side}", done, total))


class _Stream:
    """One stream: a session, its tasks, what it proposed."""

    def __init__(self, driver: FeedDriver, link: Link, setup: Setup, where: str) -> None:
        self.driver, self.link, self.where = driver, link, where
        self.instance = b""  # of the process that speaks
        self.session = ReplicaSession(setup, driver.group, driver.age)
        self.settled = asyncio.Event()  # over, and every proposal has its outcome
        self._ended = asyncio.Event()
        self._why: Trouble | None = None
        self._outbox: asyncio.Queue[source_pb2.ReplicaMessage] = asyncio.Queue(OUTBOX_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._unsettled = 0
        self._closing = False
        self._changed = False
        self._settle_due = False
        self._parts: AsyncIterator[source_pb2.SnapshotPart] | None = None
        self._records: int | None = None
        self._wanted: list[bytes] | None = None  # keys the session wants looked up before the next message
        self._load: asyncio.Task[None] | None = None

    async def run(self) -> Trouble | None:
        unsubscribe = self.driver.group.subscribe(self._on_state)
        try:
            self._do(self.session.start(now()))
            for work in (self._receive(), self._send(), self._tick()):
                self._spawn(work)
            await self._ended.wait()
            await self._flush()
            return self._why
        finally:
            unsubscribe()
            self.session.close(now())
            self._ended.set()
            self._closing = True
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            self._count_off(0)
            await asyncio.gather(*tasks, return_exceptions=True)  # a cancellation here leaves the rest to `_finished`

    def end(self, why: Trouble | None) -> None:
        if not self._ended.is_set():
            self._why = why
            self._ended.set()

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except ZaibeiError as exc:
                self.end(exc.trouble)

        task = self._loop.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._count_off(0)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "a feed stream broke an invariant", "exception": exc})
            self.end(Trouble(Code.UNKNOWN, f"our fault: {exc}", definite=False))

    # -- tasks

    async def _receive(self) -> None:
        while (message := await self.link.receive()) is not None:
            self.driver.heard_ns = now().boot_ns
            if message.HasField("offer"):
                self.driver.met(message.offer, self.where)
                self.instance = message.offer.instance
                self.driver.described(message.offer.description)
            elif message.HasField("drained"):
                self.driver.drained = Drained.from_wire(message.drained)
                continue
            if self.driver.tap is not None and await self.driver.tap.took(message):
                continue
            self._do(self.session.received(message, now()))
            while (keys := self._wanted) is not None:
                await self._look_up(keys)
        self.end(None)

    async def _look_up(self, keys: list[bytes]) -> None:
        """Reading a thousand cold keys takes long for an answer that waits: in a thread; meanwhile no message is taken."""
        self._wanted = None
        try:
            existing = await asyncio.to_thread(self.driver.group.existing, keys)
        except ZaibeiError as exc:
            self._do(self.session.looked(exc.trouble, now()))
        else:
            self._do(self.session.looked(existing, now()))

    async def _send(self) -> None:
        while True:
            await self.link.send(await self._outbox.get())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._do(self.session.tick(now()))
            self.driver.observe()

    async def _flush(self) -> None:
        """The last fault should still leave; a peer that does not read does not hold us up."""
        for _ in range(FLUSH_ROUNDS):
            await asyncio.sleep(SETTLE_S)
            if self._outbox.empty():
                break

    # -- inputs from the group

    def _on_state(self, _: GroupState) -> None:
        """On the apply thread: many applies, one call."""
        if not self._changed:
            self._changed = True
            self._loop.call_soon_threadsafe(self._state_changed)

    def _state_changed(self) -> None:
        self._changed = False
        if not self._ended.is_set():
            self._do(self.session.state_changed(now()))

    def _outcome(self, tag: int, outcome: Outcome | Trouble) -> None:
        commands = self.session.outcome(tag, outcome, now())
        if not self._ended.is_set():
            self._do(commands)
        self._count_off(1)

    def _count_off(self, count: int) -> None:
        self._unsettled -= count
        if self._unsettled == 0 and self._closing and not self._tasks:
            self.settled.set()

    def _applied(self, tag: int, future: asyncio.Future[Outcome]) -> None:
        if future.cancelled():
            self._outcome(tag, _UNKNOWN)
            return
        exc = future.exception()
        if exc is None:
            self._outcome(tag, future.result())
        else:
            self._outcome(tag, exc.trouble if isinstance(exc, ZaibeiError) else Trouble(Code.UNKNOWN, str(exc), definite=False))

    # -- commands

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send(message):
                    self._post(message)
                case ProposeCommand(tag, entry):
                    self._propose(tag, entry)
                case Prove(position):
                    self._job(partial(self._prove, position))
                case FetchSnapshot():
                    self._load = self._job(self._open_snapshot)
                case LoadParts(side, position):
                    self._load = self._job(partial(self._load_parts, side, position))
                case DropSnapshot():
                    self._drop()
                case Compare(side):
                    self._job(partial(self._compare, side))
                case LookUp(keys):
                    self._wanted = keys
                case Alarm(code, message):
                    self.driver.alarm(code, message)
                case Close(trouble):
                    self.end(trouble)
        if self.session.intake.receipt_waits and not self._settle_due:
            self._settle_due = True
            self._loop.call_later(SETTLE_S, self._settle)

    def _settle(self) -> None:
        self._settle_due = False
        if not self._ended.is_set():
            self._do(self.session.tick(now()))

    def _post(self, message: source_pb2.ReplicaMessage) -> None:
        try:
            self._outbox.put_nowait(message)
        except asyncio.QueueFull:
            self.end(Trouble(Code.UNREACHABLE, f"the source does not read: {OUTBOX_MAX} messages wait", retry=True))

    def _propose(self, tag: int, entry: entry_pb2.Entry) -> None:
        self._unsettled += 1
        try:
            proposal = self.driver.group.propose(entry)
        except ZaibeiError as exc:
            self._loop.call_soon(self._outcome, tag, exc.trouble)
            return
        proposal.applied.add_done_callback(lambda future: self._applied(tag, future))

    def _job(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work()
            except ZaibeiError as exc:
                self._do(self.session.job_failed(exc.trouble, now()))

        return self._spawn(guarded())

    async def _prove(self, position: Position) -> None:
        self._do(self.session.proved(await self.link.prove(position), now()))

    async def _open_snapshot(self) -> None:
        parts = self.link.snapshot(source_pb2.SnapshotRequest())
        self._parts = parts
        part = await anext(parts, None)
        if part is None or part.WhichOneof("body") != "header":
            raise ZaibeiError(Code.MALFORMED, "a snapshot begins with its header")
        self._records = part.header.records_estimate
        self._do(self.session.snapshot_header(part.header, now()))

    async def _load_parts(self, side: int, position: Position) -> None:
        parts = self._parts
        if parts is None:
            raise ZaibeiError(Code.UNREACHABLE, "the snapshot was dropped", retry=True)
        loader = await self.driver.group.loader(side, position)
        try:
            end = await self._copy(parts, loader, side)
            check_end(self.driver.source, position, self.driver.setup.source_key, end)
            staged = await loader.finish(end)
        except BaseException:
            await loader.abort()
            raise
        self._do(self.session.loaded(staged, now()))

    async def _copy(self, parts: AsyncIterator[source_pb2.SnapshotPart], loader: Loader, side: int) -> source_pb2.SnapshotEnd:
        expected = done = 0
        rights = self.session.desk.rights()
        async for part in parts:
            match part.WhichOneof("body"):
                case "chunk" if part.chunk.part == expected:
                    judged = await asyncio.to_thread(judge_part, part.chunk.columns, rights)
                    await loader.write(part.chunk.columns, judged)
                    expected += 1
                    done += len(part.chunk.columns)
                    self.driver.progress(side, expected, None)
                case "end":
                    return part.end
                case _:
                    raise ZaibeiError(Code.MALFORMED, f"part {expected} of the snapshot is missing")
        raise ZaibeiError(Code.UNREACHABLE, f"the snapshot broke off after {expected} parts, {done} octets", retry=True)

    async def _compare(self, side: int) -> None:
        self._do(self.session.difference(await self.driver.group.difference(side), now()))

    def _drop(self) -> None:
        self._parts = None
        if self._load is not None and self._load is not asyncio.current_task():
            self._load.cancel()
        self._load = None
