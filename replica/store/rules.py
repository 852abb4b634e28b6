"""What each committed entry but a batch does to a source's state: value in, value out (SEMANTICS 1.2, 1.4, 2.3, 3, 7, 10).

A committed entry that breaks a rule is a no-op with a definite outcome, the same on every member: an exception here would stop
the group for good, because the entry comes again at each start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from replica.model import ladder_rules, ladder_words
from replica.model.block_rules import take_block
from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState, OverlaySites, SideGeneration
from replica.model.identifier import prefix_key, prefix_text
from replica.model.ladder_values import Judged, Moved
from replica.model.ladder_values import Moment as LadderMoment
from replica.model.move_rules import take_move, under_way
from replica.model.node import endpoints_of
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.position import Position, epoch_start
from replica.model.states import FEED_MOVES, Authority, FeedState, Mode
from replica.store.state_row import Stored
from replica.v1 import entry_pb2, source_pb2

BLOCKED = frozenset({FeedState.FORKED, FeedState.FENCED})
RELEASED, DISCARDED = "released", "discarded"  # feed codes after two people decided


@dataclass(frozen=True, slots=True)
class Step:
    """What an entry does.

    Args:
        moved: the live generation's new boundary without a change of content (start of an epoch).
        side_moved: the side generation's, likewise.
        side_dropped: the side generation is given up.
        pin: the sums at this moment are those of a certificate.
    """

    stored: Stored
    outcome: Outcome
    moved: Position | None = None
    side_moved: Position | None = None
    side_dropped: bool = False
    pin: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the store stands when the entry comes."""

    index: int
    position: Position
    digest: ContentDigest
    known: Callable[[int, int], Position | None]


def _applied(stored: Stored, moment: Moment, detail: str = "") -> Step:
    return Step(stored, Outcome(OutcomeKind.APPLIED, moment.position, detail))


def _refused(stored: Stored, moment: Moment, detail: str, kind: OutcomeKind = OutcomeKind.CONFLICT) -> Step:
    return Step(stored, Outcome(kind, moment.position, detail))


def _already(stored: Stored, moment: Moment) -> Step:
    return _refused(stored, moment, "said before", OutcomeKind.ALREADY)


def _closed(stored: Stored) -> str:
    return f"the source's epoch was closed by {stored.group.ladder.act}: only a move of the ladder grants another"


def grant(stored: Stored, body: source_pb2.Grant, moment: Moment) -> Step:
    """A new epoch: only a higher one of our lineage, or the first of a new lineage."""
    if stored.group.ladder.closed:
        return _refused(stored, moment, _closed(stored), OutcomeKind.FENCED)
    parent, start = Position.from_wire(body.parent), Position.from_wire(body.start)
    newest = stored.group.granted
    if newest == start:
        return _already(stored, moment)
    if newest is not None and newest.lineage == start.lineage and start.epoch <= newest.epoch:
        return _refused(stored, moment, f"epoch {start.epoch} is over: {newest.epoch} was granted", OutcomeKind.FENCED)
    if start.epoch == 0 or (start.lineage == parent.lineage and start.epoch <= parent.epoch):
        return _refused(stored, moment, f"epoch {start.epoch} does not rise above its parent {parent.short()}")
    if epoch_start(parent, start.lineage, start.epoch) != start:
        return _refused(stored, moment, f"{start.short()} is not the start of that epoch after {parent.short()}")
    group = stored.group
    changes: dict[str, object] = {"granted": start, "grant_taken": False}
    moved = start if parent == moment.position else None
    side_moved = start if group.side is not None and group.side.position == parent else None
    if group.side is not None and side_moved is not None:
        changes["side"] = replace(group.side, position=start)
    if moved is not None:
        if group.feed in BLOCKED and group.hold is None:
            changes |= {"feed": FeedState.FLOWING, "feed_code": "", "feed_reason": ""}
        # A source without any history (nothing before its first epoch) is completely copied by an empty store.
        changes["ready"] = group.ready or parent.seq == 0
    position = moved or moment.position
    return Step(stored.with_group(**changes), Outcome(OutcomeKind.APPLIED, position), moved=moved, side_moved=side_moved)


