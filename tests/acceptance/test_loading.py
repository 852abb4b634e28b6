"""SIGKILL while a snapshot is loaded beside the live copy: the live data stays as it was, and the load is finished afterwards.

The load comes about as in a disaster-recovery centre: the member's disk is put back from yesterday, and the node no longer keeps
the changes since then.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replica.agent import log as agent_log
from replica.model.position import Position
from replica.store import DiskLimits, SourceStore, StoreBudget
from tests.acceptance.world import WAIT_S, Node, World, right, shown, until

YESTERDAY = 300
TODAY = 20_000
COMMIT = 1_000
SEGMENT_OCTETS = 64 * 1024
OLD, NEW = 1, 2  # numbers of the generations


@dataclass(frozen=True, slots=True)
class Prepared:
    world: World
    node: Node
    backup: Path
    stood: Position  # where the copy stood yesterday


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    with pytest.MonkeyPatch.context() as patch, World(tmp_path_factory.mktemp("w"), takeover="never") as world:
        patch.setattr(agent_log, "SEGMENT_OCTETS_MAX", SEGMENT_OCTETS)
        world.start()
        node = world.nodes[0].open()
        node.put(range(YESTERDAY))
        stood = Position.parse(world.flowing().position)
        assert world.stop() == 0
        backup = world.folder / "yesterday"
        shutil.copytree(world.data, backup)
        world.start()
        for first in range(YESTERDAY, TODAY, COMMIT):
            last = node.put(range(first, min(first + COMMIT, TODAY)), "today")
        until("all of it receipted", lambda: node.quorum_ns(last) is not None)
        node.close()  # and with it the lease of its first contact
        node.open()
        until("the node let go of it", lambda: node.agent.floor().place > stood.place)
        assert world.stop() == 0
        yield Prepared(world, node, backup, stood)


def store_of(world: World) -> Path:
    return world.data / "stores" / "node-a"


def begun(store: Path) -> bool:
    return any(store.glob(f"load-{NEW}*"))


def filling(store: Path) -> bool:
    return any(store.glob(f"load-{NEW}*.files/*.sst"))


def staged(store: Path) -> bool:
    return (store / f"gen-{NEW}").exists()


def switched(store: Path) -> bool:
    return f"generation {NEW}\n" in (store / "CURRENT").read_text()


def killed_when(world: World, moment: Callable[[Path], bool]) -> None:
    """SIGKILL as soon as it is seen."""
    store, end = store_of(world), time.monotonic() + WAIT_S
    while not moment(store):
        assert time.monotonic() < end, f"never {moment.__name__}: {world.seen()}\n{world.said()[-2000:]}"
        time.sleep(0.0005)
    world.kill()


def on_disk(world: World) -> tuple[Position, tuple[int, str], int]:
    """What the live generation holds, looked at in a copy of its folder: (position, (records, sum), generation)."""
    looked = world.folder / "looked"
    shutil.rmtree(looked, ignore_errors=True)
    shutil.copytree(store_of(world), looked / "node-a")
    store = SourceStore.open(looked / "node-a", "node-a", StoreBudget(looked, disk=DiskLimits(0, 0, 0)))
    try:
        state = store.state()
        digest = store.digest_at(state.position)
        assert digest is not None
        return state.position, (digest.records, f"{digest.total:032x}"), state.generation
    finally:
        store.close()


@pytest.fixture
def yesterday(prepared: Prepared) -> Iterator[Prepared]:
    """The member's disk as it was."""
    shutil.rmtree(prepared.world.data)
    shutil.copytree(prepared.backup, prepared.world.data)
    yield prepared
    if prepared.world.process is not None and prepared.world.process.poll() is None:
        prepared.world.kill()


@pytest.mark.parametrize("moment", [begun, filling, staged, switched])
def test_a_kill_while_loading_harms_nothing(yesterday: Prepared, moment: Callable[[Path], bool]) -> None:
    world, node = yesterday.world, yesterday.node
    world.launch()
    killed_when(world, moment)
    position, content, generation = on_disk(world)
    assert content == node.digest_at(position)
    if moment is not switched:
        assert (position, generation) == (yesterday.stood, OLD)
    world.start()
    status = world.flowing()
    assert (status.records, status.detail["generation"] > OLD) == (TODAY, True)
    digest = status.detail["digest"]
    assert (digest["records"], digest["sum"]) == node.digest_at(Position.parse(status.position))
    answers = world.ask_many([node.name_of(number) for number in (0, YESTERDAY, TODAY - 1)])
    wanted = [right(0), right(YESTERDAY, "today"), right(TODAY - 1, "today")]
    assert [shown(answer) for answer in answers.values()] == wanted
    assert world.stop() == 0
    assert sorted(path.name for path in store_of(world).iterdir()) == ["CURRENT", f"gen-{status.detail['generation']}"]
