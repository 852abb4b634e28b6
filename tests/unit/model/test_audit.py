"""The audit's chain: derived from entries alone, and every tampering is found and named."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replica.model.audit import ALWAYS, NO_CHAIN, TABLE, AuditHead, Where, chained, check_chain, record
from replica.model.errors import ZaibeiError
from replica.model.position import ORIGIN, epoch_start
from replica.model.signing import SUITE
from replica.v1 import control_pb2, entry_pb2, position_pb2, source_pb2

GROUP = "node-a"
START = epoch_start(ORIGIN, b"L" * 16, 1)


def approval(operator: str) -> entry_pb2.Approval:
    return entry_pb2.Approval(
        operator=operator, signature=position_pb2.Signature(suite=SUITE, key_id=b"k" * 32, signature=b"s" * 64)
    )


def entries() -> list[entry_pb2.Entry]:
    grant = source_pb2.Grant(
        source=GROUP, parent=ORIGIN.to_wire(), start=START.to_wire(), reason="first contact", holder="member-1"
    )
    decision = entry_pb2.HoldDecision(
        hold="00ab", release=True, plan="text", approvals=[approval("wang.fang"), approval("li.wei")]
    )
    removed = control_pb2.ControlEntry(format=1, act="a1", removed=control_pb2.MemberRemoved(member=3, reason="disk"))
    return [
        entry_pb2.Entry(format=1, admitted_ms=1_000, grant=grant),
        entry_pb2.Entry(format=1, admitted_ms=2_000, mark=entry_pb2.FeedMark(state=4, code="held", reason="too much")),
        entry_pb2.Entry(format=1, admitted_ms=3_000, decision=decision),
        entry_pb2.Entry(format=1, admitted_ms=4_000, authority=entry_pb2.Authority(kind=2, act="t1", reason="probes fail")),
        entry_pb2.Entry(
            format=1, admitted_ms=5_000, overlay=entry_pb2.Overlay(prefix="88.118.8", sites=[b"site"], serial=7, act="t1")
        ),
        entry_pb2.Entry(format=1, admitted_ms=6_000, control=removed),
    ]


def chain_of(count: int = 12) -> tuple[list[bytes], AuditHead]:
    head, lines = AuditHead(), []
    for index in range(count):
        entry = entries()[index % len(entries())]
        kind = entry.WhichOneof("body") or ""
        made = record(
            Where(GROUP, 10 + index, 2, entry.admitted_ms),
            head,
            kind,
            getattr(entry, kind),
            entry.SerializeToString(),
            effect=True,
        )
        assert made is not None
        line, head = made
        lines.append(line)
    return lines, head


def test_a_record_says_who_what_when_why_and_on_what_evidence() -> None:
    lines, head = chain_of(6)
    found = [json.loads(line) for line in lines]
    assert [one["number"] for one in found] == [1, 2, 3, 4, 5, 6]
    assert [one["kind"] for one in found] == ["grant", "mark", "decision", "authority", "overlay", "control"]
    assert found[0]["who"] == ["member-1"]
    assert found[0]["why"] == "first contact"
    assert found[0]["evidence"]["start"] == str(START)
    assert found[1]["what"] == "the feed is held"
    assert found[2]["who"] == ["li.wei", "wang.fang"]
    assert found[2]["evidence"]["approvals"][0]["signature"] == "73" * 64
    assert found[3]["what"] == "who answers: resolution"
    assert found[5]["what"] == "member 3 is removed"
    assert {one["algorithm"] for one in found} == {"sha256"}
    assert {one["format"] for one in found} == {"zaibei-audit-1"}
    assert head.number == 6
    assert AuditHead.parse(str(head)) == AuditHead(6, head.chain)


def test_what_decides_nothing_leaves_no_record_and_a_refused_act_does() -> None:
    head = AuditHead()
    where = Where(GROUP, 1, 1, 1)
    assert record(where, head, "append", entry_pb2.AppendBatch(), b"", effect=True) is None
    assert record(where, head, "lease", None, b"", effect=True) is None
    assert record(where, head, "mark", entry_pb2.FeedMark(state=1), b"", effect=False) is None
    made = record(where, head, "authority", entry_pb2.Authority(kind=2, act="x"), b"", effect=False)
    assert made is not None
    assert json.loads(made[0])["effect"] is False
    assert set(TABLE) >= ALWAYS


def test_every_kind_of_the_table_can_be_told_of_an_empty_entry() -> None:
    """No octets of an entry may stop a group: the entry comes again at each start."""
    for kind in TABLE:
        entry = entry_pb2.Entry()
        body = getattr(entry, kind)
        made = record(Where(GROUP, 1, 1, 0), AuditHead(), kind, body, b"", effect=True)
        assert made is not None, kind
        assert json.loads(made[0])["what"], kind


def test_a_sound_chain_is_sound_also_from_the_middle() -> None:
    lines, head = chain_of()
    assert check_chain(lines, GROUP, 1, NO_CHAIN, head) == []
    middle = NO_CHAIN
    for line in lines[:5]:
        middle = chained(middle, line)
    assert check_chain(lines[5:], GROUP, 6, middle, head) == []


def test_faults_are_named() -> None:
    lines, head = chain_of()
    changed = [*lines]
    changed[4] = changed[4].replace(b"t1", b"t2")
    swapped = [*lines[:3], lines[4], lines[3], *lines[5:]]
    assert [one.fault for one in check_chain(changed, GROUP, 1, NO_CHAIN, head)] == ["changed"]
    assert check_chain(changed, GROUP, 1, NO_CHAIN, head)[0].number == 5
    assert check_chain([*lines[:4], *lines[5:]], GROUP, 1, NO_CHAIN, head)[0].fault == "missing"
    assert "reordered" in {one.fault for one in check_chain(swapped, GROUP, 1, NO_CHAIN, head)}
    assert [one.fault for one in check_chain(lines[:-2], GROUP, 1, NO_CHAIN, head)] == ["cut"]
    assert check_chain([*lines[:-1], lines[-1].replace(b"disk", b"disc")], GROUP, 1, NO_CHAIN, head)[0].fault == "changed"
    assert check_chain(lines, "node-b", 1, NO_CHAIN, head)[0].fault == "foreign"
    assert check_chain([b"{}", *lines[1:]], GROUP, 1, NO_CHAIN, head)[0].fault == "unreadable"


EDITS: list[Callable[[list[bytes], random.Random], list[bytes]]] = [
    lambda lines, chance: _flipped(lines, chance),
    lambda lines, chance: _without(lines, chance.randrange(len(lines))),
    lambda lines, chance: _moved(lines, chance),
    lambda lines, chance: lines[: chance.randrange(len(lines))],
    lambda lines, chance: lines[chance.randrange(1, len(lines)) :],
    lambda lines, chance: _doubled(lines, chance.randrange(len(lines))),
]


def _flipped(lines: list[bytes], chance: random.Random) -> list[bytes]:
    at = chance.randrange(len(lines))
    octets = bytearray(lines[at])
    octets[chance.randrange(len(octets))] ^= 1 << chance.randrange(7)
    return [*lines[:at], bytes(octets), *lines[at + 1 :]]


def _without(lines: list[bytes], at: int) -> list[bytes]:
    return [*lines[:at], *lines[at + 1 :]]


def _doubled(lines: list[bytes], at: int) -> list[bytes]:
    return [*lines[: at + 1], lines[at], *lines[at + 1 :]]


def _moved(lines: list[bytes], chance: random.Random) -> list[bytes]:
    one, other = chance.sample(range(len(lines)), 2)
    found = [*lines]
    found[one], found[other] = found[other], found[one]
    return found


@given(st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_no_tampering_goes_unseen(seed: int) -> None:
    chance = random.Random(seed)
    lines, head = chain_of(chance.randrange(2, 14))
    edited = chance.choice(EDITS)(lines, chance)
    faults = check_chain(edited, GROUP, 1, NO_CHAIN, head)
    assert bool(faults) == (edited != lines), f"seed {seed}"


@pytest.mark.parametrize("text", ["", "7", "x:00", "7:zz", "7:00"])
def test_a_head_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ZaibeiError):
        AuditHead.parse(text)
