"""Where groups shall live: from members, zones and the present placement to the next single steps. Pure.

What is kept, whatever is interrupted and wherever:
    * a group has an odd number of voters, `replicas` where there are members enough;
    * where three or more zones exist, no zone holds a majority of a group's voters (five voters: 2-2-1);
    * a step names the new placement of one group; how its log gets there is reconcile.py's (learner first, then one joint
      change), so a step that was decided and not carried out leaves the group exactly as it was;
    * a member that is down keeps its places until a person orders otherwise, or `replace_after_ms` when that is set;
    * a group gets fewer voters only when the members that exist, up or down, could not be more;
    * the control group has a copy at every member, as a learner where it does not vote: each must know where groups live.
Every step makes a group more as it must be, or lowers the sum of squares of what zones and members hold: so steps end.

A group's next placement is chosen from what is *wanted* now, not from where its log stands: a second look half-way through a
move decides the same again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from replica.cluster.state import CONTROL_ID, ControlState, GroupRecord, MemberRecord, MemberState, Placement

GROUPS_MOVING_MAX = 4  # groups whose copies move at the same time
LEADERS_MOVING_MAX = 8
UNEVEN_MIN = 2  # a difference of one is as even as it gets: moving for it would never end
ZONES_RULE_MIN = 3  # from so many zones on no zone may hold a majority


class Why(StrEnum):
    """Reason of a step, the pressing ones first."""

    MUST = "must"  # too few voters, a member that leaves, a rule of zones
    DEAD = "dead"  # down for longer than configured
    EVEN = "even"  # copies spread more evenly
    LEADER_AWAY = "leader_away"  # the leader's member drains, is slow or leaves
    LEADER_EVEN = "leader_even"


@dataclass(frozen=True, slots=True)
class MemberSeen:
    """What the leader of the control group sees of a member, of itself too.

    Args:
        up_ms: how long it has been connected; None: it is not, or that is not known.
        down_ms: how long it has not been; None: it is up, or that is not known.
        slow: its disk is, by a measure that does not flicker.
    """

    up_ms: int | None = None
    down_ms: int | None = None
    slow: bool = False


@dataclass(frozen=True, slots=True)
class GroupSeen:
    """What its leader says of a group's log: who takes part, who leads (0: nobody known), how large the copy is."""

    voters: frozenset[int]
    learners: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    leader: int = 0
    octets: int = 0

    @property
    def everyone(self) -> frozenset[int]:
        return self.voters | self.learners | self.outgoing


@dataclass(frozen=True, slots=True)
class World:
    """What a decision rests on. A group that is missing in `groups` is not known of and is not touched."""

    state: ControlState
    members: Mapping[int, MemberSeen] = field(default_factory=dict)
    groups: Mapping[str, GroupSeen] = field(default_factory=dict)
    replace_after_ms: int | None = None

    def up(self, number: int) -> bool:
        seen = self.members.get(number)
        return seen is not None and seen.up_ms is not None

    def long_dead(self, number: int) -> bool:
        seen = self.members.get(number)
        limit = self.replace_after_ms
        return limit is not None and seen is not None and seen.down_ms is not None and seen.down_ms >= limit


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the new placement of one group, for one entry of the control group."""

    group: str
    placement: Placement
    why: Why
    text: str


def next_steps(world: World) -> list[Step]:
    """The steps to take now, at most one a group; none when nothing is to be done or enough is under way.

    Decide again after they are applied: what follows depends on how the groups then stand.
    """
    steps: list[Step] = []
    state = world.state
    moving = sum(1 for group in state.groups if is_moving(group, world.groups.get(group.name)))
    for group in state.groups:
        seen = world.groups.get(group.name)
        if seen is None:
            continue
        begun = is_moving(group, seen)
        step = _must(replace(world, state=state), group, seen)
        # Of the control group others learn where groups live: groups nobody can lead yet must not keep it from reaching them.
        free = begun or group.ident == CONTROL_ID or moving < GROUPS_MOVING_MAX
        if step is not None and free:
            steps.append(step)
            moving += not begun
            state = state.with_group(replace(group, wanted=step.placement))
    if not steps and moving < GROUPS_MOVING_MAX:
        better = _better(world)
        steps += [better] if better else []
    return steps or _leader_steps(world)


def is_moving(group: GroupRecord, seen: GroupSeen | None) -> bool:
    """True while the group's log is not where it shall be; also while that is not known."""
    if seen is None:
        return True
    wanted = group.wanted
    return bool(seen.outgoing) or seen.voters != frozenset(wanted.voters) or seen.learners != frozenset(wanted.learners)


