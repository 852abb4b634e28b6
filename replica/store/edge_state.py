"""The rows of a source's state in its live generation: read at open, written with each entry that changes them."""

from __future__ import annotations

from dataclasses import replace

from replica.model.brake import BrakeWindows
from replica.model.digest import ContentDigest
from replica.model.group_state import GroupState
from replica.model.position import Position
from replica.model.states import FeedState
from replica.store.edge_generation import Change, Generation
from replica.store.rows import Kind, after_kind
from replica.store.state_row import Stored, pack_state, unpack_state


def load_state(live: Generation, source: str) -> tuple[Stored, bytes]:
    octets = live.rocks.get(Kind.STATE) or b""
    stored = unpack_state(octets) if octets else Stored(GroupState(source))
    brake = BrakeWindows.join([row for _, row in live.rocks.rows(Kind.BRAKE, after_kind(Kind.BRAKE))])
    row = live.row
    return (
        stored.with_group(
            brake=brake, index=row.index, position=row.position, records=row.records, quarantined=live.quarantined_total
        ),
        octets,
    )


def put_state(old: Stored, old_octets: bytes, new: Stored, change: Change) -> bytes:
    """Put the rows of the state that changed; returns the state row's octets."""
    if new is old:
        return old_octets
    put_brake(change, old.group.brake, new.group.brake)
    octets = pack_state(new)
    if octets != old_octets:
        change.wb.put(Kind.STATE, octets)
    return octets


def put_brake(change: Change, old: BrakeWindows, new: BrakeWindows) -> None:
    if new is not old:
        for part, row in new.dump_changed(old).items():
            change.wb.put(Kind.BRAKE + bytes((part,)), row)


def switched(stored: Stored, loaded: ContentDigest, position: Position) -> Stored:
    """The state once the side generation is the live one."""
    group = stored.group
    side = group.side
    hold, feed = group.hold, FeedState.FLOWING
    if hold is not None:
        kept = hold.follows == position
        hold, feed = (hold, group.feed) if kept else (None, FeedState.FLOWING)
    changed = stored.with_group(
        generation=side.number if side is not None else group.generation,
        side=None,
        ready=True,
        hold=hold,
        feed=feed,
        feed_code="" if hold is None else group.feed_code,
        feed_reason="" if hold is None else group.feed_reason,
        certificate=loaded,
        verified=True,
        position=position,
    )
    return changed if hold is not None else replace(changed, staged_by=(), hold_quarantined=(), hold_counts=())
