"""A race of attempts: the next one starts after a short delay, or at once when one before it failed; the first success wins."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from replica.model.errors import Code, ZaibeiError, require

HEDGE_DELAY_S = 0.05
ATTEMPTS_IN_FLIGHT_MAX = 8

T = TypeVar("T")


async def first_of(
    attempts: Sequence[Callable[[], Awaitable[T]]],
    delay_s: float = HEDGE_DELAY_S,
    *,
    weak: Callable[[T], bool] = lambda _: False,
    weak_wait_s: float = 0.0,
) -> T:
    """Run attempts hedged until one returns; all others are cancelled before this returns.

    Args:
        attempts: in order of preference; a failed one raises ZaibeiError.
        delay_s: how long one may stay silent before the next starts beside it.
        weak: results that win only when no attempt is left, or `weak_wait_s` after the first of them.
    Returns:
        What the first successful attempt returned.
    Raises:
        ZaibeiError: of the last attempt that failed, when all did.
    """
    require(attempts, "a race needs attempts")
    waiting = list(attempts)
    running: set[asyncio.Future[T]] = set()
    held: list[T] = []
    held_until = math.inf
    last = ZaibeiError(Code.UNREACHABLE, "nothing was tried", definite=False, retry=True)
    clock = asyncio.get_running_loop().time
    try:
        while (waiting or running) and clock() < held_until:
            if waiting and len(running) < ATTEMPTS_IN_FLIGHT_MAX:
                running.add(asyncio.ensure_future(waiting.pop(0)()))
            limit_s = min(delay_s if waiting else math.inf, held_until - clock())
            done, running = await asyncio.wait(
                running, timeout=None if limit_s == math.inf else limit_s, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                try:
                    result = task.result()
                except ZaibeiError as exc:
                    last = exc
                    continue
                if not weak(result):
                    return result
                held.append(result)
                held_until = min(held_until, clock() + weak_wait_s)
        if held:
            return held[0]
        raise last
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)


async def one_after_another(attempts: Sequence[Callable[[], Awaitable[T]]]) -> T:
    """The deployed resolvers' way: the next only when the one before it has failed. Raises the last ZaibeiError."""
    require(attempts, "a walk needs attempts")
    last = ZaibeiError(Code.UNREACHABLE, "nothing was tried", definite=False, retry=True)
    for attempt in attempts:
        try:
            return await attempt()
        except ZaibeiError as exc:
            last = exc
    raise last
