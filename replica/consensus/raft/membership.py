"""Who votes and who only listens: the value, its changes, and the rules of one change after another (thesis chapter 4). Pure.

A change of one voter is taken at once; more than one voter changes through a joint membership, in which both the old majority
(`outgoing`) and the new one must agree, until an empty change leaves it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

FORMAT = 1
STEPS_MAX = 1000
_HEAD = struct.Struct(">BBH")
_STEP = struct.Struct(">BQ")


@dataclass(frozen=True, slots=True)
class Membership:
    """Members of a group at one index of its log.

    Args:
        voters: the (new) voters.
        outgoing: the old voters while both majorities must agree; empty otherwise.
        learners: get the log, never count.
        learners_next: voters of `outgoing` that become learners when the joint membership is left.
        auto_leave: the leader leaves the joint membership by itself.
    """

    voters: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()
    auto_leave: bool = False

    @property
    def joint(self) -> bool:
        return bool(self.outgoing)

    @property
    def members(self) -> frozenset[int]:
        """All that get the log."""
        return self.voters | self.outgoing | self.learners | self.learners_next

    def votes(self, member: int) -> bool:
        """True when the member counts in one of the majorities."""
        return member in self.voters or member in self.outgoing

    def __str__(self) -> str:
        text = f"voters {sorted(self.voters)}"
        for name, members in (("outgoing", self.outgoing), ("learners", self.learners), ("next learners", self.learners_next)):
            if members:
                text += f", {name} {sorted(members)}"
        return text


class Act(IntEnum):
    """What a step does to one member; persistent, never renumber."""

    ADD_VOTER = 1
    ADD_LEARNER = 2
    REMOVE = 3


class Transition(IntEnum):
    """How a change passes through a joint membership; persistent, never renumber."""

    AUTO = 0  # only when it has several steps, and left by itself
    IMPLICIT = 1  # always, and left by itself
    EXPLICIT = 2  # always, and left by an empty change


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a change. A step that names member 0 is skipped."""

    act: Act
    member: int


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """A change as it stands in the log. No steps and AUTO: leave the joint membership.

    Octets: u8 format | u8 transition | u16 number of steps | per step u8 act, u64 member; big-endian.
    """

    steps: tuple[Step, ...] = ()
    transition: Transition = Transition.AUTO

    @property
    def leaves(self) -> bool:
        return not self.steps and self.transition is Transition.AUTO

    @property
    def joint(self) -> bool:
        return self.transition is not Transition.AUTO or len(self.steps) > 1

    @property
    def auto_leave(self) -> bool:
        return self.transition is not Transition.EXPLICIT

    def encode(self) -> bytes:
        """Raises ValueError: over STEPS_MAX steps."""
        if len(self.steps) > STEPS_MAX:
            raise ValueError(f"a change has at most {STEPS_MAX} steps, not {len(self.steps)}")
        octets = [_HEAD.pack(FORMAT, self.transition, len(self.steps))]
        octets += [_STEP.pack(step.act, step.member) for step in self.steps]
        return b"".join(octets)

    @classmethod
    def decode(cls, octets: bytes) -> MembershipChange:
        """Raises ValueError: not octets of `encode`."""
        if len(octets) < _HEAD.size:
            raise ValueError(f"a membership change has at least {_HEAD.size} octets, not {len(octets)}")
        form, transition, count = _HEAD.unpack_from(octets)
        if form != FORMAT:
            raise ValueError(f"a membership change has format {form}; this program reads {FORMAT}")
        if count > STEPS_MAX or len(octets) != _HEAD.size + count * _STEP.size:
            raise ValueError(f"a membership change of {count} steps has {len(octets)} octets")
        steps = tuple(Step(Act(act), member) for act, member in _STEP.iter_unpack(octets[_HEAD.size :]))
        return cls(steps, Transition(transition))


class Fault(StrEnum):
    """Why a change is refused."""

    NOT_JOINT = "the membership is not joint, there is nothing to leave"
    ALREADY_JOINT = "the membership is already joint; leave it first"
    NO_VOTERS_YET = "a membership without voters cannot become joint"
    ALL_REMOVED = "the change would remove all voters"
    TOO_MANY = "more than one voter changes: this needs a joint membership"


class ChangeRefused(ValueError):
    """The change cannot be taken from this membership."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Changed:
    """The membership after a change, and members whose progress begins anew although they were and are members."""

    membership: Membership
    restarted: frozenset[int] = frozenset()


def change_membership(old: Membership, change: MembershipChange) -> Changed:
    """Take a change as its transition says. Raises ChangeRefused."""
    if change.leaves:
        return leave_joint(old)
    if change.joint:
        return enter_joint(old, change.steps, auto_leave=change.auto_leave)
    return change_simply(old, change.steps)


def change_simply(old: Membership, steps: Sequence[Step]) -> Changed:
    """Take steps at once: at most one voter may change, so that old and new majorities overlap. Raises ChangeRefused."""
    if old.joint:
        raise ChangeRefused(Fault.ALREADY_JOINT)
    changed = _take(old, steps)
    if len(old.voters ^ changed.membership.voters) > 1:
        raise ChangeRefused(Fault.TOO_MANY)
    return changed


def enter_joint(old: Membership, steps: Sequence[Step], *, auto_leave: bool) -> Changed:
    """Take steps and keep the old voters as a second majority. Raises ChangeRefused."""
    if old.joint:
        raise ChangeRefused(Fault.ALREADY_JOINT)
    if not old.voters:
        raise ChangeRefused(Fault.NO_VOTERS_YET)
    return _take(Membership(old.voters, old.voters, old.learners, old.learners_next, auto_leave), steps)


def leave_joint(old: Membership) -> Changed:
    """Only the new majority counts from here on. Raises ChangeRefused."""
    if not old.joint:
        raise ChangeRefused(Fault.NOT_JOINT)
    return Changed(Membership(old.voters, learners=old.learners | old.learners_next))


def _take(old: Membership, steps: Iterable[Step]) -> Changed:
    voters, learners, next_learners = set(old.voters), set(old.learners), set(old.learners_next)
    restarted: set[int] = set()
    for step in steps:
        member = step.member
        if not member or (step.act is Act.ADD_LEARNER and (member in learners or member in next_learners)):
            continue
        known = member in voters or member in learners or member in old.outgoing
        voters.discard(member)
        learners.discard(member)
        next_learners.discard(member)
        if step.act is Act.ADD_VOTER:
            voters.add(member)
        elif step.act is Act.ADD_LEARNER:
            # A voter of the outgoing majority still counts there, so it becomes a learner only when that is left.
            (next_learners if member in old.outgoing else learners).add(member)
        elif known and member not in old.outgoing:
            restarted.add(member)
    if not voters:
        raise ChangeRefused(Fault.ALL_REMOVED)
    new = Membership(frozenset(voters), old.outgoing, frozenset(learners), frozenset(next_learners), old.auto_leave)
    return Changed(new, frozenset(restarted) & new.members)
