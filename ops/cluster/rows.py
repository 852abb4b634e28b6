"""Rows of `zaibei cluster status`: what is wrong with a member or a group, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ops.admin.cluster_values import ClusterStatus, GroupRow, MemberRow
from ops.cluster.port import ClusterLook, GroupLook
from replica.cluster.placement import MemberSeen, is_moving
from replica.cluster.reconcile import majority
from replica.cluster.state import ControlState, GroupRecord, MemberRecord, MemberState

UP_TO_DATE_ENTRIES_MAX = 1_000  # further behind is worth a word
STATUS = "zaibei cluster status"


def status_of(look: ClusterLook) -> ClusterStatus:
    """Everything a person is shown."""
    state = look.state
    me = state.member(look.me)
    return ClusterStatus(
        cluster=state.cluster.hex(),
        lineage=state.lineage.hex(),
        member=me.name if me else f"member {look.me}",
        replicas=state.replicas,
        members=[_member(look, member) for member in state.members],
        groups=[_group(look, group) for group in state.groups],
        warnings=[*look.warnings, *_warnings(look)],
    )


def _member(look: ClusterLook, member: MemberRecord) -> MemberRow:
    number = member.number
    seen = look.members.get(number)
    known = [group for group in look.groups.values() if group.seen is not None and number in group.seen.everyone]
    lags = [group.behind.get(number) for group in known]
    numbers = [lag for lag in lags if lag is not None]
    connected = None if seen is None else seen.up_ms is not None
    trouble, step = _member_trouble(look, member, connected)
    return MemberRow(
        number=number,
        name=member.name,
        zone=member.zone,
        state=member.state.value,
        me=number == look.me,
        connected=connected,
        boot=look.boots.get(number),
        up_s=None if seen is None or seen.up_ms is None else seen.up_ms / 1_000,
        draining=member.draining,
        lag_entries=None if len(numbers) < len(lags) or not lags else max(numbers),
        copies=len(known),
        leads=sum(1 for group in known if group.seen is not None and group.seen.leader == number),
        links=list(member.links),
        trouble=trouble,
        next=step,
    )


def _member_trouble(look: ClusterLook, member: MemberRecord, connected: bool | None) -> tuple[str, str]:
    name = member.name
    bad = [group for group, one in look.groups.items() if member.number in one.out_of_service]
    seen = look.members.get(member.number)
    if member.state is MemberState.REMOVED:
        return "", ""
    if member.state is MemberState.JOINING:
        return "has not come yet", f"at its machine: zaibei cluster join TOKEN, then zaibei up; or zaibei cluster remove {name}"
    if bad:
        return f"out of service in {', '.join(bad[:3])}", f"zaibei cluster reseed {bad[0]} {name}"
    if member.state is MemberState.LEAVING:
        held = len(look.state.places_of(member.number))
        return f"leaves: {held} groups to go" + (f" ({member.reason})" if member.reason else ""), f"wait, and {STATUS}"
    if connected is False:
        return "not connected", f"look at its machine and log; lost for good: zaibei cluster replace {name}"
    if connected is None:
        return "not known whether it runs", STATUS
    if seen is not None and seen.slow:
        return "its disk is slow", "look at its disk; it leads nothing meanwhile"
    return ("drains: leads nothing", f"zaibei cluster undrain {name}") if member.draining else ("", "")


def _group(look: ClusterLook, group: GroupRecord) -> GroupRow:
    state = look.state
    one = look.groups.get(group.name, GroupLook(None))
    seen = one.seen
    wanted = _names(state, group.wanted.voters)
    if seen is None:
        return GroupRow(
            group.name,
            group.ident,
            wanted=wanted,
            out_of_service=_by_name(state, one.out_of_service),
            trouble="nobody is known to lead it",
            next="bring members back until a majority of its voters is up; are its [[source]] blocks at every member?",
        )
    up = [number for number in seen.voters if look.members.get(number, MemberSeen()).up_ms is not None]
    row = GroupRow(
        group=group.name,
        ident=group.ident,
        voters=_names(state, seen.voters),
        learners=_names(state, seen.learners),
        wanted=wanted,
        leader=_name(state, seen.leader) if seen.leader else "",
        term=one.term,
        moving=is_moving(group, seen),
        quorum=len(up) >= majority(seen.voters),
        behind={_name(state, number): one.behind.get(number) for number in sorted(seen.everyone - {seen.leader})},
        out_of_service=_by_name(state, one.out_of_service),
    )
    trouble, step = _group_trouble(state, row, len(seen.voters) - len(up))
    return replace(row, trouble=trouble, next=step)


def _group_trouble(state: ControlState, row: GroupRow, down: int) -> tuple[str, str]:
    if row.quorum is False:
        return f"{down} of {len(row.voters)} voters are down: no majority", "bring one of them back; answers go on meanwhile"
    if row.out_of_service:
        name, why = next(iter(row.out_of_service.items()))
        return f"{name} is out of service: {why}", f"zaibei cluster reseed {row.group} {name}"
    if not row.leader:
        return "nobody is known to lead it", f"{STATUS} again in a moment"
    if len(row.voters) < state.replicas and not row.moving:
        return f"{len(row.voters)} of {state.replicas} voters", "zaibei cluster invite NAME"
    if row.moving:
        return "moves", f"wait, and {STATUS}"
    late = {name: lag for name, lag in row.behind.items() if lag is not None and lag > UP_TO_DATE_ENTRIES_MAX}
    if late:
        name = max(late, key=lambda one: late[one])
        return f"{name} is {late[name]:,} entries behind", "wait; if it grows, look at its disk and network"
    if not down:
        return "", ""
    return (
        f"{down} of {len(row.voters)} voters {'is' if down == 1 else 'are'} down",
        "see the member's own line above; nothing is lost",
    )


def _warnings(look: ClusterLook) -> list[str]:
    active = [member for member in look.state.members if member.state is MemberState.ACTIVE]
    zones = {member.zone for member in active}
    found = []
    if len(active) == 2:
        found.append(
            "two members: one voter and a live copy; if the voter dies a person is needed. Next: zaibei cluster invite NAME"
        )
    if len(active) >= 3 and len(zones) == 2:
        found.append("two zones: the loss of one of them may take the majority along. Next: a third zone, even a small one")
    if "" in zones and len(zones) > 1:
        found.append("some members name no zone: they count as one zone together. Next: [cluster] zone in their files")
    return found


def _names(state: ControlState, numbers: tuple[int, ...] | frozenset[int]) -> list[str]:
    return [_name(state, number) for number in sorted(numbers)]


def _by_name(state: ControlState, values: Mapping[int, str]) -> dict[str, str]:
    return {_name(state, number): why for number, why in values.items()}


def _name(state: ControlState, number: int) -> str:
    member = state.member(number)
    return member.name if member else f"member {number}"
