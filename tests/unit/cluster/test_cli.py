"""`zaibei cluster` over the desk and its twin: what is shown, what is refused and what comes first, exit codes, JSON."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ops.admin.cluster_calls import NoCluster
from ops.cli.cluster import cluster as group_of_commands
from ops.cli.main import cli
from ops.cluster.desk import ClusterDesk
from ops.cluster.memory import MemoryCluster
from replica.cluster.state import MemberState


class Client:
    """The admin client's cluster calls, straight into a desk; each call lets a little time pass in the cluster."""

    def __init__(self, world: MemoryCluster) -> None:
        self.world, self._desk = world, ClusterDesk(world, world)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        defaults = {"group": "", "fewer": False, "token": "", "reason": "", "name": "", "zone": "", "valid_s": 3_600}

        def call(*given: Any, **named: Any) -> Any:
            method = getattr(self._desk, name)
            missing = {key: value for key, value in defaults.items() if key in inspect.signature(method).parameters}
            bound = inspect.signature(method).bind_partial(*given, **named)
            self.world.live(3)
            return asyncio.run(method(**{**missing, **bound.arguments}))

        return call


Run = Callable[..., Result]


def runner(world: MemoryCluster) -> Run:
    return lambda *words: CliRunner().invoke(cli, ["cluster", *words], obj={"admin": lambda: Client(world)})


@pytest.fixture
def world() -> MemoryCluster:
    return MemoryCluster.of([("m1", "a"), ("m2", "b"), ("m3", "c")], ["node-a", "node-b", "node-c"])


@pytest.fixture
def run(world: MemoryCluster) -> Run:
    return runner(world)


def code_of(result: Result) -> tuple[int, str]:
    """Exit code and JSON code of a failing command."""
    return result.exit_code, json.loads(result.stdout)["error"]["code"]


# ------------------------------------------------------------------------------------------------------------- status
def test_a_sound_cluster(run: Run) -> None:
    shown = run("status")
    assert shown.exit_code == 0 and "m1 (this one)" in shown.stdout
    assert run("status", "--check").exit_code == 0
    found = json.loads(run("status", "--json").stdout)
    assert [member["name"] for member in found["members"]] == ["m1", "m2", "m3"]
    assert [group["group"] for group in found["groups"]] == ["control", "node-a", "node-b", "node-c"]
    assert all(group["quorum"] and group["voters"] == ["m1", "m2", "m3"] for group in found["groups"])
    assert sum(member["leads"] for member in found["members"]) == 4 and found["warnings"] == []


def test_a_dead_member_is_named_with_what_to_do(world: MemoryCluster, run: Run) -> None:
    world.down = {3}
    shown = run("status", "--check")
    assert shown.exit_code == 9
    found = json.loads(run("status", "--json").stdout)
    row = found["members"][2]
    assert (row["connected"], row["trouble"]) == (False, "not connected")
    assert row["next"].endswith("zaibei cluster replace m3") and row["lag_entries"] is None
    assert found["groups"][1]["behind"]["m3"] is None and found["groups"][1]["quorum"] is True


def test_without_a_majority_nothing_is_made_up(world: MemoryCluster, run: Run) -> None:
    world.down = {2, 3}
    found = json.loads(run("status", "--json").stdout)
    assert all(group["quorum"] is None and group["leader"] == "" and group["moving"] is None for group in found["groups"])
    assert "UNKNOWN" in run("status").stdout
    assert run("status", "--check").exit_code == 9


def test_what_is_not_known_is_exit_11(world: MemoryCluster) -> None:
    class Blind(MemoryCluster):
        def look(self) -> Any:
            return replace(world.look(), members={})

    blind = Blind()
    assert runner(blind)("status", "--check").exit_code in (9, 11)
    found = json.loads(runner(blind)("status", "--json").stdout)
    assert all(member["connected"] is None for member in found["members"])


def test_a_damaged_copy_is_named(world: MemoryCluster, run: Run) -> None:
    world.out["node-b", 2] = "its store is damaged"
    found = json.loads(run("status", "--json").stdout)
    assert found["groups"][2]["out_of_service"] == {"m2": "its store is damaged"}
    assert found["groups"][2]["next"] == "zaibei cluster reseed node-b m2" == found["members"][1]["next"]
    assert run("status", "--check").exit_code == 9


def test_two_members_and_two_zones_are_warned_of() -> None:
    two = MemoryCluster.of([("m1", ""), ("m2", "")], ["g"])
    assert "two members" in runner(two)("status").stdout
    zones = MemoryCluster.of([("m1", "a"), ("m2", "a"), ("m3", "b")], ["g"])
    assert "two zones" in runner(zones)("status").stdout
    mixed = MemoryCluster.of([("m1", "a"), ("m2", ""), ("m3", "b")], ["g"])
    assert "name no zone" in runner(mixed)("status").stdout


