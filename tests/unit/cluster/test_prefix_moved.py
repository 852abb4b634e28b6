"""The control group records which prefix was released to whom, once, and that it was acquired (SEMANTICS 9)."""

from __future__ import annotations

from dataclasses import replace

from replica.cluster.entries import prefix_moved
from replica.cluster.machine import decode_state, encode_state
from replica.cluster.rules import apply_entry
from replica.cluster.state import ControlState, GroupRecord, Placement, PrefixRecord
from replica.model.outcome import OutcomeKind

RECORD = PrefixRecord("a1", "88.118.9.5", 1, "region-9", "region-5", 3, "p", 2, "ab" * 32, False, 1)
STATE = ControlState(
    cluster=bytes(16),
    groups=tuple(GroupRecord(n + 2, name, (1,), Placement((1,))) for n, name in enumerate(("region-9", "region-5"))),
)


def applied(state: ControlState, record: PrefixRecord) -> tuple[ControlState, OutcomeKind]:
    after, outcome = apply_entry(state, prefix_moved(1, record).control)
    return after, outcome.kind


def test_recorded_then_acquired_each_once_and_kept() -> None:
    state, kind = applied(STATE, RECORD)
    assert kind is OutcomeKind.APPLIED and state.moved == (RECORD,)
    assert applied(state, RECORD) == (state, OutcomeKind.ALREADY)
    done, kind = applied(state, replace(RECORD, acquired=True, at_ms=5))
    assert kind is OutcomeKind.APPLIED and done.moved == (replace(RECORD, acquired=True, at_ms=5),)
    assert decode_state(encode_state(done), "x") == done


def test_what_is_refused() -> None:
    state, _ = applied(STATE, RECORD)
    assert applied(STATE, replace(RECORD, acquired=True))[1] is OutcomeKind.CONFLICT, "never recorded"
    assert applied(STATE, replace(RECORD, target="nobody"))[1] is OutcomeKind.CONFLICT
    assert applied(state, replace(RECORD, act="a2", number=2))[1] is OutcomeKind.CONFLICT, "the first one is not over"
    assert applied(state, replace(RECORD, acquired=True, digest="cd" * 32))[1] is OutcomeKind.CONFLICT, "another digest"
    done, _ = applied(state, replace(RECORD, acquired=True))
    assert applied(done, replace(RECORD, act="a2"))[1] is OutcomeKind.CONFLICT, "its number is used"
    assert applied(done, replace(RECORD, act="a2", number=2))[1] is OutcomeKind.APPLIED
