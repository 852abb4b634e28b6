"""A broken invariant stops the member at once, also in a task that the member holds so that it can stop it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from replica.consensus.host import GroupHost
from replica.member.cluster_life import ClusterLife
from replica.member.edge_broken import stopping_on_broken
from replica.member.failback_runner import FailbackRunner
from replica.member.scrubs import Scrubs
from replica.model.errors import InvariantBroken
from replica.takeover.edge_runner import boottime_ns


class Broken:
    """Whatever is asked of it breaks a rule of ours."""

    def __call__(self, *_: object) -> Any:
        raise InvariantBroken("a rule of the test's")

    def __getattr__(self, name: str) -> Any:
        return self()


async def life(_: Path) -> object:
    side: Any = SimpleNamespace(peers=None, holders=None)
    held = ClusterLife(side, Broken(), lambda _name: False)
    held.start()
    return held


async def failback(_: Path) -> object:
    source, unused = SimpleNamespace(source="node-a"), Broken()
    held = FailbackRunner(
        source,  # type: ignore[arg-type]
        unused,  # type: ignore[arg-type]
        unused,  # type: ignore[arg-type]
        state=unused,
        leads=unused,
        service_alive=unused,
        age_ms=unused,
        boottime_ns=boottime_ns,
        subscribe=lambda _changed: lambda: None,
        commit=unused,
        compare=unused,
    )
    held.start()
    return held


async def scrubs(folder: Path) -> object:
    held = Scrubs(folder, Broken(), every_days=1, mb_s=1, alone=True, now_ms=lambda: 0)
    await held.start()
    return held


async def ticks(_: Path) -> object:
    held = GroupHost(1, 1, None, boottime_ns)
    held._tick_groups = Broken()  # type: ignore[method-assign]
    held.start()
    return held


@pytest.mark.parametrize("begin", [life, failback, scrubs, ticks])
async def test_it_is_heard_of_while_the_task_is_held(tmp_path: Path, begin: Any) -> None:
    told = asyncio.Event()
    with stopping_on_broken(asyncio.get_running_loop(), lambda _broken: told.set()):
        held = await begin(tmp_path)
        async with asyncio.timeout(5):
            await told.wait()
        del held
