"""The ladder step by step, over the store's own rules: what each move requires and changes, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replica.model.digest import ContentDigest
from replica.model.drained import Drained
from replica.model.errors import Code
from replica.model.group_state import GroupState, Hold
from replica.model.ladder import Fence, Function, OrderKind, Stage
from replica.model.ladder_epochs import fence_of
from replica.model.ladder_rules import BREAK_GLASS_REASON_CHARS_MIN, registrations_refused
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.position import ORIGIN, epoch_start
from replica.model.states import Authority, FeedState
from replica.store.registration import judge_registration
from replica.store.rules import RULES, Moment
from replica.store.state_row import Stored, pack_state, unpack_state
from replica.takeover.ladder import LadderMachine, LadderPolicy, LadderStep, LadderWorld, move_entry, unguarded
from replica.takeover.ladder_plan import Accepting, climb_of, refusal
from replica.takeover.machine import Alarm, Commit, Publish
from replica.takeover.orders import sign
from replica.takeover.overlay import site_serial, site_with
from replica.takeover.ports import applied
from replica.takeover.publish import Standing
from replica.takeover.threshold import Evidence, Level
from replica.v1 import entry_pb2, position_pb2, source_pb2
from tests.simulation.ladder_world import LINEAGE, OWN, P1, P2, PEOPLE, SIGNER, TOP

S = Stage
START = epoch_start(ORIGIN, LINEAGE, 1)
READY = GroupState("s", ready=True, verified=True, prefixes=(P1, P2), granted=START, grant_taken=True, position=START, records=7)
HOUR_MS = 3_600_000


class Bench:
    """A machine, and the store's rules as its log."""

    def __init__(self, state: GroupState = READY, adapters: tuple[str, ...] = ("recursive",)) -> None:
        self.stored = Stored(state)
        self.adapters, self.standings = adapters, dict[tuple[str, str], Standing]()
        self.level, self.several, self.heard = Level.UNKNOWN, True, False
        self.behind: int | None = 0
        self.waited_ms = 0
        self.heard_ms_ago: int | None = None
        self.now_ms = 1_000_000
        self.confirm = True
        self.drained: Drained | None = None
        self.node_sites: dict[bytes, tuple[bytes, ...]] = {}
        self.entries: list[entry_pb2.Entry] = []
        self.machine = self.restarted()

    def restarted(self) -> LadderMachine:
        """A new process, or a new leader: knows committed state only."""
        self.machine = LadderMachine(OWN, "ours", SIGNER, LadderPolicy(publish_wait_ms=1_000))
        return self.machine

    @property
    def state(self) -> GroupState:
        return self.stored.group

    @property
    def stage(self) -> Stage:
        return self.state.ladder.stage

    @property
    def world(self) -> LadderWorld:
        at = frozenset({"a", "b"} if self.several else {"a"})
        failing = at if self.level in (Level.SUSPECT, Level.THRESHOLD) else frozenset()
        evidence = Evidence(Function.RESOLUTION, self.level, 30, 30 if failing else 0, 300_000, failing, at)
        return LadderWorld(
            state=self.state,
            leads=True,
            evidence={Function.RESOLUTION: evidence},
            source_heard=self.heard,
            behind=self.behind,
            age_ms=120,
            lease_waited_ms=self.waited_ms,
            unguarded=unguarded(self.state, self.waited_ms, self.heard_ms_ago),
            adapters=self.adapters,
            standings=self.standings,
            now_ns=self.now_ms * 1_000_000,
            now_ms=self.now_ms,
            drained=self.drained,
            node_sites=self.node_sites,
        )

    def apply(self, entry: entry_pb2.Entry) -> Outcome:
        """One committed entry."""
        kind = str(entry.WhichOneof("body"))
        stored = self.stored.with_group(index=self.state.index + 1)
        twin, twin_kind = applied(self.state, entry)
        moment = Moment(stored.group.index, self.state.position, _digest(self.state), lambda _epoch, _seq: None)
        step = RULES[kind](stored, getattr(entry, kind), moment)
        self.stored = step.stored if step.moved is None else step.stored.with_group(position=step.moved)
        self.entries.append(entry)
        if kind in ("ladder", "lease", "order", "review", "overlay", "authority"):
            assert (twin, twin_kind) == (self.state, step.outcome.kind), "the memory twin does what the store does"
        self.stored = unpack(self.stored)
        return step.outcome

    def step(self) -> tuple[LadderStep, ...]:
        """What the machine wants, carried out."""
        steps = self.machine.step(self.world)
        for step in steps:
            if isinstance(step, Commit):
                assert self.apply(step.entry).kind is OutcomeKind.APPLIED, step.what
            elif isinstance(step, Publish) and self.confirm:
                place = (step.adapter, step.publication.prefix)
                self.standings[place] = Standing(step.publication.serial, confirmed=True)
        return steps

    def until(self, stage: Stage, *, restart: bool = False) -> None:
        """Step until it stands there; `restart`: with a new process before every step."""
        for _ in range(20):
            if self.stage is stage:
                return
            if restart:
                climb = self.machine.climb
                self.restarted().climb = climb
            self.step()
        pytest.fail(f"{self.stage.name} instead of {stage.name}")

    def alarms(self) -> list[str]:
        return [step.text for step in self.machine.step(self.world) if isinstance(step, Alarm)]

    def climb(self, *people: int, accepting: Accepting | None = None, reason: str = "its hall burnt down") -> None:
        accepted = accepting or Accepting()
        self.machine.climb = climb_of(self.state, accepted, reason, [PEOPLE[one] for one in people])

    def lease(self, duration_ms: int = 30_000) -> Outcome:
        return self.apply(entry_pb2.Entry(lease=entry_pb2.LeaseRenewal(epoch=self.state.position.epoch, duration_ms=duration_ms)))

    def order(self, kind: OrderKind, number: int = 1, function: int = 1, valid_ms: int = HOUR_MS) -> Outcome:
        order = entry_pb2.Order(
            kind=entry_pb2.Order.Kind.ValueType(int(kind)),
            number=number,
            source="s",
            function=entry_pb2.Function.ValueType(function),
            issued_ms=self.now_ms,
            until_ms=self.now_ms + valid_ms,
        )
        return self.apply(entry_pb2.Entry(order=sign(order, TOP)))


