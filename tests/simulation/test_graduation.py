"""Graduation under crashes, silence and aborts: one writer at every moment, and it ends equal or exactly as it was."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import pytest

from replica.model import ladder_rules
from replica.model.group_state import GroupState
from replica.model.ladder import Stage
from replica.model.ladder_epochs import plain
from replica.model.ladder_values import Judged, Moved
from replica.model.position import ORIGIN
from replica.takeover.failback import Wish
from tests.simulation.failback_world import MS
from tests.simulation.graduation_scene import Leaving

SEEDS = int(os.environ.get("ZAIBEI_SEEDS", "200"))
STEPS, HEALED_STEPS = 120, 200


def begin(scene: Leaving) -> None:
    """At the node: it follows from now on."""
    if scene.node.up and scene.node.own is None:
        scene.node.own = scene.node.head


def lose_disk(scene: Leaving) -> None:
    node = scene.node
    if node.holds is None and scene.group.state.ladder.stage < Stage.SOURCE_EQUAL:
        node.own, node.follows, node.content, node.head = None, None, {}, ORIGIN


def chaos(scene: Leaving) -> None:
    """Everything may happen; the seed says what."""
    chance, node = scene.chance, scene.node
    for _ in range(STEPS):
        act = chance.random()
        if act < 0.30:
            scene.lead()
        elif act < 0.50:
            scene.write_here()
        elif act < 0.55:
            scene.write_there()
        elif act < 0.75:
            scene.follow()
        elif act < 0.79:
            scene.meet()
        elif act < 0.83:
            scene.crash_in = chance.randrange(6)
        elif act < 0.86:
            node.up = not node.up
        elif act < 0.90:
            begin(scene)
        elif act < 0.91:
            lose_disk(scene)
        elif act < 0.95:
            scene.order(chance.choice((Wish.ABORT, Wish.RETURN)))
        else:
            scene.now_ns += chance.choice((10, 1_000, 20_000)) * MS
        scene.now_ns += 20 * MS
        scene.withdraw() if chance.random() < 0.3 else None
        scene.reads() if chance.random() < 0.02 else None
        scene.check()


def heal(scene: Leaving) -> None:
    """Nothing breaks any more, and it is ordered again: it must come to its end."""
    scene.crash_in, scene.node.up = None, True
    scene.order(Wish.RETURN)
    for _ in range(HEALED_STEPS):
        state = scene.group.state
        if state.ladder.stage is Stage.NORMAL and not state.lives_here:
            return
        begin(scene)
        scene.lead()
        for _ in range(4):
            scene.follow()
        scene.write_here()  # clients go on
        scene.meet()
        scene.withdraw()
        scene.reads()
        scene.now_ns += 200 * MS
        scene.failback.freezes = 0  # the operator orders again
        scene.check()
    pytest.fail(f"it stands at {scene.group.state.ladder.stage.name}: {scene.failback.failure}")


def judge(scene: Leaving) -> None:
    content = scene.group.content
    assert scene.node.content == content, "digest equal"
    wanted = {one: words[-1] for one, words in scene.fate.items() if words[-1] is not None}
    assert content == wanted, "what was acknowledged is held, and nothing else"


def play(seed: int) -> Leaving:
    scene = Leaving(seed)
    try:
        chaos(scene)
        heal(scene)
        judge(scene)
    except BaseException as exc:
        exc.add_note(f"seed {seed}")
        raise
    return scene


def test_it_ends_equal_and_an_attempt_that_failed_left_nothing() -> None:
    stages: Counter[Stage] = Counter()
    for seed in range(SEEDS):
        stages.update(play(seed).group.stages)
    for stage in (Stage.FROZEN, Stage.SOURCE_EQUAL, Stage.HANDED_BACK, Stage.ACCEPTED, Stage.OBSERVED):
        assert stages[stage] >= SEEDS, f"{stage.name} was passed in every seed"
    assert stages[Stage.NORMAL] > SEEDS, "some attempts failed and led back"
    assert stages[Stage.SERVING] == 0, "and never to where a source stands that was taken over"


def test_a_node_that_wrote_by_itself_is_not_begun_with() -> None:
    scene = Leaving(1)
    scene.node.own = scene.node.head = replace(ORIGIN, seq=3, chain=b"o" * 32)
    for _ in range(50):
        scene.lead()
        scene.write_here()
        scene.follow()
    assert scene.group.state.ladder.stage is Stage.RETURN_REQUESTED and scene.node.follows is None
    scene.order(Wish.ABORT)
    scene.lead()
    assert scene.group.state.ladder.stage is Stage.NORMAL
    scene.check()


# -- each rule switched off is found


def red(seeds: int = 60) -> None:
    """Some seed finds it."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        for seed in range(seeds):
            play(seed)


def test_red_where_the_contents_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ladder_rules._STAGES, Stage.SOURCE_EQUAL, plain)
    follow = Leaving.follow

    def damaged(scene: Leaving) -> None:
        before = scene.node.follows
        follow(scene)
        if before != scene.node.follows and scene.node.content and scene.chance.random() < 0.1:
            scene.node.content.popitem()  # a disk that forgets, and says so to nobody

    monkeypatch.setattr(Leaving, "follow", damaged)
    red()


def test_red_where_registrations_go_on_during_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = frozenset({*Stage})
    monkeypatch.setattr("tests.simulation.graduation_scene.REGISTERING", frozen)
    red()


def test_red_where_an_attempt_that_failed_leaves_something(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaves(group: GroupState) -> Judged:
        return Moved(group)

    monkeypatch.setattr(ladder_rules, "stays", leaves)
    red()


def test_red_where_what_fails_leads_to_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GroupState, "home", property(lambda _: Stage.SERVING))
    red()  # the rule at apply refuses it, so it never comes to its end
