"""From what a caller may do to what must hold when it is done. Pure.

A put creates or replaces, and which of the two is known for certain only at apply. So who may do one alone gets a precondition
that allows that one alone, tested again at apply: nobody replaces what he may not, however two changes race.
"""

from __future__ import annotations

from hosting.tenant.papers import Papers
from hosting.tenant.records import Named
from hosting.tenant.rights import Caller, Operation, Refusal, may
from replica.model.batch import Change
from replica.model.errors import Code
from replica.model.precondition import ABSENT, NOTHING, PRESENT, Must, Precondition, equal_to

COUNTED_MS = 2_000  # who comes while octets are counted is asked to come again after so long


def put_rights(caller: Caller, name: Named | bytes, papers: Papers, *, now_ms: int) -> tuple[Refusal | None, Refusal | None]:
    """Why not create, and why not replace. `name`: or the prefix that the name is in."""
    creates = may(caller, Operation.CREATE, name, papers, now_ms=now_ms)
    return creates, may(caller, Operation.MODIFY, name, papers, now_ms=now_ms)


def put_need(rights: tuple[Refusal | None, Refusal | None], need: Precondition) -> Precondition | Refusal:
    """What must hold for a put to be carried out, or why it is not."""
    creates, replaces = rights
    if creates is None and replaces is None:
        return need
    if creates is not None and replaces is not None:
        return creates
    if creates is None:
        return _narrowed(need, ABSENT) or replaces or need
    return _narrowed(need, PRESENT) or creates


def existing_only(need: Precondition) -> Precondition | None:
    """A put of what is there already; None: it would have to be absent."""
    return _narrowed(need, PRESENT)


def over_count(limit: int, found: int, pending: int) -> Refusal | None:
    """May one identifier more come? `pending`: changes without an outcome, of which each may be one more."""
    if found + pending < limit:
        return None
    why = f"the quota of {limit} identifiers is used up: {found} are registered, {pending} changes are under way"
    return Refusal(Code.OVER_QUOTA, why, retry_ms=None if found >= limit else 1_000)


def over_octets(limit: int, found: int | None, pending: int, more: int) -> Refusal | None:
    """May a put of `more` octets come, key and value? `pending`: of changes without an outcome; each may be all new.

    Args:
        found: None: they are still being counted, so only what does not grow may come.
    """
    if found is None:
        return Refusal(Code.BUSY, "the octets that are registered are being counted", retry_ms=COUNTED_MS)
    if found + pending + more <= limit:
        return None
    why = f"the quota of {limit} octets is used up: {found} are registered, {pending} are under way, {more} more were asked for"
    return Refusal(Code.OVER_QUOTA, why, retry_ms=None if found + more > limit else 1_000)


def in_place(need: Precondition, change: Change, held: bytes | None, *, latched: bool) -> tuple[Precondition, int] | None:
    """What must hold so that a put takes the room of what is there, exactly this; and how many octets more. None: it may be new.

    Args:
        held: what is there. latched: another change of it is under way, which may leave less.
    """
    if latched or held is None:
        return None
    exact = equal_to(held)
    return (exact, len(change.value) - len(held)) if need in (NOTHING, PRESENT, exact) else None


def over_rate(per_s: float, wait_ms: int | None) -> Refusal | None:
    """What a bucket said, as a refusal."""
    if wait_ms == 0:
        return None
    return Refusal(Code.OVER_QUOTA, f"the quota of {per_s:g} registrations a second is used up", retry_ms=wait_ms)


def _narrowed(need: Precondition, to: Precondition) -> Precondition | None:
    """The stricter of two; None: they exclude each other."""
    if need == NOTHING:
        return to
    there = need.must is not Must.ABSENT
    return need if there is (to.must is Must.PRESENT) else None
