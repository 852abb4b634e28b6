"""Files held for other members: exactly at one entry, still while the store goes on, gone after use and after a crash."""

from __future__ import annotations

import threading
import time
from hashlib import sha256
from pathlib import Path

import pytest

from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry
from replica.model.transfer import TransferKind, open_manifest
from replica.store import SourceStore
from replica.store.edge_checkpoint import Checkpoint
from replica.store.edge_generation import Generation
from replica.store.edge_side import OPENED
from tests.unit.store.conftest import World
from tests.unit.store.support import SOURCE, held, load, put, small_budget


def folders(world: World) -> list[str]:
    return sorted(path.name for path in world.folder.iterdir())


def opened(taken: Checkpoint, scratch: Path) -> Generation:
    return Generation.open(taken.folder, SOURCE, taken.generation, small_budget(scratch))


def test_a_checkpoint_is_the_store_at_one_entry(granted: World, tmp_path: Path) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(300)]))
    digest, index = granted.source.digest(), len(granted.group.log)
    taken = granted.store.checkpoint()
    granted.group.append(granted.source.cut([put(n) for n in range(300, 400)]))
    assert (taken.index, taken.term, taken.generation, taken.digest) == (index, 1, 0, digest)
    assert taken.position == digest.position
    beside = opened(taken, tmp_path)
    assert ((beside.row.index, beside.row.term), beside.digest) == ((index, 1), digest)
    beside.rocks.close()
    assert held(granted.store) == granted.source.content  # nothing of it was touched


def test_the_manifest_names_every_file_as_it_is(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(300)]))
    taken = granted.store.checkpoint()
    assert {line.name for line in taken.manifest.files} == {path.name for path in taken.folder.iterdir()}
    for line in taken.manifest.files:
        octets = (taken.folder / line.name).read_bytes()
        assert (len(octets), sha256(octets).hexdigest()) == (line.octets, line.sha256)
    assert taken.manifest.kind is TransferKind.CHECKPOINT
    assert open_manifest(taken.manifest.encode(), taken.manifest.sha256) == taken.manifest


def test_files_stay_while_the_store_compacts_and_go_with_release(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(500)]))
    first, second = granted.store.checkpoint(), granted.store.checkpoint()
    assert first.folder != second.folder
    for step in range(5):
        granted.group.append(granted.source.cut([put(n, f"https://example.cn/{step}/{n}") for n in range(500)]))
        granted.store.flush()
    granted.store._live.rocks.compact()
    for line in first.manifest.files:
        assert sha256((first.folder / line.name).read_bytes()).hexdigest() == line.sha256
    first.release()
    first.release()
    assert folders(granted) == sorted([second.folder.name, "CURRENT", "gen-0"])


def test_what_a_crash_left_is_deleted_at_start(granted: World) -> None:
    taken = granted.store.checkpoint()
    granted.restart()
    assert not taken.folder.exists() and folders(granted) == ["CURRENT", "gen-0"]


def test_exactly_one_entry_while_apply_runs_at_full_speed(granted: World, tmp_path: Path) -> None:
    """Each checkpoint opened is where it says, though entries are applied all the time; the chain of digests is the source's."""
    stop, digests = threading.Event(), {}
    waits: list[LogEntry] = []

    def write() -> None:
        step = 0
        while not stop.is_set():
            step += 1
            batch = granted.source.cut([put(step * 50 + n) for n in range(50)])
            while not stop.is_set():
                try:
                    if waits:
                        granted.store.apply([waits[-1]])
                    else:
                        granted.group.append(batch)
                    waits.clear()
                    break
                except ZaibeiError as exc:
                    assert exc.code is Code.BUSY
                    waits[:] = granted.group.log[-1:]  # it comes again
                    time.sleep(0.01)
            if waits:
                return
            digests[len(granted.group.log)] = granted.source.digest()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        taken, end_s = [granted.store.checkpoint() for _ in range(6)], time.monotonic() + 30
        while taken[-1].index == taken[0].index and time.monotonic() < end_s:
            time.sleep(0.05)
            taken.append(granted.store.checkpoint())
    finally:
        stop.set()
        writer.join()
    assert len({one.index for one in taken}) > 1, "nothing was applied meanwhile: this test shows nothing"
    for one in taken:
        beside = opened(one, tmp_path)
        assert (beside.row.index, beside.digest) == (one.index, one.digest)
        if one.index > 1:
            assert one.digest == digests[one.index]
        beside.rocks.close()