def first_placement(world: World, holder: int = 0) -> Placement:
    """Where a group that is made now begins.

    Args:
        holder: the one member that has its data already; 0: the group is new and empty.
    Returns:
        The holder alone (further copies are fed, then made voters), or as many voters as members that are up allow; no voters
        when no member is.
    """
    if holder:
        return Placement((holder,))
    empty = GroupRecord(0, "", (), Placement(()))
    return _choose(world, empty, frozenset())


def placed_without(world: World, group: GroupRecord, seen: GroupSeen) -> Placement:
    """Where a group would be placed in that world: for showing it before it is done."""
    return _choose(world, group, seen.everyone)


# ------------------------------------------------------------------------------------------------- one group's copies
def voters_for(zones: Mapping[str, int], replicas: int) -> int:
    """How many voters a group can have.

    Args:
        zones: zone -> members usable there.
    Returns:
        The largest odd number up to `replicas` and the members for which the rule of zones can be kept; 0: no member at all.
    """
    members = sum(zones.values())
    count = min(replicas, members)
    count -= count % 2 == 0 and count > 0
    while count > 1 and sum(min(held, zone_cap(count, len(zones))) for held in zones.values()) < count:
        count -= 2
    return max(count, 0)


def zone_cap(voters: int, zones: int) -> int:
    """Voters of one group that one zone may hold."""
    return (voters - 1) // 2 if zones >= ZONES_RULE_MIN and voters > 1 else voters


def usable_members(world: World, group: GroupRecord, holders: frozenset[int]) -> dict[int, MemberRecord]:
    """Members the group's copies may be at: those that have a place keep it while they are ACTIVE; new ones must be up.

    A wanted member that holds nothing yet and went away counts as new: somebody else can take its place at no cost.
    """
    kept = group.wanted.everyone & holders
    found: dict[int, MemberRecord] = {}
    for member in world.state.members:
        welcome = not member.draining and world.up(member.number)
        if member.state is MemberState.ACTIVE and (member.number in kept or welcome):
            found[member.number] = member
    return found


def _must(world: World, group: GroupRecord, seen: GroupSeen) -> Step | None:
    """What the rules ask of a group, or None when they are kept."""
    placement = _choose(world, group, seen.everyone)
    if placement == group.wanted:
        return None
    return Step(group.name, placement, Why.MUST, _told(world.state, group.wanted, placement))


def _choose(world: World, group: GroupRecord, holders: frozenset[int]) -> Placement:
    """The placement nearest to the wanted one that keeps the rules."""
    usable = usable_members(world, group, holders)
    zones = Counter(member.zone for member in usable.values())
    count = voters_for(zones, world.state.replicas)
    if count < len(group.wanted.voters):
        active = Counter(one.zone for one in world.state.members if one.state is MemberState.ACTIVE)
        if count < voters_for(active, world.state.replicas):
            return group.wanted  # whoever is away comes back, or a person gives it up: until then nothing is made smaller
    cap = zone_cap(count, len(zones))
    load = _voter_load(world.state, group)
    voters = _trimmed([usable[number] for number in group.wanted.voters if number in usable], count, cap, world, load)
    gone = frozenset(group.wanted.voters) - {one.number for one in voters}
    while len(voters) < count:
        taken = Counter(one.zone for one in voters)
        free = [one for one in usable.values() if one not in voters and taken[one.zone] < cap]
        chosen = min(
            free,
            key=lambda one: (
                taken[one.zone],
                one.replaces not in gone or not one.replaces,
                one.number not in holders,
                world.long_dead(one.number),
                load[one.number],
                one.number,
            ),
        )
        voters.append(chosen)
    numbers = tuple(sorted(one.number for one in voters))
    learners = _learners(world, group, usable, numbers, holders)
    leader = group.wanted.leader if group.wanted.leader in numbers else 0
    return Placement(numbers, learners, leader)


