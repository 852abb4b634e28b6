"""A source that lives here leaves for a node of its own: how that begins, and how it ends when it fails (SEMANTICS 8, 9).

It goes the way of a failback: the node copies our history from its empty beginning, both sides are compared while registrations
wait, and the next epoch is granted to the node. Until that grant every failure leads back to where it began, and nothing changed.
"""

from __future__ import annotations

from dataclasses import replace

from replica.model.group_state import GroupState
from replica.model.ladder import GIVEN_UP_AT, GRADUATION, Stage
from replica.model.ladder_values import Judged, Moment, Moved, Refused
from replica.model.position import ORIGIN, epoch_start
from replica.v1 import entry_pb2


def unfit_to_leave(group: GroupState) -> str:
    """Why a source that lives here cannot leave for a node; empty when it can."""
    granted = group.granted
    if not group.lives_here:
        return f"{group.source} does not live here: there is nothing to leave"
    if granted is None or not group.grant_taken or epoch_start(ORIGIN, granted.lineage, granted.epoch) != granted:
        return f"the epoch of {group.source} does not begin with nothing: no node can copy it from its beginning"
    return ""


def return_requested(group: GroupState, body: entry_pb2.Ladder, _: Moment) -> Judged:
    """Of a source that was taken over; or of one that lives here: what it and its node have in common is the empty beginning."""
    ladder = group.ladder
    if ladder.stage is Stage.SERVING:
        return Moved(group)
    if why := unfit_to_leave(group):
        return Refused(why)
    if not body.act.startswith(GRADUATION):
        return Refused(f"a source that lives here leaves by an act of its own, {GRADUATION}NAME")
    return Moved(replace(group, ladder=replace(ladder, acts=ladder.acts + 1, act=body.act, closed_at=ORIGIN)))


def serving(group: GroupState, _body: entry_pb2.Ladder, __: Moment) -> Judged:
    """On the way up; or a failback that failed."""
    if group.ladder.stage in GIVEN_UP_AT and group.lives_here:
        return Refused(f"{group.source} lives here: what fails leads back to NORMAL")
    return Moved(group)


def stays(group: GroupState) -> Judged:
    """It was to leave and does not: everything is as it was."""
    if not group.lives_here:
        return Refused(f"the registrations of {group.source} are taken over: what fails leads back to SERVING")
    return Moved(replace(group, ladder=replace(group.ladder, act="", closed_at=None)))