def grant_taken(stored: Stored, body: entry_pb2.GrantTaken, moment: Moment) -> Step:
    if stored.group.granted != Position.from_wire(body.position):
        return _refused(stored, moment, "that is not the newest granted epoch")
    return _already(stored, moment) if stored.group.grant_taken else _applied(stored.with_group(grant_taken=True), moment)


def mark(stored: Stored, body: entry_pb2.FeedMark, moment: Moment) -> Step:
    """The feed's named state. A hold, and a fork, are not ended by a mark."""
    group = stored.group
    try:
        wanted = FeedState(body.state)
    except ValueError:
        return _refused(stored, moment, f"feed state {body.state} is not known")
    if group.ladder.closed:
        return _already(stored, moment) if wanted is group.feed else _refused(stored, moment, _closed(stored), OutcomeKind.FENCED)
    if wanted != group.feed and wanted not in FEED_MOVES[group.feed]:
        return _refused(stored, moment, f"the feed cannot move from {group.feed.name} to {wanted.name}")
    if group.hold is not None and wanted not in (FeedState.HELD, *BLOCKED):
        return _refused(stored, moment, f"what is held at {group.hold.ident} waits for two people", OutcomeKind.HELD)
    if group.feed is FeedState.FORKED and wanted is not FeedState.FORKED and not _regranted(stored, moment):
        return _refused(stored, moment, "a fork ends only with a newly granted epoch")
    return _applied(stored.with_group(feed=wanted, feed_code=body.code, feed_reason=body.reason), moment)


def _regranted(stored: Stored, moment: Moment) -> bool:
    """True when the newest grant is one that the live copy has not reached: the way out of a fork is a load in that epoch."""
    granted = stored.group.granted
    return granted is not None and (granted.lineage, granted.epoch) != (moment.position.lineage, moment.position.epoch)


def load_begin(stored: Stored, body: entry_pb2.LoadBegin, moment: Moment) -> Step:
    """A snapshot is loaded beside the live copy from now on."""
    group, position = stored.group, Position.from_wire(body.position)
    if group.ladder.closed:
        return _refused(stored, moment, _closed(stored), OutcomeKind.FENCED)
    if group.side is not None:
        if (group.side.number, group.side.position) == (body.side, position):
            return _already(stored, moment)
        return _refused(stored, moment, f"generation {group.side.number} is being loaded: abort that first")
    if body.side <= group.generation:
        return _refused(stored, moment, f"generation {body.side} was used before; the live one is {group.generation}")
    if group.granted is None or (position.lineage, position.epoch) != (group.granted.lineage, group.granted.epoch):
        return _refused(stored, moment, f"{position.short()} lies outside the granted epoch")
    if group.feed is FeedState.FORKED and not _regranted(stored, moment):
        return _refused(stored, moment, "a fork ends only with a newly granted epoch")
    changes: dict[str, object] = {"side": SideGeneration(body.side, position, False, moment.index)}
    if group.hold is None:
        changes |= {"feed": FeedState.LOADING, "feed_code": "", "feed_reason": body.reason}
    began = replace(stored.with_group(**changes), staged_by=(), members_needed=max(1, body.members_needed))
    return _applied(began, moment)


def load_staged(stored: Stored, body: entry_pb2.LoadStaged, moment: Moment) -> Step:
    side = stored.group.side
    if side is None or side.number != body.side:
        return _refused(stored, moment, f"generation {body.side} is not being loaded")
    if body.member in stored.staged_by:
        return _already(stored, moment)
    staged_by = (*stored.staged_by, body.member)
    staged = len(staged_by) >= stored.members_needed
    return _applied(replace(stored.with_group(side=replace(side, staged=staged)), staged_by=staged_by), moment)


