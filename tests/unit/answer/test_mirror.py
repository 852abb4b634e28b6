"""The sampled comparison: ppm by cause, never more certain than its samples, and places spread over a range of keys."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from hosting.answer.mirror import (
    GRACE_MS,
    INTERVAL_MS,
    SAMPLES_MIN,
    WINDOW_MS,
    Mirror,
    Verdict,
    random_key,
)
from replica.model.handle.values import HandleValue, Permission, content_of
from replica.model.states import Result


def filled(*verdicts: tuple[Verdict, int], step_ms: int = 10) -> tuple[Mirror, int]:
    mirror, now_ms = Mirror(), 0
    for verdict, count in verdicts:
        for _ in range(count):
            now_ms += step_ms
            mirror.sampled("88.118.8/A", verdict, now_ms)
    return mirror, now_ms


def test_causes_are_counted_apart_in_ppm() -> None:
    mirror, now_ms = filled((Verdict.SAME, 990), (Verdict.LAG, 8), (Verdict.CONTENT, 2))
    found = mirror.comparison(now_ms)
    assert (found.result, found.lag_ppm, found.content_ppm, found.samples) == (Result.FAIL, 8_000, 2_000, 1_000)
    assert "10000 ppm" in found.detail
    assert found.examples == ("88.118.8/A", "88.118.8/A")


def test_lag_alone_is_no_failure_and_silence_counts_for_nothing() -> None:
    mirror, now_ms = filled((Verdict.UNTOLD, 500), (Verdict.SAME, 999), (Verdict.LAG, 1))
    found = mirror.comparison(now_ms)
    assert (found.result, found.lag_ppm, found.content_ppm, found.untold) == (Result.PASS, 1_000, 0, 500)


def test_few_old_or_unanswered_samples_are_unknown() -> None:
    mirror, now_ms = filled((Verdict.SAME, SAMPLES_MIN - 1))
    assert mirror.comparison(now_ms).result is Result.UNKNOWN
    mirror, now_ms = filled((Verdict.SAME, SAMPLES_MIN))
    assert mirror.comparison(now_ms + INTERVAL_MS + GRACE_MS).result is Result.PASS
    late = mirror.comparison(now_ms + INTERVAL_MS + GRACE_MS + 1)
    assert (late.result, late.lag_ppm, late.content_ppm) == (Result.UNKNOWN, None, None)
    for _ in range(50):  # the node answers no more: what it said before proves nothing about now
        now_ms += INTERVAL_MS
        mirror.sampled("x", Verdict.UNTOLD, now_ms)
    assert mirror.comparison(now_ms).result is Result.UNKNOWN


def test_what_is_older_than_the_window_is_forgotten() -> None:
    mirror, now_ms = filled((Verdict.CONTENT, 200))
    later_ms = now_ms + WINDOW_MS + 1
    for _ in range(SAMPLES_MIN):
        mirror.sampled("x", Verdict.SAME, later_ms)
    found = mirror.comparison(later_ms)
    assert (found.result, found.content_ppm, found.samples) == (Result.PASS, 0, SAMPLES_MIN)


def test_ttl_timestamp_and_private_values_are_the_nodes_own_affair() -> None:
    ours = (HandleValue(1, b"URL", b"x", ttl=60, timestamp=5), HandleValue(2, b"HS_SECKEY", b"s", permissions=0))
    theirs = (HandleValue(1, b"URL", b"x", ttl=86_400, timestamp=9),)
    assert content_of(ours) == content_of(theirs)
    assert content_of(ours) != content_of((HandleValue(1, b"URL", b"y"),))
    assert ours[0].permissions & Permission.PUBLIC_READ


keys = st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=40, unique=True).map(sorted)


def asker(found: list[bytes]) -> Callable[[bytes], bytes | None]:
    def first_from(place: bytes) -> bytes | None:
        at = bisect_left(found, place)
        return found[at] if at < len(found) else None

    return first_from


@given(keys, st.binary(max_size=2), st.integers(0, 2**32))
def test_a_random_key_is_one_of_those_that_begin_so(found: list[bytes], start: bytes, seed: int) -> None:
    key = random_key(asker(found), start, random.Random(seed).randrange)
    those = [one for one in found if one.startswith(start)]
    assert key in those if those else key is None


def test_random_keys_reach_all_parts_of_a_registry_alike() -> None:
    chance = random.Random(1)
    registry = sorted(b"h88\x01118\x018\x00XYZ-%06d" % number for number in range(20_000))
    counts = [0] * 20
    for _ in range(2_000):
        key = random_key(asker(registry), b"h", chance.randrange)
        assert key is not None
        counts[bisect_left(registry, key) * 20 // len(registry)] += 1
    assert min(counts) > 50
    assert max(counts) < 200
