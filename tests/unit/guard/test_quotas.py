"""The bucket of a tenant's resolutions, and what is told when it is empty."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from hosting.guard.events import Cause, Kind, State, as_json
from hosting.guard.guard import OVER_QUOTA, Guard
from hosting.guard.quotas import Quotas
from hosting.guard.watch import QUIET_MS, Watch
from replica.model.tenant_view import TenantView

TEN = TenantView(resolutions_per_s=10.0, burst_s=2.0)


def test_it_holds_what_its_seconds_give_and_fills_again() -> None:
    quotas = Quotas()
    assert [quotas.take("a", TEN, 15, 100.0), quotas.take("a", TEN, 15, 100.0)] == [15, 5]
    assert quotas.take("b", TEN, 20, 100.0) == 20, "each tenant has its own"
    assert [quotas.take("a", TEN, 9, 100.5), quotas.take("a", TEN, 99, 500.0)] == [5, 20]
    assert quotas.over == {"a": 10 + 4 + 79}


def test_without_a_rate_nothing_is_counted_and_a_rate_of_0_answers_nothing() -> None:
    quotas = Quotas()
    assert quotas.take("a", TenantView(answered=False), 10**6, 1.0) == 10**6 and not quotas.over
    assert quotas.take("a", TenantView(resolutions_per_s=0.0), 1, 1.0) == 0
    assert quotas.take("a", TenantView(resolutions_per_s=0.0), 1, 10**6) == 0


def test_a_slow_rate_gives_one_and_a_changed_one_begins_full() -> None:
    quotas, slow = Quotas(), TenantView(resolutions_per_s=0.1, burst_s=1.0)
    assert [quotas.take("a", slow, 1, at) for at in (0.0, 9.0, 11.0)] == [1, 0, 1]
    assert quotas.take("a", TEN, 50, 11.0) == 20


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 1_000)), max_size=30),
    st.floats(0.1, 1_000),
    st.floats(0.01, 10),
)
def test_never_more_than_its_rate_and_its_burst(asked: list[tuple[float, int]], per_s: float, burst_s: float) -> None:
    quotas, view, now_s, taken = Quotas(), TenantView(per_s, burst_s), 0.0, 0
    for gap_s, count in asked:
        now_s += gap_s
        got = quotas.take("a", view, count, now_s)
        assert 0 <= got <= count
        taken += got
    assert taken <= max(1.0, per_s * burst_s) + per_s * now_s + 1e-6 * (1 + len(asked))


def test_it_is_told_with_the_tenants_name_when_it_begins_and_when_it_is_over() -> None:
    notes: list[tuple[str, bytes, int]] = []
    guard = Guard(note=lambda *note: notes.append(note))
    assert guard.tenant("region-9", TEN, 20, 5.0) == 20 and not notes
    assert guard.tenant("region-9", TEN, 7, 5.0) == 0
    assert notes == [(OVER_QUOTA, b"region-9", 7)] and guard.counters.tenant_over == 7 and guard.over_quota == {"region-9": 7}
    watch = Watch("member-1", lambda: "e1")
    [begun] = watch.noted(*notes[0], 1_000)
    assert (begun.kind, begun.state, begun.cause, begun.client) == (Kind.QUOTA, State.ABNORMAL, Cause.OTHER, "")
    assert begun.what.endswith(": region-9") and json.loads(as_json(begun))["cause"] == 4
    assert not watch.noted(*notes[0], 2_000)
    [over] = watch.passed(2_000 + QUIET_MS)
    assert over.state is State.RECOVERED and over.count == 14 and over.what.endswith("region-9")
