"""Refused callers are counted and told, and neither memory nor log grows with what they try."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from replica.feed.refusals import LOG_EVERY_MS, REASONS_MAX, RECENT_MS, REST, Refusals, WatchedTrusts
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer

NOW = 1_700_000_000_000


def test_one_line_a_minute_and_every_call_counted() -> None:
    told = Refusals()
    assert told.note("revoked", NOW) and not told.note("revoked", NOW + 1) and told.note("ended", NOW + 1)
    assert not told.note("revoked", NOW + LOG_EVERY_MS - 1) and told.note("revoked", NOW + LOG_EVERY_MS)
    assert [(reason, one.count) for reason, one in told.recent(NOW + LOG_EVERY_MS)] == [("revoked", 4), ("ended", 1)]
    assert told.recent(NOW + LOG_EVERY_MS + RECENT_MS + 1) == [] and told.total == 5


def test_what_strangers_write_into_names_takes_no_memory() -> None:
    told = Refusals()
    for number in range(3 * REASONS_MAX):
        told.note(f"{number} " + "x" * 10_000, NOW)
    found = dict(told.recent(NOW))
    assert len(found) == REASONS_MAX + 1 and found[REST].count == 2 * REASONS_MAX and max(map(len, found)) <= 300
    later = NOW + RECENT_MS + 1
    assert told.note("revoked", later) and dict(told.recent(later))["revoked"].count == 1  # what is old made room


class Strict:
    """Satisfies Trusts."""

    def identify(self, chain: Sequence[bytes], now_s: float) -> Peer:
        if not chain:
            raise ZaibeiError(Code.NOT_AUTHORISED, "nobody")
        return Peer("node-a", b"")

    def roots_pem(self) -> bytes:
        return b"roots"


def test_a_watched_port_lets_in_and_refuses_as_its_trusts_do() -> None:
    told: list[str] = []
    watched = WatchedTrusts(Strict, told.append)
    assert watched.identify([b"x"], 0.0).name == "node-a" and watched.roots_pem() == b"roots" and not told
    with pytest.raises(ZaibeiError):
        watched.identify([], 0.0)
    assert told == ["nobody"]


def test_each_refusal_is_told() -> None:
    refusals, told = Refusals(), list[str]()
    refusals.told = told.append
    for _ in range(3):
        refusals.note("revoked", 5)
    assert told == ["revoked"] * 3
