"""Fills and settles a failback's ledger: the source's own history in, classified lines out, accepted ones enter (SEMANTICS 8).

The history is read over the stream the source holds open (feed/edge_history.py); where its log no longer goes back to the common
position, contents are compared instead. Sorting goes through a file (takeover/edge_spool.py). Everything may be repeated: a line
that is settled stays as it is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path

from replica.feed.edge_driver import FeedDriver
from replica.feed.edge_history import history
from replica.model.batch import BATCH_COLUMNS_OCTETS_MAX, OP_DELETE, Batch, open_batch
from replica.model.edge_threads import ended_in_thread, made_in_thread
from replica.model.errors import Code, ZaibeiError
from replica.model.ledger import COMPARED_SEQ, DONE, OPEN, Line, Written
from replica.model.position import ORIGIN, Position
from replica.native import split
from replica.store.edge_readout import SnapshotReader
from replica.store.edge_store import SourceStore
from replica.takeover.edge_spool import Spool
from replica.takeover.ledger import Policies, SourceWrite, classify
from replica.v1 import entry_pb2

LINES_AT_ONCE = 1_000
READ_OCTETS_MAX = 4 * 1024 * 1024
SNAPSHOT_ID_OCTETS = 16
Say = Callable[[entry_pb2.Entry], Awaitable[None]]
"""Commits an entry and waits until it is applied. Raises ZaibeiError: it had no effect, or that is not known."""


class LedgerKeeper:
    """Of one source, on the member that leads its group.

    Args:
        folder: for files that sort.
    """

    def __init__(self, store: SourceStore, driver: FeedDriver, folder: Path, say: Say) -> None:
        self._store, self._driver, self._folder, self._say = store, driver, folder, say
        self.policies = Policies()  # of the operator's order; without one everything that both wrote waits for a person

    async def fetch(self, common: Position, until: Position) -> None:
        """Bring all that the source wrote by itself between two of its boundaries into the ledger.

        Raises:
            ZaibeiError: UNREACHABLE (again later), FORKED (what it sends is not its history), or the group refused.
        """
        spool = await made_in_thread(partial(Spool, self._folder), Spool.close)
        try:
            if until == common == ORIGIN:  # a node that begins wrote nothing by itself: an empty ledger says so
                await self._commit(spool, common, until)
                return
            await ended_in_thread(partial(self._own_side, spool, common))
            if (until.lineage, until.epoch) == (common.lineage, common.epoch):
                await self._their_side(spool, common, until)
            elif until != ORIGIN:  # it lost its disk, and began anew: nobody knows how old what it holds is
                spool.ours_known = False
                await self._compare(spool, until, absent=False)
            await self._commit(spool, common, until)
        finally:
            await asyncio.to_thread(spool.close)

    async def settle(self, common: Position) -> None:
        """Judge open lines again, where what we hold has changed; let those enter that are decided. Raises ZaibeiError."""
        ledger = self._store.state().ledger
        if ledger is None or ledger.common != common:
            return
        spool = await made_in_thread(partial(Spool, self._folder), Spool.close)
        try:
            await ended_in_thread(partial(self._own_side, spool, common))
            await self._commit(spool, common, ledger.theirs)
        finally:
            await asyncio.to_thread(spool.close)
        after = b""
        while lines := await asyncio.to_thread(self._store.ledger_lines, common, after, LINES_AT_ONCE):
            after = lines[-1].ident
            await self._enter(common, [line for line in lines if line.verdict in DONE])

    async def _enter(self, common: Position, lines: list[Line]) -> None:
        while lines:
            chosen, keys, octets = list[Line](), set[bytes](), 0
            for line in lines:
                octets += len(line.key) + len(line.theirs or b"") + len(line.ours or b"") + 64
                if line.key in keys or (chosen and octets > BATCH_COLUMNS_OCTETS_MAX):
                    break
                chosen.append(line)
                keys.add(line.key)
            lines = lines[len(chosen) :]
            idents = [line.ident for line in chosen]
            await self._say(entry_pb2.Entry(ledger_enter=entry_pb2.LedgerEnter(common=common.to_wire(), lines=idents)))

    # -- both sides into the spool

    def _own_side(self, spool: Spool, common: Position) -> None:
        """Our history behind the common position, and what the ledger holds so far: open lines are judged again."""
        state = self._store.state()
        at = state.granted
        while at is not None and at != state.position:
            raws = self._store.changes_after(at, READ_OCTETS_MAX)
            if raws is None:
                spool.ours_known = False
                break
            if not raws:
                break
            for raw in raws:
                batch = open_batch(raw, verify=False)
                spool.add_ours(split(batch.columns)[0])
                at = batch.after
        after = b""
        while lines := self._store.ledger_lines(common, after, LINES_AT_ONCE):
            after = lines[-1].ident
            spool.add_lines(lines)
            spool.add_theirs(write_of(line) for line in lines if line.verdict in OPEN)

    async def _their_side(self, spool: Spool, common: Position, until: Position) -> None:
        try:
            async with aclosing(history(self._driver, common, until)) as batches:
                async for batch in batches:
                    await ended_in_thread(partial(spool.add_theirs, list(writes_of(batch))))
        except ZaibeiError as exc:
            if exc.code is not Code.SNAPSHOT_WANTED:
                raise
            await self._compare(spool, until, absent=True)

    async def _compare(self, spool: Spool, until: Position, *, absent: bool) -> None:
        """The source's log does not go back: its content against ours, both in the order of keys, in bounded memory.

        Args:
            absent: what only we hold and did not write, the source deleted.
        """

        def add(mine: dict[bytes, bytes], its: dict[bytes, bytes]) -> None:
            spool.add_theirs(list(_different(mine, its, COMPARED_SEQ + until.seq, spool, absent=absent)))

        reader = await made_in_thread(partial(self._store.snapshot, os.urandom(SNAPSHOT_ID_OCTETS)), SnapshotReader.close)
        try:
            ours = reader.parts()
            mine: list[tuple[bytes, bytes]] = []
            async for theirs in _chunks(self._driver):
                last = theirs[-1][0]
                while not mine or mine[-1][0] < last:
                    part = await ended_in_thread(partial(next, ours, None))
                    if part is None:
                        break
                    mine.extend(_rows(part.chunk.columns) if part.HasField("chunk") else ())
                upto = [row for row in mine if row[0] <= last]
                mine = mine[len(upto) :]
                await ended_in_thread(partial(add, dict(upto), dict(theirs)))
            while (part := await ended_in_thread(partial(next, ours, None))) is not None:
                mine.extend(_rows(part.chunk.columns) if part.HasField("chunk") else ())
                await ended_in_thread(partial(add, dict(mine), {}))
                mine = []
            await ended_in_thread(partial(add, dict(mine), {}))
        finally:
            await asyncio.to_thread(reader.close)

    # -- out of the spool into the group

    async def _commit(self, spool: Spool, common: Position, until: Position) -> None:
        lines = classify(spool.theirs(), spool.ours(self._held), self.policies)
        cuts = _cuts(lines)
        chunk = await ended_in_thread(partial(next, cuts, None))
        while chunk is not None:
            following = await ended_in_thread(partial(next, cuts, None))
            await self._say(_entry(common, until, chunk, complete=following is None))
            chunk = following

    def _held(self, keys: Iterable[bytes]) -> list[bytes | None]:
        return self._store.stored(list(keys))


def _entry(common: Position, until: Position, chunk: list[bytes], *, complete: bool) -> entry_pb2.Entry:
    body = entry_pb2.LedgerLines(common=common.to_wire(), theirs=until.to_wire(), complete=complete, lines=chunk)
    return entry_pb2.Entry(ledger=body)


def _cuts(lines: Iterable[Line]) -> Iterator[list[bytes]]:
    """Lines for one entry each; at least one, which may be empty: it says that nothing diverged."""
    chunk: list[bytes] = []
    octets = 0
    for line in lines:
        packed = line.pack()
        if chunk and (len(chunk) == LINES_AT_ONCE or octets + len(packed) > BATCH_COLUMNS_OCTETS_MAX):
            yield chunk
            chunk, octets = [], 0
        chunk.append(packed)
        octets += len(packed)
    yield chunk


def write_of(line: Line) -> SourceWrite:
    """The write a line is about."""
    return SourceWrite(line.key, line.seq, line.theirs, line.certain)


def writes_of(batch: Batch) -> Iterator[SourceWrite]:
    """Changes of a batch, each with its own number in the source's history."""
    keys, values, ops = split(batch.columns)
    for seq, (key, value, op) in enumerate(zip(keys, values, ops, strict=True), batch.before.seq + 1):
        yield SourceWrite(key, seq, None if op == OP_DELETE else value)


