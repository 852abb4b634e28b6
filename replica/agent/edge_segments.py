"""Segment files of the agent's log: every octet checked at open, one fsync for many batches, released when receipted.

After an fsync that failed nothing more is written (the kernel may have dropped the pages); a full disk undoes the write, and it
may be tried again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from replica.agent.log import (
    KIND_BATCH,
    KIND_HEAD,
    Segment,
    SegmentHead,
    Walk,
    frame,
    walk,
)
from replica.model.batch import Batch, open_batch
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position

SUFFIX = ".seg"
Fsync = Callable[[int], None]


def _translate(error: OSError, what: str) -> ZaibeiError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ZaibeiError(Code.DISK_FULL, f"no room to {what}: free some space, it goes on by itself", retry=True)
    return ZaibeiError(Code.DISK_FAILED, f"cannot {what}: {error}", definite=False)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class SegmentFiles:
    """All segments of one source, oldest first. Writing belongs to one thread at a time; reading to any."""

    def __init__(self, folder: Path, source: str, fsync: Fsync = os.fsync) -> None:
        self._folder, self._source, self._fsync = folder, source, fsync
        self.segments: tuple[Segment, ...] = ()
        self.healed = ""  # what a crash had cut off, for the log of the process
        self.failed: ZaibeiError | None = None
        self._handle = -1
        self._grants: dict[int, bytes] = {}

    @staticmethod
    def open(folder: Path, source: str, fsync: Fsync = os.fsync) -> SegmentFiles:
        """Read and check every segment.

        Raises:
            ZaibeiError(DAMAGED): octets that an fsync covered are bad, a segment is missing, or this is another source's log.
        """
        files = SegmentFiles(folder, source, fsync)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            paths = sorted(folder.glob(f"*{SUFFIX}"))
            for path in paths:
                files._load(path, last=path == paths[-1])
            if files.segments:
                files._handle = os.open(files._path(files.segments[-1].number), os.O_WRONLY | os.O_APPEND)
        except OSError as exc:
            raise _translate(exc, f"open the log in {folder}") from exc
        return files

    @property
    def end(self) -> Position | None:
        """Position after the last batch; None in an empty log."""
        return self.segments[-1].end if self.segments else None

    def grant_of(self, segment: Segment) -> bytes:
        """Serialized Grant that opened this segment's epoch, empty when it did not open one."""
        return self._grants.get(segment.number, b"")

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:016x}{SUFFIX}"

    def _load(self, path: Path, *, last: bool) -> None:
        octets = path.read_bytes()
        found = walk(octets, last=last)
        number = int(path.stem, 16)
        if found.damaged:
            raise self._damage(path, found.torn)
        if self.segments and number != self.segments[-1].number + 1:
            raise self._damage(path, f"segment {self.segments[-1].number + 1} before it is missing")
        if not found.frames:  # created, and cut off before its head was written
            self.healed = f"{path.name}: {found.torn or 'empty'}; removed"
            path.unlink()
            sync_folder(self._folder)
            return
        segment = self._index(path, number, octets, found)
        if found.torn:
            self.healed = f"{path.name}: {found.torn}; cut to {found.end} octets"
            os.truncate(path, found.end)
            handle = os.open(path, os.O_WRONLY)
            try:
                self._fsync(handle)
            finally:
                os.close(handle)
        self.segments = (*self.segments, segment)

    def _index(self, path: Path, number: int, octets: bytes, found: Walk) -> Segment:
        first, *rest = found.frames
        if first.kind != KIND_HEAD:
            raise self._damage(path, "it does not begin with its head")
        head = SegmentHead.decode(octets[first.start : first.end])
        if head.source != self._source:
            raise ZaibeiError(
                Code.WRONG_SOURCE,
                f"{path} is the log of {head.source!r}, not of {self._source!r}: give each source its own folder",
            )
        if self.segments and not head.grant and head.position != self.segments[-1].end:
            raise self._damage(
                path, f"it starts at {head.position.short()}, the one before ends at {self.segments[-1].end.short()}"
            )
        segment = Segment(number, head.position, head.position, found.end)
        for item in rest:
            batch = open_batch(octets[item.start : item.end])
            if item.kind != KIND_BATCH or batch.before != segment.end:
                raise self._damage(path, f"the batch at octet {item.offset} does not follow {segment.end.short()}")
            segment.add(batch.after, item.start, item.end)
        if head.grant:
            self._grants[number] = head.grant
        return segment

    def _damage(self, path: Path, why: str) -> ZaibeiError:
        return ZaibeiError(
            Code.DAMAGED,
            f"{path} is damaged: {why}. Restore the folder from a backup, or move {self._folder.parent} away: "
            "the agent then reads its input anew and asks for a new epoch",
        )

    def start_segment(self, position: Position, grant: bytes = b"") -> None:
        """Begin a segment at a position; durable with its name when this returns.

        Raises:
            ZaibeiError(DISK_FULL): nothing changed. DISK_FAILED: the log is failed for good.
        """
        self._check()
        number = self.segments[-1].number + 1 if self.segments else 1
        head = frame(KIND_HEAD, SegmentHead(self._source, position, grant).encode(), 0)
        path = self._path(number)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as exc:
            raise _translate(exc, f"create {path}") from exc
        try:
            _write_all(handle, head)
            self._fsync(handle)
            sync_folder(self._folder)
        except OSError as exc:
            os.close(handle)
            path.unlink(missing_ok=True)
            raise self._fail(exc, f"write {path}") from exc
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = handle
        if grant:
            self._grants[number] = grant
        self.segments = (*self.segments, Segment(number, position, position, len(head)))

    def append(self, batches: Sequence[Batch]) -> None:
        """Write batches and fsync once; they are readable when this returns, and not before.

        Raises:
            ZaibeiError(DISK_FULL): nothing was kept, again later. DISK_FAILED: the log is failed for good.
        """
        self._check()
        if self.segments[-1].full():
            self.start_segment(self.segments[-1].end)
        segment = self.segments[-1]
        synced = segment.octets
        frames = [frame(KIND_BATCH, batch.raw, synced) for batch in batches]
        try:
            _write_all(self._handle, b"".join(frames))
        except OSError as exc:
            self._undo(segment, exc)
            raise _translate(exc, "write the log") from exc
        try:
            self._fsync(self._handle)
        except OSError as exc:
            raise self._fail(exc, "fsync the log") from exc
        for batch, octets in zip(batches, frames, strict=True):
            segment.octets += len(octets)
            segment.add(batch.after, segment.octets - len(batch.raw), segment.octets)

    def _undo(self, segment: Segment, error: OSError) -> None:
        try:
            os.ftruncate(self._handle, segment.octets)
        except OSError as exc:
            raise self._fail(exc, f"undo a write that failed ({error})") from exc

    def _fail(self, error: OSError, what: str) -> ZaibeiError:
        trouble = _translate(error, what)
        if trouble.code is not Code.DISK_FULL or "fsync" in what:
            self.failed = ZaibeiError(
                Code.DISK_FAILED, f"{what} failed: {error}. Restart the agent on a sound disk", definite=False
            )
            return self.failed
        return trouble

    def _check(self) -> None:
        if self.failed is not None:
            raise self.failed

    def read(self, segment: Segment, number: int) -> bytes:
        """Raw octets of one batch. Raises ZaibeiError(NOT_FOUND) when it was released meanwhile, DISK_FAILED."""
        start, end = segment.offsets[number], segment.ends[number]
        try:
            with open(self._path(segment.number), "rb") as file:
                return os.pread(file.fileno(), end - start, start)
        except FileNotFoundError:
            raise ZaibeiError(Code.NOT_FOUND, "this part of the log was released") from None
        except OSError as exc:
            raise _translate(exc, "read the log") from exc

    def release(self, segments: Sequence[Segment]) -> None:
        """Delete the oldest segments; the names go first to last, so that a crash leaves a whole log."""
        for segment in segments:
            try:
                self._path(segment.number).unlink(missing_ok=True)
            except OSError as exc:
                raise _translate(exc, "release the log") from exc
            self.segments = self.segments[1:]
            self._grants.pop(segment.number, None)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _write_all(handle: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(handle, view) :]
