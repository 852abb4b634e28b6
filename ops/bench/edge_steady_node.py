"""A registry that changes at a steady pace, in a process of its own: `python -m ops.bench.edge_steady_node CONFIG.json`.

Prints {"ready": true}; one line of JSON on standard input, {"at_ns", "seconds"}, lets it begin at that moment (CLOCK_MONOTONIC).
Then it commits `changes` new names every `every_ms`, whatever became of those before, and prints how each ended:
{"told_ns": [...], "covered_ns": [...], "uncovered", "late_ms"}. Told is when `commit` returned: on its own disk.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from pathlib import Path

import msgspec

from replica.agent.records import record_of
from replica.client import Publisher
from replica.client.publisher import Receipt
from replica.model.batch import OP_PUT, Change
from replica.model.edge_collector import settle
from replica.model.handle.values import HandleValue

LOOK_S = 0.004
COVERED_S_MAX = 10.0  # after the last one


class SteadyConfig(msgspec.Struct, forbid_unknown_fields=True):
    """publisher: its TOML file; prefix: of its names; changes in a transaction; every_ms: between two of them."""

    publisher: str
    prefix: str
    changes: int
    every_ms: int


class Watch(threading.Thread):
    """Sees receipts come, in order."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.waiting: deque[Receipt] = deque()
        self.covered_ns: list[int] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            now_ns = time.monotonic_ns()
            while self.waiting and self.waiting[0].done:
                self.waiting.popleft()
                self.covered_ns.append(now_ns)
            time.sleep(LOOK_S)


def play(publisher: Publisher, config: SteadyConfig, at_ns: int, seconds: float) -> dict[str, object]:
    """Register for so long."""
    turns = int(seconds * 1_000 / config.every_ms)
    made = [_changes(publisher, config, turn * config.changes) for turn in range(turns)]  # a registry's own work, done before
    watch, told_ns, late_ns = Watch(), list[int](), 0
    watch.start()
    for turn, changes in enumerate(made):
        due_ns = at_ns + turn * config.every_ms * 1_000_000
        time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
        late_ns = max(late_ns, time.monotonic_ns() - due_ns)
        for change in changes:
            publisher._add(change)
        receipt = publisher.commit()
        told_ns.append(time.monotonic_ns())
        watch.waiting.append(receipt)
    until = time.monotonic() + COVERED_S_MAX
    while watch.waiting and time.monotonic() < until:
        time.sleep(LOOK_S)
    watch.over.set()
    watch.join()
    uncovered = len(told_ns) - len(watch.covered_ns)
    return {"told_ns": told_ns, "covered_ns": watch.covered_ns, "uncovered": uncovered, "late_ms": late_ns / 1e6}


def _changes(publisher: Publisher, config: SteadyConfig, first: int) -> list[Change]:
    """What `Publisher.put` makes of new names."""
    made = list[Change]()
    for number in range(first, first + config.changes):
        key, spelling = publisher._config.naming.key(f"{config.prefix}/NEW-{number}")
        made.append(
            Change(OP_PUT, key, record_of([HandleValue(1, b"URL", f"https://example.cn/new/{number}".encode())], spelling))
        )
    return made


def main() -> None:
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=SteadyConfig)
    settle()
    with Publisher(config.publisher) as publisher:
        publisher.put(f"{config.prefix}/FIRST", {"URL": "https://example.cn/first"})
        publisher.commit()
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            print(json.dumps(play(publisher, config, int(order["at_ns"]), float(order["seconds"]))), flush=True)


if __name__ == "__main__":
    main()
