"""Journal, group log, apply thread and store in this process: what a batch goes through behind the feed's session."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from ops.bench.material import Material
from ops.bench.synthetic import PREFIX_KEY
from replica.consensus.edge_apply import ApplyThread
from replica.consensus.edge_journal import Journal
from replica.consensus.group import GroupLog
from replica.feed.admission import Rights, judge
from replica.model.errors import ZaibeiError, require
from replica.model.outcome import Outcome, Proposal
from replica.model.position import ORIGIN, epoch_start
from replica.store.edge_rocks import BudgetLimits, StoreBudget
from replica.store.edge_store import SourceStore
from replica.v1 import entry_pb2, source_pb2

SOURCE = "88.118.8"
LINEAGE = b"benchmark lineag"
IN_FLIGHT_BATCHES = 32  # the feed's credit is 64; 32 of 240 KB stay below the group's pressure mark
START = epoch_start(ORIGIN, LINEAGE, 1)
PREFIX = PREFIX_KEY[:-1]
RIGHTS = Rights(SOURCE, frozenset({PREFIX}), frozenset({PREFIX}), lambda _: SOURCE)
WALL_MS = 1_700_000_000_000


class Engine:
    """An open one; see `engine`."""

    def __init__(self, journal: Journal, log: GroupLog, store: SourceStore) -> None:
        self.journal, self.log, self.store = journal, log, store

    async def commit(self, entry: entry_pb2.Entry) -> Outcome:
        """Propose an entry of ours and wait until it is applied."""
        entry.format, entry.admitted_ms = 1, WALL_MS
        return await self.log.propose(entry).applied

    async def ingest(self, batches: Iterable[bytes]) -> int:
        """Judge, commit and apply batches as the feed does, a bounded number in flight; returns how many records."""
        flight: deque[Proposal] = deque()
        records = 0
        for raw in batches:
            judged = judge(raw, RIGHTS)
            require(not judged.quarantined, "synthetic records are sound")
            append = entry_pb2.AppendBatch(batch=raw, follows=judged.batch.before.to_wire(), live=True)
            entry = entry_pb2.Entry(format=1, admitted_ms=WALL_MS, append=append)
            while len(flight) >= IN_FLIGHT_BATCHES or self.log.pressure:
                await _applied(flight.popleft())
            flight.append(self.log.propose(entry))
            records += judged.batch.count
            await asyncio.sleep(0)  # as between two messages of a stream
        while flight:
            await _applied(flight.popleft())
        return records

    async def load(self, material: Material, records: int, side: int = 2) -> int:
        """Load a snapshot beside at the present position and switch to it; returns the helper's CPU milliseconds."""
        position = self.store.state().position
        begin = entry_pb2.LoadBegin(side=side, position=position.to_wire(), members_needed=1)
        await self.commit(entry_pb2.Entry(load_begin=begin))
        loader = self.store.loader(side, position)
        for part in material.parts(records):
            await loader.write(part)
        staged = await loader.finish(material.end(records, position))
        body = entry_pb2.LoadStaged(side=side, member="bench", manifest_hash=staged.manifest_hash)
        await self.commit(entry_pb2.Entry(load_staged=body))
        switched = await self.commit(entry_pb2.Entry(load_switch=entry_pb2.LoadSwitch(side=side, digest=staged.digest.to_wire())))
        require(switched.kind == "applied", f"the loaded generation became the live one: {switched}")
        return staged.cpu_ms


async def _applied(proposal: Proposal) -> None:
    outcome = await proposal.applied
    require(outcome.kind == "applied", f"a batch of the benchmark was not applied: {outcome}")


@asynccontextmanager
async def engine(folder: Path, limits: BudgetLimits | None = None) -> AsyncIterator[Engine]:
    """Open journal and store in a folder that exists, in epoch 1, and close them in order. Raises ZaibeiError."""
    budget = StoreBudget(folder, limits)
    store = await asyncio.to_thread(SourceStore.open, folder / "store", SOURCE, budget)
    journal = await asyncio.to_thread(lambda: Journal.open(folder / "journal"))
    apply = ApplyThread()
    apply.start()
    broken: list[ZaibeiError] = []
    log = GroupLog(SOURCE, journal, store, apply, on_out_of_service=lambda _, error: broken.append(error))
    await log.start()
    made = Engine(journal, log, store)
    if store.state().granted is None:
        grant = source_pb2.Grant(source=SOURCE, parent=ORIGIN.to_wire(), start=START.to_wire(), reason="benchmark")
        await made.commit(entry_pb2.Entry(grant=grant))
    try:
        yield made
    finally:
        await log.stop()
        await asyncio.to_thread(apply.stop)
        await asyncio.to_thread(store.close)
        await asyncio.to_thread(journal.close)
    if broken:
        raise broken[0]
