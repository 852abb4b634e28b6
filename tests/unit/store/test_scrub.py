"""A copy is read through: damage that nobody asked for yet is found, told, and not forgotten; a sound one is called sound."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from replica.model.digest import LEVEL1_BUCKETS, SUM_OCTETS
from replica.store.edge_generation import PAGE_OCTETS, Generation
from replica.store.edge_rocks import new_batch
from replica.store.edge_scrub import scrub
from replica.store.rows import Kind, after_kind
from replica.store.scrub import AGAIN_MS, DAY_MS, Finding, Scrubbed, ScrubReply, judged, kept, next_turn, warning_of
from tests.unit.store.conftest import World
from tests.unit.store.support import delete, key, put, value
from tests.unit.store.test_damage import flip, full

FAST = 1_000_000_000
NOW = 1_700_000_000_000
WEEK = 7 * DAY_MS
WAIT_S = 30
PIPE_OCTETS = 64 * 1024  # what a pipe holds


def read_through(world: World, octets_s: int = FAST, stop: threading.Event | None = None) -> Scrubbed:
    return scrub(world.store, octets_s, stop or threading.Event(), lambda: NOW)


def left_over(world: World) -> list[Path]:
    return list(world.folder.glob("ckpt-*"))


# ------------------------------------------------------------------------------------------------- real files, real helper
def test_a_sound_copy_is_sound_and_nothing_is_left_behind(granted: World) -> None:
    full(granted, 1_500)
    granted.group.append(granted.source.cut([delete(3), put(4, "again"), put(9_999)]))  # in memory alone until it is held still
    found = read_through(granted)
    assert (found.finding, found.text, found.records) == (Finding.SOUND, "", 1_500)
    assert found.octets > 1_500 * 40 and found.at_ms == NOW and found.mark == granted.store.mark
    assert not left_over(granted)


def test_a_damaged_block_that_nobody_asked_for_is_found(granted: World) -> None:
    full(granted)
    live = granted.store._live.rocks
    assert live.failed is None
    flip(max(granted.folder.glob("gen-0/*.sst"), key=lambda path: path.stat().st_size), 0.8)
    found = read_through(granted)
    assert found.finding is Finding.UNREADABLE and "damaged" in found.text
    assert live.failed is None and not left_over(granted)


def test_a_record_that_the_digest_does_not_know_is_found(granted: World) -> None:
    """What no checksum shows: every file reads well, and is not what was written by the rules."""
    full(granted, 1_000)
    wb = new_batch()
    wb.put(key(7), value("https://example.cn/forged"))
    granted.store._live.rocks.write(wb)
    found = read_through(granted)
    assert found.finding is Finding.DIFFERENT and "sums differ in digest bucket" in found.text
    assert found.records == 1_000


def test_a_copy_that_differs_nearly_everywhere_is_found(granted: World) -> None:
    """So many buckets differ that their numbers do not fit into the pipe over which the helper says them."""
    full(granted, 8_000)
    live = granted.store._live
    rotated = bytes(live.sums[SUM_OCTETS:] + live.sums[:SUM_OCTETS])  # each bucket's sum at its neighbour: the total is the same
    wb = new_batch()
    for page in range(LEVEL1_BUCKETS):
        wb.put(Kind.PAGE + bytes((page,)), rotated[page * PAGE_OCTETS : (page + 1) * PAGE_OCTETS])
    for row, _ in live.rocks.rows(Kind.DELTA, after_kind(Kind.DELTA)):
        wb.delete(row)
    live.rocks.write(wb)
    stop = threading.Event()
    giving_up = threading.Timer(WAIT_S, stop.set)
    giving_up.start()
    found = read_through(granted, stop=stop)
    giving_up.cancel()
    assert found.finding is Finding.DIFFERENT and found.records == 8_000
    assert int(found.text.split(" more")[0].rpartition(" ")[2]) * len("65535,") > PIPE_OCTETS


def test_a_copy_that_is_replaced_once_its_files_are_held_is_scrubbed_as_it_was(
    granted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch lets the old generation go, and its folder with it, as soon as nobody reads it."""
    full(granted, 1_000)
    store, home = granted.store, granted.store._live.rocks.folder
    mark, unpin, gone = store.mark, store._unpin, home.with_name("dead")

    def replaced(pinned: Generation) -> None:
        unpin(pinned)
        if home.exists():
            home.rename(gone)

    monkeypatch.setattr(store, "_unpin", replaced)
    found = read_through(granted)
    monkeypatch.undo()
    gone.rename(home)
    assert (found.finding, found.mark) == (Finding.SOUND, mark)


