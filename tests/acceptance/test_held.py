"""A change that would destroy too much, end to end: held, told, decided by two people at the command line."""

from __future__ import annotations

import json
from pathlib import Path

from ops.cli.exits import Exit
from tests.acceptance.world import OPERATORS, QUORUM, RECEIVED, Node, World, right, shown, until

NAMES = 300
DELETED = range(NAMES * 6 // 10)


def running(world: World) -> Node:
    world.start()
    node = world.nodes[0].open()
    node.put(range(NAMES))
    world.flowing()
    return node


def held(world: World, node: Node) -> str:
    """The node deletes 60 %: wait until that is held; returns its name."""
    position = node.delete(DELETED)
    until("held", lambda: (seen := world.seen()) and seen.feed == "HELD")
    until("receipted as received", lambda: any(got.level == RECEIVED and got.position == position for got in node.got))
    assert node.quorum_ns(position) is None
    (one,) = world.document("hold", "list")["held"]
    assert one["counts"] == {"removed": len(DELETED), "rewritten": 0} and one["kind"] == "batch"
    return f"{one['source']}/{one['hold']}"


def planned(world: World, name: str, decision: str) -> str:
    return str(world.document("hold", "plan", name, decision)["plan"]["token"])


def sign(world: World, token: str, operator: str) -> int:
    return world.zaibei("hold", "sign", token, "--key", str(world.keys[operator]), "--yes").exit_code


def test_two_people_release_a_mass_delete(tmp_path: Path) -> None:
    with World(tmp_path, takeover="never") as world:
        node = running(world)
        name = held(world, node)
        behind = node.put([NAMES])  # what follows waits
        for number in (DELETED[0], DELETED[-1], NAMES - 1):
            assert world.everywhere(node.name_of(number)) == {right(number)}  # answers go on
        assert world.ask(node.name_of(NAMES)).code == 2  # "not found" would be a lie while something waits
        status = world.zaibei("status").stdout
        assert "HELD" in status and "zaibei hold list" in status
        token = planned(world, name, "release")
        first, second = OPERATORS
        assert world.zaibei("hold", "run", "--plan", token).exit_code == Exit.NOT_AUTHORISED
        assert sign(world, token, first) == Exit.DONE
        alone = world.zaibei("hold", "run", "--plan", token)
        assert alone.exit_code == Exit.NOT_AUTHORISED and f"who can: {second}" in alone.stderr
        sign(world, token, first)  # the same person again is still one person
        twice = world.zaibei("hold", "run", "--plan", token)
        assert twice.exit_code == Exit.NOT_AUTHORISED and "Nothing was done" in twice.stderr
        world.kill()  # what is held and who signed outlives the process
        world.start()
        until("connected again", lambda: (seen := world.seen()) and seen.connected)
        assert world.status().feed == "HELD"
        assert sign(world, token, second) == Exit.DONE
        done = world.zaibei("hold", "run", "--plan", token)
        assert done.exit_code == Exit.DONE and f"approved by {first}, {second}" in done.stdout
        until("applied, and what followed too", lambda: node.quorum_ns(behind) is not None)
        assert world.flowing().records == NAMES - len(DELETED) + 1
        assert {reply.code for reply in world.ask_many([node.name_of(number) for number in DELETED[:20]]).values()} == {100}
        assert world.everywhere(node.name_of(NAMES)) == {right(NAMES)}
        assert "Nothing is held." in world.zaibei("hold", "list").stdout


def test_two_people_discard_it_and_the_node_puts_it_right(tmp_path: Path) -> None:
    with World(tmp_path, takeover="never") as world:
        node = running(world)
        token = planned(world, held(world, node), "discard")
        assert [sign(world, token, operator) for operator in OPERATORS] == [Exit.DONE, Exit.DONE]
        done = json.loads(world.zaibei("hold", "run", "--plan", token, "--json").stdout)["done"]
        assert (done["decision"], sorted(done["approved_by"])) == ("discard", sorted(OPERATORS))
        # The node's history still holds it, so it comes again, and is held again: nothing was dropped in silence.
        until("held again", lambda: (seen := world.seen()) and seen.feed == "HELD")
        assert shown(world.ask(node.name_of(DELETED[0]))) == right(DELETED[0])
        assert [got for got in node.got if got.level == QUORUM and got.position == node.publisher.head] == []
