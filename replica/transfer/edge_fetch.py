"""Fetching what another member holds still: file by file, hashed while it is written, durable, resumable at every octet.

The event loop only hands chunks on: one thread writes and hashes, another one waits for the disk (fsync) meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from replica.model.errors import Code, ZaibeiError, require
from replica.model.progress import Progress, Report, silent
from replica.model.transfer import FileLine, Manifest
from replica.transfer.edge_files import Part, disk_error, look, prepare, sync_folder
from replica.transfer.edge_metrics import TransferMetrics
from replica.transfer.edge_pace import Pace
from replica.transfer.plan import ATTEMPTS_MAX, FetchPlan
from replica.transfer.ports import Chunk, Offer, Reading, Sender, Wanted

P = ParamSpec("P")
R = TypeVar("R")
Room = Callable[[int], None]
"""Raises ZaibeiError(DISK_FULL) when so many octets more have no place; nothing was fetched then."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How a fetch goes about it.

    Args:
        credit_chunks: chunks on their way or waiting for the disk. files_ahead: files asked for at once.
        idle_s_max: without a chunk the stream is given up. attempts_max: of a file with wrong content.
        rounds_max: streams that broke one after the other without a new octet; pause_s between them, doubled up to pause_s_max.
    """

    credit_chunks: int = 16
    files_ahead: int = 4
    idle_s_max: float = 20.0
    attempts_max: int = ATTEMPTS_MAX
    rounds_max: int = 8
    pause_s: float = 0.2
    pause_s_max: float = 5.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """Everything of the manifest lies in the folder, verified and durable."""

    folder: Path
    manifest: Manifest
    fetched_octets: int
    rounds: int


async def fetch(
    sender: Sender,
    wanted: Wanted,
    folder: Path,
    room: Room,
    *,
    report: Report = silent,
    limits: FetchLimits | None = None,
    pace: Pace | None = None,
    metrics: TransferMetrics | None = None,
) -> Fetched:
    """Fetch into a folder; what an earlier, interrupted fetch left there is gone on with.

    Args:
        folder: of this transfer alone; others may not touch it meanwhile. room: asked before anything is fetched.
        pace: of what we take in; the sender has its own.
    Raises:
        ZaibeiError: DISK_FULL (no room: nothing was fetched), DISK_FAILED; VERIFICATION_FAILED (take another member); UNREACHABLE
            (call again, it goes on); MALFORMED, NOT_FOUND, NOT_AUTHORISED as the sender is at fault or says.
    """
    limits = limits or FetchLimits()
    job = _Fetch(sender, wanted, folder, room, report, limits, pace or Pace(), metrics)
    try:
        return await job.run()
    except ZaibeiError as exc:
        if metrics is not None:
            metrics.refused.labels("fetch", exc.code.value).inc()
        raise
    finally:
        await job.close()


class _Fetch:
    """One call of `fetch`."""

    def __init__(
        self, sender: Sender, wanted: Wanted, folder: Path, room: Room, report: Report, limits: FetchLimits, pace: Pace,
        metrics: TransferMetrics | None,
    ) -> None:  # fmt: skip
        self.sender, self.wanted, self.folder, self._room = sender, wanted, folder, room
        self._report, self.limits, self.pace, self.metrics = report, limits, pace, metrics
        self.disk = ThreadPoolExecutor(1, "zaibei-transfer-write")
        self._settler = ThreadPoolExecutor(1, "zaibei-transfer-sync")
        self._offer: Offer | None = None
        self._plan: FetchPlan | None = None
        self.octets = 0

    async def run(self) -> Fetched:
        rounds, idle, pause_s = 0, 0, self.limits.pause_s
        while True:
            before = self.octets
            rounds += 1
            try:
                offer, plan = await self._agree()
                await self._round(offer, plan)
                await self.in_settler(sync_folder, self.folder)
                await self.sender.release(offer.transfer)
                return Fetched(self.folder, offer.manifest, self.octets, rounds)
            except OSError as exc:
                raise disk_error(exc, f"writing {self.folder}") from exc
            except ZaibeiError as exc:
                idle = 0 if self.octets > before else idle + 1
                if not self._again(exc) or idle >= self.limits.rounds_max:
                    raise
                pause_s = self.limits.pause_s if idle == 0 else min(pause_s * 2, self.limits.pause_s_max)
            await asyncio.sleep(pause_s)

    def _again(self, exc: ZaibeiError) -> bool:
        """Does another round make sense? Files held for us may be gone: then others are asked for, unless these were named."""
        if exc.code is Code.NOT_FOUND and self._offer is not None and not self.wanted.transfer:
            self._offer = None
            return True
        return exc.trouble.retry and exc.code is not Code.DISK_FULL

    async def _agree(self) -> tuple[Offer, FetchPlan]:
        """Which files, and which of them are here already."""
        if self._offer is not None and self._plan is not None:
            return self._offer, self._plan
        offer = await self.sender.offer(self.wanted)
        if wrong := self.wanted.mismatch(offer.manifest):
            raise ZaibeiError(Code.MALFORMED, f"{self.sender.name} offers something else: {wrong}; nothing was fetched")
        sorting = await self.in_disk(look, self.folder, offer.manifest)
        plan = FetchPlan(offer.manifest, sorting, self.sender.name, self.limits.attempts_max)
        self._room(plan.missing_octets)
        await self.in_disk(prepare, self.folder, offer.manifest, sorting)
        self._offer, self._plan = offer, plan
        return offer, plan

    async def _round(self, offer: Offer, plan: FetchPlan) -> None:
        async with self.sender.reading(offer.transfer) as reading:
            stream = _Stream(self, reading, plan)
            try:
                await stream.run()
            finally:
                plan.broke(await stream.end())

    def took(self, plan: FetchPlan, octets: int) -> None:
        """A chunk came."""
        self.octets += octets
        if self.metrics is not None:
            self.metrics.received.labels(self.wanted.source).inc(octets)
        total = plan.done_octets + plan.missing_octets
        self._report(Progress(f"fetching {self.wanted.source} from {self.sender.name}", plan.done_octets, total, "octets"))

    async def in_disk(self, call: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """On the thread that writes; calls keep their order."""
        return await asyncio.get_running_loop().run_in_executor(self.disk, partial(call, *arguments, **named))

    async def in_settler(self, call: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """On the thread that waits for the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._settler, partial(call, *arguments, **named))

    async def close(self) -> None:
        for executor in (self.disk, self._settler):
            await asyncio.to_thread(executor.shutdown)


