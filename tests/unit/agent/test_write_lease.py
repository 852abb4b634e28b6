"""The holder's count of a write-path lease: never longer than the cluster's, whatever is lost, late, frozen or suspended."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replica.agent.write_lease import LEASE_MOVES, MS, LeaseState, LeaseTimes, WriteLease
from replica.model.errors import InvariantBroken

TIMES = LeaseTimes(30_000, 5_000, 15_000)


def held() -> WriteLease:
    lease = WriteLease(TIMES)
    ask = lease.ask(1, 0)
    assert lease.given(ask.number, 1, ask.duration_ms, 200 * MS)
    return lease


def test_it_counts_from_before_it_asked_and_not_from_the_answer() -> None:
    lease = WriteLease(TIMES)
    ask = lease.ask(1, 1_000 * MS)
    assert not lease.valid(1_000 * MS)
    assert lease.given(ask.number, 1, ask.duration_ms, 9_000 * MS)
    assert lease.valid(30_999 * MS)
    assert not lease.valid(31_000 * MS)


def test_it_alarms_before_it_stops_and_is_held_again_by_a_renewal() -> None:
    lease = held()
    assert lease.look(14_999 * MS) is LeaseState.HELD
    assert lease.look(15_000 * MS) is LeaseState.WARNED
    assert lease.valid(29_999 * MS)
    assert lease.look(30_000 * MS) is LeaseState.ENDED
    again = lease.ask(1, 40_000 * MS)
    assert lease.look(40_000 * MS) is LeaseState.ENDED
    assert lease.given(again.number, 1, again.duration_ms, 40_001 * MS)
    assert lease.look(40_001 * MS) is LeaseState.HELD


def test_a_frozen_process_finds_its_lease_ended() -> None:
    """Nobody told the object anything: the question itself reads the clock."""
    lease = held()
    assert lease.state is LeaseState.HELD  # as it was before the freeze
    assert not lease.valid(3_600_000 * MS)


def test_an_answer_to_a_question_of_before_the_freeze_comes_too_late_to_help() -> None:
    lease = WriteLease(TIMES)
    ask = lease.ask(1, 0)
    lease.given(ask.number, 1, ask.duration_ms, 60_000 * MS)  # it lay in a socket while we stood still
    assert not lease.valid(60_000 * MS)
    assert lease.state is LeaseState.ENDED


def test_another_epoch_ends_it_at_once_and_answers_of_the_old_one_count_for_nothing() -> None:
    lease = held()
    late = lease.ask(1, 5_000 * MS)
    lease.ask(2, 6_000 * MS)
    assert not lease.valid(6_000 * MS)
    assert not lease.given(late.number, 1, late.duration_ms, 6_001 * MS)
    assert not lease.valid(6_001 * MS)


def test_what_was_not_asked_for_is_not_taken() -> None:
    lease = WriteLease(TIMES)
    ask = lease.ask(1, 0)
    assert not lease.given(99, 1, ask.duration_ms, 1)
    assert not lease.given(ask.number, 1, ask.duration_ms * 2, 1)
    assert not lease.given(ask.number, 2, ask.duration_ms, 1)
    assert not lease.valid(1)


def test_denied_runs_out_and_dropped_ends_at_once() -> None:
    lease = held()
    ask = lease.ask(1, 5_000 * MS)
    lease.denied(ask.number, "it is being taken over")
    assert lease.refused == "it is being taken over"
    assert lease.valid(29_999 * MS)
    lease.drop(6_000 * MS)
    assert not lease.valid(6_000 * MS)


def test_moves_are_those_of_the_table() -> None:
    assert set(LEASE_MOVES) == set(LeaseState)
    with pytest.raises(InvariantBroken):
        LeaseTimes(1_000, 5_000, 900)


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_it_is_never_valid_at_the_holder_later_than_by_our_count(seed: int) -> None:
    """Random networks and clocks: questions and answers are lost, late and doubled; either side stands still at any moment; the
    clocks differ by up to 5 %. The cluster counts as SEMANTICS 5.2 says: from its commit, plus 10 % and 1 s. Whenever that is
    over, the holder's `valid` must be False."""
    chance = random.Random(seed)
    drift = chance.uniform(0.95, 1.05)  # holder's seconds per second of ours
    lease = WriteLease(TIMES)
    now_ms, newest_commit_ms = 0.0, None
    mail: list[tuple[float, str, int, int, int]] = []  # when it arrives, what, number, epoch, duration
    epoch = 1
    next_ask_ms = 0.0

    def holder_ns(at_ms: float) -> int:
        return int(at_ms * drift * MS)

    for _ in range(chance.randrange(20, 120)):
        now_ms += chance.choice([50, 500, 2_000, 5_000, chance.uniform(0, 60_000)])
        if now_ms >= next_ask_ms and chance.random() < 0.8:
            ask = lease.ask(epoch, holder_ns(now_ms))
            next_ask_ms = now_ms + TIMES.renew_ms
            for _copy in range(chance.choice([0, 1, 1, 1, 2])):
                mail.append((now_ms + chance.uniform(0, 20_000), "ask", ask.number, ask.epoch, ask.duration_ms))
        for item in sorted(one for one in mail if one[0] <= now_ms):
            mail.remove(item)
            arrived_ms, what, number, of_epoch, duration_ms = item
            if what == "ask":
                newest_commit_ms = max(newest_commit_ms or 0, arrived_ms)
                for _copy in range(chance.choice([0, 1, 1, 2])):
                    mail.append((arrived_ms + chance.uniform(0, 40_000), "given", number, of_epoch, duration_ms))
            else:
                lease.given(number, of_epoch, duration_ms, holder_ns(now_ms))
        for later_ms in (now_ms, now_ms + 1, now_ms + 10_000, now_ms + 40_000):
            ours_over = newest_commit_ms is None or later_ms >= newest_commit_ms + TIMES.duration_ms * 1.1 + 1_000
            if ours_over and not any(one[0] <= later_ms for one in mail):
                assert not lease.valid(holder_ns(later_ms)), f"seed {seed}: valid at {later_ms} ms of ours"
