"""What a move on the ladder requires at apply, and what it does to the group's state: value in, value out.

A move that is illegal, late, or lacks what it requires is a no-op with a definite outcome, the same on every member. Signatures
were checked by the leader that proposed it, whose keys differ from member to member; how many people and orders are needed, how
long a lease was waited for and where an epoch begins is checked here, again, by everybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.ladder import ABORTABLE, BEGINNINGS, GIVEN_UP_AT, MOVES, Fence, Function, Ladder, OrderKind, Review, Stage
from replica.model.ladder_epochs import (
    accepted,
    draining,
    fence_of,
    fenced,
    handed_back,
    plain,
    promoted,
    published,
    source_equal,
    unfit,
)
from replica.model.ladder_leaving import return_requested, serving, stays
from replica.model.ladder_values import Judged, Moment, Moved, Refused
from replica.model.outcome import OutcomeKind
from replica.model.states import Authority
from replica.v1 import entry_pb2

S = Stage
APPROVALS_NEEDED = 2
BREAK_GLASS_REASON_CHARS_MIN = 12
REVIEW_MS = 24 * 3_600_000


def registrations_refused(group: GroupState) -> tuple[Code, str] | None:
    """Why nothing is registered here for this source at present; None: it is."""
    stage, source = group.ladder.stage, group.source
    if group.authority is not Authority.REGISTRATION:
        at = f" at {', '.join(map(str, group.node))}" if group.node else ""
        return Code.REFUSED, f"we are not the authority of {source}: it registers itself{at}"
    if stage is S.NORMAL or group.ladder.registering:  # in NORMAL: it lives here
        return None
    if stage is S.TRANSFERRED:
        return Code.REFUSED, f"{source} was transferred to another provider: register there"
    return Code.BUSY, f"registrations of {source} wait: {stage.name.lower()}"


def move(group: GroupState, body: entry_pb2.Ladder, at: Moment) -> Judged:
    """Carry out one move."""
    ladder = group.ladder
    try:
        stage, begun = Stage(body.stage), Stage(getattr(body, "from"))
    except ValueError:
        return Refused(f"the ladder has no stages {getattr(body, 'from')} and {body.stage}")
    leaves = stage is S.RETURN_REQUESTED and ladder.stage is S.NORMAL
    if group.authority is Authority.REGISTRATION and ladder.stage is S.NORMAL and not leaves:
        return Refused(f"{group.source} lives here: there is nobody to take it over from")
    if stage is ladder.stage and body.act == ladder.act and stage is not S.NORMAL:
        return Refused("said before", OutcomeKind.ALREADY)
    if begun is not ladder.stage or stage not in MOVES[ladder.stage]:
        return Refused(f"from {begun.name} to {stage.name}: the ladder stands at {ladder.stage.name}")
    if stage is not S.PROPOSED and not leaves and body.act != ladder.act:
        return Refused(f"act {body.act!r} is not the one under way, {ladder.act!r}")
    aborts = ladder.stage in ABORTABLE and stage in BEGINNINGS
    try:
        done = _beginning(group, stage) if aborts else _STAGES[stage](group, body, at)
    except (ZaibeiError, ValueError) as exc:
        return Refused(str(exc))
    if isinstance(done, Refused):
        return done
    stamped = replace(done.group.ladder, stage=stage, reason=body.reason, since_ms=body.decided_ms, index=at.index)
    return replace(done, group=replace(done.group, ladder=stamped))


def _normal(group: GroupState, _body: entry_pb2.Ladder, _: Moment) -> Judged:
    """Probes that answer again, the end of a failback, or a source that lives here and stays."""
    return stays(group) if group.ladder.stage in GIVEN_UP_AT else _beginning(group, S.NORMAL)


def _beginning(group: GroupState, stage: Stage) -> Judged:
    """Back to where an act may begin: an abort before FENCED, or NORMAL after all."""
    ladder = group.ladder
    aborted = ladder.stage in ABORTABLE
    if aborted and stage is not ladder.began_from:
        return Refused(f"this act began at {ladder.began_from.name}: an abort leads back there")
    if ladder.stage is S.NORMAL and not ladder.held_off:
        return Refused("nothing to note: it is not held off")
    if ladder.stage is S.OBSERVED and group.authority is not Authority.SOURCE:
        return Refused("our sites still stand in place of the source's: they are withdrawn first")
    ended = aborted or ladder.stage is S.OBSERVED
    return Moved(replace(group, ladder=_forgotten(ladder, stage, ended or (ladder.held_off and ladder.stage is not S.NORMAL))))


def _forgotten(ladder: Ladder, stage: Stage, held_off: bool) -> Ladder:
    """Without the act. A takeover order is used up with it; a standing order, owed reviews and leases stay."""
    return replace(
        ladder,
        act="" if stage is S.NORMAL else ladder.act,
        began_from=S.NORMAL,
        fence=Fence.NONE,
        automatic=False,
        plan="",
        behind=None,
        approvals=(),
        orders=(),
        switchover=False,
        held_off=held_off,
        known=tuple(one for one in ladder.known if one.kind is not OrderKind.TAKEOVER),
    )


def _suspected(group: GroupState, _body: entry_pb2.Ladder, _: Moment) -> Judged:
    if group.ladder.held_off:
        return Refused("its last act ended and it was not seen well since: no automatic one begins")
    return Moved(group)


def _proposed(group: GroupState, body: entry_pb2.Ladder, _: Moment) -> Judged:
    ladder, said = group.ladder, body.proposed
    if not body.act or body.act == ladder.act:
        return Refused("an act begins with a name of its own")
    if why := unfit(group):
        return Refused(why)
    fence, behind = Fence(said.fence), said.behind if said.HasField("behind") else None
    if fence is not fence_of(group):
        return Refused(f"fence {fence.name} is stated, and it is {fence_of(group).name}: look again")
    if said.switchover:
        if why := not_switchable(group):
            return Refused(why)
    elif why := too_far_behind(behind, said.accepted, said.accepts_unknown):
        return Refused(why)
    if said.automatic and (ladder.stage is not S.THRESHOLD or ladder.held_off):
        return Refused("an act begins by itself only when probes reached the threshold, and not before it was seen well again")
    if not said.plan:
        return Refused("there is no text to approve")
    changed = replace(
        ladder,
        acts=ladder.acts + 1,
        act=body.act,
        began_from=ladder.stage if ladder.stage in BEGINNINGS else S.NORMAL,
        fence=fence,
        automatic=said.automatic,
        plan=said.plan,
        behind=behind,
        approvals=(),
        orders=(),
        switchover=said.switchover,
    )
    return Moved(replace(group, ladder=changed))


def not_switchable(group: GroupState) -> str:
    """Why a living source cannot be switched over; empty when it can. What it writes meanwhile is here before the switch."""
    if group.ladder.stage is not S.NORMAL:
        return f"a switchover begins at NORMAL, not at {group.ladder.stage.name}: a source that fails is taken over"
    if fence_of(group) is Fence.NONE:
        return "the source holds no write-path lease: no guard can end its writing, so it can only be taken over"
    return "" if group.side is None else f"generation {group.side.number} is being loaded beside: wait until it is live"


def too_far_behind(behind: int | None, accepted: int, accepts_unknown: bool) -> str:
    """Why the loss is more than was accepted; empty when it is not."""
    if behind is None:
        return "" if accepts_unknown else "how many changes of the source would be lost is UNKNOWN, and nobody accepted that"
    return "" if behind <= accepted else f"the copy is {behind} changes behind the source: accepted is a loss of {accepted}"


def _approved(group: GroupState, body: entry_pb2.Ladder, _: Moment) -> Judged:
    ladder, said = group.ladder, body.approved
    names = tuple(sorted({one.operator for one in said.approvals}))
    people = min(len(names), len({one.signature.key_id for one in said.approvals}))
    counted = orders_that_count(ladder, said.orders, body.decided_ms)
    if isinstance(counted, str):
        return Refused(counted)
    if said.break_glass and ladder.switchover:
        return Refused("a switchover is planned: two people approve it")
    if not said.break_glass:
        if why := not_enough(ladder.fence, people, counted, ladder.automatic):
            return Refused(why)
        return Moved(replace(group, ladder=replace(ladder, approvals=names, orders=tuple(said.orders))))
    if ladder.review is not None:
        return Refused(f"the break-glass act {ladder.review.act} has not been reviewed: no other one before that")
    if people < 1 or len(body.reason.strip()) < BREAK_GLASS_REASON_CHARS_MIN:
        return Refused(f"break-glass needs one person and a typed reason of {BREAK_GLASS_REASON_CHARS_MIN} characters or more")
    owed = Review(ladder.act, names[0], body.reason, body.decided_ms + REVIEW_MS)
    changed = replace(ladder, approvals=names, orders=tuple(said.orders), review=owed)
    return Moved(replace(group, ladder=changed))


def orders_that_count(ladder: Ladder, numbers: Iterable[int], at_ms: int) -> frozenset[OrderKind] | str:
    """Kinds of the orders of these numbers, or what is wrong with one."""
    found: set[OrderKind] = set()
    for number in numbers:
        order = next((one for one in ladder.known if one.number == number and one.function is Function.REGISTRATION), None)
        if order is None:
            return f"order {number} about registration is not known here"
        if at_ms > order.until_ms:
            return f"order {number} is void since {order.until_ms} (Unix milliseconds)"
        found.add(order.kind)
    return frozenset(found)


def not_enough(fence: Fence, people: int, orders: frozenset[OrderKind], automatic: bool) -> str:
    """What an approval lacks; empty when it is enough (SEMANTICS 5.1, DOMAIN)."""
    ordered = OrderKind.TAKEOVER in orders
    if fence is Fence.WRITE_PATH:
        if people >= APPROVALS_NEEDED or ordered or (automatic and OrderKind.STANDING in orders):
            return ""
        return f"two people, or an order of the top-level node, must approve; {people} did, no order is in force"
    if people >= 1 and people + ordered >= APPROVALS_NEEDED:
        return ""
    text = "the source cannot be fenced: two people must approve this very act (a TakeoverOrder counts as one of them, a standing"
    return f"{text} order never suffices); {people} did{', beside an order' if ordered else ''}"


_STAGES = {
    S.NORMAL: _normal,
    S.SUSPECT: _suspected,
    S.THRESHOLD: _suspected,
    S.PROPOSED: _proposed,
    S.APPROVED: _approved,
    S.DRAINING: draining,
    S.FENCED: fenced,
    S.PROMOTED: promoted,
    S.PUBLISHED: published,
    S.SERVING: serving,
    S.RETURN_REQUESTED: return_requested,
    S.CATCHING_UP: plain,
    S.FROZEN: plain,
    S.SOURCE_EQUAL: source_equal,
    S.HANDED_BACK: handed_back,
    S.ACCEPTED: accepted,
    S.OBSERVED: plain,
    S.TRANSFERRED: plain,
}
