"""The line of a source is slow and loses much, and then passes nothing of its feed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from chaos.rigs.frames import FrameRule
from tests.faults.acts import Stage
from tests.faults.cluster import Cluster
from tests.faults.feeding import RPO_S
from tests.faults.wires import equal_everywhere, parts, with_home

LOOK_EVERY_S = 0.25
LAG_S_MAX = 8.0  # of any copy while the source's line is bad: TCP itself repeats what was lost twice after 4 s
KNOWN_SHARE_MIN = 0.2  # of looks that told a lag; fewer say nothing: 2 s after the last beat it is UNKNOWN, as it should be
HELD_LATE_S = 0.5  # that a commit may return after its time, on a busy machine


@dataclass(frozen=True, slots=True)
class SourceLine:
    """All between the source and members is late or lost; nobody takes over, lag stays bounded. `dumb_s`: then for so long
    nothing of its feed passes, while its beats and its own site do: its registry has to wait."""

    rule: FrameRule
    for_s: float
    dumb_s: float
    feed_every_s: float

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        cluster, lab = parts(stage)
        feeding = cluster.feeding
        rule, pairs, before = replace(self.rule, ports=feeding.ports()), with_home(cluster), lab.counts()
        async with lab.ruled(pairs, rule, f"source's line {self.rule}"):
            looks = asyncio.create_task(self._watch(stage, cluster))
            await asyncio.sleep(self.for_s)
            await looks
            feeds = tuple(seat.ports["feed"] for seat in cluster.seats.values())
            begun, cut_s = feeding.begun, time.monotonic()
            async with lab.ruled(pairs, FrameRule(ports=feeds, lost=1), "source's feed is cut"):
                await asyncio.sleep(self.dumb_s)
                pressed = feeding.begun - begun
            # A receipt on its way when the feed is cut lets commits go that waited, many at once, for RPO_S more.
            over_s = cut_s + (self.rule.delay_ms + self.rule.jitter_ms) / 1_000 + RPO_S + HELD_LATE_S
            late = sum(over_s < at_s < cut_s + self.dumb_s for at_s in feeding.returned_s)
            stage.facts["held back"] = f"{late} commits of {pressed} went on when no receipt had come for too long"
            if pressed < self.dumb_s / self.feed_every_s / 2:
                stage.unsure.append(f"only {pressed} commits were tried while nothing could be receipted")
            if late:
                stage.unmet.append(f"{late} commits went on while nothing was receipted: the source was not held back")
            yield
        stage.facts["packets lost"] = lab.counts()["lost"] - before["lost"]
        await equal_everywhere(stage, cluster)

    async def _watch(self, stage: Stage, cluster: Cluster) -> None:
        """Once it has settled: what members say of the source and of their lag."""
        lags: list[float | None] = []
        owners = set[str]()
        end_s = time.monotonic() + self.for_s - LOOK_EVERY_S
        await asyncio.sleep(min(2.0, self.for_s / 3))
        while time.monotonic() < end_s:
            for seen in await asyncio.gather(*map(cluster.source_at, cluster.seats)):
                if seen is not None:
                    lags.append(seen.lag_s)
                    owners.add(seen.authority)
            await asyncio.sleep(LOOK_EVERY_S)
        known = [lag for lag in lags if lag is not None]
        stage.facts["lag"] = f"{max(known, default=-1):.1f} s at most, known {len(known)} of {len(lags)} times"
        if not lags:
            stage.unsure.append("no member said how far it was behind")
            return
        if owners != {"SOURCE"}:
            stage.unmet.append(f"somebody took a living source over: {sorted(owners)}")
        if max(known, default=0) > LAG_S_MAX:
            stage.unmet.append(f"copies lagged: {stage.facts['lag']}, allowed {LAG_S_MAX} s")
        elif len(known) < len(lags) * KNOWN_SHARE_MIN:
            stage.unsure.append(f"too seldom known to say how far copies lagged: {stage.facts['lag']}")
