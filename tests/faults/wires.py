"""Acts on packets, where members live in a WireLab (late, doubled, damaged), and on the order of the source's batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import permutations

from chaos.faults.fault import Fault
from chaos.rigs.edge_wire_lab import WireLab
from chaos.rigs.frames import FrameRule
from ops.admin.values import SourceStatus
from replica.feed.edge_pusher import PushedLink
from replica.model.errors import require
from replica.model.position import Position
from replica.v1 import source_pb2
from tests.faults.acts import Stage
from tests.faults.cluster import Cluster

EQUAL_S_MAX = 20.0


def parts(stage: Stage) -> tuple[Cluster, WireLab]:
    cluster = stage.system
    require(isinstance(cluster, Cluster) and isinstance(cluster.lab, WireLab), "packets are a cluster's in a WireLab")
    assert isinstance(cluster, Cluster) and isinstance(cluster.lab, WireLab)
    return cluster, cluster.lab


def between_members(cluster: Cluster) -> list[tuple[int, int]]:
    return list(permutations(cluster.seats, 2))


def with_home(cluster: Cluster) -> list[tuple[int, int]]:
    """Both ways between the source's place and each member."""
    home = cluster.home
    assert home is not None
    return [pair for member in cluster.seats for pair in ((home, member), (member, home))]


@dataclass(frozen=True, slots=True)
class Packets:
    """This rule on all wires, those of the source included. `must`: what has to happen to packets, else it says nothing."""

    rule: FrameRule
    must: tuple[str, ...]
    home: bool = True

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        cluster, lab = parts(stage)
        pairs = between_members(cluster) + (with_home(cluster) if self.home else [])
        before = lab.counts()
        async with lab.ruled(pairs, self.rule, f"packets {self.rule}"):
            yield
            after = lab.counts()
        happened = {name: after[name] - before[name] for name in ("in", *self.must)}
        stage.facts["packets"] = ", ".join(f"{number} {name}" for name, number in happened.items())
        if not all(happened.values()):
            stage.unsure.append(f"nothing happened to packets: {happened}")
        await equal_everywhere(stage, cluster)


async def equal_everywhere(stage: Stage, cluster: Cluster) -> None:
    """Every copy has what the source had when this was asked, and is proved equal to it."""
    began_s, seen, head = time.monotonic(), dict[int, SourceStatus | None](), cluster.feeding.head()

    async def equal() -> bool:
        seen.update(zip(cluster.seats, await asyncio.gather(*map(cluster.source_at, cluster.seats)), strict=True))
        return all(one is not None and is_equal(one, head) for one in seen.values())

    try:
        await cluster.until("all are equal to the source", equal, EQUAL_S_MAX)
    except TimeoutError:
        for member, one in seen.items():
            if one is None or not is_equal(one, head):
                stage.unmet.append(f"not equal to the source within {EQUAL_S_MAX:.0f} s: member {member}, {one}"[:1_000])
    stage.facts["equal after ms"] = round((time.monotonic() - began_s) * 1_000)


def is_equal(seen: SourceStatus, head: Position) -> bool:
    """Whoever lags less than its target calls its lag fine: so its position is looked at too."""
    there = bool(seen.position) and (at := Position.parse(seen.position)).epoch == head.epoch and at.seq >= head.seq
    return there and (seen.digest_check, seen.lag_check, seen.feed) == ("pass", "pass", "FLOWING")


@dataclass(frozen=True, slots=True)
class SendsTwice:
    """The source sends each batch twice, and some before the one that precedes them, as a relay or a bug could."""

    swap_every: int = 5

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        send, kept, sent = PushedLink.send, dict[int, source_pb2.SourceMessage](), [0, 0]

        async def disorderly(link: PushedLink, message: source_pb2.SourceMessage) -> None:
            if message.WhichOneof("body") != "batch":
                await send(link, message)
                return
            sent[0] += 1
            if id(link) not in kept and sent[0] % self.swap_every == 0:
                kept[id(link)] = message
                sent[1] += 1
                return
            await send(link, message)
            await send(link, kept.pop(id(link), message))  # the one before it, which is late, or the same again

        async def begin() -> None:
            PushedLink.send = disorderly  # type: ignore[method-assign]

        async def heal() -> None:
            PushedLink.send = send  # type: ignore[method-assign]

        cluster = stage.system
        assert isinstance(cluster, Cluster)
        async with Fault("source sends twice and out of order", begin, heal, stage.system.log):
            yield
        stage.facts["sent twice"] = f"{sent[0]} batches, {sent[1]} of them late"
        if not all(sent):
            stage.unsure.append(f"nothing was sent twice or late: {sent}")
        await equal_everywhere(stage, cluster)
