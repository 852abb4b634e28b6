"""Named states that several rooms speak of, with their legal moves. A move that is not in a table is a bug and raises."""

from __future__ import annotations

from enum import IntEnum, StrEnum

from replica.model.errors import require


class FeedState(IntEnum):
    """State of a source's feed; the numbers are those of replica.v1.FeedMark.State. All are committed entries."""

    FLOWING = 1
    GAP = 2
    LOADING = 3
    HELD = 4
    FORKED = 5
    FENCED = 6
    DIVERGED = 7


FEED_MOVES: dict[FeedState, frozenset[FeedState]] = {
    FeedState.FLOWING: frozenset(
        {FeedState.GAP, FeedState.LOADING, FeedState.HELD, FeedState.FORKED, FeedState.FENCED, FeedState.DIVERGED}
    ),
    FeedState.GAP: frozenset({FeedState.FLOWING, FeedState.LOADING, FeedState.HELD, FeedState.FORKED, FeedState.FENCED}),
    FeedState.LOADING: frozenset({FeedState.FLOWING, FeedState.GAP, FeedState.HELD, FeedState.FORKED, FeedState.FENCED}),
    FeedState.HELD: frozenset({FeedState.FLOWING, FeedState.LOADING, FeedState.GAP, FeedState.FORKED, FeedState.FENCED}),
    FeedState.FORKED: frozenset({FeedState.LOADING, FeedState.FLOWING}),  # only by a granted epoch
    FeedState.FENCED: frozenset({FeedState.LOADING, FeedState.FLOWING, FeedState.FORKED}),
    FeedState.DIVERGED: frozenset(
        {FeedState.FLOWING, FeedState.LOADING, FeedState.GAP, FeedState.HELD, FeedState.FORKED, FeedState.FENCED}
    ),
}


def check_feed_move(old: FeedState, new: FeedState) -> None:
    """Raises InvariantBroken when the move is not in FEED_MOVES (staying is legal)."""
    require(new == old or new in FEED_MOVES[old], f"feed cannot move from {old.name} to {new.name}")


class Authority(IntEnum):
    """Who answers for a source; numbers of replica.v1.Authority.Kind."""

    SOURCE = 1
    RESOLUTION = 2
    REGISTRATION = 3


class Freshness(StrEnum):
    """How far an answer may be trusted (SEMANTICS 4)."""

    FRESH = "fresh"
    STALE_BOUNDED = "stale_bounded"
    DEGRADED = "degraded"
    EXPIRED = "expired"


class ReceiptLevel(IntEnum):
    """Numbers of replica.v1.Receipt.Level."""

    RECEIVED = 1
    QUORUM = 2
    ARCHIVED = 3


class Mode(IntEnum):
    """What a source's records are; numbers of replica.v1.Description.Mode."""

    RECORDS = 1
    ROUTES = 2
    MIXED = 3


class Result(StrEnum):
    """Every check has three results; UNKNOWN is never OK."""

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"
