"""From where a group's log stands to where it shall live: the next single action of the group's leader. Pure.

Way of a change, each state on it safe for good if nobody goes on:
    learners that are wanted no longer are removed -> copies that are missing come as learners -> when all new voters have
    caught up, one joint change to the wanted voters -> the preferred leader leads.
A leader that shall give up its place hands the lead over first. Voters that forgot a promise (amnesia) become learners first of
all, are fed, and come back by the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from replica.cluster.state import Placement

CAUGHT_UP_ENTRIES_MAX = 100  # a new voter may be so far behind: the joint change itself makes it wait for the rest
LEAD_BEHIND_ENTRIES_MAX = 1_000  # a transfer of the lead waits for the target; further behind it would only block
LEADER_SETTLED_MS = 30_000  # a member that just came back does not lead again at once


class Kind(StrEnum):
    """What the group's leader does next."""

    NOTHING = "nothing"
    ADD_LEARNER = "add_learner"
    PROMOTE = "promote"  # one joint change to `voters` and `learners`
    DEMOTE = "demote"  # `member` becomes a learner; to `voters` and `learners`
    REMOVE = "remove"  # a learner
    LEAVE_JOINT = "leave_joint"
    TRANSFER_LEADER = "transfer_leader"


@dataclass(frozen=True, slots=True)
class Actual:
    """Membership of the group's log, and who leads: the member that decides."""

    leader: int
    voters: frozenset[int]
    learners: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()  # non-empty: a joint change is half-way
    auto_leave: bool = True

    @property
    def everyone(self) -> frozenset[int]:
        return self.voters | self.learners | self.outgoing


@dataclass(frozen=True, slots=True)
class Sight:
    """What the leader sees of the others.

    Args:
        behind: member -> entries it lacks; missing or None: not known.
        up_ms: member -> how long it has been connected; missing or None: it is not.
        receiving: members that are being fed files, of this group or another: one transfer at a time each.
        amnesiac: members that said they forgot what they had promised in this group.
        unfit: members that shall not lead: they drain, leave or have a slow disk.
        pending: a change of membership or a transfer of the lead is on its way.
    """

    behind: Mapping[int, int | None] = field(default_factory=dict)
    up_ms: Mapping[int, int | None] = field(default_factory=dict)
    receiving: frozenset[int] = frozenset()
    amnesiac: frozenset[int] = frozenset()
    unfit: frozenset[int] = frozenset()
    pending: bool = False

    def up(self, member: int) -> bool:
        return self.up_ms.get(member) is not None

    def within(self, member: int, entries: int) -> bool:
        """True when the member is up, sound, and known to be at most so many entries behind."""
        behind = self.behind.get(member)
        return self.up(member) and member not in self.amnesiac and behind is not None and behind <= entries


@dataclass(frozen=True, slots=True)
class Action:
    """One action. `voters` and `learners`: the membership afterwards. `why`: a sentence; with NOTHING what is waited for."""

    kind: Kind
    member: int = 0
    voters: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    why: str = ""


def next_action(actual: Actual, wanted: Placement, sight: Sight) -> Action:
    """Decide one thing; call again when it is done.

    Args:
        actual: as the leader's log stands, committed.
        wanted: as the control group says; when control cannot be asked, as it said last.
    """
    if sight.pending:
        return Action(Kind.NOTHING, why="a change is on its way")
    if actual.outgoing:
        if actual.auto_leave:
            return Action(Kind.NOTHING, why="the joint change is about to end by itself")
        return Action(Kind.LEAVE_JOINT, voters=actual.voters, learners=actual.learners, why="the joint change is half-way")
    for step in (_demote, _remove, _add, _vote, _lead):
        action = step(actual, wanted, sight)
        if action is not None:
            return action
    return Action(Kind.NOTHING)


def majority(voters: frozenset[int]) -> int:
    return len(voters) // 2 + 1


def _alive(voters: frozenset[int], actual: Actual, sight: Sight) -> bool:
    """True when a majority of these voters is up and sound, so that the change can end and the group goes on."""
    sound = sum(1 for one in voters if one == actual.leader or (sight.up(one) and one not in sight.amnesiac))
    return sound >= majority(voters)


def _demote(actual: Actual, wanted: Placement, sight: Sight) -> Action | None:
    for member in sorted(actual.voters & sight.amnesiac):
        voters = actual.voters - {member}
        if not _alive(actual.voters, actual, sight) or not _alive(voters, actual, sight):
            return Action(Kind.NOTHING, member, why=f"member {member} forgot its promises, and the others are no majority")
        why = f"member {member} forgot its promises: it may not vote until it was fed again"
        return Action(Kind.DEMOTE, member, voters, actual.learners | {member}, why)
    return None


def _add(actual: Actual, wanted: Placement, sight: Sight) -> Action | None:
    missing = sorted(wanted.everyone - actual.everyone, key=lambda one: (one not in wanted.voters, one))
    for member in missing:
        if sight.up(member) and member not in sight.receiving:
            return Action(Kind.ADD_LEARNER, member, actual.voters, actual.learners | {member}, "it shall hold a copy")
    return None


def _vote(actual: Actual, wanted: Placement, sight: Sight) -> Action | None:
    target = frozenset(wanted.voters)
    if actual.voters == target or not target:
        return None
    late = sorted(one for one in target - actual.voters if one not in actual.learners or not _ready(one, sight))
    if late:
        return Action(Kind.NOTHING, late[0], why=f"member {late[0]} has not caught up")
    if actual.leader not in target:
        heirs = [one for one in target & actual.voters if sight.within(one, LEAD_BEHIND_ENTRIES_MAX)]
        if heirs:
            heir = min(heirs, key=lambda one: (one != wanted.leader, sight.behind.get(one) or 0, one))
            return Action(Kind.TRANSFER_LEADER, heir, why=f"member {actual.leader} gives its place up and leads")
        if target <= actual.voters:
            return Action(Kind.NOTHING, why=f"nobody can lead instead of member {actual.leader} yet")
        target |= {actual.leader}  # it stays until somebody of the new ones can lead
    if not _alive(target, actual, sight):
        return Action(Kind.NOTHING, why="the new voters would be no majority: too many of them are down")
    # A voter that leaves stays a learner until it is removed by a step of its own, where the control group wants it so.
    learners = (actual.learners | (actual.voters & frozenset(wanted.learners))) - target
    return Action(Kind.PROMOTE, voters=target, learners=learners, why="the new voters have caught up")


def _ready(member: int, sight: Sight) -> bool:
    return member not in sight.receiving and sight.within(member, CAUGHT_UP_ENTRIES_MAX)


def _remove(actual: Actual, wanted: Placement, sight: Sight) -> Action | None:
    for member in sorted(actual.learners - wanted.everyone):
        return Action(Kind.REMOVE, member, actual.voters, actual.learners - {member}, "it shall hold no copy any more")
    return None


def _lead(actual: Actual, wanted: Placement, sight: Sight) -> Action | None:
    to = wanted.leader
    if to in (0, actual.leader) or to not in actual.voters:
        return None
    if not sight.within(to, LEAD_BEHIND_ENTRIES_MAX):
        return Action(Kind.NOTHING, to, why=f"member {to} shall lead, but is down or too far behind")
    if actual.leader not in sight.unfit and (sight.up_ms.get(to) or 0) < LEADER_SETTLED_MS:
        return Action(Kind.NOTHING, to, why=f"member {to} shall lead, and came a short while ago")
    return Action(Kind.TRANSFER_LEADER, to, why=f"member {to} shall lead")
