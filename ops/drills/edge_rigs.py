"""Scenarios of the rigs (tests/faults): what a checkout of the code says it can play, for whoever lists and judges drills.

They are no part of what is installed, so a program of the checkout is asked; where there is no checkout, nobody can play them.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from replica.model.errors import Code, ZaibeiError

PROGRAM = "tests.faults.run"
ASKED_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Rig:
    """One of them. command: what plays it, and leaves its bundle; planted: the bug of its red runs, "": none is planted."""

    name: str
    number: int
    story: str
    command: str
    planted: str
    minutes_max: int


_DECODER = msgspec.json.Decoder(tuple[Rig, ...])


def rigs_of(root: Path) -> tuple[Rig, ...] | None:
    """Of a checkout; None: there is none at `root`.

    Raises:
        ZaibeiError(UNKNOWN): it is there and does not say; what is not known is no reason to leave them out.
    """
    if not (root / PROGRAM.replace(".", "/")).with_suffix(".py").exists():
        return None
    words = [sys.executable, "-m", PROGRAM, "--list"]
    try:
        said = subprocess.run(words, cwd=root, capture_output=True, timeout=ASKED_S_MAX, check=True).stdout
        return _DECODER.decode(said)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as exc:
        tail = (getattr(exc, "stderr", None) or b"").decode("utf-8", "replace")[-300:]
        raise ZaibeiError(Code.UNKNOWN, f"the scenarios of {root / 'tests/faults'} are not known: {exc} {tail}".strip()) from exc