def _digest(state: GroupState) -> ContentDigest:
    return ContentDigest(state.position, state.records, 0)


def unpack(stored: Stored) -> Stored:
    """Through the row on disk: every field of the ladder is kept."""
    kept = unpack_state(pack_state(stored))
    assert kept.group.ladder == stored.group.ladder
    return stored


def test_two_people_and_the_whole_way_up() -> None:
    bench = Bench()
    bench.climb(0, 1)
    seen = [bench.stage]
    while bench.stage is not S.SERVING:
        bench.step()
        if bench.stage is not seen[-1]:
            seen.append(bench.stage)
    assert seen == [S.NORMAL, S.PROPOSED, S.APPROVED, S.FENCED, S.PROMOTED, S.PUBLISHED, S.SERVING]
    state = bench.state
    assert state.authority is Authority.REGISTRATION
    assert state.granted is not None and state.granted.epoch == 2 and state.grant_taken
    assert state.position == state.granted and state.position.seq == START.seq
    assert (state.feed, state.ladder.closed_at) == (FeedState.FENCED, START)
    assert registrations_refused(state) is None
    for overlay in state.overlays:
        assert len(overlay.sites) == 1, "the dead site is removed"
        assert overlay.sites[0][6] & 0x80, "our site bears the primary flag"
        assert site_serial(overlay.sites[0]) == overlay.serial
    assert not bench.alarms()


def test_our_serial_is_above_the_nodes_own_also_where_resolution_was_never_taken_over() -> None:
    """Else recursive nodes and the top-level node would keep the dead node's site: an older publication replaces no newer one."""
    bench = Bench()
    bench.node_sites = {prefix: (site_with(OWN, serial=41, primary=True),) for prefix in bench.state.prefixes}
    bench.climb(0, 1)
    bench.until(S.SERVING)
    assert bench.state.overlays and all(overlay.serial > 41 for overlay in bench.state.overlays)


def test_a_process_that_dies_before_every_step_ends_in_the_same_state() -> None:
    once, often = Bench(), Bench()
    for bench, restart in ((once, False), (often, True)):
        bench.climb(0, 1)
        bench.until(S.SERVING, restart=restart)
    assert often.state == once.state


def test_registrations_are_taken_from_serving_on_and_not_before() -> None:
    bench = Bench()
    bench.climb(0, 1)
    for stage in (S.PROPOSED, S.APPROVED, S.FENCED):
        bench.until(stage)
        assert registrations_refused(bench.state) is not None, stage
        judged = judge_registration(entry_pb2.Registration(), bench.state, bench.state.position, lambda _e, _s: None, list)
        assert judged[1][0] is OutcomeKind.FENCED
    bench.until(S.PROMOTED)
    refused = registrations_refused(bench.state)
    assert refused is not None and refused[0] is Code.BUSY
    bench.until(S.SERVING)
    assert registrations_refused(bench.state) is None


