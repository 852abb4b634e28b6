"""Damaged files on a whole member: one clear message each with what to do, only that source out of service, no wrong answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.cli.exits import Exit
from replica.consensus.edge_rows import JournalRows
from replica.consensus.record import entry_key
from tests.acceptance.world import HOSTS, World, right

KEPT = 200  # names of each node; all but the first are only in the journal when the member is killed
BAD, SOUND = "node-a", "node-b"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A member with two sources, SIGKILLed with work left in its journal; both nodes are gone."""
    with World(tmp_path_factory.mktemp("w"), (BAD, SOUND)) as world:
        world.start()
        for node in world.nodes:
            node.open().put(range(KEPT // 2))
        for node in world.nodes:
            world.flowing(node.name)
        for node in world.nodes:
            for number in range(KEPT // 2, KEPT):
                node.put([number])
        for node in world.nodes:
            world.flowing(node.name)
        world.kill()
        for node in world.nodes:
            node.close()
        shutil.copytree(world.data, world.folder / "kept", ignore=shutil.ignore_patterns("*.sock"))
        yield world


@pytest.fixture
def world(killed: World) -> Iterator[World]:
    """The same folder as after the kill, each time."""
    shutil.rmtree(killed.data)
    shutil.copytree(killed.folder / "kept", killed.data)
    killed.errors.unlink(missing_ok=True)
    yield killed
    if killed.process is not None and killed.process.poll() is None:
        killed.kill()


def flip(path: Path, at: float) -> None:
    octets = bytearray(path.read_bytes())
    for step in range(8):
        octets[int(len(octets) * at) + step] ^= 0xFF
    path.write_bytes(octets)


def live_files(world: World) -> Path:
    store = world.data / "stores" / BAD
    number = (store / "CURRENT").read_text().split("generation ")[1].split()[0]
    return store / f"gen-{number}"


def largest(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern), key=lambda path: path.stat().st_size)


def damaged_block(world: World) -> None:
    flip(largest(live_files(world), "*.sst"), 0.5)


def damaged_index(world: World) -> None:
    flip(largest(live_files(world), "*.sst"), 0.97)


def no_file(world: World) -> None:
    largest(live_files(world), "*.sst").unlink()


def no_name(world: World) -> None:
    (world.data / "stores" / BAD / "CURRENT").unlink()


def no_database(world: World) -> None:
    (live_files(world) / "CURRENT").unlink()


def swapped(world: World) -> None:
    """A directory of another source in its place."""
    other = shutil.copytree(world.data / "stores" / SOUND, world.folder / "other")
    shutil.rmtree(world.data / "stores" / BAD)
    other.rename(world.data / "stores" / BAD)


def damaged_entry(world: World) -> None:
    """One entry in the middle of this source's journal."""
    rows = JournalRows.open(world.data / "journal" / "db")
    found = rows.groups[BAD]
    key = entry_key(found.number, found.recovered.last - KEPT // 4)
    row = rows.db[key]
    rows.db[key] = row[:-1] + bytes([row[-1] ^ 0xFF])
    rows.close()


DAMAGE: list[tuple[Callable[[World], None], str, str]] = [
    (damaged_block, "its files are damaged", "re-seed this source"),
    (damaged_index, "its files are damaged", "re-seed this source"),
    (no_file, "its files are damaged", "re-seed this source"),
    (no_name, "CURRENT is missing", "put it back from a backup, or empty the folder and re-seed"),
    (no_database, "is missing or no database", "re-seed this source"),
    (swapped, "directories were swapped", "put each back in its place"),
    (damaged_entry, "fails its checksum", "Load it anew from its source"),
]


@pytest.mark.parametrize(("damage", "what", "do"), DAMAGE, ids=[row[0].__name__ for row in DAMAGE])
def test_only_the_damaged_source_is_out_of_service(world: World, damage: Callable[[World], None], what: str, do: str) -> None:
    damage(world)
    world.start()
    status = world.document("status")
    bad, sound = (next(one for one in status["sources"] if one["source"] == name) for name in (BAD, SOUND))
    assert bad["feed"] == "OUT_OF_SERVICE" and what in bad["feed_reason"] and do in bad["feed_reason"]
    assert [warning for warning in status["warnings"] if f"source {BAD} is out of service" in warning]
    lines = [json.loads(line) for line in world.said().splitlines()]
    assert len([line for line in lines if what in line.get("fields", {}).get("why", "")]) == 1 and "Traceback" not in world.said()
    node, other = world.nodes
    asked = [node.name_of(0), node.name_of(KEPT * 2)]
    world.answered(other.name_of(KEPT - 1), right(KEPT - 1), SOUND)
    assert sound["feed"] == "FLOWING"
    # What is not held is never "not found" nor "lives elsewhere": both would end a client's search.
    for protocol in ("udp", "tcp", "http"):
        for host in HOSTS:
            assert {reply.code for reply in world.ask_many(asked, protocol, host).values()} == {2}


def damaged_journal(world: World) -> None:
    flip(largest(world.data / "journal" / "db", "*.log"), 0.5)


def unnamed_journal(world: World) -> None:
    (world.data / "journal" / "db" / "CURRENT").unlink()


@pytest.mark.parametrize("damage", [damaged_journal, unnamed_journal])
def test_a_journal_nobody_can_read_is_refused_in_words(world: World, damage: Callable[[World], None]) -> None:
    """All groups share it, and what it acknowledged may be in it alone: nothing is started over it."""
    damage(world)
    process = world.launch()
    out, _ = process.communicate(timeout=30)
    error = json.loads(out)["error"]
    assert process.returncode == Exit.VERIFICATION_FAILED and error["code"] == "damaged"
    assert "its files are damaged" in error["message"] and "move the journal's folder away" in error["message"]
    assert "Traceback" not in world.said()
