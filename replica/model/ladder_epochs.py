"""Moves of the ladder that close an epoch, grant one to us, or hand one back: what they require, and what they change."""

from __future__ import annotations

from dataclasses import replace

from replica.model.digest import ContentDigest
from replica.model.errors import Code
from replica.model.group_state import GroupState
from replica.model.ladder import Fence, Ladder, Stage
from replica.model.ladder_values import Judged, Moment, Moved, Refused
from replica.model.ledger import unsettled
from replica.model.outcome import OutcomeKind
from replica.model.position import Position, epoch_start
from replica.model.states import Authority, FeedState
from replica.v1 import entry_pb2, source_pb2

# Acts of the resolution machine (takeover/machine.py): one it does not return by itself, and one it is giving back.
KEPT, GIVING_BACK = "planned:", "return:"


def lease_wait_ms(lease_ms: int) -> int:
    """How long we wait after the commit of a lease's newest renewal: it, 10 % for two clocks, and 1 s (SEMANTICS 5.2)."""
    return lease_ms + lease_ms // 10 + 1_000


def fence_of(group: GroupState) -> Fence:
    """Whether the source's writers can be kept from writing: by a write-path lease of its present epoch, or not at all.

    What a source declares proves nothing: only a guard that has asked for leases in this epoch stops without one.
    """
    ladder = group.ladder
    held = bool(ladder.lease_ms) and ladder.lease_epoch == group.position.epoch
    return Fence.WRITE_PATH if held else Fence.NONE


def unfit(group: GroupState) -> str:
    """Why this copy cannot become the authority; empty when it can. Position and age are judged apart, with numbers."""
    if not group.ready:
        return "no complete copy is held"
    if group.verified is False or group.feed is FeedState.DIVERGED:
        return "the copy differs from the source's certificate"
    if group.feed is FeedState.FORKED:
        return f"the feed is FORKED ({group.feed_reason}): settle that first. Next: zaibei source grant plan {group.source}"
    if group.hold is not None:
        return f"something is held at {group.hold.ident}: two people release or discard it first. Next: zaibei hold list"
    return "" if group.prefixes else "the source owns no prefix"


# -- up


def draining(group: GroupState, _body: entry_pb2.Ladder, _: Moment) -> Judged:
    """Only a living source is asked to end its writing; whoever is silent has a lease that runs out."""
    return Moved(group) if group.ladder.switchover else Refused("only a switchover asks the source to end its writing")


def fenced(group: GroupState, body: entry_pb2.Ladder, at: Moment) -> Judged:
    """The source's epoch is closed: nothing of it is applied from here on."""
    ladder, said = group.ladder, body.lease
    if why := unfit(group):
        return Refused(why)
    if group.side is not None:
        return Refused(f"generation {group.side.number} is being loaded beside: it is given up first")
    if ladder.switchover:
        if why := _not_drained(ladder, body, at):
            return Refused(why)
    elif fence_of(group) is Fence.WRITE_PATH:  # whatever was approved: a lease may have been given since
        needed = lease_wait_ms(ladder.lease_ms)
        if said.renewed_index != ladder.lease_index:
            return Refused(f"the lease was renewed by entry {ladder.lease_index}, not {said.renewed_index}: count again")
        if said.waited_ms < needed:
            return Refused(
                f"its lease of {ladder.lease_ms} ms ends {needed} ms after its renewal: {said.waited_ms} ms were waited"
            )
    reason = f"registration is taken over: {body.act}"
    changed = replace(
        group,
        feed=FeedState.FENCED,
        feed_code=Code.FENCED.value,
        feed_reason=reason,
        ladder=replace(ladder, closed_at=at.position),
    )
    return Moved(changed)


def _not_drained(ladder: Ladder, body: entry_pb2.Ladder, at: Moment) -> str:
    """What a switchover lacks; empty: the source wrote nothing behind what we hold, and holds the same.

    No lease is waited for. From its statement on the source acknowledges nothing before it gets a lease that it asked for
    later; none is given from APPROVED on but after an abort, and then this move is one of an act that is over.
    """
    if ladder.stage is not Stage.DRAINING or not body.HasField("digest"):
        return "in a switchover the source ends its writing first, and says where"
    theirs = ContentDigest.from_wire(body.digest)
    if theirs.position != at.position:
        return f"the source ended its writing at {theirs.position.short()}, we stand at {at.position.short()}"
    return "" if theirs.same_content(at.digest) else f"the source holds other content at {at.position.short()} than we do"


