"""Orders to block: what they hit, when they end, and which of them count (replica/model/blocks.py, block_rules.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replica.model.block_rules import SIGNERS_MAX, take_block
from replica.model.blocks import NONE, TARGETS_MAX, VALID_MS_MAX, Blocked, Blocks, InForce, blocks_of
from replica.model.group_state import GroupState
from replica.model.identifier import Identifier, prefix_key
from replica.model.ladder_values import Moved, Refused
from replica.model.outcome import OutcomeKind
from replica.v1 import entry_pb2, position_pb2

DAY = 86_400_000
GROUP = GroupState("gd", prefixes=(prefix_key("88.118"), prefix_key("88.118.9")), case_sensitive=(prefix_key("88.118.9"),))


def order(number: int = 1, *, key: bytes = b"\x01" * 32, **fields: object) -> entry_pb2.Block:
    wanted = {"identifiers": ["88.118.8/bad"], "until_ms": 2 * DAY, "decided_ms": DAY, "reason": "why", **fields}
    approval = entry_pb2.Approval(operator="li.wei", signature=position_pb2.Signature(suite="std", key_id=key))
    return entry_pb2.Block(number=number, approval=approval, **wanted)  # type: ignore[arg-type]


def taken(group: GroupState, body: entry_pb2.Block) -> GroupState:
    judged = take_block(group, body)
    assert isinstance(judged, Moved), judged
    return judged.group


def refused(group: GroupState, body: entry_pb2.Block) -> Refused:
    judged = take_block(group, body)
    assert isinstance(judged, Refused)
    return judged


def hits(blocks: Blocks, name: str, now_ms: int = DAY, *, case_sensitive: bool = False) -> bool:
    parsed = Identifier.parse(name)
    return blocks.on(parsed.prefix, parsed.key(case_sensitive=case_sensitive), now_ms) is not None


def test_an_identifier_alone_or_a_prefix_with_all_below_it() -> None:
    state = taken(GROUP, order(identifiers=["88.118.8/bad"], prefixes=["88.118.7", "oid:1.2.156"]))
    blocks = Blocks(state.blocks[0].blocked())
    for name in (
        "88.118.8/bad",
        "88.118.8/BAD",
        "88.118.7/x",
        "88.118.7.1/x",
        "0.NA/88.118.7",
        "0.NA/88.118.7.1",
        "oid:1.2.156.9",
    ):
        assert hits(blocks, name), name
    for name in ("88.118.8/bad2", "88.118.8/ba", "88.118.77/x", "0.NA/88.118.8", "88.118/bad", "oid:1.2.1560"):
        assert not hits(blocks, name), name


def test_case_counts_where_the_source_says_so() -> None:
    blocks = Blocks(taken(GROUP, order(identifiers=["88.118.9/bad"])).blocks[0].blocked())
    assert hits(blocks, "88.118.9/bad", case_sensitive=True) and not hits(blocks, "88.118.9/BAD", case_sensitive=True)


def test_the_short_way_is_closed_wherever_something_may_be_blocked() -> None:
    blocks = Blocks([Blocked(Identifier.parse("88.118.8/bad").key(), DAY, "a/1"), Blocked(prefix_key("88.119"), DAY, "a/2")])
    assert all(blocks.near(prefix_key(text)) for text in ("88.118.8", "88.119", "88.119.4.5"))
    assert not any(blocks.near(prefix_key(text)) for text in ("88.118.7", "88.118", "88.120"))
    assert not NONE and not NONE.near(prefix_key("88.119")) and blocks_of(()) is NONE


def test_an_order_ends_by_itself_and_the_later_of_two_counts() -> None:
    octets = prefix_key("88.118")
    blocks = Blocks([Blocked(octets, 3 * DAY, "a/1"), Blocked(octets, 2 * DAY, "a/2")])
    assert hits(blocks, "88.118.8/x", 3 * DAY - 1) and not hits(blocks, "88.118.8/x", 3 * DAY)
    state = taken(taken(GROUP, order(1)), order(2, identifiers=["88.118.8/other"], until_ms=4 * DAY))
    in_force = InForce()
    for now_ms, expected in ((DAY, 2), (2 * DAY - 1, 2), (2 * DAY, 1), (3 * DAY, 1), (4 * DAY, 0), (9 * DAY, 0), (DAY, 2)):
        assert len(in_force.at(state.blocks, now_ms)) == expected, now_ms  # at last the clock was set back
    assert in_force.at((), DAY) == ()
    assert in_force.at(state.blocks, DAY) is in_force.at(state.blocks, DAY + 1)


def test_numbers_of_a_key_rise() -> None:
    state = taken(GROUP, order(5))
    assert refused(state, order(5)).kind is OutcomeKind.ALREADY
    assert "replay" in refused(state, order(5, identifiers=["88.118.8/other"])).why
    assert "replay" in refused(state, order(4)).why
    assert len(taken(state, order(4, key=b"\x02" * 32)).blocks) == 2, "another key counts for itself"
    lifted = taken(state, order(0, lifted=True, order="li.wei/5"))
    assert lifted.blocks == () and "replay" in refused(lifted, order(5)).why, "a lifted order cannot be handed in again"
    assert refused(lifted, order(0, lifted=True, order="li.wei/5")).kind is OutcomeKind.ALREADY
    assert "replay" in refused(GROUP, order(0)).why


def test_bounds() -> None:
    assert "1 to 64" in refused(GROUP, order(identifiers=[])).why
    assert "1 to 64" in refused(GROUP, order(identifiers=[f"88.118.8/{number}" for number in range(65)])).why
    assert "not an identifier" in refused(GROUP, order(prefixes=["88..1"])).why
    state = GROUP
    for number in range(TARGETS_MAX // 64):
        names = [f"88.118.8/{number}-{one}" for one in range(64)]
        state = taken(state, order(number + 1, identifiers=names))
    full = refused(state, order(1_000))
    assert "more than 1024" in full.why
    freed = taken(state, order(1_000, decided_ms=3 * DAY, until_ms=4 * DAY))
    assert len(freed.blocks) == 1, "what is over is forgotten when another order comes"
    many = replace(GROUP, block_numbers=tuple((f"{number:064x}", 1) for number in range(SIGNERS_MAX)))
    assert "no more are remembered" in refused(many, order()).why


@pytest.mark.parametrize("kind", ["identifier", "prefix"])
def test_a_state_that_knows_orders_is_the_same_after_its_row(kind: str) -> None:
    from replica.store.state_row import Stored, pack_state, unpack_state

    named = {"identifiers": ["88.118.8/bad"]} if kind == "identifier" else {"identifiers": [], "prefixes": ["88.118"]}
    state = taken(GROUP, order(7, **named))
    again = unpack_state(pack_state(Stored(state))).group
    assert (again.blocks, again.block_numbers) == (state.blocks, state.block_numbers)


def test_an_order_without_a_near_end_counts_nowhere() -> None:
    for until_ms in (0, DAY, DAY + VALID_MS_MAX + 1):
        assert "does not end" in refused(GROUP, order(until_ms=until_ms)).why
    assert Blocked(b"", 2**62, "a/1").text() == "blocked by order a/1 until 4611686018427387904 ms"
