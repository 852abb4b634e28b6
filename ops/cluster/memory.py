"""Memory twin of a member of a cluster: the real rules over groups whose logs are but their membership; time is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ops.cluster.port import ClusterLook, GroupLook
from replica.cluster import entries
from replica.cluster.care import next_entries
from replica.cluster.placement import GroupSeen, MemberSeen
from replica.cluster.reconcile import LEADER_SETTLED_MS, Action, Actual, Kind, Sight, majority, next_action
from replica.cluster.rules import apply_entry
from replica.cluster.state import ControlState, MemberRecord, MemberState, Placement
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import Outcome, OutcomeKind
from replica.v1 import entry_pb2

CLUSTER, LINEAGE = bytes(range(16)), bytes(range(16, 32))
START_MS = 1_800_000_000_000
INVITE_FORM = "invite-{number}"


@dataclass(slots=True)
class MemoryCluster:
    """Satisfies ops.cluster.port.ClusterPort and Inviter. `live` lets one round pass: care, actions of leaders, feeding.

    Args:
        me: the member asked; down: members that are not connected; deaf: the control group has no leader.
        out: (group, member) -> why its copy may not be used.
    """

    replicas: int = 3
    me: int = 1
    state: ControlState = field(default_factory=ControlState)
    logs: dict[str, GroupSeen] = field(default_factory=dict)
    down: set[int] = field(default_factory=set)
    out: dict[tuple[str, int], str] = field(default_factory=dict)
    behind: dict[tuple[str, int], int] = field(default_factory=dict)
    invited: list[tuple[str, str, int, int]] = field(default_factory=list)
    deaf: bool = False
    clock_ms: int = START_MS
    acts: int = 0

    def __post_init__(self) -> None:
        self.apply(entries.begun("begin", self.clock_ms, CLUSTER, LINEAGE, self.replicas))

    @staticmethod
    def of(members: Iterable[tuple[str, str]], groups: Iterable[str], replicas: int = 3) -> MemoryCluster:
        """Members (name, zone) that have all come, groups that began at the first one; lived until nothing is to be done."""
        made = MemoryCluster(replicas)
        for name, zone in members:
            made.come(made.admit(name, zone))
        for group in groups:
            made.apply(entries.placed(made.new_act(), made.clock_ms, group, Placement((1,))))
        made.live(200)
        return made

    # -- ClusterPort

    def look(self) -> ClusterLook:
        members = {}
        for member in self.state.members:
            up = member.number not in self.down
            members[member.number] = MemberSeen(LEADER_SETTLED_MS if up else None, None if up else LEADER_SETTLED_MS)
        groups = {name: self._group(name) for name in self.logs}
        boots = {number: 3 for number in members if number not in self.down}
        return ClusterLook(self.me, self.state, members, boots, groups)

    def _group(self, name: str) -> GroupLook:
        seen = self.logs[name]
        out = {number: why for (group, number), why in self.out.items() if group == name}
        if not self._leader(name):
            return GroupLook(None, out_of_service=out)
        behind = {number: self.behind.get((name, number), 0) for number in seen.everyone if number not in self.down}
        return GroupLook(seen, 7, behind, out)

    async def fresh(self) -> ClusterLook:
        if self.deaf:
            raise ZaibeiError(Code.UNREACHABLE, "the control group has no leader. Next: zaibei cluster status", retry=True)
        return self.look()

    async def propose(self, entry: entry_pb2.Entry) -> Outcome:
        return self.apply(entry)

    async def transfer(self, group: str, to: int) -> None:
        self.logs[group] = replace(self.logs[group], leader=to)

    async def reseed(self, group: str, member: int) -> None:
        seen = self.logs[group]
        self.logs[group] = replace(seen, voters=seen.voters - {member}, learners=seen.learners | {member})
        self.behind[group, member] = 10_000
        self.out.pop((group, member), None)

    async def invite(self, name: str, zone: str, replaces: int, valid_s: int) -> tuple[str, int]:
        self.invited.append((name, zone, replaces, valid_s))
        return INVITE_FORM.format(number=len(self.invited)), self.clock_ms + valid_s * 1_000

    def now_ms(self) -> int:
        return self.clock_ms

    def new_act(self) -> str:
        self.acts += 1
        return f"act-{self.acts}"

    # -- what happens in it

    def apply(self, entry: entry_pb2.Entry) -> Outcome:
        self.state, outcome = apply_entry(self.state, entry.control)
        for group in self.state.groups:
            first = frozenset(group.first)
            self.logs.setdefault(group.name, GroupSeen(first, leader=min(first)))
        return outcome

    def admit(self, name: str, zone: str, replaces: int = 0) -> int:
        """Give a member a number; it has not come yet."""
        number = self.state.next_member
        record = MemberRecord(0, name, zone, links=(f"{name}.example:2646",), replaces=replaces)
        outcome = self.apply(entries.admitted(self.new_act(), self.clock_ms, record))
        if outcome.kind is not OutcomeKind.APPLIED:
            raise ZaibeiError(Code.CONFLICT, outcome.detail)
        return number

    def come(self, number: int) -> None:
        """It comes for the first time."""
        record = self.state.member(number)
        if record is not None:
            journal = number.to_bytes(16, "big")
            self.apply(entries.changed(self.new_act(), self.clock_ms, replace(record, journal=journal)))

    def live(self, rounds: int = 1) -> None:
        """Let the control leader care and each group's leader act; learners are fed in between."""
        for _ in range(rounds):
            self.clock_ms += 1_000
            for entry in next_entries(self.look().world(), self.clock_ms):
                self.apply(entry)
            for name in self.logs:
                if self._leader(name):
                    self._act(name)
            for key in [key for key in self.behind if key[1] not in self.down]:
                self.behind[key] = 0

    def _leader(self, name: str) -> int:
        seen = self.logs[name]
        up = [number for number in sorted(seen.voters) if number not in self.down and (name, number) not in self.out]
        if len(up) < majority(seen.voters):
            return 0
        if seen.leader not in up:
            self.logs[name] = replace(seen, leader=up[0])
        return self.logs[name].leader

    def _act(self, name: str) -> None:
        group, seen = self.state.group(name), self.logs[name]
        if group is None:
            return
        up = [member.number for member in self.state.members if member.number not in self.down]
        behind = {number: self.behind.get((name, number), 0) for number in up}
        unfit = frozenset(
            member.number for member in self.state.members if member.draining or member.state is MemberState.LEAVING
        )
        sight = Sight(behind, dict.fromkeys(up, LEADER_SETTLED_MS), unfit=unfit)
        self._carry_out(name, next_action(Actual(seen.leader, seen.voters, seen.learners), group.wanted, sight))

    def _carry_out(self, name: str, action: Action) -> None:
        seen = self.logs[name]
        if action.kind is Kind.TRANSFER_LEADER:
            self.logs[name] = replace(seen, leader=action.member)
        elif action.kind is not Kind.NOTHING:
            if action.kind is Kind.ADD_LEARNER:
                self.behind[name, action.member] = 10_000
            self.logs[name] = replace(seen, voters=action.voters, learners=action.learners)
