"""The audit that is a member's own (refusals, words shown): lines in pieces, chained, on the disk within seconds of their minute.

| file | holds |
| --- | --- |
| denials.audit | the newest records, at most FILE_RECORDS_MAX and of PIECE_DAYS |
| denials.FIRST.audit | a whole piece before them, FIRST: number of its first record |
| denials.before.audit | such a piece as earlier versions wrote it; gets its number at the start |

A piece goes once all of it is older than the limit (audit_personal.py), oldest first, and only after a record that says so is on
the disk; the chain before the first record kept stands in that record, so the rest is verified as before. A line that a crash cut
short is taken off at the next start: it was never told. Where the disk takes nothing, rows wait, summed up. Files that cannot be
read are moved aside, told in the log, and a new chain begins: a member does not stay away for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Final

from hosting.tenant.denials import Denial, Denials, record_of
from hosting.tenant.own_records import dropped_record, reveal_record
from replica.model.audit import AuditHead, chained
from replica.model.audit_personal import DAY_MS, KEPT_DAYS, may_go
from replica.model.audit_seal import NO_KEYS, AuditKeys
from replica.model.edge_identity import sync_folder

FILE_RECORDS_MAX: Final = 20_000  # about 13 MB; in the worst attack 10 hours of records
PIECE_DAYS: Final = 30  # a quiet member begins a new piece so often, or nothing would ever be old enough to go
LOOK_S: Final = 5.0

log = logging.getLogger("zaibei.denials")
Made = Callable[[AuditHead], tuple[bytes, AuditHead]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of records that takes no more. `last`: its newest record's line, `chain`: after it."""

    path: Path
    first: int
    count: int
    last: bytes
    chain: bytes


