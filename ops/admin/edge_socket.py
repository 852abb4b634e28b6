"""Unix socket paths. The kernel takes 107 octets; a longer path goes through a descriptor of its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATH_OCTETS_MAX = 107


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A path to the same file that fits the kernel's limit, valid inside the context."""
    text = os.fsencode(path)
    if len(text) <= PATH_OCTETS_MAX:
        yield os.fsdecode(text)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
