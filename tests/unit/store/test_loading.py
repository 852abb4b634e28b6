"""Loading a snapshot beside: nothing of it is served before the switch, whatever happens; the switch loses nothing."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replica.model.batch import OP_DELETE, OP_PUT, Change, columns_of
from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.outcome import OutcomeKind
from replica.model.states import FeedState
from replica.store import Difference, DiskLimits, SourceStore, StoreBudget, edge_loader, hold_ident
from replica.store.edge_manifest import check_files, read_load
from replica.v1 import entry_pb2, source_pb2
from tests.unit.store.conftest import World
from tests.unit.store.support import SOURCE, Group, Source, delete, end_of, held, key, load, parts_of, put


async def loaded(world: World, side: int = 1) -> ContentDigest:
    """A load of the source's present content, staged; changes go on meanwhile."""
    content, digest = dict(world.source.content), world.source.digest()
    world.group.load_begin(side, digest.position)
    world.group.append(world.source.cut([put(9_000)]), side=side)
    staged = await load(world.store, side, content, digest)
    assert staged == digest
    world.group.load_staged(side)
    return digest


async def test_first_contact_loads_what_the_source_has(world: World) -> None:
    world.source.cut([put(n) for n in range(1_000)])  # before it met us
    world.group.grant(world.source.grant())
    content, digest = dict(world.source.content), world.source.digest()
    assert world.group.load_begin(1, digest.position).kind is OutcomeKind.APPLIED
    assert world.store.state().feed is FeedState.LOADING
    later = world.source.cut([put(5_000), delete(1)])
    assert world.group.append(later, live=False, side=1).position == later.after
    assert held(world.store) == {}
    await load(world.store, 1, content, digest)
    world.group.load_staged(1)
    assert held(world.store) == {} and not world.store.state().ready
    result = world.group.load_switch(1, digest)
    assert (result.kind, result.position) == (OutcomeKind.APPLIED, world.source.head)
    state = world.store.state()
    assert (state.ready, state.generation, state.feed, state.side, state.verified) == (True, 1, FeedState.FLOWING, None, True)
    assert held(world.store) == world.source.content
    assert world.store.digest_at(world.source.head) == world.source.digest()
    assert world.store.durable_applied() == world.store.applied()[0]
    assert world.store.live_records(b"") == 1_000
    world.group.append(world.source.cut([put(5_001)]))
    world.restart()
    assert held(world.store) == world.source.content
    assert sorted(path.name for path in world.folder.iterdir()) == ["CURRENT", "gen-1"]


async def test_the_live_copy_goes_on_while_another_loads(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(100)]))
    digest = await loaded(granted)
    assert held(granted.store) == granted.source.content  # live has the change too
    assert granted.store.state().side.position == granted.source.head  # type: ignore[union-attr]
    assert granted.group.load_switch(1, digest).kind is OutcomeKind.APPLIED
    assert held(granted.store) == granted.source.content
    assert granted.store.chain_at(*granted.source.batches[0].before.place) == granted.source.batches[0].before  # history is kept


