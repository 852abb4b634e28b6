"""Golden stories of a takeover: `>` lines happen, the lines below them are what the machine did.

To accept changed behaviour run with UPDATE_STORIES=1, and only when you understand what caused it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from replica.model.states import FeedState
from replica.takeover.detector import MS, Verdict
from replica.takeover.machine import Alarm, Commit, Order, Publish
from replica.takeover.overlay import live_overlays
from tests.unit.takeover.test_machine import Bench

STORIES = sorted(Path(__file__).parent.glob("*.txt"))
STEPS_MAX = 30


class Teller(Bench):
    """Steps the machine and says what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def tell(self) -> None:
        """Step until nothing is left to do; say each phase once, each part, each alarm once."""
        for _ in range(STEPS_MAX):
            steps = self.machine.step(self.world)
            self._say(f"phase {self.machine.phase.value}")
            for step in steps:
                self._say(self._words(step))
            before = (self.state, dict(self.standings))
            self.step()
            if (self.state, self.standings) == before:
                return

    def _say(self, line: str) -> None:
        if line not in self.told:
            self.told.append(line)

    def _words(self, step: Commit | Publish | Alarm) -> str:
        if isinstance(step, Alarm):
            return f"alarm {step.code}: {step.text}"
        if isinstance(step, Publish):
            word = "withdraw" if step.publication.withdrawn else f"publish {len(step.publication.sites)} sites of"
            return f"{step.adapter}: {word} {step.publication.prefix} serial {step.publication.serial}"
        if step.entry.WhichOneof("body") == "authority":
            return f"commit authority {step.entry.authority.act}"
        return f"commit {step.what}"

    def do(self, words: list[str]) -> None:
        getattr(self, f"do_{words[0].replace('-', '_')}")(*words[1:])

    def do_dead(self) -> None:
        self.dead()

    def do_alive(self) -> None:
        self.alive()

    def do_silent(self) -> None:
        self.verdict = Verdict.SUSPECT

    def do_feed(self, name: str) -> None:
        self.state = replace(self.state, feed=FeedState[name.upper()])

    def do_wait(self, ms: str) -> None:
        self.step()
        self.now += int(ms) * MS

    def do_restart(self) -> None:
        self.restarted()

    def do_adapter(self, name: str, how: str) -> None:
        self.adapters[name].down = how == "down"

    def do_order(self, what: str, act: str) -> None:
        self.machine.order = Order(what == "take", act, "by hand")

    def do_look(self) -> None:
        """Nothing happens: what does the world look like?"""
        self.told.append(f"authority {self.state.authority.name.lower()} {self.state.authority_act}")
        for prefix, overlay in live_overlays(self.state).items():
            self.told.append(f"overlay {prefix!r} serial {overlay.serial}, {len(overlay.sites)} sites")


def tell(text: str) -> str:
    """The story told anew."""
    teller, out = Teller(), []
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            out.append(line)
        elif line.startswith(">"):
            out.append(line)
            teller.told = []
            words = line[1:].split()
            teller.do(words)
            if words[0] != "look":
                teller.tell()
            out += [f"    {told}" for told in teller.told]
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_story(story: Path) -> None:
    text = story.read_text(encoding="utf-8")
    told = tell(text)
    if os.environ.get("UPDATE_STORIES"):
        story.write_text(told, encoding="utf-8")
    assert told == text


def test_there_are_stories() -> None:
    assert len(STORIES) >= 5