def promoted(group: GroupState, body: entry_pb2.Ladder, at: Moment) -> Judged:
    """The next epoch is ours, and with it the authority."""
    start = _granted(group, body.grant, at)
    if isinstance(start, Refused):
        return start
    if body.grant.holder == group.source:
        return Refused("the epoch after a fence is granted to us, not to the source")
    if group.ladder.closed_at != at.position:
        return Refused(f"the epoch was closed at {group.ladder.closed_at}, and we stand at {at.position}")
    changed = replace(
        group,
        granted=start,
        grant_taken=True,  # this entry is on our disks: we are the holder
        position=start,
        authority=Authority.REGISTRATION,
        authority_act=body.act,
        ladder=replace(group.ladder, lease_ms=0, lease_index=0),
    )
    return Moved(changed, start)


def _granted(group: GroupState, grant: source_pb2.Grant, at: Moment) -> Position | Refused:
    """The start of the epoch that a move grants, at exactly our position."""
    parent, start, newest = Position.from_wire(grant.parent), Position.from_wire(grant.start), group.granted
    if newest is None or start.lineage != newest.lineage or start.epoch <= newest.epoch:
        return Refused(f"epoch {start.epoch} does not rise above what was granted", OutcomeKind.FENCED)
    if parent != at.position or epoch_start(parent, start.lineage, start.epoch) != start:
        return Refused(f"{start.short()} is not the start of an epoch after {at.position.short()}, where we stand")
    return start


def published(group: GroupState, body: entry_pb2.Ladder, _: Moment) -> Judged:
    """Every prefix of the source has an overlay of this act, and adapters confirmed them to the leader."""
    standing = {one.prefix for one in group.overlays if not one.shadow and one.act == body.act}
    lacking = [prefix for prefix in group.prefixes if prefix not in standing]
    return Refused(f"{len(lacking)} prefixes have no overlay of this act") if lacking else Moved(group)


# -- back


def source_equal(group: GroupState, body: entry_pb2.Ladder, at: Moment) -> Judged:
    """The source states the content that we hold, at the frozen position, and every write of its own is settled in the ledger."""
    if why := unsettled(group.ledger, group.ladder.closed_at):
        return Refused(why)
    theirs = ContentDigest.from_wire(body.digest)
    if theirs.position != at.position:
        return Refused(f"the source's digest is of {theirs.position.short()}, we are frozen at {at.position.short()}")
    if not theirs.same_content(at.digest):
        return Refused(f"the source holds other content at {at.position.short()} than we do")
    return Moved(group)


def handed_back(group: GroupState, body: entry_pb2.Ladder, at: Moment) -> Judged:
    """The next epoch is the source's; we never write it. Until it answers, we answer as in a resolution takeover."""
    start = _granted(group, body.grant, at)
    if isinstance(start, Refused):
        return start
    if body.grant.holder != group.source:
        return Refused(f"the epoch of a hand-back is granted to {group.source}")
    changed = replace(
        group,
        granted=start,
        grant_taken=False,
        position=start,
        feed=FeedState.FLOWING,
        feed_code="",
        feed_reason="",
        authority=Authority.RESOLUTION,
        authority_act=KEPT + body.act,
        ladder=replace(group.ladder, closed_at=None),
    )
    return Moved(changed, start)


def accepted(group: GroupState, body: entry_pb2.Ladder, _: Moment) -> Judged:
    """The source has the grant on its disk. Our sites stay until its own answers were compared; or, in an entry of before that
    rule, are withdrawn from here on."""
    if not group.grant_taken:
        return Refused("the source has not said that it holds the grant on its disk")
    kind = KEPT if body.sites_stay else GIVING_BACK
    return Moved(replace(group, authority=Authority.RESOLUTION, authority_act=kind + body.act))


def plain(group: GroupState, _body: entry_pb2.Ladder, _: Moment) -> Judged:
    """The table alone decides."""
    return Moved(group)