async def test_who_looks_in_the_middle_of_a_switch_sees_position_and_counts_of_one_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The apply thread switches; answers and status read beside it."""
    world.source.cut([put(n) for n in range(100)])  # before it met us
    world.group.grant(world.source.grant())
    digest = await loaded(world)
    seen, retire = list[GroupState](), world.store._retire

    def looks(*words: Any, **options: Any) -> None:
        seen.append(world.store.state())
        retire(*words, **options)

    monkeypatch.setattr(world.store, "_retire", looks)
    world.group.load_switch(1, digest)
    [during], after = seen, world.store.state()
    assert (during.ready, during.position, during.index) == (True, world.source.head, after.index)
    assert (during.records, during.quarantined) == (after.records, after.quarantined) == (101, 0)


async def test_restarts_between_all_steps_of_a_load(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(100)]))
    content, digest = dict(granted.source.content), granted.source.digest()
    granted.group.load_begin(1, digest.position)
    granted.restart()
    granted.group.append(granted.source.cut([put(200)]), side=1)
    granted.restart()
    await load(granted.store, 1, content, digest)
    granted.restart()
    granted.group.load_staged(1)
    granted.group.append(granted.source.cut([put(201)]), side=1)
    granted.restart()
    granted.group.append(granted.source.cut([put(202)]), side=1)
    assert granted.group.load_switch(1, digest).kind is OutcomeKind.APPLIED
    granted.restart()
    assert held(granted.store) == granted.source.content


async def test_a_crash_before_the_switch_was_durable_repeats_it(granted: World, tmp_path: Path) -> None:
    """The journal replays from an old position of the old generation, over a load that was given up and another of its number."""
    granted.group.append(granted.source.cut([put(1)]))
    granted.store.flush()
    granted.store.close()
    shutil.copytree(granted.folder, tmp_path / "old")
    granted.store = SourceStore.open(granted.folder, SOURCE, granted.budget)
    granted.group.store = granted.store
    await loaded(granted)
    granted.group.load_abort(1)
    digest = await loaded(granted)
    granted.store._drop_side(delete=False)  # as the disk was before the switch
    for reaper in granted.store._reapers.values():
        reaper.join()
    shutil.copytree(granted.folder / "gen-1", tmp_path / "old" / "gen-1")
    granted.group.load_switch(1, digest)
    store = SourceStore.open(tmp_path / "old", SOURCE, granted.budget)
    Group.replay(granted.group, store)
    assert held(store) == granted.source.content
    assert store.digest_at(granted.source.head) == granted.source.digest()
    store.close()
    granted.group.store = granted.store


async def test_a_switch_is_on_disk_when_it_is_named(granted: World, tmp_path: Path) -> None:
    """The files as a crash right after the switch leaves them."""
    granted.group.append(granted.source.cut([put(n) for n in range(10)]))
    digest = await loaded(granted)
    granted.group.load_switch(1, digest)
    index = granted.store.applied()[0]
    assert granted.store.durable_applied() == index
    shutil.copytree(granted.folder / "gen-1", tmp_path / "crashed" / "gen-1")
    shutil.copy(granted.folder / "CURRENT", tmp_path / "crashed")
    store = SourceStore.open(tmp_path / "crashed", SOURCE, granted.budget)
    assert (store.applied()[0], held(store)) == (index, granted.source.content)
    assert store.state().generation == 1
    store.close()


async def test_a_switch_waits_until_the_copy_is_staged(granted: World) -> None:
    """STAGED says that a majority (here of one) has the files fsynced; before it a switch is a no-op, the copy untouched."""
    granted.group.append(granted.source.cut([put(n) for n in range(10)]))
    content, digest = dict(granted.source.content), granted.source.digest()
    granted.group.load_begin(1, digest.position)
    await load(granted.store, 1, content, digest)
    result = granted.group.load_switch(1, digest)
    assert (result.kind, granted.store.state().generation) == (OutcomeKind.CONFLICT, 0)
    assert held(granted.store) == granted.source.content
    granted.group.load_staged(1)
    assert granted.group.load_switch(1, digest).kind is OutcomeKind.APPLIED


async def test_an_aborted_load_leaves_nothing_and_its_number_may_come_again(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(10)]))
    await loaded(granted)
    assert granted.group.load_abort(1).kind is OutcomeKind.APPLIED
    assert (granted.store.state().side, granted.store.state().feed) == (None, FeedState.GAP)
    granted.group.append(granted.source.cut([put(11)]))
    digest = await loaded(granted)
    assert granted.group.load_switch(1, digest).kind is OutcomeKind.APPLIED
    assert held(granted.store) == granted.source.content


async def test_what_the_source_states_must_hold(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(10)]))
    content, digest = dict(granted.source.content), granted.source.digest()
    granted.group.load_begin(1, digest.position)
    parts = parts_of(content)
    good = end_of(parts, digest)
    for change, word in (
        ({"parts": 7}, "parts"),
        ({"ordered_hash": b"x" * 32}, "ordered hash"),
        ({"digest": ContentDigest(digest.position, digest.records + 1, digest.total).to_wire()}, "count"),
        ({"digest": ContentDigest(digest.position, digest.records, digest.total ^ 1).to_wire()}, "digest"),
        ({"digest": ContentDigest(granted.source.batches[0].before, digest.records, digest.total).to_wire()}, "position"),
    ):
        loader = granted.store.loader(1, digest.position)
        for part in parts:
            await loader.write(part)
        end = source_pb2.SnapshotEnd(parts=good.parts, digest=good.digest, ordered_hash=good.ordered_hash)
        for name, wanted in change.items():
            getattr(end, name).CopyFrom(wanted) if name == "digest" else setattr(end, name, wanted)
        with pytest.raises(ZaibeiError, match=word) as caught:
            await loader.finish(end)
        assert caught.value.code is Code.VERIFICATION_FAILED
        assert not [path for path in granted.folder.iterdir() if path.name.startswith(("load", "gen-1"))]
    assert held(granted.store) == granted.source.content


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        (b"\xff\xff", "octet"),
        (columns_of([put(2), put(1)]), "ascend"),
        (columns_of([put(1), put(1)]), "ascend"),
        (columns_of([Change(OP_PUT, key(1), put(1).value), Change(OP_DELETE, key(2))]), "puts only"),
        (b"", "nothing"),
    ],
)
async def test_a_malformed_part_is_the_sources_fault(granted: World, columns: bytes, word: str) -> None:
    granted.group.load_begin(1, granted.source.head)
    loader = granted.store.loader(1, granted.source.head)
    with pytest.raises(ZaibeiError, match=word) as caught:
        await loader.write(columns)
        await loader.finish(source_pb2.SnapshotEnd())
    assert caught.value.code is Code.MALFORMED
    await loader.abort()
    assert not [path for path in granted.folder.iterdir() if path.name.startswith("load")]


async def test_parts_must_ascend_over_their_borders(granted: World) -> None:
    granted.group.load_begin(1, granted.source.head)
    loader = granted.store.loader(1, granted.source.head)
    with pytest.raises(ZaibeiError, match="ascend"):
        await loader.write(columns_of([put(2)]))
        await loader.write(columns_of([put(2)]))
        await loader.finish(source_pb2.SnapshotEnd())
    await loader.abort()


async def test_bad_records_of_a_snapshot_are_quarantined(granted: World) -> None:
    content = {key(n): put(n).value for n in range(10)} | {key(3): b"\x01broken", b"~odd": b"x"}
    source = Source(granted.source.head, content)
    digest = source.digest()
    granted.group.load_begin(1, digest.position)
    loader = granted.store.loader(1, digest.position)
    [part] = parts_of(content)
    await loader.write(part, [(5, "not_owner")])
    await loader.finish(end_of([part], digest))
    granted.group.load_staged(1)
    granted.group.load_switch(1, digest)
    values = granted.store.get_many([key(2), key(3), key(5), b"~odd"])[0]
    assert values == [content[key(2)], b"", b"", b""]
    assert granted.store.digest_at(digest.position) == digest
    assert granted.restart().get_many([key(3)])[0] == [b""]


async def test_no_room_no_load(granted: World) -> None:
    granted.group.load_begin(1, granted.source.head)
    granted.store._budget = StoreBudget(granted.folder, None, DiskLimits(free_octets_min=0))
    with pytest.raises(ZaibeiError, match="untouched") as caught:
        granted.store.loader(1, granted.source.head, records_estimate=2**50)
    assert caught.value.code is Code.DISK_FULL
    assert not [path for path in granted.folder.iterdir() if path.name.startswith("load")]


async def test_a_helper_that_dies_ends_the_load(granted: World) -> None:
    granted.group.load_begin(1, granted.source.head)
    loader = granted.store.loader(1, granted.source.head)
    await loader.write(columns_of([put(1)]))
    loader._helper.kill()
    loader._helper.wait()
    with pytest.raises(ZaibeiError) as caught:
        for number in range(2, 50):
            await loader.write(columns_of([put(number)]))
        await loader.finish(source_pb2.SnapshotEnd())
    assert caught.value.trouble.retry
    await loader.abort()
    await loader.abort()
    with pytest.raises(ZaibeiError, match="over"):
        await loader.write(columns_of([put(3)]))


async def test_a_load_that_is_given_up_while_it_is_named_is_named_whole(granted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked was cancelled, and its thread goes on: a half deleted generation would be taken for one that is staged."""
    content = {key(n): put(n).value for n in range(10)}
    digest = Source(granted.source.head, content).digest()
    began, goes_on, move = threading.Event(), threading.Event(), edge_loader.move_durable

    def slowly(old: Path, new: Path) -> None:
        began.set()
        assert goes_on.wait(10)
        move(old, new)

    monkeypatch.setattr(edge_loader, "move_durable", slowly)
    granted.group.load_begin(1, digest.position)
    loaders = list[Any]()
    monkeypatch.setattr(granted.store, "loader", _kept(granted.store.loader, loaders))
    finishing = asyncio.ensure_future(load(granted.store, 1, content, digest))
    assert await asyncio.to_thread(began.wait, 10)
    finishing.cancel()
    aborting = asyncio.ensure_future(loaders[0].abort())
    done, _ = await asyncio.wait({aborting}, timeout=0.2)
    goes_on.set()
    await aborting
    assert not done
    named = read_load(granted.folder / "gen-1")
    assert named is not None
    check_files(granted.folder / "gen-1", named)


