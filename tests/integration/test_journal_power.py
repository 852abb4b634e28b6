"""Promise 1 on real processes: what was acknowledged is there after a power cut; a failed fsync stops, a full disk is waited out.

The recorder (tests/shim) keeps each file's length at its last returned fsync; after SIGKILL every file is cut to it.
"""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from replica.consensus.edge_disk import DiskLimits
from replica.consensus.edge_journal import Journal, JournalLimits
from replica.consensus.recovery import plan_start
from tests.shim.shim import Kind, Op, Recording, build, token

ROOT = Path(__file__).resolve().parents[2]
WAL = "*/db/*.log"
LINES_MAX = 20_000

pytestmark = pytest.mark.skipif(build() is None, reason="the durability recorder needs a C compiler: install the package gcc")


@dataclass(frozen=True, slots=True)
class Ack:
    group: str
    index: int
    number: int
    at_ns: int


class Child:
    """The writing process and what it said."""

    def __init__(self, recording: Recording, groups: int = 3, octets: int = 20_000, *options: str) -> None:
        argv = [
            sys.executable,
            "-m",
            "tests.integration.journal_child",
            str(recording.root / "j"),
            str(groups),
            str(octets),
            *options,
        ]
        self.process = recording.start(argv, cwd=ROOT, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.out: IO[bytes] = self.process.stdout
        self.acks: list[Ack] = []
        self.said: list[str] = []

    def line(self) -> list[str]:
        words = self.out.readline().decode().split()
        if words and words[0] == "ack":
            self.acks.append(Ack(words[1], *map(int, words[2:5])))
        elif words:
            self.said.append(" ".join(words))
        return words

    def read(self, acks: int) -> None:
        """Read on until so many more acknowledgements came."""
        until = len(self.acks) + acks
        for _ in range(LINES_MAX):
            if len(self.acks) >= until:
                return
            assert self.line(), f"the process ended: {self.said}"
        raise AssertionError(f"too many lines: {self.said[-5:]}")

    def read_until(self, text: str) -> None:
        for _ in range(LINES_MAX):
            if text in self.said:
                return
            assert self.line(), f"the process ended: {self.said}"
        raise AssertionError(f"{text!r} never came: {self.said[-5:]}")

    def kill(self) -> None:
        """SIGKILL, then all it had said before."""
        self.process.kill()
        while self.line():
            pass
        self.out.close()
        self.process.wait()


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path / "root", tmp_path / "side")


def missing(recording: Recording, acks: list[Ack]) -> list[Ack]:
    """Acknowledged entries that a reopened journal does not hold."""
    journal = Journal.open(recording.root / "j", limits=JournalLimits(disk=DiskLimits(0, 0, 0)))
    held: dict[tuple[str, int], bytes] = {}
    for name, found in journal.found().items():
        plan_start(name, found, (0, 0))  # a power cut on a sound disk never takes a group out of service
        entries = journal._rows.read(journal._rows.groups[name].number, 1, found.last, 2**60) if found.last else []
        held.update({(name, entry.index): entry.data for entry in entries})
    journal.close()
    return [ack for ack in acks if not held.get((ack.group, ack.index), b"").endswith(token(ack.number))]


@pytest.mark.parametrize("acks", [5, 150, 600])
def test_all_that_was_acknowledged_survives_a_power_cut(recording: Recording, acks: int) -> None:
    child = Child(recording)
    child.read(acks)
    child.kill()
    early = recording.unsynced_acks({ack.number: ack.at_ns for ack in child.acks}, WAL)
    assert early == []
    recording.cut_to_synced()
    assert missing(recording, child.acks) == []


def test_a_journal_that_forgets_to_flush_is_caught_twice(recording: Recording) -> None:
    """The planted fault: both judgements turn red, so both can."""
    child = Child(recording, 3, 20_000, "forgetful")
    child.read(50)
    child.kill()
    early = recording.unsynced_acks({ack.number: ack.at_ns for ack in child.acks}, WAL)
    assert len(early) == len(child.acks) and "no fsync" in early[0]
    cuts = recording.cut_to_synced()
    assert any(cut.path.suffix == ".log" and cut.after < cut.before for cut in cuts)
    assert missing(recording, child.acks) != []


def test_an_acknowledgement_before_the_fsync_returned_is_seen(recording: Recording) -> None:
    """A slow fsync: acknowledgements wait for it; a made-up earlier one is found by the checker."""
    child = Child(recording, 1)
    child.read(3)
    rule = recording.inject(WAL, Op.SYNC, delay_ms=100)
    child.read(6)
    assert rule.hits > 0
    child.kill()
    acks = {ack.number: ack.at_ns for ack in child.acks}
    assert recording.unsynced_acks(acks, WAL) == []
    early = {number: at_ns - 60_000_000 for number, at_ns in acks.items()}
    assert any("before the fsync" in fault for fault in recording.unsynced_acks(early, WAL))


