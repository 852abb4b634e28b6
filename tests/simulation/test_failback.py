"""Failback under crashes (scenarios 35, 36, 53): started twice or interrupted anywhere it ends in one state, nothing is lost."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from replica.model.ladder import FREEZE_MS_MAX, Stage
from replica.model.ledger import Verdict
from replica.model.position import ORIGIN
from replica.takeover.failback import NEAR, NEARING_MS_MAX
from replica.takeover.ledger import Policy
from replica.v1 import entry_pb2
from tests.simulation.failback_world import MS, Scene

SEEDS = int(os.environ.get("ZAIBEI_SEEDS", "1000"))
STEPS = 120
HEALED_STEPS = 400


def chaos(scene: Scene) -> None:
    """Everything may happen; the seed says what."""
    chance, node = scene.chance, scene.node
    for _ in range(STEPS):
        act = chance.random()
        if act < 0.30:
            scene.lead()
        elif act < 0.45:
            scene.write_here()
        elif act < 0.60:
            scene.write_there()
        elif act < 0.75:
            scene.follow()
        elif act < 0.80:
            scene.meet()
        elif act < 0.84:
            scene.crash_in = chance.randrange(6)
        elif act < 0.88:
            node.up = not node.up
        elif act < 0.91:
            stop_writing(scene)
        elif act < 0.915 and node.holds is None and scene.group.state.ladder.stage < Stage.SOURCE_EQUAL:
            lose_disk(scene)
        elif act < 0.95:
            decide(scene)
        else:
            scene.now_ns += chance.choice((10, 1_000, 20_000)) * MS
        scene.now_ns += 20 * MS
        scene.withdraw() if chance.random() < 0.3 else None
        scene.reads() if chance.random() < 0.02 else None


def stop_writing(scene: Scene) -> None:
    """An operator at the node lets it follow: its own history ends."""
    node = scene.node
    if node.up and node.own is None:
        node.own = node.head


def lose_disk(scene: Scene) -> None:
    node = scene.node
    node.lost, node.own, node.follows, node.content, node.diverged, node.head = True, None, None, {}, [], ORIGIN


def decide(scene: Scene) -> None:
    ledger = scene.group.state.ledger
    waiting = [line.ident for line in scene.group.lines() if line.verdict is Verdict.HOLD]
    if ledger is not None and waiting:
        body = entry_pb2.LedgerDecision(
            common=ledger.common.to_wire(), lines=waiting[:1], accept=scene.chance.random() < 0.5, reason="test",
            approval=entry_pb2.Approval(operator="ann"),
        )  # fmt: skip
        scene.group.apply(entry_pb2.Entry(ledger_decision=body))


def heal(scene: Scene) -> None:
    """Nothing breaks any more: it must come to its end."""
    scene.crash_in, scene.node.up = None, True
    for _ in range(HEALED_STEPS):
        if scene.group.state.ladder.stage is Stage.NORMAL:
            return
        stop_writing(scene)
        scene.lead()
        decide(scene)
        for _ in range(4):
            scene.follow()
        scene.meet()
        scene.withdraw()
        scene.reads() if scene.chance.random() < 0.1 else None
        scene.now_ns += 200 * MS
        scene.failback.freezes = 0  # the operator orders again
    pytest.fail(f"it stands at {scene.group.state.ladder.stage.name}: {scene.failback.failure}")


def judge(scene: Scene, written: dict[tuple[bytes, int], bytes | None]) -> None:
    group, node = scene.group, scene.node
    assert node.content == group.content, "digest equal"
    lines = {(line.key, line.seq): line for line in group.lines()}
    for (one, seq), octets in written.items():
        line = lines.get((one, seq))
        assert line is not None and line.theirs == octets, "every diverged write is in the ledger with its value"
        assert line.verdict in (Verdict.NOTHING, Verdict.KEEP, Verdict.ENTERED, Verdict.STATED), "none is open"
    ledger = group.state.ledger
    assert ledger is not None and ledger.counts.open == 0
    assert Counter(line.kind for line in lines.values()).total() == ledger.counts.lines == len(lines)
    for one in {key for key, _ in lines} | set(scene.fate):
        value = group.content.get(one)
        words = [line.theirs for line in lines.values() if line.key == one and line.verdict is not Verdict.KEEP]
        assert one not in scene.fate or value in (*scene.fate[one][-1:], *words, *entered_before(scene, one)), "ours is lost"


def entered_before(scene: Scene, key: bytes) -> list[bytes | None]:
    return [line.theirs for line in scene.group.lines() if line.key == key]


@pytest.mark.parametrize("policy", list(Policy))
def test_it_ends_in_one_state_and_nothing_is_lost(policy: Policy) -> None:
    stages: Counter[Stage] = Counter()
    held_up = 0
    for seed in range(SEEDS // len(Policy)):
        scene = Scene(seed, policy)
        try:
            chaos(scene)
            heal(scene)
            judge(scene, {(write.key, write.seq): write.value for write in scene.node.diverged})
        except BaseException as exc:
            exc.add_note(f"seed {seed}, {policy}")
            raise
        stages.update(scene.group.stages)
        held_up += scene.held_up > 0
    assert held_up > SEEDS // len(Policy) // 10, "in some seeds its resolver was seen to answer from before"
    for stage in (Stage.FROZEN, Stage.SOURCE_EQUAL, Stage.HANDED_BACK, Stage.ACCEPTED, Stage.OBSERVED, Stage.NORMAL):
        assert stages[stage] >= SEEDS // len(Policy), f"{stage.name} was passed in every seed"
    assert stages[Stage.SERVING] > 0, "some attempts failed and led back"


def test_a_copy_that_comes_nearer_is_waited_for_before_anybody_has_to_wait() -> None:
    """Nobody registers while it is frozen, so what the source can fetch before, it fetches before."""
    for comes in (True, False):
        scene = Scene(1, Policy.OURS_WINS)
        while len(scene.group.own_writes) <= 3 * NEAR:
            scene.write_here()
        stop_writing(scene)
        for _ in range(30):  # the ledger first
            scene.lead()
        scene.follow()  # it began, and has nearly all before it
        scene.lead()
        assert scene.group.state.ladder.stage is Stage.CATCHING_UP
        if comes:
            for _ in range(4 * NEAR):
                scene.follow()
        else:  # changes go on as fast as it follows
            scene.now_ns += (NEARING_MS_MAX - 1) * MS
            scene.lead()
            assert scene.group.state.ladder.stage is Stage.CATCHING_UP
            scene.now_ns += 2 * MS
        scene.lead()
        assert scene.group.state.ladder.stage is Stage.FROZEN


def test_a_freeze_that_does_not_end_leads_back() -> None:
    scene = Scene(1, Policy.OURS_WINS)
    stop_writing(scene)
    for _ in range(30):
        if scene.group.state.ladder.stage is Stage.FROZEN:
            break
        scene.lead()
        scene.follow()
    assert scene.group.state.ladder.stage is Stage.FROZEN
    scene.node.follows = scene.common  # it never gets there
    scene.now_ns += (FREEZE_MS_MAX - 1) * MS
    scene.lead()
    assert scene.group.state.ladder.stage is Stage.FROZEN
    scene.now_ns += 2 * MS
    scene.lead()
    assert scene.group.state.ladder.stage is Stage.SERVING
    scene.write_here()
    assert scene.group.own_writes, "registrations go on"
