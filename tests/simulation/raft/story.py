"""A run as a file: JSON lines, the setting first, then one event a line. What failed once is kept as a story and replayed.

`python -m tests.simulation.raft.story FILE` replays one; `--seed N --write FILE` writes that of a seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from replica.model.errors import InvariantBroken
from tests.simulation.raft.checks import Violation
from tests.simulation.raft.schedule import events_of, setting_of
from tests.simulation.raft.world import Event, Setting, World


def text_of(setting: Setting, events: list[Event]) -> str:
    """The story of a run."""
    return "".join(json.dumps(line) + "\n" for line in [{"setting": asdict(setting)}, *events])


def read(text: str) -> tuple[Setting, list[Event]]:
    """A story's setting and events."""
    first, *events = (json.loads(line) for line in text.splitlines() if line and not line.startswith("#"))
    return Setting(**first["setting"]), events


def story_of(seed: int) -> tuple[Setting, list[Event]]:
    setting = setting_of(seed)
    return setting, events_of(seed, setting)


def play(setting: Setting, events: list[Event], world_type: type[World] = World) -> World:
    """Run a story to its end. Raises Violation."""
    world = world_type(setting)
    try:
        world.run(events)
    except Violation:
        raise
    except InvariantBroken as exc:
        raise Violation("core stopped", str(exc)) from exc
    except Exception as exc:
        raise Violation("crashed", f"{type(exc).__name__}: {exc}") from exc
    return world


def verdict(setting: Setting, events: list[Event], world_type: type[World] = World) -> str:
    """Name of the first violated invariant; "" when all held."""
    try:
        play(setting, events, world_type)
    except Violation as exc:
        return exc.name
    return ""


def shortened(setting: Setting, events: list[Event], world_type: type[World] = World) -> list[Event]:
    """The same failure with as few events as leaving out one after another allows."""
    name = verdict(setting, events, world_type)
    place = 0
    while place < len(events):
        fewer = events[:place] + events[place + 1 :]
        if verdict(setting, fewer, world_type) == name:
            events = fewer
        else:
            place += 1
    return events


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.raft.story")
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--shorten", action="store_true", help="leave out what the failure does not need")
    parser.add_argument("--history", action="store_true", help="print the clients' history as JSON lines")
    given = parser.parse_args(arguments)
    if given.file is None and given.seed is None:
        parser.error("a file or --seed")
    setting, events = read(given.file.read_text(encoding="utf-8")) if given.file else story_of(given.seed)
    if given.shorten:
        events = shortened(setting, events)
    if given.write:
        given.write.write_text(text_of(setting, events), encoding="utf-8")
    world = World(setting)
    try:
        world.run(events)
    except Violation as exc:
        print("\n".join(world.notes))
        print(f"story: FAILED at {world.now:.2f} ticks, step {world.steps}: {exc}")
        return 1
    if given.history:
        print("\n".join(world.clients.history()))
    print(f"story: held ({world.steps} steps, {world.messages} messages)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
