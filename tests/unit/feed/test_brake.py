"""The brake's counters against a plain model, their bounds, and their octets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.model import brake as module
from replica.model.brake import TOUCHED_MIN, WINDOWS, BrakeWindows, LiveCounts, levels_of
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import prefix_key

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS
PART, BESIDE, ABOVE = prefix_key("88.118"), prefix_key("88.119"), prefix_key("88")
counts_lists = st.lists(
    st.tuples(st.sampled_from([PART, BESIDE, ABOVE, b"bkind"]), st.integers(0, 60), st.integers(0, 60)), max_size=4
)
steps = st.lists(st.tuples(counts_lists, st.integers(0, 4 * HOUR_MS)), max_size=25)


def live_of(records: int) -> LiveCounts:
    return LiveCounts({PART: records})


def test_levels() -> None:
    assert levels_of(PART) == [PART + b"\0", PART, ABOVE, b""]
    live = LiveCounts({PART: 5, BESIDE: 2})
    assert [live(level) for level in levels_of(PART)] == [5, 5, 7, 7]
    live.change(PART, -5)
    assert live.exact() == {BESIDE: 2}


@pytest.mark.parametrize(
    ("records", "touched", "trips"),
    [(1000, 300, False), (1000, 301, True), (200, 99, False), (200, 100, True), (0, 100, True), (10**6, 1000, False)],
)
def test_share_and_floor(records: int, touched: int, trips: bool) -> None:
    assert bool(BrakeWindows().trips([(PART, touched, 0)], START_MS, live_of(records))) is trips
    assert bool(BrakeWindows().trips([(PART, 0, touched)], START_MS, live_of(records))) is trips


def test_each_level_is_judged_by_itself() -> None:
    live = LiveCounts({PART: 200, BESIDE: 100_000})
    tripped = {trip.level for trip in BrakeWindows().trips([(PART, 120, 0)], START_MS, live)}
    assert tripped == {PART + b"\0", PART}


def test_slow_leak_trips_the_day_and_not_the_minute() -> None:
    windows, live = BrakeWindows(), live_of(1_000)
    for hour in range(10):
        at_ms = START_MS + hour * HOUR_MS
        found = windows.trips([(PART, 40, 0)], at_ms, live)
        if hour < 7:
            assert not found
        else:
            assert {trip.window for trip in found} == {"24 hours"}
            return
        windows = windows.add([(PART, 40, 0)], at_ms, live)
        live.change(PART, -40)
    pytest.fail("a leak of 40 an hour out of 1,000 never tripped")


@given(steps)
def test_windows_forget_only_what_left_them(history: list[tuple[list[module.Count], int]]) -> None:
    windows, live, at_ms = BrakeWindows(), live_of(10**9), START_MS
    seen: list[tuple[int, list[module.Count]]] = []
    for counts, gap_ms in history:
        at_ms += gap_ms
        windows = windows.add(counts, at_ms, live)
        seen.append((at_ms, counts))
    probe = [(PART, TOUCHED_MIN, 0)]
    found = {(trip.level, trip.window): trip.touched for trip in windows.trips(probe, at_ms, lambda _: 0)}
    for window in WINDOWS:
        oldest = at_ms // window.slot_ms - window.slots
        inside = [count for when, counts in seen if when // window.slot_ms > oldest for count in counts]
        for level in levels_of(PART):
            expected = TOUCHED_MIN + sum(gone + new for part, gone, new in inside if level in levels_of(part))
            touched = found.get((level, window.name))
            began_by_others = touched is None  # the level's window began with 10**9 live records: no trip, no number
            assert began_by_others or touched == expected


@given(steps, st.integers(0, 2**40))
def test_octets_round_trip(history: list[tuple[list[module.Count], int]], records: int) -> None:
    windows, at_ms = BrakeWindows(), START_MS
    rows: dict[int, bytes] = {}
    for counts, gap_ms in history:
        at_ms += gap_ms
        new = windows.add(counts, at_ms, lambda _: records)
        rows |= new.dump_changed(windows)
        windows = new
    assert BrakeWindows.load(windows.dump()) == windows
    assert BrakeWindows.join(rows.values()) == windows


@given(st.binary(max_size=200))
def test_damaged_octets_are_named(octets: bytes) -> None:
    try:
        BrakeWindows.load(b"\x01" + octets)
    except ZaibeiError as exc:
        assert exc.code is Code.DAMAGED


def test_a_value_never_changes() -> None:
    first = BrakeWindows().add([(PART, 5, 0)], START_MS, live_of(10))
    dumped = first.dump()
    first.add([(PART, 50, 0)], START_MS, live_of(10))
    first.released([(PART, 5, 0)])
    assert first.dump() == dumped


def test_release_begins_the_levels_anew() -> None:
    live = live_of(1_000)
    windows = BrakeWindows().add([(PART, 400, 0)], START_MS, live)
    assert windows.trips([(PART, 1, 0)], START_MS, live)
    assert not windows.released([(PART, 400, 0)]).trips([(PART, 1, 0)], START_MS, live)


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEVELS_MAX", module.PARTS * 4)
    windows = BrakeWindows()
    for place in range(2_000):
        windows = windows.add([(PART + b"\x01%d" % place, 1, 0)], START_MS, live_of(10))
    assert len(windows) <= module.PARTS * 4
    assert windows.trips([(PART, 1, 0)], START_MS, lambda _: 10), "the whole source still counts all of them"
    idle = windows.add([(BESIDE, 1, 0)], START_MS + 30 * HOUR_MS, live_of(10))
    assert len(idle) < len(windows)


def test_a_clock_that_goes_back_does_not_hide_and_does_not_stick() -> None:
    live = live_of(1_000)
    windows = BrakeWindows().add([(PART, 200, 0)], START_MS + 48 * HOUR_MS, live)
    assert windows.trips([(PART, 150, 0)], START_MS, live), "counted a wrong two days ahead, still counted now"
    windows = windows.add([(PART, 1, 0)], START_MS, live)
    assert not windows.trips([(PART, 150, 0)], START_MS + 25 * HOUR_MS, live), "and gone a day later"
