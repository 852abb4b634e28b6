"""Processes of a benchmark: started, asked line by line, their CPU and memory read from /proc, ended."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

READY_S_MAX = 120.0
END_S_MAX = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
ROOT = Path(__file__).resolve().parents[2]


class Child:
    """One process of ours that speaks JSON lines on standard output. Use as a context manager; it is gone afterwards."""

    def __init__(self, arguments: Sequence[str], errors: Path) -> None:
        self._errors, self._what = errors, " ".join(arguments)
        with errors.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._held = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def tell(self, order: str) -> None:
        """Write one line."""
        _pipe(self._process.stdin).write(order.encode() + b"\n")

    def say(self, limit_s: float = READY_S_MAX) -> Any:
        """The next JSON line.

        Raises:
            RuntimeError: it ended, or said nothing in time; carries its last words.
        """
        out = _pipe(self._process.stdout)
        until = time.monotonic() + limit_s
        while b"\n" not in self._held:
            ready, _, _ = select.select([out], [], [], max(0.0, until - time.monotonic()))
            octets = os.read(out.fileno(), 65_536) if ready else b""
            if not octets:
                tail = self._errors.read_text(errors="replace")[-2_000:]
                raise RuntimeError(f"{self._what} said nothing more:\n{tail}")
            self._held += octets
        line, _, self._held = self._held.partition(b"\n")
        return json.loads(line)

    def last_words(self) -> str:
        """How a process ended, and what it said and nobody read."""
        said = self._held + (_pipe(self._process.stdout).read() or b"")
        return f"exit {self._process.poll()}: {said.decode(errors='replace')[-500:]}"

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """End in order; by force when it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(END_S_MAX)
            except subprocess.TimeoutExpired:
                self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def die_with_parent() -> None:
    """In a child: end when the benchmark is killed, so that nothing of it loads the machine afterwards. Linux alone knows how."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _pipe(pipe: object) -> BinaryIO:
    if pipe is None:
        raise RuntimeError("this process has no such pipe")
    return pipe  # type: ignore[return-value]


def family(pid: int) -> list[int]:
    """A process and its children, living ones."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += family(int(child))
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """User and system seconds of processes with all their threads, so far (clock ticks of 10 ms)."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def rss_mb(pids: Iterable[int]) -> float:
    """Resident memory of processes together, in MB."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def drop_pages(folder: Path) -> int:
    """Write back and drop the page cache of every file in a folder; returns their octets. Needs no rights."""
    octets = 0
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                octets += os.fstat(file.fileno()).st_size
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return octets
