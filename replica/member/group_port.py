"""One source's group as the feed and takeover see it: the log decides order, the store answers; nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from replica.consensus.group import GroupLog
from replica.feed.ports import Difference, Staged
from replica.model.edge_threads import made_or_ended
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.outcome import Proposal
from replica.model.position import Position
from replica.store.edge_loader import GenerationLoader
from replica.store.edge_store import SourceStore
from replica.v1 import entry_pb2, source_pb2


class LoaderPort:
    """A generation loader, speaking the feed's values."""

    def __init__(self, loader: GenerationLoader) -> None:
        self._loader = loader

    async def write(self, columns: bytes, judged: Sequence[tuple[int, str]] = ()) -> None:
        await self._loader.write(columns, judged)

    async def finish(self, end: source_pb2.SnapshotEnd) -> Staged:
        staged = await self._loader.finish(end)
        return Staged(staged.digest, staged.manifest_hash)

    async def abort(self) -> None:
        await self._loader.abort()


class GroupPort:
    """Satisfies replica.feed.ports.Group."""

    def __init__(self, log: GroupLog, store: SourceStore) -> None:
        self._log, self._store = log, store

    def state(self) -> GroupState:
        return self._store.state()

    def live_records(self, level: bytes) -> int:
        return self._store.live_records(level)

    def existing(self, keys: Sequence[bytes]) -> list[bool]:
        return self._store.existing(keys)

    def chain_at(self, epoch: int, seq: int) -> Position | None:
        return self._store.chain_at(epoch, seq)

    @property
    def pressure(self) -> bool:
        return self._log.pressure

    def subscribe(self, callback: Callable[[GroupState], None]) -> Callable[[], None]:
        return self._store.subscribe(callback)

    def propose(self, entry: entry_pb2.Entry | bytes) -> Proposal:
        if self._log.failure is not None:
            raise self._log.failure.again()
        return self._log.propose(entry)

    async def loader(self, side: int, position: Position) -> LoaderPort:
        made = await made_or_ended(partial(self._store.loader, side, position), GenerationLoader.give_up)
        return LoaderPort(made)

    async def difference(self, side: int) -> list[Difference]:
        found = await asyncio.to_thread(self._store.difference, side)
        return [Difference(one.prefix, one.removed, one.rewritten, one.added) for one in found]


async def propose_and_wait(log: GroupLog, entry: entry_pb2.Entry, limit_s: float) -> None:
    """Propose one of our own entries and wait until it is applied.

    Raises:
        ZaibeiError(UNKNOWN): not applied in time; CONFLICT: it had no effect.
    """
    proposal = log.propose(entry)
    try:
        async with asyncio.timeout(limit_s):
            outcome = await asyncio.shield(proposal.applied)
    except TimeoutError:
        raise ZaibeiError(Code.UNKNOWN, f"{log.group}: not applied within {limit_s} s", definite=False, retry=True) from None
    if outcome.kind not in ("applied", "already"):
        raise ZaibeiError(Code.CONFLICT, f"{log.group}: {outcome.kind}: {outcome.detail}")
