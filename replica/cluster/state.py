"""What the control group has decided, as one value: members, groups and where each group shall live.

Numbers of members and ids of groups are counted up and never given again, so that a late message of a removed member can never
be taken for another's. A removed member stays on the list for good: its number and its certificate must be refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from replica.model.audit import NO_CHAIN, AuditHead
from replica.model.audit_personal import may_go
from replica.model.errors import require

CONTROL_ID = 1
CONTROL_NAME = "control"
FIRST_MEMBER = 1
ID_OCTETS = 16  # of a cluster, a lineage, a journal
AUDIT_KEPT = 2_000  # newest records; beyond it those go that are older than KEPT_DAYS
GO_AT_ONCE = 2  # so a leader's clock that leaps drops few
ACTS_KEPT = 4_096  # an act is known again for so many acts; the rules below hold without that memory too
REPLICAS = (3, 5)
MOVED_KEPT = 10_000


class MemberState(StrEnum):
    """Life of a member's number."""

    JOINING = "joining"  # has a number and a certificate; has not come yet
    ACTIVE = "active"  # came once, its journal's identity is pinned
    LEAVING = "leaving"  # gets nothing new; its places go to others
    REMOVED = "removed"  # holds nothing and is refused; final


MEMBER_MOVES: dict[MemberState, frozenset[MemberState]] = {
    MemberState.JOINING: frozenset({MemberState.ACTIVE, MemberState.REMOVED}),
    MemberState.ACTIVE: frozenset({MemberState.LEAVING}),
    MemberState.LEAVING: frozenset({MemberState.REMOVED}),
    MemberState.REMOVED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """One member.

    Args:
        zone: place that can be lost at once; "": none named. machine: observers on different ones count as two.
        links, feeds, answers: host:port where members, sources and clients reach it.
        serial: of its certificate. journal: identity pinned when it first came; empty before.
        draining: nothing shall be led or newly placed there.
        replaces: number of the member whose place it takes; 0: none.
    """

    number: int
    name: str
    zone: str = ""
    machine: str = ""
    links: tuple[str, ...] = ()
    feeds: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    serial: str = ""
    journal: bytes = b""
    state: MemberState = MemberState.JOINING
    draining: bool = False
    replaces: int = 0
    reason: str = ""

    def moved(self, state: MemberState) -> MemberRecord:
        """Raises InvariantBroken when the move is not in MEMBER_MOVES."""
        require(state in MEMBER_MOVES[self.state], f"member {self.number} cannot move from {self.state} to {state}")
        return replace(self, state=state)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a group shall live. Both ascending; `leader`: preferred, 0: whoever leads."""

    voters: tuple[int, ...]
    learners: tuple[int, ...] = ()
    leader: int = 0

    @property
    def everyone(self) -> frozenset[int]:
        return frozenset((*self.voters, *self.learners))


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One group. `first`: the voters its log began with, fixed for good; `wanted`: where it shall live now."""

    ident: int
    name: str
    first: tuple[int, ...]
    wanted: Placement


@dataclass(frozen=True, slots=True)
class PrefixRecord:
    """A prefix that moved from one source to another: recorded when it was released, `acquired` when the new group has it.

    Args:
        act, number, source, target, version, position, records: see replica/model/prefix_moves.py. digest: hex.
        prefix: as people write it. at_ms: Unix milliseconds of the record's last change.
    """

    act: str
    prefix: str
    number: int
    source: str
    target: str
    version: int
    position: str
    records: int
    digest: str
    case_sensitive: bool
    at_ms: int
    acquired: bool = False


@dataclass(frozen=True, slots=True)
class ControlState:
    """Everything the control group decided, at one applied index.

    Args:
        cluster: 16 octets, empty before the first entry; lineage: 16 octets.
        replicas: voters a group shall have where there are members enough.
        members, groups: ascending by number and id.
        acts: (act, number or id it gave, 0 where it gave none), newest last, at most ACTS_KEPT.
        moved: prefixes that went from one source to another, oldest first, at most MOVED_KEPT.
        audit: the newest records of what was decided, beyond AUDIT_KEPT young ones alone; audit_number, audit_chain: of the
            newest (hex).
    """

    cluster: bytes = b""
    lineage: bytes = b""
    replicas: int = REPLICAS[0]
    members: tuple[MemberRecord, ...] = ()
    groups: tuple[GroupRecord, ...] = ()
    next_member: int = FIRST_MEMBER
    next_group: int = CONTROL_ID
    acts: tuple[tuple[str, int], ...] = ()
    audit: tuple[str, ...] = ()
    audit_number: int = 0
    audit_chain: str = ""
    moved: tuple[PrefixRecord, ...] = ()
    index: int = 0
    term: int = 0

    def audited(self, line: bytes, head: AuditHead) -> ControlState:
        """With one more record."""
        kept = (*self.audit, line.decode())
        now_ms = json.loads(line)["at_ms"]
        gone = 0
        while gone < GO_AT_ONCE and len(kept) - gone > AUDIT_KEPT and may_go(kept[gone], now_ms):
            gone += 1
        kept = kept[gone:]
        return replace(self, audit=kept, audit_number=head.number, audit_chain=head.chain.hex())

    @property
    def audit_head(self) -> AuditHead:
        number = self.audit_number
        return AuditHead(number, bytes.fromhex(self.audit_chain) or NO_CHAIN, number - len(self.audit) + 1)

    def member(self, number: int) -> MemberRecord | None:
        return next((one for one in self.members if one.number == number), None)

    def member_named(self, name: str) -> MemberRecord | None:
        """The living member of a name: names of removed ones are free again."""
        return next((one for one in self.members if one.name == name and one.state is not MemberState.REMOVED), None)

    def group(self, name: str) -> GroupRecord | None:
        return next((one for one in self.groups if one.name == name), None)

    def living(self) -> Iterator[MemberRecord]:
        return (one for one in self.members if one.state is not MemberState.REMOVED)

    def given_by(self, act: str) -> int | None:
        """Number or id the act gave, 0 when it gave none; None: the act is not known (any more)."""
        return next((given for known, given in self.acts if known == act), None)

    def places_of(self, number: int) -> tuple[str, ...]:
        """Names of the groups that shall live at a member."""
        return tuple(group.name for group in self.groups if number in group.wanted.everyone)

    def with_member(self, record: MemberRecord) -> ControlState:
        others = tuple(one for one in self.members if one.number != record.number)
        return replace(self, members=tuple(sorted((*others, record), key=lambda one: one.number)))

    def with_group(self, record: GroupRecord) -> ControlState:
        others = tuple(one for one in self.groups if one.ident != record.ident)
        return replace(self, groups=tuple(sorted((*others, record), key=lambda one: one.ident)))
