"""Looks at our own published addresses round after round, from here and through others (families.py judges)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from replica.takeover.edge_metrics import TakeoverMetrics
from replica.takeover.edge_probe import ENDPOINTS_MAX, Probe, probe
from replica.takeover.families import Families, Look, endpoints_of

LOOK_EVERY_S = 2.0
ANSWER_S_MAX = 1.0

Outside = Callable[[bytes], Awaitable[Mapping[str, Mapping[str, bool]]]]
"""Takes our site; by name of each other member that looked: address -> whether it answered."""


async def who_answers(site: bytes, asks: Probe = probe) -> dict[str, bool]:
    """Ask each address of a site at once, the first ENDPOINTS_MAX of them.

    Returns:
        Address -> whether it gave a well-formed answer within ANSWER_S_MAX.
    """
    ways = list(endpoints_of(site).items())[:ENDPOINTS_MAX]
    answers = await asyncio.gather(*(asks(endpoints, "", limit_s=ANSWER_S_MAX) for _, endpoints in ways))
    return {host: answered for (host, _), answered in zip(ways, answers, strict=True)}


class FamilyWatch:
    """See the module.

    Args:
        outside: None: this member works alone.
    """

    def __init__(
        self, families: Families, outside: Outside | None, metrics: TakeoverMetrics | None = None, asks: Probe = probe
    ) -> None:
        self._families, self._outside, self._metrics, self._asks = families, outside, metrics, asks

    async def run(self) -> None:
        """Until cancelled."""
        while self._families.watched:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """One round."""
        site = self._families.site
        outside = dict[str, Mapping[str, bool]]()
        if self._outside is None:
            here = await who_answers(site, self._asks)
        else:
            here, told = await asyncio.gather(who_answers(site, self._asks), self._outside(site))
            outside.update(told)
        looks = {
            host: Look(
                here=answered,
                outside={name: seen[host] for name, seen in outside.items() if host in seen},
                alone=self._outside is None,
            )
            for host, answered in here.items()
        }
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._families.looked(looks, now_ns)
        if self._metrics is not None:
            for row in self._families.rows(now_ns):
                self._metrics.address(str(row["address"]), str(row["family"]), str(row["state"]))
