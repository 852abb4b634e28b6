"""Disk and clock faults of running processes: a preloaded library (shim.c) and the control file that steers it.

    shim = Shim(folder)                                  # one a process, so that each member's disk fails alone
    process = Popen(argv, env={**os.environ, **shim.env()})
    async with shim.sync_fails(f"{data}/*", times=1): ...        # any time, while it runs
    async with shim.clock_moved(3_600_000): ...

Everything is healed by switching the rule off; what a failure has left in the process is the process's own affair.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
import time
from enum import IntEnum, IntFlag
from pathlib import Path

from chaos.faults.fault import Fault, FaultLog
from replica.model.errors import Code, ZaibeiError, require

SOURCE = Path(__file__).with_name("shim.c")
RULES_MAX = 16
PATTERN_OCTETS_MAX = 255
MAGIC = b"ZBFLT01\0"
COMPILE_S_MAX = 60
_HEAD = struct.Struct("<8sqqqII")
_CLOCK = struct.Struct("<qqq")
_RULE = struct.Struct("<256sIiIIiiII")
_RULES_ON_AT = 32
_ACTIVE_AT = _RULE.size - 4
_HITS_AT = _RULE.size - 8


class Call(IntFlag):
    """Which calls a rule is about."""

    WRITE = 1
    SYNC = 2
    OPEN = 4  # for writing
    RENAME = 8
    TRUNCATE = 16  # and allocating
    UNLINK = 32
    MKDIR = 64


CHANGING = Call.WRITE | Call.SYNC | Call.OPEN | Call.RENAME | Call.TRUNCATE | Call.UNLINK | Call.MKDIR
GROWING = Call.WRITE | Call.OPEN | Call.TRUNCATE | Call.MKDIR


class Act(IntEnum):
    """What happens to a call that is hit: it fails (errno 0: it is only late), says yes and does nothing, is the last one, or
    waits while the whole process stands still."""

    FAIL = 0
    LIE = 1
    KILL = 2
    STOP = 3


@functools.cache
def build() -> Path | None:
    """Compile the shim once a process; None without a C compiler (the package gcc).

    Raises:
        ZaibeiError(REFUSED): it does not compile.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    target = Path(tempfile.mkdtemp(prefix="zaibei-faults-")) / "shim.so"
    argv = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", str(target), str(SOURCE), "-ldl", "-lpthread"]
    made = subprocess.run(argv, capture_output=True, text=True, timeout=COMPILE_S_MAX, check=False)
    if made.returncode != 0:
        raise ZaibeiError(Code.REFUSED, f"the fault shim does not compile: {made.stderr[-2000:]}")
    return target


