"""The audit of the control group: part of its state, so that it moves, is kept and is sent with what it tells of."""

from __future__ import annotations

import json

import pytest

from replica.cluster import entries
from replica.cluster.machine import ControlMachine, MemoryKeep
from replica.cluster.state import AUDIT_KEPT, CONTROL_NAME, MemberRecord
from replica.model.audit import NO_CHAIN, check_chain
from replica.model.audit_personal import DAY_MS, KEPT_DAYS
from replica.model.outcome import LogEntry
from replica.v1 import entry_pb2
from tests.unit.cluster.worlds import CLUSTER, LINEAGE

NOW_MS = 1_800_000_000_000


def fed(machine: ControlMachine, *made: entry_pb2.Entry) -> None:
    index = machine.applied()[0]
    machine.apply([LogEntry(index + at, 3, entry.SerializeToString()) for at, entry in enumerate(made, 1)])


def begin() -> list[entry_pb2.Entry]:
    return [
        entries.begun("a1", 1_000, CLUSTER, LINEAGE, 3),
        entries.admitted("a2", 2_000, MemberRecord(0, "m1", links=("m1:2646",))),
        entries.admitted("a2", 2_500, MemberRecord(0, "m1", links=("m1:2646",))),  # the same act again: nothing is decided
        entries.admitted("a3", 3_000, MemberRecord(0, "m2", zone="b", links=("m2:2646",))),
    ]


def test_membership_is_recorded_with_the_decision_and_once() -> None:
    machine = ControlMachine(MemoryKeep())
    fed(machine, *begin())
    state = machine.state
    found = [json.loads(line) for line in state.audit]
    assert [one["index"] for one in found] == [1, 2, 4]
    assert [one["at_ms"] for one in found] == [1_000, 2_000, 3_000]
    assert found[2]["what"] == "member 'm2' is admitted"
    assert found[2]["evidence"]["zone"] == "b"
    assert check_chain([line.encode() for line in state.audit], CONTROL_NAME, 1, NO_CHAIN, state.audit_head) == []


def test_members_agree_and_a_checkpoint_carries_it() -> None:
    one, other, third = (ControlMachine(MemoryKeep()) for _ in range(3))
    fed(one, *begin())
    for entry in begin():
        fed(other, entry)
    assert one.state.audit_head == other.state.audit_head
    third.install(one.checkpoint()[2])
    fed(third, entries.removed("a4", 4_000, 2, "its disk"))
    fed(one, entries.removed("a4", 4_000, 2, "its disk"))
    assert third.state.audit_head == one.state.audit_head
    assert json.loads(one.state.audit[-1])["why"] == "its disk"


@pytest.mark.parametrize(("days", "gone"), [(0, 3), (KEPT_DAYS - 1, 3), (KEPT_DAYS + 1, 8)])
def test_beyond_its_number_the_state_keeps_what_is_young_and_says_where_it_begins(days: int, gone: int) -> None:
    """Half of them are `days` older than the other half; the first three are of 1970."""

    def at_ms(number: int) -> int:
        return NOW_MS + number + (days * DAY_MS if number > AUDIT_KEPT // 2 else 0)

    machine = ControlMachine(MemoryKeep())
    fed(machine, *begin())
    state = machine.state
    member = state.members[0]
    for number in range(AUDIT_KEPT + 5):
        fed(
            machine,
            entries.changed(
                f"c{number}", at_ms(number), MemberRecord(member.number, "m1", zone=f"z{number}", links=member.links)
            ),
        )
    state = machine.state
    assert len(state.audit) == AUDIT_KEPT + 8 - gone
    first = json.loads(state.audit[0])
    assert state.audit_head.first == first["number"] == 1 + gone
    lines = [line.encode() for line in state.audit]
    assert check_chain(lines, CONTROL_NAME, first["number"], bytes.fromhex(first["before"]), state.audit_head) == []