def _kept(make: Callable[..., Any], made: list[Any]) -> Callable[..., Any]:
    def keeps(*arguments: Any) -> Any:
        made.append(make(*arguments))
        return made[-1]

    return keeps


async def test_a_loader_needs_a_committed_load(granted: World) -> None:
    with pytest.raises(ZaibeiError, match="not being loaded"):
        granted.store.loader(1, granted.source.head)


async def test_the_difference_counts_per_prefix(granted: World) -> None:
    first, second = "88\x01118\x018", "88\x01118\x019"
    granted.group.append(granted.source.cut([put(n) for n in range(500)] + [put(n, "", second) for n in range(400)]))
    beside = dict(granted.source.content)
    for number in range(50):
        del beside[key(number)]
    for number in range(60, 70):
        beside[key(number)] = put(0, "changed").value
    for number in range(900, 907):
        beside[key(number, second)] = put(1).value
    source = Source(granted.source.head, beside)
    granted.group.load_begin(1, source.head)
    await load(granted.store, 1, beside, source.digest())
    granted.group.load_staged(1)
    found = await asyncio.to_thread(granted.store.difference, 1)
    assert found == [Difference(b"h" + first.encode(), 50, 10, 0), Difference(b"h" + second.encode(), 0, 0, 7)]


async def test_a_held_generation_waits_for_two(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(10)]))
    digest = await loaded(granted)
    granted.group.hold(None, side=1)
    assert granted.group.load_switch(1, digest).kind is OutcomeKind.HELD
    assert granted.group.append(granted.source.cut([put(77)]), side=1).kind is OutcomeKind.APPLIED  # the live one goes on
    ident = granted.store.state().hold.ident  # type: ignore[union-attr]
    granted.group.decide(ident, release=True)
    assert granted.store.state().feed is FeedState.LOADING
    assert granted.group.load_switch(1, digest).kind is OutcomeKind.APPLIED
    assert held(granted.store) == granted.source.content


