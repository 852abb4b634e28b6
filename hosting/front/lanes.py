"""What one batch asks of one source, and what of it is asked at all: limits by identifier, quotas by tenant. Pure.

One code for all protocols: the batcher's sinks and the columns of gRPC give their questions here before a store is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from hosting.answer.question import Answer
from hosting.answer.resolve import Plan
from hosting.answer.standing import TRY_ANOTHER
from hosting.guard.guard import Guard
from replica.model.tenant_view import TenantView

ASKED_TOO_OFTEN = Answer(TRY_ANOTHER, b"this identifier is asked for too often here; ask another site")
OVER_QUOTA = Answer(TRY_ANOTHER, b"this tenant is over its quota of resolutions here; ask another site")

Job = TypeVar("Job")


class Lane(Generic[Job]):
    """The questions of one batch to one source: `jobs` need one key each, in the order of `keys`; `plans` several."""

    __slots__ = ("jobs", "keys", "plans")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.jobs: list[Job] = []
        self.plans: list[tuple[Job, Plan]] = []

    def __len__(self) -> int:
        return len(self.jobs) + len(self.plans)

    @property
    def wants(self) -> list[bytes]:
        """Keys to read: of the jobs, then of each plan."""
        return self.keys + [key for _, todo in self.plans for key in todo.keys] if self.plans else self.keys

    @property
    def names(self) -> list[bytes]:
        """The keys of what is asked for, without those that only lead to it."""
        return self.keys + [todo.keys[0] for _, todo in self.plans] if self.plans else self.keys

    def cut(self, most: int) -> list[Job]:
        """Keep so many questions, the short ones before the others; what is given back stays without a read."""
        if most >= len(self):
            return []
        plans = max(0, most - len(self.jobs))
        gone = [*self.jobs[most:], *(job for job, _ in self.plans[plans:])]
        del self.jobs[most:], self.keys[most:], self.plans[plans:]
        return gone

    def drop(self, names: set[bytes]) -> list[Job]:
        """Take out the questions for these names."""
        held = [job for job, key in zip(self.jobs, self.keys, strict=True) if key in names]
        held += [job for job, todo in self.plans if todo.keys[0] in names]
        self.jobs = [job for job, key in zip(self.jobs, self.keys, strict=True) if key not in names]
        self.keys = [key for key in self.keys if key not in names]
        self.plans = [(job, todo) for job, todo in self.plans if todo.keys[0] not in names]
        return held


def held_back(
    lanes: dict[str, Lane[Job]], guard: Guard, tenants: Mapping[str, TenantView], now_s: float
) -> list[tuple[list[Job], Answer]]:
    """Take out what the guard holds back, and lanes that are empty then: of a flood no store is asked.

    Args:
        lanes: by source; changed.
        tenants: those with a quota. now_s: a clock that never goes back.
    Returns:
        Jobs, and what each of them is answered.
    """
    refused: list[tuple[list[Job], Answer]] = []
    for source, lane in list(lanes.items()):
        over = guard.names(lane.names, int(now_s))
        if over:
            refused.append((lane.drop(over), ASKED_TOO_OFTEN))
        quota = tenants.get(source)
        if quota is not None:
            refused.append((lane.cut(guard.tenant(source, quota, len(lane), now_s)), OVER_QUOTA))
        if not len(lane):
            del lanes[source]
    return refused
