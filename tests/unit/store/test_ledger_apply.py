"""The ledger of a failback at apply: lines are counted once, enter once, and failback does not pass FROZEN without them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from replica.model.digest import ContentDigest
from replica.model.ladder import Stage
from replica.model.ledger import Kind, Line, Verdict, Written
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.position import Position, epoch_start
from replica.v1 import entry_pb2, position_pb2, source_pb2
from tests.unit.store.conftest import World
from tests.unit.store.support import LINEAGE, SOURCE, content_sum, delete, held, key, load, put, value

S = entry_pb2.Ladder
APPROVERS = [entry_pb2.Approval(operator=name, signature=position_pb2.Signature(key_id=name.encode())) for name in ("ann", "bo")]


def climb(world: World, stage: Stage, **parts: object) -> Outcome:
    ladder = world.store.state().ladder
    body = S(stage=S.Stage.ValueType(int(stage)), act="act", reason="a typed reason", decided_ms=1, **parts)  # type: ignore[arg-type]
    setattr(body, "from", int(ladder.stage))
    return world.group.apply(entry_pb2.Entry(ladder=body))


def grant_of(world: World, epoch: int, holder: str) -> source_pb2.Grant:
    at = world.store.state().position
    return source_pb2.Grant(
        source=SOURCE, parent=at.to_wire(), start=epoch_start(at, LINEAGE, epoch).to_wire(), reason="test", holder=holder
    )


@pytest.fixture
def serving(granted: World) -> World:
    """Records 1 and 2 were copied; then registration was taken over, and 2 was rewritten here."""
    granted.group.apply(entry_pb2.Entry(ownership=entry_pb2.Ownership(version=1, prefixes=["88.118.8"], mode=1)))
    granted.group.append(granted.source.cut([put(1), put(2)]))
    for stage, parts in (
        (Stage.PROPOSED, {"proposed": entry_pb2.Proposed(fence=1, plan="plan", accepts_unknown=True)}),
        (Stage.APPROVED, {"approved": entry_pb2.Approved(approvals=APPROVERS)}),
        (Stage.FENCED, {"lease": entry_pb2.LeaseFacts()}),
        (Stage.PROMOTED, {"grant": grant_of(granted, 2, "copy")}),
        (Stage.SERVING, {}),
    ):
        outcome = climb(granted, stage, **parts)
        assert outcome.kind is OutcomeKind.APPLIED, outcome
    assert granted.store.state().ladder.stage is Stage.SERVING
    return granted


def common(world: World) -> Position:
    at = world.store.state().ladder.closed_at
    assert at is not None
    return at


def line(number: int, seq: int, theirs: str | None, verdict: Verdict = Verdict.ACCEPT, **fields: object) -> Line:
    made = {
        "key": key(number), "seq": seq, "theirs": None if theirs is None else value(theirs), "ours": None,
        "written": Written.NO, "kind": Kind.CONFLICT, "verdict": verdict, "by": "only-source",
    }  # fmt: skip
    return Line(**(made | fields))  # type: ignore[arg-type]


def say(world: World, lines: Sequence[Line], *, complete: bool = True, theirs: Position | None = None) -> Outcome:
    body = entry_pb2.LedgerLines(
        common=common(world).to_wire(), theirs=(theirs or END).to_wire(), complete=complete, lines=[one.pack() for one in lines]
    )
    return world.group.apply(entry_pb2.Entry(ledger=body))


def enter(world: World, *lines: Line) -> Outcome:
    body = entry_pb2.LedgerEnter(common=common(world).to_wire(), lines=[one.ident for one in lines])
    return world.group.apply(entry_pb2.Entry(ledger_enter=body))


def decide(world: World, accept: bool, *lines: Line, operator: str = "ann") -> Outcome:
    body = entry_pb2.LedgerDecision(
        common=common(world).to_wire(), lines=[one.ident for one in lines], accept=accept, reason="looked at",
        approval=entry_pb2.Approval(operator=operator),
    )  # fmt: skip
    return world.group.apply(entry_pb2.Entry(ledger_decision=body))


def lines_of(world: World) -> list[Line]:
    return world.store.ledger_lines(common(world), b"", 1_000)


END = Position(LINEAGE, 1, 9, b"e" * 32)


def equal(world: World, digest: ContentDigest | None = None) -> Outcome:
    state = world.store.state()
    content = held(world.store)
    said = digest or ContentDigest(state.position, len(content), content_sum(content))
    return climb(world, Stage.SOURCE_EQUAL, digest=said.to_wire())


def freeze(world: World) -> None:
    for stage in (Stage.RETURN_REQUESTED, Stage.CATCHING_UP, Stage.FROZEN):
        assert climb(world, stage).kind is OutcomeKind.APPLIED


def test_lines_are_stored_and_counted_outside_of_the_digest(serving: World) -> None:
    before = serving.store.state()
    lines = [line(3, 3, "theirs"), line(3, 5, "later", Verdict.HOLD), line(4, 4, None, Verdict.NOTHING, kind=Kind.UNACKNOWLEDGED)]
    assert say(serving, lines).kind is OutcomeKind.APPLIED
    state = serving.store.state()
    assert state.ledger is not None and (state.ledger.counts.lines, state.ledger.counts.open) == (3, 2)
    assert (state.position, state.records) == (before.position, before.records)
    assert serving.store.digest_at(state.position) == serving.store.digest_at(before.position)
    assert lines_of(serving) == sorted(lines, key=lambda one: one.ident)
    assert serving.store.ledger_lines(common(serving), lines_of(serving)[0].ident, 1) == [lines_of(serving)[1]]


def test_the_same_lines_again_change_nothing(serving: World) -> None:
    lines = [line(3, 3, "theirs"), line(4, 4, "x")]
    say(serving, lines)
    assert say(serving, lines).kind is OutcomeKind.ALREADY
    assert say(serving, lines[:1]).kind is OutcomeKind.ALREADY
    ledger = serving.store.state().ledger
    assert ledger is not None and ledger.counts.lines == 2


def test_an_accepted_line_enters_once_as_a_change_of_our_epoch(serving: World) -> None:
    new, gone = line(3, 3, "theirs"), line(1, 4, None, ours=put(1).value)
    say(serving, [new, gone])
    outcome = enter(serving, new, gone)
    state = serving.store.state()
    assert outcome.kind is OutcomeKind.APPLIED and outcome.position == state.position
    assert (state.position.epoch, state.position.seq) == (2, 4)
    assert held(serving.store) == {key(2): put(2).value, key(3): value("theirs")}
    assert state.ledger is not None and (state.ledger.counts.open, state.ledger.counts.entered) == (0, 2)
    assert sorted(one.later for one in lines_of(serving)) == [3, 4], "each cites the change that carried it out"
    assert say(serving, [new, gone]).kind is OutcomeKind.ALREADY, "judged again, it stays settled"
    assert enter(serving, new, gone).kind is OutcomeKind.CONFLICT, "a second time there is nothing to do"
    assert serving.store.state().position == state.position


def test_what_we_hold_is_said_again_where_it_stays(serving: World) -> None:
    kept = line(1, 3, "unacknowledged", Verdict.STATE, kind=Kind.UNACKNOWLEDGED, ours=put(1).value)
    say(serving, [kept])
    start = serving.store.state().position
    assert enter(serving, kept).kind is OutcomeKind.APPLIED
    [raw] = serving.store.changes_after(start, 1 << 20) or []
    assert put(1).value in raw, "a source that copies our history finds it there"
    assert [one.verdict for one in lines_of(serving)] == [Verdict.STATED]
    assert held(serving.store)[key(1)] == put(1).value


def test_a_line_whose_key_changed_since_stays_open(serving: World) -> None:
    stale, sound = line(1, 3, "theirs", ours=value("before")), line(3, 4, "new")
    say(serving, [stale, sound])
    assert enter(serving, stale, sound).kind is OutcomeKind.APPLIED
    assert held(serving.store)[key(1)] == put(1).value, "ours is not overwritten unseen"
    assert {one.seq: one.verdict for one in lines_of(serving)} == {3: Verdict.ACCEPT, 4: Verdict.ENTERED}
    again = line(1, 3, "theirs", Verdict.KEEP, ours=put(1).value, written=Written.YES, by="ours-wins")
    assert say(serving, [again]).kind is OutcomeKind.APPLIED
    ledger = serving.store.state().ledger
    assert ledger is not None and ledger.counts.open == 0


def test_a_person_decides_what_waits_and_nobody_takes_it_back(serving: World) -> None:
    one, two = line(3, 3, "one", Verdict.HOLD), line(4, 4, "two", Verdict.HOLD, written=Written.YES)
    say(serving, [one, two])
    assert decide(serving, True, one).kind is OutcomeKind.APPLIED
    assert decide(serving, False, two, operator="bo").kind is OutcomeKind.APPLIED
    found = {held_line.seq: (held_line.verdict, held_line.by) for held_line in lines_of(serving)}
    assert found == {3: (Verdict.ACCEPT, "person:ann"), 4: (Verdict.KEEP, "person:bo")}
    assert say(serving, [one, two]).kind is OutcomeKind.ALREADY, "judging again does not undo a person's word"
    assert decide(serving, False, one).kind is OutcomeKind.CONFLICT
    assert decide(serving, True, line(9, 9, "x", Verdict.HOLD)).kind is OutcomeKind.CONFLICT
    assert decide(serving, True, operator="ann").kind is OutcomeKind.CONFLICT


def test_failback_does_not_pass_frozen_unsettled(serving: World) -> None:
    """The rule at apply; red without it: the source would be overwritten with a write of its own nobody looked at."""
    freeze(serving)
    assert "not looked at" in equal(serving).detail
    assert climb(serving, Stage.SERVING).kind is OutcomeKind.APPLIED
    open_line = line(3, 3, "theirs")
    say(serving, [open_line], complete=False)
    freeze(serving)
    assert "up to" in equal(serving).detail
    assert climb(serving, Stage.SERVING).kind is OutcomeKind.APPLIED
    say(serving, [open_line])
    freeze(serving)
    assert "1 for their change" in equal(serving).detail
    assert say(serving, [line(5, 5, "late")]).kind is OutcomeKind.CONFLICT, "the freeze closes the ledger"
    assert enter(serving, open_line).kind is OutcomeKind.CONFLICT
    assert climb(serving, Stage.SERVING).kind is OutcomeKind.APPLIED
    enter(serving, open_line)
    freeze(serving)
    assert equal(serving).kind is OutcomeKind.APPLIED
    assert climb(serving, Stage.HANDED_BACK, grant=grant_of(serving, 3, SOURCE)).kind is OutcomeKind.APPLIED


def test_another_digest_does_not_pass_frozen_either(serving: World) -> None:
    say(serving, [])
    freeze(serving)
    at = serving.store.state().position
    assert equal(serving, ContentDigest(at, 2, 7)).kind is OutcomeKind.CONFLICT
    assert equal(serving).kind is OutcomeKind.APPLIED


@pytest.mark.parametrize("damage", ["no line", "entered", "applied before it is", "another ledger", "too many"])
def test_octets_nobody_should_say_never_stop_the_group(serving: World, damage: str) -> None:
    body = entry_pb2.LedgerLines(common=common(serving).to_wire(), theirs=END.to_wire(), complete=True)
    match damage:
        case "no line":
            body.lines.append(b"\1\2\3")
        case "entered":
            body.lines.append(line(3, 3, "x", Verdict.ENTERED).pack())
        case "applied before it is":
            body.lines.append(line(3, 3, "x", Verdict.STATED).pack())
        case "another ledger":
            body.common.CopyFrom(END.to_wire())
        case "too many":
            body.lines.extend(line(3, seq, "x").pack() for seq in range(1_001))
    assert serving.group.apply(entry_pb2.Entry(ledger=body)).kind is OutcomeKind.CONFLICT
    assert serving.store.state().ledger is None
    for empty in (
        entry_pb2.Entry(ledger=entry_pb2.LedgerLines()),
        entry_pb2.Entry(ledger_decision=entry_pb2.LedgerDecision()),
        entry_pb2.Entry(ledger_enter=entry_pb2.LedgerEnter()),
    ):
        assert serving.group.apply(empty).kind is OutcomeKind.CONFLICT
    assert say(serving, []).kind is OutcomeKind.APPLIED, "and it goes on"


def test_what_is_not_the_sources_own_enters_in_quarantine(serving: World) -> None:
    foreign = line(1, 3, "x", key=key(1, "86\x011"))
    say(serving, [foreign])
    assert enter(serving, foreign).kind is OutcomeKind.APPLIED
    assert serving.store.get_many([foreign.key])[0] == [b""], "held, and not answered"
    assert serving.store.state().quarantined == 1


def test_a_restart_finds_the_ledger(serving: World) -> None:
    one, two = line(3, 3, "one"), line(4, 4, "two", Verdict.HOLD)
    say(serving, [one, two])
    enter(serving, one)
    before = (serving.store.state().ledger, lines_of(serving), held(serving.store))
    serving.restart()
    assert (serving.store.state().ledger, lines_of(serving), held(serving.store)) == before
    serving.store._live.rocks.abandon()
    serving.store._closed = True
    serving.store = type(serving.store).open(serving.folder, SOURCE, serving.budget)
    serving.group.replay(serving.store)
    assert (serving.store.state().ledger, lines_of(serving), held(serving.store)) == before, "replayed as before"


async def test_the_ledger_moves_to_the_next_generation(serving: World) -> None:
    one = line(3, 3, "one")
    say(serving, [one])
    enter(serving, one)
    lines, ledger = lines_of(serving), serving.store.state().ledger
    at = common(serving)
    freeze(serving)
    equal(serving)
    climb(serving, Stage.HANDED_BACK, grant=grant_of(serving, 3, SOURCE))
    granted = serving.store.state().granted
    assert granted is not None
    content = held(serving.store)
    serving.group.load_begin(1, granted)
    digest = ContentDigest(granted, len(content), content_sum(content))
    await load(serving.store, 1, content, digest)
    serving.group.load_staged(1)
    assert serving.group.load_switch(1, digest).kind is OutcomeKind.APPLIED
    assert serving.store.state().generation == 1
    assert (serving.store.ledger_lines(at, b"", 10), serving.store.state().ledger) == (lines, ledger)


def test_removed_records_count_for_the_brake(serving: World) -> None:
    assert delete(1).op == 2
    gone = line(1, 3, None, ours=put(1).value)
    say(serving, [gone])
    before = serving.store.state().brake
    enter(serving, gone)
    assert serving.store.state().brake != before
