"""The peer: a PostgreSQL cluster of our own in the benchmark's folder, where its programs are installed.

Durable (fsync on). Logical apply is its replication of the very same transactions from one database to another of the cluster;
its apply worker commits without waiting for the disk (synchronous_commit off, its default), which ours never does.
"""

from __future__ import annotations

import os
import pwd
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.bench.bench import Bench
from ops.bench.synthetic import record

FOLDERS = ("/usr/local/bin", "/usr/bin")
BATCH = 1_000
BATCHES_MAX = 300  # of one run: it is the slower one
START_S_MAX, APPLY_S_MAX = 30, 120
POLL_S = 0.02
SETTINGS = {
    "listen_addresses": "", "wal_level": "logical", "fsync": "on", "synchronous_commit": "on", "shared_buffers": "256MB",
    "max_wal_size": "4GB", "jit": "off", "logging_collector": "off", "max_logical_replication_workers": "2",
}  # fmt: skip
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TABLE = "create table identifiers (key bytea primary key, value bytea not null)"


def programs() -> Path | None:
    """Folder with `initdb` and `postgres`; None: not installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for folder in (*versions, *map(Path, FOLDERS)):
        if all((folder / name).exists() for name in ("initdb", "postgres", "psql")):
            return folder
    return None


class Postgres:
    """A running cluster. `copy` fills the published table anew, `logical_apply` then replicates it."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self._folder, self._tools = folder, tools
        self._as = self._other_user()
        version = subprocess.run([tools / "postgres", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
        self.name = f"PostgreSQL {version}"
        self._files: list[Path] = []
        self._records = 0
        self._server: subprocess.Popen[bytes] | None = None

    @staticmethod
    @contextmanager
    def if_installed(bench: Bench) -> Iterator[Postgres | None]:
        """A cluster, or None."""
        tools = programs()
        if tools is None or (os.geteuid() == 0 and shutil.which("setpriv") is None):
            yield None
            return
        with bench.room() as room:
            bench.tell("PostgreSQL, the peer, starts")
            peer = Postgres(room, tools)
            peer.start()
            try:
                yield peer
            finally:
                peer.stop()

    def _other_user(self) -> list[str]:
        """PostgreSQL refuses to run as root: the words that run it as somebody else, who then owns the folder."""
        if os.geteuid() != 0:
            return []
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        who = names.get("postgres") or names["nobody"]
        os.chown(self._folder, who.pw_uid, who.pw_gid)
        return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups"]

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [*self._as, str(self._tools / program), *arguments], capture_output=True, text=True, cwd=self._folder, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr[-2_000:]}")
        return done.stdout.strip()

    def _sql(self, database: str, *statements: str) -> str:
        words = [word for statement in statements for word in ("-c", statement)]
        return self._run("psql", "-h", str(self._folder), "-U", "bench", "-d", database, "-qAtX", "-v", "ON_ERROR_STOP=1", *words)

    def start(self) -> None:
        data = self._folder / "cluster"
        self._run("initdb", "-D", str(data), "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        options = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        self._server = subprocess.Popen(
            [*self._as, str(self._tools / "postgres"), "-D", str(data), "-k", str(self._folder), *options],
            cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + START_S_MAX
        while True:
            try:
                self._sql("postgres", "create database origin")
                break
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        self._sql("postgres", "create database copy")
        self._sql("origin", _TABLE, "create publication all_of_it for table identifiers")
        self._sql("copy", _TABLE)

    def stop(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait()

    def copy(self, batches: int) -> float:
        """Binary COPY of batches of 1,000, a durable transaction each, into an empty table; records a second."""
        self._write_files(min(batches, BATCHES_MAX))
        self._sql("origin", "truncate identifiers", "checkpoint")
        self._sql("origin", "select pg_create_logical_replication_slot('way', 'pgoutput')")
        script = self._folder / "copy.sql"
        script.write_text("\n".join(f"\\copy identifiers from '{path}' with (format binary)" for path in self._files))
        script.chmod(0o644)
        began = time.perf_counter()
        self._run(
            "psql", "-h", str(self._folder), "-U", "bench", "-d", "origin", "-qX", "-v", "ON_ERROR_STOP=1", "-f", str(script)
        )
        return self._records / (time.perf_counter() - began)

    def _write_files(self, batches: int) -> None:
        if self._files:
            return
        for number in range(batches):
            path = self._folder / f"batch-{number}"
            rows = [record(one) for one in range(number * BATCH, (number + 1) * BATCH)]
            parts = [struct.pack(">HI", 2, len(key)) + key + struct.pack(">I", len(value)) + value for key, value in rows]
            path.write_bytes(b"".join((_COPY_HEADER, *parts, b"\xff\xff")))
            self._files.append(path)
        self._records = batches * BATCH

    def logical_apply(self) -> float:
        """Replicate what `copy` wrote, transaction by transaction; records a second."""
        end = self._sql("origin", "select pg_current_wal_lsn()")
        self._sql("copy", "truncate identifiers", "checkpoint")
        began = time.perf_counter()
        self._sql(
            "copy",
            f"create subscription way connection 'host={self._folder} dbname=origin user=bench' publication all_of_it "
            "with (create_slot = false, slot_name = 'way', copy_data = false)",
        )
        until = time.monotonic() + APPLY_S_MAX
        done = f"select confirmed_flush_lsn >= '{end}' from pg_replication_slots where slot_name = 'way'"
        while self._sql("origin", done) != "t":
            if time.monotonic() > until:
                raise RuntimeError("PostgreSQL did not catch up in time")
            time.sleep(POLL_S)
        took = time.perf_counter() - began
        count = int(self._sql("copy", "select count(*) from identifiers"))
        if count != self._records:
            raise RuntimeError(f"PostgreSQL applied {count} of {self._records} records")
        self._sql("copy", "drop subscription way")  # takes the slot along
        return self._records / took
