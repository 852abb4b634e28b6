"""Two sites that do not hear each other for a while: the source with a minority of members at one, the majority at the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from chaos.rigs.frames import FrameRule
from replica.client.guard import Guard, LeaseLost
from tests.faults.acts import Stage
from tests.faults.cluster import Cluster
from tests.faults.wires import parts

LEASE_S, RENEW_S = 30.0, 5.0  # as guards ask by themselves (replica/agent/write_lease.py)
SLACK_S = 1.5  # of a lease's end: the last renewal before the cut, and the clock of this runner
REGISTERS_EVERY_S = 0.5
FIRST_LEASE_S_MAX = 20.0
LOOK_EVERY_S = 0.25
LOST = FrameRule(lost=1)


@dataclass(slots=True)
class Desk:
    """The registry's own clients: when each was told yes, and when no; seconds of one clock that never jumps."""

    yes: list[float] = field(default_factory=list)
    no: list[float] = field(default_factory=list)

    async def registers(self, cluster: Cluster, guard: Guard) -> None:
        """One registration after the other: committed at the node, then acknowledged if the guard lets it. Until cancelled."""
        number = 0
        while True:
            number += 1
            await cluster.feeding.register(f"REG-{number}")
            try:
                with guard.acknowledging():
                    self.yes.append(time.monotonic())
            except LeaseLost:
                self.no.append(time.monotonic())
            await asyncio.sleep(REGISTERS_EVERY_S)


@dataclass(frozen=True, slots=True)
class SitesApart:
    """Members of `site` keep the source and lose the others; the others lose the source too. All of it is back at once.

    `degraded_s_max`: from the cut until all is as before it, without anybody's hand.
    """

    site: str
    degraded_s_max: float

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        cluster, lab = parts(stage)
        near = [member for member, seat in cluster.seats.items() if seat.zone == self.site]
        far = [member for member in cluster.seats if member not in near]
        home, desk = cluster.home, Desk()
        assert home is not None
        guard = await asyncio.to_thread(cluster.feeding.guard)
        if not await asyncio.to_thread(guard.wait, FIRST_LEASE_S_MAX):
            stage.unmet.append(f"the source got no lease within {FIRST_LEASE_S_MAX:.0f} s")
        registry = asyncio.create_task(desk.registers(cluster, guard))
        try:
            await asyncio.sleep(1)
            theirs = FrameRule(ports=cluster.feeding.ports(), lost=1)
            source = [pair for member in far for pair in ((home, member), (member, home))]
            cut_s = time.monotonic()
            async with lab.parted(near, far), lab.ruled(source, theirs, f"source loses {far}"):
                yield
                others = await self._owners(cluster, far)
                healed_s = time.monotonic()
            await self._returns(stage, cluster, guard, cut_s)
            await asyncio.sleep(1)
        finally:
            registry.cancel()
            await asyncio.gather(registry, return_exceptions=True)
            await asyncio.to_thread(guard.close)
        stage.facts["at the other site meanwhile"] = " ".join(sorted(others))
        self._judge(stage, desk, cut_s, healed_s)

    async def _owners(self, cluster: Cluster, members: Sequence[int]) -> set[str]:
        found = await asyncio.gather(*map(cluster.source_at, members))
        return {seen.authority for seen in found if seen is not None}

    async def _returns(self, stage: Stage, cluster: Cluster, guard: Guard, cut_s: float) -> None:
        async def as_before() -> bool:
            found = await asyncio.gather(*map(cluster.source_at, cluster.seats))
            return guard.valid and all(
                seen is not None
                and (seen.authority, seen.freshness, seen.feed) == ("SOURCE", "fresh", "FLOWING")
                and seen.digest_check == seen.lag_check == "pass"
                for seen in found
            )

        left_s = cut_s + self.degraded_s_max - time.monotonic()
        try:
            await cluster.until("all is as before the cut", as_before, left_s)
        except TimeoutError as exc:
            found = await asyncio.gather(*map(cluster.source_at, cluster.seats))
            stage.unmet.append(f"{str(exc)[:200]}: lease {guard.state}, {found}"[:1_500])
        stage.facts["degraded s"] = round(time.monotonic() - cut_s, 1)

    def _judge(self, stage: Stage, desk: Desk, cut_s: float, healed_s: float) -> None:
        """Within its lease the source goes on, behind it nothing is acknowledged, and after the heal it goes on again."""
        apart = [at_s for at_s in desk.yes if cut_s < at_s < healed_s]
        went_on_s = max(apart, default=cut_s) - cut_s
        again_s = min((at_s for at_s in desk.yes if at_s > healed_s), default=None)
        stage.facts["source went on s"] = round(went_on_s, 1)
        stage.facts["registrations"] = f"{len(apart)} while apart, {len(desk.no)} refused"
        stage.facts["source again after ms"] = None if again_s is None else round((again_s - healed_s) * 1_000)
        early = [at_s for at_s in desk.no if cut_s < at_s < cut_s + LEASE_S - RENEW_S - SLACK_S]
        if early:
            stage.unmet.append(
                f"{len(early)} registrations were refused within the lease, {early[0] - cut_s:.1f} s after the cut"
            )
        if went_on_s > LEASE_S + SLACK_S:
            stage.unmet.append(
                f"a registration was acknowledged {went_on_s:.1f} s after the cut, with a lease of {LEASE_S:.0f} s"
            )
        if not apart or again_s is None:
            stage.unmet.append(f"the source acknowledged {len(apart)} registrations while apart, and again after {again_s}")
