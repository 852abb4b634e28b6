"""Damage is named and never silent; each storage trap is avoided (DESIGN 5, SEMANTICS 11)."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import OutcomeKind
from replica.model.position import ORIGIN
from replica.store import BudgetLimits, DiskLimits, SourceStore, StoreBudget, check_open_files, edge_store
from replica.store.edge_disk import CURRENT, DiskRoom, write_current
from replica.store.edge_rocks import Rocks, new_batch, translate
from replica.store.rows import PLAIN_RECORDS, Kind, numbered
from tests.unit.store.conftest import World
from tests.unit.store.support import SOURCE, Group, delete, held, key, put, small_budget


def flip(path: Path, at: float = 0.3) -> None:
    octets = bytearray(path.read_bytes())
    for step in range(8):
        octets[int(len(octets) * at) + step] ^= 0xFF
    path.write_bytes(octets)


def full(world: World, count: int = 4_000) -> None:
    """Enough records for several blocks of a file."""
    for start in range(0, count, 500):
        world.group.append(
            world.source.cut([put(n, f"https://example.cn/{n * 7919 % 10_007}") for n in range(start, start + 500)])
        )
    world.store.flush()
    world.store._live.rocks.compact()


def opened(world: World) -> SourceStore:
    """The store again after it was closed and tampered with; the fixture closes it."""
    world.store = SourceStore.open(world.folder, SOURCE, world.budget)
    return world.store


def refused(world: World, *words: str) -> None:
    """Opening says DAMAGED with these words; afterwards the fixture gets a sound store elsewhere."""
    with pytest.raises(ZaibeiError) as caught:
        SourceStore.open(world.folder, SOURCE, world.budget)
    assert caught.value.code is Code.DAMAGED
    for word in words:
        assert word in str(caught.value)
    world.store = SourceStore.open(world.folder.with_name("other"), SOURCE, world.budget)


# ------------------------------------------------------------------------------------------------- damage
def test_a_damaged_block_is_an_error_for_reading_and_scanning(granted: World) -> None:
    """Trap (b): the iterator itself just ends."""
    full(granted)
    granted.store.close()
    largest = max(granted.folder.glob("gen-0/*.sst"), key=lambda path: path.stat().st_size)
    flip(largest, 0.8)  # rows of ours come first, records behind them
    store = opened(granted)
    iterator = store._live.rocks._db.iter()
    iterator.seek_to_first()
    count = 0
    while iterator.valid():
        count += 1
        iterator.next()
    assert count < 4_000  # this is what would be taken for the whole content
    with pytest.raises(ZaibeiError) as caught:
        held(store)
    assert caught.value.code is Code.DAMAGED
    with pytest.raises(ZaibeiError):
        for number in range(4_000):
            store.get_many([key(number)])
    reader = store.snapshot(b"s")
    with pytest.raises(ZaibeiError):
        list(reader.parts())
    reader.close()
    del iterator


def test_a_missing_file_is_named(granted: World) -> None:
    full(granted)
    granted.store.close()
    max(granted.folder.glob("gen-0/*.sst"), key=lambda path: path.stat().st_size).unlink()
    refused(granted, "damaged", "re-seed")


def test_a_missing_current_is_not_an_empty_store(granted: World) -> None:
    granted.group.append(granted.source.cut([put(1)]))
    granted.store.close()
    (granted.folder / CURRENT).unlink()
    refused(granted, "CURRENT is missing", "re-seed")


def test_a_damaged_current_is_refused(granted: World) -> None:
    granted.store.close()
    (granted.folder / CURRENT).write_text("zaibei-current 1\nsource x\ngeneration 0\ncheck 0\n")
    refused(granted, "CURRENT is damaged")


def test_the_making_of_the_first_generation_may_stop_anywhere(tmp_path: Path) -> None:
    budget = small_budget(tmp_path)
    SourceStore.open(tmp_path / "s", SOURCE, budget).close()
    (tmp_path / "s" / CURRENT).unlink()  # stopped before it was named
    (tmp_path / "s" / "gen-0.new").mkdir()
    store = SourceStore.open(tmp_path / "s", SOURCE, budget)
    assert store.applied() == (0, 0)
    store.close()
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["CURRENT", "gen-0"]


def test_a_missing_generation_is_named(granted: World) -> None:
    granted.store.close()
    (granted.folder / "gen-0").rename(granted.folder / "elsewhere")
    refused(granted, "gen-0 is missing")


def test_swapped_directories_are_recognised(granted: World, tmp_path: Path) -> None:
    other = SourceStore.open(tmp_path / "second", "86.1000", granted.budget)
    other.close()
    granted.store.close()
    (granted.folder / "gen-0").rename(tmp_path / "aside")
    (tmp_path / "second" / "gen-0").rename(granted.folder / "gen-0")
    refused(granted, "86.1000", "another's place")
    write_current(granted.folder, "86.1000", 0)
    with pytest.raises(ZaibeiError, match="swapped"):
        SourceStore.open(granted.folder, SOURCE, granted.budget)


def test_sums_that_do_not_add_up_are_refused(granted: World) -> None:
    granted.group.append(granted.source.cut([put(1)]))
    wb = new_batch()
    wb.delete(numbered(Kind.DELTA, 0))
    granted.store._live.rocks.write(wb)
    granted.store.close()
    refused(granted, "do not add up")


def test_one_process_at_a_time(granted: World) -> None:
    with pytest.raises(ZaibeiError) as caught:
        SourceStore.open(granted.folder, SOURCE, granted.budget)
    assert caught.value.code is Code.CONFLICT


def test_leftovers_go_only_when_nobody_can_need_them(granted: World) -> None:
    granted.store.close()
    for name in ("load-1", "load-1.files", "dead-gen-0-0", "gen-7", "gen-0.new", "notes"):
        (granted.folder / name).mkdir()
    opened(granted)
    assert sorted(path.name for path in granted.folder.iterdir()) == ["CURRENT", "gen-0", "gen-7", "notes"]


# ------------------------------------------------------------------------------------------------- traps
def test_reopening_uses_the_budgets_cache(granted: World) -> None:
    """Trap (a): without column-family options the stored ones come back, with a cache of 8 MB of their own."""
    full(granted, 1_000)
    granted.store.close()
    granted.budget = StoreBudget(granted.folder, BudgetLimits(cache_octets=77 << 20), DiskLimits(0, 0, 0))
    store = opened(granted)
    assert store._live.rocks._db.property_value("rocksdb.block-cache-capacity") == str(77 << 20)
    granted.store.close()
    plain = Options(raw_mode=True)
    bare = Rdict(str(granted.folder / "gen-0"), plain)
    assert bare.property_value("rocksdb.block-cache-capacity") != str(77 << 20)
    bare.close()
    opened(granted)


def test_no_write_ahead_log_and_no_stalled_writes(granted: World) -> None:
    granted.group.append(granted.source.cut([put(1)]))
    assert sum(path.stat().st_size for path in granted.folder.glob("gen-0/*.log")) == 0
    assert granted.store._live.rocks._write_options.no_slowdown is True


def patiently(store: SourceStore, group: Group) -> OutcomeKind:
    """What the apply thread does: the same entry again until it goes through."""
    for _ in range(10_000):
        try:
            [outcome] = store.apply([group.log[-1]])
            return outcome.kind
        except ZaibeiError as exc:
            assert exc.code is Code.BUSY
            threading.Event().wait(0.001)
    return OutcomeKind.UNKNOWN


def test_backpressure_is_busy_and_the_entry_comes_again(tmp_path: Path) -> None:
    """Trap: a stalled write would freeze the process. Compaction off and a flood make RocksDB ask to wait."""
    budget = StoreBudget(tmp_path, BudgetLimits(memtable_octets=64 << 10, memtables_max=2), DiskLimits(0, 0, 0))
    from tests.unit.store.support import Source

    store, source = SourceStore.open(tmp_path / "s", SOURCE, budget), Source()
    group = Group(store)
    group.grant(source.grant())
    busy = 0
    for number in range(300):
        try:
            group.append(source.cut([put(n, "x" * 300) for n in range(number, number + 200)]))
        except ZaibeiError as exc:
            assert exc.code is Code.BUSY and exc.trouble.retry
            busy += 1
            assert patiently(store, group) is OutcomeKind.APPLIED
    assert busy
    assert held(store) == source.content
    assert store.digest_at(source.head) == source.digest()
    store.close()


def test_errors_are_translated_once() -> None:
    table = {
        "Result incomplete: Write stall": Code.BUSY,
        "IO error: No space left on device: While appending": Code.DISK_FULL,
        "IO error: While open a file for appending: x.sst: Too many open files": Code.DISK_FULL,  # passes, like a full disk
        "IO error: While fdatasync: Input/output error": Code.DISK_FAILED,
        "IO error: While pread offset 0 len 4096: x.sst: Input/output error": Code.DAMAGED,  # a block of one copy
        "Corruption: block checksum mismatch": Code.DAMAGED,
        "IO error: lock hold by current process": Code.CONFLICT,
    }
    assert {text: translate(Exception(text), "x").code for text in table} == table


def test_the_disk_watermark_stops_intake_and_lets_reads_go_on(granted: World, tmp_path: Path) -> None:
    granted.group.append(granted.source.cut([put(1)]))
    tight = StoreBudget(tmp_path, None, DiskLimits(free_octets_min=2**60, free_octets_resume=2**60, ballast_octets=0))
    roomy, granted.store._budget = granted.store._budget, tight
    with pytest.raises(ZaibeiError) as caught:
        granted.group.append(granted.source.cut([put(2)]))
    assert (caught.value.code, caught.value.trouble.retry) == (Code.DISK_FULL, True)
    assert granted.store.get_many([key(1)])[0] != [None]
    granted.store._budget = roomy
    [outcome] = granted.store.apply([granted.group.log[-1]])
    assert outcome.kind is OutcomeKind.APPLIED


def test_the_watermark_has_hysteresis(tmp_path: Path) -> None:
    room = DiskRoom(tmp_path, DiskLimits(free_octets_min=100, free_octets_resume=200, ballast_octets=0))
    verdicts = []
    for free in (150, 99, 150, 199, 200, 150):
        room.free_octets = lambda free=free: free  # type: ignore[method-assign, misc]
        try:
            room.require_room()
            verdicts.append(True)
        except ZaibeiError:
            verdicts.append(False)
    assert verdicts == [True, False, False, False, True, True]


def test_the_ballast_is_given_up_and_made_again(tmp_path: Path) -> None:
    room = DiskRoom(tmp_path, DiskLimits(free_octets_min=0, free_octets_resume=0, ballast_octets=1 << 20))
    assert room.restore_ballast() and room.restore_ballast()
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= 1 << 20
    assert room.release_ballast() and not room.release_ballast()
    room.free_octets = lambda: 10  # type: ignore[method-assign]
    assert not room.restore_ballast()


def test_open_files_are_checked() -> None:
    check_open_files(BudgetLimits(open_files=64))
    with pytest.raises(ZaibeiError, match="ulimit"):
        check_open_files(BudgetLimits(open_files=2**40))


def test_reopening_after_a_disk_error_replays_the_rest(granted: World) -> None:
    """Trap (d): after an error the database stays failed until it is opened again."""
    granted.group.append(granted.source.cut([put(1)]))
    granted.store.flush()
    granted.store._live.rocks.failed = ZaibeiError(Code.DISK_FAILED, "planted")
    [index, _] = granted.store.reopen() or (0, 0)
    assert granted.store.reopen() is None
    granted.group.replay(granted.store)
    assert index <= granted.store.applied()[0]
    assert held(granted.store) == granted.source.content
    granted.group.append(granted.source.cut([delete(1)]))
    assert held(granted.store) == {}


def test_reopening_waits_for_who_reads_it_out_and_takes_nothing_out_of_service(
    granted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot takes minutes: a database that is still open cannot be opened again, and that is no fault of the store."""
    monkeypatch.setattr(edge_store, "CLOSE_WAIT_S_MAX", 0.05)
    granted.group.append(granted.source.cut([put(1)]))
    granted.store.flush()
    reader = granted.store.snapshot(b"s")
    granted.store._live.rocks.failed = ZaibeiError(Code.DISK_FULL, "planted", retry=True)
    for _ in range(2):
        with pytest.raises(ZaibeiError) as caught:
            granted.store.reopen()
        assert (caught.value.code, caught.value.trouble.retry) == (Code.DISK_FULL, True)  # what makes the group ask again
    parts = reader.parts()
    assert held(granted.store) == granted.source.content and len([next(parts), next(parts)]) == 2
    reader.close()
    assert granted.store.reopen() == granted.store.applied(), "although whoever read still knows of parts"
    granted.group.replay(granted.store)
    assert held(granted.store) == granted.source.content
    with pytest.raises(ZaibeiError, match="closed"):  # not the end of a content that is no whole one
        next(parts)


