"""The life of an enterprise's prefix below a tenant's: application, review, prefix, effect; and how long that took. Pure.

| state | may become | when |
| --- | --- | --- |
| applied | review, rejected | the enterprise asked for a prefix |
| review | granted, rejected | somebody of the tenant looks at it |
| granted | in effect, revoked | it has its prefix; nothing is registered below it yet |
| in effect | suspended, revoked | its administrators register |
| suspended | in effect, revoked | registrations are refused, answers go on |
| rejected, revoked | nothing: final | |
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise

from replica.model.errors import Code, ZaibeiError


class PrefixState(StrEnum):
    """Persistent: they stand in documents."""

    APPLIED = "applied"
    REVIEW = "review"
    GRANTED = "granted"
    IN_EFFECT = "in_effect"
    SUSPENDED = "suspended"
    REJECTED = "rejected"
    REVOKED = "revoked"


MOVES: dict[PrefixState, frozenset[PrefixState]] = {
    PrefixState.APPLIED: frozenset({PrefixState.REVIEW, PrefixState.REJECTED}),
    PrefixState.REVIEW: frozenset({PrefixState.GRANTED, PrefixState.REJECTED}),
    PrefixState.GRANTED: frozenset({PrefixState.IN_EFFECT, PrefixState.REVOKED}),
    PrefixState.IN_EFFECT: frozenset({PrefixState.SUSPENDED, PrefixState.REVOKED}),
    PrefixState.SUSPENDED: frozenset({PrefixState.IN_EFFECT, PrefixState.REVOKED}),
    PrefixState.REJECTED: frozenset(),
    PrefixState.REVOKED: frozenset(),
}
STEPS_MAX = 1_000  # of one prefix's life

Step = tuple[PrefixState, int]  # state, Unix milliseconds at which it was entered


def begun(at_ms: int) -> tuple[Step, ...]:
    """The life of a prefix that was just applied for."""
    return ((PrefixState.APPLIED, at_ms),)


def moved(steps: tuple[Step, ...], state: PrefixState, at_ms: int) -> tuple[Step, ...]:
    """One step more. Raises ZaibeiError(REFUSED): no legal move, or a step before the one it follows."""
    fault = fault_of((*steps, (state, at_ms)))
    if fault:
        raise ZaibeiError(Code.REFUSED, fault)
    return (*steps, (state, at_ms))


def fault_of(steps: tuple[Step, ...]) -> str:
    """What is wrong with a life as written; empty: nothing."""
    if not steps or steps[0][0] is not PrefixState.APPLIED:
        return "the life of a prefix begins with `applied`"
    if len(steps) > STEPS_MAX:
        return f"{len(steps)} steps, at most {STEPS_MAX}"
    for (before, before_ms), (after, after_ms) in pairwise(steps):
        if after not in MOVES[before]:
            legal = ", ".join(sorted(MOVES[before])) or "nothing: it is final"
            return f"a prefix that is {before} cannot become {after}; it may become {legal}"
        if after_ms < before_ms:
            return f"{after} at {after_ms} ms lies before {before} at {before_ms} ms"
    return ""


def time_to_effect_ms(steps: tuple[Step, ...]) -> int | None:
    """Milliseconds from the application to the first effect; None: not in effect so far."""
    return next((at_ms - steps[0][1] for state, at_ms in steps if state is PrefixState.IN_EFFECT), None)
