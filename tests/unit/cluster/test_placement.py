"""Placement and its way: what a few clusters come to, and from any state, with interruptions, that all rules hold and it ends."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replica.cluster.placement import (
    GROUPS_MOVING_MAX,
    LEADERS_MOVING_MAX,
    MemberSeen,
    Why,
    World,
    first_placement,
    next_steps,
    voters_for,
    zone_cap,
)
from replica.cluster.reconcile import Kind
from replica.cluster.state import MemberState
from tests.unit.cluster.worlds import Cluster


def cluster_of(*zones: str, replicas: int = 3, groups: int = 0) -> Cluster:
    cluster = Cluster(replicas)
    for at, zone in enumerate(zones, 1):
        cluster.join(f"m{at}", zone)
    for at in range(groups):
        cluster.make(f"g{at}", 1)
    return cluster


def zones_of(cluster: Cluster, name: str) -> list[int]:
    zones = {one.number: one.zone for one in cluster.state.members}
    return sorted(Counter(zones[number] for number in cluster.logs[name].voters).values(), reverse=True)


@pytest.mark.parametrize(
    ("zones", "replicas", "voters"),
    [
        ({}, 3, 0),
        ({"": 1}, 3, 1),
        ({"": 2}, 3, 1),
        ({"": 3}, 3, 3),
        ({"a": 2, "b": 2}, 5, 3),
        ({"a": 3, "b": 2}, 5, 5),
        ({"a": 2, "b": 2, "c": 1}, 5, 5),
        ({"a": 3, "b": 1, "c": 1}, 5, 3),  # 2-1-1 would be four
        ({"a": 1, "b": 1, "c": 1}, 3, 3),
        ({"a": 5, "b": 1, "c": 1}, 5, 3),
    ],
)
def test_number_of_voters(zones: dict[str, int], replicas: int, voters: int) -> None:
    assert voters_for(zones, replicas) == voters


def test_cap_of_a_zone() -> None:
    assert [zone_cap(5, 3), zone_cap(3, 3), zone_cap(5, 4), zone_cap(5, 2), zone_cap(1, 3)] == [2, 1, 2, 5, 1]


def test_one_member_then_two_then_three() -> None:
    cluster = cluster_of("", groups=1)
    cluster.settle()
    assert cluster.logs["g0"].voters == {1}
    cluster.join("m2")
    cluster.settle()
    log = cluster.logs["g0"]
    assert (log.voters, log.learners) == ({1}, {2}), "two voters would stand still when either dies: one is a live copy"
    cluster.join("m3")
    cluster.settle()
    log = cluster.logs["g0"]
    assert (log.voters, log.learners) == ({1, 2, 3}, frozenset())


def test_five_voters_over_three_zones_are_2_2_1() -> None:
    cluster = cluster_of("a", "a", "b", "b", "c", replicas=5, groups=3)
    cluster.settle()
    assert [zones_of(cluster, f"g{at}") for at in range(3)] == [[2, 2, 1]] * 3
    wide = cluster_of("a", "a", "a", "b", "b", "c", "c", replicas=5, groups=4)
    wide.settle()
    assert all(zones_of(wide, f"g{at}") == [2, 2, 1] for at in range(4))


def test_a_third_zone_takes_the_majority_out_of_the_first() -> None:
    cluster = cluster_of("a", "a", "b", groups=2)
    cluster.settle()
    assert zones_of(cluster, "g0") == [2, 1]
    cluster.join("m4", "c")
    cluster.settle()
    assert zones_of(cluster, "g0") == [1, 1, 1] == zones_of(cluster, "g1")


def test_copies_and_leaders_spread() -> None:
    cluster = cluster_of(*"aabbcc", groups=12)
    cluster.settle()
    voters = Counter(number for name, log in cluster.logs.items() for number in log.voters)
    leaders = Counter(log.leader for log in cluster.logs.values())
    assert max(voters.values()) - min(voters.values()) <= 2
    assert max(leaders.values()) - min(leaders.values()) <= 2 and len(leaders) == 6


def test_every_member_hears_what_control_decides_until_it_holds_nothing_else() -> None:
    cluster = cluster_of(*"abcde", groups=5)
    cluster.settle()
    control = cluster.logs["control"]
    assert len(control.voters) == 3 and control.voters | control.learners == {1, 2, 3, 4, 5}
    leaves = min(control.voters)
    cluster.leave(leaves)
    seen_last = False
    for _ in range(100):
        cluster.decide()
        for name in list(cluster.logs):
            cluster.act_once(name)
        cluster.feed()
        holds = any(leaves in log.voters | log.learners for name, log in cluster.logs.items() if name != "control")
        seen_last |= not holds and leaves in control.learners
        assert leaves in control.voters | control.learners or not holds
    assert seen_last and leaves not in control.voters | control.learners


def test_few_groups_move_at_a_time() -> None:
    cluster = cluster_of("", groups=20)
    cluster.settle()
    cluster.join("m2")
    cluster.join("m3")
    steps = cluster.decide()
    assert len(steps) == GROUPS_MOVING_MAX
    assert cluster.decide() == [], "nothing new before those have moved"


def test_groups_that_wait_for_their_members_do_not_keep_control_from_them() -> None:
    """Made on three members before two of them hear of it: only through the control group can these learn that they take part."""
    cluster = cluster_of("", "", "")
    for at in range(GROUPS_MOVING_MAX + 1):
        cluster.make(f"g{at}", 1, 2, 3)
    world = cluster.world()
    unled = World(world.state, world.members, {"control": world.groups["control"]})
    assert [(step.group, step.placement.voters) for step in next_steps(unled)] == [("control", (1, 2, 3))]


def test_a_drained_member_keeps_its_copies_and_leads_nothing() -> None:
    cluster = cluster_of("", "", "", groups=20)
    cluster.settle()
    before = {name: log.voters for name, log in cluster.logs.items()}
    assert any(log.leader == 2 for log in cluster.logs.values())
    cluster.drain(2)
    assert len(cluster.decide()) <= LEADERS_MOVING_MAX
    cluster.settle()
    assert {name: log.voters for name, log in cluster.logs.items()} == before
    assert not [name for name, log in cluster.logs.items() if log.leader == 2]
    cluster.drain(2, False)
    cluster.settle()
    assert any(log.leader == 2 for log in cluster.logs.values())


def test_a_slow_disk_does_not_lead() -> None:
    cluster = cluster_of("", "", "", groups=6)
    cluster.settle()
    cluster.slow = {1}
    cluster.settle()
    assert not [name for name, log in cluster.logs.items() if log.leader == 1]


def test_a_dead_member_keeps_its_places_until_ordered() -> None:
    cluster = cluster_of("", "", "", "", groups=4)
    cluster.settle()
    held = {name for name, log in cluster.logs.items() if 2 in log.voters}
    assert held
    cluster.down = {2}
    cluster.settle()
    assert {name for name, log in cluster.logs.items() if 2 in log.voters} == held
    cluster.replace_after_ms = 3_600_000
    cluster.settle()
    assert not [name for name, log in cluster.logs.items() if 2 in log.voters]
    assert all(len(log.voters) == 3 for log in cluster.logs.values())


def test_a_member_that_leaves_is_emptied_and_can_be_removed() -> None:
    cluster = cluster_of("", "", "", "", groups=4)
    cluster.settle()
    assert cluster.leave(1).detail == ""
    assert cluster.leave(1).detail.startswith("m1 still holds")
    cluster.settle()
    assert not [name for name, log in cluster.logs.items() if 1 in log.voters | log.learners]
    cluster.leave(1)
    found = cluster.state.member(1)
    assert found is not None and found.state is MemberState.REMOVED


def test_replacing_a_lost_member_gives_its_places_to_the_new_one() -> None:
    cluster = cluster_of("a", "b", "c", groups=3)
    cluster.settle()
    cluster.down = {3}
    new = cluster.join("m4", "c", replaces=3, come=False)
    cluster.settle()
    assert all(log.voters == {1, 2, 3} for log in cluster.logs.values()), "before it has come nothing moves"
    cluster.come(new)
    cluster.settle()
    assert all(log.voters == {1, 2, new} for log in cluster.logs.values())
    cluster.leave(3)
    found = cluster.state.member(3)
    assert found is not None and found.state is MemberState.REMOVED


def test_a_replacement_that_dies_at_once_makes_no_group_smaller() -> None:
    cluster = cluster_of("", "", "", groups=2)
    cluster.settle()
    cluster.down = {3}
    new = cluster.join("m4", replaces=3)
    cluster.down = {3, new}
    cluster.settle()
    assert all(log.voters == {1, 2, 3} for log in cluster.logs.values())
    cluster.down = {3}
    cluster.settle()
    assert all(log.voters == {1, 2, new} for log in cluster.logs.values())


def test_what_is_not_known_is_not_touched() -> None:
    cluster = cluster_of("", "", "", groups=1)
    world = cluster.world()
    assert {step.group for step in next_steps(world)} == {"control", "g0"}
    blind = World(world.state, world.members, {})
    assert next_steps(blind) == []
    nobody_up = World(world.state, {}, world.groups)
    assert next_steps(nobody_up) == []


def test_where_a_new_group_begins() -> None:
    cluster = cluster_of("a", "b", "c", "c")
    world = cluster.world()
    assert first_placement(world, holder=2).voters == (2,)
    assert first_placement(world).voters in ((1, 2, 3), (1, 2, 4))
    assert first_placement(World(world.state, {1: MemberSeen(up_ms=0)})).voters == (1,)
    assert first_placement(World(world.state)).voters == ()


def test_a_member_that_forgot_its_promises_is_demoted_fed_and_votes_again() -> None:
    cluster = cluster_of("", "", "", groups=1)
    cluster.settle()
    cluster.amnesiac = {3}
    assert cluster.action("g0").kind is Kind.DEMOTE
    assert cluster.act_once("g0") and cluster.logs["g0"].learners == {3}
    assert cluster.action("g0").kind is Kind.NOTHING, "it may not vote before it was fed"
    cluster.settle()
    assert cluster.logs["g0"].voters == {1, 2, 3}


def test_every_reason_of_a_step_has_words() -> None:
    cluster = cluster_of("", "", "", groups=1)
    step = cluster.decide()[0]
    assert step.why is Why.MUST and "voters 1 to 3" in step.text and "m2, m3 gets a copy" in step.text


# -------------------------------------------------------------------------------------------- from any state, interrupted
EVENTS = st.sampled_from(["join", "drain", "undrain", "leave", "kill", "heal", "replace", "forget", "slow", "group"])


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    """(event, which member, steps carried out before the interruption, actions carried out before it)."""
    return draw(st.lists(st.tuples(EVENTS, st.integers(0, 7), st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=12))


def happen(cluster: Cluster, event: str, which: int) -> None:
    living = list(cluster.state.living())
    member = living[which % len(living)]
    active = [one.number for one in living if one.state is MemberState.ACTIVE]
    match event:
        case "join" if len(living) < 8:
            cluster.join(f"n{cluster.acts}", "abc"[which % 3])
        case "drain" | "undrain":
            cluster.drain(member.number, event == "drain")
        case "leave" if len(active) > 1:
            cluster.leave(member.number)
        case "kill" if not cluster.down:
            cluster.down = {member.number}
        case "heal":
            cluster.down = set()
        case "replace" if member.state is MemberState.ACTIVE and not any(one.replaces == member.number for one in living):
            cluster.join(f"n{cluster.acts}", member.zone, replaces=member.number, come=bool(which % 2))
        case "forget" if not cluster.down and not cluster.amnesiac:
            cluster.amnesiac = {member.number}
        case "slow":
            cluster.slow = {member.number}
        case "group" if len(cluster.logs) < 6 and active:
            voters = first_placement(cluster.world()).voters
            if voters:
                cluster.make(f"h{cluster.acts}", *voters)


@given(
    st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=6), st.sampled_from([3, 5]), st.integers(1, 4), stories()
)
@settings(max_examples=150, deadline=None)
def test_any_story_keeps_the_rules_and_ends(
    zones: list[str], replicas: int, groups: int, story: list[tuple[str, int, int, int]]
) -> None:
    """Worlds check every action (majority, learner first, caught up); interruptions are steps and actions left undone."""
    cluster = cluster_of(*zones, replicas=replicas, groups=groups)
    for event, which, steps, actions in story:
        happen(cluster, event, which)
        cluster.decide(steps)
        cluster.check()
        names = sorted(cluster.logs)
        for at in range(actions):
            cluster.act_once(names[at % len(names)])
        if which % 3 == 0:
            cluster.feed()
    cluster.down, cluster.amnesiac, cluster.slow = set(), set(), set()
    for one in list(cluster.state.members):
        if one.state is MemberState.JOINING:
            cluster.come(one.number)
        if one.draining:
            cluster.drain(one.number, False)
    cluster.settle()
    cluster.check_settled()
    assert cluster.decide() == []