class _Stream:
    """One open stream. Chunks allowed at the sender, waiting for the disk, and written but not yet allowed again: together never
    more than `credit_chunks`."""

    def __init__(self, job: _Fetch, reading: Reading, plan: FetchPlan) -> None:
        self._job, self._reading, self._plan = job, reading, plan
        self._limits = job.limits
        self._parts: dict[str, Part] = {}
        self._lines: dict[str, FileLine] = {}  # files with octets still to come
        self._writes: deque[asyncio.Future[int]] = deque()  # chunks each of them gives back
        self._judging: set[asyncio.Task[None]] = set()
        self._owed = 0

    async def run(self) -> None:
        """Until all files are done. Raises ZaibeiError."""
        await self._reading.credit(self._limits.credit_chunks)
        while not self._plan.finished:
            await self._look_at_judged()
            await self._ask()
            if self._lines:
                await self._take(await self._next())
            else:
                require(self._judging, "files are wanted and none is coming")
                await asyncio.wait(self._judging, return_when=asyncio.FIRST_COMPLETED)

    async def _look_at_judged(self) -> None:
        for task in [one for one in self._judging if one.done()]:
            self._judging.discard(task)
            await task

    async def _ask(self) -> None:
        while len(self._lines) < self._limits.files_ahead and (found := self._plan.begin()) is not None:
            line, offset = found
            part = self._parts[line.name] = Part(self._job.folder, line, offset)
            self._writes.append(self._disk(0, part.start))
            if offset == line.octets:  # nothing to come: it only has to be looked at
                self._judge(line)
            else:
                self._lines[line.name] = line
                await self._reading.ask(line.name, offset)

    async def _next(self) -> Chunk:
        try:
            async with asyncio.timeout(self._limits.idle_s_max):
                return await self._reading.next()
        except TimeoutError:
            text = f"{self._job.sender.name} sent nothing for {self._limits.idle_s_max:.0f} s"
            raise ZaibeiError(Code.UNREACHABLE, text, retry=True) from None

    async def _take(self, chunk: Chunk) -> None:
        self._plan.arrived(chunk.file, chunk.offset, len(chunk.octets))
        self._writes.append(self._disk(1, self._parts[chunk.file].write, chunk.octets))
        self._job.took(self._plan, len(chunk.octets))
        if self._plan.complete(chunk.file):
            self._judge(self._lines.pop(chunk.file))
        await self._job.pace.wait(len(chunk.octets))
        waiting_max = self._limits.credit_chunks // 2
        while self._writes and (self._writes[0].done() or len(self._writes) > waiting_max):
            self._owed += await self._writes.popleft()
        if self._owed * 4 >= self._limits.credit_chunks:
            owed, self._owed = self._owed, 0
            await self._reading.credit(owed)

    def _disk(self, chunks: int, call: Callable[P, None], *arguments: P.args, **named: P.kwargs) -> asyncio.Future[int]:
        # Its place in the order is taken now, not when the task begins.
        done = asyncio.get_running_loop().run_in_executor(self._job.disk, partial(call, *arguments, **named))

        async def finish() -> int:
            await done
            return chunks

        return asyncio.ensure_future(finish())

    def _judge(self, line: FileLine) -> None:
        self._judging.add(asyncio.get_running_loop().create_task(self._judged(line)))

    async def _judged(self, line: FileLine) -> None:
        part = self._parts[line.name]
        sha = await self._job.in_disk(part.digest)
        if sha == line.sha256:
            await self._job.in_settler(part.settle)
        else:
            await self._job.in_disk(part.drop)
            if self._job.metrics is not None:
                self._job.metrics.mismatches.labels(self._job.wanted.source).inc()
        del self._parts[line.name]
        self._plan.judged(line.name, sha)

    async def end(self) -> dict[str, int]:
        """Wait for the disk, leave parts as they are. Returns octets written of each."""
        await asyncio.gather(*self._writes, *self._judging, return_exceptions=True)
        written = {name: part.octets for name, part in self._parts.items() if part.started}
        for part in self._parts.values():
            await self._job.in_disk(part.close)
        return written
