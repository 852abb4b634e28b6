"""A store whose process is killed at full speed reopens at exactly a position it had (SEMANTICS 11.2)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from replica.store import SourceStore
from tests.unit.store.support import SOURCE, Group, Source, delete, held, put, small_budget

ROOT = Path(__file__).resolve().parents[2]
KILLS = 6


def changes(step: int) -> list:  # type: ignore[type-arg]
    """The same in every process: puts, rewrites and deletes over a few thousand keys."""
    start = step * 97 % 3_000
    return [put(start + n, f"https://example.cn/{step}/{n}" * 4) for n in range(150)] + [
        delete((start * 7 + n) % 3_000) for n in range(20)
    ]


def write_until_killed(folder: str) -> None:
    """The child: goes on from where the store stands; says each durable index on standard output."""
    store = SourceStore.open(Path(folder) / "s", SOURCE, small_budget(Path(folder), memtable_octets=1 << 20))
    source, group = Source(), Group(store)
    applied = store.applied()[0]
    group.store = Nothing()  # type: ignore[assignment]
    group.grant(source.grant())
    for step in range(applied - 1):
        group.append(source.cut(changes(step)))
    group.store = store
    if not applied:
        store.apply(group.log)
    step = max(0, applied - 1)
    while True:
        while True:
            try:
                group.append(source.cut(changes(step)))
            except ZaibeiBusy:
                group.log.pop()
                source.batches.pop()
                raise
            break
        step += 1
        if step % 23 == 0:
            sys.stdout.write(f"{store.flush()}\n")
            sys.stdout.flush()


class ZaibeiBusy(Exception):
    """Never raised: the small budget's memtables are large enough for one writer."""


class Nothing:
    """Takes entries and forgets them: the child rebuilds the source's side of the story."""

    def apply(self, entries: list) -> list:  # type: ignore[type-arg]
        return [None for _ in entries]


def run_and_kill(folder: Path, lines: int) -> int:
    """Start a writer, kill it after it said so many durable indexes; returns the last one it said."""
    code = f"from tests.integration.test_store_kill import write_until_killed; write_until_killed({str(folder)!r})"
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert child.stdout is not None
    durable = 0
    for _ in range(lines):
        line = child.stdout.readline()
        assert line, "the writer ended by itself"
        durable = int(line)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    return durable


def expected(index: int) -> Source:
    source = Source()
    source.grant()
    for step in range(index - 1):
        source.cut(changes(step))
    return source


@pytest.mark.timeout(100)
def test_killed_at_full_speed_it_stands_exactly_where_it_was(tmp_path: Path) -> None:
    budget = small_budget(tmp_path)
    reached = 0
    for kill in range(KILLS):
        durable = run_and_kill(tmp_path, 1 + kill % 3)
        store = SourceStore.open(tmp_path / "s", SOURCE, budget)
        index, _ = store.applied()
        source = expected(index)
        assert index >= durable > reached
        assert store.state().position == source.head
        assert held(store) == source.content
        assert store.digest_at(source.head) == source.digest()
        assert store.live_records(b"") == len(source.content)
        assert store.changes_after(source.batches[-5].before, 10**9) == [batch.raw for batch in source.batches[-5:]]
        reached = index
        store.close()
