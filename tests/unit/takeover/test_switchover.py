"""Planned switchover over the store's own rules: the source ends its writing, is equal, and only then its epoch is closed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replica.model.digest import ContentDigest
from replica.model.drained import Drained
from replica.model.errors import ZaibeiError
from replica.model.group_state import SideGeneration
from replica.model.ladder import DRAIN_MS_MAX, MOVES, Stage
from replica.model.ladder_epochs import fence_of
from replica.model.ladder_rules import registrations_refused
from replica.model.outcome import OutcomeKind
from replica.model.position import Position
from replica.takeover.ladder import waits_for
from replica.takeover.ladder_plan import Accepting, climb_of, plan_text, refusal
from replica.takeover.machine import Commit
from replica.takeover.switchover import DRAIN_AGAIN_MS, Drain
from replica.takeover.threshold import Level
from replica.v1 import entry_pb2, position_pb2, source_pb2
from tests.simulation.ladder_world import PEOPLE
from tests.unit.takeover.test_ladder import Bench, S, move_of

SWITCH = Accepting(switchover=True)


def draining(bench: Bench | None = None) -> Bench:
    """Two people approved it; the source was not asked yet."""
    bench = bench or Bench()
    bench.lease()
    bench.climb(0, 1, accepting=SWITCH)
    bench.until(S.DRAINING)
    return bench


def ended(bench: Bench, position: Position | None = None, more: int = 0) -> Drained:
    """What the source says: it ended there, with so many more records than we hold."""
    state = bench.state
    return Drained(state.ladder.act, ContentDigest(position or state.position, state.records + more, 0))


def beyond(bench: Bench) -> Position:
    at = bench.state.position
    return Position(at.lineage, at.epoch, at.seq + 1, b"x" * 32)


def fence(bench: Bench, said: Drained) -> position_pb2.ContentDigest:
    assert said.digest is not None
    return said.digest.to_wire()


def test_the_whole_way_waits_for_no_lease_and_tells_the_pause() -> None:
    bench = Bench()
    bench.lease(30_000)
    bench.climb(0, 1, accepting=SWITCH)
    seen = []
    while bench.stage is not S.SERVING:
        steps = bench.step()
        bench.now_ms += 20
        if any(isinstance(step, Drain) for step in steps):
            assert steps == (Drain(bench.state.ladder.act, 1),)
            bench.drained = ended(bench)
        if bench.stage not in seen:
            seen.append(bench.stage)
    assert seen == [S.PROPOSED, S.APPROVED, S.DRAINING, S.FENCED, S.PROMOTED, S.SERVING]
    assert registrations_refused(bench.state) is None and bench.state.position.epoch == 2
    bench.step()
    assert bench.machine.pause_ms == 80, "from the moment it was asked"
    assert all(over.act == bench.state.ladder.act for over in bench.state.overlays)


def test_registrations_wait_for_no_adapter() -> None:
    bench = draining()
    bench.confirm = False
    bench.step()
    bench.drained = ended(bench)
    bench.until(S.SERVING)
    assert bench.state.ladder.reason == "serving, not yet found"


def test_a_busy_source_is_behind_at_every_moment_and_is_switched_all_the_same() -> None:
    bench = Bench()
    bench.behind = 17
    assert draining(bench).state.ladder.behind == 17


def test_no_lease_is_given_while_it_is_drained_and_one_is_after_it_was_given_up() -> None:
    bench = draining()
    assert bench.lease().kind is OutcomeKind.FENCED
    bench.drained = ended(bench)
    late = move_of(bench, S.FENCED, digest=fence(bench, bench.drained))
    bench.machine.abort = "not today"
    bench.step()
    assert (bench.stage, bench.state.ladder.switchover, bench.state.ladder.held_off) == (S.NORMAL, False, True)
    assert bench.lease().kind is OutcomeKind.APPLIED
    assert bench.apply(late).kind is OutcomeKind.CONFLICT, "the source goes on: its epoch is not closed any more by that act"


def test_every_move_from_draining_but_two_is_illegal() -> None:
    for stage in Stage:
        bench = draining()
        said = ended(bench)
        parts = {"digest": fence(bench, said)} if stage is S.FENCED else {}
        kind = bench.apply(move_of(bench, stage, **parts)).kind
        legal = stage in (S.FENCED, S.NORMAL)
        expected = OutcomeKind.APPLIED if legal else OutcomeKind.ALREADY if stage is S.DRAINING else OutcomeKind.CONFLICT
        assert (kind, stage in MOVES[S.DRAINING]) == (expected, legal), stage.name


@pytest.mark.parametrize("stage", [stage for stage in Stage if S.DRAINING not in MOVES[stage]])
def test_draining_is_reached_from_approved_alone(stage: Stage) -> None:
    bench = Bench()
    bench.stored = bench.stored.with_group(ladder=replace(bench.state.ladder, stage=stage, act="a", switchover=True))
    assert bench.apply(move_of(bench, S.DRAINING)).kind in (OutcomeKind.CONFLICT, OutcomeKind.ALREADY)
    assert bench.stage is stage


def test_a_takeover_asks_nobody_and_a_switchover_closes_nothing_unasked() -> None:
    bench = Bench()
    bench.lease()
    bench.climb(0, 1)
    bench.until(S.APPROVED)
    assert "only a switchover" in bench.apply(move_of(bench, S.DRAINING)).detail
    bench = Bench()
    bench.lease()
    bench.climb(0, 1, accepting=SWITCH)
    bench.until(S.APPROVED)
    facts = entry_pb2.LeaseFacts(renewed_index=bench.state.ladder.lease_index, waited_ms=99_000)
    refused = bench.apply(move_of(bench, S.FENCED, lease=facts, digest=fence(bench, ended(bench))))
    assert "the source ends its writing first" in refused.detail


def test_the_epoch_is_closed_at_the_sources_end_with_its_content_only() -> None:
    bench = draining()
    for parts, words in (
        ({}, "says where"),
        ({"digest": fence(bench, ended(bench, beyond(bench)))}, "ended its writing at"),
        ({"digest": fence(bench, ended(bench, more=1))}, "other content"),
        ({"digest": position_pb2.ContentDigest(format=9)}, "digest format 9"),
    ):
        assert words in bench.apply(move_of(bench, S.FENCED, **parts)).detail
        assert bench.stage is S.DRAINING
    assert bench.apply(move_of(bench, S.FENCED, digest=fence(bench, ended(bench)))).kind is OutcomeKind.APPLIED


def test_its_last_batches_are_waited_for() -> None:
    bench = draining()
    bench.step()
    bench.drained = ended(bench, beyond(bench))
    bench.now_ms += 100
    assert bench.step() == ()
    bench.stored = bench.stored.with_group(position=beyond(bench))
    bench.step()
    assert bench.stage is S.FENCED


def test_a_source_that_does_not_answer_is_asked_again_and_then_goes_on() -> None:
    bench = draining()
    asked = 0
    for _ in range(DRAIN_MS_MAX // 50 - 1):
        asked += sum(isinstance(step, Drain) for step in bench.step())
        bench.now_ms += 50
    assert (asked, bench.stage) == (DRAIN_MS_MAX // DRAIN_AGAIN_MS, S.DRAINING)
    assert waits_for(bench.world) == "the source to end its writing, at most 3 s"
    bench.now_ms += 50
    bench.step()
    assert bench.stage is S.NORMAL and "did not say that its writing ended within 3000 ms" in bench.state.ladder.reason
    assert bench.lease().kind is OutcomeKind.APPLIED


def test_an_end_that_never_reaches_us_leads_back() -> None:
    bench = draining()
    bench.step()
    bench.drained = ended(bench, beyond(bench))
    bench.now_ms += DRAIN_MS_MAX
    bench.step()
    assert bench.stage is S.NORMAL and "and we came to" in bench.state.ladder.reason


def test_a_refusal_and_another_content_lead_back_at_once() -> None:
    bench = draining()
    bench.drained = Drained(bench.state.ladder.act, None, "no guard is open at its write path")
    bench.step()
    assert bench.stage is S.NORMAL and "no guard is open" in bench.state.ladder.reason
    bench = draining()
    bench.drained = ended(bench, more=1)
    commits = [step.entry for step in bench.machine.step(bench.world) if isinstance(step, Commit)]
    assert bench.apply(commits[0]).kind is OutcomeKind.CONFLICT
    bench.step()
    assert bench.stage is S.NORMAL and "content is not ours" in bench.state.ladder.reason


def test_a_statement_about_another_act_counts_for_nothing() -> None:
    bench = draining()
    bench.drained = replace(ended(bench), act="registration:of-yesterday")
    assert bench.step() == (Drain(bench.state.ladder.act, 1),)


def test_a_new_leader_asks_again_and_goes_on() -> None:
    bench = Bench()
    bench.lease()
    bench.climb(0, 1, accepting=SWITCH)
    bench.until(S.DRAINING, restart=True)
    bench.restarted()
    assert bench.step() == (Drain(bench.state.ladder.act, 1),)
    bench.drained = ended(bench)
    bench.until(S.SERVING, restart=True)


def test_a_switchover_begins_with_a_living_fenced_source_alone() -> None:
    bench = Bench()
    assert "holds no write-path lease" in refusal(bench.state, 0, SWITCH)
    bench.lease()
    assert refusal(bench.state, 0, SWITCH) == ""
    loading = replace(bench.state, side=SideGeneration(3, bench.state.position, False, 1))
    assert "being loaded beside" in refusal(loading, 0, SWITCH)
    bench.level = Level.SUSPECT
    bench.step()
    assert bench.stage is S.SUSPECT
    assert "a source that fails is taken over" in refusal(bench.state, 0, SWITCH)
    proposed = climb_of(bench.state, SWITCH, "why", PEOPLE).proposed(0, 1)
    assert "begins at NORMAL" in bench.apply(move_of(bench, S.PROPOSED, act="x", proposed=proposed)).detail


def test_a_guard_that_went_away_before_the_proposal_is_noticed_at_apply() -> None:
    bench = Bench()
    bench.lease()
    proposed = climb_of(bench.state, SWITCH, "why", PEOPLE).proposed(0, 1)
    bench.apply(entry_pb2.Entry(lease=entry_pb2.LeaseRenewal(epoch=1, duration_ms=0)))
    assert "look again" in bench.apply(move_of(bench, S.PROPOSED, act="x", proposed=proposed)).detail
    proposed.fence = source_pb2.Description.Fence.ValueType(int(fence_of(bench.state)))
    assert "no write-path lease" in bench.apply(move_of(bench, S.PROPOSED, act="x", proposed=proposed)).detail


def test_it_is_two_peoples_act_and_never_break_glass() -> None:
    bench = Bench()
    bench.lease()
    bench.climb(0, accepting=SWITCH)
    bench.until(S.PROPOSED)
    assert "two people" in bench.alarms()[0]
    glass = entry_pb2.Approved(approvals=PEOPLE, break_glass=True)
    assert "is planned" in bench.apply(move_of(bench, S.APPROVED, approved=glass)).detail
    bench.climb(0, 1, accepting=SWITCH)
    bench.until(S.DRAINING)


def test_the_text_that_is_signed_says_it() -> None:
    bench = Bench()
    bench.lease()
    text = plan_text(bench.state, SWITCH)
    assert "switchover: the source ends its own writing within 3000 ms, or goes on\nnothing is lost\n" in text
    assert "switchover" not in plan_text(bench.state, Accepting())


def test_a_statement_travels_whole_and_half_of_one_is_malformed() -> None:
    bench = draining()
    for said in (ended(bench), Drained("a", None, "why")):
        assert Drained.from_wire(source_pb2.Drained.FromString(said.to_wire().SerializeToString())) == said
    with pytest.raises(ZaibeiError, match="digest format 0"):
        Drained.from_wire(source_pb2.Drained(act="a"))
