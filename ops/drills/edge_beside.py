"""Drills side by side, each in a process of its own: those in which no time is measured, so that what they take from each other
changes no verdict."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

LOOK_S = 0.1
END_S_MAX = 60.0  # of a drill that is told to end: it heals first
WORDS = (sys.executable, "-m", "ops.cli.main", "drill", "run", "--yes", "--json")


@dataclass(slots=True)
class _Running:
    name: str
    process: subprocess.Popen[bytes]
    said: Path
    errors: Path

    def told(self) -> dict[str, Any]:
        """What it said of its drill; of one that said nothing, why."""
        try:
            found: dict[str, Any] = msgspec.json.decode(self.said.read_bytes())["drills"][0]
            return found
        except (msgspec.DecodeError, KeyError, IndexError, TypeError):
            tail = self.errors.read_text("utf-8", "replace")[-800:]
            why = f"its process ended with {self.process.returncode} and said nothing of it: {tail}"
            return {"scenario": self.name, "verdict": "inconclusive", "figures": {}, "why": [why], "bundle": ""}


def played(names: Sequence[str], words: Sequence[str], at_once: int) -> Generator[dict[str, Any]]:
    """Play drills, so many at once; each as it ends.

    Args:
        words: further ones of `zaibei drill run`, the same for all: the folder of evidence, --red, --seed.
    Yields:
        What `zaibei drill run NAME --json` says of the drill. Closing this ends what still runs, healed.
    """
    waiting, running = deque(names), list[_Running]()
    with tempfile.TemporaryDirectory(prefix="zaibei-drills-") as folder:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    running.append(_begin(waiting.popleft(), words, Path(folder)))
                ended = [one for one in running if one.process.poll() is not None]
                running = [one for one in running if one not in ended]
                for one in ended:
                    yield one.told()
                if not ended:
                    time.sleep(LOOK_S)
        finally:
            for one in running:
                one.process.terminate()
            for one in running:
                try:
                    one.process.wait(END_S_MAX)
                except subprocess.TimeoutExpired:
                    one.process.kill()
                    one.process.wait()


def _begin(name: str, words: Sequence[str], folder: Path) -> _Running:
    said, errors = folder / f"{name}.json", folder / f"{name}.err"
    with said.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen([*WORDS, name, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    return _Running(name, process, said, errors)
