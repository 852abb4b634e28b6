"""Acts on a member's time: it stands still right before a sync of its own, or its wall clock is another one's."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from chaos.faults.edge_process import thread_states
from chaos.faults.edge_shim import Call
from chaos.faults.fault import Fault
from ops.admin.values import SourceStatus
from tests.faults.acts import Stage, Target

STOPS_S_MAX = 20.0
LAG_S_MAX = 5.0  # of the fed source, by the member's own word, while its clock is wrong
FRESH_SHARE_MIN = 0.7  # of the looks at its copy meanwhile: for a moment a new leader may not know
LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class StandsBeforeSync:
    """The process of the target stops right before its n-th fsync from now on: what it writes it began as it was right to, and
    goes on with it when the others have long gone on without it."""

    who: Target
    skip: int = 0

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        [member] = await self.who.choose(stage)
        pid = stage.system.pids()[member]

        async def stands() -> bool:
            return bool(states := thread_states(pid)) and all(state in ("T", "t") for state in states)

        async def goes_on() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        async with stage.shim(member).stops_at(stage.files(member), Call.SYNC, self.skip):
            try:
                await stage.system.until(f"member {member} stands before a sync", stands, STOPS_S_MAX)
            except TimeoutError as exc:
                stage.unsure.append(str(exc))
            async with Fault(f"stands {member}", lambda: asyncio.sleep(0), goes_on, stage.system.log):
                yield


@dataclass(frozen=True, slots=True)
class ClockIsWrong:
    """The target's wall clock jumps, and drifts on. Meanwhile it knows how old its copy is, and answers fresh."""

    who: Target
    by_s: float
    drift_ppm: int = 0

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        [member] = await self.who.choose(stage)
        async with stage.shim(member).clock_moved(round(self.by_s * 1_000), self.drift_ppm):
            watching = asyncio.create_task(self._watch(stage, member))
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                if not watching.cancelled() and (failed := watching.exception()) is not None:
                    raise failed

    async def _watch(self, stage: Stage, member: int) -> None:
        """What it says twice a second, from a second after the jump; taken to the stage's lists when this is cancelled."""
        looks: list[SourceStatus | None] = []
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                looks.append(await stage.system.source_at(member))
        finally:
            self._judged(stage, member, looks)

    def _judged(self, stage: Stage, member: int, looks: list[SourceStatus | None]) -> None:
        off = f"{self.by_s:+.0f} s {self.drift_ppm:+} ppm"
        known = [look.lag_s for look in looks if look is not None and look.lag_s is not None]
        fresh = sum(look is not None and look.freshness == "fresh" for look in looks)
        stage.facts[f"lag at {off}"] = f"{max(known, default=-1):.1f} s at most, fresh {fresh} of {len(looks)}"
        if not looks:
            stage.unsure.append(f"nobody looked at member {member} while its clock was wrong")
        elif wrong := [lag for lag in known if not 0 <= lag <= LAG_S_MAX]:
            stage.unmet.append(f"member {member}, {off} off, said that its copy was {wrong[0]:.1f} s old")
        elif fresh < len(looks) * FRESH_SHARE_MIN:
            stage.unmet.append(f"member {member}, {off} off, called its copy fresh {fresh} of {len(looks)} times")