async def test_a_discarded_generation_stays_until_it_is_aborted(granted: World) -> None:
    digest = await loaded(granted)
    granted.group.hold(None, side=1)
    granted.group.decide(hold_ident(granted.source.head), release=False)
    state = granted.store.state()
    assert (state.feed, state.feed_code, state.side is not None) == (FeedState.GAP, "discarded", True)
    assert granted.group.load_abort(1).kind is OutcomeKind.APPLIED
    assert granted.group.load_switch(1, digest).kind is OutcomeKind.CONFLICT


async def test_a_switch_to_other_content_takes_the_group_out_of_service(granted: World) -> None:
    digest = await loaded(granted)
    other = ContentDigest(digest.position, digest.records, digest.total ^ 1)
    with pytest.raises(ZaibeiError) as caught:
        granted.group.load_switch(1, other)
    assert caught.value.code is Code.DAMAGED
    granted.group.log.pop()


async def test_readers_move_over_without_a_wrong_answer(granted: World) -> None:
    """Values and position belong together while batches are applied and generations are switched under the readers."""
    keys = [key(n) for n in range(20)]
    granted.group.append(granted.source.cut([put(n, "0") for n in range(20)]))
    texts = {granted.source.head: put(0, "0").value}
    stop, wrong, reads = threading.Event(), [], [0]

    def read() -> None:
        while not stop.is_set():
            values, position = granted.store.get_many(keys)
            reads[0] += 1
            if set(values) != {texts.get(position)}:
                wrong.append((set(values), position))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for generation in (1, 2):
            content, digest = dict(granted.source.content), granted.source.digest()
            granted.group.load_begin(generation, digest.position)
            for step in range(40):
                batch = granted.source.cut([put(n, f"{generation}-{step}") for n in range(20)])
                texts[batch.after] = put(0, f"{generation}-{step}").value
                granted.group.append(batch, side=generation)
                await asyncio.sleep(0)
            await load(granted.store, generation, content, digest)
            granted.group.load_staged(generation)
            granted.group.load_switch(generation, digest)
            assert held(granted.store) == granted.source.content  # all 40 were kept and replayed
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []
    assert reads[0] > 50


