"""Room on the disk: a watermark below which intake stops, and a ballast file that is given up so that a full disk can be opened.

RocksDB cannot even reopen on a full disk (DESIGN 5, trap e): replaying its log writes a file of up to the write buffer's size.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """Limits of one disk.

    Args:
        free_octets_min: below it nothing is admitted. It covers all that may still be queued, and a write buffer.
        free_octets_resume: admitted again from here on.
        ballast_octets: more than one write buffer.
    """

    free_octets_min: int = 256 * 1024 * 1024
    free_octets_resume: int = 320 * 1024 * 1024
    ballast_octets: int = 96 * 1024 * 1024


class Disk:
    """The disk a folder is on."""

    def __init__(self, folder: Path, limits: DiskLimits) -> None:
        self.limits = limits
        self._folder, self._ballast = folder, folder / "ballast"

    def free_octets(self) -> int:
        """Octets an unprivileged process may still write."""
        room = os.statvfs(self._folder)
        return room.f_bavail * room.f_frsize

    @property
    def low(self) -> bool:
        return self.free_octets() < self.limits.free_octets_min

    @property
    def roomy(self) -> bool:
        return self.free_octets() >= self.limits.free_octets_resume

    def release_ballast(self) -> bool:
        """Give the ballast up; False when there was none."""
        try:
            self._ballast.unlink()
        except FileNotFoundError:
            return False
        return True

    def restore_ballast(self) -> bool:
        """Make the ballast where there is ample room; False when there is not. It need not be durable."""
        wanted = self.limits.ballast_octets
        if wanted == 0 or (self._ballast.exists() and self._ballast.stat().st_size >= wanted):
            return True
        if self.free_octets() < self.limits.free_octets_resume + wanted:
            return False
        made = self._ballast.with_name("ballast.new")
        try:
            with made.open("wb") as out:
                os.posix_fallocate(out.fileno(), 0, wanted)
            made.replace(self._ballast)
        except OSError:
            made.unlink(missing_ok=True)
            return False
        return True