class Shim:
    """The control file of one process (and its children)."""

    def __init__(self, folder: Path, log: FaultLog | None = None) -> None:
        library = build()
        if library is None:
            raise ZaibeiError(Code.NOT_FOUND, "the fault shim needs a C compiler: install the package gcc")
        folder.mkdir(parents=True, exist_ok=True)
        self.library, self.control, self._log = library, folder / "control", log
        octets = _HEAD.size + RULES_MAX * _RULE.size
        self.control.write_bytes(_HEAD.pack(MAGIC, 0, 0, 0, 0, 0) + bytes(octets - _HEAD.size))
        with self.control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), octets)
        self._free = list(range(RULES_MAX))

    def env(self) -> dict[str, str]:
        """Variables of a process whose faults this shim makes."""
        before = os.environ.get("LD_PRELOAD")
        return {"LD_PRELOAD": f"{self.library}:{before}" if before else str(self.library), "FAULTS_CONTROL": str(self.control)}

    # --------------------------------------------------------------------------------------------------------------- disk

    def rule(
        self,
        name: str,
        pattern: str,
        calls: Call,
        act: Act = Act.FAIL,
        *,
        error: int = 0,
        skip: int = 0,
        times: int = -1,
        delay_ms: int = 0,
    ) -> ShimFault:
        """A fault of calls on files.

        Args:
            pattern: shell pattern over the whole path, * matches / too.
            skip, times: leave the first ones alone, then hit so many (-1: all while it is on).
            delay_ms: each call that is hit waits so long first.
        """
        require(len(pattern.encode()) <= PATTERN_OCTETS_MAX, f"a pattern has at most {PATTERN_OCTETS_MAX} octets: {pattern}")
        row = _RULE.pack(pattern.encode(), calls, error, act, delay_ms, skip, times, 0, 1)
        return ShimFault(self, name, row, self._log)

    def sync_fails(self, pattern: str, *, times: int = -1, skip: int = 0) -> ShimFault:
        """fsync and fdatasync return EIO."""
        return self.rule(f"fsync EIO {pattern}", pattern, Call.SYNC, error=errno.EIO, times=times, skip=skip)

    def sync_slow(self, pattern: str, delay_ms: int) -> ShimFault:
        return self.rule(f"fsync {delay_ms} ms {pattern}", pattern, Call.SYNC, delay_ms=delay_ms)

    def sync_lies(self, pattern: str) -> ShimFault:
        """fsync returns 0 and does nothing; only a loss of power shows it (an old image, or the power rig)."""
        return self.rule(f"fsync lies {pattern}", pattern, Call.SYNC, Act.LIE)

    def full(self, pattern: str) -> ShimFault:
        """ENOSPC for whatever would grow."""
        return self.rule(f"ENOSPC {pattern}", pattern, GROWING, error=errno.ENOSPC)

    def read_only(self, pattern: str) -> ShimFault:
        """EROFS for whatever would change anything, as after a file system's own emergency remount."""
        return self.rule(f"EROFS {pattern}", pattern, CHANGING, error=errno.EROFS)

    def dies_at(self, pattern: str, calls: Call, skip: int) -> ShimFault:
        """SIGKILL to itself right before the call after `skip` others: a crash between two steps of persistence."""
        return self.rule(f"dies at {calls!r} {skip} {pattern}", pattern, calls, Act.KILL, skip=skip, times=1)

    def stops_at(self, pattern: str, calls: Call, skip: int) -> ShimFault:
        """SIGSTOP to itself right before the call after `skip` others; whoever sends SIGCONT lets it be carried out."""
        return self.rule(f"stops at {calls!r} {skip} {pattern}", pattern, calls, Act.STOP, skip=skip, times=1)

    def _switch_on(self, row: bytes) -> int:
        require(self._free, f"at most {RULES_MAX} rules at once")
        place = self._free.pop()
        at = _HEAD.size + place * _RULE.size
        self._memory[at : at + _ACTIVE_AT] = row[:_ACTIVE_AT]
        struct.pack_into("<I", self._memory, at + _ACTIVE_AT, 1)
        self._count()
        return place

    def _switch_off(self, place: int) -> None:
        struct.pack_into("<I", self._memory, _HEAD.size + place * _RULE.size + _ACTIVE_AT, 0)
        self._free.append(place)
        self._count()

    def _count(self) -> None:
        struct.pack_into("<I", self._memory, _RULES_ON_AT, RULES_MAX - len(self._free))

    def _hits(self, place: int) -> int:
        return int(struct.unpack_from("<I", self._memory, _HEAD.size + place * _RULE.size + _HITS_AT)[0])

    # -------------------------------------------------------------------------------------------------------------- clock

    def clock_moved(self, by_ms: int, drift_ppm: int = 0) -> Fault:
        """The wall clock jumps and then drifts; monotonic clocks do not. Healed by jumping back."""

        async def begin() -> None:
            _CLOCK.pack_into(self._memory, 8, by_ms * 1_000_000, time.monotonic_ns(), drift_ppm)

        async def heal() -> None:
            _CLOCK.pack_into(self._memory, 8, 0, 0, 0)

        return Fault(f"clock {by_ms:+} ms {drift_ppm:+} ppm", begin, heal, self._log)


class ShimFault(Fault):
    """A rule of a shim; `hits` counts the calls it met, also after the heal."""

    def __init__(self, shim: Shim, name: str, row: bytes, log: FaultLog | None) -> None:
        self._shim, self._row = shim, row
        self._place: int | None = None
        self._met = 0
        super().__init__(name, self._on, self._off, log)

    @property
    def hits(self) -> int:
        return self._met if self._place is None else self._shim._hits(self._place)

    async def _on(self) -> None:
        self._place = self._shim._switch_on(self._row)

    async def _off(self) -> None:
        if self._place is not None:
            self._met = self._shim._hits(self._place)
            self._shim._switch_off(self._place)
            self._place = None
