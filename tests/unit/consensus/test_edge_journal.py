"""The journal on RocksDB: shared flushes, stalls, full and failed disks, damaged files, numbers that are never used again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from prometheus_client import CollectorRegistry
from rocksdict import Options, Rdict

from replica.consensus import edge_rocks
from replica.consensus.edge_disk import Disk, DiskLimits
from replica.consensus.edge_journal import Journal, JournalLimits, JournalPhase
from replica.consensus.edge_metrics import JournalMetrics
from replica.consensus.edge_rows import JournalRows
from replica.consensus.journal_ops import Op
from replica.consensus.recovery import plan_start
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry
from tests.unit.consensus.test_contracts import Ears, entries

SMALL = JournalLimits(mark_idle_s=0.01, room_check_s=0.01, disk=DiskLimits(0, 0, 0))
WAIT_S = 20
ROOT = Path(__file__).resolve().parents[3]


class CountingRows(JournalRows):
    """Counts flushes and holds one back; raises what it is told to."""

    flushes: ClassVar[int] = 0
    writes: ClassVar[list[int]] = []
    hold: ClassVar[threading.Event | None] = None
    write_faults: ClassVar[list[ZaibeiError]] = []
    flush_faults: ClassVar[list[ZaibeiError]] = []

    @classmethod
    def reset(cls) -> None:
        cls.flushes, cls.writes, cls.hold, cls.write_faults, cls.flush_faults = 0, [], None, [], []

    def write(self, ops: Sequence[Op]) -> None:
        if self.write_faults:
            raise self.write_faults.pop(0)
        type(self).writes.append(len(ops))
        super().write(ops)

    def flush(self) -> None:
        type(self).flushes += 1
        if self.hold is not None:
            self.hold.wait(WAIT_S)
        if self.flush_faults:
            raise self.flush_faults.pop(0)
        super().flush()


class CountingJournal(Journal):
    rows_type = CountingRows


@pytest.fixture(autouse=True)
def _reset() -> None:
    CountingRows.reset()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread does; the test's own timeout bounds it."""
    while not condition():  # noqa: ASYNC110  the journal's thread knows no event loop
        await asyncio.sleep(0.002)


async def test_one_flush_serves_every_group_that_wrote_meanwhile(tmp_path: Path) -> None:
    journal = CountingJournal.open(tmp_path, limits=JournalLimits(mark_idle_s=60, disk=DiskLimits(0, 0, 0)))
    ears = [Ears() for _ in range(10)]
    parts = [journal.attach(f"g{number}", ear) for number, ear in enumerate(ears)]
    journal.drain()
    CountingRows.hold = threading.Event()
    CountingRows.flushes = 0
    parts[0].append(entries(1, 1))
    await until(lambda: CountingRows.flushes == 1)
    for part in parts[1:]:
        part.append(entries(1, 3))
    parts[0].append(entries(2, 1))
    assert [ear.index for ear in ears] == [0] * 10, "nobody is told before the flush returned"
    CountingRows.hold.set()
    journal.drain()
    assert [ear.index for ear in ears] == [2] + [3] * 9
    assert CountingRows.flushes == 2
    journal.close()


def test_one_rocksdb_call_stays_short(tmp_path: Path) -> None:
    limits = JournalLimits(write_octets_max=10_000, mark_idle_s=60, disk=DiskLimits(0, 0, 0))
    journal = CountingJournal.open(tmp_path, limits=limits)
    part = journal.attach("g", Ears())
    journal.drain()
    CountingRows.hold = threading.Event()
    CountingRows.writes.clear()
    for index in range(1, 31):
        part.append([LogEntry(index, 1, bytes(2_000))])
    CountingRows.hold.set()
    journal.drain()
    assert max(CountingRows.writes) <= 5 and sum(CountingRows.writes) >= 30
    journal.close()


def test_a_stalled_write_is_tried_again_with_a_new_batch(tmp_path: Path) -> None:
    """SEMANTICS 11.3."""
    metrics = JournalMetrics(registry := CollectorRegistry())
    journal = CountingJournal.open(tmp_path, limits=SMALL, metrics=metrics)
    part = journal.attach("g", ears := Ears())
    journal.drain()
    CountingRows.write_faults = [ZaibeiError(Code.BUSY, "Write stall", retry=True)] * 3
    part.append(entries(1, 2))
    journal.drain()
    assert ears.index == 2 and registry.get_sample_value("zaibei_consensus_journal_stalls_total") == 3
    assert part.read(1, 10**6) == entries(1, 2)
    journal.close()


