"""What an operator looks at before a change of the cluster, and the token that says it is still the one looked at. Pure.

A plan that would cost a group its majority, its number of voters or the rule of zones is refused, and says what is to be done
first. Data is never at stake by a plan that is not refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from replica.cluster.placement import ZONES_RULE_MIN, GroupSeen, World, placed_without, voters_for
from replica.cluster.reconcile import majority
from replica.cluster.state import ControlState, MemberRecord, MemberState

TOKEN_HEX = 16
NAMED_MAX = 5  # groups named in one sentence


@dataclass(frozen=True, slots=True)
class Plan:
    """One planned change.

    Args:
        action: "remove", "replace" or "reseed"; subject: the member's name; group: for "reseed".
        text: what would happen, one thing a line.
        refusal: why it cannot be run, and what comes first; "" when it can.
        loses: the refusal is because data would be lost.
        stable: what must be unchanged when it is run.
    """

    action: str
    subject: str
    number: int
    group: str = ""
    text: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refusal: str = ""
    loses: bool = False
    stable: tuple[str, ...] = field(default=(), repr=False)

    @property
    def token(self) -> str:
        """16 hex digits over the plan and the part of the world it rests on."""
        lines = ("zaibei cluster plan 1", self.action, str(self.number), self.group, *self.stable)
        return sha256("\n".join(lines).encode()).hexdigest()[:TOKEN_HEX]


def plan_remove(world: World, member: MemberRecord, fewer: bool = False) -> Plan:
    """Give a member up for good: its copies go to others, then its number is refused.

    Args:
        fewer: fewer voters, or a majority in one zone, are accepted.
    """
    state = world.state
    plan = Plan("remove", member.name, member.number, stable=(*_stable(state), f"fewer {fewer}"))
    if member.state is MemberState.LEAVING:
        return replace(plan, refusal=f"{member.name} is leaving already. Next: zaibei cluster status")
    if member.state is MemberState.JOINING:
        return replace(plan, text=(f"{member.name} never came; its number {member.number} will be refused",))
    if not any(one.state is MemberState.ACTIVE and one.number != member.number for one in state.members):
        return replace(plan, refusal=f"{member.name} is the last member. First: zaibei cluster invite NAME")
    held = state.places_of(member.number)
    after = state.with_member(member.moved(MemberState.LEAVING))
    refusal = next(filter(None, _against_removal(world, after, member, held, fewer)), "")
    text = [f"{member.name} leaves: {len(held)} groups get a copy elsewhere, one after the other", *_moves(world, after, held)]
    text.append(f"then its number {member.number} and its certificate are refused for good")
    warnings = [] if world.up(member.number) else [f"{member.name} is not connected: its copies cannot help to feed others"]
    return replace(plan, text=tuple(text), warnings=tuple(warnings), refusal=refusal)


def _against_removal(
    world: World, after: ControlState, member: MemberRecord, held: tuple[str, ...], fewer: bool
) -> Iterator[str]:
    for name in held:
        yield _majority_trouble(world, name, world.groups.get(name))
    if fewer:
        return
    now, then = _zones(world.state), _zones(after)
    if len(now) >= ZONES_RULE_MIN > len(then):
        zone = member.zone or "ZONE"
        yield (
            f"{member.name} is the last member of the zone {zone}: afterwards one of {len(then)} zones holds a majority of every "
            f"group. First: zaibei cluster invite NAME --zone {zone}; or accept it with --fewer"
        )
    had, gets = voters_for(now, world.state.replicas), voters_for(then, world.state.replicas)
    if gets < had:
        yield (
            f"groups would have {gets} voters instead of {had}, so that fewer members may die. "
            "First: zaibei cluster invite NAME, so that another one can take its place; or accept it with --fewer"
        )


def _moves(world: World, after: ControlState, held: tuple[str, ...]) -> Iterator[str]:
    """Where copies go, as it would be decided now."""
    for name in held[:NAMED_MAX]:
        group, seen = after.group(name), world.groups.get(name)
        if group is not None and seen is not None:
            placement = placed_without(replace(world, state=after), group, seen)
            come = [_name(after, number) for number in sorted(placement.everyone - group.wanted.everyone)]
            yield f"  {name}: {len(placement.voters)} voters" + (f", {', '.join(come)} gets a copy" if come else "")
    if len(held) > NAMED_MAX:
        yield f"  and {len(held) - NAMED_MAX} more"


def plan_replace(world: World, member: MemberRecord) -> Plan:
    """Give a lost member's places to a new one, which gets a new number; running it prints the new one's token."""
    state = world.state
    plan = Plan("replace", member.name, member.number, stable=_stable(state))
    other = next((one for one in state.living() if one.replaces == member.number), None)
    if member.state is MemberState.JOINING:
        refusal = f"{member.name} never came. First: zaibei cluster remove {member.name}, then invite again"
        return replace(plan, refusal=refusal)
    if other is not None:
        refusal = f"{other.name} takes the place of {member.name} already. Next: zaibei cluster status"
        return replace(plan, refusal=refusal)
    held = state.places_of(member.number)
    lost = [name for name in held if _majority_trouble(world, name, world.groups.get(name), without=member.number)]
    warnings = [f"{member.name} is connected: to move it while it lives, remove it instead"] if world.up(member.number) else []
    text = (
        f"a new member, in the zone {member.zone or '(none)'} unless told otherwise, takes the place of {member.name}",
        f"when it comes it is fed the copies of {len(held)} groups, and votes in each once it has caught up",
        f"{member.name} keeps its places until then; afterwards its number {member.number} is refused for good",
    )
    refusal = ""
    if lost:
        refusal = (
            f"without {member.name} no majority is left of {_some(lost)}: a new member could not be fed. "
            "First: bring another member of it back"
        )
    return replace(plan, text=text, warnings=tuple(warnings), refusal=refusal)


def plan_reseed(world: World, group: str, member: MemberRecord) -> Plan:
    """Feed one member's copy of one group anew; what it holds now is moved aside."""
    record, seen = world.state.group(group), world.groups.get(group)
    plan = Plan("reseed", member.name, member.number, group, stable=(*_stable(world.state), _seen_line(seen)))
    if record is None or seen is None:
        refusal = f"it is not known how {group} stands: nobody leads it. First: zaibei cluster status"
        return replace(plan, refusal=refusal)
    if member.number not in seen.everyone:
        return replace(plan, refusal=f"{member.name} holds no copy of {group}: there is nothing to feed anew")
    if seen.voters == {member.number}:
        refusal = f"{member.name} is the only voter of {group}: feeding it anew could lose what only it holds"
        return replace(plan, refusal=refusal, loses=True)
    trouble = _majority_trouble(world, group, seen, without=member.number)
    if trouble:
        return replace(plan, refusal=trouble)
    warnings = [f"{member.name} leads {group}: another one leads it first"] if seen.leader == member.number else []
    if not world.up(member.number):
        warnings.append(f"{member.name} is not connected: it begins when it comes")
    rest = len(seen.voters - {member.number})
    text = (
        f"{member.name} does not vote in {group} while it is fed: {rest} voters go on",
        "what it holds is moved aside, not deleted",
        "it is fed a copy by another member, and votes again once it has caught up",
    )
    return replace(plan, text=text, warnings=tuple(warnings))