@pytest.mark.parametrize("entry", ["grant", "mark", "load_begin", "authority"])
def test_behind_the_fence_nothing_of_the_source_counts(entry: str) -> None:
    bench = Bench()
    bench.climb(0, 1)
    bench.until(S.SERVING)
    before = bench.state
    start = epoch_start(before.position, LINEAGE, 3)
    grant = source_pb2.Grant(source="s", parent=before.position.to_wire(), start=start.to_wire(), holder="s")
    entries = {
        "grant": entry_pb2.Entry(grant=grant),
        "mark": entry_pb2.Entry(mark=entry_pb2.FeedMark(state=entry_pb2.FeedMark.STATE_FLOWING)),
        "load_begin": entry_pb2.Entry(load_begin=entry_pb2.LoadBegin(side=9, position=before.position.to_wire())),
        "authority": entry_pb2.Entry(authority=entry_pb2.Authority(kind=entry_pb2.Authority.KIND_SOURCE, act="mine")),
    }
    assert bench.apply(entries[entry]).kind in (OutcomeKind.FENCED, OutcomeKind.CONFLICT)
    assert replace(bench.state, index=before.index) == before


# -- who approves


def test_one_person_is_not_enough_for_a_source_without_a_fence() -> None:
    bench = Bench()
    bench.climb(0)
    bench.until(S.PROPOSED)
    assert "two people must approve this very act" in bench.alarms()[0]
    assert bench.stage is S.PROPOSED
    approved = entry_pb2.Approved(approvals=[PEOPLE[0], PEOPLE[0]])
    assert bench.apply(move_of(bench, S.APPROVED, approved=approved)).kind is OutcomeKind.CONFLICT, "the same person twice"
    same_key = entry_pb2.Approval(operator="zhao", signature=position_pb2.Signature(key_id=PEOPLE[0].signature.key_id))
    approved = entry_pb2.Approved(approvals=[PEOPLE[0], same_key])
    assert bench.apply(move_of(bench, S.APPROVED, approved=approved)).kind is OutcomeKind.CONFLICT, "one key under two names"


def test_a_takeover_order_is_one_of_the_two() -> None:
    bench = Bench()
    bench.order(OrderKind.TAKEOVER)
    bench.climb()
    bench.until(S.PROPOSED)
    assert "0 did, beside an order" in bench.alarms()[0]
    bench.climb(1)
    bench.until(S.SERVING)
    assert (bench.state.ladder.approvals, bench.state.ladder.orders) == (("wang.fang",), (1,))


def test_a_standing_order_never_suffices_without_a_fence() -> None:
    bench = Bench()
    bench.order(OrderKind.STANDING)
    bench.level = Level.THRESHOLD
    bench.until(S.THRESHOLD)
    assert "no write-path lease" in bench.alarms()[0]
    bench.climb(0)
    bench.until(S.PROPOSED)
    assert "two people must approve" in bench.alarms()[0]


def test_a_standing_order_suffices_for_a_fenced_source_at_the_threshold() -> None:
    bench = Bench()
    bench.lease()
    assert fence_of(bench.state) is Fence.WRITE_PATH
    bench.order(OrderKind.STANDING)
    bench.level = Level.THRESHOLD
    bench.until(S.APPROVED)
    assert bench.state.ladder.automatic and bench.state.ladder.orders == (1,)
    bench.waited_ms = 34_000
    bench.until(S.SERVING)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda bench: setattr(bench, "heard", True), "the source is heard on its feed"),
        (lambda bench: setattr(bench, "several", False), "only a finds it so"),
        (lambda bench: setattr(bench, "behind", 3), "the copy is 3 changes behind"),
        (lambda bench: setattr(bench, "behind", None), "UNKNOWN"),
        (lambda bench: setattr(bench, "now_ms", bench.now_ms + 2 * HOUR_MS), "no order of the top-level node is in force"),
    ],
)
def test_nothing_begins_by_itself(change: object, why: str) -> None:
    bench = Bench()
    bench.lease()
    bench.order(OrderKind.STANDING)
    bench.level = Level.THRESHOLD
    bench.until(S.THRESHOLD)
    change(bench)  # type: ignore[operator]
    assert why in bench.alarms()[0]
    assert bench.stage is S.THRESHOLD


