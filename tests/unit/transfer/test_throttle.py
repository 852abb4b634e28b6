"""The bucket never lets more through than its rate and one burst; a new rate holds at once."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from replica.model.errors import Code, ZaibeiError
from replica.transfer.edge_pace import Pace
from replica.transfer.throttle import BURST_NS, NS, UNLIMITED, TokenBucket


@pytest.mark.parametrize("seed", range(20))
def test_never_more_than_the_rate_and_a_burst(seed: int) -> None:
    chance, now, rate, taken = random.Random(seed), 0, 1_000_000, 0
    bucket = TokenBucket(rate, now)
    for _ in range(300):
        octets = chance.randint(1, 50_000)
        taken += octets
        now += bucket.take(octets, now) + chance.randint(0, 2_000_000)
    assert taken <= rate * now // NS + rate * BURST_NS // NS + 50_000


def test_a_steady_taker_gets_the_whole_rate() -> None:
    now, bucket = 0, TokenBucket(1_000_000, 0)
    for _ in range(1_000):
        now += bucket.take(10_000, now)
    assert 9.5 * NS <= now <= 10 * NS


def test_unlimited_never_waits_and_a_rate_can_be_set_in_between() -> None:
    bucket = TokenBucket(UNLIMITED, 0)
    assert bucket.take(1 << 40, 0) == 0
    bucket.set_rate(1_000, 5)
    assert bucket.take(2_000, 5) > NS
    bucket.set_rate(UNLIMITED, 6)
    assert bucket.take(1 << 40, 6) == 0


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(1_000, 10)
    bucket.take(250, 10)
    assert bucket.take(100, 5) > 0


def test_a_negative_rate_is_refused() -> None:
    with pytest.raises(ZaibeiError) as refused:
        TokenBucket(-1, 0)
    assert refused.value.code is Code.INVALID_CONFIG


async def test_a_pace_yields_while_pressed() -> None:
    pressed = False
    pace = Pace(UNLIMITED, 1_000_000, lambda: pressed)
    assert pace.take(1 << 30) == 0
    pressed = True
    assert pace.take(1_000_000) > 0.5
    pressed = False
    assert pace.take(1 << 30) == 0
    pace.octets_per_s = 10_000_000
    before = time.monotonic()
    for _ in range(10):
        await pace.wait(400_000)
    await asyncio.to_thread(pace.sleep, 1)
    assert time.monotonic() - before > 0.1