def _rows(columns: bytes) -> list[tuple[bytes, bytes]]:
    keys, values, _ = split(columns)
    return list(zip(keys, values, strict=True))


async def _chunks(driver: FeedDriver) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """Parts of the source's content, keys ascending. Raises ZaibeiError(MALFORMED, UNREACHABLE): it does not come to its end."""
    before, ended = b"", False
    async for part in driver.snapshot():
        if part.HasField("end"):
            ended = True
        if part.HasField("chunk") and (rows := _rows(part.chunk.columns)):
            if rows[0][0] <= before:
                raise ZaibeiError(Code.MALFORMED, f"{driver.source} reads its content out in another order than that of its keys")
            before = rows[-1][0]
            yield rows
    if not ended:
        raise ZaibeiError(Code.UNREACHABLE, f"{driver.source} did not read its content out to its end", retry=True)


def _different(
    ours: dict[bytes, bytes], theirs: dict[bytes, bytes], seq: int, spool: Spool, *, absent: bool
) -> Iterator[SourceWrite]:
    """What the source holds otherwise. A record that only we hold, and wrote ourselves, is ours: it never had it."""
    for key in ours.keys() | theirs.keys():
        mine, its = ours.get(key), theirs.get(key)
        if mine == its or (its is None and (not absent or spool.written(key, mine) is Written.YES)):
            continue
        yield SourceWrite(key, seq, its, certain=False)
