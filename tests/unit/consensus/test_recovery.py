"""The walk and the decision to start: torn tails heal, acknowledged losses never pass in silence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.consensus import record
from replica.consensus.port import Cut, HardState, Recovered
from replica.consensus.recovery import plan_start
from replica.consensus.walk import walk
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry

N = 5  # a group's number


def row(index: int, term: int = 1, data: bytes = b"d") -> tuple[int, bytes]:
    return index, record.encode_entry(N, LogEntry(index, term, data))


def walked(rows: list[tuple[int, bytes]], marks: record.Marks = record.Marks()) -> Recovered:  # noqa: B008
    return walk(N, rows, marks, HardState())[0]


def test_a_sound_log() -> None:
    found, octets = walk(N, [row(1), row(2), row(3, 2)], record.Marks(0, 0, 2), HardState(2))
    assert (found.last, found.last_term, found.flushed, found.cut) == (3, 2, 2, None)
    assert [found.term_at(index) for index in range(5)] == [0, 1, 1, 2, None]
    assert octets == sum(len(octets) for _, octets in [row(1), row(2), row(3, 2)])


def test_a_log_that_begins_behind_its_floor() -> None:
    found = walked([row(8, 3), row(9, 3)], record.Marks(7, 3, 8))
    assert (found.floor, found.last, found.term_at(7), found.term_at(6)) == (7, 9, 3, None)


@pytest.mark.parametrize(
    ("rows", "last", "reason"),
    [
        ([row(1), row(3), row(4)], 1, "index 2 is missing"),
        ([row(2), row(3)], 0, "index 1 is missing"),
        ([row(1), (2, b"\1short"), row(3)], 1, "octets only"),
        ([row(1), (2, row(2)[1][:-1] + b"X"), row(3)], 1, "checksum"),
        ([row(1, 2), row(2, 1), row(3, 2)], 1, "term 1 at index 2 follows term 2"),
    ],
)
def test_entries_behind_a_gap_are_cut(rows: list[tuple[int, bytes]], last: int, reason: str) -> None:
    found = walked(rows)
    assert found.last == last
    assert found.cut is not None and reason in found.cut.reason
    assert (found.cut.first_missing, found.cut.rows, found.cut.highest) == (last + 1, len(rows) - last, rows[-1][0])


def test_an_unreadable_file_cuts_where_reading_stopped() -> None:
    def rows() -> Iterator[tuple[int, bytes]]:
        yield row(1)
        raise ZaibeiError(Code.DAMAGED, "block 7 is damaged")

    found = walk(N, rows(), record.Marks(), HardState())[0]
    assert (found.last, found.cut) == (1, Cut(2, "block 7 is damaged"))


# --------------------------------------------------------------------------------------------------------------- decisions
def log(last: int, *, floor: int = 0, flushed: int = 0, cut: Cut | None = None, term: int = 1) -> Recovered:
    spans = ((floor + 1, term),) if last > floor else ()
    return Recovered(True, floor, term if floor else 0, last, flushed, HardState(term), cut, spans)


def test_a_new_group() -> None:
    plan = plan_start("g", Recovered(), (0, 0))
    assert (plan.replay_from, plan.replay_to, plan.term, plan.restart_at, plan.warning) == (1, 0, 1, None, "")


def test_what_the_store_lacks_is_replayed() -> None:
    plan = plan_start("g", log(10, flushed=10), (6, 1))
    assert (plan.replay_from, plan.replay_to, plan.term, plan.warning) == (7, 10, 2, "")


def test_the_term_rises_over_all_that_was_seen() -> None:
    journal = Recovered(True, 0, 0, 3, 3, HardState(term=9), None, ((1, 4),))
    assert plan_start("g", journal, (3, 4)).term == 10


def test_a_torn_tail_that_was_never_acknowledged_heals() -> None:
    plan = plan_start("g", log(5, flushed=5, cut=Cut(6, "index 6 is missing", 2, 8)), (3, 1))
    assert (plan.replay_from, plan.replay_to, plan.cut_after) == (4, 5, 5)
    assert "torn" in plan.warning and not plan.loss_possible


def test_a_lost_entry_that_may_have_been_acknowledged_refuses_the_group() -> None:
    with pytest.raises(ZaibeiError) as caught:
        plan_start("g", log(5, flushed=8, cut=Cut(6, "index 6 is missing", 2, 8)), (3, 1))
    assert caught.value.code is Code.DAMAGED
    for part in ("6 to 8", "index 6 is missing", "store stands at 3", "zaibei source reseed plan g"):
        assert part in str(caught.value)


def test_a_flushed_tail_that_is_simply_gone_refuses_the_group() -> None:
    with pytest.raises(ZaibeiError, match="its end is missing"):
        plan_start("g", log(5, flushed=6), (3, 1))


def test_a_loss_that_the_store_covers_goes_on_and_says_so() -> None:
    plan = plan_start("g", log(5, flushed=8, cut=Cut(6, "index 6 is missing")), (8, 1))
    assert plan.restart_at == (8, 1) and plan.loss_possible and "index 6 is missing" in plan.warning


def test_a_lost_journal_starts_at_the_store() -> None:
    plan = plan_start("g", Recovered(), (40, 3))
    assert (plan.replay_from, plan.replay_to, plan.term, plan.restart_at) == (41, 40, 4, (40, 3))
    assert plan.loss_possible and "asked again" in plan.warning


def test_a_store_older_than_the_journal_is_refused_with_the_command() -> None:
    with pytest.raises(ZaibeiError, match=r"entries 5 to 7 are gone.*reseed me: g"):
        plan_start("g", log(10, floor=7, flushed=10), (4, 1), reseed_command="reseed me: {group}")


def test_two_histories_are_refused() -> None:
    with pytest.raises(ZaibeiError, match="two histories"):
        plan_start("g", log(10, flushed=10), (6, 2))


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.booleans())
def test_no_acknowledged_loss_passes_in_silence(floor: int, more: int, flushed: int, index: int, torn: bool) -> None:
    """Whatever is on disk: a start without a warning of loss holds or has applied all that is marked as flushed."""
    last = floor + more
    journal = log(last, floor=floor, flushed=flushed, cut=Cut(last + 1, "torn", 1, last + 2) if torn else None)
    try:
        plan = plan_start("g", journal, (index, 1 if index else 0))
    except ZaibeiError as exc:
        assert exc.code is Code.DAMAGED
        return
    assert max(last, index) >= flushed
    assert plan.replay_from == index + 1, "nothing is applied twice or left out"
    assert plan.replay_to == max(last, index)
    assert plan.loss_possible == (index > last)
    assert bool(plan.warning) == (torn or index > last)