def test_a_failed_flush_ends_the_journal_for_good(tmp_path: Path) -> None:
    told: list[ZaibeiError] = []
    journal = CountingJournal.open(tmp_path, limits=SMALL, on_failed=told.append)
    part, other = journal.attach("g", ears := Ears()), journal.attach("h", others := Ears())
    part.append(entries(1, 1))
    journal.drain()
    CountingRows.flush_faults = [ZaibeiError(Code.DISK_FAILED, "fsync: EIO", definite=False)]
    part.append(entries(2, 1))
    journal.drain()
    assert ears.index == 1, "what the failed flush covered is never acknowledged"
    assert ears.error is not None and others.error is not None
    assert journal.phase is JournalPhase.FAILED and journal.failed is journal.refusal
    assert [error.code for error in told] == [Code.DISK_FAILED], "the process is told once"
    other.append(entries(1, 1))
    with pytest.raises(ZaibeiError, match="EIO"):
        journal.attach("new", Ears())
    assert others.index == 0
    journal.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_journal_whose_thread_breaks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug must not leave everybody waiting for a thread that is gone."""
    told: list[ZaibeiError] = []
    journal = CountingJournal.open(tmp_path, limits=SMALL, on_failed=told.append)
    part = journal.attach("g", ears := Ears())
    journal.drain()

    def broken(_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(journal, "_tell", broken)
    part.append(entries(1, 1))
    journal._thread.join(10)
    assert ears.error is not None and ears.index == 0
    assert [error.code for error in told] == [Code.DISK_FAILED] and "a bug" in str(told[0])
    assert journal.refusal is not None
    journal.close()


class PretendDisk(Disk):
    """A disk with as much room as the test says."""

    free = 10**12

    def free_octets(self) -> int:
        return self.free


def test_a_disk_below_its_watermark_stops_intake_and_resumes_by_itself(tmp_path: Path) -> None:
    limits = JournalLimits(room_check_s=0.005, disk=DiskLimits(1_000, 2_000, 500))
    disk = PretendDisk(tmp_path, limits.disk)
    journal = Journal(JournalRows.open(tmp_path / "db"), disk, limits, metrics=JournalMetrics(CollectorRegistry()))
    journal._thread.start()
    part = journal.attach("g", ears := Ears())
    disk.free = 999
    part.append(entries(1, 1))
    asyncio.run(until(lambda: journal.refusal is not None))
    refusal = journal.refusal
    assert refusal is not None and (refusal.code, refusal.trouble.retry) == (Code.DISK_FULL, True)
    part.append(entries(2, 1))  # was on its way: there is room for what is queued
    journal.drain()
    assert ears.index == 2
    disk.free = 1_999
    journal.drain()
    assert journal.phase is JournalPhase.FULL
    disk.free = 10**6
    asyncio.run(until(lambda: journal.refusal is None))
    journal.close()


def test_a_full_disk_is_reopened_verified_and_what_waited_is_written(tmp_path: Path) -> None:
    limits = JournalLimits(room_check_s=0.005, mark_idle_s=0.01, disk=DiskLimits(0, 0, 10_000))
    journal = CountingJournal.open(tmp_path, limits=limits)
    assert (tmp_path / "ballast").stat().st_size == 10_000
    part = journal.attach("g", ears := Ears())
    part.append(entries(1, 1))
    journal.drain()
    rows = journal._rows
    full = ZaibeiError(Code.DISK_FULL, "No space left", retry=True)
    CountingRows.write_faults = [full, full]
    part.append(entries(2, 3))
    journal.drain()
    assert journal._rows is not rows, "trap d: a database that met an error is reopened"
    assert ears.index == 4 and part.read(1, 10**6) == entries(1, 4)
    asyncio.run(until(lambda: journal.refusal is None))
    assert (tmp_path / "ballast").exists(), "made again when there is room"
    journal.close()


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, limits=SMALL)
    journal.attach("g", Ears()).append(entries(1, 3))
    journal.drain()
    first = journal._parts["g"].number
    journal.retire("g")
    with pytest.raises(ZaibeiError) as caught:
        journal.retire("g")
    assert caught.value.code is Code.NOT_FOUND
    journal.close()
    journal = Journal.open(tmp_path, limits=SMALL)
    again = journal.attach("g", Ears())
    assert not again.recovered.known and journal._parts["g"].number > first
    journal.close()


def test_a_group_may_attach_again_in_one_process(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, limits=SMALL)
    journal.attach("g", Ears()).append(entries(1, 3))
    part = journal.attach("g", ears := Ears())
    assert part.recovered.last == 3
    part.append(entries(4, 1))
    journal.drain()
    assert ears.index == 4
    journal.close()


def test_an_idle_journal_writes_its_marks(tmp_path: Path) -> None:
    """Without a later write the mark of the last flush would stay behind: a loss of that flush would pass in silence."""
    journal = Journal.open(tmp_path, limits=SMALL)
    journal.attach("g", Ears()).append(entries(1, 3))
    asyncio.run(until(lambda: journal._rows.walk_group("g", 1).recovered.flushed == 3))
    journal.close()


def test_a_second_process_is_told_who_is_at_fault(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, limits=SMALL)
    with pytest.raises(ZaibeiError, match="another process") as caught:
        Journal.open(tmp_path, limits=SMALL)
    assert caught.value.code is Code.CONFLICT
    journal.close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ZaibeiError, match="cannot be made"):
        Journal.open(tmp_path / "file" / "journal", limits=SMALL)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("IO error: No space left on device: While appending to file: x.log", Code.DISK_FULL),
        ("IO error: While open a file for appending: x.log: Too many open files", Code.DISK_FULL),
        ("IO error: Input/output error: While fdatasync: x.log", Code.DISK_FAILED),
        ("Corruption: block checksum mismatch", Code.DAMAGED),
        ("Result incomplete: Write stall", Code.BUSY),
        ("IO error: While lock file: db/LOCK: Resource temporarily unavailable", Code.CONFLICT),
        ("something new", Code.DISK_FAILED),
    ],
)
def test_rocksdb_errors_are_translated(text: str, code: Code) -> None:
    assert edge_rocks.translate(Exception(text), "writing").code is code


def written(folder: Path, count: int, octets: int = 20_000) -> None:
    """A closed journal whose rows lie in sorted files."""
    journal = Journal.open(folder, limits=SMALL)
    part = journal.attach("g", Ears())
    part.append([LogEntry(index, 1, bytes([index]) * octets) for index in range(1, count + 1)])
    journal.drain()
    journal._rows.db.flush()
    journal.close()


def test_a_damaged_block_cuts_and_an_acknowledged_loss_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap b: an iterator ends silently at a damaged block; only its status tells."""
    ours = edge_rocks.options

    def without_compaction() -> Options:  # it may find the block first, and end the journal with the same word
        made = ours()
        made.set_disable_auto_compactions(True)
        return made

    monkeypatch.setattr(edge_rocks, "options", without_compaction)
    written(tmp_path, 20)
    largest = max((tmp_path / "db").glob("*.sst"), key=lambda path: path.stat().st_size)
    octets = bytearray(largest.read_bytes())
    place = octets.index(bytes([11]) * 1_000)
    octets[place + 500] ^= 1
    largest.write_bytes(octets)
    journal = Journal.open(tmp_path, limits=SMALL)
    found = journal.found()["g"]
    assert found.last == 10 and found.cut is not None and "damaged" in found.cut.reason
    with pytest.raises(ZaibeiError, match="11 to 20 had been flushed"):
        plan_start("g", found, (5, 1))
    assert plan_start("g", found, (20, 1)).restart_at == (20, 1)
    journal.close()


