"""The table of planted bugs in ops/docs/simulation.md: looked for, written, read.

`python -m tests.simulation.raft.table [--seconds N]` keeps each row that still holds, looks for the others up to N seconds of CPU
time each, and writes the table. A plant for which no red seed was found stands below the table by name.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.raft.named import SCHEDULES, schedule
from tests.simulation.raft.planted import PLANTS
from tests.simulation.raft.story import story_of, verdict
from tests.simulation.raft.world import Event, Setting

PAGE = Path(__file__).resolve().parents[3] / "ops" / "docs" / "simulation.md"
BEGIN, END = "<!-- planted: written by `python -m tests.simulation.raft.table` -->", "<!-- end of planted -->"
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| (?:schedule `([^`]+)`, )?seed (\d+) \| ([^|]+) \|$")
SEEDS_MAX = 100_000
# A member that stops, or a group that stands still, is what often becomes of a bug that another rule caught: no proof by itself.
STANDING_STILL = frozenset({"liveness", "core stopped"})


@dataclass(frozen=True, slots=True)
class Red:
    """A planted bug and the run that it turns red. `story`: named schedule; "": the seed's own."""

    rule: str
    name: str
    story: str
    seed: int
    invariant: str

    def line(self) -> str:
        where = f"schedule `{self.story}`, " if self.story else ""
        return f"| {self.rule} | {self.name} | {where}seed {self.seed} | {self.invariant} |"


def run_of(story: str, seed: int) -> tuple[Setting, list[Event]]:
    return schedule(story, seed) if story else story_of(seed)


def rows() -> list[Red]:
    """The table as the page has it."""
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        match = ROW.match(line)
        if match:
            rule, name, story, seed, invariant = match.groups()
            found.append(Red(rule, name, story or "", int(seed), invariant))
    return found


def fault(name: str, story: str, seed: int) -> str:
    """The invariant by which a planted bug shows itself in a run; "" when the run says nothing about it."""
    plant = PLANTS[name]
    found = verdict(*run_of(story, seed), plant.make())
    if not found or found == "crashed" or (found in STANDING_STILL and not plant.stands_still):
        return ""
    if plant.beside is not None and verdict(*run_of(story, seed), plant.beside()):
        return ""
    return found


def search(name: str, known: Red | None, seconds: float) -> Red | None:
    """The row of a plant: the known one when it still holds, else the first red seed."""
    plant, begun = PLANTS[name], time.process_time()
    if known is not None and known.rule == plant.rule and fault(name, known.story, known.seed) == known.invariant:
        return known
    for seed in range(SEEDS_MAX):
        invariant = fault(name, plant.story, seed)
        if invariant:
            return Red(plant.rule, name, plant.story, seed, invariant)
        if time.process_time() - begun > seconds:
            return None
    return None


def text_of(reds: Iterable[Red], missing: list[str]) -> str:
    lines = [
        BEGIN,
        "| rule | planted | run | first violated invariant |",
        "| --- | --- | --- | --- |",
        *(red.line() for red in reds),
    ]
    if missing:
        lines += ["", "Not turned red by any run yet: " + "; ".join(missing) + "."]
    return "\n".join([*lines, END])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.raft.table")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU seconds for each plant without a row")
    given = parser.parse_args(arguments)
    known = {red.name: red for red in rows()}
    reds: list[Red] = []
    missing: list[str] = []
    for name in PLANTS:
        red = search(name, known.get(name), given.seconds)
        print(red.line() if red else f"none: {name}", flush=True)
        if red:
            reds.append(red)
        else:
            missing.append(name)
    page = PAGE.read_text(encoding="utf-8")
    begin, end = page.index(BEGIN), page.index(END) + len(END)
    PAGE.write_text(page[:begin] + text_of(reds, missing) + page[end:], encoding="utf-8")
    print(f"table: {len(reds)} red, {len(missing)} not, {len(SCHEDULES)} schedules")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