async def test_the_manifest_names_every_file(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(10)]))
    granted.group.load_begin(1, granted.source.head)
    await load(granted.store, 1, dict(granted.source.content), granted.source.digest())
    home = granted.folder / "gen-1"
    manifest = read_load(home)
    assert manifest is not None
    check_files(home, manifest, hashes=True)
    [table] = [
        path
        for path in home.iterdir()
        if path.suffix == ".sst" and path.stat().st_size == max(one.stat().st_size for one in home.glob("*.sst"))
    ][:1]
    octets = bytearray(table.read_bytes())
    octets[len(octets) // 2] ^= 1
    table.write_bytes(octets)
    check_files(home, manifest)
    with pytest.raises(ZaibeiError, match="another content"):
        check_files(home, manifest, hashes=True)
    table.unlink()
    granted.group.load_staged(1)
    with pytest.raises(ZaibeiError, match="missing") as caught:
        granted.group.load_switch(1)
    assert caught.value.code is Code.DAMAGED
    granted.group.log.pop()


async def test_what_a_switch_took_from_the_live_copy_counts_in_the_brakes_windows(granted: World) -> None:
    part, at_ms = b"h88\x01118\x018", 20_000
    granted.group.append(granted.source.cut([put(n) for n in range(300)]), at_ms=10_000)
    digest = await loaded(granted)
    lines = [entry_pb2.BrakeCount(prefix=part, removed=60), entry_pb2.BrakeCount(removed=29, rewritten=10)]
    switch = entry_pb2.LoadSwitch(side=1, digest=digest.to_wire(), brake=lines)
    assert granted.group.apply(entry_pb2.Entry(load_switch=switch, admitted_ms=at_ms)).kind is OutcomeKind.APPLIED
    for store in (granted.store, granted.restart()):
        brake, live = store.state().brake, store.live_records
        assert brake.trips([(part, 0, 0)], at_ms, live) == []
        trips = brake.trips([(part, 1, 0)], at_ms, live)
        assert {(trip.level, trip.touched) for trip in trips} == {(b"", 100)}
        trips = brake.trips([(part, 40, 0)], at_ms, live)
        assert (part, 100) in {(trip.level, trip.touched) for trip in trips}
