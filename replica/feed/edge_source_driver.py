"""Runs a source session over a log and a stream, whichever side called: behind RegistrySource.Watch, or inside the pusher."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from replica.feed.commands import Alarm, Close
from replica.feed.edge_beats import BeatSender
from replica.feed.edge_clock import now
from replica.feed.source_port import LeaseHolder, SourceLog
from replica.feed.source_session import (
    Arm,
    Certify,
    Cut,
    Deliver,
    EndWriting,
    Leased,
    PushSnapshot,
    Read,
    Retain,
    Say,
    SourceCommand,
    SourcePhase,
    SourceSession,
    TakeGrant,
)
from replica.model.batch import open_batch
from replica.model.drained import Drained
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.v1 import source_pb2

LOGGER = logging.getLogger("zaibei.feed.source")
INSTANCE = os.urandom(16)  # of this process (twins.py)
TICK_S_MAX = 0.1
OUTBOX_MESSAGES_MAX = 16  # beyond it nothing more of the log is read, and no beat is added, before the network has room
OUTBOX_MESSAGES_END = 4_096  # answers to a replica that asks and does not read: the stream ends


class SourceLink(Protocol):
    """One stream with a replica."""

    async def receive(self) -> source_pb2.ReplicaMessage | None:
        """None: the replica ended the stream. Raises ZaibeiError(UNREACHABLE, MALFORMED)."""
        ...

    async def send(self, message: source_pb2.SourceMessage) -> None: ...


class SourceDriver:
    """One stream of a log.

    Args:
        replica_key: signing key of the replica's member.
        push_snapshot: carries out PushSnapshot; None where the replica fetches itself.
        holder: the guard that asks for write-path leases, where there is one by now.
    """

    def __init__(
        self,
        log: SourceLog,
        link: SourceLink,
        replica_key: bytes,
        push_snapshot: Callable[[], Awaitable[None]] | None = None,
        holder: Callable[[], LeaseHolder | None] = lambda: None,
    ) -> None:
        self.log, self.link, self._holder = log, link, holder
        self.session = SourceSession(log.describe(), log.epoch_wanted(), replica_key, INSTANCE)
        self._push_snapshot = push_snapshot
        self._ended = asyncio.Event()
        self._why: Trouble | None = None
        self._outbox: asyncio.Queue[source_pb2.SourceMessage] = asyncio.Queue()
        self._room = asyncio.Event()
        self._wanted: Read | None = None  # the newest question for batches; an older one is of a run that is over
        self._asked = asyncio.Event()
        self._pushing: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._beats: BeatSender | None = None

    async def run(self) -> Trouble | None:
        """Drive the stream to its end.

        Returns:
            Why it ended; None: the replica ended it in order.
        """
        loop = asyncio.get_running_loop()
        try:
            self._do(self.session.start(now()))
            for work in (self._receive(), self._send(), self._follow(), self._read_on(), self._tick()):
                self._spawn(loop, work)
            await self._ended.wait()
            await asyncio.sleep(TICK_S_MAX / 10)  # the last fault should still leave
            return self._why
        finally:
            for task in (tasks := list(self._tasks)):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._beats is not None:
                self._beats.close()

    def _spawn(self, loop: asyncio.AbstractEventLoop, work: Awaitable[None]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except ZaibeiError as exc:
                self._end(exc.trouble)

        task = loop.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            task.get_loop().call_exception_handler({"message": "a source stream broke an invariant", "exception": exc})
            self._end(None)

    def _end(self, why: Trouble | None) -> None:
        if not self._ended.is_set():
            self._why = why
            self._ended.set()

    # -- tasks

    async def _receive(self) -> None:
        while (message := await self.link.receive()) is not None:
            if message.WhichOneof("body") in ("resume", "nonce"):  # the beat it is answered by states the head as it is now
                self._do(self.session.moved(self.log.head(), self.log.floor(), now()))
            self._do(self.session.received(message, now()))
        self._end(None)

    async def _send(self) -> None:
        while True:
            message = await self._outbox.get()
            await self.link.send(message)
            self._room.set()

    async def _follow(self) -> None:
        """The log's head moves; the session hears of it when the network has room."""
        while True:
            await self._has_room()
            self._do(self.session.moved(self.log.head(), self.log.floor(), now()))
            await self.log.wait(self.session.head, TICK_S_MAX)

    async def _read_on(self) -> None:
        """Batches come into memory only while the network takes them, whatever credit the replica gave."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self._has_room()
            wanted, self._wanted = self._wanted, None
            if wanted is not None:
                self._read(wanted.run, self.log.read(wanted.after, wanted.octets_max))

    async def _has_room(self) -> None:
        while self._outbox.qsize() >= OUTBOX_MESSAGES_MAX:
            self._room.clear()
            await self._room.wait()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(min(TICK_S_MAX, self.session.beat_interval_s / 2))
            self._do(self.session.tick(now()))
            holder = self._holder()
            if holder is not None and (ask := holder.wanted()) is not None:
                self._do(self.session.ask_lease(ask, now()))

    # -- commands

    def _do(self, commands: list[SourceCommand]) -> None:
        """In their order; what one of them leads to comes before the next."""
        waiting = deque(commands)
        while waiting:
            match command := waiting.popleft():
                case Say(message):
                    self._say(message)
                case Read():
                    self._wanted = command
                    self._asked.set()
                case Certify(position):
                    waiting.extendleft(reversed(self.session.certified(self.log.certificate(position), now())))
                case TakeGrant(grant):
                    self._spawn(asyncio.get_running_loop(), self._take(grant))
                case Deliver(receipt):
                    self.log.receipt(receipt)
                case Retain(position, duration_ms):
                    self.log.retain(position, duration_ms)
                case Leased(lease):
                    self._leased(lease)
                case EndWriting(act):
                    if self._draining is None or self._draining.done():  # else it is asked again
                        self._draining = self._spawn(asyncio.get_running_loop(), self._drain(act))
                case PushSnapshot():
                    self._push()
                case Arm():
                    self._arm(command)
                case Alarm(code, message):
                    LOGGER.warning(message, extra={"source": self.session.source, "code": str(code)})
                case Close(trouble):
                    self._end(trouble)

    def _say(self, message: source_pb2.SourceMessage) -> None:
        waiting = self._outbox.qsize()
        if waiting >= OUTBOX_MESSAGES_END:
            self._end(Trouble(Code.UNREACHABLE, f"the replica does not read: {waiting} messages wait", retry=True))
        elif waiting < OUTBOX_MESSAGES_MAX or not message.HasField("beat"):  # an old beat proves nothing, the next one will
            self._outbox.put_nowait(message)

    def _read(self, run: int, raws: list[bytes] | None) -> None:
        cuts = None if raws is None else [Cut(raw, open_batch(raw, verify=False).after) for raw in raws]
        self._do(self.session.batches(run, cuts, now()))

    async def _take(self, grant: source_pb2.Grant) -> None:
        try:
            position = await self.log.accept_grant(grant)
        except ZaibeiError as exc:
            self._do(self.session.grant_refused(exc.trouble, self.log.head(), now()))
            return
        self._do(self.session.grant_taken(position, now()))

    def _leased(self, lease: source_pb2.Lease) -> None:
        holder = self._holder()
        if holder is not None and lease.duration_ms:
            holder.given(lease.number, lease.epoch, lease.duration_ms)
        elif holder is not None:
            holder.denied(lease.number, lease.reason)

    async def _drain(self, act: str) -> None:
        holder = self._holder()
        if holder is None:
            said = Drained(act, None, "no guard is open at its write path")
        else:
            try:
                said = Drained(act, await asyncio.to_thread(holder.drain))
            except ZaibeiError as exc:
                said = Drained(act, None, exc.trouble.message)
        self._do(self.session.drained(said, now()))

    def _push(self) -> None:
        if self._push_snapshot is not None and (self._pushing is None or self._pushing.done()):
            self._pushing = self._spawn(asyncio.get_running_loop(), self._push_snapshot())

    def _arm(self, arm: Arm) -> None:
        if self._beats is not None:
            self._beats.close()
        self._beats = BeatSender(self.session, self.log, arm)

    @property
    def open(self) -> bool:
        return self.session.phase is not SourcePhase.CLOSED and not self._ended.is_set()
