"""The lease as a row of the registry's own database, for the triggers of ops/sql/: any DB-API connection, and SQLite's function.

The row counts on the database machine's CLOCK_BOOTTIME from before the question was sent, so it is right wherever the database
runs, and ends by itself when the guard is frozen or gone.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Connection(Protocol):
    """A DB-API 2.0 connection, as far as it is used here."""

    def cursor(self) -> Any: ...

    def commit(self) -> None: ...

    def close(self) -> None: ...


class PostgresLeaseRow:
    """The functions of ops/sql/guard-postgresql.sql, over any DB-API driver. `connect` opens a connection as the guard's role."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect

    def _call(self, statement: str) -> int:
        with closing(self._connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            row = cursor.fetchone()
            connection.commit()
            return int(row[0] or 0)

    def asked(self) -> int:
        return self._call("SELECT zaibei_boottime_ms()")

    def renewed(self, asked_ms: int, duration_ms: int) -> None:
        self._call(f"SELECT zaibei_lease_renewed({int(asked_ms)}, {int(duration_ms)})")

    def cleared(self) -> None:
        self._call("SELECT zaibei_lease_renewed(0, 0)")


def boottime_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def boot_id() -> str:
    """Differs after each start of this machine, so that a row of before counts for nothing."""
    return BOOT_ID.read_text().strip()


def with_functions(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Give a writer's connection the two functions the triggers ask; without them every guarded write fails."""
    connection.create_function("zaibei_boottime_ms", 0, boottime_ms)
    connection.create_function("zaibei_boot_id", 0, boot_id)
    return connection


class SqliteLeaseRow:
    """The row of ops/sql/guard-sqlite.sql in the registry's own file, on this machine."""

    def __init__(self, path: str | Path, timeout_s: float = 5.0) -> None:
        self._path, self._timeout_s = str(path), timeout_s

    def asked(self) -> int:
        return boottime_ms()

    def renewed(self, asked_ms: int, duration_ms: int) -> None:
        with closing(sqlite3.connect(self._path, timeout=self._timeout_s)) as connection, connection:
            statement = "INSERT OR REPLACE INTO zaibei_lease (one, boot_id, until_ms) VALUES (1, ?, ?)"
            connection.execute(statement, (boot_id(), asked_ms + duration_ms))

    def cleared(self) -> None:
        with closing(sqlite3.connect(self._path, timeout=self._timeout_s)) as connection, connection:
            connection.execute("DELETE FROM zaibei_lease")
