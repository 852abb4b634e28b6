"""A small disk that can be filled to the last octet, and made read-only, by the kernel itself."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Self

from chaos.rigs.edge_command import Undo, run
from replica.model.errors import ZaibeiError

FILLER = "filler"
CHUNK_OCTETS = 1 << 16


class SmallDisk:
    """A tmpfs of a few MB at `at`; use as a context."""

    def __init__(self, at: Path, megabytes: int) -> None:
        self.at, self._megabytes = at, megabytes
        self._undo = Undo()

    def __enter__(self) -> Self:
        self.at.mkdir(parents=True, exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m", "zaibei-faults", str(self.at)])
        self._undo.add(lambda: run(["umount", str(self.at)]))
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.all()

    def fill(self, leave_octets: int = 0) -> int:
        """Write until nothing more fits, then give back `leave_octets`; returns the filler's length."""
        path = self.at / FILLER
        written = 0
        with path.open("wb") as file:
            size = CHUNK_OCTETS
            while size:
                try:
                    written += os.write(file.fileno(), bytes(size))
                except OSError as exc:
                    if exc.errno != errno.ENOSPC:
                        raise
                    size //= 16
            file.truncate(max(0, written - leave_octets))
        return max(0, written - leave_octets)

    def free(self) -> None:
        (self.at / FILLER).unlink(missing_ok=True)

    def read_only(self, on: bool) -> None:
        """Raises ZaibeiError(REFUSED): files are open for writing; the kernel refuses an orderly remount then."""
        run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.at)])


def probe(folder: Path) -> str:
    """ "" if a disk can be filled here; else why not."""
    try:
        with SmallDisk(folder, 1) as disk:
            disk.fill()
            try:
                (disk.at / "more").write_bytes(bytes(8_192))
            except OSError as exc:
                return "" if exc.errno == errno.ENOSPC else str(exc)
            return "a full tmpfs takes more"
    except (OSError, ZaibeiError) as exc:
        return str(exc)
