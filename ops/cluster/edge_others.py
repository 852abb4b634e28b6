"""The other members of a running cluster, as far as handing commands on needs them. Satisfies ops.admin.handing.Others."""

from __future__ import annotations

from collections.abc import Mapping

from replica.cluster.state import CONTROL_ID
from replica.member.cluster_life import ClusterLife
from replica.member.edge_asks import ask
from replica.model.errors import Code, ZaibeiError
from replica.v1 import peer_pb2


class OtherMembers:
    """See the module."""

    def __init__(self, life: ClusterLife, name: str) -> None:
        self._side, self.name = life.side, name

    def connected(self) -> list[str]:
        """See Others."""
        return [one.name for one in self._side.state.living() if one.number in self._side.links.connected]

    def missing(self) -> list[str]:
        """See Others."""
        there = {*self.connected(), self.name}
        return [one.name for one in self._side.state.living() if one.name not in there]

    def leaders(self) -> Mapping[str, str]:
        """See Others."""
        found = dict[str, str]()
        for group in self._side.state.groups:
            told = None if group.ident == CONTROL_ID else self._side.host.stands(group.ident)
            leader = None if told is None else self._side.state.member(told.leader)
            if leader is not None:
                found[group.name] = leader.name
        return found

    async def ask(self, member: str, line: bytes, limit_s: float) -> bytes:
        """See Others."""
        record = self._side.state.member_named(member)
        if record is None:
            raise ZaibeiError(Code.UNREACHABLE, f"{member} belongs to this cluster no more", retry=True)
        answer = await ask(self._side.peers, record.number, peer_pb2.MemberQuestion(operator=line), limit_s)
        return answer.octets