def _trimmed(voters: list[MemberRecord], count: int, cap: int, world: World, load: Counter[int]) -> list[MemberRecord]:
    """The voters that stay: as many as may, those that are up first, the least loaded last out."""
    kept: list[MemberRecord] = []
    zones: Counter[str] = Counter()
    for one in sorted(voters, key=lambda one: (not world.up(one.number), one.draining, load[one.number], one.number)):
        if len(kept) < count and zones[one.zone] < cap:
            kept.append(one)
            zones[one.zone] += 1
    return kept


def _learners(
    world: World, group: GroupRecord, usable: Mapping[int, MemberRecord], voters: tuple[int, ...], holders: frozenset[int]
) -> tuple[int, ...]:
    """One live copy without a vote where the voters cannot be as many as wanted and a member is left; of control all others."""
    if group.ident == CONTROL_ID:
        return tuple(number for number in sorted(_hearers(world, group, holders)) if number not in voters)
    if len(voters) >= world.state.replicas:
        return ()
    rest = [number for number in usable if number not in voters]
    if not rest:
        return ()
    load = Counter(number for one in world.state.groups if one.name != group.name for number in one.wanted.everyone)
    return (min(rest, key=lambda number: (number not in group.wanted.learners, number not in holders, load[number], number)),)


def _hearers(world: World, group: GroupRecord, holders: frozenset[int]) -> set[int]:
    """Members that must hear what the control group decides; one that leaves until nothing else is at it."""
    found = set()
    for member in world.state.members:
        number, wanted = member.number, member.number in group.wanted.everyone
        joins = member.state is MemberState.ACTIVE and (world.up(number) or (wanted and number in holders))
        holds_more = any(_may_hold(world, other, number) for other in world.state.groups if other.ident != group.ident)
        if joins or (member.state is MemberState.LEAVING and wanted and holds_more):
            found.add(number)
    return found


def _may_hold(world: World, group: GroupRecord, number: int) -> bool:
    """False only when a member neither shall hold a copy of a group nor is in its log, as far as that is known."""
    seen = world.groups.get(group.name)
    return seen is None or number in seen.everyone or number in group.wanted.everyone


def _voter_load(state: ControlState, without: GroupRecord | None = None) -> Counter[int]:
    """Groups a member is voter of."""
    skipped = without.name if without else None
    return Counter(number for group in state.groups if group.name != skipped for number in group.wanted.voters)


# ---------------------------------------------------------------------------------------------------- more evenly
def _better(world: World) -> Step | None:
    """The best exchange of one voter in one group that stands still; None when all is as even as it gets."""
    load = _voter_load(world.state)
    best: tuple[tuple[int, ...], Step] | None = None
    for group in world.state.groups:
        seen = world.groups.get(group.name)
        if seen is None or is_moving(group, seen):
            continue
        found = _exchange(world, group, seen, load)
        if found is not None:
            gain, step = found
            rank = (*gain, -seen.octets, -group.ident)  # of equal gains the smallest copy moves
            if best is None or rank > best[0]:
                best = (rank, step)
    return best[1] if best else None


