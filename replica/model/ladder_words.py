"""Entries that move no ladder, and on which its moves depend: write-path leases, orders of the top-level node, reviews."""

from __future__ import annotations

from dataclasses import replace

from replica.model.group_state import GroupState
from replica.model.ladder import RENEWABLE, Function, Known, OrderKind
from replica.model.ladder_values import Judged, Moved, Refused
from replica.model.outcome import OutcomeKind
from replica.v1 import entry_pb2

LEASE_MS_MIN, LEASE_MS_MAX = 1_000, 600_000
ISSUERS_MAX = 16


def renew(group: GroupState, body: entry_pb2.LeaseRenewal, index: int) -> Judged:
    """A write-path lease of the source's present epoch. From APPROVED on none is given: the last one has to run out.

    0 ms: our leader saw the source speak after its lease had ended without asking anew. There is no guard any more.
    """
    ladder = group.ladder
    if ladder.stage not in RENEWABLE:
        return Refused(f"no lease is given while the ladder stands at {ladder.stage.name}", OutcomeKind.FENCED)
    if group.granted is None or not group.grant_taken or body.epoch != group.granted.epoch:
        return Refused(f"epoch {body.epoch} is not the one that was granted", OutcomeKind.FENCED)
    if body.duration_ms and not LEASE_MS_MIN <= body.duration_ms <= LEASE_MS_MAX:
        return Refused(f"a lease lasts {LEASE_MS_MIN} to {LEASE_MS_MAX} ms, not {body.duration_ms}")
    changed = replace(ladder, lease_ms=body.duration_ms, lease_epoch=body.epoch, lease_index=index)
    return Moved(replace(group, ladder=changed))


def take_order(group: GroupState, body: entry_pb2.Order) -> Judged:
    """An order of the top-level node: its number counts once, whatever becomes of it."""
    ladder, issuer = group.ladder, body.signature.key_id.hex()
    try:
        kind, function = OrderKind(body.kind), Function(body.function)
    except ValueError:
        return Refused(f"an order of kind {body.kind} about function {body.function} is not known")
    numbers = dict(ladder.numbers)
    if body.source != group.source or kind is OrderKind.PROBE_REPORT:
        return Refused("an order of another source, or a report, which is not kept")
    if body.number <= numbers.get(issuer, 0):
        return Refused(f"order {body.number} of this issuer is a replay: {numbers.get(issuer, 0)} was seen")
    if issuer not in numbers and len(numbers) >= ISSUERS_MAX:
        return Refused(f"orders of {ISSUERS_MAX} issuers were seen, no more are remembered")
    numbers[issuer] = body.number
    ends = {kind, OrderKind.TAKEOVER, OrderKind.STANDING} if kind is OrderKind.END else {kind}
    kept = tuple(one for one in ladder.known if one.function is not function or one.kind not in ends)
    order = Known(kind, body.number, function, issuer, body.until_ms)
    changed = replace(ladder, known=(*kept, order), numbers=tuple(sorted(numbers.items())))
    return Moved(replace(group, ladder=changed))


def review(group: GroupState, body: entry_pb2.LadderReview) -> Judged:
    """A second person looked at a break-glass act."""
    owed = group.ladder.review
    if owed is None or owed.act != body.act:
        return Refused(f"no review of {body.act!r} is owed")
    if body.approval.operator == owed.operator or not body.verdict.strip():
        return Refused(f"a review is a sentence by somebody else than {owed.operator}")
    return Moved(replace(group, ladder=replace(group.ladder, review=None)))