@pytest.mark.parametrize("fails", [False, True])
def test_a_closed_database_is_closed_whoever_still_knows_of_its_rows(granted: World, fails: bool) -> None:
    """One iterator that is left keeps it open, and then it cannot be opened again: not after a full disk, not to re-seed it.

    An error that is kept keeps the frames it came through, and what they had open.
    """
    full(granted)
    if fails:
        granted.store.close()
        flip(max(granted.folder.glob("gen-0/*.sst"), key=lambda path: path.stat().st_size), 0.8)
        opened(granted)
    rows = granted.store._live.rocks.rows(b"", b"\xff")
    if fails:
        with pytest.raises(ZaibeiError) as kept:
            list(rows)
        assert kept.value.code is Code.DAMAGED
    else:
        next(rows)
    granted.store.close()
    opened(granted)
    granted.store.close()
    granted.store = SourceStore.open(granted.folder.with_name("other"), SOURCE, granted.budget)


def test_who_is_waited_for_in_vain_reads_on_and_is_not_told_less_than_all(
    granted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_store, "CLOSE_WAIT_S_MAX", 0.05)
    full(granted, 1_000)
    reader = granted.store.snapshot(b"s")
    rows = granted.store._live.rocks.rows(*PLAIN_RECORDS)
    next(rows)
    granted.store.close()
    assert len(list(rows)) == 999
    reader.close()
    opened(granted)


