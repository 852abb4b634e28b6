"""Lag and equality in three values: each input is cut in turn, and none of them reads PASS longer than it may."""

from __future__ import annotations

import pytest

from replica.feed.findings import DIGEST_AGE_MS_MAX, LOOKS_AT_START, Finding, RpoTarget, Watch, digest_finding, lag_finding
from replica.feed.freshness import CopyAge, Lag
from replica.model.position import Position
from replica.model.states import Result

MS = 1_000_000
TARGET = RpoTarget(5_000, 100)
INTERVAL_MS = 500  # of nonces and beats


def at(seq: int) -> Position:
    return Position(b"L" * 16, 1, seq, bytes(32))


class World:
    """One copy of a source that changes all the time; what is cut stops at `cut_ms`."""

    def __init__(self, cut: str, cut_ms: int) -> None:
        self.cut, self.cut_ms = cut, cut_ms
        self.age = CopyAge()
        self.seq, self.number = 0, 0
        self.verified: bool | None = None
        self.nonce = b""

    def alive(self, what: str, now_ms: int) -> bool:
        return self.cut != what or now_ms < self.cut_ms

    def step(self, now_ms: int) -> None:
        stream = self.alive("stream", now_ms) and self.alive("source", now_ms)
        if self.alive("source", now_ms):
            self.seq += 7
        if self.alive("nonces", now_ms):
            self.number += 1
            self.age.nonce_sent(sent := self.number.to_bytes(16, "big"), now_ms * MS)
            self.nonce = sent if stream and self.alive("echo", now_ms) else self.nonce
        if stream and self.alive("beats", now_ms):
            self.age.beat(at(self.seq), self.nonce)
        if stream and self.alive("apply", now_ms):
            self.age.applied(at(self.seq))
        if stream and self.alive("certificates", now_ms) and now_ms % 5_000 == 0:
            self.verified = True
            self.age.compared()

    def findings(self, now_ms: int) -> tuple[Finding, Finding]:
        return (
            lag_finding(self.age.lag(now_ms * MS), TARGET),
            digest_finding(self.verified, self.age.compared_age_ms(now_ms * MS)),
        )


@pytest.mark.parametrize(
    ("cut", "lag_within_ms", "lag_is"),
    [
        ("stream", 2_500, Result.UNKNOWN),
        ("source", 2_500, Result.UNKNOWN),
        ("beats", 2_500, Result.UNKNOWN),
        ("echo", 2_500, Result.UNKNOWN),  # beats of a buffer: they echo an old nonce for ever
        ("nonces", 2_500, Result.UNKNOWN),
        ("apply", TARGET.age_ms + 1_000, Result.FAIL),  # the input lives: we know that we are behind
        ("certificates", 0, Result.PASS),
        ("nothing", 0, Result.PASS),
    ],
)
def test_lag_after_each_input_is_cut(cut: str, lag_within_ms: int, lag_is: Result) -> None:
    world = World(cut, 30_000)
    for now_ms in range(0, 60_000, INTERVAL_MS):
        world.step(now_ms)
        lag, _ = world.findings(now_ms)
        if 1_000 <= now_ms < 30_000:
            assert lag.result is Result.PASS, f"{now_ms} ms"
        for later_ms in (now_ms, now_ms + INTERVAL_MS - 1):
            if later_ms >= 30_000 + lag_within_ms:
                assert world.findings(later_ms)[0].result is lag_is, f"{later_ms} ms: {world.findings(later_ms)[0]}"


@pytest.mark.parametrize("cut", ["stream", "source", "certificates"])
def test_digest_is_unknown_seven_seconds_after_its_last_certificate(cut: str) -> None:
    world = World(cut, 30_000)
    for now_ms in range(0, 60_000, INTERVAL_MS):
        world.step(now_ms)
        _, digest = world.findings(now_ms)
        if 1_000 <= now_ms < 30_000:
            assert digest.result is Result.PASS, f"{now_ms} ms"
        if now_ms >= 30_000 + DIGEST_AGE_MS_MAX:
            assert digest.result is Result.UNKNOWN, f"{now_ms} ms"
            assert "no certificate came since" in digest.detail


