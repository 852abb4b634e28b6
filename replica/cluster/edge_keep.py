"""Small files of the cluster's folder: replaced whole, fsynced with their folder, mode 0600."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from replica.model.errors import Code, ZaibeiError

FOLDER = "cluster"  # below the data folder
CONTROL_FILE = "control.json"


class FileKeep:
    """One value in one file. Satisfies replica.cluster.machine.Keep.

    Args:
        octets_max: a longer file is no file of ours.
    """

    def __init__(self, path: Path, octets_max: int = 64 * 1024 * 1024) -> None:
        self.path = path
        self._octets_max = octets_max

    @property
    def place(self) -> str:
        return str(self.path)

    def read(self) -> bytes | None:
        try:
            with self.path.open("rb") as file:
                octets = file.read(self._octets_max + 1)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise _disk_error(exc, f"reading {self.path}") from exc
        if len(octets) > self._octets_max:
            raise ZaibeiError(Code.DAMAGED, f"{self.path} is over {self._octets_max} octets: not a file of ours")
        return octets

    def write(self, octets: bytes) -> None:
        new = self.path.with_name(self.path.name + ".new")
        try:
            is_new = not self.path.parent.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(octets)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
            _sync_folder(self.path.parent)
            if is_new:
                _sync_folder(self.path.parent.parent)
        except OSError as exc:
            raise _disk_error(exc, f"writing {self.path}") from exc


def control_keep(data: Path) -> FileKeep:
    """Where the control group's state lies in a data folder."""
    return FileKeep(data / FOLDER / CONTROL_FILE)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk_error(exc: OSError, doing: str) -> ZaibeiError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return ZaibeiError(Code.DISK_FULL, f"no room left while {doing}. Next: make room; nothing stored is lost", retry=True)
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ZaibeiError(Code.NOT_AUTHORISED, f"{doing}: {exc.strerror}. Next: check owner and mode of the data folder")
    return ZaibeiError(Code.DISK_FAILED, f"{doing}: {exc.strerror}. Next: look at the disk (`dmesg`)")
