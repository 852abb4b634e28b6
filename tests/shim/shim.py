"""The durability recorder: start a process under it, kill it, cut its files to what was synced, judge the order of what it did.

How a test uses it:
    recording = Recording(root, side)             # root: the watched data folder; side: anywhere else
    process = recording.start([sys.executable, ...])
    recording.inject("*/journal/db/*.log", Op.SYNC, errno.EIO)      # any time; `.clear()` ends it
    ... process.kill(); process.wait()
    recording.cut_to_synced()                     # as after a power cut
    recording.unsynced_acks({number: when_ns})    # acknowledgements that were seen before the covering fsync returned

Tokens: an octet string `ZBTK` + 8 digits (`token(7)`) inside the data is recognised in writes and sends, so an acknowledgement
of it can be matched with the write that carried it and the fsync that covered that write. Put it at both ends of the data.
Times are CLOCK_MONOTONIC nanoseconds (`time.monotonic_ns()`), comparable between processes of one machine.
"""

from __future__ import annotations

import fnmatch
import functools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("recorder.c")
RULES_MAX = 16
_HEADER = struct.Struct("<8sIIIIQ")
_SLOT = struct.Struct("<400sQQQQII")
_EVENT = struct.Struct("<QQiiiiQQ")
_RULE = struct.Struct("<256sIiiiIIII")


class Op(IntFlag):
    """What an injected fault hits."""

    WRITE = 1
    SYNC = 2
    OPEN = 4
    RENAME = 8
    TRUNCATE = 16
    UNLINK = 32


class Kind(IntEnum):
    OPEN = 1
    WRITE = 2
    SYNC = 3
    RANGE = 4
    RENAME = 5
    TRUNCATE = 6
    UNLINK = 7
    SEND = 8
    TOKEN = 9


@dataclass(frozen=True, slots=True)
class Event:
    """One call. WRITE: a = end offset, b = octets. SYNC: a = file length when it began. SEND: a = octets, b = peer port.
    TOKEN: a = number, b = end offset of its write."""

    pid: int
    begin_ns: int
    end_ns: int
    kind: Kind
    path: str  # "" for sockets
    slot: int
    fd: int
    error: int
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class File:
    """A watched file. `baseline`: length when first seen, taken as durable unless it was new; `synced`: at its last fsync."""

    pid: int
    path: str
    dev: int
    ino: int
    baseline: int
    synced: int
    gone: bool
    syncs: int


@dataclass(frozen=True, slots=True)
class Cut:
    path: Path
    before: int
    after: int


def token(number: int) -> bytes:
    return b"ZBTK%08d" % number