def test_many_groups_are_told_shortly() -> None:
    many = MemoryCluster.of([("m1", ""), ("m2", ""), ("m3", "")], [f"g{at}" for at in range(30)])
    many.out["g7", 2] = "damaged"
    shown = runner(many)("status").stdout
    assert "g7" in shown and "g8 " not in shown and "30 groups without trouble" in shown
    assert "g8 " in runner(many)("status", "--all").stdout


# ------------------------------------------------------------------------------------------------- coming and leading
def test_invite(world: MemoryCluster, run: Run) -> None:
    result = run("invite", "m4", "--zone", "d", "--json")
    assert json.loads(result.stdout)["token"] == "invite-1" and world.invited == [("m4", "d", 0, 3_600)]
    assert run("invite", "m5").stdout.strip() == "invite-2", "the token alone goes to standard output"
    assert code_of(run("invite", "m1", "--json")) == (7, "conflict")
    assert run("invite", "m6", "--valid", "5").exit_code == 2


def test_transfer_sticks(world: MemoryCluster, run: Run) -> None:
    to = next(name for number, name in ((1, "m1"), (2, "m2"), (3, "m3")) if world.logs["node-a"].leader != number)
    assert json.loads(run("transfer", "node-a", "--to", to, "--json").stdout)["changed"] is True
    world.live(5)
    assert json.loads(run("transfer", "node-a", "--to", to, "--json").stdout)["changed"] is False
    assert code_of(run("transfer", "node-a", "--to", "m9", "--json")) == (6, "not_found")
    assert code_of(run("transfer", "node-z", "--to", "m1", "--json")) == (6, "not_found")


def test_transfer_to_one_that_cannot_lead() -> None:
    world = MemoryCluster.of([("m1", ""), ("m2", "")], ["g"])
    result = runner(world)("transfer", "g", "--to", "m2", "--json")
    assert code_of(result) == (4, "refused") and "these are: m1" in result.stdout


def test_a_rolling_restart(world: MemoryCluster, run: Run) -> None:
    for number, name in ((1, "m1"), (2, "m2"), (3, "m3")):
        drained = run("drain", name, "--json")
        assert (drained.exit_code, json.loads(drained.stdout)["leads"]) == (0, 0)
        assert not [group for group, log in world.logs.items() if log.leader == number]
        assert code_of(run("transfer", "node-a", "--to", name, "--json")) == (4, "refused")
        world.down = {number}
        assert all(group["quorum"] for group in json.loads(run("status", "--json").stdout)["groups"])
        world.down = set()
        assert run("undrain", name).exit_code == 0
    assert json.loads(run("undrain", "m3", "--json").stdout)["changed"] is False


def test_the_last_one_that_can_lead_is_not_drained(world: MemoryCluster, run: Run) -> None:
    world.down = {2}
    assert run("drain", "m3", "--wait", "0").exit_code == 0
    assert code_of(run("drain", "m1", "--json")) == (4, "refused")


def test_acts_without_a_majority_of_control_say_so(world: MemoryCluster, run: Run) -> None:
    world.deaf = True
    for words in (["drain", "m1"], ["remove", "m1"], ["invite", "m4"], ["transfer", "node-a", "--to", "m1"]):
        assert code_of(run(*words, "--json")) == (8, "unreachable")
    assert run("status").exit_code == 0


# ------------------------------------------------------------------------------------------------------------- plans
def test_removing_one_of_three_is_refused_with_what_comes_first(run: Run) -> None:
    result = run("remove", "m2")
    assert result.exit_code == 4
    assert "last member of the zone b" in result.stdout and "zaibei cluster invite NAME --zone b" in result.stdout
    plan = json.loads(run("remove", "m2", "--json").stdout)["plan"]
    assert code_of(run("remove", "m2", "--plan", plan["token"], "--json")) == (4, "refused")


def test_removing_what_leaves_fewer_voters_is_refused_without_zones_too() -> None:
    plain = MemoryCluster.of([("m1", ""), ("m2", ""), ("m3", "")], ["g"])
    result = runner(plain)("remove", "m2")
    assert result.exit_code == 4 and "1 voters instead of 3" in result.stdout and "zaibei cluster invite NAME" in result.stdout


def test_removing_with_fewer_voters_is_accepted_by_word(world: MemoryCluster, run: Run) -> None:
    plan = json.loads(run("remove", "m2", "--fewer", "--json").stdout)["plan"]
    assert plan["refusal"] == "" and "1 voters" in " ".join(plan["text"])
    assert code_of(run("remove", "m2", "--plan", plan["token"], "--json"))[0] == 4, "the word belongs to the plan"
    done = run("remove", "m2", "--fewer", "--plan", plan["token"], "--wait", "30", "--json")
    assert (done.exit_code, json.loads(done.stdout)["left"]) == (0, 0)
    assert all(2 not in log.everyone for log in world.logs.values())
    again = json.loads(run("remove", "m2", "--fewer", "--plan", plan["token"], "--json").stdout)
    assert again["changed"] is False, "the same token twice is harmless"


