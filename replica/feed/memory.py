"""Memory twins of the ports in ports.py: a group that commits at once, and a link whose two ends are queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from replica.feed.memory_store import MemoryLoader, MemoryStore
from replica.feed.ports import Difference
from replica.feed.source_port import SourceLog
from replica.model.errors import ZaibeiError
from replica.model.group_state import GroupState
from replica.model.outcome import Outcome, Proposal
from replica.model.position import Position
from replica.v1 import entry_pb2, source_pb2


class MemoryGroup:
    """A group of one member over a MemoryStore; an entry is committed and applied in the next turn of the loop."""

    def __init__(self, source: str, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore(source)
        self.pressure = False
        self.refuse: ZaibeiError | None = None  # raised by every proposal while set
        self._callbacks: list[Callable[[GroupState], None]] = []

    def state(self) -> GroupState:
        return self.store.state()

    def live_records(self, level: bytes) -> int:
        return self.store.live_records(level)

    def existing(self, keys: Sequence[bytes]) -> list[bool]:
        return self.store.existing(keys)

    def chain_at(self, epoch: int, seq: int) -> Position | None:
        return self.store.chain_at(epoch, seq)

    def subscribe(self, callback: Callable[[GroupState], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def propose(self, entry: entry_pb2.Entry) -> Proposal:
        if self.refuse is not None:
            raise self.refuse
        loop = asyncio.get_running_loop()
        committed: asyncio.Future[int] = loop.create_future()
        applied: asyncio.Future[Outcome] = loop.create_future()
        loop.call_soon(self._apply, entry.SerializeToString(), Proposal(committed, applied))
        return Proposal(committed, applied)

    def _apply(self, entry: bytes, proposal: Proposal) -> None:
        outcome = self.store.apply(entry)
        if not proposal.committed.done():
            proposal.committed.set_result(self.store.state().index)
        if not proposal.applied.done():
            proposal.applied.set_result(outcome)
        for callback in list(self._callbacks):
            callback(self.store.state())

    async def loader(self, side: int, position: Position) -> MemoryLoader:
        return MemoryLoader(self.store, side, position)

    async def difference(self, side: int) -> list[Difference]:
        return self.store.difference(side)


class MemoryLink:
    """Both ends of a stream in one object: the replica's (Link) and, as `source`, the other's (SourceLink)."""

    def __init__(self, log: SourceLog) -> None:
        self._log = log
        self._down: asyncio.Queue[source_pb2.SourceMessage | None] = asyncio.Queue()
        self._up: asyncio.Queue[source_pb2.ReplicaMessage | None] = asyncio.Queue()
        self.source = _SourceEnd(self._up, self._down)

    async def receive(self) -> source_pb2.SourceMessage | None:
        return await self._down.get()

    async def send(self, message: source_pb2.ReplicaMessage) -> None:
        self._up.put_nowait(message)

    async def prove(self, position: Position) -> source_pb2.Proof:
        return self._log.prove(position)

    async def digest(self, request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
        return self._log.digest(request)

    def snapshot(self, request: source_pb2.SnapshotRequest) -> AsyncIterator[source_pb2.SnapshotPart]:
        return self._log.snapshot(request)

    def cut(self) -> None:
        """Both ends see the end of the stream."""
        self._down.put_nowait(None)
        self._up.put_nowait(None)


class _SourceEnd:
    def __init__(
        self, up: asyncio.Queue[source_pb2.ReplicaMessage | None], down: asyncio.Queue[source_pb2.SourceMessage | None]
    ) -> None:
        self._up, self._down = up, down

    async def receive(self) -> source_pb2.ReplicaMessage | None:
        return await self._up.get()

    async def send(self, message: source_pb2.SourceMessage) -> None:
        self._down.put_nowait(message)
