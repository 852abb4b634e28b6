"""Seeded climbs of the ladder: whatever crashes, pauses or is elected, one prefix and epoch has one writer (SEMANTICS 5).

Each rule is also taken out (PLANTED), and the same runs must then fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from replica.model import ladder, ladder_epochs, ladder_rules, ladder_words
from replica.model.group_state import GroupState
from replica.model.ladder import Stage
from replica.model.ladder_values import Judged, Moment, Moved
from replica.takeover import ladder as machine
from replica.v1 import entry_pb2
from tests.simulation.ladder_world import Broken, World

SEEDS = 1_000
SECONDS = 20.0


def run(seed: int) -> World:
    world = World(seed, fenced=seed % 4 != 0)
    world.run(SECONDS)
    return world


def test_one_writer_of_one_prefix_and_epoch_in_a_thousand_runs() -> None:
    served = fenced = 0
    for seed in range(SEEDS):
        try:
            world = run(seed)
        except Broken as exc:
            pytest.fail(f"seed {seed}: {exc}")
        assert not world.verdict(), f"seed {seed}: {world.verdict()}"
        served += Stage.SERVING in world.stages
        fenced += Stage.SERVING in world.stages and world.fenced
    assert served > SEEDS // 4, "the runs hardly ever took over: they prove nothing"
    assert fenced > SEEDS // 10, "hardly any takeover had a lease to wait for"


# -- each rule taken out


def _jumps_count(patch: pytest.MonkeyPatch) -> None:
    """A clock that jumped ahead earns its jump."""
    patch.setattr("replica.takeover.lease.LATE_NS_MAX", 10**18)


def _no_wait(patch: pytest.MonkeyPatch) -> None:
    """Neither leader nor members wait for the lease."""
    for module in (machine, ladder_epochs):
        patch.setattr(module, "lease_wait_ms", lambda _lease_ms: 0)


def _half_a_lease(patch: pytest.MonkeyPatch) -> None:
    """A lease is thought to end half way."""
    for module in (machine, ladder_epochs):
        patch.setattr(module, "lease_wait_ms", lambda lease_ms: lease_ms // 2)


def _renewed_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A lease is renewed after the approval, and behind the fence."""
    patch.setattr(ladder_words, "RENEWABLE", frozenset(Stage))


def _old_count(patch: pytest.MonkeyPatch) -> None:
    """Nobody compares which renewal the leader counted from, and leases are given while it waits."""
    real = ladder_epochs.fenced

    def fenced(group: GroupState, body: entry_pb2.Ladder, at: Moment) -> Judged:
        body.lease.renewed_index = group.ladder.lease_index
        return real(group, body, at)

    patch.setitem(ladder_rules._STAGES, Stage.FENCED, fenced)
    patch.setattr(ladder_words, "RENEWABLE", ladder.RENEWABLE | {Stage.APPROVED})


def _early_registrations(patch: pytest.MonkeyPatch) -> None:
    """Registrations are taken as soon as the act is approved, in the source's own epoch."""
    patch.setattr("tests.simulation.ladder_world.registrations_refused", lambda group: None if group.ladder.act else (0, ""))


def _same_epoch(patch: pytest.MonkeyPatch) -> None:
    """We become the authority without an epoch of our own."""

    def promoted(group: GroupState, body: entry_pb2.Ladder, at: Moment) -> Judged:
        done = ladder_epochs.promoted(group, body, at)
        return replace(done, group=replace(done.group, granted=group.granted)) if isinstance(done, Moved) else done

    patch.setitem(ladder_rules._STAGES, Stage.PROMOTED, promoted)


PLANTED: list[Callable[[pytest.MonkeyPatch], None]] = [
    _jumps_count,
    _no_wait,
    _half_a_lease,
    _renewed_for_ever,
    _old_count,
    _early_registrations,
    _same_epoch,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_the_runs_find_a_rule_that_is_off(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(SEEDS):
        try:
            if run(seed).verdict():
                return
        except Broken:
            return
    pytest.fail("a thousand runs found nothing")
