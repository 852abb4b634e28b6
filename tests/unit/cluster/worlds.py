"""A cluster in a few values: members that go up and down, groups whose logs take part in changes, the real rules in between."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from replica.cluster import entries
from replica.cluster.placement import GroupSeen, MemberSeen, Step, World, next_steps, voters_for, zone_cap
from replica.cluster.reconcile import LEADER_SETTLED_MS, Action, Actual, Kind, Sight, majority, next_action
from replica.cluster.rules import apply_entry
from replica.cluster.state import ControlState, GroupRecord, MemberRecord, MemberState, Placement
from replica.model.outcome import Outcome, OutcomeKind
from replica.v1 import entry_pb2

CLUSTER, LINEAGE = bytes(range(16)), bytes(range(16, 32))


def journal_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


@dataclass(slots=True)
class Log:
    """A group's log as far as membership goes."""

    voters: frozenset[int]
    learners: frozenset[int] = frozenset()
    leader: int = 0
    behind: dict[int, int] = field(default_factory=dict)  # learners that were just added


@dataclass(slots=True)
class Cluster:
    """The control group's state with its logs. `apply` is the only way anything is decided."""

    replicas: int = 3
    state: ControlState = field(default_factory=ControlState)
    down: set[int] = field(default_factory=set)
    slow: set[int] = field(default_factory=set)
    amnesiac: set[int] = field(default_factory=set)
    logs: dict[str, Log] = field(default_factory=dict)
    replace_after_ms: int | None = None
    acts: int = 0

    def __post_init__(self) -> None:
        self.apply(entries.begun(self.act(), 0, CLUSTER, LINEAGE, self.replicas))

    def act(self) -> str:
        self.acts += 1
        return f"act-{self.acts}"

    def apply(self, entry: entry_pb2.Entry) -> Outcome:
        self.state, outcome = apply_entry(self.state, entry.control)
        for group in self.state.groups:
            self.logs.setdefault(group.name, Log(frozenset(group.first), leader=min(group.first)))
        return outcome

    def join(self, name: str, zone: str = "", replaces: int = 0, come: bool = True) -> int:
        number = self.state.next_member
        record = MemberRecord(0, name, zone, links=(f"{name}:2646",), replaces=replaces)
        outcome = self.apply(entries.admitted(self.act(), 0, record))
        assert outcome.kind is OutcomeKind.APPLIED, outcome
        if come:
            self.come(number)
        return number

    def come(self, number: int) -> None:
        found = self.state.member(number)
        assert found is not None
        outcome = self.apply(entries.changed(self.act(), 0, replace(found, journal=journal_of(number))))
        assert outcome.kind is OutcomeKind.APPLIED, outcome

    def drain(self, number: int, draining: bool = True) -> None:
        found = self.state.member(number)
        assert found is not None
        self.apply(entries.changed(self.act(), 0, replace(found, draining=draining)))

    def leave(self, number: int) -> Outcome:
        return self.apply(entries.removed(self.act(), 0, number, "by hand"))

    def make(self, name: str, *voters: int) -> None:
        outcome = self.apply(entries.placed(self.act(), 0, name, Placement(tuple(voters))))
        assert outcome.kind is OutcomeKind.APPLIED, outcome

    def group(self, name: str) -> GroupRecord:
        found = self.state.group(name)
        assert found is not None
        return found

    # -- what is seen

    def world(self) -> World:
        seen = {}
        for member in self.state.members:
            up = member.number not in self.down
            up_ms = LEADER_SETTLED_MS if up else None
            seen[member.number] = MemberSeen(up_ms, None if up else 10_000_000, member.number in self.slow)
        groups = {name: self.seen(log) for name, log in self.logs.items() if self.leads(log)}
        return World(self.state, seen, groups, self.replace_after_ms)

    def seen(self, log: Log) -> GroupSeen:
        return GroupSeen(log.voters, log.learners, frozenset(), log.leader, 1)

    def leads(self, log: Log) -> bool:
        """The group has a leader that is up; a new one is chosen where a majority is."""
        up = [one for one in sorted(log.voters) if one not in self.down and one not in self.amnesiac]
        if len(up) < majority(log.voters):
            return False
        if log.leader not in up:
            log.leader = up[0]
        return True

    # -- what is done

    def decide(self, steps_max: int | None = None) -> list[Step]:
        """The control leader takes steps; only so many of them are carried out."""
        steps = next_steps(self.world())
        for step in steps if steps_max is None else steps[:steps_max]:
            outcome = self.apply(entries.placed(self.act(), 0, step.group, step.placement))
            assert outcome.kind is OutcomeKind.APPLIED, (step, outcome)
        return steps

    def action(self, name: str) -> Action:
        log = self.logs[name]
        behind = {one.number: log.behind.get(one.number, 0) for one in self.state.members}
        up_ms = {one.number: LEADER_SETTLED_MS for one in self.state.members if one.number not in self.down}
        sight = Sight(behind, up_ms, amnesiac=frozenset(self.amnesiac))
        return next_action(Actual(log.leader, log.voters, log.learners), self.group(name).wanted, sight)

    def act_once(self, name: str) -> bool:
        """The group's leader does its next action; False: there is none (or nobody leads)."""
        log = self.logs[name]
        if not self.leads(log):
            return False
        action = self.action(name)
        before = log.voters | log.learners
        match action.kind:
            case Kind.NOTHING:
                return False
            case Kind.TRANSFER_LEADER:
                assert action.member in log.voters and action.member not in self.down
                log.leader = action.member
            case Kind.ADD_LEARNER:
                log.behind[action.member] = 10_000
                assert action.member not in before
                log.learners = action.learners
            case _:
                assert action.voters | action.learners <= before, "nobody votes who was not a learner before"
                sound = {one for one in action.voters if one not in self.down and one not in self.amnesiac}
                assert len(sound) >= majority(action.voters), f"below the majority: {action}"
                assert all(not log.behind.get(one) for one in action.voters - log.voters), "a voter that has not caught up"
                assert log.leader in action.voters, "a leader never votes itself away"
                log.voters, log.learners = action.voters, action.learners
        return True

    def feed(self) -> bool:
        """All learners that are up catch up; what forgot its promises is fed anew. True when that changed something."""
        before = (sorted(self.amnesiac), [sorted(log.behind.items()) for log in self.logs.values()])
        for log in self.logs.values():
            for one in log.learners:
                if one not in self.down:
                    log.behind[one] = 0
        self.amnesiac -= {one for one in self.amnesiac if not any(one in log.voters for log in self.logs.values())}
        return before != (sorted(self.amnesiac), [sorted(log.behind.items()) for log in self.logs.values()])

    def settle(self, rounds_max: int = 400) -> int:
        """Until nothing is to be done; returns how many rounds that took."""
        for number in range(rounds_max):
            steps = self.decide()
            self.check()
            acted = [self.act_once(name) for name in list(self.logs)]
            fed = self.feed()
            if not steps and not any(acted) and not fed:
                return number
        raise AssertionError(f"never settles: {self.decide()} {[self.action(name) for name in self.logs]}")

    # -- what must always hold

    def check(self) -> None:
        active = [one for one in self.state.members if one.state is MemberState.ACTIVE]
        for group in self.state.groups:
            wanted = group.wanted
            assert len(wanted.voters) % 2 == 1 and not set(wanted.voters) & set(wanted.learners)
            assert len(wanted.voters) <= max(self.replicas, len(group.first))
            assert self.logs[group.name].voters
        assert active

    def check_settled(self) -> None:
        """Rules that hold once all is up and done."""
        active = [one for one in self.state.members if one.state is MemberState.ACTIVE]
        zones = Counter(one.zone for one in active)
        count = voters_for(zones, self.replicas)
        for group in self.state.groups:
            log = self.logs[group.name]
            assert (log.voters, log.learners) == (frozenset(group.wanted.voters), frozenset(group.wanted.learners))
            assert len(log.voters) == count, (group, zones)
            if group.name == "control":
                assert log.voters | log.learners == {one.number for one in active}, "every member hears control"
            placed = Counter(one.zone for one in active if one.number in log.voters)
            assert sum(placed.values()) == count, "voters are active members"
            assert max(placed.values()) <= zone_cap(count, len(zones)), (group.name, placed)
