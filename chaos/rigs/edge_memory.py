"""A memory limit whose members the kernel kills when they pass it: cgroup v1 or v2, one group of our own."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from chaos.rigs.edge_command import Undo, unique
from replica.model.errors import Code, ZaibeiError

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")
LEAVE_TRIES_MAX = 50
LEAVE_PAUSE_S = 0.1
SQUEEZE_OCTETS_MIN = 4_096  # a page


class MemoryLimit:
    """A group of processes with a limit; use as a context. Leaving it kills whoever is still inside."""

    def __init__(self) -> None:
        self._v1 = (V1 / "memory.limit_in_bytes").exists()
        self.at = (V1 if self._v1 else V2) / unique()
        self._undo = Undo()

    def __enter__(self) -> Self:
        if not self._v1 and "memory" not in _text(V2 / "cgroup.subtree_control"):
            raise ZaibeiError(Code.REFUSED, "this machine has no memory controller that may be used")
        try:
            self.at.mkdir()
        except OSError as exc:
            raise ZaibeiError(Code.REFUSED, f"no group of our own can be made: {exc}") from exc
        self._undo.add(self._leave)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.all()

    def add(self, pid: int) -> None:
        """The process, its threads, and whom it starts from now on."""
        (self.at / "cgroup.procs").write_text(str(pid))

    def limit(self, octets: int | None) -> None:
        """None: no limit. Below what they use now, the kernel takes pages back and kills at the next page that is needed."""
        name = "memory.limit_in_bytes" if self._v1 else "memory.max"
        (self.at / name).write_text(str(octets) if octets else ("-1" if self._v1 else "max"))

    def squeeze(self) -> int:
        """The lowest limit the kernel grants: the next page that is needed and cannot be found kills. Returns it in octets."""
        granted = self.used()
        if not self._v1:  # a limit below what is used kills at once
            self.limit(max(1, granted // 2))
            return granted // 2
        step = granted // 4
        while step >= SQUEEZE_OCTETS_MIN:
            try:
                self.limit(granted - step)
                granted -= step
            except OSError:
                step //= 2
        return granted

    def used(self) -> int:
        """Octets used now."""
        return int(_text(self.at / ("memory.usage_in_bytes" if self._v1 else "memory.current")))

    def kills(self) -> int:
        """How many the kernel killed."""
        text = _text(self.at / ("memory.oom_control" if self._v1 else "memory.events"))
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)

    def pids(self) -> list[int]:
        return [int(word) for word in _text(self.at / "cgroup.procs").split()]

    def _leave(self) -> None:
        for _ in range(LEAVE_TRIES_MAX):
            for pid in self.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(OSError):
                self.at.rmdir()
                return
            time.sleep(LEAVE_PAUSE_S)
        raise ZaibeiError(Code.REFUSED, f"{self.at} is still in use")


def probe() -> str:
    """ "" if a group can be made and limited; else why not."""
    try:
        with MemoryLimit() as group:
            group.limit(1 << 30)
            group.used()
    except (OSError, ValueError, ZaibeiError) as exc:
        return str(exc)
    return ""


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
