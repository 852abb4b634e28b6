"""Takeover's entries through the real store: the memory twin says what it says, and a reopened store resumes a takeover."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from replica.model.group_state import GroupState
from replica.model.identifier import prefix_key
from replica.model.outcome import LogEntry, OutcomeKind
from replica.model.states import Authority
from replica.store.edge_rocks import StoreBudget
from replica.store.edge_store import SourceStore
from replica.takeover.detector import Verdict
from replica.takeover.machine import Phase, phase_of
from replica.takeover.overlay import authority_entry, overlay_entry
from replica.takeover.ports import applied
from replica.v1 import entry_pb2, source_pb2
from tests.unit.takeover.test_machine import NODE, OWN

P = prefix_key("88.118.8")
SHADOW = prefix_key("88.999.drill")
OWNERSHIP = entry_pb2.Entry(
    format=1, ownership=entry_pb2.Ownership(version=1, prefixes=["88.118.8"], mode=source_pb2.Description.Mode.MODE_RECORDS)
)
STORY = [
    authority_entry(Authority.RESOLUTION, "auto:s:1", "probes failed", at_ms=1),
    overlay_entry(P, (OWN, NODE), 8, "auto:s:1", at_ms=2),
    overlay_entry(P, (OWN,), 8, "auto:s:1", at_ms=2),  # the serial does not rise: refused
    overlay_entry(SHADOW, (OWN,), 9, "drill:1", shadow=True, at_ms=3),
    overlay_entry(SHADOW, (), 10, "drill:1", withdrawn=True, shadow=True, at_ms=4),
    authority_entry(Authority.RESOLUTION, "return:auto:s:1", "alive", at_ms=5),
    overlay_entry(P, (), 10, "return:auto:s:1", withdrawn=True, at_ms=6),  # refused
    overlay_entry(P, (), 11, "return:auto:s:1", withdrawn=True, at_ms=6),
    authority_entry(Authority.SOURCE, "returned:auto:s:1", "given back", at_ms=7),
]
SEEN = ("authority", "authority_act", "overlays", "serial_highest")


def part(state: GroupState) -> tuple[object, ...]:
    return tuple(getattr(state, name) for name in SEEN)


@pytest.fixture
def budget(tmp_path: Path) -> StoreBudget:
    return StoreBudget(tmp_path)


def test_the_memory_twin_agrees_with_the_store(tmp_path: Path, budget: StoreBudget) -> None:
    store = SourceStore.open(tmp_path / "s", "s", budget)
    store.apply([LogEntry(1, 1, OWNERSHIP.SerializeToString())])
    twin = store.state()
    for index, entry in enumerate(STORY, 2):
        outcome = store.apply([LogEntry(index, 1, entry.SerializeToString())])[0]
        twin, kind = applied(twin, entry)
        assert outcome.kind is kind, (index, outcome)
        assert part(store.state()) == part(twin), index
    assert sum(applied(replace(twin, serial_highest=99), entry)[1] is OutcomeKind.CONFLICT for entry in STORY) == 6
    store.close()


def test_a_takeover_survives_every_restart_of_the_store(tmp_path: Path, budget: StoreBudget) -> None:
    phases = []
    for index, entry in enumerate([OWNERSHIP, *STORY], 1):
        store = SourceStore.open(tmp_path / "s", "s", budget)
        store.apply([LogEntry(index, 1, entry.SerializeToString())])
        before = part(store.state())
        store.close()
        again = SourceStore.open(tmp_path / "s", "s", budget)
        assert part(again.state()) == before
        phases.append(phase_of(again.state(), Verdict.ALIVE, found=False))
        again.close()
    assert phases == [
        Phase.NORMAL,
        Phase.TAKING_OVER,
        *[Phase.TAKEN_OVER] * 4,
        *[Phase.WITHDRAWING] * 3,
        Phase.NORMAL,
    ]
