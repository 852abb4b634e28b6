"""Ten nodes change all the time; how far behind them is the copy? Each node a process of its own, one member, all on loopback."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from chaos.scenarios.scenario import Load, Plant, Scenario
from ops.bench.bench import Bench
from ops.bench.rpo import Commit, Run, rows
from ops.bench.table import Row
from ops.drills.edge_children import ANSWER_S_MAX
from ops.drills.stage import Stage
from replica.model.errors import ZaibeiError

NODES, CHANGES_PER_S = 10, 2_000
EVERY_MS = 100  # the ten nodes share two cores with the member: transactions of 40 changes every 20 ms need more than there is
SECONDS = 10.0  # for each second of the scale's
COPIED_S_MAX = 60.0
BEGIN_S = 3.0  # from the order to the first transaction, and MAKE_S for each second of changes: all are made by then
MAKE_S = 0.4
LOOK_S = 0.1
SCENE = Scenario("rpo", 37, "", (), (), Plant.NEVER_TAKES_OVER, "", 30, load=Load(sources=NODES, direct=True))


class SteadyNodes(Stage):
    """A member and its nodes; nobody asks anything."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, SCENE, 1, None)

    async def __aenter__(self) -> SteadyNodes:
        await super().__aenter__()
        return self

    def command(self, name: str) -> list[str]:
        if name in self.prefix_of:
            return [sys.executable, "-m", "ops.bench.edge_steady_node", f"{name}.json"]
        return super().command(name)

    async def start_all(self) -> None:
        """See Stage; nobody answers clients here."""
        self.write()
        await self.start("member")
        changes = CHANGES_PER_S * EVERY_MS // 1_000
        for source, prefix in self.prefix_of.items():
            config = {"publisher": f"{source}.toml", "prefix": prefix, "changes": changes, "every_ms": EVERY_MS}
            self.write_json(f"{source}.json", config)
            await self.start(source)

    async def copied(self) -> None:
        """Wait until each is copied. Raises TimeoutError."""
        async with asyncio.timeout(COPIED_S_MAX):
            while True:
                with suppress(ZaibeiError):
                    if all(row.ready and row.feed == "FLOWING" for row in (await self.rows()).values()):
                        return
                await asyncio.sleep(LOOK_S)

    async def play(self, seconds: float) -> list[dict[str, Any]]:
        """All at once, for so long."""
        begin_s = BEGIN_S + MAKE_S * seconds
        at_ns = time.monotonic_ns() + int(begin_s * 1e9)
        order = json.dumps({"at_ns": at_ns, "seconds": seconds}).encode() + b"\n"
        for source in self.sources:
            stdin = self.children[source].process.stdin
            assert stdin is not None
            stdin.write(order)
            stdin.flush()
        await asyncio.sleep(begin_s + seconds)
        return [await asyncio.to_thread(self._line, self.children[source], ANSWER_S_MAX) for source in self.sources]


async def _play(folder: Path, seconds: float) -> list[dict[str, Any]]:
    async with SteadyNodes(folder) as stage:
        await stage.start_all()
        await stage.copied()
        return await stage.play(seconds)


def rpo(bench: Bench) -> list[Row]:
    """See the module; one run."""
    bench.tell(f"{NODES} nodes, {CHANGES_PER_S:,} changes a second each")
    with bench.room() as folder:
        told = asyncio.run(_play(folder, SECONDS * bench.scale.seconds))
    changes = CHANGES_PER_S * EVERY_MS // 1_000
    runs = [Run(tuple(map(Commit, one["told_ns"], one["covered_ns"])), changes, int(one["uncovered"])) for one in told]
    return rows(runs, CHANGES_PER_S, max(float(one["late_ms"]) for one in told))