def load_abort(stored: Stored, body: entry_pb2.LoadAbort, moment: Moment) -> Step:
    """The side generation is given up; a hold of it with it. The live copy is untouched."""
    group = stored.group
    if group.side is None or group.side.number != body.side:
        return _refused(stored, moment, f"generation {body.side} is not being loaded")
    changes: dict[str, object] = {"side": None}
    held_it = group.hold is not None and group.hold.side == body.side
    if held_it:
        changes["hold"] = None
    if group.feed is FeedState.LOADING or (held_it and group.feed is FeedState.HELD):
        changes |= {"feed": FeedState.GAP, "feed_code": "load_aborted", "feed_reason": body.reason}
    aborted = replace(stored.with_group(**changes), staged_by=())
    return replace(_applied(aborted, moment), side_dropped=True)


def switch_refused(group: GroupState, number: int) -> tuple[OutcomeKind, str] | None:
    """Why the side generation of that number does not become the live one now; None: it may."""
    side = group.side
    if side is None or side.number != number:
        kind = OutcomeKind.ALREADY if group.generation == number else OutcomeKind.CONFLICT
        return kind, f"generation {number} is not being loaded"
    if group.hold is not None and group.hold.side == number:
        return OutcomeKind.HELD, "the loaded copy waits for two people"
    if not side.staged:
        return OutcomeKind.CONFLICT, f"generation {number} is not staged"
    if group.feed is FeedState.FORKED:
        return OutcomeKind.CONFLICT, "the source forked after the load began"
    if group.feed_code != RELEASED and _lacks(side.position, group.position):
        text = f"generation {number} stands at {side.position.short()}, the live copy at {group.position.short()}"
        return OutcomeKind.GAP, f"{text}: it must catch up first"
    return None


def _lacks(side: Position, live: Position) -> bool:
    """The live copy has applied, and given receipts for, what the side one lacks (SEMANTICS 3.3; two people may decide so)."""
    return (side.lineage, side.epoch) == (live.lineage, live.epoch) and side.seq < live.seq


def ownership(stored: Stored, body: entry_pb2.Ownership, moment: Moment) -> Step:
    group = stored.group
    if body.version <= group.ownership_version:
        return (
            _already(stored, moment)
            if body.version == group.ownership_version
            else _refused(stored, moment, f"version {body.version} is older than {group.ownership_version}", OutcomeKind.FENCED)
        )
    try:
        prefixes = tuple(prefix_key(text) for text in body.prefixes)
        sensitive = tuple(prefix_key(text) for text in body.case_sensitive)
        mode = Mode(body.mode) if body.mode else Mode.RECORDS
    except (ZaibeiError, ValueError) as exc:
        return _refused(stored, moment, str(exc))
    return _applied(
        stored.with_group(ownership_version=body.version, prefixes=prefixes, case_sensitive=sensitive, mode=mode), moment
    )


def node(stored: Stored, body: entry_pb2.NodeStated, moment: Moment) -> Step:
    stated = endpoints_of(body.resolution)
    return _already(stored, moment) if stated == stored.group.node else _applied(stored.with_group(node=stated), moment)


def overlay(stored: Stored, body: entry_pb2.Overlay, moment: Moment) -> Step:
    """Serials rise always, also at a withdrawal (SEMANTICS 7)."""
    group = stored.group
    try:
        prefix = prefix_key(body.prefix)
    except ZaibeiError as exc:
        return _refused(stored, moment, str(exc))
    if body.serial <= group.serial_highest:
        return _refused(stored, moment, f"serial {body.serial} is not above {group.serial_highest}")
    others = tuple(one for one in group.overlays if one.prefix != prefix)
    mine = () if body.withdrawn else (OverlaySites(prefix, tuple(body.sites), body.serial, body.act, body.shadow),)
    return _applied(stored.with_group(overlays=(*others, *mine), serial_highest=body.serial), moment)


def authority(stored: Stored, body: entry_pb2.Authority, moment: Moment) -> Step:
    try:
        kind = Authority(body.kind)
    except ValueError:
        return _refused(stored, moment, f"authority {body.kind} is not known")
    if stored.group.ladder.closed:
        return _refused(stored, moment, "registration is taken over: the ladder alone says who answers")
    return _applied(stored.with_group(authority=kind, authority_act=body.act), moment)


