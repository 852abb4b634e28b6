"""The trigger recipe of PostgreSQL, in a real cluster of its own; skipped by name where its programs are not installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ops.bench.edge_postgres import programs
from replica.client.guard_rows import PostgresLeaseRow, boot_id

RECIPE = Path(__file__).resolve().parents[2] / "ops" / "sql" / "guard-postgresql.sql"
START_S_MAX = 30


class Database:
    """One PostgreSQL of our own; a connection is one run of psql, as far as PostgresLeaseRow needs one."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder, self.tools = folder, tools
        self.as_: list[str] = []
        if os.geteuid() == 0:
            who = next(pwd.getpwnam(name) for name in ("postgres", "nobody") if _known(name))
            os.chown(folder, who.pw_uid, who.pw_gid)
            self.as_ = ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups"]
        self.server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        data = self.folder / "cluster"
        subprocess.run(
            [*self.as_, self.tools / "initdb", "-D", data, "-U", "admin", "-A", "trust", "--locale=C", "-E", "UTF8", "-N"],
            check=True, capture_output=True, cwd=self.folder,
        )  # fmt: skip
        self.server = subprocess.Popen(
            [*self.as_, self.tools / "postgres", "-D", data, "-k", self.folder, "-c", "listen_addresses=", "-c", "fsync=off"],
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + START_S_MAX
        while self.psql("SELECT 1").returncode:
            assert time.monotonic() < end, "PostgreSQL did not start"
            time.sleep(0.1)

    def psql(self, *statements: str, user: str = "admin") -> subprocess.CompletedProcess[str]:
        words = [word for statement in statements for word in ("-c", statement)]
        command = [
            *self.as_,
            self.tools / "psql",
            "-h",
            self.folder,
            "-U",
            user,
            "-d",
            "postgres",
            "-qAtX",
            "-v",
            "ON_ERROR_STOP=1",
        ]
        return subprocess.run([*command, *words], capture_output=True, text=True, cwd=self.folder, check=False)

    def run(self, statement: str, user: str = "admin") -> str:
        done = self.psql(statement, user=user)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


class Cursor:
    def __init__(self, database: Database) -> None:
        self._database, self._row = database, ""

    def execute(self, statement: str) -> None:
        self._row = self._database.run(statement, user="guard")

    def fetchone(self) -> tuple[str]:
        return (self._row,)


class Connection:
    """DB-API as far as PostgresLeaseRow uses it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def cursor(self) -> Cursor:
        return Cursor(self._database)

    def commit(self) -> None:
        """psql committed each statement already."""

    def close(self) -> None:
        """Nothing is open."""


def _known(name: str) -> bool:
    with suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    tools = programs()
    if tools is None:
        pytest.skip("PostgreSQL's programs (initdb, postgres, psql) are not installed")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed: PostgreSQL does not run as root")
    folder = Path("/tmp") / f"zaibei-guard-{os.getpid()}"  # short: a Unix socket lies in it, and another user must reach it
    folder.mkdir(mode=0o755)
    made = Database(folder, tools)
    try:
        made.start()
        recipe = folder / "recipe.sql"
        recipe.write_text(RECIPE.read_text())
        recipe.chmod(0o644)
        made.run("CREATE TABLE registrations (handle text PRIMARY KEY, url text)")
        made.run(f"\\i {recipe}")
        made.run("SELECT zaibei_guard('registrations')")
        made.run("CREATE ROLE writer LOGIN")
        made.run("GRANT ALL ON registrations TO writer")
        made.run("CREATE ROLE guard LOGIN")
        made.run("GRANT EXECUTE ON FUNCTION zaibei_lease_renewed(bigint, bigint) TO guard")
        yield made
    finally:
        if made.server is not None:
            made.server.terminate()
            made.server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def refused(database: Database, *statements: str) -> bool:
    done = database.psql(*statements, user="writer")
    return done.returncode != 0 and "no lease on the write path" in done.stderr


def row_of(database: Database) -> PostgresLeaseRow:
    return PostgresLeaseRow(lambda: Connection(database))


def test_writes_go_through_with_a_lease_alone(database: Database) -> None:
    row = row_of(database)
    row.cleared()
    assert refused(database, "INSERT INTO registrations VALUES ('a', 'x')")
    row.renewed(row.asked(), 60_000)
    database.run("INSERT INTO registrations VALUES ('a', 'x')", user="writer")
    row.cleared()
    assert refused(database, "UPDATE registrations SET url = 'y'")
    assert refused(database, "DELETE FROM registrations")
    assert database.run("SELECT count(*) FROM registrations WHERE url = 'x'") == "1"


def test_the_look_is_at_the_commit_so_a_writer_that_slept_is_refused(database: Database) -> None:
    row = row_of(database)
    row.renewed(row.asked(), 700)
    statements = ("BEGIN", "INSERT INTO registrations VALUES ('slow', 'x')", "SELECT pg_sleep(1)", "COMMIT")
    assert refused(database, *statements)
    assert database.run("SELECT count(*) FROM registrations WHERE handle = 'slow'") == "0"


def test_an_ended_lease_and_one_of_before_a_restart_count_for_nothing(database: Database) -> None:
    row = row_of(database)
    row.renewed(row.asked() - 20_000, 19_000)
    assert refused(database, "INSERT INTO registrations VALUES ('late', 'x')")
    row.renewed(row.asked(), 60_000)
    database.run(f"UPDATE zaibei_lease SET boot_id = '{boot_id()[::-1]}'")
    assert refused(database, "INSERT INTO registrations VALUES ('late', 'x')")


def test_the_clock_is_this_machines_and_a_writer_cannot_give_itself_a_lease(database: Database) -> None:
    row = row_of(database)
    assert abs(row.asked() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000) < 2_000
    assert database.psql("SELECT zaibei_lease_renewed(zaibei_boottime_ms(), 60000)", user="writer").returncode != 0
    assert database.psql("UPDATE zaibei_lease SET until_ms = 9e15", user="writer").returncode != 0
