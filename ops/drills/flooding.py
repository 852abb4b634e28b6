"""The act of a flood: what the member can answer is measured, ten times that comes, and meanwhile its nodes die and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from chaos.faults.fault import Fault
from chaos.scenarios.scenario import Act, Step
from chaos.standin.registries import url_of

if TYPE_CHECKING:
    from ops.drills.acts import Acts

TIMES = 10  # of what can be answered
MORE = 1.2  # so that it is ten times, whatever the machine holds up
HONEST_SHARE = 0.01  # of the flood
ANSWERED_SHARE_MIN = 0.99
CONNECTIONS = 300  # slow and silent ones; more than the member has places for
BEFORE_S, DURING_S, DEAD_S = 2.0, 4.0, 4.0
BACK_S_MAX = 45.0
INTAKE_SHARE_MIN = 0.8  # of the receipts a second before the flood

Acting = Callable[[Step], AbstractAsyncContextManager[None]]


def acts_of(acts: Acts) -> dict[Act, Acting]:
    """The act of this file."""
    return {Act.FLOODED: lambda step: _flooded(acts, step)}


@asynccontextmanager
async def _flooded(acts: Acts, step: Step) -> AsyncIterator[None]:
    stage = acts.stage
    prefixes, records, port = list(stage.prefix_of.values()), stage.scenario.load.records, stage.ports["handle"]
    names = [f"{prefix}/N-{number}" for prefix in prefixes for number in range(records)]
    common = {"port": port, "seed": stage.seed}
    stage.write_json("flood.json", {**common, "prefixes": prefixes, "records": records, "connections": CONNECTIONS})
    stage.write_json("crowd.json", {**common, "names": {name: url_of(name, "v1") for name in names}})
    await asyncio.gather(stage.start("flood"), stage.start("crowd"))
    capacity = (await stage.ask("flood", do="capacity"))["answers_per_s"]
    before = await _receipts_a_second(acts, BEFORE_S)
    told: dict[str, dict[str, Any]] = {}

    async def begin() -> None:
        await stage.ask("crowd", do="begin", per_s=capacity * TIMES * HONEST_SHARE)
        await stage.ask("flood", do="begin", per_s=capacity * TIMES * MORE)

    async def heal() -> None:
        if "flood" not in told:
            told["flood"] = await stage.ask("flood", do="end")
            told["crowd"] = await stage.ask("crowd", do="end")

    async with Fault("a flood from forged addresses, slow and silent connections", begin, heal, acts.log):
        during = await _receipts_a_second(acts, DURING_S)
        async with acts.nodes_die(step):
            await asyncio.sleep(DEAD_S)
        rows = await acts.until(lambda row: row.feed == "FLOWING" and row.authority == "SOURCE", BACK_S_MAX)
        states = {source: f"{row.feed}, {row.authority}" for source, row in rows.items()}
        back = all(row.feed == "FLOWING" and row.authority == "SOURCE" for row in rows.values()) if rows else None
        acts.fact("back under the flood", back, f"{states}")
        await heal()
        yield
    _say(acts, capacity, before, during, told["flood"], told["crowd"])


def _say(acts: Acts, capacity: int, before: float, during: float, flood: dict[str, Any], crowd: dict[str, Any]) -> None:
    per_s = flood["sent"] / flood["seconds"]
    times = per_s / capacity if capacity else 0.0
    acts.fact(
        "10 times what can be answered", True if times >= TIMES else None,
        f"{per_s:,.0f} datagrams/s for {flood['seconds']:.1f} s, {times:.1f} times the {capacity:,} answers/s measured before; "
        f"{flood['connections']} slow and silent connections",
    )  # fmt: skip
    share = crowd["asked"] / flood["sent"] if flood["sent"] else 0.0
    acts.fact(
        "1 % are honest", True if share > HONEST_SHARE / 2 else None, f"{crowd['asked']:,} lookups, {share:.2%} of the flood"
    )
    right = crowd["right"] / crowd["asked"] if crowd["asked"] else None
    acts.fact(
        "the honest are answered", None if right is None else right >= ANSWERED_SHARE_MIN and not crowd["lies"],
        f"{crowd['right']:,} of {crowd['asked']:,} ({right or 0:.2%}) right, {crowd['over_tcp']:,} went over TCP, the slowest "
        f"{crowd['worst_ms']:.0f} ms, {crowd['failed']:,} failed, {crowd['lies']} wrong; the clients themselves at most "
        f"{crowd['late_ms']:.0f} ms late",
    )  # fmt: skip
    ratio = flood["octets"] / flood["sent_octets"] if flood["sent_octets"] else 0.0
    acts.fact(
        "forged addresses gain nothing", not flood["multiplied"] and ratio <= 1 if flood["sent"] else None,
        f"{flood['octets']:,} octets for {flood['sent_octets']:,} sent ({ratio:.4f}); {flood['answers']:,} answers, and after "
        f"the first 2 s {flood['multiplied']:,} of them longer than their question, at most {flood['factor_max']:.2f} times",
    )  # fmt: skip
    acts.fact(
        "registrations are taken in", during >= before * INTAKE_SHARE_MIN if before else None,
        f"{before:.1f} receipts/s before the flood, {during:.1f} in it",
    )  # fmt: skip


async def _receipts_a_second(acts: Acts, seconds: float) -> float:
    """Receipts that the nodes hand on to their clients."""

    def count() -> int:
        return sum(len(acts.told(source)[1]) for source in acts.stage.sources)

    first = await asyncio.to_thread(count)
    await asyncio.sleep(seconds)
    return (await asyncio.to_thread(count) - first) / seconds