def test_break_glass_is_one_person_a_typed_reason_and_a_review_that_is_owed() -> None:
    bench = Bench()
    bench.climb(0, accepting=Accepting(break_glass=True), reason="short")
    bench.until(S.PROPOSED)
    steps = [step for step in bench.machine.step(bench.world) if isinstance(step, Commit)]
    outcome = bench.apply(steps[0].entry)
    assert outcome.kind is OutcomeKind.CONFLICT and str(BREAK_GLASS_REASON_CHARS_MIN) in outcome.detail
    bench.machine.climb = replace(bench.machine.climb, reason="the hall of node s burns, nobody else can be reached")  # type: ignore[type-var]
    bench.until(S.SERVING)
    owed = bench.state.ladder.review
    assert owed is not None and owed.operator == "li.wei"
    assert any("its review is owed" in text for text in bench.alarms())
    bench.now_ms = owed.due_ms + 1
    assert any("its review is overdue" in text for text in bench.alarms())
    by_itself = entry_pb2.LadderReview(act=owed.act, verdict="fine", approval=PEOPLE[0])
    assert bench.apply(entry_pb2.Entry(review=by_itself)).kind is OutcomeKind.CONFLICT, "not by whoever did it"
    assert bench.apply(entry_pb2.Entry(review=entry_pb2.LadderReview(act=owed.act, verdict="fine", approval=PEOPLE[1]))).kind is (
        OutcomeKind.APPLIED
    )
    assert not bench.alarms()


def test_no_second_break_glass_before_the_first_was_reviewed() -> None:
    bench = Bench()
    bench.climb(0, accepting=Accepting(break_glass=True), reason="nobody else can be reached")
    bench.until(S.APPROVED)
    bench.machine.abort = "it was a false alarm"
    bench.until(S.NORMAL)
    bench.machine.abort = ""
    bench.climb(0, accepting=Accepting(break_glass=True), reason="nobody else can be reached")
    bench.until(S.PROPOSED)
    commit = next(step for step in bench.machine.step(bench.world) if isinstance(step, Commit))
    assert "has not been reviewed" in bench.apply(commit.entry).detail


# -- loss, in numbers


@pytest.mark.parametrize(
    ("behind", "accepting", "why"),
    [
        (0, Accepting(), ""),
        (12, Accepting(), "the copy is 12 changes behind the source: accepted is a loss of 0"),
        (12, Accepting(loss=11), "the copy is 12 changes behind the source: accepted is a loss of 11"),
        (12, Accepting(loss=12), ""),
        (None, Accepting(loss=10**9), "UNKNOWN"),
        (None, Accepting(unknown_loss=True), ""),
    ],
)
def test_a_copy_that_is_behind_is_refused_with_the_number(behind: int | None, accepting: Accepting, why: str) -> None:
    bench = Bench()
    bench.behind = behind
    assert why in refusal(bench.state, behind, accepting) if why else not refusal(bench.state, behind, accepting)
    bench.climb(0, 1, accepting=accepting)
    if why:
        assert why in bench.alarms()[0]
        proposed = bench.machine.climb.proposed(behind, 1)  # type: ignore[union-attr]
        assert why in bench.apply(move_of(bench, S.PROPOSED, act="x", proposed=proposed)).detail, "and at apply"
        assert bench.stage is S.NORMAL
    else:
        bench.until(S.SERVING)
        assert bench.state.ladder.behind == behind, "the override is recorded"
        assert f"accepts a loss of at most {accepting.loss} changes" in bench.state.ladder.plan


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (replace(READY, ready=False), "no complete copy"),
        (replace(READY, verified=False), "differs from the source's certificate"),
        (replace(READY, feed=FeedState.FORKED), "FORKED"),
        (replace(READY, hold=Hold("1-0", START, "", b"", 0, 0)), "something is held at 1-0"),
        (replace(READY, prefixes=()), "owns no prefix"),
    ],
)
def test_an_unfit_copy_is_never_promoted(state: GroupState, why: str) -> None:
    bench = Bench(state)
    bench.climb(0, 1)
    assert why in bench.alarms()[0]
    proposed = bench.machine.climb.proposed(0, 1)  # type: ignore[union-attr]
    assert why in bench.apply(move_of(bench, S.PROPOSED, act="x", proposed=proposed)).detail


def move_of(bench: Bench, stage: Stage, act: str | None = None, **parts: object) -> entry_pb2.Entry:
    return move_entry(bench.world, stage, "a test", act, **parts)
