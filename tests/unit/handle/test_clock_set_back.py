"""A clock that is set back keeps no places of challenges and sessions that nobody answered, at the cost of others."""

from __future__ import annotations

import pytest

from hosting.handle.challenges import ChallengeLimits, Challenges
from hosting.handle.sessions import SessionLimits, Sessions

HOUR_MS = 3_600_000
NOW_MS = 100 * HOUR_MS
CROWD = [f"198.51.{number // 250}.{number % 250 + 1}" for number in range(40)]


@pytest.mark.parametrize("back_ms", [HOUR_MS, 24 * HOUR_MS])
def test_challenges(back_ms: int) -> None:
    table = Challenges[None](ChallengeLimits(waiting_max=len(CROWD)))
    for number, client in enumerate(CROWD, 1):
        assert table.room(client, 10, NOW_MS)
        table.offer(number, client, None, 10, NOW_MS)
    assert not table.room("192.0.2.1", 10, NOW_MS), "full of challenges that are not over"
    assert table.room("192.0.2.1", 10, NOW_MS - back_ms)


@pytest.mark.parametrize("back_ms", [HOUR_MS, 24 * HOUR_MS])
def test_sessions(back_ms: int) -> None:
    table = Sessions(SessionLimits(opened_max=len(CROWD)))
    for number, client in enumerate(CROWD, 1):
        assert table.room(client, NOW_MS)
        table.open(number, client, b"k" * 16, None, 60, NOW_MS)
    assert not table.room("192.0.2.1", NOW_MS), "full of sessions that still may be proved"
    assert table.room("192.0.2.1", NOW_MS - back_ms)


@pytest.mark.parametrize("back_ms", [1, 1_000])
def test_a_little_back_takes_nothing_from_who_is_just_proving(back_ms: int) -> None:
    challenges, sessions = Challenges[str](), Sessions()
    challenges.offer(7, "192.0.2.1", "asked", 10, NOW_MS)
    sessions.open(7, "192.0.2.1", b"", None, 60, NOW_MS)
    assert challenges.take(7, "192.0.2.1", NOW_MS - back_ms) == "asked"
    assert sessions.keyless(7, "192.0.2.1", NOW_MS - back_ms) is sessions.of_client(7, "192.0.2.1", NOW_MS - back_ms) is not None
