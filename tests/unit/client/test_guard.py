"""The guard of a registry's write path: with turned clocks, with a process that is really frozen, and with SQLite's triggers."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from replica.agent.write_lease import LeaseState, LeaseTimes
from replica.client.guard import Guard, LeaseLost, LeaseRow
from replica.client.guard_rows import SqliteLeaseRow, boot_id, boottime_ms, with_functions
from replica.feed.source_port import WriteAsk
from replica.model.errors import ZaibeiError

ROOT = Path(__file__).resolve().parents[3]
RECIPE = ROOT / "ops" / "sql" / "guard-sqlite.sql"
TIMES = LeaseTimes(30_000, 5_000, 15_000)
S = 1_000_000_000


class World:
    """A guard whose clock is turned by hand, and the cluster that answers it."""

    def __init__(self, *, rows: Sequence[LeaseRow] = (), strict: bool = False) -> None:
        self.now_ns = 1_000 * S
        self.epoch = 1
        self.alarms: list[str] = []
        self.guard = Guard(
            lambda: self.epoch, TIMES, rows=rows, on_alarm=self.alarms.append, strict=strict, clock=lambda: self.now_ns
        )

    def ask(self, after: int = 0) -> WriteAsk:
        """The next question, once it is out."""
        until(lambda: (self.guard.wanted() or WriteAsk(0, 0, 0)).number > after)
        found = self.guard.wanted()
        assert found is not None
        return found

    def renew(self, after: int = 0) -> int:
        ask = self.ask(after)
        self.guard.given(ask.number, ask.epoch, ask.duration_ms)
        return ask.number


def until(done: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.guard.close()


def test_without_a_lease_nothing_is_acknowledged_and_with_one_it_is(world: World) -> None:
    with pytest.raises(LeaseLost), world.guard.acknowledging():
        raise AssertionError("must not come here")
    world.renew()
    assert world.guard.wait(1)
    with world.guard.acknowledging():
        pass
    assert world.guard.left_ms == 30_000


def test_it_alarms_before_it_stops_then_refuses_and_is_back_with_a_renewal(world: World) -> None:
    number = world.renew()
    until(lambda: world.guard.state is LeaseState.HELD)
    world.now_ns += 16 * S
    until(lambda: bool(world.alarms))
    assert "not renewed lately" in world.alarms[0]
    world.guard.check()
    world.now_ns += 15 * S
    until(lambda: len(world.alarms) == 2)
    assert "has ended" in world.alarms[1]
    with pytest.raises(LeaseLost, match="do not acknowledge"):
        world.guard.check()
    world.renew(number + 1)
    until(lambda: len(world.alarms) == 3)
    world.guard.check()


def test_a_clock_that_jumped_ends_it_before_and_inside_the_acknowledgement(world: World) -> None:
    world.renew()
    with pytest.raises(LeaseLost), world.guard.acknowledging():
        world.now_ns += 3_600 * S  # the machine was suspended while the answer was written
    with pytest.raises(LeaseLost), world.guard.acknowledging():
        raise AssertionError("must not come here")


def test_a_new_epoch_and_a_refusal_end_it(world: World) -> None:
    number = world.renew()
    world.epoch = 2
    until(lambda: world.guard.wanted() is not None and world.ask(number).epoch == 2)
    assert not world.guard.valid
    world.guard.denied(world.ask(number).number, "it is being taken over")
    with pytest.raises(LeaseLost, match="being taken over"):
        world.guard.check()


def test_strict_waits_for_the_clusters_own_word() -> None:
    class Receipt:
        came = False

        def wait(self, timeout_s: float) -> bool:
            return self.came

    world, receipt = World(strict=True), Receipt()
    try:
        world.renew()
        with pytest.raises(ZaibeiError, match="needs the receipt"), world.guard.acknowledging():
            pass
        with pytest.raises(LeaseLost, match="vouch"), world.guard.acknowledging(receipt, 0.1):
            pass
        receipt.came = True
        with world.guard.acknowledging(receipt):
            pass
    finally:
        world.guard.close()


def test_a_closed_guard_acknowledges_nothing(world: World) -> None:
    world.renew()
    world.guard.close()
    assert not world.guard.valid
    with pytest.raises(LeaseLost, match="closed"):
        world.guard.check()


class Row:
    """A lease row that remembers what was done to it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []
        self.clock_ms = 500

    def asked(self) -> int:
        self.clock_ms += 7
        return self.clock_ms

    def renewed(self, asked_ms: int, duration_ms: int) -> None:
        self.calls.append(("renewed", asked_ms, duration_ms))

    def cleared(self) -> None:
        self.calls.append(("cleared", 0, 0))


def test_the_row_is_cleared_first_and_counts_from_before_the_question() -> None:
    row = Row()
    world = World(rows=[row])
    assert row.calls == [("cleared", 0, 0)]  # a longer lease of an earlier process is over
    world.ask()
    moment = row.clock_ms
    row.clock_ms += 10_000  # the answer takes its time
    world.renew()
    until(lambda: len(row.calls) == 2)
    assert row.calls[1] == ("renewed", moment, 30_000)
    world.guard.close()
    assert row.calls[-1] == ("cleared", 0, 0)


