"""takeover-ready: each check has three results, and what was not looked at is never a pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replica.model.group_state import GroupState
from replica.model.identifier import prefix_key
from replica.model.states import Result
from replica.takeover.readiness import Peace, Rehearsal, assess, ready

STATE = GroupState("s", ready=True, verified=True, prefixes=(prefix_key("88.118.8"),), records=3)
GOOD = Peace(
    state=STATE,
    age_ms=40,
    adapters=("recursive-1",),
    own_site_known=True,
    site_listed=True,
    site_ttl_s=300,
    identity_left_s=400 * 86_400,
    endpoints=2,
    probe_age_ms=1_000,
    probe_failures=0,
    armed=True,
    beat_age_ms=30,
    rehearsal=Rehearsal(True, "seen and gone", 1_000),
    addresses=({"address": "192.0.2.7", "family": "IPv4", "state": "answers", "seen": "seen from m2"},),
)

CASES = [
    ("site", {"own_site_known": False}, Result.FAIL),
    ("site", {"site_listed": False}, Result.PASS),
    ("site", {"site_listed": False, "adapters": ()}, Result.FAIL),
    ("site", {"site_listed": None, "adapters": ()}, Result.UNKNOWN),
    ("addresses", {"addresses": ()}, Result.UNKNOWN),
    ("ttl", {"site_ttl_s": 301}, Result.FAIL),
    ("ttl", {"site_ttl_s": None}, Result.UNKNOWN),
    ("identity", {"identity_left_s": 86_400}, Result.FAIL),
    ("identity", {"identity_left_s": None}, Result.UNKNOWN),
    ("copy", {"state": replace(STATE, ready=False)}, Result.FAIL),
    ("copy", {"state": replace(STATE, verified=None)}, Result.UNKNOWN),
    ("copy", {"state": replace(STATE, verified=False)}, Result.FAIL),
    ("position", {"age_ms": 2_001}, Result.FAIL),
    ("position", {"age_ms": None}, Result.UNKNOWN),
    ("beats", {"armed": False}, Result.FAIL),
    ("beats", {"beat_age_ms": None}, Result.UNKNOWN),
    ("beats", {"beat_age_ms": 5_000}, Result.FAIL),
    ("probes", {"endpoints": 0}, Result.FAIL),
    ("probes", {"probe_age_ms": None}, Result.UNKNOWN),
    ("probes", {"probe_age_ms": None, "probe_failures": 2}, Result.FAIL),
    ("probes", {"probe_failures": 1}, Result.FAIL),
    ("probes", {"probe_age_ms": 60_000}, Result.FAIL),
    ("publication", {"rehearsal": None}, Result.UNKNOWN),
    ("publication", {"rehearsal": Rehearsal(False, "down", 1)}, Result.FAIL),
    ("publication", {"rehearsal": Rehearsal(True, "ok", 90_000_000)}, Result.UNKNOWN),
    ("publication", {"adapters": ()}, Result.UNKNOWN),
]


def test_all_good_is_ready() -> None:
    assert {check.result for check in assess(GOOD)} == {Result.PASS}
    assert ready(assess(GOOD)) is Result.PASS


@pytest.mark.parametrize(("name", "change", "result"), CASES)
def test_each_check(name: str, change: dict[str, object], result: Result) -> None:
    checks = assess(replace(GOOD, **change))  # type: ignore[arg-type]
    assert {check.name: check.result for check in checks}[name] is result
    assert all(check.detail for check in checks)


def test_the_worst_counts_and_nothing_is_unknown() -> None:
    good, bad, dim = (assess(replace(GOOD, site_ttl_s=ttl))[1] for ttl in (60, 9_999, None))
    assert ready([good, dim]) is Result.UNKNOWN
    assert ready([good, dim, bad]) is Result.FAIL
    assert ready([]) is Result.UNKNOWN
