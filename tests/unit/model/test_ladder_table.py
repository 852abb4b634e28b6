"""The table of the ladder: which moves there are, and what each stage lets the source and us do."""

from __future__ import annotations

from itertools import pairwise

import pytest

from replica.model.errors import InvariantBroken
from replica.model.ladder import (
    BEGINNINGS,
    CLOSED,
    MOVES,
    REGISTERING,
    RENEWABLE,
    Function,
    Known,
    Ladder,
    OrderKind,
    Stage,
    check_move,
)

S = Stage
UP = [S.NORMAL, S.SUSPECT, S.THRESHOLD, S.PROPOSED, S.APPROVED, S.FENCED, S.PROMOTED, S.PUBLISHED, S.SERVING]
BACK = [
    S.SERVING,
    S.RETURN_REQUESTED,
    S.CATCHING_UP,
    S.FROZEN,
    S.SOURCE_EQUAL,
    S.HANDED_BACK,
    S.ACCEPTED,
    S.OBSERVED,
    S.NORMAL,
]


@pytest.mark.parametrize("way", [UP, BACK, [S.SERVING, S.TRANSFERRED]], ids=["up", "back", "transfer"])
def test_the_ways_of_the_design_are_legal(way: list[Stage]) -> None:
    for old, new in pairwise(way):
        check_move(old, new)


def test_every_stage_has_a_row_and_only_the_transfer_is_the_end() -> None:
    assert set(MOVES) == set(Stage)
    assert [stage for stage, moves in MOVES.items() if not moves] == [S.TRANSFERRED]


def test_an_abort_leads_back_only_before_the_fence() -> None:
    for stage in (S.FENCED, S.PROMOTED, S.PUBLISHED, S.SERVING):
        assert not MOVES[stage] & (BEGINNINGS | {S.PROPOSED, S.APPROVED})
    with pytest.raises(InvariantBroken, match="FENCED to NORMAL"):
        check_move(S.FENCED, S.NORMAL)


def test_failures_before_the_hand_back_lead_to_serving_and_none_after_it() -> None:
    for stage in (S.RETURN_REQUESTED, S.CATCHING_UP, S.FROZEN, S.SOURCE_EQUAL):
        assert S.SERVING in MOVES[stage]
    for stage in (S.HANDED_BACK, S.ACCEPTED, S.OBSERVED):
        assert S.SERVING not in MOVES[stage]
        assert S.PROPOSED in MOVES[stage], "a source that falls silent then is a new takeover"


def test_nobody_but_one_may_write_at_any_stage() -> None:
    assert REGISTERING < CLOSED, "we write only while nothing of the source's is applied"
    assert not RENEWABLE & CLOSED, "no lease is renewed where the source's epoch is closed"
    assert S.APPROVED not in RENEWABLE, "a living source's lease must run out"


def test_an_order_counts_until_its_deadline() -> None:
    order = Known(OrderKind.STANDING, 4, Function.REGISTRATION, "ab", until_ms=1_000)
    ladder = Ladder(known=(order,))
    assert ladder.order(OrderKind.STANDING, Function.REGISTRATION, 1_000) == order
    assert ladder.order(OrderKind.STANDING, Function.REGISTRATION, 1_001) is None
    assert ladder.order(OrderKind.STANDING, Function.RESOLUTION, 1_000) is None