@functools.cache
def build() -> Path | None:
    """Compile the recorder; None without gcc (then tests skip: needs the package gcc)."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    target = Path(tempfile.mkdtemp(prefix="zaibei-recorder-")) / "recorder.so"
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", str(target), str(SOURCE), "-ldl", "-lpthread"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise RuntimeError(f"the recorder does not compile: {made.stderr[-2000:]}")
    return target


class Rule:
    """An injected fault; active until cleared."""

    def __init__(self, memory: mmap.mmap, place: int) -> None:
        self._memory, self._place = memory, place

    @property
    def hits(self) -> int:
        return int(_RULE.unpack_from(self._memory, self._place * _RULE.size)[7])

    def clear(self) -> None:
        struct.pack_into("<I", self._memory, self._place * _RULE.size + _RULE.size - 4, 0)


class Recording:
    """One watched folder and what all processes under the recorder did to it."""

    def __init__(self, root: Path, side: Path) -> None:
        library = build()
        if library is None:
            raise RuntimeError("the recorder needs a C compiler: install the package gcc")
        self.library, self.root, self.side = library, root.resolve(), side
        side.mkdir(parents=True, exist_ok=True)
        root.mkdir(parents=True, exist_ok=True)
        with (side / "control").open("wb+") as control:
            control.truncate(RULES_MAX * _RULE.size)
            self._control = mmap.mmap(control.fileno(), RULES_MAX * _RULE.size)
        self._rules = 0

    def env(self) -> dict[str, str]:
        """Variables for a process to be recorded; its children are recorded too."""
        before = os.environ.get("LD_PRELOAD")
        preload = f"{self.library}:{before}" if before else str(self.library)
        return {"LD_PRELOAD": preload, "RECORDER_ROOT": str(self.root), "RECORDER_SIDE": str(self.side)}

    def start(self, argv: Sequence[str], env: Mapping[str, str] | None = None, **how: Any) -> subprocess.Popen[bytes]:
        """Start a process under the recorder; kill it by its own handle."""
        return subprocess.Popen(list(argv), env={**os.environ, **(env or {}), **self.env()}, **how)

    def inject(
        self, pattern: str, op: Op, error: int = 0, *, skip: int = 0, times: int = -1, delay_ms: int = 0, partial: int = 0
    ) -> Rule:
        """Make calls fail or slow, in running processes too.

        Args:
            pattern: shell pattern of the whole path; * matches / too.
            error: errno; 0 with delay_ms only slows.
            skip, times: leave the first ones alone; then hit so many (-1: all).
            partial: percent of the first hit write that still goes through, as a disk does that fills up.
        """
        if self._rules == RULES_MAX:
            raise RuntimeError(f"at most {RULES_MAX} rules")
        place, self._rules = self._rules, self._rules + 1
        _RULE.pack_into(self._control, place * _RULE.size, pattern.encode(), op, error, skip, times, delay_ms, partial, 0, 1)
        return Rule(self._control, place)

    # ------------------------------------------------------------------------------------------------------- what happened
    def files(self) -> list[File]:
        return [file for _, files, _ in self._records() for file in files]

    def events(self) -> list[Event]:
        """All calls of all processes, by the time they ended."""
        return sorted((event for _, _, events in self._records() for event in events), key=lambda event: event.end_ns)

    def _records(self) -> list[tuple[int, list[File], list[Event]]]:
        return [self._read(path) for path in sorted(self.side.glob("*.rec"))]

    def _read(self, path: Path) -> tuple[int, list[File], list[Event]]:
        pid, octets = int(path.stem), path.read_bytes()
        _, slots_max, events_max, slots, _, count = _HEADER.unpack_from(octets)
        if count > events_max:
            raise RuntimeError(f"the recorder of process {pid} overflowed: {count} events")
        files = []
        for place in range(slots):
            name, dev, ino, baseline, synced, gone, syncs = _SLOT.unpack_from(octets, _HEADER.size + place * _SLOT.size)
            files.append(File(pid, os.fsdecode(name.split(b"\0")[0]), dev, ino, baseline, synced, bool(gone), syncs))
        start = _HEADER.size + slots_max * _SLOT.size
        events = []
        for place in range(count):
            begin, end, kind, slot, fd, error, a, b = _EVENT.unpack_from(octets, start + place * _EVENT.size)
            if kind:  # 0: the process died while writing it
                events.append(Event(pid, begin, end, Kind(kind), files[slot].path if slot >= 0 else "", slot, fd, error, a, b))
        return pid, files, events

    # ----------------------------------------------------------------------------------------------------------- judgements
    def cut_to_synced(self) -> list[Cut]:
        """After the kill: truncate every file to its length at its last returned fsync. Forgets the records, so that a process
        started afterwards is recorded anew.

        Modelled: appended data that was not synced is gone. Not modelled: overwrites in place, directory entries that were not
        synced, data written through mmap.
        """
        seen: dict[tuple[int, int], list[File]] = {}
        for file in self.files():
            if not file.gone:
                seen.setdefault((file.dev, file.ino), []).append(file)
        cuts = []
        for (dev, ino), files in seen.items():
            # Length when first seen counts as durable; a file that was new then has only what somebody synced.
            length = max(min(file.baseline for file in files), *(file.synced for file in files))
            path = Path(files[-1].path)
            if not path.exists() or (path.stat().st_dev, path.stat().st_ino) != (dev, ino):
                continue
            if (before := path.stat().st_size) > length:
                os.truncate(path, length)
                cuts.append(Cut(path, before, length))
        for record in self.side.glob("*.rec"):
            record.unlink()
        return cuts

    def unsynced_acks(self, acks: Mapping[int, int], pattern: str = "*") -> list[str]:
        """Acknowledgements that came too early.

        Args:
            acks: token number -> time at which its acknowledgement was seen (or sent).
            pattern: files that count as the journal.
        Returns:
            One sentence a fault; [] when every acknowledged token was covered by an fsync that had returned.
        """
        events = [event for event in self.events() if event.path and fnmatch.fnmatch(event.path, pattern)]
        tokens: dict[int, list[Event]] = {}
        syncs: dict[tuple[int, int], list[Event]] = {}
        for event in events:
            if event.kind is Kind.TOKEN:
                tokens.setdefault(event.a, []).append(event)
            elif event.kind is Kind.SYNC and not event.error:
                syncs.setdefault((event.pid, event.slot), []).append(event)
        faults = []
        for number, seen_ns in sorted(acks.items()):
            ends = copies(tokens.get(number, []))
            if not ends:
                faults.append(f"token {number} was acknowledged but never written to {pattern}")
                continue
            covering = [sync.end_ns for end in ends for sync in syncs.get((end.pid, end.slot), []) if sync.a >= end.b]
            first_ns = min(covering, default=None)
            if first_ns is None:
                faults.append(f"token {number} was acknowledged but no fsync of {ends[-1].path} covers it")
            elif first_ns > seen_ns:
                faults.append(f"token {number} was acknowledged {first_ns - seen_ns} ns before the fsync that covers it returned")
        return faults


def copies(events: Sequence[Event]) -> list[Event]:
    """Where whole copies of a token's data end, by the time they were written.

    The token stands at both ends, so every second one in a file ends a copy; data sent again has several. A token that stands
    alone everywhere ends its data.
    """
    files: dict[tuple[int, int], list[Event]] = {}
    for event in events:
        files.setdefault((event.pid, event.slot), []).append(event)
    whole = sorted((event for found in files.values() for event in found[1::2]), key=lambda event: event.end_ns)
    return whole or list(events[-1:])