def test_removing_one_of_four_moves_its_copies() -> None:
    world = MemoryCluster.of([("m1", "a"), ("m2", "b"), ("m3", "c"), ("m4", "c")], ["g0", "g1"])
    run = runner(world)
    plan = json.loads(run("remove", "m3", "--json").stdout)["plan"]
    assert plan["refusal"] == ""
    world.come(world.admit("m5", "d"))
    stale = run("remove", "m3", "--plan", plan["token"], "--json")
    assert code_of(stale) == (4, "refused") and "no longer" in stale.stdout, "the world changed since the plan"
    plan = json.loads(run("remove", "m3", "--json").stdout)["plan"]
    assert run("remove", "m3", "--plan", plan["token"], "--wait", "30").exit_code == 0
    found = world.state.member(3)
    assert found is not None and found.state is MemberState.REMOVED
    assert all(len(log.voters) == 3 for log in world.logs.values())
    assert code_of(run("remove", "m3", "--json")) == (6, "not_found")


def test_removing_while_a_majority_is_at_stake_says_whom_to_bring_back(world: MemoryCluster) -> None:
    world.come(world.admit("m4", "b"))
    world.live(20)
    world.down = {2, 3}
    plan = runner(world)("remove", "m1", "--json")
    assert plan.exit_code == 4 and "zaibei cluster status" in json.loads(plan.stdout)["plan"]["refusal"]


def test_the_last_member_is_not_removed() -> None:
    alone = MemoryCluster.of([("m1", "")], ["g"])
    result = runner(alone)("remove", "m1")
    assert result.exit_code == 4 and "is the last member" in result.stdout


def test_replacing_a_lost_member(world: MemoryCluster, run: Run) -> None:
    world.down = {3}
    shown = run("replace", "m3")
    assert shown.exit_code == 0 and "--name NEW" in shown.stdout
    plan = json.loads(run("replace", "m3", "--json").stdout)["plan"]
    assert run("replace", "m3", "--plan", plan["token"]).exit_code == 2, "the new one needs a name"
    assert code_of(run("replace", "m3", "--plan", plan["token"], "--name", "m3", "--json")) == (7, "conflict")
    done = json.loads(run("replace", "m3", "--plan", plan["token"], "--name", "m4", "--json").stdout)
    assert done["invite"] == "invite-1" and world.invited == [("m4", "c", 3, 3_600)]
    number = world.admit("m4", "c", replaces=3)
    assert run("replace", "m3").exit_code == 4, "somebody comes in its place already"
    world.come(number)
    world.live(60)
    assert all(log.voters == {1, 2, number} for log in world.logs.values())
    rows = {row["name"]: row["state"] for row in json.loads(run("status", "--json").stdout)["members"]}
    assert rows == {"m1": "active", "m2": "active", "m3": "removed", "m4": "active"}


def test_replacing_one_that_was_needed_for_the_majority(world: MemoryCluster, run: Run) -> None:
    world.down = {2, 3}
    result = run("replace", "m3")
    assert result.exit_code == 4 and "no majority is left" in result.stdout


def test_reseeding(world: MemoryCluster, run: Run) -> None:
    world.out["node-a", 2] = "damaged"
    plan = json.loads(run("reseed", "node-a", "m2", "--json").stdout)["plan"]
    assert plan["refusal"] == "" and "moved aside" in " ".join(plan["text"])
    assert code_of(run("reseed", "node-b", "m2", "--plan", plan["token"], "--json")) == (4, "refused"), "another group's plan"
    assert run("reseed", "node-a", "m2", "--plan", plan["token"]).exit_code == 0
    world.live(10)
    assert world.logs["node-a"].voters == {1, 2, 3} and not world.out


def test_reseeding_what_cannot_be(world: MemoryCluster, run: Run) -> None:
    alone = MemoryCluster.of([("m1", "")], ["g"])
    result = runner(alone)("reseed", "g", "m1")
    assert result.exit_code == 12 and "only voter" in result.stdout
    number = world.admit("m4", "c")
    world.come(number)
    world.live(20)
    empty = next(name for name, log in world.logs.items() if number not in log.everyone)
    assert "holds no copy" in run("reseed", empty, "m4").stdout
    world.down = {3}
    held = next(name for name, log in world.logs.items() if {1, 2, 3} <= log.voters)
    assert "First: bring m3 back" in run("reseed", held, "m2").stdout


def test_a_member_by_itself_says_how_to_begin() -> None:
    class Alone:
        def cluster_status(self) -> Any:
            return asyncio.run(NoCluster().cluster_status())

    result = CliRunner().invoke(cli, ["cluster", "status", "--json"], obj={"admin": Alone})
    assert code_of(result) == (4, "refused") and "zaibei cluster init" in result.stdout


@pytest.mark.parametrize("name", sorted(group_of_commands.commands))
def test_every_verb_teaches(name: str) -> None:
    text = CliRunner().invoke(cli, ["cluster", name, "--help"]).stdout
    assert "Example" in text and f"zaibei cluster {name}" in text and "--json" in text
