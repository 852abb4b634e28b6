"""Where a source's batch or head lies beside what we have: follows, duplicate, gap, forked, fenced (SEMANTICS 1.1, 1.2, 1.4).

Pure functions over positions. `tails` are the newest boundaries of the generations being fed (live, side), committed or on their
way; `granted` is the start of the newest epoch our group granted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from replica.model.errors import Code
from replica.model.position import NO_LINEAGE, Position

Known = Callable[[int, int], Position | None]


class Place(Enum):
    """What a batch or head is to us."""

    FOLLOWS = "follows"
    DUPLICATE = "duplicate"
    GAP = "gap"
    FORKED = "forked"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True)
class Placed:
    """A place, and for everything that is not fine a code and a sentence for a person."""

    place: Place
    code: Code = Code.GAP
    reason: str = ""


FOLLOWS = Placed(Place.FOLLOWS)
DUPLICATE = Placed(Place.DUPLICATE, Code.ALREADY_APPLIED)


def _forked(reason: str) -> Placed:
    return Placed(Place.FORKED, Code.FORKED, reason)


def place_epoch(position: Position, granted: Position) -> Placed:
    """Only the newest epoch that our group granted counts (SEMANTICS 1.2)."""
    if position.lineage not in (granted.lineage, NO_LINEAGE):
        return Placed(
            Place.FENCED,
            Code.WRONG_LINEAGE,
            f"the source follows another cluster's lineage {position.lineage.hex()}; ours is {granted.lineage.hex()}",
        )
    if position.lineage == NO_LINEAGE or position.epoch < granted.epoch:
        return Placed(Place.FENCED, Code.FENCED, f"epoch {position.epoch} is over: {granted.epoch} was granted")
    if position.epoch > granted.epoch:
        return _forked(f"epoch {position.epoch} was never granted; the newest is {granted.epoch}")
    return FOLLOWS


def place_batch(before: Position, after: Position, tails: Sequence[Position], granted: Position, known: Known) -> Placed:
    """Place of a batch.

    Args:
        before, after: its boundaries.
        tails: at least one, all in the granted epoch.
        known: our boundary at an (epoch, seq), batches in flight included.
    """
    epoch = place_epoch(after, granted)
    if epoch.place is not Place.FOLLOWS:
        return epoch
    if before in tails:
        return FOLLOWS
    tail = max(tails, key=lambda one: one.seq)
    if before.seq > tail.seq:
        return Placed(Place.GAP, Code.GAP, f"changes {tail.seq + 1} to {before.seq} are missing")
    ours_after, ours_before = known(after.epoch, after.seq), known(before.epoch, before.seq)
    if after.seq <= tail.seq and ours_after == after:
        return DUPLICATE
    if ours_after is not None and ours_after != after:
        return _forked(f"at {after.seq} the source has {after.short()}, we have {ours_after.short()}")
    if before.seq == tail.seq or (ours_before is not None and ours_before != before):
        return _forked(f"at {before.seq} the source has {before.short()}, we have {(ours_before or tail).short()}")
    if after.seq > tail.seq:
        return _forked(f"the source cut its batches again: one of them runs over our boundary {tail.short()}")
    return DUPLICATE  # a stretch that a snapshot spared us, or older than our chains: says nothing, applies nothing


def place_head(head: Position, tail: Position, granted: Position) -> Placed:
    """Place of a head the source states, against the newest boundary it must have: FOLLOWS when it is there or ahead."""
    epoch = place_epoch(head, granted)
    if epoch.place is not Place.FOLLOWS:
        return epoch
    if head.seq < tail.seq:
        return _forked(f"the source went back to {head.short()}; we hold {tail.short()}")
    if head.seq == tail.seq and head.chain != tail.chain:
        return _forked(f"at {head.seq} the source has {head.short()}, we have {tail.short()}")
    return FOLLOWS


def vouches(head: Position, ours: Position, known: Known) -> bool:
    """Says a stated head something about the age of our copy? One behind what we applied only when it is a boundary of ours: not
    after a rewind. One ahead counts once we have reached it."""
    if head.lineage != ours.lineage or head.place > ours.place:
        return True
    return head == ours or known(head.epoch, head.seq) == head
