"""Acts on the links between members beyond a plain partition: some pairs are apart, or links stop and come back one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import combinations

from chaos.faults.fault import Fault
from tests.faults.acts import Stage

Pair = tuple[int, int]  # without a direction


def bridged(middle: int, others: list[int]) -> list[Pair]:
    """Pairs to cut so that two halves of the others, the larger one first, hear each other only through the one in the middle."""
    half = (len(others) + 1) // 2
    return [(one, other) for one in others[:half] for other in others[half:] if middle not in (one, other)]


def ringed(order: list[int]) -> list[Pair]:
    """Pairs to cut so that each hears only the one before and the one behind it in a ring."""
    count = len(order)
    return [(order[one], order[other]) for one, other in combinations(range(count), 2) if other - one not in (1, count - 1)]


def apart(stage: Stage, pair: Pair) -> Fault:
    """Nothing passes between two members, either way."""
    return (stage.system.lab or stage.system.mesh).parted([pair[0]], [pair[1]])


@asynccontextmanager
async def cut(stage: Stage, pairs: Iterable[Pair]) -> AsyncIterator[None]:
    """All of these apart at once; all of them are healed, whatever happens to one."""
    faults = [apart(stage, pair) for pair in pairs]
    try:
        for fault in faults:
            await fault.__aenter__()
        yield
    finally:
        await _healed(faults)


async def _healed(faults: Iterable[Fault], pause_s: float = 0) -> None:
    broken: Exception | None = None
    for fault in faults:
        if fault.state.value != "active":
            continue
        try:
            await fault.__aexit__(None, None, None)
        except Exception as exc:  # noqa: BLE001 - the others are healed all the same; it is raised afterwards
            broken = exc
        await asyncio.sleep(pause_s)
    if broken is not None:
        raise broken


@dataclass(frozen=True, slots=True)
class Bridge:
    """Two halves hear each other only through one member. `leads`: the leader is that one; else it sits in the larger half."""

    leads: bool

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        leader = await stage.system.leader()
        others = [member for member in stage.system.seats if member != leader]
        stage.chance.shuffle(others)
        middle = leader if self.leads else others.pop()
        if not self.leads:
            others.insert(0, leader)
        stage.facts["bridges"] = [*_listed(stage, "bridges"), f"m{middle} between, m{leader} led"]
        async with cut(stage, bridged(middle, others)):
            yield


@dataclass(frozen=True, slots=True)
class Ring:
    """Each member hears two neighbours only: of five, a majority each, and no two the same one."""

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        order = list(stage.system.seats)
        stage.chance.shuffle(order)
        stage.facts["ring"] = "-".join(f"m{member}" for member in order)
        async with cut(stage, ringed(order)):
            yield


@dataclass(frozen=True, slots=True)
class Swizzle:
    """All links stop one by one in one random order, and come back one by one in another one (swizzle-clogging).

    Source: Will Wilson, Testing Distributed Systems w/ Deterministic Simulation (2014).
    """

    pause_s: float

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        faults = [apart(stage, pair) for pair in combinations(stage.system.seats, 2)]
        stage.chance.shuffle(faults)
        try:
            for fault in faults:
                await fault.__aenter__()
                await asyncio.sleep(self.pause_s)
            yield
        finally:
            stage.chance.shuffle(faults)
            await _healed(faults, self.pause_s)


def _listed(stage: Stage, name: str) -> list[object]:
    found = stage.facts.get(name, [])
    return [*found] if isinstance(found, list) else [found]