def test_a_missing_file_is_one_clear_message(tmp_path: Path) -> None:
    written(tmp_path, 5)
    for path in (tmp_path / "db").glob("*.sst"):
        path.unlink()
    with pytest.raises(ZaibeiError) as caught:
        Journal.open(tmp_path, limits=SMALL)
    assert caught.value.code in (Code.DAMAGED, Code.DISK_FAILED)


def test_options_are_ours_at_every_open(tmp_path: Path) -> None:
    """Trap a: RocksDB keeps the column-family options it was made with unless they are passed again."""
    other = Options(raw_mode=True)
    other.create_if_missing(True)
    other.set_write_buffer_size(1_234_567)
    Rdict(str(tmp_path / "db"), other).close()
    Journal.open(tmp_path, limits=SMALL).close()
    newest = max((tmp_path / "db").glob("OPTIONS-*")).read_text()
    assert f"write_buffer_size={edge_rocks.WRITE_BUFFER_OCTETS}" in newest
    assert "wal_recovery_mode=kTolerateCorruptedTailRecords" in newest
    assert "compression=kNoCompression" in newest


STALLED = """
import sys
from pathlib import Path
from replica.consensus.edge_rows import JournalRows
from replica.consensus.journal_ops import Append
from replica.model.errors import ZaibeiError
from replica.model.outcome import LogEntry
rows = JournalRows.open(Path(sys.argv[1]))
l0 = ("level0_file_num_compaction_trigger", "level0_slowdown_writes_trigger", "level0_stop_writes_trigger")
rows.db.set_options(dict(zip(l0, ("100", "2", "2"))))
append = Append(1, (LogEntry(1, 1, b"x"),), None, 1)
for _ in range(6):
    try:
        rows.write([append])
        rows.db.flush()
    except ZaibeiError as exc:
        sys.stdout.write(exc.code)
        rows.db.set_options(dict(zip(l0, ("2", "20", "36"))))
        rows.write([append])
        sys.stdout.write(" written")
        break
"""


