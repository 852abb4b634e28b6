"""A node at the end of a slow line does not look dead, and a dead one at the end of a fast line is seen dead as soon as ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from replica.model.node import Endpoint
from replica.takeover.edge_probe import ANSWERED_KEPT, LATE_MAX, PacedProbe

SOON_S = 30.0


class Line:
    """A node that answers when it is let; None: it is silent."""

    def __init__(self) -> None:
        self.lets: asyncio.Event | None = None
        self.limits_s: list[float] = []

    async def __call__(self, endpoints: Sequence[Endpoint], prefix: str, *, limit_s: float) -> bool:
        self.limits_s.append(limit_s)
        try:
            async with asyncio.timeout(limit_s):
                await (asyncio.Event() if self.lets is None else self.lets).wait()
        except TimeoutError:
            return False
        return True


async def test_an_answer_that_came_too_late_makes_the_next_limit_longer() -> None:
    line = Line()
    line.lets = asyncio.Event()
    told = list[str]()
    probe = PacedProbe(line, late=lambda: told.append("it lives"), limit_s=0.05, slow_s=SOON_S)
    assert not await probe((), "88.118") and probe.limit_s == 0.05
    await asyncio.sleep(0.1)
    assert not told
    line.lets.set()  # the answer to that very probe, after more than 150 ms
    for _ in range(int(SOON_S / 0.01)):
        if probe.limit_s > 0.05:
            break
        await asyncio.sleep(0.01)
    assert told == ["it lives"]
    assert 0.3 <= probe.limit_s <= SOON_S and line.limits_s == [SOON_S]
    line.lets.clear()
    asyncio.get_running_loop().call_later(0.15, line.lets.set)  # as late as before: it lives
    assert await probe((), "88.118")


async def answered(probe: PacedProbe) -> None:
    async with asyncio.timeout(SOON_S):
        while not probe._took_s:  # noqa: ASYNC110 - no event tells of an answer that nobody waits for any more
            await asyncio.sleep(0)


async def ended(probe: PacedProbe) -> None:
    """Until it has looked again."""
    for _ in range(int(SOON_S / 0.01)):
        if probe._again is not None and probe._again.done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not look again")


async def test_after_a_slow_answer_it_looks_again_at_once_and_forgets_what_was_a_busy_moment() -> None:
    line = Line()
    line.lets = asyncio.Event()
    line.lets.set()
    probe = PacedProbe(line, limit_s=SOON_S / 3, slow_s=SOON_S)
    probe._took_s.append(SOON_S / 4)
    assert probe.limit_s == SOON_S / 2
    assert await probe((), "88.118")
    await ended(probe)
    assert line.limits_s == [SOON_S] * (1 + ANSWERED_KEPT), "so often, and no more"
    assert probe.limit_s == SOON_S / 3


async def test_at_a_line_that_is_slow_nothing_is_forgotten() -> None:
    asked = list[float]()

    async def slow(endpoints: Sequence[Endpoint], prefix: str, *, limit_s: float) -> bool:
        asked.append(limit_s)
        await asyncio.sleep(0.1)
        return True

    probe = PacedProbe(slow, limit_s=0.05, slow_s=SOON_S)
    await probe((), "88.118")
    await ended(probe)
    assert len(asked) == 2 and probe.limit_s >= 0.2


async def test_who_falls_silent_is_not_looked_at_again() -> None:
    line = Line()
    line.lets = asyncio.Event()
    probe = PacedProbe(line, limit_s=0.05, slow_s=0.5)
    assert not await probe((), "88.118")
    line.lets.set()
    await answered(probe)
    line.lets = None
    await ended(probe)
    assert len(line.limits_s) == 2


async def test_who_is_silent_on_a_fast_line_has_failed_within_the_short_limit() -> None:
    line = Line()
    line.lets = asyncio.Event()
    line.lets.set()
    probe = PacedProbe(line, limit_s=0.2, slow_s=SOON_S)
    for _ in range(12):
        assert await probe((), "88.118")
    assert probe.limit_s == 0.2
    line.lets = None
    began_s = asyncio.get_running_loop().time()
    assert not await probe((), "88.118")
    assert 0.19 <= asyncio.get_running_loop().time() - began_s < SOON_S / 2


async def test_probes_that_nobody_waits_for_are_bounded() -> None:
    line = Line()
    probe = PacedProbe(line, limit_s=0.01, slow_s=0.5)
    for _ in range(LATE_MAX + 3):
        assert not await probe((), "88.118")
    assert line.limits_s == [0.5] * LATE_MAX + [0.01] * 3
