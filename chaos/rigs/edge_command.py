"""Runs the system's own commands for the rigs, and undoes in reverse order what was done, whatever fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence

from replica.model.errors import Code, ZaibeiError

COMMAND_S_MAX = 30.0
NAME_OCTETS = 3  # so that names of links stay below the kernel's 15 characters


def run(argv: Sequence[str], *, typed: str | None = None) -> str:
    """Run a command to its end; returns what it printed.

    Raises:
        ZaibeiError(REFUSED): it failed or hung; its own words are in the message. NOT_FOUND: there is no such command.
    """
    if shutil.which(argv[0]) is None:
        raise ZaibeiError(Code.NOT_FOUND, f"no command {argv[0]} on this machine")
    try:
        done = subprocess.run(argv, input=typed, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)
    except subprocess.TimeoutExpired as exc:
        raise ZaibeiError(Code.REFUSED, f"{' '.join(argv)} hung for {COMMAND_S_MAX} s") from exc
    if done.returncode != 0:
        raise ZaibeiError(Code.REFUSED, f"{' '.join(argv)}: {done.stderr.strip()[:500] or f'exit {done.returncode}'}")
    return done.stdout


def unique() -> str:
    """A name of this run alone: zbf and six hex digits."""
    return f"zbf{os.urandom(NAME_OCTETS).hex()}"


class Undo:
    """What is to be taken down, newest first. Everything is tried; what failed is told at the end."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def add(self, step: Callable[[], object]) -> None:
        self._steps.append(step)

    def all(self) -> None:
        """Raises ZaibeiError(REFUSED): something is left behind; the message says what."""
        failed = []
        while self._steps:
            try:
                self._steps.pop()()
            except (OSError, ZaibeiError) as exc:
                failed.append(str(exc))
        if failed:
            raise ZaibeiError(Code.REFUSED, f"left behind: {'; '.join(failed)}")
