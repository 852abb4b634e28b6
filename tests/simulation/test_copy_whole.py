"""Seeded lives of a whole copy, both sides killed between any two persistence steps (see copy_world.py).

No receipt is ever forgotten, content is the source's at exactly the stated position at any moment, nothing acknowledged is lost,
an honest source is never refused, and everything arrives in the end. ZAIBEI_SEEDS=200 for more; a failure names its seed.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import replica.agent.log
import replica.feed.edge_driver
from tests.simulation.copy_world import AGENT_STEPS, COPY_STEPS, CopyWorld, Killed, Reaper

SEEDS = int(os.environ.get("ZAIBEI_SEEDS", "5"))
FIRST = int(os.environ.get("ZAIBEI_FIRST_SEED", "0"))
STEPS = 45


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # killed in its thread
@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
async def test_a_copy_loses_and_invents_nothing(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica.agent.log, "SEGMENT_BATCHES_MAX", 5)
    monkeypatch.setattr(replica.feed.edge_driver, "TICK_S", 0.02)
    loop = asyncio.get_running_loop()
    strange: list[str] = []

    def on_exception(_: object, context: dict[str, object]) -> None:
        if not isinstance(context.get("exception"), Killed):
            strange.append(str(context))

    loop.set_exception_handler(on_exception)
    world = CopyWorld(tmp_path, seed, Reaper(COPY_STEPS, monkeypatch.setattr), Reaper(AGENT_STEPS, monkeypatch.setattr))
    try:
        await world.open()
        await world.live(STEPS)
        await world.heal()
    except Exception as exc:
        raise AssertionError(f"REPLAY seed {seed}: {exc!r}\n{world.told()}") from exc
    finally:
        world.copy_reaper.rest()
        world.agent_reaper.rest()
        await world.close()
    assert not strange, strange[:3]
