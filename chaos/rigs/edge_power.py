"""A disk that loses its power: XFS on a loop device, shut down without flushing its log, mounted again with what was really
synced.

ext4 is not used: there the rig itself lost synced data in 2 of 80 cycles. SIGKILL alone proves nothing, the page cache survives
it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path
from typing import Self

from chaos.rigs.edge_command import Undo, run
from replica.model.errors import Code, ZaibeiError

IMAGE_OCTETS = 512 * 1024 * 1024  # sparse; mkfs.xfs wants at least 300 MB
FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
UMOUNT_TRIES_MAX = 40
UMOUNT_PAUSE_S = 0.25


class PowerDisk:
    """One disk at `at`; use as a context.

    Args:
        folder: gets the image file and the mount point; on a disk with room.
    """

    def __init__(self, folder: Path) -> None:
        self.image, self.at = folder / "disk.img", folder / "disk"
        self._undo = Undo()
        self.mounted = False

    def __enter__(self) -> Self:
        self.at.mkdir(parents=True)
        with self.image.open("wb") as file:
            file.truncate(IMAGE_OCTETS)
        self._undo.add(self.image.unlink)
        try:
            run(["mkfs.xfs", "-q", str(self.image)])
            self.mount()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.unmount()
        self._undo.all()

    def mount(self) -> None:
        """Power is back; XFS replays its log."""
        run(["mount", "-o", "loop", str(self.image), str(self.at)])
        self.mounted = True

    def unmount(self) -> None:
        """Waits for processes that are still dying. Raises ZaibeiError(REFUSED): somebody holds it open."""
        for tried in range(UMOUNT_TRIES_MAX):
            if not self.mounted:
                return
            try:
                run(["umount", str(self.at)])
                self.mounted = False
            except ZaibeiError:
                if tried == UMOUNT_TRIES_MAX - 1:
                    raise
                time.sleep(UMOUNT_PAUSE_S)

    def cut(self) -> int:
        """The power fails: nothing that was not synced will be there again. Every call on open files fails from now on.

        Returns:
            CLOCK_MONOTONIC ns right after it.
        """
        at = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(at, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        except OSError as exc:
            raise ZaibeiError(Code.REFUSED, f"{self.at} cannot be shut down: {exc}") from exc
        finally:
            os.close(at)
        return time.monotonic_ns()

    def restore(self) -> None:
        """After the cut, and after everybody who used it was killed: power comes back."""
        self.unmount()
        self.mount()


def probe(folder: Path) -> str:
    """ "" if synced data survives here and unsynced data does not; else why not."""
    try:
        with PowerDisk(folder) as disk:
            kept, lost = disk.at / "kept", disk.at / "lost"
            with kept.open("wb") as file, lost.open("wb") as other:
                file.write(b"synced")
                file.flush()
                os.fsync(file.fileno())
                other.write(b"never")
                other.flush()
                disk.cut()
            disk.restore()
            if not kept.exists() or kept.read_bytes() != b"synced":
                return "synced data did not survive the shutdown"
            if lost.exists() and lost.read_bytes() == b"never":
                return "unsynced data survived the shutdown"
    except (OSError, ZaibeiError) as exc:
        return str(exc)
    return ""