INPUTS = ("stream", "source", "beats", "echo", "nonces")


@pytest.mark.parametrize("cut_ms", [30_000, 30_001, 30_499, 32_500, 34_999, 35_000, 35_001])
@pytest.mark.parametrize("cut", [*INPUTS, "certificates"])
def test_no_check_reads_pass_longer_than_it_may_whenever_its_input_is_cut(cut: str, cut_ms: int) -> None:
    """To the millisecond: lag 2 s, digest 7 s, counted from the cut; a digest is no younger than what the source was heard of."""
    world = World(cut, cut_ms)
    for began_ms in range(0, 60_000, INTERVAL_MS):
        world.step(began_ms)
        edges = (edge for edge in (cut_ms + 2_001, cut_ms + 7_001) if began_ms < edge < began_ms + INTERVAL_MS)
        for now_ms in (began_ms, *edges):
            lag, digest = world.findings(now_ms)
            if cut in INPUTS and now_ms > cut_ms + 2_000:
                assert lag.result is Result.UNKNOWN, f"{now_ms - cut_ms} ms after the cut: {lag}"
            if now_ms > cut_ms + 7_000:
                assert digest.result is Result.UNKNOWN, f"{now_ms - cut_ms} ms after the cut: {digest}"
            if 1_000 <= now_ms < cut_ms:
                assert (lag.result, digest.result) == (Result.PASS, Result.PASS), f"{now_ms} ms"


def test_a_target_counts_in_seconds_and_in_changes_and_zero_is_no_limit() -> None:
    assert lag_finding(Lag(0, 5_000), TARGET).result is Result.PASS
    assert lag_finding(Lag(0, 5_001), TARGET).result is Result.FAIL
    assert lag_finding(Lag(101, 10), TARGET).result is Result.FAIL
    assert lag_finding(Lag(10**6, 10**6), RpoTarget(0, 0)).result is Result.PASS
    for lag in (Lag(None, None), Lag(None, 5), Lag(5, None)):
        assert lag_finding(lag, RpoTarget(0, 0)).result is Result.UNKNOWN


def test_a_digest_that_differs_is_a_failure_however_old() -> None:
    assert digest_finding(False, None).result is Result.FAIL
    assert digest_finding(None, 0).result is Result.UNKNOWN
    assert digest_finding(True, None).result is Result.UNKNOWN
    assert digest_finding(True, DIGEST_AGE_MS_MAX).result is Result.PASS
    assert digest_finding(True, DIGEST_AGE_MS_MAX + 1).result is Result.UNKNOWN


def test_a_certificate_that_lay_in_a_buffer_is_no_younger_than_the_beat_before_it() -> None:
    age = CopyAge()
    age.nonce_sent(b"n" * 16, 1_000 * MS)
    age.beat(at(1), b"n" * 16)
    age.compared()  # taken out of the socket ten minutes later
    assert age.compared_age_ms(601_000 * MS) == 600_000


def test_what_another_member_compared_counts_and_never_makes_it_older() -> None:
    age = CopyAge()
    assert age.compared_age_ms(5_000 * MS) is None
    age.compared_told(1_000 * MS)
    age.compared_told(500 * MS)
    age.compared_told(None)
    assert age.compared_age_ms(5_000 * MS) == 4_000


def test_each_change_is_told_once() -> None:
    watch = Watch()

    def tell(result: Result) -> str:
        return watch.look(Finding("lag", result, "why"))

    assert tell(Result.PASS) == ""
    assert tell(Result.FAIL) == "lag: not as it should be: why"
    assert tell(Result.FAIL) == ""
    assert tell(Result.UNKNOWN) == "lag: UNKNOWN: why"
    assert tell(Result.PASS) == "lag: as it should be again: why"


def test_unknown_at_the_start_is_told_once_it_has_lasted() -> None:
    watch, finding = Watch(), Finding("digest", Result.UNKNOWN, "why")
    said = [watch.look(finding) for _ in range(2 * LOOKS_AT_START)]
    assert [at for at, text in enumerate(said, 1) if text] == [LOOKS_AT_START]
