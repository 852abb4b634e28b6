"""What a member of a cluster does by itself: bring each group it leads to where it shall live, and as leader of control keep the
list of members true, make groups for configured sources, and place them. The rules are replica/cluster's.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace

from replica.cluster import entries
from replica.cluster.care import CARE_EVERY_MS, next_entries
from replica.cluster.placement import GroupSeen, MemberSeen, World, first_placement
from replica.cluster.reconcile import Action, Actual, Kind, Sight, next_action
from replica.cluster.state import CONTROL_NAME, GroupRecord, MemberRecord, MemberState
from replica.consensus.group import GroupLog
from replica.consensus.hello import Standing
from replica.consensus.hosted import Hosted
from replica.consensus.raft.membership import Act, Membership, MembershipChange, Step
from replica.member.cluster_side import ClusterSide, now_ms
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import Outcome
from replica.takeover.edge_runner import boottime_ns
from replica.v1 import entry_pb2

log = logging.getLogger("zaibei.cluster")
LOOK_S = 0.2
CHANGE_S_MAX = 10.0
PROPOSE_S_MAX = 10.0
ACT_OCTETS = 12


class ClusterCare:
    """See the module. `holds` says whether this member has content of a source from before the cluster."""

    def __init__(self, side: ClusterSide, holds: Callable[[str], bool]) -> None:
        self._side, self._holds = side, holds
        self._changing: dict[int, asyncio.Task[None]] = {}
        self._since_ns = self._cared_ns = boottime_ns()
        self._down_since_ns: dict[int, int] = {}
        self.notes: dict[int, str] = {}  # group id -> what its change waits for
        self._proposing = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self._look_at_groups()
                if boottime_ns() - self._cared_ns >= CARE_EVERY_MS * 1_000_000:
                    self._cared_ns = boottime_ns()
                    await self._care_for_control()
            except ZaibeiError as exc:
                log.warning("care of the cluster", extra={"fields": {"why": str(exc)}})

    # -- groups led here

    def _look_at_groups(self) -> None:
        for ident, hosted in list(self._side.host.groups.items()):
            record = self._record(ident)
            running = self._changing.get(ident)
            if hosted.log.leader and record is not None and (running is None or running.done()):
                action = next_action(self._actual(hosted.log), record.wanted, self._sight(hosted))
                self.notes[ident] = action.why
                if action.kind is not Kind.NOTHING:
                    self._changing[ident] = asyncio.get_running_loop().create_task(self._carry_out(hosted, action))

    def _record(self, ident: int) -> GroupRecord | None:
        return next((group for group in self._side.state.groups if group.ident == ident), None)

    def _actual(self, group: GroupLog) -> Actual:
        membership = group.membership
        learners = membership.learners | membership.learners_next
        return Actual(self._side.me, membership.voters, learners, membership.outgoing, membership.auto_leave)

    def _sight(self, hosted: Hosted) -> Sight:
        side, now_ns = self._side, boottime_ns()
        host, group = side.host, hosted.log
        up: dict[int, int | None] = {member: (now_ns - at_ns) // 1_000_000 for member, at_ns in host.up_since_ns.items()}
        up[side.me] = (now_ns - self._since_ns) // 1_000_000
        behind: dict[int, int | None] = {
            member: max(0, group.last - group.matched(member)) if group.matched(member) else None
            for member in group.membership.members
        }
        receiving = {member for one in host.groups.values() for member, task in one.offering.items() if not task.done()}
        receiving |= {member for one in host.groups.values() for member in one.pinned if one.log.leader}
        unfit = {
            one.number for one in side.state.members if one.draining or one.state in (MemberState.LEAVING, MemberState.REMOVED)
        }
        return Sight(behind, up, frozenset(receiving), frozenset(hosted.amnesiac), frozenset(unfit))

    async def _carry_out(self, hosted: Hosted, action: Action) -> None:
        group = hosted.log
        fields = {"group": group.group, "action": action.kind.value, "member": action.member, "why": action.why}
        log.info("group changes", extra={"fields": fields})
        try:
            if action.kind is Kind.TRANSFER_LEADER:
                group.transfer(action.member)
                await asyncio.sleep(1.0)
                return
            async with asyncio.timeout(CHANGE_S_MAX):
                await group.change(change_of(group.membership, action))
        except (ZaibeiError, TimeoutError) as exc:
            log.warning("group did not change", extra={"fields": {**fields, "trouble": str(exc)}})
            await asyncio.sleep(1.0)

    # -- what is seen of the cluster

    def world(self) -> World:
        """What decisions about placement rest on."""
        side, now_ns = self._side, boottime_ns()
        members = {side.me: MemberSeen(up_ms=(now_ns - self._since_ns) // 1_000_000)}
        for one in side.state.living():
            if one.number == side.me:
                continue
            at_ns = side.host.up_since_ns.get(one.number)
            if at_ns is not None:
                self._down_since_ns.pop(one.number, None)
                members[one.number] = MemberSeen(up_ms=(now_ns - at_ns) // 1_000_000)
            else:
                since_ns = self._down_since_ns.setdefault(one.number, now_ns)
                members[one.number] = MemberSeen(down_ms=(now_ns - since_ns) // 1_000_000)
        seen = {group.name: look for group in side.state.groups if (look := self.seen(group)) is not None}
        return World(side.state, members, seen)

    def seen(self, record: GroupRecord) -> GroupSeen | None:
        """A group's log as its leader says; None: nobody is known to lead it."""
        told = self._side.host.stands(record.ident)
        if told is None:
            return None
        voters = told.row.voters
        return GroupSeen(
            frozenset(voters.voters),
            frozenset([*voters.learners, *voters.learners_next]),
            frozenset(voters.outgoing),
            told.leader,
            told.row.octets,
        )

    # -- as leader of control

    async def _care_for_control(self) -> None:
        if not self._side.control.leader:
            return
        if not self._side.state.cluster:
            card = self._side.cluster.card
            await self.propose(entries.begun(self.act(), now_ms(), card.cluster, card.lineage, self._side.cluster.replicas))
            return
        entry = self._next_member_entry() or self._next_group_entry()
        if entry is not None:
            await self.propose(entry)
            return
        for entry in next_entries(self.world(), now_ms()):
            await self.propose(entry)

    def _next_member_entry(self) -> entry_pb2.Entry | None:
        """The list of members follows what members say of themselves; the first one writes itself in."""
        side = self._side
        own = side.hello()
        if side.state.member(side.me) is None:
            card, settings = side.cluster.card, side.settings
            record = MemberRecord(side.me, card.name, side.cluster.zone, settings.machine, tuple(own.places[0].links))
            return entries.admitted(self.act(), now_ms(), record)
        for number, hello in [(side.me, own), *side.hellos.items()]:
            record_now = side.state.member(number)
            place = next((one for one in hello.places if one.member == number), None)
            if record_now is None or place is None or record_now.state is MemberState.REMOVED:
                continue
            changed = replace(
                record_now,
                zone=hello.zone or record_now.zone,  # as it was invited, where its file names none
                links=tuple(place.links),
                feeds=tuple(place.feeds),
                answers=tuple(place.answers),
                journal=record_now.journal or bytes(hello.journal),
            )
            if changed != record_now:
                return entries.changed(self.act(), now_ms(), changed)
        return None

    def _next_group_entry(self) -> entry_pb2.Entry | None:
        """A configured source gets a group: where its content is already, or on members that are up."""
        side = self._side
        for source in side.settings.sources:
            if side.state.group(source.name) is None:
                holder = side.me if self._holds(source.name) else 0
                placement = first_placement(self.world(), holder)
                if placement.voters:
                    return entries.placed(self.act(), now_ms(), source.name, placement)
        return None

    async def propose(self, entry: entry_pb2.Entry) -> Outcome:
        """Commit and apply an entry of control, here. Raises ZaibeiError: UNREACHABLE (not leader), UNKNOWN."""
        async with self._proposing:
            proposal = self._side.control.propose(entry)
            try:
                async with asyncio.timeout(PROPOSE_S_MAX):
                    return await asyncio.shield(proposal.applied)
            except TimeoutError:
                text = f"{CONTROL_NAME}: not applied within {PROPOSE_S_MAX} s"
                raise ZaibeiError(Code.UNKNOWN, text, definite=False, retry=True) from None

    def act(self) -> str:
        """An id that was never used."""
        return f"care:{secrets.token_hex(ACT_OCTETS)}"

    def amnesiacs(self) -> dict[int, str]:
        """Groups in which this member forgot what it had promised, and why."""
        found = {}
        for ident, hosted in self._side.host.groups.items():
            if hosted.recall is not None and hosted.recall.standing is Standing.AMNESIAC:
                found[ident] = hosted.recall.reason
        return found


def change_of(membership: Membership, action: Action) -> MembershipChange:
    """The change of a group's log that an action asks for."""
    if action.kind is Kind.LEAVE_JOINT:
        return MembershipChange()
    if action.kind is Kind.ADD_LEARNER:
        return MembershipChange((Step(Act.ADD_LEARNER, action.member),))
    if action.kind in (Kind.REMOVE, Kind.DEMOTE):
        # One that forgot is removed and comes back as a learner of whom nothing is believed any more.
        return MembershipChange((Step(Act.REMOVE, action.member),))
    steps = [Step(Act.ADD_VOTER, one) for one in sorted(action.voters - membership.voters)]
    for one in sorted(membership.voters - action.voters):
        steps.append(Step(Act.ADD_LEARNER if one in action.learners else Act.REMOVE, one))
    return MembershipChange(tuple(steps))
