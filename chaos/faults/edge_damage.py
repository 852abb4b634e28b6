"""Damage of stored files: flipped bits, cut ends, missing files; the heal puts the old octets back, if they are still wanted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from random import Random

from chaos.faults.fault import Fault, FaultLog
from replica.model.errors import Code, ZaibeiError

FLIPPED_OCTETS = 8


def pick(folder: Path, pattern: str, chance: Random) -> Path:
    """A file to damage, not an empty one; the same of equal trees for equal seeds.

    Raises:
        ZaibeiError(NOT_FOUND): none matches.
    """
    found = sorted(path for path in folder.rglob(pattern) if path.is_file() and path.stat().st_size)
    if not found:
        raise ZaibeiError(Code.NOT_FOUND, f"no file {pattern} with content below {folder}")
    return chance.choice(found)


def largest(folder: Path, pattern: str) -> Path:
    """The largest matching file: mostly content, where a small one is mostly what describes it. Raises ZaibeiError(NOT_FOUND)."""
    found = sorted(path for path in folder.rglob(pattern) if path.is_file())
    if not found:
        raise ZaibeiError(Code.NOT_FOUND, f"no file {pattern} below {folder}")
    return max(found, key=lambda path: path.stat().st_size)


def flip(path: Path, share: float, octets: int = FLIPPED_OCTETS) -> int:
    """Turn all bits of some octets at a share (0..1) of the file; returns the offset."""
    size = path.stat().st_size
    at = max(0, min(int(size * share), size - octets))
    with path.open("r+b") as file:
        file.seek(at)
        held = file.read(octets)
        file.seek(at)
        file.write(bytes(octet ^ 0xFF for octet in held))
        file.flush()
        os.fsync(file.fileno())
    return at


def truncate(path: Path, share: float) -> int:
    """Keep only this share of a file; returns its new length."""
    length = int(path.stat().st_size * share)
    os.truncate(path, length)
    return length


def damaged(paths: Iterable[Path], how: str, share: float, *, put_back: bool, log: FaultLog | None = None) -> Fault:
    """Damage files of a process that does not run.

    Args:
        how: "flip", "truncate" or "remove".
        share: where, 0..1.
        put_back: heal by writing the old octets again; False when the system must heal itself.
    """
    chosen = list(paths)
    kept: dict[Path, bytes] = {}

    async def begin() -> None:
        for path in chosen:
            kept[path] = path.read_bytes()
            if how == "flip":
                flip(path, share)
            elif how == "truncate":
                truncate(path, share)
            else:
                path.unlink()

    async def heal() -> None:
        for path, octets in kept.items() if put_back else ():
            path.write_bytes(octets)

    return Fault(f"{how} {', '.join(path.name for path in chosen)}", begin, heal, log)
