"""Registrations at apply: place, preconditions, atomicity, and the same after a crash (SEMANTICS 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replica.model.batch import OP_PUT, Batch, Change, columns_of, cut_batch
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.precondition import ABSENT, NOTHING, PRESENT, Precondition, equal_to
from replica.model.states import Authority
from replica.v1 import entry_pb2
from tests.unit.store.conftest import World
from tests.unit.store.support import SOURCE, content_sum, delete, held, key, put, value

REGISTRATION = entry_pb2.Authority.KIND_REGISTRATION


def batch_after(world: World, changes: Sequence[Change]) -> Batch:
    return cut_batch(SOURCE, world.store.state().position, columns_of(changes), len(changes), 0)


def entry_of(batch: Batch, needs: Sequence[Precondition], **fields: object) -> entry_pb2.Entry:
    body = entry_pb2.Registration(
        batch=batch.raw, follows=batch.before.to_wire(), preconditions=[need.to_wire() for need in needs]
    )
    for name, content in fields.items():
        getattr(body, name).CopyFrom(content)
    return entry_pb2.Entry(registration=body)


def register(world: World, *pairs: tuple[Change, Precondition]) -> Outcome:
    batch = batch_after(world, [change for change, _ in pairs])
    return world.group.apply(entry_of(batch, [need for _, need in pairs]))


@pytest.fixture
def hosted(granted: World) -> World:
    """We are the authority of the source."""
    return live_here(granted)


def live_here(world: World) -> World:
    world.group.apply(entry_pb2.Entry(authority=entry_pb2.Authority(kind=REGISTRATION, act="hosted")))
    assert world.store.state().authority is Authority.REGISTRATION
    return world


def test_no_batch_of_a_node_is_applied_where_the_source_lives_here(hosted: World) -> None:
    batch = batch_after(hosted, [put(1)])
    body = entry_pb2.AppendBatch(batch=batch.raw, follows=batch.before.to_wire(), live=True)
    outcome = hosted.group.apply(entry_pb2.Entry(append=body))
    assert outcome.kind is OutcomeKind.FENCED and "lives here" in outcome.detail
    assert hosted.store.state().position == batch.before


def test_a_registration_is_a_batch_like_any_other(hosted: World) -> None:
    outcome = register(hosted, (put(1), NOTHING), (put(2), ABSENT))
    state = hosted.store.state()
    assert (outcome.kind, outcome.position) == (OutcomeKind.APPLIED, state.position)
    assert (state.position.seq, state.records) == (2, 2)
    digest = hosted.store.digest_at(state.position)
    assert digest is not None and digest.total == content_sum({put(n).key: put(n).value for n in (1, 2)})
    assert hosted.store.changes_after(hosted.source.head, 1 << 20) is not None
    [raw] = hosted.store.changes_after(hosted.source.head, 1 << 20) or []
    assert raw == hosted.group.log[-1].data[hosted.group.log[-1].data.index(raw) :][: len(raw)]


@pytest.mark.parametrize(
    ("stored", "need", "holds"),
    [
        (False, NOTHING, True),
        (True, NOTHING, True),
        (False, ABSENT, True),
        (True, ABSENT, False),
        (False, PRESENT, False),
        (True, PRESENT, True),
        (True, equal_to(put(1).value), True),
        (True, equal_to(put(1, "another").value), False),
        (False, equal_to(put(1).value), False),
    ],
)
def test_each_precondition(hosted: World, stored: bool, need: Precondition, holds: bool) -> None:
    if stored:
        register(hosted, (put(1), NOTHING))
    before = hosted.store.state().position
    outcome = register(hosted, (put(1, "changed"), need))
    assert outcome.kind is (OutcomeKind.APPLIED if holds else OutcomeKind.CONFLICT)
    assert (hosted.store.state().position == before) is not holds
    if not holds:
        assert "88.118.8/XYZ-000001" in outcome.detail, "the key is named"


def test_one_failed_precondition_leaves_everything_as_it_was(hosted: World) -> None:
    register(hosted, (put(1), NOTHING))
    before, content, counters = hosted.store.state(), held(hosted.store), hosted.store.state().brake
    outcome = register(hosted, (put(2), ABSENT), (put(1, "x"), ABSENT), (delete(1), NOTHING))
    after = hosted.store.state()
    assert outcome.kind is OutcomeKind.CONFLICT
    assert (after.position, after.records, after.brake) == (before.position, before.records, counters)
    assert held(hosted.store) == content
    assert after.index == before.index + 1, "the entry has its place all the same"


def test_changes_of_one_key_are_judged_one_after_the_other(hosted: World) -> None:
    first, second = put(1, "first"), put(1, "second")
    assert register(hosted, (first, ABSENT), (second, equal_to(first.value))).kind is OutcomeKind.APPLIED
    assert held(hosted.store) == {second.key: second.value}
    assert register(hosted, (delete(1), PRESENT), (put(1), PRESENT)).kind is OutcomeKind.CONFLICT


def test_removed_and_rewritten_records_count_for_the_brake(hosted: World) -> None:
    register(hosted, *((put(number), NOTHING) for number in range(120)))
    register(hosted, *((delete(number), PRESENT) for number in range(119)))
    state = hosted.store.state()
    assert state.brake.trips([(b"h88\x01118\x018", 1, 0)], 1_700_000_000_000, hosted.store.live_records)


def test_what_does_not_follow_is_a_no_op_with_a_definite_outcome(hosted: World) -> None:
    old = batch_after(hosted, [put(1)])
    assert hosted.group.apply(entry_of(old, [NOTHING])).kind is OutcomeKind.APPLIED
    assert hosted.group.apply(entry_of(old, [NOTHING])).kind is OutcomeKind.ALREADY
    other = cut_batch(SOURCE, old.before, columns_of([put(2)]), 1, 0)
    assert hosted.group.apply(entry_of(other, [NOTHING])).kind is OutcomeKind.CONFLICT
    skipped = cut_batch(SOURCE, batch_after(hosted, [put(3)]).after, columns_of([put(4)]), 1, 0)
    assert hosted.group.apply(entry_of(skipped, [NOTHING])).kind is OutcomeKind.GAP
    assert hosted.store.state().records == 1


def test_another_registrys_authority_is_not_ours(granted: World) -> None:
    assert register(granted, (put(1), NOTHING)).kind is OutcomeKind.FENCED
    assert granted.store.state().records == 0


def test_an_old_epoch_is_fenced(hosted: World) -> None:
    late = batch_after(hosted, [put(1)])
    hosted.group.grant(hosted.source.grant(2))
    assert hosted.group.apply(entry_of(late, [NOTHING])).kind is OutcomeKind.FENCED


def test_what_is_held_comes_first(granted: World) -> None:
    batch = batch_after(granted, [put(1)])
    granted.group.hold(batch)
    hosted = live_here(granted)  # a hold of before: while it lives here nothing of a node's is taken, not even aside
    assert register(hosted, (put(2), NOTHING)).kind is OutcomeKind.HELD


@dataclass
class Planted:
    """A registration with one thing wrong."""

    name: str
    entry: entry_pb2.Entry


def planted(world: World) -> list[Planted]:
    batch = batch_after(world, [put(1), put(2)])
    good = entry_of(batch, [NOTHING, ABSENT])
    foreign = cut_batch("88.118.9", batch.before, columns_of([put(1)]), 1, 0)
    unknown_op = cut_batch(SOURCE, batch.before, columns_of([Change(7, put(1).key, b"")]), 1, 0)
    miscounted = cut_batch(SOURCE, batch.before, columns_of([put(1)]), 2, 0)
    broken = cut_batch(SOURCE, batch.before, b"\xff\xff\xff", 1, 0)
    unknown_kind = entry_of(batch, [NOTHING, NOTHING])
    unknown_kind.registration.preconditions[0].kind = 9  # type: ignore[assignment]
    return [
        Planted("one precondition missing", entry_of(batch, [NOTHING])),
        Planted("one too many", entry_of(batch, [NOTHING] * 3)),
        Planted("another source", entry_of(foreign, [NOTHING])),
        Planted("unknown op", entry_of(unknown_op, [NOTHING])),
        Planted("fewer changes than stated", entry_of(miscounted, [NOTHING, NOTHING])),
        Planted("columns that do not parse", entry_of(broken, [NOTHING])),
        Planted("unknown precondition", unknown_kind),
        Planted("hash too short", entry_of(batch, [NOTHING, Precondition(equal_to(b"").must, b"abc")])),
        Planted("no batch", entry_pb2.Entry(registration=entry_pb2.Registration(batch=b"\xff\x00"))),
        Planted("nothing at all", entry_pb2.Entry(registration=entry_pb2.Registration())),
        Planted("follows another boundary", entry_of(batch, [NOTHING, ABSENT], follows=batch.after.to_wire())),
        Planted("no boundary", entry_pb2.Entry(registration=entry_pb2.Registration(batch=good.registration.batch))),
    ]


def test_octets_nobody_admitted_never_stop_the_group(hosted: World) -> None:
    for one in planted(hosted):
        assert hosted.group.apply(one.entry).kind is OutcomeKind.CONFLICT, one.name
    assert hosted.store.state().records == 0
    assert register(hosted, (put(1), ABSENT)).kind is OutcomeKind.APPLIED, "and it goes on"


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from(["put a", "put b", "delete"]), st.sampled_from(["-", "absent", "present", "a", "b"])
    ),
    min_size=1,
    max_size=4,
)
NEEDS = {"-": NOTHING, "absent": ABSENT, "present": PRESENT, "a": equal_to(value("a")), "b": equal_to(value("b"))}


def carried_out(content: dict[bytes, bytes], pairs: Sequence[tuple[Change, Precondition]]) -> dict[bytes, bytes] | None:
    """What a plain dictionary says: the content afterwards, None when a precondition fails."""
    made = dict(content)
    for change, need in pairs:
        if not need.met_by(made.get(change.key)):
            return None
        if change.op == OP_PUT:
            made[change.key] = change.value
        else:
            made.pop(change.key, None)
    return made


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(CHANGES, max_size=12), crash_at=st.integers(0, 12))
def test_a_replayed_store_decides_as_before(hosted: World, steps: list[list[tuple[int, str, str]]], crash_at: int) -> None:
    """Against a dictionary; in the middle the store loses what was not flushed, and the journal replays it."""
    content = held(hosted.store)
    for at, step in enumerate(steps):
        if at == crash_at:
            hosted.store._live.rocks.abandon()
            hosted.store._closed = True
            hosted.store = type(hosted.store).open(hosted.folder, SOURCE, hosted.budget)
            hosted.group.replay(hosted.store)
            assert held(hosted.store) == content
        pairs = [
            (delete(number) if act == "delete" else put(number, act.removeprefix("put ")), NEEDS[need])
            for number, act, need in step
        ]
        expected = carried_out(content, pairs)
        outcome = register(hosted, *pairs)
        assert outcome.kind is (OutcomeKind.CONFLICT if expected is None else OutcomeKind.APPLIED)
        content = content if expected is None else expected
        assert held(hosted.store) == content
    digest = hosted.store.digest_at(hosted.store.state().position)
    assert digest is not None and (digest.records, digest.total) == (len(content), content_sum(content))


def test_keys_of_the_test_are_those_of_the_store() -> None:
    assert key(1) == put(1).key
