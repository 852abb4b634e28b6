"""The ladder over the store's own rules: leases, one act at a time, aborts and flapping, publication, and the way back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replica.model.group_state import SideGeneration
from replica.model.ladder import Fence, OrderKind, Stage
from replica.model.ladder_epochs import fence_of
from replica.model.ladder_rules import registrations_refused
from replica.model.outcome import OutcomeKind
from replica.model.position import epoch_start
from replica.model.states import Authority, FeedState
from replica.takeover.ladder import waits_for
from replica.takeover.ladder_plan import Accepting, climb_of, plan_text, refusal
from replica.takeover.machine import Commit
from replica.takeover.threshold import Level
from replica.v1 import entry_pb2, source_pb2
from tests.simulation.ladder_world import LINEAGE, PEOPLE
from tests.unit.takeover.test_ladder import READY, START, Bench, S, move_of

# -- the lease


def test_the_lease_runs_out_before_the_fence() -> None:
    bench = Bench()
    renewed = bench.lease(30_000)
    assert renewed.kind is OutcomeKind.APPLIED
    bench.climb(0, 1)
    bench.until(S.APPROVED)
    assert bench.lease().kind is OutcomeKind.FENCED, "none is given from here on"
    bench.waited_ms = 33_999
    assert not bench.step()
    assert waits_for(bench.world).startswith("the source's lease, 0.0 s")
    facts = entry_pb2.LeaseFacts(renewed_index=bench.state.ladder.lease_index, waited_ms=33_999)
    assert "34000 ms" in bench.apply(move_of(bench, S.FENCED, lease=facts)).detail
    facts = entry_pb2.LeaseFacts(renewed_index=bench.state.ladder.lease_index - 1, waited_ms=99_000)
    assert "count again" in bench.apply(move_of(bench, S.FENCED, lease=facts)).detail
    bench.waited_ms = 34_000
    bench.until(S.SERVING)


def test_a_lease_that_was_given_after_the_plan_is_waited_for_too() -> None:
    bench = Bench()
    bench.climb(0, 1)
    bench.until(S.PROPOSED)
    bench.lease()
    bench.until(S.APPROVED)
    assert bench.state.ladder.fence is Fence.NONE
    assert not bench.step(), "it has to run out"
    assert "count again" in bench.apply(move_of(bench, S.FENCED)).detail
    bench.waited_ms = 34_000
    bench.until(S.SERVING)


def test_a_lease_is_of_the_granted_epoch_and_no_longer_than_ten_minutes() -> None:
    bench = Bench()
    old = entry_pb2.Entry(lease=entry_pb2.LeaseRenewal(epoch=0, duration_ms=30_000))
    assert bench.apply(old).kind is OutcomeKind.FENCED
    assert bench.lease(600_001).kind is OutcomeKind.CONFLICT
    assert fence_of(bench.state) is Fence.NONE


def test_a_guard_that_asks_no_more_while_its_source_speaks_is_no_fence() -> None:
    bench = Bench()
    bench.lease(30_000)
    bench.waited_ms, bench.heard_ms_ago = 60_000, 26_000  # its last word came 34 s after the renewal: the lease may just have run
    assert not bench.step() and fence_of(bench.state) is Fence.WRITE_PATH
    bench.heard_ms_ago = 25_999
    bench.step()
    assert fence_of(bench.state) is Fence.NONE
    bench.climb(0)
    bench.until(S.PROPOSED)
    assert "two people must approve" in bench.alarms()[0]


def test_a_source_that_fell_silent_with_its_lease_is_fenced() -> None:
    bench = Bench()
    bench.lease(30_000)
    bench.waited_ms, bench.heard_ms_ago = 3_600_000, 3_599_000
    bench.step()
    assert fence_of(bench.state) is Fence.WRITE_PATH


def test_what_is_loaded_beside_is_given_up_before_the_fence() -> None:
    bench = Bench(replace(READY, side=SideGeneration(3, START, False, 1), feed=FeedState.LOADING))
    bench.climb(0, 1)
    bench.until(S.SERVING)
    assert bench.state.side is None
    assert any(entry.WhichOneof("body") == "load_abort" for entry in bench.entries)


# -- one act at a time, aborts, and flapping


def test_an_abort_before_the_fence_forgets_and_its_approvals_count_no_more() -> None:
    bench = Bench()
    bench.lease()
    bench.climb(0, 1)
    first = bench.machine.climb
    bench.until(S.APPROVED)
    bench.machine.abort = "it answers again"
    bench.until(S.NORMAL)
    ladder = bench.state.ladder
    assert (ladder.act, ladder.approvals, ladder.plan, ladder.held_off) == ("", (), "", True)
    assert bench.lease().kind is OutcomeKind.APPLIED, "its leases are renewed again"
    assert first is not None and plan_text(bench.state, Accepting()) != first.plan, "the text is another one: sign it anew"


def test_one_act_at_a_time() -> None:
    bench = Bench()
    bench.lease()
    bench.climb(0, 1)
    bench.until(S.APPROVED)
    assert "one act at a time" in refusal(bench.state, 0, Accepting())
    body = bench.machine.step(bench.world)
    assert not body
    other = climb_of(bench.state, Accepting(loss=5), "another", PEOPLE).proposed(0, 1)
    assert bench.apply(move_of(bench, S.PROPOSED, act="another", proposed=other)).kind is OutcomeKind.CONFLICT


def test_after_an_act_nothing_begins_by_itself_before_the_source_was_seen_well() -> None:
    bench = Bench()
    bench.lease()
    bench.order(OrderKind.STANDING)
    bench.climb(0, 1)
    bench.until(S.APPROVED)
    bench.machine.abort = "thought again"
    bench.until(S.NORMAL)
    bench.machine.abort, bench.level = "", Level.THRESHOLD
    assert not bench.step() and bench.stage is S.NORMAL
    bench.level = Level.WELL
    bench.step()
    assert not bench.state.ladder.held_off
    bench.level = Level.THRESHOLD
    bench.until(S.APPROVED)


def test_an_act_that_probes_began_ends_when_the_source_is_well_again() -> None:
    bench = Bench()
    bench.lease()
    bench.order(OrderKind.STANDING)
    bench.level = Level.THRESHOLD
    bench.until(S.APPROVED)
    bench.level = Level.WELL
    bench.step()
    assert bench.stage is S.NORMAL and bench.state.ladder.held_off


def test_probes_that_are_answered_again_lead_back() -> None:
    bench = Bench()
    bench.level = Level.SUSPECT
    bench.step()
    assert bench.stage is S.SUSPECT
    bench.level = Level.WELL
    bench.step()
    assert bench.stage is S.NORMAL and not bench.state.ladder.held_off


def test_a_late_move_is_a_no_op_with_a_definite_outcome() -> None:
    bench = Bench()
    bench.climb(0, 1)
    bench.until(S.PROPOSED)
    late = next(step.entry for step in bench.machine.step(bench.world) if isinstance(step, Commit))
    bench.until(S.SERVING)
    before = bench.state
    assert bench.apply(late).kind is OutcomeKind.CONFLICT
    assert replace(bench.state, index=before.index) == before
    again = bench.entries[-2]
    assert again.ladder.stage == int(S.SERVING) and bench.apply(again).kind is OutcomeKind.ALREADY


@pytest.mark.parametrize("stage", [S.FENCED, S.PROMOTED, S.SERVING, S.HANDED_BACK])
def test_an_illegal_move_is_a_no_op(stage: Stage) -> None:
    bench = Bench()
    assert bench.apply(move_of(bench, stage)).kind is OutcomeKind.CONFLICT
    assert bench.stage is S.NORMAL


def test_a_hosted_source_has_nobody_to_be_taken_over_from() -> None:
    bench = Bench(replace(READY, authority=Authority.REGISTRATION, authority_act="hosted"))
    bench.climb(0, 1)
    assert not bench.step()
    proposed = bench.machine.climb.proposed(0, 1)  # type: ignore[union-attr]
    assert "lives here" in bench.apply(move_of(bench, S.PROPOSED, act="x", proposed=proposed)).detail


# -- publication


def test_serving_begins_although_nobody_confirms_and_says_so() -> None:
    bench = Bench()
    bench.confirm = False
    bench.climb(0, 1)
    bench.until(S.PROMOTED)
    bench.step()
    bench.step()
    assert bench.stage is S.PROMOTED, "adapters get a moment"
    bench.now_ms += 1_000
    bench.step()
    assert bench.stage is S.SERVING
    assert bench.state.ladder.reason == "serving, not yet found"
    assert "not yet found (recursive)" in bench.alarms()[0]
    bench.confirm = True
    bench.step()
    assert not bench.alarms()


def test_an_end_order_calls_for_the_failback() -> None:
    bench = Bench()
    bench.order(OrderKind.TAKEOVER, 1)
    bench.climb(0, 1)
    bench.until(S.SERVING)
    bench.order(OrderKind.END, 2)
    assert any("ends the takeover of s" in text for text in bench.alarms())


# -- back: what the stages of the failback do to the state


def test_the_way_back_hands_the_next_epoch_to_the_source_alone() -> None:
    bench = Bench()
    bench.climb(0, 1)
    bench.until(S.SERVING)
    for stage in (S.RETURN_REQUESTED, S.CATCHING_UP, S.FROZEN):
        assert bench.apply(move_of(bench, stage)).kind is OutcomeKind.APPLIED
    assert registrations_refused(bench.state) is not None, "registrations wait while frozen"
    equal = replace(bench.state.ladder, stage=S.SOURCE_EQUAL)  # the ledger and its digest are the failback's own tests
    bench.stored = bench.stored.with_group(ladder=equal)
    parent = bench.state.position
    start = epoch_start(parent, LINEAGE, 3)
    ours = source_pb2.Grant(source="s", parent=parent.to_wire(), start=start.to_wire(), holder="ours")
    assert "is granted to s" in bench.apply(move_of(bench, S.HANDED_BACK, grant=ours)).detail
    theirs = source_pb2.Grant(source="s", parent=parent.to_wire(), start=start.to_wire(), holder="s")
    assert bench.apply(move_of(bench, S.HANDED_BACK, grant=theirs)).kind is OutcomeKind.APPLIED
    assert bench.state.authority is Authority.RESOLUTION and registrations_refused(bench.state) is not None
    assert "holds the grant on its disk" in bench.apply(move_of(bench, S.ACCEPTED)).detail
    bench.apply(entry_pb2.Entry(grant_taken=entry_pb2.GrantTaken(position=start.to_wire())))
    assert bench.apply(move_of(bench, S.ACCEPTED)).kind is OutcomeKind.APPLIED
    assert bench.state.authority_act.startswith("return:")
    assert bench.lease().kind is OutcomeKind.APPLIED
    assert bench.apply(move_of(bench, S.OBSERVED)).kind is OutcomeKind.APPLIED
    assert "withdrawn first" in bench.apply(move_of(bench, S.NORMAL)).detail
    given = entry_pb2.Authority(kind=entry_pb2.Authority.KIND_SOURCE, act="returned:x")
    bench.apply(entry_pb2.Entry(authority=given))
    assert bench.apply(move_of(bench, S.NORMAL)).kind is OutcomeKind.APPLIED
    assert (bench.state.ladder.act, bench.state.ladder.held_off) == ("", True)
