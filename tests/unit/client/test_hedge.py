"""Races of attempts: order, delay, first right answer, cancelled losers, weak answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hosting.client.hedge import ATTEMPTS_IN_FLIGHT_MAX, first_of, one_after_another
from replica.model.errors import Code, InvariantBroken, ZaibeiError

NEVER = 3_600.0


class Field:
    """Attempts that note what happens to them."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []

    def runner(self, name: str, after_s: float, error: BaseException | None = None) -> Callable[[], Awaitable[str]]:
        async def attempt() -> str:
            self.started.append(name)
            try:
                await asyncio.sleep(after_s)
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
            if error is not None:
                raise error
            return name

        return attempt


GONE = ZaibeiError(Code.UNREACHABLE, "gone")


async def test_a_quick_first_answer_starts_nobody_else() -> None:
    field = Field()
    assert await first_of([field.runner("a", 0), field.runner("b", 0)], NEVER) == "a"
    assert field.started == ["a"]


async def test_silence_starts_the_next_and_the_loser_is_cancelled() -> None:
    field = Field()
    assert await first_of([field.runner("a", NEVER), field.runner("b", 0)], 0.01) == "b"
    assert field.cancelled == ["a"]


async def test_a_failure_starts_the_next_at_once() -> None:
    field = Field()
    assert await first_of([field.runner("a", 0, GONE), field.runner("b", 0)], NEVER) == "b"


async def test_the_slow_first_may_still_win() -> None:
    field = Field()
    assert await first_of([field.runner("a", 0.05), field.runner("b", NEVER)], 0.01) == "a"
    assert field.cancelled == ["b"]


async def test_when_all_fail_the_last_failure_is_told() -> None:
    field = Field()
    with pytest.raises(ZaibeiError, match="two"):
        await first_of([field.runner("a", 0, GONE), field.runner("b", 0, ZaibeiError(Code.UNREACHABLE, "two"))], NEVER)


async def test_a_bug_is_not_taken_for_a_failed_attempt() -> None:
    field = Field()
    with pytest.raises(ZeroDivisionError):
        await first_of([field.runner("a", 0, ZeroDivisionError()), field.runner("b", NEVER)], NEVER)


async def test_a_weak_answer_waits_for_a_strong_one() -> None:
    field = Field()
    strong_later = [field.runner("strong", 0.05), field.runner("weak", 0)]
    assert await first_of(strong_later, 0.001, weak=lambda name: name == "weak", weak_wait_s=NEVER) == "strong"


async def test_a_weak_answer_wins_when_nobody_is_left_or_after_its_wait() -> None:
    field = Field()
    failing = [field.runner("a", 0.01, GONE), field.runner("weak", 0)]
    assert await first_of(failing, 0.001, weak=lambda name: name == "weak", weak_wait_s=NEVER) == "weak"
    hanging = [field.runner("b", NEVER), field.runner("weak", 0)]
    assert await first_of(hanging, 0.001, weak=lambda name: name == "weak", weak_wait_s=0.02) == "weak"
    assert "b" in field.cancelled


async def test_attempts_in_flight_are_bounded() -> None:
    field = Field()
    many = [field.runner(str(place), NEVER) for place in range(3 * ATTEMPTS_IN_FLIGHT_MAX)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(first_of(many, 0.001), 0.2)
    assert len(field.started) == ATTEMPTS_IN_FLIGHT_MAX
    assert len(field.cancelled) == ATTEMPTS_IN_FLIGHT_MAX


async def test_a_cancelled_race_cancels_its_attempts() -> None:
    field = Field()
    race = asyncio.create_task(first_of([field.runner("a", NEVER)], NEVER))
    await asyncio.sleep(0.01)
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    assert field.cancelled == ["a"]


async def test_one_after_another_waits_for_each() -> None:
    field = Field()
    assert await one_after_another([field.runner("a", 0.01, GONE), field.runner("b", 0), field.runner("c", 0)]) == "b"
    assert field.started == ["a", "b"]
    with pytest.raises(ZaibeiError, match="gone"):
        await one_after_another([field.runner("a", 0, GONE)])


async def test_a_race_needs_attempts() -> None:
    with pytest.raises(InvariantBroken):
        await first_of([])