class DenialBook:
    """See the module. `now_ms`: Unix milliseconds; `kept_days`: never below KEPT_DAYS. Raises OSError."""

    def __init__(
        self,
        folder: Path,
        denials: Denials,
        now_ms: Callable[[], int],
        *,
        records_max: int = FILE_RECORDS_MAX,
        keys: AuditKeys = NO_KEYS,
        kept_days: int = KEPT_DAYS,
    ) -> None:
        self._folder, self._new = folder, folder / "denials.audit"
        self._denials, self._now_ms, self._records_max = denials, now_ms, records_max
        self._keys, self._kept_days = keys, max(kept_days, KEPT_DAYS)
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._lock = threading.Lock()
        self._told = False
        self._pieces: list[Piece] = []
        self._read: tuple[Path, list[bytes]] | None = None
        lines = _whole(self._new)
        try:
            self._pieces = _pieces(folder)
            begin = AuditHead() if not self._pieces else _head([self._pieces[-1].last])
            self._count, head = len(lines), _head(lines) if lines else begin
            first = self._pieces[0].first if self._pieces else head.first
            self.head = AuditHead(head.number, head.chain, first)
            self._began_ms = int(json.loads(lines[0])["at_ms"]) if lines else 0
        except ValueError as exc:
            self._count, self.head, self._pieces, self._began_ms = 0, AuditHead(), [], 0
            for path in [*_piece_files(folder), self._new]:
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

    def add(self, rows: Sequence[Denial]) -> None:
        """Blocks until they are on the disk; any thread. Raises OSError: none of them counts."""
        with self._lock:
            self._add([lambda head, row=row: record_of(row, head, self._keys) for row in rows])  # type: ignore[misc]

    def reveal(self, group: str, numbers: Sequence[int], who: str, why: str) -> None:
        """Somebody is about to be shown the personal words of these records: on the disk when it returns. Raises OSError."""
        with self._lock:
            self._add([lambda head: reveal_record(head, self._now_ms(), group, numbers, who, why, self._keys)])

    def _add(self, made: Sequence[Made]) -> None:
        now_ms = self._now_ms()
        if self._count >= self._records_max or (self._count and now_ms - self._began_ms >= PIECE_DAYS * DAY_MS):
            self._new_piece()
        going = self._going(now_ms)
        if going:
            first, last = going[0], going[-1]
            end, chain = last.first + last.count - 1, last.chain.hex()
            made = [*made, lambda head: dropped_record(head, now_ms, first.first, end, chain, self._kept_days)]
        head, lines = self.head, list[bytes]()
        for make in made:
            line, head = make(head)
            lines.append(line + b"\n")
        self._append(b"".join(lines))
        self._began_ms = self._began_ms if self._count else now_ms
        self.head, self._count = head, self._count + len(lines)
        if going:
            self._drop(going)

    def _going(self, now_ms: int) -> list[Piece]:
        """Pieces that go: from the oldest on, too old also by the newest whole piece.

        So a clock that leaps, and is set right before a piece is full or over, drops nothing.
        """
        if not self._pieces:
            return []
        newest_ms = int(json.loads(self._pieces[-1].last)["at_ms"])
        return [*takewhile(lambda one: may_go(one.last, min(now_ms, newest_ms), self._kept_days), self._pieces)]

    def _append(self, octets: bytes) -> None:
        fresh = not self._new.exists()
        handle = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "ab", buffering=0) as out:
            end = out.tell()
            try:
                if out.write(octets) != len(octets):
                    raise OSError("the disk took a part of it alone")
                os.fsync(out.fileno())
            except OSError:
                out.truncate(end)
                raise
        if fresh:
            sync_folder(self._folder)

    def _new_piece(self) -> None:
        path = _named(self._folder, self.head.number - self._count + 1)
        os.replace(self._new, path)
        sync_folder(self._folder)
        self._pieces.append(_piece(path))
        self._count = 0

    def _drop(self, going: Sequence[Piece]) -> None:
        for one in going:
            one.path.unlink(missing_ok=True)
        self._pieces = self._pieces[len(going) :]
        first = self._pieces[0].first if self._pieces else self.head.number - self._count + 1
        self.head = AuditHead(self.head.number, self.head.chain, first)
        sync_folder(self._folder)

    def page(self, after: int, limit: int) -> tuple[AuditHead, list[bytes]]:
        """The head, and records behind a number. Blocks; any thread. Raises OSError."""
        with self._lock:
            head, lines, at = self.head, list[bytes](), max(after + 1, self.head.first)
            wanted = max(0, min(limit, head.number - at + 1))
            for one in self._pieces:
                if len(lines) < wanted and one.first <= at + len(lines) < one.first + one.count:
                    lines += self._lines_of(one)[at + len(lines) - one.first :]
            if len(lines) < wanted:
                self._read = None
                lines += _lines(self._new)[at + len(lines) - (head.number - self._count + 1) :]
        return head, lines[:wanted]

    def _lines_of(self, piece: Piece) -> list[bytes]:
        """Kept until the next one: whoever reads a piece reads it page by page."""
        if self._read is None or self._read[0] != piece.path:
            self._read = (piece.path, _lines(piece.path))
        return self._read[1]


def _named(folder: Path, first: int) -> Path:
    return folder / f"denials.{first:012}.audit"


def _piece_files(folder: Path) -> list[Path]:
    return [*folder.glob("denials.before.audit"), *sorted(folder.glob(f"denials.{'[0-9]' * 12}.audit"))]


def _piece(path: Path) -> Piece:
    """Raises ValueError, OSError."""
    lines = _lines(path)
    if not lines:
        raise ValueError(f"{path.name} holds no record")
    first, end = _head(lines[:1]), _head(lines[-1:])
    return Piece(path, first.number, len(lines), lines[-1], end.chain)


def _pieces(folder: Path) -> list[Piece]:
    """Oldest first, each following the one before. Raises ValueError, OSError."""
    before = folder / "denials.before.audit"
    if before.exists():
        os.replace(before, _named(folder, _piece(before).first))
    found = [_piece(path) for path in _piece_files(folder)]
    for one, following in pairwise(found):
        if one.first + one.count != following.first:
            raise ValueError(f"{following.path.name} does not follow {one.path.name}")
    return found


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