def _exchange(world: World, group: GroupRecord, seen: GroupSeen, load: Counter[int]) -> tuple[tuple[int, ...], Step] | None:
    """The exchange of one voter that gains most; gain: (a dead one less, sum of squares over zones, over members)."""
    usable = usable_members(world, group, seen.everyone)
    voters = [usable[number] for number in group.wanted.voters if number in usable]
    zones = Counter(one.zone for one in voters)
    cap = zone_cap(len(voters), len({one.zone for one in usable.values()}))
    best: tuple[tuple[int, ...], Step] | None = None
    for old in voters:
        for new in usable.values():
            taken = group.wanted.voters if group.ident == CONTROL_ID else group.wanted.everyone
            if new.number in taken or new.draining or not world.up(new.number):
                continue
            after = zones - Counter([old.zone]) + Counter([new.zone])
            if max(after.values()) > cap:
                continue
            gain = (
                int(world.long_dead(old.number)),
                _squares(zones.values()) - _squares(after.values()),
                load[old.number] - load[new.number] - UNEVEN_MIN + 1,
            )
            if gain <= (0, 0, 0):
                continue
            rank = (*gain, int(old.number != group.wanted.leader), -old.number, -new.number)
            if best is None or rank > best[0]:
                numbers = tuple(sorted({*group.wanted.voters, new.number} - {old.number}))
                leader = group.wanted.leader if group.wanted.leader in numbers else 0
                learners = group.wanted.learners
                if new.number in learners:  # of control: the two change their parts
                    learners = tuple(sorted({*learners, old.number} - {new.number}))
                placement = Placement(numbers, learners, leader)
                why = Why.DEAD if gain[0] else Why.EVEN
                best = (rank, Step(group.name, placement, why, _told(world.state, group.wanted, placement)))
    return (best[0][:3], best[1]) if best else None


def _squares(counts: Iterable[int]) -> int:
    return sum(count * count for count in counts)


# ---------------------------------------------------------------------------------------------------------- leaders
def fit_to_lead(world: World, group: GroupRecord, seen: GroupSeen) -> list[int]:
    """Voters, wanted and present, that are up, do not drain, leave or have a slow disk."""
    found = []
    for number in group.wanted.voters:
        member, look = world.state.member(number), world.members.get(number)
        sound = member is not None and member.state is MemberState.ACTIVE and not member.draining
        if sound and number in seen.voters and world.up(number) and look is not None and not look.slow:
            found.append(number)
    return found


def _leader_steps(world: World) -> list[Step]:
    """Preferred leaders, away from unfit members first, then evenly. What is already on its way counts as done."""
    leads: dict[str, int] = {}
    on_the_way = 0
    for group in world.state.groups:
        seen = world.groups.get(group.name)
        if seen is not None and seen.leader:
            wish = group.wanted.leader
            heeded = wish in fit_to_lead(world, group, seen)
            leads[group.name] = wish if heeded else seen.leader
            on_the_way += heeded and wish != seen.leader
    count = Counter(leads.values())
    steps: list[Step] = []
    by_choice = sorted(world.state.groups, key=lambda group: (group.wanted.leader != 0, group.ident))  # a wish is kept longest
    for pressing in (True, False):
        for group in by_choice:
            seen = world.groups.get(group.name)
            if seen is None or group.name not in leads or on_the_way + len(steps) >= LEADERS_MOVING_MAX:
                continue
            fit, leader = fit_to_lead(world, group, seen), leads[group.name]
            if not fit or (leader not in fit) is not pressing:
                continue
            to = min(fit, key=lambda number: (count[number], number))
            if pressing or count[leader] - count[to] >= UNEVEN_MIN:
                why = Why.LEADER_AWAY if pressing else Why.LEADER_EVEN
                text = f"{_name(world.state, to)} shall lead instead of {_name(world.state, leader)}"
                steps.append(Step(group.name, replace(group.wanted, leader=to), why, text))
                count[leader] -= 1
                count[to] += 1
                leads[group.name] = to
    return steps


def _told(state: ControlState, old: Placement, new: Placement) -> str:
    come = ", ".join(_name(state, number) for number in sorted(new.everyone - old.everyone))
    leave = ", ".join(_name(state, number) for number in sorted(old.everyone - new.everyone))
    parts = [f"voters {len(old.voters)} to {len(new.voters)}" if len(old.voters) != len(new.voters) else ""]
    parts += [f"{come} gets a copy" if come else "", f"{leave} gives its copy up" if leave else ""]
    return "; ".join(part for part in parts if part) or "another member votes"


def _name(state: ControlState, number: int) -> str:
    member = state.member(number)
    return member.name if member else f"member {number}"
