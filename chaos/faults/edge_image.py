"""An old disk image: a copy of a member's folder, put back later as if yesterday's disk had been restored."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from replica.model.errors import require

SKIPPED = ("*.sock", "*.pid", "LOCK")


def take(folder: Path, into: Path, pid: int | None = None) -> Path:
    """Copy a folder as it is at one moment.

    Args:
        into: must not exist.
        pid: of the process that uses it; frozen while it is copied, so that all files are of one moment. None: nobody uses it.
    """
    require(not into.exists(), f"{into} exists: an image is taken once")
    if pid is not None:
        os.kill(pid, signal.SIGSTOP)
    try:
        shutil.copytree(folder, into, ignore=shutil.ignore_patterns(*SKIPPED), symlinks=True)
    finally:
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    return into


def put_back(image: Path, folder: Path) -> None:
    """Replace a folder that nobody uses by its image; the image stays. The folder itself stays too: it may be a mount point."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    shutil.copytree(image, folder, symlinks=True, dirs_exist_ok=True)


def wipe(folder: Path) -> None:
    """A new, empty disk."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
