"""The page an owner shares with its fronts: that it lives, and which opening of its stores this is.

    octets 0-7 "zbpage01" | 8-15 CLOCK_BOOTTIME of the last beat, nanoseconds | 16-31 open_id, random for each start of an owner

The file is replaced whole when an owner starts; the beat is one aligned store of 8 octets.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

MAGIC: Final = b"zbpage01"
PAGE_OCTETS: Final = 4_096
_BEAT = 1  # place of the beat in units of 8 octets
_OPEN_ID = slice(16, 32)


class OwnerPage:
    """The owner's side. `open_id` names this opening."""

    def __init__(self, path: Path, now_ns: int) -> None:
        self.path = path
        self.open_id = os.urandom(16)
        fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.ftruncate(descriptor, PAGE_OCTETS)
            self._map = mmap.mmap(descriptor, PAGE_OCTETS)
        finally:
            os.close(descriptor)
        self._map[_OPEN_ID] = self.open_id
        self._words = memoryview(self._map).cast("Q")
        self.beat(now_ns)
        self._map[:8] = MAGIC
        fresh.replace(path)

    def beat(self, now_ns: int) -> None:
        self._words[_BEAT] = now_ns

    def close(self) -> None:
        """Stop vouching at once: the beat goes to 0."""
        self.beat(0)
        self._words.release()
        self._map.close()


class FrontPage:
    """A front's side.

    Raises:
        OSError: there is no page yet, or it is no page of ours.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if os.fstat(descriptor).st_size != PAGE_OCTETS:
                raise OSError(f"{path} is not an owner's page")
            self._map = mmap.mmap(descriptor, PAGE_OCTETS, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        if self._map[:8] != MAGIC:
            self._map.close()
            raise OSError(f"{path} is not an owner's page")
        self.open_id = self._map[_OPEN_ID]
        self._words = memoryview(self._map).cast("Q")

    def beat_ns(self) -> int:
        return self._words[_BEAT]

    def close(self) -> None:
        self._words.release()
        self._map.close()
