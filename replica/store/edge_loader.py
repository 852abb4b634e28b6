"""Loading a snapshot beside the live copy: parts go through a pipe to a helper process, which builds a generation in its own
directory; what it built is compared with what the source stated before it is given its name.

Nothing of it is visible before a switch; stopped at any moment it leaves a directory that the next open deletes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

import replica
from replica.model.digest import ContentDigest
from replica.model.edge_threads import ended_in_thread
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.store.edge_disk import disk_error, move_durable, remove_tree
from replica.store.edge_folder import discard, load_folder
from replica.store.edge_generation import generation_folder
from replica.store.edge_rocks import StoreBudget
from replica.store.frames import END, JOB, JUDGED, PART, Job, Reply, frame
from replica.v1 import source_pb2

PIPE_OCTETS = 1024 * 1024  # what may wait between the member and its helper
RECORD_DISK_OCTETS = 160  # room asked for a record before a load starts; measured 26 to 60 after compression
STOP_S_MAX = 10

_decode_reply = msgspec.json.Decoder(Reply).decode  # made once: see state_row.py
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Staged:
    """A side generation on disk, verified against the snapshot's end. `cpu_ms`: of the helper."""

    digest: ContentDigest
    manifest_hash: bytes
    cpu_ms: int = 0


class GenerationLoader:
    """One load. Calls one after the other, from the event loop; the work is done in threads and in the helper."""

    def __init__(self, folder: Path, job: Job, position: Position, helper: subprocess.Popen[bytes]) -> None:
        self._folder, self._job, self._position, self._helper = folder, job, position, helper
        self._thread = ThreadPoolExecutor(1, "zaibei-store-loader")
        self._building = load_folder(folder, job.generation, job.begun)
        self._ended = False
        self.next_part = 0

    @staticmethod
    def start(
        folder: Path, source: str, side: int, position: Position, begun: int, budget: StoreBudget, records_estimate: int
    ) -> GenerationLoader:
        """Start the helper.

        Raises:
            ZaibeiError: DISK_FULL (no room; nothing was started), DISK_FAILED.
        """
        budget.disk.require_for(records_estimate * RECORD_DISK_OCTETS)
        building = load_folder(folder, side, begun)
        try:
            for old in (building, building.with_name(building.name + ".files")):
                if old.exists():
                    remove_tree(old)
            discard(generation_folder(folder, side))  # of a load that was given up
            building.mkdir()
        except OSError as exc:
            raise disk_error(exc, f"making {building}") from exc
        root = str(Path(replica.__file__).resolve().parents[1])
        paths = os.pathsep.join(path for path in (root, os.environ.get("PYTHONPATH", "")) if path)
        helper = subprocess.Popen(
            [sys.executable, "-m", "replica.store.edge_builder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # a Ctrl-C meant for the member must not end it first
        )
        if helper.stdin is not None:
            fcntl.fcntl(helper.stdin.fileno(), fcntl.F_SETPIPE_SZ, PIPE_OCTETS)
        job = Job(str(building), source, side, begun, str(position))
        loader = GenerationLoader(folder, job, position, helper)
        loader._send(JOB, msgspec.json.encode(job))
        return loader

    async def write(self, columns: bytes, judged: Sequence[tuple[int, str]] = ()) -> None:
        """Take the next part; waits while the pipe is full.

        Args:
            judged: (place, reason) of records to quarantine for reasons the octets do not show (not_owner).
        Raises:
            ZaibeiError: MALFORMED (the source's fault), DISK_FULL, DISK_FAILED. The load is over then.
        """
        await self._in_thread(self._write, columns, judged)

    def _write(self, columns: bytes, judged: Sequence[tuple[int, str]]) -> None:
        if judged:
            self._send(JUDGED, msgspec.json.encode([*judged]))
        self._send(PART, columns)
        self.next_part += 1

    async def finish(self, end: source_pb2.SnapshotEnd) -> Staged:
        """Make it durable, and compare count, digest and ordered hash with what the source stated.

        Raises:
            ZaibeiError: VERIFICATION_FAILED, MALFORMED, DISK_FULL, DISK_FAILED. The load is over then, nothing is left of it.
        """
        return await self._in_thread(self._finish, end)

    def _finish(self, end: source_pb2.SnapshotEnd) -> Staged:
        try:
            self._send(END, b"")
            reply = self._reply()
            digest = ContentDigest(self._position, reply.records, int(reply.total, 16))
            self._verify(end, reply, digest)
            move_durable(self._building, generation_folder(self._folder, self._job.generation))
        except ZaibeiError:
            self._clear()
            raise
        self._end()
        return Staged(digest, bytes.fromhex(reply.manifest), reply.cpu_ms)

    def _verify(self, end: source_pb2.SnapshotEnd, reply: Reply, digest: ContentDigest) -> None:
        stated = ContentDigest.from_wire(end.digest)
        differs = [
            name
            for name, same in (
                ("position", stated.position == self._position),
                ("parts", end.parts == reply.parts),
                ("ordered hash", end.ordered_hash.hex() == reply.ordered),
                ("count", stated.records == digest.records),
                ("digest", stated.total == digest.total),
            )
            if not same
        ]
        if differs:
            raise ZaibeiError(
                Code.VERIFICATION_FAILED,
                f"the loaded content differs from what the source stated in {', '.join(differs)}: "
                "it was dropped, the live copy is untouched",
            )

    async def abort(self) -> None:
        """Forget it; harmless at any time. What is left of it is gone by then, also for somebody who is cancelled meanwhile."""
        await ended_in_thread(self.give_up)

    def give_up(self) -> None:
        """As `abort`; blocks. Any thread but the load's own.

        Behind whatever that one is doing: what it just names, or writes to, is not taken away under it.
        """
        self._helper.kill()  # who writes to it, or waits for its word, goes on at once
        with suppress(RuntimeError):  # it is over
            self._thread.submit(self._clear).result()

    # ------------------------------------------------------------------------------------------------- the helper
    async def _in_thread(self, call: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        if self._ended:
            raise ZaibeiError(Code.STOPPING, "this load is over")
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(call, *arguments, **named))

    def _send(self, kind: int, octets: bytes) -> None:
        pipe = self._helper.stdin
        if pipe is None or self._ended:
            raise ZaibeiError(Code.STOPPING, "this load is over")
        try:
            pipe.write(frame(kind, octets))
            pipe.write(octets)
            pipe.flush()
        except OSError:  # the helper said why and ended
            self._reply()

    def _reply(self) -> Reply:
        """The helper's last word. Raises ZaibeiError: what it says went wrong, or that it died."""
        out = self._helper.stdout
        line = out.readline() if out is not None else b""
        code = self._helper.wait()
        if not line.endswith(b"\n"):
            raise ZaibeiError(
                Code.DISK_FAILED, f"the helper process that builds the copy ended with {code}: loading starts anew", retry=True
            )
        reply = _decode_reply(line)
        if reply.code:
            raise ZaibeiError(Code(reply.code), reply.message, retry=reply.code == Code.DISK_FULL)
        return reply

    def _clear(self) -> None:
        """On the load's thread: nothing of it is left."""
        if self._ended:
            return
        self._end()
        self._helper.kill()
        self._helper.wait(STOP_S_MAX)
        for pipe in (self._helper.stdin, self._helper.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue  # what was still buffered has nobody to read it
        remove_tree(self._building)
        remove_tree(self._building.with_name(self._building.name + ".files"))

    def _end(self) -> None:
        self._ended = True
        self._thread.shutdown(wait=False)
