"""`make soak SEEDS=n START=s`: seeds on all cores, one process each; ends with `N passed, N failed`.

The first failing seed is printed with the commit it ran on and the command that replays it; exit code 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.raft.checks import Violation
from tests.simulation.raft.story import play, story_of

ROOT = Path(__file__).resolve().parents[3]
CHUNK = 25  # seeds a process takes at once


@dataclass(slots=True)
class Result:
    """Of a chunk of seeds."""

    seeds: int = 0
    steps: int = 0
    messages: int = 0
    failed: list[tuple[int, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def run_seeds(start: int, count: int) -> Result:
    """Run seeds one after another."""
    result = Result()
    for seed in range(start, start + count):
        result.seeds += 1
        try:
            world = play(*story_of(seed))
        except Violation as exc:
            result.failed.append((seed, str(exc)))
            continue
        result.steps += world.steps
        result.messages += world.messages
        result.counts.update(world.counts)
    return result


def results(start: int, seeds: int, processes: int) -> Iterator[Result]:
    chunks = [(first, min(CHUNK, start + seeds - first)) for first in range(start, start + seeds, CHUNK)]
    if processes == 1:
        for chunk in chunks:
            yield run_seeds(*chunk)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(run_seeds, *zip(*chunks, strict=True))


def commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.raft.soak")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    total, begun, shown = Result(), time.monotonic(), 0.0
    for result in results(given.start, given.seeds, given.processes):
        total.seeds += result.seeds
        total.steps += result.steps
        total.messages += result.messages
        total.counts += result.counts
        total.failed += result.failed
        for seed, why in result.failed:
            print(f"soak: seed {seed}: {why}", flush=True)
        now = time.monotonic()
        if now - shown > 5 or total.seeds == given.seeds:
            shown = now
            a_minute = total.seeds / (now - begun) * 60
            print(f"soak: {total.seeds}/{given.seeds} seeds, {len(total.failed)} failed, {a_minute:.0f} a minute", flush=True)
    seconds = time.monotonic() - begun
    print(f"soak: {total.steps} steps, {total.messages} messages of cores ({total.messages / seconds:.0f}/s); "
          + ", ".join(f"{count} {what}" for what, count in sorted(total.counts.items())))  # fmt: skip
    if total.failed:
        seed = min(total.failed)[0]
        print(f"soak: first failing seed {seed}, commit {commit()}")
        print(f"soak: replay: .venv/bin/python -m tests.simulation.raft.story --seed {seed}")
    print(f"{total.seeds - len(total.failed)} passed, {len(total.failed)} failed")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