def check(stored: Stored, body: entry_pb2.CheckResult, moment: Moment) -> Step:
    """A certificate in its place in the order: compared by what this member stores, never by a claim (SEMANTICS 10)."""
    try:
        theirs = ContentDigest.from_wire(body.certificate.digest)
    except ZaibeiError as exc:
        return _refused(stored, moment, str(exc))
    place, ours = theirs.position, moment.position
    if place != ours:
        if place.lineage != ours.lineage or place.place > ours.place:
            return _refused(stored, moment, f"a certificate of {place.short()}; we stand at {ours.short()}", OutcomeKind.GAP)
        known = moment.known(place.epoch, place.seq)
        kind = OutcomeKind.CONFLICT if known is not None and known != place else OutcomeKind.ALREADY
        return _refused(stored, moment, f"a certificate of {place.short()}; we stand at {ours.short()}", kind)
    equal = theirs.same_content(moment.digest)
    feed = stored.group.feed
    changes: dict[str, object] = {"certificate": theirs, "verified": equal}
    if not equal and FeedState.DIVERGED in FEED_MOVES[feed]:
        reason = (
            f"at {ours.short()} the source states {theirs.records} records, we hold {moment.digest.records}; sums "
            f"{'differ' if theirs.total != moment.digest.total else 'are equal'}"
        )
        changes |= {"feed": FeedState.DIVERGED, "feed_code": Code.DIVERGED.value, "feed_reason": reason}
    elif equal and feed is FeedState.DIVERGED:
        changes |= {"feed": FeedState.FLOWING, "feed_code": "", "feed_reason": ""}
    return replace(_applied(stored.with_group(**changes), moment, "equal" if equal else "different"), pin=True)


def _judged(stored: Stored, moment: Moment, judged: Judged) -> Step:
    if not isinstance(judged, Moved):
        return _refused(stored, moment, judged.why, judged.kind)
    position = judged.moved or moment.position
    return Step(replace(stored, group=judged.group), Outcome(OutcomeKind.APPLIED, position), moved=judged.moved)


def ladder(stored: Stored, body: entry_pb2.Ladder, moment: Moment) -> Step:
    """A move of registration takeover or failback; model/ladder_rules.py says what it requires."""
    leaving = under_way(stored.group)
    if body.stage == entry_pb2.Ladder.STAGE_RETURN_REQUESTED and leaving is not None:
        return _refused(
            stored, moment, f"{prefix_text(leaving.prefix)} is on its way to {leaving.target}: a part moves out first"
        )
    at = LadderMoment(moment.index, moment.position, moment.digest)
    return _judged(stored, moment, ladder_rules.move(stored.group, body, at))


def lease(stored: Stored, body: entry_pb2.LeaseRenewal, moment: Moment) -> Step:
    return _judged(stored, moment, ladder_words.renew(stored.group, body, moment.index))


def order(stored: Stored, body: entry_pb2.Order, moment: Moment) -> Step:
    return _judged(stored, moment, ladder_words.take_order(stored.group, body))


def review(stored: Stored, body: entry_pb2.LadderReview, moment: Moment) -> Step:
    return _judged(stored, moment, ladder_words.review(stored.group, body))


def block(stored: Stored, body: entry_pb2.Block, moment: Moment) -> Step:
    return _judged(stored, moment, take_block(stored.group, body))


def prefix_move(stored: Stored, body: entry_pb2.PrefixMove, moment: Moment) -> Step:
    """A step of a prefix on its way to another source; model/move_rules.py says what it requires."""
    return _judged(stored, moment, take_move(stored.group, body, moment.position))


def noted(stored: Stored, body: object, moment: Moment) -> Step:
    """Entries that only have their place in the order: a new term's first one, a source's question for an epoch."""
    return _applied(stored, moment)


RULES: dict[str, Callable[[Stored, Any, Moment], Step]] = {
    "no_op": noted,
    "epoch_ask": noted,
    "grant": grant,
    "grant_taken": grant_taken,
    "mark": mark,
    "load_begin": load_begin,
    "load_staged": load_staged,
    "load_abort": load_abort,
    "ownership": ownership,
    "node": node,
    "overlay": overlay,
    "authority": authority,
    "check": check,
    "ladder": ladder,
    "lease": lease,
    "order": order,
    "review": review,
    "block": block,
    "prefix_move": prefix_move,
}
