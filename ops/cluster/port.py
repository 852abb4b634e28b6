"""What the operator's side asks of a member of a cluster; `memory.py` holds a twin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from replica.cluster.placement import GroupSeen, MemberSeen, World
from replica.cluster.state import ControlState
from replica.model.outcome import Outcome
from replica.v1 import entry_pb2


@dataclass(frozen=True, slots=True)
class GroupLook:
    """One group as this member sees it.

    Args:
        seen: of its log; None: nobody is known to lead it, so nothing of it is known.
        behind: member -> entries it lacks; missing or None: not known.
        out_of_service: member -> why its copy may not be used.
    """

    seen: GroupSeen | None
    term: int | None = None
    behind: Mapping[int, int | None] = field(default_factory=dict)
    out_of_service: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterLook:
    """The cluster as one member sees it, at one moment. `members` holds the member itself too.

    Args:
        boots: member -> number of its journal's opening, as far as known.
        warnings: sentences for a person: differing sources, refused strangers, a certificate that ends.
    """

    me: int
    state: ControlState
    members: Mapping[int, MemberSeen] = field(default_factory=dict)
    boots: Mapping[int, int] = field(default_factory=dict)
    groups: Mapping[str, GroupLook] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def world(self) -> World:
        """What plans rest on."""
        seen = {name: look.seen for name, look in self.groups.items() if look.seen is not None}
        return World(self.state, self.members, seen)


class ClusterPort(Protocol):
    """A running member of a cluster. Calls on the event loop."""

    def look(self) -> ClusterLook: ...

    async def fresh(self) -> ClusterLook:
        """As `look`, after a linearizable read of the control group: what plans and acts begin with.

        Raises:
            ZaibeiError(UNREACHABLE, retry): the control group has no leader, or not within a few seconds.
        """
        ...

    async def propose(self, entry: entry_pb2.Entry) -> Outcome:
        """Commit an entry of the control group, at whatever member leads it, and apply it here.

        Raises:
            ZaibeiError(UNREACHABLE): no leader, nothing was done; UNKNOWN: whether it was done is not known.
        """
        ...

    async def transfer(self, group: str, to: int) -> None:
        """Hand the lead of a group over; returns when `to` leads.

        Raises:
            ZaibeiError(REFUSED): it is too far behind or no voter; UNREACHABLE: it did not lead in time.
        """
        ...

    async def reseed(self, group: str, member: int) -> None:
        """Begin to feed a member's copy anew: no vote, its store aside, a transfer, a vote again. Returns when it has begun."""
        ...

    def now_ms(self) -> int: ...

    def new_act(self) -> str:
        """An id that was never used: for acts that are not named by a plan's token."""
        ...


class Inviter(Protocol):
    """Gives out tokens; only the member at which the CA's key lies can."""

    async def invite(self, name: str, zone: str, replaces: int, valid_s: int) -> tuple[str, int]:
        """A one-time token for a member of this name, and when it ends (Unix milliseconds).

        Args:
            zone: "": the new member says it. replaces: number of the member whose place it takes; 0: none.
        Raises:
            ZaibeiError(NOT_FOUND): the CA's key is not here; says where it is looked for.
        """
        ...
