"""A running member of a cluster as the operator's side sees it: ClusterPort over its life in the cluster, and its health."""

from __future__ import annotations

import secrets
import time

from ops.cluster.port import ClusterLook, GroupLook
from replica.cluster.health import GroupHealth, Health
from replica.cluster.state import CONTROL_ID, GroupRecord
from replica.consensus.hello import Standing
from replica.member.cluster_life import ClusterLife
from replica.member.member import Member
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import Outcome
from replica.takeover.edge_runner import boottime_ns
from replica.v1 import entry_pb2

FRESH_S_MAX = 5.0
ACT_OCTETS = 12
OTHER_BLOCKS = (
    "has other [[source]] blocks than this member: a source must be configured at every member. Next: copy what it lacks, "
    "blocks of the file and, of enrolled sources, the files in sources.d of the data folder; those count within seconds"
)


class RunningCluster:
    """Satisfies ops.cluster.port.ClusterPort."""

    def __init__(self, member: Member, life: ClusterLife) -> None:
        self._member, self._life = member, life

    def look(self) -> ClusterLook:
        """See ClusterPort."""
        side, care = self._life.side, self._life.care
        world = care.world()
        return ClusterLook(
            side.me,
            side.state,
            world.members,
            {**side.host.boots, side.me: side.host.boot},
            {group.name: self._group(group) for group in side.state.groups},
            tuple(self._warnings()),
        )

    def _group(self, record: GroupRecord) -> GroupLook:
        side = self._life.side
        told = side.host.stands(record.ident)
        out = self._life.out_of_service().get(record.ident)
        broken = self._member.broken.get(record.name)
        out_here = {side.me: out or str(broken)} if out or broken else {}
        if told is None:
            return GroupLook(None, out_of_service=out_here)
        behind: dict[int, int | None] = {
            one.member: max(0, told.row.last - one.index) if one.index else None for one in told.row.matched
        }
        amnesiac = {one.member: "it forgot what it had promised, and is fed anew" for one in told.row.matched if one.amnesiac}
        seen = self._life.care.seen(record)
        return GroupLook(seen, told.row.term, {**behind, told.leader: 0}, {**amnesiac, **out_here})

    def _warnings(self) -> list[str]:
        side = self._life.side
        own = side.hello().sources
        differing = sorted(hello.name for hello in side.hellos.values() if hello.sources != own)
        found = [f"{name} {OTHER_BLOCKS}" for name in differing]
        for number in side.state.living():
            trouble = side.links.trouble(number.number) if number.number != side.me else ""
            if trouble:
                found.append(f"{number.name}: {trouble}")
        return found

    async def fresh(self) -> ClusterLook:
        """See ClusterPort."""
        await self._life.side.control.barrier(FRESH_S_MAX)
        return self.look()

    async def propose(self, entry: entry_pb2.Entry) -> Outcome:
        """See ClusterPort."""
        return (await self._life.propose(CONTROL_ID, entry)).outcome

    async def transfer(self, group: str, to: int) -> None:
        """See ClusterPort."""
        await self._life.lead(self._ident(group), to)

    async def reseed(self, group: str, member: int) -> None:
        """See ClusterPort."""
        await self._life.reseed(self._ident(group), member)

    def _ident(self, group: str) -> int:
        record = self._life.side.state.group(group)
        if record is None:
            raise ZaibeiError(Code.NOT_FOUND, f"no group {group!r}")
        return record.ident

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def new_act(self) -> str:
        return f"operator:{secrets.token_hex(ACT_OCTETS)}"


def health_of(member: Member) -> Health:
    """How a member stands, for load balancers."""
    name = member.settings.name
    if member.life is None:
        groups = {source: _alone(member, source) for source in member.copies}
        return Health(name, groups=groups)
    side = member.life.side
    record = side.state.member(side.me)
    draining = record is not None and record.draining
    groups = {one.name: _role(member, one) for one in side.state.groups}
    unready = "" if side.links.connected or len(list(side.state.living())) <= 1 else "no other member is reached"
    return Health(name, unready=unready, draining=draining, groups=groups)


def _alone(member: Member, source: str) -> GroupHealth:
    copy = member.copies[source]
    trouble = str(member.broken.get(source) or copy.log.failure or "")
    age_ms = copy.driver.age.age_ms(boottime_ns())
    return GroupHealth("leader" if copy.log.leader else "none", member.settings.name, 0, age_ms, trouble)


def _role(member: Member, record: GroupRecord) -> GroupHealth:
    if member.life is None:
        return GroupHealth("none")
    side = member.life.side
    told = side.host.stands(record.ident)
    leader = None if told is None else side.state.member(told.leader)
    name = leader.name if leader is not None else ""
    hosted = side.host.groups.get(record.ident)
    if hosted is None:
        return GroupHealth("none", name)
    membership = hosted.log.membership
    role = "leader" if hosted.log.leader else "follower" if side.me in membership.voters else "learner"
    lag = None if told is None else max(0, told.row.last - hosted.log.applied)
    copy = member.copies.get(record.name)
    age_ms = None if copy is None else copy.driver.age.age_ms(boottime_ns())
    standing = side.host.standing(record.ident)
    trouble = str(hosted.log.failure or member.broken.get(record.name) or "")
    if standing is Standing.AMNESIAC:
        trouble = "it forgot what it had promised"
    return GroupHealth(role, name, lag, age_ms, trouble)
