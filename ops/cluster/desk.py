"""The cluster's admin calls over a running member: each looks afresh, judges by the plans' rules, and proposes one entry."""

from __future__ import annotations

from dataclasses import replace

from ops.admin.cluster_values import ClusterDone, ClusterPlan, ClusterStatus, Invitation
from ops.cluster.port import ClusterLook, ClusterPort, Inviter
from ops.cluster.rows import status_of
from replica.cluster import entries
from replica.cluster.plans import Plan, plan_remove, plan_replace, plan_reseed
from replica.cluster.state import ControlState, GroupRecord, MemberRecord, MemberState
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import Outcome, OutcomeKind
from replica.v1 import entry_pb2

INVITE_S_MAX = 7 * 86_400
ACTIONS = ("remove", "replace", "reseed")


class ClusterDesk:
    """Satisfies ops.admin.cluster_calls.ClusterCalls."""

    def __init__(self, port: ClusterPort, inviter: Inviter) -> None:
        self._port, self._inviter = port, inviter

    async def cluster_status(self) -> ClusterStatus:
        return status_of(self._port.look())

    async def cluster_invite(self, name: str, zone: str, valid_s: int) -> Invitation:
        look = await self._port.fresh()
        if name and (there := look.state.member_named(name)) is not None:
            raise ZaibeiError(Code.CONFLICT, f"{name} is member {there.number} already. Next: choose another name")
        return await self._invite(name, zone, None, valid_s)

    async def _invite(self, name: str, zone: str, old: MemberRecord | None, valid_s: int) -> Invitation:
        if not 0 < valid_s <= INVITE_S_MAX:
            raise ZaibeiError(Code.MALFORMED, f"a token is good for 1 to {INVITE_S_MAX} seconds")
        token, ends_ms = await self._inviter.invite(name, zone, old.number if old else 0, valid_s)
        return Invitation(token, name, zone, ends_ms, old.name if old else "")

    async def cluster_transfer(self, group: str, to: str) -> ClusterDone:
        look = await self._port.fresh()
        record, member = _group(look.state, group), _member(look.state, to)
        one = look.groups.get(group)
        if one is None or one.seen is None:
            raise ZaibeiError(Code.UNREACHABLE, f"nobody is known to lead {group}. Next: zaibei cluster status", retry=True)
        if member.number not in one.seen.voters or member.number not in record.wanted.voters:
            voters = ", ".join(_name(look.state, number) for number in record.wanted.voters)
            raise ZaibeiError(Code.REFUSED, f"{to} is no voter of {group}; these are: {voters}")
        if member.draining or member.state is not MemberState.ACTIVE:
            word = "drains" if member.draining else f"is {member.state.value}"
            raise ZaibeiError(Code.REFUSED, f"{to} {word} and leads nothing. Next: zaibei cluster undrain {to}")
        if one.seen.leader == member.number and record.wanted.leader == member.number:
            return ClusterDone("transfer", group, False, f"{to} leads {group} already")
        if record.wanted.leader != member.number:  # otherwise it would be handed back
            wanted = replace(record.wanted, leader=member.number)
            await self._commit(entries.placed(self._port.new_act(), self._port.now_ms(), group, wanted))
        if one.seen.leader != member.number:
            await self._port.transfer(group, member.number)
        return ClusterDone("transfer", group, True, f"{to} leads {group}")

    async def cluster_drain(self, member: str, draining: bool) -> ClusterDone:
        look = await self._port.fresh()
        record = _member(look.state, member)
        action = "drain" if draining else "undrain"
        if record.draining is draining:
            return ClusterDone(action, member, False, f"{member} {'drains' if draining else 'does not drain'} already")
        others = [one for one in look.state.members if one.number != record.number and one.state is MemberState.ACTIVE]
        if draining and not any(not one.draining and look.world().up(one.number) for one in others):
            raise ZaibeiError(Code.REFUSED, f"no other member is up and does not drain: nobody could lead instead of {member}")
        entry = entries.changed(self._port.new_act(), self._port.now_ms(), replace(record, draining=draining))
        await self._commit(entry)
        return ClusterDone(action, member, True, f"{member} {'leads nothing from now on' if draining else 'may lead again'}")

    async def cluster_plan(self, action: str, member: str, group: str, fewer: bool) -> ClusterPlan:
        plan = _plan(await self._port.fresh(), action, member, group, fewer)
        return ClusterPlan(plan.token, action, member, group, list(plan.text), list(plan.warnings), plan.refusal, plan.loses)

    async def cluster_run(
        self, action: str, member: str, group: str, fewer: bool, token: str, reason: str, name: str, zone: str, valid_s: int
    ) -> ClusterDone:
        look = await self._port.fresh()
        act = f"{action}:{token}"
        if look.state.given_by(act) is not None:
            return ClusterDone(action, member, False, f"it was done before: {member} leaves")
        plan = _plan(look, action, member, group, fewer)
        if plan.refusal:
            raise ZaibeiError(Code.WOULD_LOSE_DATA if plan.loses else Code.REFUSED, plan.refusal)
        if plan.token != token:
            raise ZaibeiError(
                Code.REFUSED,
                "the cluster is no longer as that plan saw it. Next: the same command without --plan",
            )
        if action == "remove":
            await self._commit(entries.removed(act, self._port.now_ms(), plan.number, reason))
            return ClusterDone(action, member, True, f"{member} leaves; its copies go to others")
        if action == "reseed":
            await self._port.reseed(group, plan.number)
            return ClusterDone(action, member, True, f"{member} is fed {group} anew")
        if name and (there := look.state.member_named(name)) is not None:
            raise ZaibeiError(Code.CONFLICT, f"{name} is member {there.number}. Next: give the new one a name of its own")
        old = _member(look.state, member)
        invited = await self._invite(name, zone or old.zone, old, valid_s)
        return ClusterDone(action, member, True, f"a new member takes the place of {member} when it comes", invited.token)

    async def _commit(self, entry: entry_pb2.Entry) -> Outcome:
        outcome = await self._port.propose(entry)
        if outcome.kind not in (OutcomeKind.APPLIED, OutcomeKind.ALREADY):
            definite = outcome.kind is not OutcomeKind.UNKNOWN
            code = Code.CONFLICT if definite else Code.UNKNOWN
            text = outcome.detail or "whether it was done is not known. Next: zaibei cluster status"
            raise ZaibeiError(code, text, definite=definite)
        return outcome


def _plan(look: ClusterLook, action: str, member: str, group: str, fewer: bool) -> Plan:
    if action not in ACTIONS:
        raise ZaibeiError(Code.MALFORMED, f"{action!r} is no plan of a cluster: {', '.join(ACTIONS)}")
    record, world = _member(look.state, member), look.world()
    if action == "remove":
        return plan_remove(world, record, fewer)
    if action == "replace":
        return plan_replace(world, record)
    return plan_reseed(world, _group(look.state, group).name, record)


def _member(state: ControlState, name: str) -> MemberRecord:
    found = state.member_named(name)
    if found is None:
        names = ", ".join(one.name for one in state.living()) or "none"
        raise ZaibeiError(Code.NOT_FOUND, f"no member {name!r}; there are: {names}")
    return found


def _group(state: ControlState, name: str) -> GroupRecord:
    found = state.group(name)
    if found is None:
        names = ", ".join(one.name for one in state.groups[:20]) or "none"
        raise ZaibeiError(Code.NOT_FOUND, f"no group {name!r}; there are: {names}")
    return found


def _name(state: ControlState, number: int) -> str:
    member = state.member(number)
    return member.name if member else f"member {number}"
