"""The disk under the stores: room watched before harm is done, a ballast file, durable small files and renames.

RocksDB cannot even reopen on a full disk (DESIGN 5, trap e): below the watermark nothing is applied, and the ballast is given up
so that a flush and a reopening still fit.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from replica.model.errors import Code, ZaibeiError

BALLAST = "ballast"
CURRENT = "CURRENT"
CURRENT_FORMAT = 1


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """Limits of the stores' disk.

    Args:
        free_octets_min: below it nothing is applied; covers the memtables that still have to be written.
        free_octets_resume: applied again from here on.
        ballast_octets: more than one store's memtables.
    """

    free_octets_min: int = 512 * 1024 * 1024
    free_octets_resume: int = 576 * 1024 * 1024
    ballast_octets: int = 192 * 1024 * 1024


class DiskRoom:
    """Free room of the disk a folder is on, with hysteresis."""

    def __init__(self, folder: Path, limits: DiskLimits) -> None:
        self.limits = limits
        self._folder = folder
        self._low = False

    def free_octets(self) -> int:
        """Octets an unprivileged process may still write."""
        room = os.statvfs(self._folder)
        return room.f_bavail * room.f_frsize

    def require_room(self) -> None:
        """Raises ZaibeiError(DISK_FULL, retry): intake waits; reads go on; it resumes by itself."""
        free = self.free_octets()
        least = self.limits.free_octets_resume if self._low else self.limits.free_octets_min
        self._low = free < least
        if self._low:
            raise ZaibeiError(
                Code.DISK_FULL,
                f"{free // 2**20} MiB are free on the disk of {self._folder}, {least // 2**20} are needed: "
                "free room, intake resumes by itself",
                retry=True,
            )

    def require_for(self, octets: int) -> None:
        """Raises ZaibeiError(DISK_FULL): no room for that much more; nothing was started."""
        free = self.free_octets()
        if free < octets + self.limits.free_octets_min:
            raise ZaibeiError(
                Code.DISK_FULL,
                f"loading a copy beside needs about {octets // 2**20} MiB, {free // 2**20} are free: the live copy is untouched",
                retry=True,
            )

    def release_ballast(self) -> bool:
        """Give the ballast up, so that a full disk can be worked on; False when there was none."""
        try:
            (self._folder / BALLAST).unlink()
        except FileNotFoundError:
            return False
        return True

    def restore_ballast(self) -> bool:
        """Make the ballast where there is ample room; False when there is not. It need not be durable."""
        made = self._folder / BALLAST
        if made.exists() or self.limits.ballast_octets == 0:
            return True
        if self.free_octets() < self.limits.free_octets_resume + self.limits.ballast_octets:
            return False
        fresh = made.with_suffix(".new")
        try:
            with fresh.open("wb") as out:
                os.posix_fallocate(out.fileno(), 0, self.limits.ballast_octets)
            fresh.replace(made)
        except OSError:
            fresh.unlink(missing_ok=True)
            return False
        return True


def disk_error(exc: OSError, what: str) -> ZaibeiError:
    """An operating-system error in our words."""
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
    code = Code.DISK_FULL if full else Code.DISK_FAILED
    return ZaibeiError(code, f"{what}: {exc}", definite=full, retry=full)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durable(path: Path, octets: bytes) -> None:
    """Replace a small file so that after a crash it is the old or the new one. Raises ZaibeiError(DISK_FULL, DISK_FAILED)."""
    fresh = path.with_name(path.name + ".new")
    try:
        with fresh.open("wb") as out:
            out.write(octets)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError as exc:
        raise disk_error(exc, f"writing {path}") from exc


def move_durable(old: Path, new: Path) -> None:
    """Rename a directory durably. Raises ZaibeiError(DISK_FULL, DISK_FAILED)."""
    try:
        old.rename(new)
        sync_folder(new.parent)
    except OSError as exc:
        raise disk_error(exc, f"renaming {old} to {new.name}") from exc


def remove_tree(folder: Path) -> None:
    """Delete a directory that nobody needs; what cannot be deleted now is deleted at the next open."""
    shutil.rmtree(folder, ignore_errors=True)


def write_current(folder: Path, source: str, generation: int, copy: int = 0) -> None:
    """Name the live generation, durably; `copy`: of those installed from other members. Raises ZaibeiError."""
    named = f"{generation} copy {copy}" if copy else f"{generation}"
    text = f"zaibei-current {CURRENT_FORMAT}\nsource {source}\ngeneration {named}\n"
    write_durable(folder / CURRENT, f"{text}check {sha256(text.encode()).hexdigest()[:16]}\n".encode())


def read_current(folder: Path, source: str) -> tuple[int, int] | None:
    """Number of the live generation, and of its copy; None when there is no such file.

    Raises:
        ZaibeiError(DAMAGED): it is not what we wrote, or it names another source.
    """
    try:
        text = (folder / CURRENT).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise disk_error(exc, f"reading {folder / CURRENT}") from exc
    body, _, check = text.rpartition("check ")
    lines = body.splitlines()
    if (
        check.strip() != sha256(body.encode()).hexdigest()[:16]
        or len(lines) != 3
        or lines[0] != f"zaibei-current {CURRENT_FORMAT}"
    ):
        raise ZaibeiError(Code.DAMAGED, f"{folder / CURRENT} is damaged: re-seed this source, or put the file back from a backup")
    if lines[1] != f"source {source}":
        raise ZaibeiError(
            Code.DAMAGED, f"{folder} holds the {lines[1]}, not {source!r}: directories were swapped, put each back in its place"
        )
    words = lines[2].split()
    return int(words[1]), int(words[3]) if len(words) > 3 else 0
