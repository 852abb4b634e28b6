"""The octets of a copy are a sum that every write keeps: never wrong, and not known rather than wrong."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from replica.model.batch import OP_DELETE, OP_PUT, Change
from replica.model.identifier import document_key
from replica.store import SourceStore, edge_octets
from replica.store.edge_octets import count_octets
from replica.store.edge_rocks import new_batch
from replica.store.edge_scrub import scrub
from replica.store.rows import Kind, OctetsRow, PositionRow
from replica.store.scrub import Finding
from tests.unit.store.conftest import World
from tests.unit.store.support import SOURCE, delete, load, put, small_budget


def paper(ident: str, value: bytes = b"\x01{}", kind: str = "hosting.right") -> Change:
    return Change(OP_PUT, document_key(kind, ident), value)


def octets_of(content: dict[bytes, bytes], *, about: bool = False) -> int:
    """A recount. `about`: of the documents about a tenant alone; else of all others."""
    return sum(len(key) + len(value) for key, value in content.items() if key.startswith(b"bhosting.") is about)


def known(store: SourceStore, limit_s: float = 20.0) -> int:
    """As soon as it is."""
    until = time.monotonic() + limit_s
    while (octets := store.octets) is None:
        assert time.monotonic() < until
        time.sleep(0.005)
    return octets


def right(world: World) -> None:
    assert known(world.store) == octets_of(world.source.content)
    held = world.store._live.octets
    assert held is not None and held.about == octets_of(world.source.content, about=True)


def forget_row(store: SourceStore) -> None:
    """A store as the version before wrote it."""
    wb = new_batch()
    wb.delete(Kind.OCTETS)
    store._live.rocks.write(wb)
    store._live.octets = None


def forget(world: World) -> None:
    forget_row(world.store)


def test_each_change_is_counted_and_a_restart_knows(granted: World) -> None:
    assert granted.store.octets == 0
    changes = [
        [put(n) for n in range(50)],
        [put(3, "longer than before, by far"), delete(4), delete(999), put(5)],
        [paper("r1"), paper("r2", b"\x01{...}"), paper("x", kind="other.kind"), put(60)],
        [paper("r1", b"\x01{longer}"), Change(OP_DELETE, document_key("hosting.right", "r2"), b"")],
        [put(7, "a"), put(7, "bb"), delete(8), put(8, "ccc")],  # what a key has last counts
    ]
    for some in changes:
        granted.group.append(granted.source.cut(some))
        right(granted)
    granted.restart()
    assert granted.store.octets is not None
    right(granted)


def test_a_batch_that_changes_nothing_leaves_the_row_good(granted: World) -> None:
    granted.group.append(granted.source.cut([put(1), put(2)]))
    granted.group.append(granted.source.cut([put(1), delete(9)]))
    granted.restart()
    assert granted.store.octets == octets_of(granted.source.content)


def test_a_store_written_without_is_counted_once_and_then_knows(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(300)] + [paper("r")]))
    forget(granted)
    granted.restart()
    assert granted.store._live.octets is None
    right(granted)
    granted.restart()  # no entry came since: counting itself wrote the row
    assert granted.store.octets == octets_of(granted.source.content)


def test_a_row_left_behind_by_the_version_before_counts_for_nothing(granted: World) -> None:
    """It opened our store, wrote on, and did not know the row; then we came back."""
    granted.group.append(granted.source.cut([put(1)]))
    granted.store._live.octets = None  # writes no row, keeps none in mind
    granted.group.append(granted.source.cut([put(2)]))
    granted.restart()
    assert granted.store._live.octets is None
    right(granted)


def test_what_changes_while_it_is_counted_is_in_it(granted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_octets, "STEP_RECORDS", 10)
    granted.group.append(granted.source.cut([put(n) for n in range(100)] + [paper("r")]))
    forget(granted)
    rounds = iter(range(1_000))

    def meanwhile() -> bool:
        at = next(rounds)
        granted.group.append(granted.source.cut([put(at, f"again {at}"), delete(99 - at), put(500 + at), paper(f"s{at}")]))
        return False

    count_octets(granted.store._live, threading.Lock(), meanwhile)
    assert next(rounds) >= 10
    right(granted)
    granted.restart()
    assert granted.store.octets is not None
    right(granted)


def test_counting_lets_the_store_go_when_it_is_closed(granted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_octets, "STEP_RECORDS", 1)
    monkeypatch.setattr(time, "sleep", lambda _: threading.Event().wait(0.05))
    granted.group.append(granted.source.cut([put(n) for n in range(1_000)]))
    forget(granted)
    assert granted.store.octets is None
    begun = time.monotonic()
    granted.restart()
    assert time.monotonic() - begun < 5


async def test_a_generation_loaded_beside_knows_its_own(world: World) -> None:
    world.source.cut([put(n) for n in range(200)] + [paper("r1"), paper("x", kind="a.kind"), paper("x", kind="z.kind")])
    world.group.grant(world.source.grant())
    content, digest = dict(world.source.content), world.source.digest()
    world.group.load_begin(1, digest.position)
    world.group.append(world.source.cut([put(5_000), delete(1), paper("r2")]), live=False, side=1)
    await load(world.store, 1, content, digest)
    world.group.load_staged(1)
    assert world.store.octets == 0
    world.group.load_switch(1, digest)
    assert world.store.octets is not None
    right(world)
    world.group.append(world.source.cut([put(6_000), paper("r1", b"\x01{...}")]))
    world.restart()
    assert world.store.octets is not None
    right(world)


def test_files_from_another_member_bring_it(granted: World, tmp_path: Path) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(100)] + [paper("r")]))
    taken = granted.store.checkpoint()
    shutil.copytree(taken.folder, tmp_path / "came" / "gen-0")
    (tmp_path / "came" / "CURRENT").write_bytes((granted.folder / "CURRENT").read_bytes())
    other = SourceStore.open(tmp_path / "came", SOURCE, small_budget(tmp_path))
    try:
        assert other.octets == octets_of(granted.source.content)
    finally:
        other.close()


def test_a_scrub_finds_a_wrong_sum(granted: World) -> None:
    granted.group.append(granted.source.cut([put(n) for n in range(50)] + [paper("r")]))
    row, held = granted.store._live.row, granted.store._live.octets
    assert held is not None

    def read() -> tuple[Finding, str]:
        found = scrub(granted.store, 1_000_000_000, threading.Event(), lambda: 1)
        return found.finding, found.text

    assert read() == (Finding.SOUND, "")
    wb = new_batch()
    wb.put(Kind.OCTETS, OctetsRow(held.octets + 1, held.about).pack(row.records, row.total))
    granted.store._live.rocks.write(wb)
    finding, text = read()
    assert finding is Finding.DIFFERENT and f"have {held.octets} octets" in text
    forget(granted)
    assert read() == (Finding.SOUND, "")  # not known is not wrong


GOOD = OctetsRow(5, 1).pack(2, 9)


@pytest.mark.parametrize("octets", [None, b"", b"\x01" * 40, b"\x02" + GOOD[1:], OctetsRow(5, 1).pack(2, 8)])
def test_only_a_row_of_this_very_content_counts(octets: bytes | None) -> None:
    row = PositionRow(records=2, total=9)
    assert OctetsRow.of(octets, row) is None
    assert OctetsRow.of(GOOD, row) == OctetsRow(5, 1)
