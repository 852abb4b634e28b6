"""Two living processes under one identity: noticed when the first comes back after the second; a restart or a move is none."""

from __future__ import annotations

import pytest

from replica.feed.twins import APART_MS, MS, SENDERS_MAX, Twins

FIRST, SECOND, THIRD = b"\x1a" * 16, b"\x2b" * 16, b"\x3c" * 16
S = 1_000 * MS


def two() -> Twins:
    """The first, the second, and the first again."""
    twins = Twins("node-a")
    assert twins.opened(FIRST, "192.0.2.1:40", 0) == ""
    assert twins.opened(SECOND, "192.0.2.2:41", 1 * S) == ""
    assert twins.opened(FIRST, "192.0.2.1:42", 2 * S) == ""
    return twins


def test_both_are_named_the_first_is_kept_and_the_other_refused() -> None:
    twins = two()
    for told in (twins.told(2 * S), twins.opened(SECOND, "192.0.2.2:43", 3 * S)):
        assert "two living processes publish as node-a" in told
        assert "192.0.2.1:42 (process 1a1a1a1a), which came first and is let in" in told
        assert told.index("192.0.2.1:42") < told.index("192.0.2.2:4") < told.index("(process 2b2b2b2b), refused")
    assert twins.opened(FIRST, "192.0.2.1:44", 4 * S) == ""
    assert "(process 3c3c3c3c)" in twins.opened(THIRD, "192.0.2.3:45", 5 * S), "nor is a third let in"


def test_a_restart_a_move_and_a_lost_line_are_no_second_sender() -> None:
    twins = Twins("node-a")
    for number, instance in enumerate((FIRST, FIRST, SECOND, SECOND, THIRD)):
        assert twins.opened(instance, f"192.0.2.{number}:1", number * S) == "" == twins.told(number * S)


def test_who_comes_back_long_after_is_a_move_back() -> None:
    twins = Twins("node-a")
    twins.opened(FIRST, "a", 0)
    twins.opened(SECOND, "b", 1 * S)
    assert twins.opened(FIRST, "a", APART_MS * MS + 1) == "" == twins.told(APART_MS * MS + 1)


@pytest.mark.parametrize(("stays", "goes"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_it_is_over_when_one_of_them_is_silent(stays: bytes, goes: bytes) -> None:
    twins = two()
    twins.opened(SECOND, "b", 3 * S)
    until = 3 * S + APART_MS * MS
    twins.heard(stays, until)
    assert twins.told(until - 2 * S) != ""
    assert twins.told(until + 1) == "" == twins.opened(stays, "now", until + 1), goes


def test_a_stream_that_stands_and_speaks_keeps_its_sender_known() -> None:
    twins = two()
    for minute in range(1, 10):
        twins.heard(FIRST, minute * APART_MS * MS)
        assert twins.opened(SECOND, "b", minute * APART_MS * MS) != ""
    assert "(process 1a1a1a1a), which came first" in twins.told(9 * APART_MS * MS)


def test_of_a_version_that_states_no_process_nothing_is_known() -> None:
    twins = Twins("node-a")
    for number in range(6):
        assert twins.opened((b"", FIRST, bytes(65))[number % 3], "a", number * S) == ""


def test_memory_is_bounded_and_the_kept_one_stays() -> None:
    twins = two()
    for number in range(10 * SENDERS_MAX):
        assert twins.opened(number.to_bytes(16, "big"), "c", 3 * S + number) != ""
    assert len(twins._senders) <= SENDERS_MAX and "(process 1a1a1a1a), which came first" in twins.told(4 * S)