def test_a_moment_is_kept_while_the_content_changes(granted: World) -> None:
    """Trap (h): iterators of rocksdict's Snapshot read the present."""
    for start in range(0, 18_000, 900):
        granted.group.append(granted.source.cut([put(n) for n in range(start, start + 900)]))
    before, head = dict(granted.source.content), granted.source.head
    reader = granted.store.snapshot(b"s")
    for start in range(0, 18_000, 900):
        granted.group.append(granted.source.cut([delete(n) for n in range(start, start + 900)]))
    granted.store.flush()
    granted.store._live.rocks.compact()
    from replica import native

    parts = list(reader.parts())
    got: dict[bytes, bytes] = {}
    for part in parts:
        if part.HasField("chunk"):
            keys, values, _ = native.split(part.chunk.columns)
            got |= dict(zip(keys, values, strict=True))
    assert (got, reader.position) == (before, head)
    assert parts[-1].end.digest.records == len(before)
    again = list(reader.parts(parts[-1].end.parts - 1))
    assert [one.WhichOneof("body") for one in again] == ["header", "chunk", "end"]
    assert (again[1:], parts[-2:]) == (parts[-2:], again[1:])
    with pytest.raises(ZaibeiError):
        next(reader.parts(99))
    reader.close()
    reader.close()


def test_an_asked_for_flush_covers_everything(granted: World) -> None:
    """Trap (g): rocksdict flushes one column family alone. There is one, so records, log and position go together."""
    granted.group.append(granted.source.cut([put(1)]))
    assert Rdict.list_cf(str(granted.folder / "gen-0")) == ["default"]


def test_the_digest_is_folded_into_pages(granted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from replica.store import edge_generation

    monkeypatch.setattr(edge_generation, "FOLD_ROWS_MAX", 3)
    for number in range(10):
        granted.group.append(granted.source.cut([put(number), delete(number - 1)]))
    rocks = granted.store._live.rocks
    assert len(rocks.first_keys(Kind.DELTA, Kind.DELTA + b"\xff" * 9, 99)) < 4
    assert rocks.first_keys(Kind.PAGE, Kind.PAGE + b"\xff\xff", 999)
    granted.store.flush()
    assert granted.restart(replay=False).digest_at(granted.source.head) == granted.source.digest()


def test_an_empty_store_stands_at_the_origin(world: World) -> None:
    assert world.store.state().position == ORIGIN
    assert world.store.changes_after(ORIGIN, 100) == []
    assert world.store.floor() == ORIGIN
    assert isinstance(world.store._live.rocks, Rocks)