def test_a_stalled_rocksdb_answers_at_once(tmp_path: Path) -> None:
    """SEMANTICS 11.3: a stalled write would hold every thread of the process; in its own process, so that a hang is a failure."""
    argv = [sys.executable, "-c", STALLED, str(tmp_path / "db")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "busy written", done.stderr[-1_000:]


class LosingRows(CountingRows):
    """Loses an entry that had been flushed when it is opened again."""

    opened: ClassVar[int] = 0

    @classmethod
    def open(cls, folder: Path) -> JournalRows:
        cls.opened += 1
        rows = super().open(folder)
        for found in rows.groups.values():
            found.recovered = replace(found.recovered, last=found.recovered.last - 1)
        return rows


class LosingJournal(Journal):
    rows_type = LosingRows


def test_a_full_disk_that_lost_something_stops_the_member(tmp_path: Path) -> None:
    """Trap d: reopened, and verified before anything is written again."""
    journal = LosingJournal.open(tmp_path, limits=SMALL)
    part = journal.attach("g", ears := Ears())
    part.append(entries(1, 3))
    journal.drain()
    CountingRows.write_faults = [ZaibeiError(Code.DISK_FULL, "No space left", retry=True)]
    part.append(entries(4, 1))
    journal.drain()
    assert ears.index == 3 and ears.error is not None
    assert ears.error.code is Code.DISK_FAILED and "up to 3" in str(ears.error) and "up to 2" in str(ears.error)
    journal.close()


def test_disk_limits(tmp_path: Path) -> None:
    disk = PretendDisk(tmp_path, DiskLimits(1_000, 2_000, 500))
    assert disk.restore_ballast() and disk.release_ballast() and not disk.release_ballast()
    disk.free = 2_400
    assert disk.roomy and not disk.low and not disk.restore_ballast()
    disk.free = 999
    assert disk.low and not disk.roomy
    assert Disk(tmp_path, DiskLimits()).free_octets() > 0


def test_appends_must_follow(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, limits=SMALL)
    part = journal.attach("g", Ears())
    with pytest.raises(RuntimeError, match="does not follow"):
        part.append(entries(2, 1))
    journal.close()


class LateRows(JournalRows):
    """Writes nothing before it is told to."""

    gate: ClassVar[threading.Event] = threading.Event()

    def write(self, ops: Sequence[Op]) -> None:
        self.gate.wait(60)
        super().write(ops)


class LateJournal(Journal):
    rows_type = LateRows


def test_what_is_queued_and_not_written_is_not_taken_for_lost(tmp_path: Path) -> None:
    """A leader reads old entries for a member that is behind while new ones are on their way."""
    LateRows.gate.set()
    journal = LateJournal.open(tmp_path, limits=SMALL)
    part = journal.attach("g", Ears())
    part.append([LogEntry(1, 1, b"a")])
    journal.drain()
    LateRows.gate.clear()
    part.append([LogEntry(2, 1, b"b")])
    assert [entry.index for entry in part.read(1, 10**6)] == [1]
    with pytest.raises(ZaibeiError) as caught:
        part.read(2, 10**6)
    assert caught.value.code is Code.NOT_FOUND
    LateRows.gate.set()
    journal.drain()
    assert [entry.index for entry in part.read(1, 10**6)] == [1, 2]
    journal.close()