def test_two_lives_in_a_row(recording: Recording) -> None:
    """What the second life found, replayed and added is as durable as the first."""
    acks: list[Ack] = []
    for _ in range(3):
        child = Child(recording)
        child.read(40)
        child.kill()
        recording.cut_to_synced()
        # Tokens begin anew with each life; indexes go on, so all acknowledgements must be found.
        acks += child.acks
    assert len({(ack.group, ack.index) for ack in acks}) == len(acks), "an index is given once"
    assert missing(recording, acks) == []


def test_a_failed_fsync_stops_the_journal_for_good(recording: Recording) -> None:
    child = Child(recording)
    child.read(20)
    rule = recording.inject(WAL, Op.SYNC, errno.EIO, times=1)
    child.read_until("stop disk_failed")
    child.read_until("failed disk_failed")
    for _ in range(LINES_MAX):
        if not child.line():
            break
    assert rule.hits == 1, "one failure is enough: later flushes would succeed and must not be trusted"
    failed_ns = next(event.end_ns for event in recording.events() if event.kind is Kind.SYNC and event.error == errno.EIO)
    assert [ack for ack in child.acks if ack.at_ns > failed_ns and not covered_before(recording, ack, failed_ns)] == []
    child.kill()
    recording.cut_to_synced()
    assert missing(recording, child.acks) == []


def covered_before(recording: Recording, ack: Ack, when_ns: int) -> bool:
    """An acknowledgement printed after the failure may be of a flush before it."""
    return recording.unsynced_acks({ack.number: when_ns}, WAL) == []


def test_eio_on_a_write_stops_too(recording: Recording) -> None:
    child = Child(recording)
    child.read(20)
    recording.inject(WAL, Op.WRITE, errno.EIO, times=1)
    child.read_until("stop disk_failed")
    child.kill()


def test_a_full_disk_stops_intake_and_resumes_by_itself(recording: Recording) -> None:
    child = Child(recording, 2)
    child.read(20)
    rule = recording.inject("*", Op.WRITE | Op.TRUNCATE, errno.ENOSPC, partial=40)
    child.read_until("refused disk_full")
    acked = len(child.acks)
    time.sleep(0.2)  # the disk stays full for a while; nothing depends on how long
    assert not (recording.root / "j" / "ballast").exists(), "given up so that the database can be opened"
    child.said.clear()
    rule.clear()
    child.read_until("admitted")
    child.read(100)
    assert len(child.acks) >= acked + 100
    child.kill()
    early = recording.unsynced_acks({ack.number: ack.at_ns for ack in child.acks}, WAL)
    assert early == []
    recording.cut_to_synced()
    assert missing(recording, child.acks) == []


def test_the_recorder_sees_what_it_models(tmp_path: Path) -> None:
    """Appended data without an fsync is cut, with one it stays; a rename takes the length along; sends and tokens are seen."""
    recording = Recording(tmp_path / "root", tmp_path / "side")
    program = f"""
import os, socket
root = {str(recording.root)!r}
fd = os.open(root + "/a.tmp", os.O_CREAT | os.O_WRONLY)
os.write(fd, b"kept"); os.fsync(fd); os.write(fd, b"lost {token(7).decode()}")
os.rename(root + "/a.tmp", root + "/a")
fd = os.open(root + "/never", os.O_CREAT | os.O_WRONLY); os.write(fd, b"gone")
with open(root + "/whole", "wb") as f:
    f.write(b"x" * 10); f.flush(); os.fsync(f.fileno())
one, two = socket.socketpair(); one.send(b"{token(8).decode()}")
try:
    fd = os.open(root + "/refused", os.O_CREAT | os.O_WRONLY)
except OSError as exc:
    print(exc.errno)
"""
    recording.inject("*/refused", Op.OPEN, errno.ENOSPC)
    process = recording.start([sys.executable, "-c", program], stdout=subprocess.PIPE)
    said, _ = process.communicate()
    assert int(said) == errno.ENOSPC
    tokens = {event.a: event for event in recording.events() if event.kind is Kind.TOKEN}
    assert tokens[7].path.endswith("/a") and tokens[8].path == ""
    assert recording.unsynced_acks({7: time.monotonic_ns()}) != []
    recording.cut_to_synced()
    sizes = {path.name: path.stat().st_size for path in recording.root.iterdir()}
    assert sizes == {"a": 4, "never": 0, "whole": 10}