def test_hashes_of_lasting_files_are_made_once(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(500)]))
    counts = []
    for _ in range(2):
        octets = 0

        def count(more: int) -> None:
            nonlocal octets
            octets += more

        granted.store.checkpoint(count)
        counts.append(octets)
    assert counts[1] < counts[0]


def test_no_checkpoint_on_a_full_disk(granted: World) -> None:
    granted.group.append(granted.source.cut([put(1)]))
    limits = granted.budget.disk.limits
    object.__setattr__(limits, "free_octets_min", 1 << 60)
    try:
        with pytest.raises(ZaibeiError) as refused:
            granted.store.checkpoint()
    finally:
        object.__setattr__(limits, "free_octets_min", 0)
    assert refused.value.code is Code.DISK_FULL
    assert folders(granted) == ["CURRENT", "gen-0"]


def test_answers_go_on_while_a_checkpoint_is_taken(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(500)]))
    slow = threading.Event()

    def wait(_: int) -> None:
        slow.wait(60)

    takers = threading.Thread(target=granted.store.checkpoint, args=(wait,))
    takers.start()
    deadline = time.monotonic() + 30
    while not any(name.startswith("ckpt") for name in folders(granted)) and time.monotonic() < deadline:
        time.sleep(0.005)
    granted.group.append(granted.source.cut([put(1_000)]))  # hashing holds nothing up
    assert held(granted.store) == granted.source.content
    slow.set()
    takers.join()


# ------------------------------------------------------------------------------------------------------ generations beside
async def test_a_loaded_generation_is_held_as_it_was_verified(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(100)]))
    content, digest = dict(granted.source.content), granted.source.digest()
    granted.group.load_begin(1, digest.position)
    begun = len(granted.group.log)
    with pytest.raises(ZaibeiError) as early:
        granted.store.hold_side(1, begun)
    assert early.value.code is Code.NOT_FOUND
    staged = await load(granted.store, 1, content, digest)
    assert staged == digest
    taken = granted.store.hold_side(1, begun)
    assert (taken.manifest.kind, taken.generation, taken.manifest.begun, taken.digest) == (
        TransferKind.GENERATION, 1, begun, digest,
    )  # fmt: skip
    assert not (taken.folder / OPENED).exists() and (taken.folder / "LOAD").exists()
    with pytest.raises(ZaibeiError):
        granted.store.hold_side(1, begun + 1)
    granted.group.load_staged(1)
    granted.group.append(granted.source.cut([put(500)]), side=1)
    later = granted.store.hold_side(1, begun)  # it was opened, and has taken in an entry more
    assert later.index > 0 and (later.folder / OPENED).exists() and later.digest == granted.source.digest()
    granted.group.load_switch(1, digest)
    with pytest.raises(ZaibeiError) as gone:
        granted.store.hold_side(1, begun)
    assert gone.value.code is Code.NOT_FOUND


async def test_holding_a_side_generation_does_not_disturb_its_switch(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(100)]))
    digest = granted.source.digest()
    granted.group.load_begin(1, digest.position)
    begun = len(granted.group.log)
    await load(granted.store, 1, dict(granted.source.content), digest)
    first = granted.store.hold_side(1, begun)
    granted.group.load_staged(1)
    second = granted.store.hold_side(1, begun)
    assert granted.group.load_switch(1, digest).kind.name == "APPLIED"
    for taken in (first, second):
        for line in taken.manifest.files:
            assert sha256((taken.folder / line.name).read_bytes()).hexdigest() == line.sha256
    restarted: SourceStore = granted.restart()
    assert held(restarted) == granted.source.content
