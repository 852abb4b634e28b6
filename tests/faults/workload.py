"""Clients of a run: each asks one thing at a time, by a seed, and writes down when it asked, what it was told and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from random import Random
from typing import TYPE_CHECKING

from chaos.check.history import Op, Operation, Value
from tests.faults.system import Register, Told

if TYPE_CHECKING:
    from tests.faults.scenario import Load

FINAL_S_MAX = 30.0
FINAL_PAUSE_S = 0.05


@dataclass(slots=True)
class History:
    """Operations in the order in which they ended, and the numbers that writes take: each is used once."""

    operations: list[Operation] = field(default_factory=list)
    number: int = 0
    asked: int = 0  # names that were asked of one member after the other until one answered
    unanswered: list[str] = field(default_factory=list)  # of them, where no member did, and why

    def next(self) -> int:
        self.number += 1
        return self.number

    def note(
        self, client: str, key: str, op: Op, told: Told, began_ns: int, *, value: Value = None, wanted: Value = None
    ) -> None:
        saw = told.saw or (op is Op.GET and told.ok is True)
        ended_ns = time.monotonic_ns()
        self.operations.append(Operation(client, key, op, value, wanted, told.out, saw, told.ok, began_ns, ended_ns))

    def acked(self) -> list[Operation]:
        """Acknowledged writes, by when they were."""
        found = [one for one in self.operations if one.ok is True and one.op in (Op.PUT, Op.APPEND, Op.CAS)]
        return sorted(found, key=lambda one: one.t1_ns)

    def longest_pause_ms(self, since_ns: int, until_ns: int) -> float:
        """Longest time without an acknowledged registration."""
        times = [one.t1_ns for one in self.acked() if one.client[0] == "c" and since_ns <= one.t1_ns <= until_ns]
        marks = [since_ns, *times, until_ns]
        return max(later - early for early, later in pairwise(marks)) / 1e6

    def answers_p99_ms(self) -> dict[str, float]:
        """By member that was asked: within which time 99 of 100 answers came (nearest rank), failed ones included."""
        took: dict[str, list[int]] = {}
        for one in self.operations:
            if one.op is Op.RESOLVE:
                took.setdefault(one.client, []).append(one.t1_ns - one.t0_ns)
        return {client: sorted(times)[ceil(0.99 * len(times)) - 1] / 1e6 for client, times in took.items()}


class Client:
    """One client. Lists are appended to, values are put or swapped from what this client saw last."""

    def __init__(self, name: str, register: Register, load: Load, history: History, seed: int) -> None:
        self._name, self._register, self._load, self._history = name, register, load, history
        self._chance = Random(f"{seed} {name}")
        self._seen: dict[str, Value] = {}

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.one()
            await asyncio.sleep(self._load.pause_ms / 1_000 * self._chance.uniform(0.5, 1.5))

    async def one(self) -> None:
        place = self._chance.randrange(self._load.lists + self._load.values)
        key = keys_of(self._load)[place]
        began_ns = time.monotonic_ns()
        if self._chance.random() < self._load.reads:
            told = await self._register.get(key)
            if told.ok:
                self._seen[key] = told.out
            self._history.note(self._name, key, Op.GET, told, began_ns)
        elif key.startswith("list"):
            value = self._history.next()
            told = await self._register.append(key, value)
            self._history.note(self._name, key, Op.APPEND, told, began_ns, value=value)
        elif self._chance.random() < 0.5 and key in self._seen:
            value, wanted = self._history.next(), self._seen[key]
            told = await self._register.cas(key, wanted, value)
            self._history.note(self._name, key, Op.CAS, told, began_ns, value=value, wanted=wanted)
            self._seen.pop(key)
        else:
            value = self._history.next()
            told = await self._register.put(key, value)
            self._history.note(self._name, key, Op.PUT, told, began_ns, value=value)


async def read_finally(register: Register, keys: Sequence[str], history: History) -> list[str]:
    """What everybody ends with; returns the keys that could not be read."""
    unread = []
    for key in keys:
        end = time.monotonic() + FINAL_S_MAX
        while True:
            began_ns = time.monotonic_ns()
            told = await register.get(key)
            if told.ok:
                history.note("final", key, Op.GET, told, began_ns)
                break
            if time.monotonic() > end:
                unread.append(key)
                break
            await asyncio.sleep(FINAL_PAUSE_S)
    return unread


def keys_of(load: Load) -> list[str]:
    return [*(f"list-{n}{load.tag}" for n in range(load.lists)), *(f"value-{n}{load.tag}" for n in range(load.values))]
