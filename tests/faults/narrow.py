"""A member comes back over a narrow line to much that it missed of one group: live changes of another do not wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chaos.rigs.frames import FrameRule
from tests.faults.acts import Stage, rest
from tests.faults.clients import HOSTED
from tests.faults.cluster import Cluster
from tests.faults.wires import parts

LOOK_EVERY_S = 0.1
SETTLED_S = 6.0  # by then it has been called again, and has what it missed of the live group: some 25 entries
BEHIND_MAX = 20  # entries of the live group: some two seconds of registrations
CAUGHT_UP = 5  # entries of the source
UNKNOWN_MAX = 5  # looks at which its leader did not hear it: half a second
NARROW_S_MIN = 3.0  # so long, once settled, it still catches up with the source; else nothing was narrow
ONE_LEADER_S_MAX = 20.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a member lacks of both groups, by their leader; None: the leader does not know, because it does not hear it."""

    at_s: float
    live: int | None
    fed: int | None


@dataclass(frozen=True, slots=True)
class Narrow:
    """A follower of both groups is cut off while the source publishes `names` of `octets` each, and comes back over wires that
    carry `octets_per_s`. While it still catches up with the source it is not behind in registrations."""

    octets_per_s: int
    names: int
    octets: int
    catches_s_max: float

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        cluster, lab = parts(stage)
        leader = await cluster.leader()
        await self._one_leader(cluster, leader)
        back = stage.chance.choice(rest(stage, [leader]))
        others = rest(stage, [back])
        pairs = [pair for other in others for pair in ((back, other), (other, back))]
        async with lab.ruled(pairs, FrameRule(octets_per_s=self.octets_per_s), f"narrow wires of {back}"):
            async with lab.parted([back], others):
                await cluster.feeding.publish(self.names, self.octets, stage.chance)
            self._judge(stage, await self._looks(cluster, leader, back))
            yield

    async def _one_leader(self, cluster: Cluster, leader: int) -> None:
        """What the two groups have to say to that member then leaves on one link."""
        await cluster.transfer(cluster.feeding.name, leader)

        async def leads_both() -> bool:
            led, _ = await cluster.led_and_lacked(leader, leader)
            return {HOSTED, cluster.feeding.name} <= led

        await cluster.until("one member leads both groups", leads_both, ONE_LEADER_S_MAX)

    async def _looks(self, cluster: Cluster, leader: int, back: int) -> list[Look]:
        """Until it has caught up with the source, or for so long."""
        began_s, looks = time.monotonic(), list[Look]()
        while time.monotonic() - began_s < self.catches_s_max:
            _, lacks = await cluster.led_and_lacked(leader, back)
            look = Look(time.monotonic() - began_s, lacks.get(HOSTED), lacks.get(cluster.feeding.name))
            looks.append(look)
            if look.at_s > SETTLED_S and look.fed is not None and look.fed <= CAUGHT_UP:
                break
            await asyncio.sleep(LOOK_EVERY_S)
        return looks

    @staticmethod
    def _judge(stage: Stage, looks: list[Look]) -> None:
        settled = [one for one in looks if one.at_s > SETTLED_S]
        known = [one.live for one in settled if one.live is not None]
        most, last = max(known, default=-1), looks[-1]
        stage.facts["caught up with the source after s"] = round(last.at_s, 1)
        stage.facts["of live entries it lacked"] = f"{most} at most meanwhile, known at {len(known)} of {len(settled)} looks"
        if last.fed is None or last.fed > CAUGHT_UP:
            stage.unmet.append(f"it did not catch up with the source: {last.fed} entries behind after {last.at_s:.0f} s")
        if most > BEHIND_MAX:
            stage.unmet.append(f"live changes waited for the catch-up: {most} entries behind, allowed {BEHIND_MAX}")
        if len(settled) - len(known) > UNKNOWN_MAX:
            stage.unmet.append(f"over a narrow line it was taken for dead: unknown at {len(settled) - len(known)} looks")
        if last.at_s < SETTLED_S + NARROW_S_MIN:
            stage.unsure.append(f"it caught up within {last.at_s:.1f} s: nothing was narrow")
