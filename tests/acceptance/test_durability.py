"""Promise 1 and 12 on a whole member: what a receipt vouches for survives a power cut; full and failing disks end in words.

The recorder keeps each file's length at its last returned fsync; after SIGKILL every file is cut to it. Tokens in the records
tell which fsync covered which commit. The node is gone too when the member comes back, so nothing can be sent to it again.
"""

from __future__ import annotations

import errno
import json
import time
from functools import partial
from pathlib import Path

import pytest

from ops.cli.exits import Exit
from replica.model.position import Position
from tests.acceptance.world import Node, World, right, shown, until
from tests.shim.shim import Op, Recording, build, token

WAL = "*/journal/db/*.log"
PLANTED = "tests.acceptance.planted"

pytestmark = pytest.mark.skipif(build() is None, reason="the durability recorder needs a C compiler: install the package gcc")


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path / "m", tmp_path / "side")


class Writer:
    """Commits small batches, each with its own token at both ends, and remembers what was receipted."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.commits: dict[int, Position] = {}

    def commit(self, count: int) -> None:
        for _ in range(count):
            number = len(self.commits) + 1
            self.commits[number] = self.node.put([number], marked(number))

    def receipted(self) -> dict[int, int]:
        """Token -> when its quorum receipt came in."""
        times = {number: self.node.quorum_ns(position) for number, position in self.commits.items()}
        return {number: at_ns for number, at_ns in times.items() if at_ns is not None}

    def until_receipted(self, count: int) -> None:
        until(f"{count} commits receipted", lambda: len(self.receipted()) >= count)


def marked(number: int) -> str:
    return f"{token(number).decode()}/{'x' * 500}/{token(number).decode()}"


def warnings(world: World, word: str) -> list[str]:
    return [text for text in world.document("status")["warnings"] if word in text]


def powered_off(world: World, writer: Writer) -> dict[int, int]:
    """SIGKILL in the middle of writing; the node burns too. Returns what was receipted."""
    writer.commit(40)
    world.kill()
    receipted = writer.receipted()
    writer.node.close()
    return receipted


def lost(world: World, writer: Writer, receipted: dict[int, int]) -> list[int]:
    """Start again without the node; which receipted identifiers are not answered as they were receipted."""
    world.start(recorded=False)
    first = writer.node.name_of(0)
    world.answered(first, right(0))
    answers = world.ask_many([writer.node.name_of(number) for number in receipted], "tcp")
    return [number for number in receipted if shown(answers[writer.node.name_of(number)]) != right(number, marked(number))]


def running(world: World, module: str = "ops.cli.main") -> Writer:
    """Member and node, in contact, nothing written with a token yet."""
    world.start(module)
    node = world.nodes[0].open()
    node.put([0])
    world.flowing()
    return Writer(node)


def test_what_was_receipted_survives_a_power_cut(tmp_path: Path, recording: Recording) -> None:
    with World(tmp_path, recording=recording) as world:
        writer = running(world)
        writer.commit(60)
        writer.until_receipted(60)
        slow = recording.inject(WAL, Op.SYNC, delay_ms=60)
        writer.commit(20)
        writer.until_receipted(80)
        assert slow.hits > 0
        slow.clear()
        receipted = powered_off(world, writer)
        node = writer.node
        assert recording.unsynced_acks(receipted, WAL) == []
        too_early = {number: at_ns - 50_000_000 for number, at_ns in receipted.items() if 60 < number <= 80}
        assert recording.unsynced_acks(too_early, WAL) != []  # the judgement can fail
        recording.cut_to_synced()
        assert lost(world, writer, receipted) == []
        status = world.status()
        position = Position.parse(status.position)
        assert position.place >= max(writer.commits[number].place for number in receipted)
        node.open()
        assert (status.detail["digest"]["records"], status.detail["digest"]["sum"]) == node.digest_at(position)
        behind = node.put([1], "again")
        until("it goes on where it stood", lambda: node.quorum_ns(behind))
        assert world.flowing().records == len(writer.commits) + 1


def test_a_member_that_forgets_to_flush_is_caught_twice(tmp_path: Path, recording: Recording) -> None:
    """The planted fault turns both judgements red."""
    with World(tmp_path, recording=recording) as world:
        writer = running(world, PLANTED)
        writer.commit(60)
        writer.until_receipted(60)
        receipted = powered_off(world, writer)
        early = recording.unsynced_acks(receipted, WAL)
        assert len(early) >= 60 and "no fsync" in early[0]
        recording.cut_to_synced()
        world.start(recorded=False)
        status = world.status()
        held = Position.parse(status.position).place if status.position else (0, 0)
        assert status.feed == "OUT_OF_SERVICE" or held < writer.commits[60].place


def test_a_full_disk_stops_intake_and_it_resumes_by_itself(tmp_path: Path, recording: Recording) -> None:
    with World(tmp_path, recording=recording) as world:
        writer = running(world)
        writer.commit(20)
        writer.until_receipted(20)
        full = recording.inject("*", Op.WRITE | Op.TRUNCATE, errno.ENOSPC, partial=40)
        writer.commit(30)
        until("the journal met the full disk", lambda: full.hits > 0)
        time.sleep(1.0)  # the disk stays full for a while; nothing depends on how long
        receipted = writer.receipted()
        assert len(receipted) < 50
        status = world.zaibei("status").stdout
        assert "takes nothing in, answers go on: the journal's disk is full" in " ".join(status.split())
        for number in (1, 20):  # answers go on
            assert world.everywhere(writer.node.name_of(number)) == {right(number, marked(number))}
        full.clear()
        writer.until_receipted(50)
        world.flowing()
        receipted = powered_off(world, writer)
        assert recording.unsynced_acks(receipted, WAL) == []
        recording.cut_to_synced()
        assert lost(world, writer, receipted) == []


def test_a_store_without_room_goes_back_and_says_so(tmp_path: Path, recording: Recording) -> None:
    """Only the stores' files meet the full disk: a flush fails, the store is opened again and the journal replays the rest.

    Until it has, nothing is vouched for: a record that was receipted is never "not found".
    """
    with World(tmp_path, recording=recording) as world:
        writer = running(world, "tests.acceptance.hasty")
        full = recording.inject("*/stores/*.sst", Op.WRITE | Op.TRUNCATE, errno.ENOSPC)
        codes = set()

        def asked(number: int) -> bool:
            codes.add(world.ask(writer.node.name_of(1)).code)
            return writer.node.quorum_ns(writer.commits[number]) is not None

        writer.commit(1)
        writer.until_receipted(1)
        for number in range(2, 200):
            writer.commit(1)
            until("receipted", partial(asked, number))
            if "intake goes on" in world.said():
                break
        assert full.hits > 0 and codes <= {1, 2}
        assert "intake waits, answers go on" in world.said() and "out of service" not in world.said()
        full.clear()
        assert world.flowing().records == len(writer.commits) + 1
        assert warnings(world, "disk") == []
        receipted = powered_off(world, writer)
        recording.cut_to_synced()
        assert lost(world, writer, receipted) == []


def test_a_failed_fsync_stops_the_member_in_words(tmp_path: Path, recording: Recording) -> None:
    with World(tmp_path, recording=recording) as world:
        writer = running(world)
        writer.commit(20)
        writer.until_receipted(20)
        recording.inject(WAL, Op.SYNC, errno.EIO, times=1)
        writer.commit(20)
        assert world.ended() == Exit.FAILED
        said = world.said()
        assert said.count("a flush of the journal failed") == 1 and "check the disk" in said and "Traceback" not in said
        receipted = writer.receipted()
        writer.node.close()
        assert recording.unsynced_acks(receipted, WAL) == []
        recording.cut_to_synced()
        assert lost(world, writer, receipted) == []


def test_a_store_whose_fsync_fails_stops_the_member_and_loses_nothing(tmp_path: Path, recording: Recording) -> None:
    """It is the journal's disk too, whose flushes are trusted no more. The next start replays what the store lacks."""
    with World(tmp_path, recording=recording) as world:
        writer = running(world, "tests.acceptance.hasty")
        recording.inject("*/stores/*.sst", Op.SYNC, errno.EIO)
        writer.commit(20)
        assert world.ended() == Exit.FAILED
        said = world.said()
        assert "Input/output error" in said and "Traceback" not in said
        receipted = writer.receipted()
        writer.node.close()
        recording.cut_to_synced()
        assert lost(world, writer, receipted) == []


def test_a_start_on_a_full_disk(tmp_path: Path, recording: Recording) -> None:
    """Without room for its journal it does not start and says so; without room for a store that source comes when there is."""
    with World(tmp_path, recording=recording) as world:
        writer = running(world)
        writer.commit(20)
        writer.until_receipted(20)
        world.kill()
        full = recording.inject("*/journal/*", Op.WRITE | Op.TRUNCATE, errno.ENOSPC)
        process = world.launch()
        out, _ = process.communicate(timeout=60)
        error = json.loads(out)["error"]
        assert (process.returncode, error["code"]) == (Exit.FAILED, "disk_full") and "free room, then start again" in error[
            "message"
        ]
        full.clear()
        full = recording.inject("*/stores/*", Op.WRITE | Op.TRUNCATE, errno.ENOSPC)
        world.start()
        (warning,) = warnings(world, "source node-a is out of service")
        assert "the disk is full" in warning
        assert world.ask(writer.node.name_of(1)).code == 2
        full.clear()
        assert world.flowing().records == 21
        assert warnings(world, "disk") == [] and "Traceback" not in world.said()
        assert world.everywhere(writer.node.name_of(1)) == {right(1, marked(1))}
