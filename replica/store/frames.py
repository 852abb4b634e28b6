"""What a loader says to its helper process: frames of one octet kind, u32 length (big-endian), octets."""

from __future__ import annotations

import struct
from dataclasses import dataclass

FRAME = struct.Struct(">BI")
FRAME_OCTETS_MAX = 2 * 1024 * 1024

JOB = 1  # Job as JSON; first
PART = 2  # columns of the next part
JUDGED = 3  # JSON list of [place, reason] of records of the next part that were judged elsewhere
END = 4  # no more parts: finish


@dataclass(frozen=True, slots=True)
class Job:
    """What to build. `folder`: an empty directory of the helper's own."""

    folder: str
    source: str
    generation: int
    begun: int
    position: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the helper says once, at its end: a fault, or what it built."""

    code: str = ""
    message: str = ""
    records: int = 0
    total: str = "0"
    ordered: str = ""
    manifest: str = ""  # SHA-256 of the manifest, hex
    parts: int = 0
    cpu_ms: int = 0


def frame(kind: int, octets: bytes) -> bytes:
    """Header of a frame; the octets follow."""
    return FRAME.pack(kind, len(octets))