def _majority_trouble(world: World, name: str, seen: GroupSeen | None, without: int = 0) -> str:
    """Why a group cannot change now, with what comes first; "" when it can."""
    if seen is None:
        return f"it is not known how {name} stands: nobody leads it. First: zaibei cluster status"
    up = [number for number in sorted(seen.voters) if world.up(number) and number != without]
    if len(up) >= majority(seen.voters):
        return ""
    down = [_name(world.state, number) for number in sorted(seen.voters) if number not in up and number != without]
    return (
        f"{name} would have no majority: {len(up)} of {len(seen.voters)} voters are up"
        + (f" without {_name(world.state, without)}" if without else "")
        + (f". First: bring {', '.join(down)} back" if down else ". First: add members to it")
    )


def _zones(state: ControlState) -> Mapping[str, int]:
    zones: dict[str, int] = {}
    for member in state.members:
        if member.state is MemberState.ACTIVE:
            zones[member.zone] = zones.get(member.zone, 0) + 1
    return zones


def _stable(state: ControlState) -> tuple[str, ...]:
    members = [f"member {one.number} {one.name} {one.zone} {one.state} {one.replaces}" for one in state.members]
    groups = [f"group {one.ident} {one.wanted.voters} {one.wanted.learners}" for one in state.groups]
    return (state.cluster.hex(), str(state.replicas), *members, *groups)


def _seen_line(seen: GroupSeen | None) -> str:
    return f"log {sorted(seen.voters)} {sorted(seen.learners)}" if seen else "log unknown"


def _name(state: ControlState, number: int) -> str:
    member = state.member(number)
    return member.name if member else f"member {number}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED_MAX]) + (f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else "")
