"""Seeded climbs of the ladder: whatever crashes, pauses or is elected, one prefix and epoch has one writer (SEMANTICS 5).

Each rule is also taken out (PLANTED), and the same runs must then fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from replica.model import ladder, ladder_epochs, ladder_rules, ladder_words
from replica.model.digest import ContentDigest
from replica.model.drained import Drained
from replica.model.group_state import GroupState
from replica.model.ladder import Stage
from replica.model.ladder_values import Judged, Moment, Moved
from replica.takeover import ladder as machine
from replica.takeover import switchover
from replica.v1 import entry_pb2
from tests.simulation.ladder_world import Broken, World

SEEDS = 1_000
SECONDS = 20.0
SWITCHES, SWITCH_SECONDS = 100, 15.0


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


def switch(seed: int) -> World:
    world = World(seed, fenced=True, switches=True)
    world.run(SWITCH_SECONDS)
    return world


def test_a_living_source_and_we_never_write_at_once_in_a_switchover() -> None:
    switched = aborted = 0
    for seed in range(SWITCHES):
        try:
            world = switch(seed)
        except Broken as exc:
            pytest.fail(f"seed {seed}: {exc}")
        assert not world.verdict(), f"seed {seed}: {world.verdict()}"
        switched += world.switched
        aborted += Stage.DRAINING in world.stages and not world.switched
    assert switched > SWITCHES // 4 and aborted > SWITCHES // 20, f"{switched} were switched over, {aborted} went on"


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


def _unasked(patch: pytest.MonkeyPatch) -> None:
    """A switchover closes the epoch without a word of the source."""
    patch.setattr(ladder_epochs, "_not_drained", lambda *_: "")

    def close(_self: switchover.Draining, state: GroupState, *_: object) -> switchover.Close:
        return switchover.Close(ContentDigest(state.position, 1, 0))

    patch.setattr(switchover.Draining, "next", close)


def _any_act(patch: pytest.MonkeyPatch) -> None:
    """A statement of an earlier act counts for the present one, in which the source writes again."""
    real = switchover.Draining.next

    def of_any(self: switchover.Draining, state: GroupState, drained: Drained | None, now_ns: int, now_ms: int) -> object:
        return real(self, state, None if drained is None else replace(drained, act=self.act), now_ns, now_ms)

    patch.setattr(switchover.Draining, "next", of_any)


def _old_answers(patch: pytest.MonkeyPatch) -> None:
    """A drained guard takes a lease that it asked for before."""
    patch.setattr(World, "HEEDS_OLD_ANSWERS", True)


PLANTED: list[Callable[[pytest.MonkeyPatch], None]] = [
    _jumps_count,
    _no_wait,
    _half_a_lease,
    _renewed_for_ever,
    _old_count,
    _early_registrations,
    _same_epoch,
]
SWITCH_PLANTED = [_unasked, _any_act, _old_answers]


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


@pytest.mark.parametrize("plant", SWITCH_PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_switchovers_find_a_rule_that_is_off(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    for seed in range(10 * SWITCHES):
        try:
            if switch(seed).verdict():
                return
        except Broken:
            return
    pytest.fail("a thousand runs found nothing")
