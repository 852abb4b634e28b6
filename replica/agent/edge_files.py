"""Watches the files of a registry and publishes the difference to what was published before (SEMANTICS 12: deletes by rescan).

A file is read only when its size and time have rested, and what was read counts only when they are still the same afterwards. A
missing or unreadable file is no empty registry: nothing is published until it is back.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from replica.agent.edge_content import View
from replica.agent.edge_log import AgentLog
from replica.agent.edge_staging import RejectsFile, Staging
from replica.agent.mapping import Naming
from replica.agent.nature import Transaction
from replica.agent.readers import (
    CSV_COLUMNS,
    LINE_OCTETS_MAX,
    Input,
    Parsed,
    Reject,
    csv_row,
    difference,
    jsonl_line,
    records,
)
from replica.model.batch import OP_DELETE, Change
from replica.model.errors import Code, ZaibeiError
from replica.model.progress import Progress, Report, silent

log = logging.getLogger("zaibei.agent")

POLL_S = 0.25
REST_S = 2.0  # size and time of a file must stand still for so long; writers do best to write beside and rename
ROOM_WAIT_S = 1.0
RETRY_S = 1.0
APPEND_CHANGES = 8_000
APPEND_OCTETS = 4 * 1024 * 1024
SHRINK_WARN_SHARE = 0.3  # the copy's brake would hold a difference that removes more (SEMANTICS 2.3)
SHRINK_WARN_MIN = 100
REPORT_EVERY_LINES = 20_000


class InputState(StrEnum):
    """Where the reader stands; shown in status and metrics."""

    STARTING = "starting"
    SETTLING = "settling"  # a file is being written, or rested for too short a time
    READING = "reading"
    CURRENT = "current"  # what the files say is published
    MISSING = "missing"  # a file cannot be read: what is published stays
    UNUSABLE = "unusable"  # a file was read and makes no sense, or could not be published: the same
    SPOOL_FULL = "spool_full"  # waits for receipts
    FAILED = "failed"


QUIET = (InputState.SETTLING, InputState.READING)  # on the way to trying again


@dataclass(slots=True)
class InputCounts:
    """Since the process began, but `lines`, `rejects` and `records` of the newest reading."""

    rounds: int = 0
    lines: int = 0
    rejects: int = 0
    puts: int = 0
    deletes: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """What one reading did."""

    puts: int
    deletes: int
    rejects: int
    lines: int


Signature = tuple[tuple[int, int, int], ...]  # of each file: inode, size, mtime in ns


@dataclass(slots=True)
class FileReader:
    """Reads all inputs of one source into one log; run by one thread.

    Args:
        folder: for the scratch table and rejects.jsonl.
        rest_s: how long files must rest.
    """

    agent: AgentLog
    inputs: tuple[Input, ...]
    naming: Naming
    folder: Path
    rest_s: float = REST_S
    report: Report = silent
    now_s: Callable[[], float] = time.monotonic
    state: InputState = InputState.STARTING
    state_reason: str = ""
    counts: InputCounts = field(default_factory=InputCounts)
    _seen: Signature | None = None
    _seen_s: float = 0.0
    _told_reason: str = ""  # of the trouble that was logged and is not over
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Poll until `stop`; faults of the disk or the files are states, never an end."""
        while not self._stop.is_set():
            try:
                self.poll()
                self._stop.wait(POLL_S)
            except ZaibeiError as exc:
                if exc.code is Code.STOPPING:
                    return
                failed = self.agent.failed is not None or exc.code is Code.DAMAGED
                self._move(InputState.FAILED if failed else InputState.UNUSABLE, str(exc))
                if failed:
                    return
                self._stop.wait(RETRY_S)
            except OSError as exc:  # no file could be opened, or made, at this moment
                self._move(InputState.UNUSABLE, str(exc))
                self._stop.wait(RETRY_S)

    def stop(self) -> None:
        self._stop.set()

    @property
    def published(self) -> bool:
        """What the files said was published as a whole at least once, in this life or an earlier one."""
        return self.agent.content.noted("inputs") is not None

    def poll(self) -> Round | None:
        """One look at the files; reads them when they have rested and are not those published last.

        Returns:
            What was done, None when nothing was to do.
        Raises:
            ZaibeiError: of the log; or the reading itself failed.
        """
        found = self._signature()
        if found is None:
            self._seen = None
            return None
        now = self.now_s()
        if found != self._seen:
            self._seen, self._seen_s = found, now
        if self._fingerprint(found) == self.agent.content.noted("inputs"):
            self._move(InputState.CURRENT)
            return None
        if now - self._seen_s < self.rest_s:
            self._move(InputState.SETTLING)
            return None
        return self._read(found)

    def _signature(self) -> Signature | None:
        stats = []
        for item in self.inputs:
            try:
                stat = item.path.stat()
            except OSError as exc:
                self._move(InputState.MISSING, f"{item.path}: {exc.strerror}; what is published stays")
                return None
            stats.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return tuple(stats)

    def _fingerprint(self, found: Signature) -> str:
        """Of files and mapping: a changed mapping is read again too."""
        described = json.dumps([[str(item.path), item.format, repr(item.mappings)] for item in self.inputs] + [list(found)])
        return hashlib.sha256((described + repr(self.naming.prefixes)).encode()).hexdigest()

    def _move(self, state: InputState, reason: str = "") -> None:
        if reason and reason == self._told_reason:
            pass  # tried again, and nothing is new
        elif (state, reason) != (self.state, self.state_reason) and not (self._told_reason and state in QUIET):
            level = logging.WARNING if reason else logging.INFO
            extra = {"source": self.agent.nature.source, "state": state.value, "reason": reason}
            log.log(level, "input state", extra=extra)
            self._told_reason = reason
        self.state, self.state_reason = state, reason

    # ------------------------------------------------------------------------------------------------------- reading

    def _read(self, found: Signature) -> Round | None:
        self._move(InputState.READING)
        rejects = RejectsFile(self.folder / "rejects.jsonl", tuple(str(item.path) for item in self.inputs))
        try:
            with Staging(self.folder / "staging.db") as staging:
                lines = self._stage(staging, rejects)
                if lines is None or self._signature() != found:
                    self._seen = None  # written to while we read: what we have is a mixture
                    self._move(InputState.SETTLING)
                    return None
                done = self._publish(staging, rejects, lines)
        finally:
            rejects.close()
        if done is not None:
            with self.agent.turn():
                self.agent.content.note("inputs", self._fingerprint(found))
            self._move(InputState.CURRENT)
        return done

    def _stage(self, staging: Staging, rejects: RejectsFile) -> int | None:
        lines = 0
        for number, item in enumerate(self.inputs):
            try:
                for parsed in self._parsed(item):
                    lines += 1
                    if isinstance(parsed, Reject):
                        rejects.add(parsed, number)
                    else:
                        staging.add(parsed, number)
                    if lines % REPORT_EVERY_LINES == 0:
                        self.report(Progress(f"reading {item.path.name}", lines, None, "lines"))
                        if self._stop.is_set():
                            return None
            except OSError as exc:
                self._move(InputState.MISSING, f"{item.path}: {exc.strerror}; what is published stays")
                return None
        return lines

    def _parsed(self, item: Input) -> Iterator[Parsed]:
        if item.format == "csv":
            yield from self._csv(item)
            return
        with item.path.open("rb") as file:
            number = 0
            while octets := file.readline(LINE_OCTETS_MAX):
                number += 1
                if len(octets) == LINE_OCTETS_MAX and not octets.endswith(b"\n"):
                    while (more := file.readline(LINE_OCTETS_MAX)) and not more.endswith(b"\n"):
                        pass
                    yield Reject(
                        number, f"the line is longer than {LINE_OCTETS_MAX} octets", octets[:100].decode("utf-8", "replace")
                    )
                    continue
                yield from jsonl_line(octets, number, self.naming, item.mappings)

    def _csv(self, item: Input) -> Iterator[Parsed]:
        csv.field_size_limit(LINE_OCTETS_MAX)
        with item.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file)
            if not item.mappings and not set(CSV_COLUMNS) <= set(rows.fieldnames or ()):
                raise ZaibeiError(
                    Code.INVALID_CONFIG,
                    f"{item.path} needs the columns {', '.join(CSV_COLUMNS)}, or a mapping in the source's TOML file",
                )
            while True:
                try:
                    row = next(rows, None)
                except csv.Error as exc:
                    yield Reject(rows.line_num, f"not CSV: {exc}")
                    continue
                if row is None:
                    return
                yield from csv_row(row, rows.line_num, self.naming, item.mappings)

    # ----------------------------------------------------------------------------------------------------- publishing

    def _publish(self, staging: Staging, rejects: RejectsFile, lines: int) -> Round | None:
        with View(self.agent.content.path) as view:
            held = view.digest.records
            changes = difference(self._wanted(staging, rejects), view.scan())
            counted = self._append_all(changes)
        if counted is None:
            return None
        puts, deletes = counted
        self.counts.rounds += 1
        self.counts.puts += puts
        self.counts.deletes += deletes
        self.counts.lines, self.counts.rejects = lines, rejects.count
        extra = {"source": self.agent.nature.source, "puts": puts, "deletes": deletes, "rejects": rejects.count, "lines": lines}
        log.info("input published", extra=extra)
        if deletes > max(SHRINK_WARN_SHARE * held, SHRINK_WARN_MIN):
            log.warning("the input lost a large share of its records; the copy may hold this for two people", extra=extra)
        return Round(puts, deletes, rejects.count, lines)

    @staticmethod
    def _wanted(staging: Staging, rejects: RejectsFile) -> Iterator[tuple[bytes, bytes | None]]:
        for item in records(staging.sorted_rows()):
            if isinstance(item, Reject):
                rejects.add(item)
            else:
                yield item

    def _append_all(self, changes: Iterator[Change]) -> tuple[int, int] | None:
        """Append in groups; all but the last say that the transaction goes on. None: stopped before the end."""
        puts = deletes = octets = 0
        group: list[Change] = []
        for change in changes:
            if len(group) >= APPEND_CHANGES or octets > APPEND_OCTETS:
                if not self._append(Transaction(group, more=True)):
                    return None
                group, octets = [], 0
            group.append(change)
            octets += len(change.key) + len(change.value)
            deletes += change.op == OP_DELETE
            puts += change.op != OP_DELETE
            if (puts + deletes) % REPORT_EVERY_LINES == 0:
                self.report(Progress("publishing", puts + deletes, None, "changes"))
        if group and not self._append(Transaction(group)):
            return None
        return puts, deletes

    def _append(self, transaction: Transaction) -> bool:
        """Append, waiting for room as long as it takes. False: stopped."""
        while not self._stop.is_set():
            try:
                self.agent.append([transaction])
                self._move(InputState.READING)
                return True
            except ZaibeiError as exc:
                if exc.code is Code.BUSY:
                    self._move(InputState.SPOOL_FULL, exc.trouble.message)
                    self.agent.wait_room(ROOM_WAIT_S)
                elif exc.code is Code.DISK_FULL:
                    self._move(InputState.SPOOL_FULL, exc.trouble.message)
                    self._stop.wait(RETRY_S)
                else:
                    raise
        return False


def inputs_of(paths: Sequence[Path]) -> tuple[Input, ...]:
    """Inputs in their ready-made forms, the format taken from the name."""
    return tuple(Input(path, "csv" if path.suffix == ".csv" else "jsonl") for path in paths)
