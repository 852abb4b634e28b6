"""Resolution takeover and return: every step in order, every prefix of the steps as if the process died there."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from replica.model.errors import InvariantBroken
from replica.model.group_state import GroupState
from replica.model.identifier import prefix_key
from replica.model.ladder import Ladder, Stage
from replica.model.outcome import OutcomeKind
from replica.model.states import Authority, FeedState
from replica.takeover.detector import MS, Verdict
from replica.takeover.machine import (
    HELD_OFF,
    MOVES,
    RETURNING,
    Alarm,
    Commit,
    Order,
    Phase,
    Policy,
    Publish,
    Takeover,
    World,
)
from replica.takeover.overlay import live_overlays, site_serial
from replica.takeover.ports import applied
from replica.takeover.publish import MemoryPublisher, Publisher, Standing

OWN = bytes.fromhex("0001020b0001800200000000000000000000000100000001" + "00" * 12 + "7f000001" + "00000000" + "00000000")
NODE = bytes.fromhex("0001020b0007800200000000000000000000000100000001" + "00" * 12 + "7f000002" + "00000000" + "00000000")
P1, P2 = prefix_key("88.118.8"), prefix_key("88.118.9")
READY = GroupState("s", ready=True, verified=True, prefixes=(P1, P2), records=10)


class Bench:
    """A machine over plain values: commits apply at once, publications go to memory adapters."""

    def __init__(self, state: GroupState = READY, policy: Policy | None = None, adapters: int = 1) -> None:
        self.policy = policy or Policy()
        self.state = state
        self.adapters: dict[str, MemoryPublisher] = {f"r{place}": MemoryPublisher(f"r{place}") for place in range(adapters)}
        self.standings: dict[tuple[str, str], Standing] = {}
        self.verdict = Verdict.ALIVE
        self.age: int | None = 10
        self.service = True
        self.probes_failing = 0
        self.leads = True
        self.now = 0
        self.refused = 0
        self.alarms: list[str] = []
        self.phases: list[Phase] = []
        self.machine = self.restarted()

    def restarted(self) -> Takeover:
        """A new process: knows committed state only."""
        self.standings = {}
        self.machine = Takeover(OWN, self.policy)
        return self.machine

    @property
    def world(self) -> World:
        return World(
            state=self.state,
            verdict=self.verdict,
            verdict_why="probes failed",
            age_ms=self.age,
            service_alive=self.service,
            leads=self.leads,
            node_sites={P1: (NODE,), P2: ()},
            adapters=tuple(self.adapters),
            standings=self.standings,
            now_ns=self.now,
            now_ms=1,
            probes_failing=self.probes_failing,
        )

    def step(self, *, only: int | None = None) -> int:
        """One step, all its parts or the first `only` of them. Returns how many parts changed something."""
        self.now += 10 * MS
        steps = self.machine.step(self.world)
        self.phases.append(self.machine.phase)
        self.alarms = [step.code for step in steps if isinstance(step, Alarm)]
        parts = [step for step in steps if not isinstance(step, Alarm)]
        for part in parts[:only]:
            if isinstance(part, Commit):
                self.state, kind = applied(self.state, part.entry)
                self.refused += kind is not OutcomeKind.APPLIED
            elif isinstance(part, Publish):
                self._publish(self.adapters[part.adapter], part)
        return len(parts)

    def _publish(self, publisher: MemoryPublisher, part: Publish) -> None:
        place = (part.adapter, part.publication.prefix)
        if publisher.down:
            self.standings[place] = self.standings.get(place, Standing()).failed("down", self.now)
            return
        confirmed = asyncio.run(publisher.publish(part.publication)).confirmed
        self.standings[place] = Standing(part.publication.serial, part.publication.withdrawn, confirmed)

    def settle(self, limit: int = 40) -> Phase:
        for _ in range(limit):
            if not self.step():
                break
        return self.machine.phase

    def wait(self, ms: int) -> None:
        self.step()
        self.now += ms * MS

    def dead(self) -> Bench:
        self.verdict, self.age, self.service = Verdict.DEAD, None, False
        return self

    def alive(self) -> Bench:
        self.verdict, self.age, self.service = Verdict.ALIVE, 10, True
        return self


def test_nothing_happens_while_the_source_lives_or_is_only_silent() -> None:
    bench = Bench()
    assert bench.settle() is Phase.NORMAL
    bench.verdict = Verdict.SUSPECT
    assert bench.settle() is Phase.SUSPECT
    assert bench.state.authority is Authority.SOURCE


def test_takeover_puts_our_site_first_without_primary_flag_and_keeps_the_nodes() -> None:
    bench = Bench().dead()
    assert bench.settle() is Phase.PUBLISHED
    assert bench.state.authority is Authority.RESOLUTION
    ours, node = live_overlays(bench.state)[P1].sites
    assert node == NODE
    assert ours[6] & 0xC0 == 0
    assert site_serial(ours) == live_overlays(bench.state)[P1].serial > site_serial(NODE)
    assert bench.adapters["r0"].stands["88.118.8"].sites == (ours, NODE)
    assert bench.phases == [Phase.SUSPECT, Phase.TAKING_OVER, Phase.TAKEN_OVER, Phase.PUBLISHED]


def test_unconfirmed_publication_is_serving_not_yet_found() -> None:
    bench = Bench(adapters=2).dead()
    bench.adapters["r1"].blind = True
    bench.settle()
    assert bench.machine.phase is Phase.TAKEN_OVER
    bench.adapters["r1"].blind = False
    assert bench.settle() is Phase.PUBLISHED
    assert Bench(adapters=0).dead().settle() is Phase.TAKEN_OVER, "without an adapter nobody confirmed anything"


def test_return_waits_for_life_flow_position_and_time() -> None:
    bench = Bench().dead()
    bench.settle()
    for spoil in ({"service": False}, {"age": None}, {"age": 2_001}, {"verdict": Verdict.SUSPECT}):
        bench.alive()
        for name, value in spoil.items():
            setattr(bench, name, value)
        bench.wait(60_000)
        assert bench.settle() is Phase.PUBLISHED, spoil
    bench.alive()
    bench.state = replace(bench.state, feed=FeedState.GAP)
    bench.wait(60_000)
    assert bench.settle() is Phase.PUBLISHED
    bench.state = replace(bench.state, feed=FeedState.FLOWING)
    bench.wait(1_000)
    assert bench.settle() is Phase.PUBLISHED
    bench.wait(1_000)
    assert bench.settle() is Phase.NORMAL
    assert bench.state.authority is Authority.SOURCE
    assert not bench.state.overlays
    assert not bench.adapters["r0"].stands


def test_serials_rise_over_everything_withdrawal_included() -> None:
    bench = Bench()
    seen: list[int] = []
    for _ in range(3):
        bench.dead().settle()
        seen.append(bench.state.serial_highest)
        bench.alive().wait(120_000)
        bench.settle()
        seen.append(bench.state.serial_highest)
    assert seen == sorted(set(seen))
    serials = [call.serial for call in bench.adapters["r0"].calls if call.prefix == "88.118.8"]
    assert serials == sorted(set(serials))
    assert bench.refused == 0


def test_a_flapping_source_is_trusted_later_each_time_within_a_bound() -> None:
    bench = Bench()
    waits = []
    for _ in range(8):
        bench.dead().settle()
        bench.alive()
        began = bench.now
        while bench.settle() is not Phase.NORMAL:
            bench.now += 500 * MS
        waits.append((bench.now - began) // MS)
    assert waits == sorted(waits)
    assert waits[1] >= 2 * waits[0] - 1_000
    assert waits[-1] <= 61_000


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("died_after", range(12))
def test_a_restart_at_any_point_ends_in_the_same_place(died_after: int, parts: int) -> None:
    """Every prefix of the steps is replayed as if interrupted there, also in the middle of one step."""
    bench = Bench(adapters=2).dead()
    for _ in range(died_after):
        bench.step(only=parts)
    bench.restarted()
    assert bench.settle() is Phase.PUBLISHED
    assert {overlay.prefix for overlay in bench.state.overlays} == {P1, P2}
    bench.alive().wait(2_000)
    for _ in range(died_after):
        bench.step(only=parts)
    bench.restarted()
    bench.settle()
    bench.wait(2_000)
    assert bench.settle() is Phase.NORMAL
    assert not bench.state.overlays
    assert all(not adapter.stands for adapter in bench.adapters.values())


def test_dying_again_while_giving_back_takes_over_again() -> None:
    bench = Bench().dead()
    bench.settle()
    bench.alive().wait(2_000)
    bench.step()
    assert bench.state.authority_act.startswith(RETURNING)
    bench.step()
    assert not bench.state.overlays
    bench.dead()
    assert bench.settle() is Phase.PUBLISHED
    assert {overlay.prefix for overlay in bench.state.overlays} == {P1, P2}


def test_the_source_gets_authority_back_only_after_it_is_unpublished_or_after_the_bound() -> None:
    bench = Bench().dead()
    bench.settle()
    bench.alive().wait(2_000)
    bench.adapters["r0"].down = True
    for _ in range(20):
        bench.step()
    assert bench.machine.phase is Phase.WITHDRAWING
    assert bench.state.authority is Authority.RESOLUTION
    bench.now += 30_000 * MS
    bench.step()
    assert "withdrawal_unconfirmed" in bench.alarms
    assert bench.state.authority is Authority.SOURCE


@pytest.mark.parametrize(
    "spoil",
    [{"ready": False}, {"verified": False}, {"feed": FeedState.DIVERGED}, {"prefixes": ()}],
    ids=lambda spoil: next(iter(spoil)),
)
def test_a_copy_that_could_not_answer_is_not_taken_over(spoil: dict[str, object]) -> None:
    bench = Bench(replace(READY, **spoil)).dead()  # type: ignore[arg-type]
    bench.machine.order = Order(True, "ordered:1", "x")
    bench.settle()
    assert bench.state.authority is Authority.SOURCE
    assert bench.alarms == ["dead_unfit"]


def test_policy_off_alarms_and_waits_for_an_order() -> None:
    bench = Bench(policy=Policy(automatic=False)).dead()
    bench.settle()
    assert bench.state.authority is Authority.SOURCE
    assert bench.alarms == ["dead_not_taken"]
    bench.machine.order = Order(True, "ordered:ab", "operator")
    assert bench.settle() is Phase.PUBLISHED
    assert bench.state.authority_act == "ordered:ab"


def test_a_planned_takeover_of_a_living_source_stays_until_ordered_back() -> None:
    bench = Bench()
    bench.machine.order = Order(True, "planned:ab", "maintenance")
    assert bench.settle() is Phase.PUBLISHED
    bench.wait(600_000)
    assert bench.settle() is Phase.PUBLISHED
    bench.restarted()
    bench.wait(600_000)
    assert bench.settle() is Phase.PUBLISHED
    bench.machine.order = Order(False, "ordered:cd", "done")
    assert bench.settle() is Phase.NORMAL
    assert bench.state.authority is Authority.SOURCE


def test_given_back_while_dead_is_held_off_until_seen_alive() -> None:
    bench = Bench().dead()
    bench.settle()
    bench.machine.order = Order(False, "ordered:cd", "we know better")
    bench.settle()
    assert bench.state.authority is Authority.SOURCE
    assert bench.state.authority_act.startswith(HELD_OFF)
    bench.restarted()
    bench.settle()
    assert bench.state.authority is Authority.SOURCE, "a restart does not forget it"
    bench.alive().settle()
    assert not bench.state.authority_act.startswith(HELD_OFF)
    assert bench.dead().settle() is Phase.PUBLISHED


def test_only_the_leader_acts_and_watchers_may_see_jumps() -> None:
    bench = Bench().dead()
    bench.leads = False
    bench.settle()
    assert bench.state.authority is Authority.SOURCE
    other = Bench().dead()
    other.settle()
    bench.state = other.state
    bench.settle()
    assert bench.machine.phase is Phase.TAKEN_OVER
    bench.leads = True
    assert bench.settle() is Phase.PUBLISHED


def test_registration_is_left_alone() -> None:
    bench = Bench(replace(READY, authority=Authority.REGISTRATION)).dead()
    assert bench.settle() is Phase.REGISTRATION
    assert bench.state.authority is Authority.REGISTRATION


def test_a_source_that_left_needs_no_site_of_ours_and_answers_alone_when_it_was_seen_to_work() -> None:
    bench = Bench(replace(READY, authority=Authority.RESOLUTION, authority_act="planned:graduation:a:1"), adapters=0)
    bench.settle()
    assert bench.state.overlays == () and bench.state.authority is Authority.RESOLUTION
    leaving = Ladder(stage=Stage.ACCEPTED, act="graduation:a:1")
    bench.state = replace(bench.state, authority_act="return:graduation:a:1", ladder=leaving)
    bench.settle()
    assert bench.state.authority is Authority.RESOLUTION, "nobody knows yet how old our copy of its new epoch is"
    bench.state = replace(bench.state, ladder=replace(leaving, stage=Stage.OBSERVED))
    bench.settle()
    assert (bench.state.authority, bench.state.authority_act) == (Authority.SOURCE, "returned:graduation:a:1")


def test_serials_used_up_alarm_instead_of_wrapping() -> None:
    bench = Bench(replace(READY, serial_highest=0xFFFE)).dead()
    bench.settle()
    assert bench.alarms == ["cannot_publish"]
    assert bench.machine.phase is Phase.TAKING_OVER


def test_moves_outside_the_table_stop_the_process() -> None:
    bench = Bench()
    for old in Phase:
        for new in Phase:
            bench.machine.phase, bench.machine._led = old, True
            if new in MOVES[old] or new is old:
                bench.machine._move(new, bench.world)
            else:
                with pytest.raises(InvariantBroken):
                    bench.machine._move(new, bench.world)


def test_memory_publisher_is_a_publisher() -> None:
    publisher: Publisher = MemoryPublisher()
    assert publisher.name == "memory"


def test_a_node_that_beats_and_answers_nobody_alarms_and_is_left_in_place() -> None:
    rig = Bench()
    rig.service, rig.probes_failing = False, 2
    assert (rig.settle(), rig.alarms) == (Phase.NORMAL, [])
    rig.probes_failing = 3
    assert (rig.settle(), rig.alarms) == (Phase.NORMAL, ["alive_not_answering"])
    assert rig.state.authority is Authority.SOURCE
