"""A group's seat on a member: who we are in it, who its first voters are, and the way to the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from replica.consensus.port import GroupJournal
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import Message

ELECTION_TICKS = 10
HEARTBEAT_TICKS = 2
NEEDED_BY_NONE = 2**63


def _alone(_messages: Sequence[Message]) -> None:
    """A group of one member has nobody to write to."""


def _unchanged(_membership: Membership) -> None:
    """Nobody asks."""


def _idle() -> None:
    """A group of one member never sleeps."""


def _by_none(_journal: GroupJournal) -> int:
    return NEEDED_BY_NONE


@dataclass(frozen=True, slots=True)
class GroupSeat:
    """See the module.

    Args:
        member: our number.
        birth: the first voters, as the control group fixed them when it made the group.
        send: takes messages to others; never blocks, may lose them.
        changed: hears of each committed membership.
        needed_from: first index that another member may still need from our journal.
        active: something is asked of the group: it must be awake.
        name_of: how people call a member.
        random: spreads elections.
    """

    member: int
    birth: Membership
    send: Callable[[Sequence[Message]], None] = _alone
    changed: Callable[[Membership], None] = _unchanged
    needed_from: Callable[[GroupJournal], int] = _by_none
    active: Callable[[], None] = _idle
    name_of: Callable[[int], str] = "member {}".format
    random: Random = field(default_factory=Random)
    election_ticks: int = ELECTION_TICKS
    heartbeat_ticks: int = HEARTBEAT_TICKS


ALONE = GroupSeat(1, Membership(voters=frozenset({1})))
