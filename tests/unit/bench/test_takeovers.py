"""Deaths of nodes as their clients saw them: late runs do not count, silence is told, the longest is the figure."""

from __future__ import annotations

import pytest

from chaos.drills.outside import Lane, Lookup, read_lates
from ops.bench.takeovers import Death, Late, answered, happened, joined, judge, kept, read_kept, rows, slow
from replica.model.errors import ZaibeiError

MS = 1_000_000
DEATH = Death("a", 1_000 * MS, 3_000 * MS)


def asked(began_ms: int, ended_ms: int, *, right: bool = True, lane: Lane = Lane.RECURSIVE, source: str = "a") -> Lookup:
    return Lookup(lane, source, "n", began_ms * MS, ended_ms * MS, right, lied=False)


def test_the_first_right_answer_of_a_lookup_begun_after_the_death_counts() -> None:
    lookups = [
        asked(990, 1_010),
        asked(1_100, 1_200, right=False),
        asked(1_150, 1_900),
        asked(1_300, 1_600),
        asked(1_001, 1_002, source="b"),
    ]
    assert judge([DEATH], lookups, []).first_ms == (600.0,)


def test_an_answer_after_the_heal_is_none() -> None:
    found = judge([DEATH], [asked(3_001, 3_002), asked(2_990, 3_010)], [])
    assert (found.first_ms, found.unanswered) == ((), 1)
    with pytest.raises(RuntimeError, match="no run counts"):
        rows("kill", found)


@pytest.mark.parametrize(
    ("at_ms", "late_ms", "counts"), [(1_500, 101, False), (1_500, 99, True), (999, 500, True), (3_050, 101, False)]
)
def test_a_run_whose_clients_were_late_does_not_count(at_ms: int, late_ms: float, counts: bool) -> None:
    found = judge([DEATH], [asked(1_100, 1_500)], [Late(at_ms * MS, late_ms)])
    assert (len(found.first_ms), found.late) == ((1, 0) if counts else (0, 1))


def test_the_longest_is_the_figure_and_every_failure_is_told() -> None:
    second = Death("b", 1_000 * MS, 3_000 * MS)
    lookups = [asked(1_100, 1_500), asked(1_100, 2_500, source="b"), asked(1_100, 1_200, right=False, lane=Lane.HEDGED)]
    time, failed = rows("kill", judge([DEATH, second], lookups, []))
    assert (time.figure, time.met, time.runs) == (1_500.0, False, 2)
    assert (failed.figure, failed.met) == (1, False)


def test_lates_are_read_from_a_history() -> None:
    assert read_lates(b'["late", 120.5, 7]\n["recursive", "a", "n", 1, 2, true, false, ""]\n["late", 60, 9]\n["la') == [
        (7, 120.5),
        (9, 60.0),
    ]


def test_runs_in_which_a_detector_began_anew_are_told_apart() -> None:
    second = Death("b", 1_000 * MS, 3_000 * MS, began_anew=True)
    found = judge([DEATH, second], [asked(1_100, 1_600), asked(1_100, 2_300, source="b")], [])
    assert (found.first_ms, found.anew_ms) == ((600.0, 1_300.0), (1_300.0,))
    assert "in 1 the member's detector was late and began anew (first answers 1300 to 1300)" in rows("kill", found)[0].note


def test_pieces_are_kept_kind_by_kind_and_read_as_one() -> None:
    first = judge([DEATH], [asked(1_100, 1_500)], [])
    second = judge([DEATH], [asked(1_100, 1_700), asked(1_100, 1_200, right=False, lane=Lane.HEDGED)], [])
    lines = kept("kill", first) + kept("freeze", first) + kept("kill", second)
    assert read_kept("kill", lines) == [first, second]
    whole = joined(read_kept("kill", lines))
    assert (whole.first_ms, whole.hedged, whole.hedged_failed) == ((500.0, 700.0), 1, 1)
    assert read_kept("black hole", lines) == []


@pytest.mark.parametrize("cut", [1, 20])
def test_a_file_that_was_cut_off_is_refused(cut: int) -> None:
    line = kept("kill", judge([DEATH], [asked(1_100, 1_500)], []))
    with pytest.raises(ZaibeiError, match="line 2 of the file that --keep names"):
        read_kept("kill", line + line[: -1 - cut])


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        (["recursive", "a", "n", 1_001, 1_700, True, False, ""], True),
        (["recursive", "a", "n", 999, 1_700, True, False, ""], False),
        (["recursive", "a", "n", 1_001, 1_700, False, False, "2"], False),
        (["recursive", "b", "n", 1_001, 1_700, True, False, ""], False),
        (["port", "a", "n", 1_001, 1_700, True, False, ""], False),
        (["late", 60.0, 1_700], False),
    ],
)
def test_a_death_is_watched_until_a_client_behind_the_recursive_node_was_answered(line: list[object], seen: bool) -> None:
    assert answered([["late", 51.0, 1_600], line], "a", 1_000) is seen


def test_runs_that_missed_the_figure_are_pointed_at() -> None:
    second, third = Death("b", 1_000 * MS, 3_000 * MS), Death("c", 1_000 * MS, 3_000 * MS)
    lookups = [asked(1_100, 1_900), asked(1_100, 2_001, source="b"), asked(1_100, 1_200, right=False, source="c")]
    assert slow([DEATH, second, third], lookups) == [(second, 1_001.0), (third, None)]


def test_what_happened_in_a_slow_run_is_told_in_order() -> None:
    log = [
        '{"time":"1970-01-01T00:00:06.550Z","level":"warning","room":"takeover","message":"takeover phase","fields":{"to":"X"}}',
        '{"time":"1970-01-01T00:00:05.000Z","level":"info","room":"takeover","message":"long before"}',
        "a library speaks",
        '{"time":"no time","message":"broken"}',
    ]
    lookups = [asked(1_600, 1_700), asked(1_500, 1_540, right=False), asked(1_510, 1_540, source="b"), asked(3_100, 3_101)]
    assert [line.split(" ms  ") for line in happened(DEATH, lookups, log, 5_000 * MS)] == [
        ["      500", "lookup, failed, took 40 ms"],
        ["      550", "takeover phase {'to': 'X'}"],
        ["      600", "lookup, right, took 100 ms"],
    ]
