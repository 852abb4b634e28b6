"""Some hundred seeds, their speed, and stories. More: `make soak SEEDS=20000`, or ZAIBEI_SEEDS=2000."""

from __future__ import annotations

import os

import pytest

from tests.simulation.raft.planted import PLANTS
from tests.simulation.raft.schedule import MAKERS, PRESSED, PROFILES, events_of, setting_of
from tests.simulation.raft.soak import main, run_seeds
from tests.simulation.raft.story import play, read, shortened, story_of, text_of, verdict
from tests.simulation.raft.table import rows, run_of

SEEDS = int(os.environ.get("ZAIBEI_SEEDS", "240"))
PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_seeds(part: int) -> None:
    count = SEEDS // PARTS
    result = run_seeds(part * count, count)
    assert result.failed == []
    assert result.steps > count * 500


def test_a_seed_is_the_same_run_each_time() -> None:
    one, two = play(*story_of(7)), play(*story_of(7))
    assert (one.steps, one.messages, one.notes) == (two.steps, two.messages, two.notes)
    assert one.clients.history() == two.clients.history()


def test_a_story_is_the_run_it_was_written_from() -> None:
    setting, events = story_of(11)
    told = read(text_of(setting, events))
    assert told == (setting, events)
    assert play(*told).notes == play(setting, events).notes


def test_a_failing_story_is_shortened() -> None:
    red = next(red for red in rows() if red.name == "votes without looking at the log")
    world = PLANTS[red.name].make()
    setting, events = run_of(red.story, red.seed)
    fewer = shortened(setting, events, world)
    assert len(fewer) < len(events)
    assert verdict(setting, fewer, world) == red.invariant


def test_every_kind_of_fault_happens_in_some_seed() -> None:
    kinds = {event["do"] for seed in range(400) for event in events_of(seed, setting_of(seed))}
    assert kinds == set(MAKERS)
    assert set(PROFILES) == {"", *PRESSED}


def test_soak_says_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "4", "--start", "40", "--processes", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 passed, 0 failed"
