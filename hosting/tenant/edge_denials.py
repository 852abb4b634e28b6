"""The audit of refusals of one member: lines in two files that take turns, chained, on the disk within seconds of their minute.

| file | holds |
| --- | --- |
| denials.audit | the newest records, at most FILE_RECORDS_MAX |
| denials.before.audit | those before them; when the newest are that many, they take its place and it is gone |

A line that a crash cut short is taken off at the next start: it was never told. Where the disk takes nothing, rows wait, summed
up. Files that cannot be read are moved aside, told in the log, and a new chain begins: a member does not stay away for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hosting.tenant.denials import Denial, Denials, record_of
from replica.model.audit import AuditHead, chained
from replica.model.edge_identity import sync_folder

FILE_RECORDS_MAX: Final = 20_000  # about 10 MB; in the worst attack 10 hours of records
LOOK_S: Final = 5.0

log = logging.getLogger("zaibei.denials")


class DenialBook:
    """See the module. `now_ms`: Unix milliseconds. Raises OSError."""

    def __init__(self, folder: Path, denials: Denials, now_ms: Callable[[], int], *, records_max: int = FILE_RECORDS_MAX) -> None:
        self._new, self._old = folder / "denials.audit", folder / "denials.before.audit"
        self._denials, self._now_ms, self._records_max = denials, now_ms, records_max
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._lock = threading.Lock()
        self._told = False
        before, lines = _lines(self._old), _whole(self._new)
        try:
            self._count, self.head = len(lines), _head([*before, *lines])
        except ValueError as exc:
            self._count, self.head = 0, AuditHead()
            for path in (self._old, self._new):
                if path.exists():
                    os.replace(path, path.with_name(f"{path.stem}.damaged-{now_ms()}.audit"))
            log.error(
                "the audit of refusals cannot be read: it lies beside, and a new one begins", extra={"fields": {"why": str(exc)}}
            )

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="audit of refusals")

    async def stop(self) -> None:
        """What was refused up to now is written."""
        if self._task is not None:
            self._ending.set()
            await self._task
            await self._write(self._denials.rest())

    async def _run(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._ending.wait()
            await self._write(self._denials.over(self._now_ms()))

    async def _write(self, rows: list[Denial]) -> None:
        if not rows:
            return
        try:
            await asyncio.to_thread(self.add, rows)
            self._told = False
        except OSError as exc:
            self._denials.back(rows)
            if not self._told:
                log.error("refusals cannot be written to their audit: they wait", extra={"fields": {"why": str(exc)}})
            self._told = True

    def add(self, rows: list[Denial]) -> None:
        """Blocks until they are on the disk; any thread. Raises OSError: none of them counts."""
        with self._lock:
            self._add(rows)

    def _add(self, rows: list[Denial]) -> None:
        if self._count >= self._records_max:
            os.replace(self._new, self._old)
            sync_folder(self._new.parent)
            self._count = 0
            self.head = AuditHead(self.head.number, self.head.chain, self.head.number - self._records_in(self._old) + 1)
        head, lines = self.head, []
        for row in rows:
            line, head = record_of(row, head)
            lines.append(line + b"\n")
        fresh = not self._new.exists()
        handle = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "ab", buffering=0) as out:
            end = out.tell()
            try:
                octets = b"".join(lines)
                if out.write(octets) != len(octets):
                    raise OSError("the disk took a part of it alone")
                os.fsync(out.fileno())
            except OSError:
                out.truncate(end)
                raise
        if fresh:
            sync_folder(self._new.parent)
        self.head, self._count = head, self._count + len(lines)

    def page(self, after: int, limit: int) -> tuple[AuditHead, list[bytes]]:
        """The head, and records behind a number. Blocks; any thread. Raises OSError."""
        with self._lock:
            head, lines = self.head, [*_lines(self._old), *_lines(self._new)]
        return head, lines[max(0, after + 1 - head.first) :][: max(0, min(limit, head.number - after))]

    @staticmethod
    def _records_in(path: Path) -> int:
        return len(_lines(path))


def _lines(path: Path) -> list[bytes]:
    """Whole lines; none where there is no file."""
    try:
        octets = path.read_bytes()
    except FileNotFoundError:
        return []
    return octets.split(b"\n")[:-1]


def _whole(path: Path) -> list[bytes]:
    """Whole lines of a file, which ends with the last one from now on."""
    lines = _lines(path)
    octets = sum(len(line) + 1 for line in lines)
    if path.exists() and path.stat().st_size > octets:
        os.truncate(path, octets)
    return lines


def _head(lines: list[bytes]) -> AuditHead:
    """Raises ValueError."""
    if not lines:
        return AuditHead()
    try:
        first, last = json.loads(lines[0]), json.loads(lines[-1])
        return AuditHead(last["number"], chained(bytes.fromhex(last["before"]), lines[-1]), first["number"])
    except (KeyError, TypeError) as exc:
        raise ValueError(f"no record: {exc!r}") from exc
