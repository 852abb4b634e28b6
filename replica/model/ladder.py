"""The ladder: where the authority over one source's registrations stands, from NORMAL to SERVING and back (SEMANTICS 5, 7, 8).

Every move is an entry in the source's own group. This file holds the names, the legal moves and the committed value; what a move
requires at apply is in `ladder_rules.py`, when our leader proposes which one in `replica/takeover/ladder.py`.

    NORMAL -> SUSPECT -> THRESHOLD -> PROPOSED -> APPROVED -> FENCED -> PROMOTED -> PUBLISHED -> SERVING
    SERVING -> RETURN_REQUESTED -> CATCHING_UP -> FROZEN -> SOURCE_EQUAL -> HANDED_BACK -> ACCEPTED -> OBSERVED -> NORMAL
    SERVING -> TRANSFERRED, for a new provider
    APPROVED -> DRAINING -> FENCED in a planned switchover: the source lives, and ends its own writing first
    NORMAL -> RETURN_REQUESTED, for a source that lives here and leaves for a node of its own: the same way, or back to NORMAL

An abort before FENCED forgets. From FENCED on the old epoch is closed for good: the only way back is a hand-back with a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from replica.model.errors import require
from replica.model.position import Position


class Stage(IntEnum):
    """Numbers of replica.v1.Ladder.Stage; persistent, never renumber."""

    NORMAL = 1
    SUSPECT = 2  # most probes of one window failed
    THRESHOLD = 3  # at least 51 % of the probes failed for the whole time
    PROPOSED = 4  # lag, digest age and expected loss are listed
    APPROVED = 5  # leases are renewed no more; the last one runs out
    FENCED = 6  # the source's epoch is closed
    PROMOTED = 7  # an epoch is granted to us; "serving, not yet found"
    PUBLISHED = 8
    SERVING = 9  # registrations are accepted
    RETURN_REQUESTED = 10
    CATCHING_UP = 11  # the source copies what was registered here
    FROZEN = 12  # registrations wait, at most 30 s
    SOURCE_EQUAL = 13  # the source's digest at the frozen position is ours
    HANDED_BACK = 14  # the next epoch is granted to the source; we never write it
    ACCEPTED = 15  # the source has the grant on its disk
    OBSERVED = 16  # it was seen to write and answer in that epoch
    TRANSFERRED = 17  # another provider holds it: the end
    DRAINING = 18  # a switchover: the source is asked to end its writing, and says where it did


S = Stage
MOVES: dict[Stage, frozenset[Stage]] = {
    # To itself: it was seen well again, see `held_off`.
    S.NORMAL: frozenset({S.NORMAL, S.SUSPECT, S.PROPOSED, S.RETURN_REQUESTED}),
    S.SUSPECT: frozenset({S.NORMAL, S.THRESHOLD, S.PROPOSED}),
    S.THRESHOLD: frozenset({S.NORMAL, S.PROPOSED}),
    # Aborts lead to where the act began: `began_from`.
    S.PROPOSED: frozenset({S.NORMAL, S.HANDED_BACK, S.ACCEPTED, S.OBSERVED, S.APPROVED}),
    S.APPROVED: frozenset({S.NORMAL, S.HANDED_BACK, S.ACCEPTED, S.OBSERVED, S.DRAINING, S.FENCED}),
    S.DRAINING: frozenset({S.NORMAL, S.FENCED}),  # a switchover begins at NORMAL alone
    S.FENCED: frozenset({S.PROMOTED}),
    S.PROMOTED: frozenset({S.PUBLISHED, S.SERVING}),  # past PUBLISHED when no adapter confirms in time: "not yet found"
    S.PUBLISHED: frozenset({S.SERVING}),
    S.SERVING: frozenset({S.RETURN_REQUESTED, S.TRANSFERRED}),
    # What fails before the hand-back leads to where it began: SERVING, or NORMAL where the source lives here.
    S.RETURN_REQUESTED: frozenset({S.CATCHING_UP, S.SERVING, S.NORMAL}),
    S.CATCHING_UP: frozenset({S.FROZEN, S.SERVING, S.NORMAL}),
    S.FROZEN: frozenset({S.SOURCE_EQUAL, S.SERVING, S.NORMAL}),
    S.SOURCE_EQUAL: frozenset({S.HANDED_BACK, S.SERVING, S.NORMAL}),
    # After the hand-back a silent source is a new takeover, with a new act and a new epoch.
    S.HANDED_BACK: frozenset({S.ACCEPTED, S.PROPOSED}),
    S.ACCEPTED: frozenset({S.OBSERVED, S.PROPOSED}),
    S.OBSERVED: frozenset({S.NORMAL, S.PROPOSED}),
    S.TRANSFERRED: frozenset(),
}
ABORTABLE = frozenset({S.PROPOSED, S.APPROVED, S.DRAINING})  # the source's epoch is open: an abort forgets
BEGINNINGS = frozenset({S.NORMAL, S.HANDED_BACK, S.ACCEPTED, S.OBSERVED})  # where an act may begin, and an abort leads back to
# Write-path leases are renewed here.
RENEWABLE = frozenset({S.NORMAL, S.SUSPECT, S.THRESHOLD, S.PROPOSED, S.ACCEPTED, S.OBSERVED})
CLOSED = frozenset(
    {S.FENCED, S.PROMOTED, S.PUBLISHED, S.SERVING, S.RETURN_REQUESTED, S.CATCHING_UP, S.FROZEN, S.SOURCE_EQUAL, S.TRANSFERRED}
)  # nothing of the source's is applied, nothing is granted but by the ladder's own moves
REGISTERING = frozenset({S.SERVING, S.RETURN_REQUESTED, S.CATCHING_UP})  # we write in our epoch
RETURNING = frozenset({S.RETURN_REQUESTED, S.CATCHING_UP, S.FROZEN, S.SOURCE_EQUAL, S.HANDED_BACK, S.ACCEPTED, S.OBSERVED})
GIVEN_UP_AT = frozenset({S.RETURN_REQUESTED, S.CATCHING_UP, S.FROZEN, S.SOURCE_EQUAL})  # a return may still fail, or be aborted
GRADUATION = "graduation:"  # before the act of a source that lives here and leaves for a node of its own
FREEZE_MS_MAX = 30_000
DRAIN_MS_MAX = 3_000  # within it the source ended its writing and all of it is here, or it goes on


class Function(IntEnum):
    """What is found unavailable, taken over or ordered; numbers of replica.v1.Function."""

    REGISTRATION = 1
    RESOLUTION = 2


class Fence(IntEnum):
    """How a source can be kept from writing; numbers of replica.v1.Description.Fence."""

    NONE = 1
    WRITE_PATH = 2


class OrderKind(IntEnum):
    """Words of the top-level node; numbers of replica.v1.Order.Kind."""

    TAKEOVER = 1
    END = 2
    STANDING = 3
    PROBE_REPORT = 4


@dataclass(frozen=True, slots=True)
class Known:
    """An order in force, as it was committed: its signature was checked by the leader that took it in.

    Args:
        issuer: hex of the signing key's id.
        until_ms: Unix milliseconds; past it the order is void.
    """

    kind: OrderKind
    number: int
    function: Function
    issuer: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class Review:
    """A break-glass act that a second person has to look at."""

    act: str
    operator: str
    reason: str
    due_ms: int  # Unix


@dataclass(frozen=True, slots=True)
class Ladder:
    """Where a source's ladder stands: part of its group's committed state.

    Args:
        act: identity of this climb; empty in NORMAL, and while only probes speak.
        since_ms: Unix milliseconds of the newest move, as its leader said; shown, and for deadlines of days.
        index: of the entry of the newest move.
        acts: how many acts were begun, so that no approval of an earlier one counts again.
        began_from: where an abort leads back to.
        plan: the text that was approved.
        switchover: the source lives and ends its own writing first: nothing is lost.
        behind: changes that we knew to lack when it was proposed; None: unknown.
        approvals: names of the people who signed; orders: numbers of the top-level node's orders that counted.
        closed_at: our position when the source's epoch was closed.
        held_off: an act ended or was given up: no automatic one before the source was seen well.
        review: a break-glass act nobody has reviewed.
        lease_ms, lease_epoch, lease_index: of the newest write-path lease, and the entry that renewed it; 0: none in force.
        known: orders in force; numbers: issuer -> highest number seen, so that none counts twice.
    """

    stage: Stage = Stage.NORMAL
    act: str = ""
    reason: str = ""
    since_ms: int = 0
    index: int = 0
    acts: int = 0
    began_from: Stage = Stage.NORMAL
    fence: Fence = Fence.NONE
    automatic: bool = False
    plan: str = ""
    behind: int | None = None
    approvals: tuple[str, ...] = ()
    orders: tuple[int, ...] = ()
    closed_at: Position | None = None
    held_off: bool = False
    review: Review | None = None
    lease_ms: int = 0
    lease_epoch: int = 0
    lease_index: int = 0
    known: tuple[Known, ...] = ()
    numbers: tuple[tuple[str, int], ...] = ()
    switchover: bool = False

    def order(self, kind: OrderKind, function: Function, at_ms: int) -> Known | None:
        """The order of that kind that is in force at a moment."""
        for one in self.known:
            if one.kind is kind and one.function is function and at_ms <= one.until_ms:
                return one
        return None

    @property
    def registering(self) -> bool:
        """We may write in our epoch. NORMAL says nothing about a hosted source, whose group is always the authority."""
        return self.stage in REGISTERING

    @property
    def closed(self) -> bool:
        """Nothing of the source's own is applied."""
        return self.stage in CLOSED


def check_move(old: Stage, new: Stage) -> None:
    """Raises InvariantBroken when the move is not in MOVES."""
    require(new in MOVES[old], f"the ladder cannot move from {old.name} to {new.name}")