def test_a_database_that_is_gone_stops_its_own_writers_and_not_the_guard() -> None:
    class Gone(Row):
        def asked(self) -> int:
            raise sqlite3.OperationalError("unable to open database file")

    world = World(rows=[Gone()])
    world.renew()
    assert world.guard.valid
    world.guard.close()


CHILD = """
import sys, time
from replica.client.guard import Guard
from replica.agent.write_lease import LeaseTimes
guard = Guard(lambda: 1, LeaseTimes(1_000, 200, 500))
while not guard.valid:  # asked for once more where this process was late itself
    if (ask := guard.wanted()) is not None:
        guard.given(ask.number, ask.epoch, ask.duration_ms)
    time.sleep(0.01)
print("valid", flush=True)
sys.stdin.readline()
print("valid" if guard.valid else "ended", flush=True)
"""


def test_a_process_that_was_really_frozen_finds_its_lease_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "valid\n"
        os.kill(child.pid, signal.SIGSTOP)
        child.stdin.write("go\n")
        child.stdin.flush()
        time.sleep(1.2)
        os.kill(child.pid, signal.SIGCONT)
        assert child.stdout.readline() == "ended\n"
    finally:
        child.kill()
        child.wait()


# ----------------------------------------------------------------------------------------------------------- SQLite


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "registry.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE registrations (handle TEXT PRIMARY KEY, url TEXT)")
    connection.executescript(RECIPE.read_text())
    connection.close()
    return path


def write(path: Path, handle: str = "88.118.8/A") -> None:
    connection = with_functions(sqlite3.connect(path))
    try:
        with connection:
            connection.execute("INSERT INTO registrations VALUES (?, 'x')", (handle,))
    finally:
        connection.close()


def count(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM registrations").fetchone()[0])
    finally:
        connection.close()


def test_sqlite_takes_writes_with_a_lease_alone(registry: Path) -> None:
    row = SqliteLeaseRow(registry)
    with pytest.raises(sqlite3.IntegrityError, match="no lease"):
        write(registry)
    row.renewed(row.asked(), 60_000)
    write(registry)
    connection = with_functions(sqlite3.connect(registry))
    connection.execute("UPDATE registrations SET url = 'y'")
    connection.commit()
    row.cleared()
    insert = "INSERT INTO registrations VALUES ('b', 'x')"
    for statement in ("UPDATE registrations SET url = 'z'", "DELETE FROM registrations", insert):
        with pytest.raises(sqlite3.IntegrityError, match="no lease"):
            connection.execute(statement)
        connection.rollback()
    connection.close()
    assert count(registry) == 1


def test_sqlite_an_ended_lease_and_one_of_before_a_restart_count_for_nothing(registry: Path) -> None:
    row = SqliteLeaseRow(registry)
    row.renewed(boottime_ms() - 10_000, 9_000)
    with pytest.raises(sqlite3.IntegrityError, match="no lease"):
        write(registry)
    row.renewed(row.asked(), 60_000)
    connection = sqlite3.connect(registry)
    with connection:
        connection.execute("UPDATE zaibei_lease SET boot_id = ?", (boot_id()[::-1],))
    connection.close()
    with pytest.raises(sqlite3.IntegrityError, match="no lease"):
        write(registry)


def test_sqlite_a_writer_without_the_clock_cannot_write(registry: Path) -> None:
    SqliteLeaseRow(registry).renewed(boottime_ms(), 60_000)
    connection = sqlite3.connect(registry)
    with pytest.raises(sqlite3.OperationalError, match="zaibei_"):
        connection.execute("INSERT INTO registrations VALUES ('b', 'x')")
    connection.close()
    assert count(registry) == 0


def test_sqlite_a_lease_that_ends_inside_a_transaction_rolls_it_back_whole(registry: Path) -> None:
    row = SqliteLeaseRow(registry)
    connection = with_functions(sqlite3.connect(registry))
    taken = False
    while not taken:  # once more where this process itself was late for the lease's 300 ms
        row.renewed(row.asked(), 300)
        with suppress(sqlite3.IntegrityError):
            connection.execute("INSERT INTO registrations VALUES ('a', 'x')")
            taken = True
    time.sleep(0.4)
    with pytest.raises(sqlite3.IntegrityError, match="no lease"):
        connection.execute("INSERT INTO registrations VALUES ('b', 'x')")
    connection.rollback()
    connection.close()
    assert count(registry) == 0


def test_sqlite_the_guard_keeps_the_row(registry: Path) -> None:
    guard = Guard(lambda: 1, LeaseTimes(2_000, 200, 1_000), rows=[SqliteLeaseRow(registry)])
    renewing = threading.Event()
    renewing.set()

    def cluster() -> None:
        while renewing.is_set():
            if (ask := guard.wanted()) is not None:
                guard.given(ask.number, ask.epoch, ask.duration_ms)
            time.sleep(0.02)

    thread = threading.Thread(target=cluster)
    thread.start()
    try:
        assert guard.wait(30)
        until(lambda: _writes(registry))
        renewing.clear()
        until(lambda: not guard.valid)
        with pytest.raises(sqlite3.IntegrityError, match="no lease"):
            write(registry, "late")
    finally:
        renewing.clear()
        thread.join()
        guard.close()


def _writes(path: Path) -> bool:
    try:
        write(path, f"h{time.monotonic_ns()}")
    except sqlite3.IntegrityError:
        return False
    return True
