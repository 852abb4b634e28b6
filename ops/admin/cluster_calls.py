"""The cluster's calls of the admin channel: their port, their table, and what a member without a cluster answers."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, NoReturn, Protocol

from ops.admin.cluster_values import ClusterDone, ClusterPlan, ClusterStatus, Invitation
from replica.model.errors import Code, ZaibeiError

INVITE_VALID_S = 3_600  # a token's time where none is given


class ClusterCalls(Protocol):
    """What a member of a cluster does for its operator. Members and groups are given by name.

    Raises (every call):
        ZaibeiError(REFUSED): this member belongs to no cluster, or a rule says no; NOT_FOUND: no such member or group;
            UNREACHABLE: the control group has no leader now.
    """

    async def cluster_status(self) -> ClusterStatus: ...

    async def cluster_invite(self, name: str, zone: str, valid_s: int) -> Invitation:
        """A token with which one member may come. It is told once and kept nowhere in the clear."""
        ...

    async def cluster_transfer(self, group: str, to: str) -> ClusterDone:
        """Let a member lead a group, now and from now on."""
        ...

    async def cluster_drain(self, member: str, draining: bool) -> ClusterDone:
        """Begin to let a member lead nothing and get nothing new, or end that. Its copies stay."""
        ...

    async def cluster_plan(self, action: str, member: str, group: str, fewer: bool) -> ClusterPlan:
        """Look, change nothing. `action`: remove, replace or reseed; `group` for reseed alone, `fewer` for remove alone."""
        ...

    async def cluster_run(
        self, action: str, member: str, group: str, fewer: bool, token: str, reason: str, name: str, zone: str, valid_s: int
    ) -> ClusterDone:
        """Do exactly what was planned; REFUSED when the world changed since. With replace: `name`, `zone` of the new one."""
        ...


class NoCluster:
    """A member by itself. Satisfies ClusterCalls."""

    def _refuse(self) -> NoReturn:
        raise ZaibeiError(
            Code.REFUSED,
            "this member belongs to no cluster: it works alone. Next: stop it, `zaibei cluster init`, and start it again",
        )

    async def cluster_status(self) -> ClusterStatus:
        self._refuse()

    async def cluster_invite(self, name: str, zone: str, valid_s: int) -> Invitation:
        self._refuse()

    async def cluster_transfer(self, group: str, to: str) -> ClusterDone:
        self._refuse()

    async def cluster_drain(self, member: str, draining: bool) -> ClusterDone:
        self._refuse()

    async def cluster_plan(self, action: str, member: str, group: str, fewer: bool) -> ClusterPlan:
        self._refuse()

    async def cluster_run(
        self, action: str, member: str, group: str, fewer: bool, token: str, reason: str, name: str, zone: str, valid_s: int
    ) -> ClusterDone:
        self._refuse()


CLUSTER_SIGNATURES: MappingProxyType[str, tuple[Any, bool, dict[str, Any]]] = MappingProxyType(
    {
        "cluster_status": (ClusterStatus, False, {}),
        "cluster_invite": (Invitation, True, {"name": str, "zone": str, "valid_s": int}),
        "cluster_transfer": (ClusterDone, True, {"group": str, "to": str}),
        "cluster_drain": (ClusterDone, True, {"member": str, "draining": bool}),
        "cluster_plan": (ClusterPlan, False, {"action": str, "member": str, "group": str, "fewer": bool}),
        "cluster_run": (
            ClusterDone,
            True,
            {
                "action": str,
                "member": str,
                "group": str,
                "fewer": bool,
                "token": str,
                "reason": str,
                "name": str,
                "zone": str,
                "valid_s": int,
            },
        ),
    }
)
"""Call -> type of its result, whether it may change something, its parameters."""
