"""Does a batch follow a generation's position? The rule at apply, pure (SEMANTICS 1.2, 2.1).

Nothing here trusts the admission: whatever does not follow is a no-op with a definite outcome.
"""

from __future__ import annotations

from collections.abc import Callable

from replica.model.outcome import OutcomeKind
from replica.model.position import Position

Known = Callable[[int, int], Position | None]
Verdict = tuple[OutcomeKind, str]

FOLLOWS: Verdict = (OutcomeKind.APPLIED, "")


def judge(ours: Position, before: Position, after: Position, granted: Position | None, known: Known) -> Verdict:
    """Place a batch beside a generation.

    Args:
        ours: position of the generation.
        before, after: boundaries of the batch.
        granted: start of the newest granted epoch; None: none yet.
        known: the generation's boundary at (epoch, seq), None where it holds none.
    Returns:
        (APPLIED, "") when it follows; otherwise ALREADY, GAP, CONFLICT or FENCED and a sentence.
    """
    if granted is None:
        return OutcomeKind.CONFLICT, f"epoch {after.epoch} was not granted: no epoch was, so far"
    if after.lineage != granted.lineage:
        return OutcomeKind.FENCED, f"lineage {after.lineage.hex()} is not ours"
    if after.epoch != granted.epoch:
        if after.epoch < granted.epoch:
            return OutcomeKind.FENCED, f"epoch {after.epoch} is over: {granted.epoch} was granted"
        return OutcomeKind.CONFLICT, f"epoch {after.epoch} was not granted; the newest is {granted.epoch}"
    if (ours.lineage, ours.epoch) != (granted.lineage, granted.epoch):
        return OutcomeKind.GAP, f"the copy stands at {ours.short()}, before the granted epoch {granted.epoch}: it must be loaded"
    if before == ours:
        return FOLLOWS
    return _same_epoch(ours, before, after, known)


def _same_epoch(ours: Position, before: Position, after: Position, known: Known) -> Verdict:
    if after.seq > ours.seq:
        if before.seq > ours.seq:
            return OutcomeKind.GAP, f"changes {ours.seq + 1} to {before.seq} are missing"
        if before.seq == ours.seq:
            return OutcomeKind.CONFLICT, f"at {ours.seq} it follows {before.short()}, we hold {ours.short()}"
        return OutcomeKind.CONFLICT, f"it runs over our boundary {ours.short()}: cut again by the source"
    there = known(after.epoch, after.seq)
    if there is None:
        return OutcomeKind.GAP, f"{after.short()} lies behind {ours.short()} where no boundary is kept: it cannot be compared"
    if there == after:
        return OutcomeKind.ALREADY, f"applied before; the position is {ours.short()}"
    return OutcomeKind.CONFLICT, f"at {after.seq} it has {after.short()}, we hold {there.short()}"