def test_stopped_before_its_end_it_found_nothing(granted: World) -> None:
    full(granted, 1_000)
    stop = threading.Event()
    begun = time.monotonic()
    threading.Timer(0.5, stop.set).start()
    found = read_through(granted, octets_s=10, stop=stop)
    assert found.finding is Finding.UNKNOWN and "stopped" in found.text
    assert time.monotonic() - begun < 60 and not left_over(granted)


# ------------------------------------------------------------------------------------------------- decisions
def last(at_ms: int, finding: Finding = Finding.SOUND) -> Scrubbed:
    return Scrubbed(at_ms, finding, text="x" if finding is not Finding.SOUND else "")


def test_whose_turn_it_is() -> None:
    started = NOW - AGAIN_MS
    assert next_turn(["a", "b"], {}, NOW, started, WEEK) == "a"
    assert next_turn(["a", "b"], {"a": last(NOW - 1)}, NOW, started, WEEK) == "b"
    assert next_turn(["a", "b"], {"a": last(NOW - WEEK), "b": last(NOW - WEEK - 1)}, NOW, started, WEEK) == "b"
    assert next_turn(["a"], {"a": last(NOW - WEEK + 1)}, NOW, started, WEEK) is None
    assert next_turn(["a"], {"a": last(NOW + 5)}, NOW, started, WEEK) == "a"  # a clock that went back
    assert next_turn(["a"], {"a": last(NOW - AGAIN_MS, Finding.UNKNOWN)}, NOW, started, WEEK) == "a"
    assert next_turn(["a"], {"a": last(NOW - AGAIN_MS, Finding.UNREADABLE)}, NOW, started, WEEK) is None
    assert next_turn(["a"], {}, NOW, NOW - AGAIN_MS + 1, WEEK) is None  # just started: other things come first
    assert next_turn([], {}, NOW, started, WEEK) is None


@pytest.mark.parametrize(
    ("reply", "finding", "words"),
    [
        (ScrubReply(records=5, stated=5), Finding.SOUND, ""),
        (ScrubReply(code="damaged", message="a block"), Finding.UNREADABLE, "a block"),
        (ScrubReply(code="disk_full", message="no room"), Finding.UNKNOWN, "no room"),
        (ScrubReply(code="stopping", message="stopped"), Finding.UNKNOWN, "stopped"),
        (ScrubReply(records=5, stated=6), Finding.DIFFERENT, "5 records are here, 6 are stated"),
        (ScrubReply(records=5, stated=5, buckets=tuple(range(10))), Finding.DIFFERENT, "and 2 more"),
        (ScrubReply(records=5, stated=5, parts=("88.118",)), Finding.DIFFERENT, "below 88.118"),
    ],
)
def test_what_a_reply_means(reply: ScrubReply, finding: Finding, words: str) -> None:
    found, text = judged(reply)
    assert found is finding and words in text
    assert bool(text) is (finding is not Finding.SOUND)


def test_damage_is_not_forgotten_because_the_next_one_could_not_look() -> None:
    bad = last(NOW - 5, Finding.DIFFERENT)
    assert kept(bad, last(NOW, Finding.UNKNOWN)).finding is Finding.DIFFERENT
    assert kept(bad, last(NOW, Finding.UNKNOWN)).at_ms == NOW
    assert kept(bad, last(NOW)).finding is Finding.SOUND
    assert kept(last(NOW - 5), last(NOW, Finding.UNKNOWN)).finding is Finding.UNKNOWN
    assert kept(None, last(NOW)).finding is Finding.SOUND


def test_a_person_is_told_what_to_do() -> None:
    assert warning_of("node-a", last(NOW), alone=True) is None
    assert warning_of("node-a", last(NOW, Finding.UNKNOWN), alone=True) is None
    assert "zaibei source reseed plan node-a" in (warning_of("node-a", last(NOW, Finding.UNREADABLE), alone=True) or "")
    assert "zaibei cluster reseed node-a" in (warning_of("node-a", last(NOW, Finding.DIFFERENT), alone=False) or "")
