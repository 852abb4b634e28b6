"""Files of a transfer on the receiver's disk: what lies there, parts that grow, names given only to what is verified."""

from __future__ import annotations

import errno
import io
import os
from hashlib import file_digest, sha256
from pathlib import Path

from replica.model.errors import Code, ZaibeiError
from replica.model.transfer import KEPT_MANIFEST, PART_SUFFIX, FileLine, Manifest
from replica.transfer.plan import Local, Sorting, part_name, sort_local

READ_OCTETS = 1024 * 1024


def disk_error(exc: OSError, what: str) -> ZaibeiError:
    """An operating-system error in our words."""
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
    return ZaibeiError(Code.DISK_FULL if full else Code.DISK_FAILED, f"{what}: {exc}", definite=full, retry=full)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def look(folder: Path, manifest: Manifest) -> Sorting:
    """What of an earlier transfer is of use; nothing is changed. Reads every file of a length that is wanted: blocks long."""
    lengths = {line.octets for line in manifest.files}
    found: list[Local] = []
    try:
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                octets = path.stat().st_size
                sha = ""
                if path.is_file() and not path.name.endswith(PART_SUFFIX) and octets in lengths:
                    with path.open("rb") as content:
                        sha = file_digest(content, "sha256").hexdigest()
                found.append(Local(path.name, octets, sha))
    except OSError as exc:
        raise disk_error(exc, f"looking at {folder}") from exc
    return sort_local(manifest, found)


def prepare(folder: Path, manifest: Manifest, sorting: Sorting) -> None:
    """Put a folder in order for a transfer; a crash in between costs at most what was dropped anyway. Raises ZaibeiError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in sorting.drop:
            path = folder / name
            if path.is_dir():
                raise ZaibeiError(Code.DAMAGED, f"{path} is a folder where only files of a transfer belong: move it away")
            path.unlink()
        for old, new in sorting.rename:
            (folder / old).replace(folder / new)
        fresh = folder / (KEPT_MANIFEST + PART_SUFFIX)
        with fresh.open("wb") as out:
            out.write(manifest.encode())
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(folder / KEPT_MANIFEST)
        sync_folder(folder)
        sync_folder(folder.parent)
    except OSError as exc:
        raise disk_error(exc, f"preparing {folder}") from exc


class Part:
    """A file that is not complete. Calls one after the other on the thread that writes, but `settle`, which comes last."""

    def __init__(self, folder: Path, line: FileLine, offset: int) -> None:
        self._folder, self._line, self._offset = folder, line, offset
        self._path = folder / part_name(line)
        self._hash = sha256()
        self._file: io.FileIO | None = None
        self.octets = 0

    @property
    def started(self) -> bool:
        return self._file is not None

    def start(self) -> None:
        """Open it and go on at its offset; what is before that is read for its hash. Raises ZaibeiError."""
        try:
            self._file = io.FileIO(self._path, "r+" if self._offset else "w+")
            while self.octets < self._offset:
                octets = self._file.read(min(READ_OCTETS, self._offset - self.octets))
                if not octets:
                    raise ZaibeiError(Code.DAMAGED, f"{self._path} is shorter than it was: fetch again", retry=True)
                self._took(octets)
            self._file.truncate()
        except OSError as exc:
            raise disk_error(exc, f"opening {self._path}") from exc

    def write(self, octets: bytes) -> None:
        """Add octets. Raises ZaibeiError."""
        try:
            rest = memoryview(octets)
            while rest:
                rest = rest[self._open.write(rest) :]
        except OSError as exc:
            raise disk_error(exc, f"writing {self._path}") from exc
        self._took(octets)

    def _took(self, octets: bytes) -> None:
        self._hash.update(octets)
        self.octets += len(octets)

    @property
    def _open(self) -> io.FileIO:
        if self._file is None:
            raise ZaibeiError(Code.STOPPING, f"{self._path} is not open")
        return self._file

    def digest(self) -> str:
        """SHA-256 of all its octets, in hex."""
        return self._hash.hexdigest()

    def settle(self) -> None:
        """Verified: make it durable and give it its name. Raises ZaibeiError."""
        try:
            os.fsync(self._open.fileno())
            self._open.close()
            self._path.replace(self._folder / self._line.name)
        except OSError as exc:
            raise disk_error(exc, f"writing {self._folder / self._line.name}") from exc

    def drop(self) -> None:
        """Wrong content: it is fetched anew. Raises ZaibeiError."""
        try:
            self._open.close()
            self._path.unlink()
        except OSError as exc:
            raise disk_error(exc, f"deleting {self._path}") from exc

    def close(self) -> None:
        """Leave it as it is; it is gone on with later."""
        if self._file is not None:
            self._file.close()
