"""A difference as it travels in an entry: short, and nothing of its sums is lost."""

from __future__ import annotations

from replica.feed.load import LINES_MAX, LINES_OCTETS_MAX, brake_lines
from replica.model.brake import BrakeWindows


def test_the_largest_lines_travel_and_the_rest_as_one_of_the_whole_source() -> None:
    counts = [(b"h88\x01%d" % place, place, 1) for place in range(LINES_MAX + 500)] + [(b"hquiet", 0, 0)]
    lines = brake_lines(counts)
    assert len(lines) == LINES_MAX + 1
    assert (lines[0].removed, lines[-1].prefix) == (LINES_MAX + 499, b"")
    assert sum(line.removed for line in lines) == sum(count[1] for count in counts)
    assert sum(line.rewritten for line in lines) == LINES_MAX + 500
    windows = BrakeWindows().add([(line.prefix, line.removed, line.rewritten) for line in lines], 0, lambda _: 10)
    [trip] = [trip for trip in windows.trips([(b"h88", 1, 0)], 0, lambda _: 10) if not trip.level and "minute" in trip.window]
    assert trip.touched == sum(count[1] + count[2] for count in counts) + 1


def test_long_prefixes_do_not_make_a_long_entry() -> None:
    lines = brake_lines([(b"h%d" % place + b"x" * 2_000, 1, 0) for place in range(1_000)])
    assert sum(len(line.prefix) for line in lines) <= LINES_OCTETS_MAX
    assert sum(line.removed for line in lines) == 1_000
