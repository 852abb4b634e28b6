"""The way out of damage, as an operator walks it: status names the command, plan, run, and the copy is whole again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ops.cli.exits import Exit
from tests.acceptance import test_damage
from tests.acceptance.test_damage import BAD, KEPT, SOUND
from tests.acceptance.world import HOSTS, World, right, shown, until

killed, world = test_damage.killed, test_damage.world
DAMAGE = [test_damage.damaged_block, test_damage.no_name, test_damage.damaged_entry]


@pytest.mark.parametrize("damage", DAMAGE, ids=[one.__name__ for one in DAMAGE])
def test_a_damaged_source_is_loaded_anew_by_two_commands(world: World, damage: Callable[[World], None]) -> None:
    damage(world)
    world.start()
    bad = next(node for node in world.nodes if node.name == BAD)
    until("out of service", lambda: world.status(BAD).feed == "OUT_OF_SERVICE")
    [warning] = [line for line in world.document("status")["warnings"] if BAD in line]
    assert f"zaibei source reseed plan {BAD}" in warning
    assert world.zaibei("source", "reseed", "plan", SOUND).exit_code == Exit.REFUSED, "in service: never touched"
    plan = world.document("source", "reseed", "plan", BAD)["plan"]
    bad.open()
    try:
        done = world.document("source", "reseed", "run", "--plan", plan["token"])["done"]
        assert Path(done["aside"]).is_dir(), "the damaged store is kept"
        assert world.zaibei("source", "reseed", "run", "--plan", plan["token"]).exit_code == Exit.REFUSED, "done once"
        world.flowing(BAD)
        for host in HOSTS:
            answers = world.ask_many([bad.name_of(number) for number in range(KEPT)], host=host)
            assert [shown(answers[bad.name_of(number)]) for number in range(KEPT)] == [right(number) for number in range(KEPT)]
        # That it answers no probes was true while it was away, and is said until the next probe in peace.
        until("nothing is said of it", lambda: not [line for line in world.document("status")["warnings"] if BAD in line])
        bad.put([KEPT])
        until("goes on", lambda: shown(world.ask(bad.name_of(KEPT))) == right(KEPT))
    finally:
        bad.close()
