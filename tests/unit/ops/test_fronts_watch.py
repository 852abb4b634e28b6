"""The watch over fronts: what keeps one from starting passes, and a stop leaves none behind."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ops import fronts
from ops.fronts import FrontPlace, FrontProcesses


def begun(place: FrontPlace) -> bool:
    """In the place of a front: a process that only lives."""
    place.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    return True


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrontProcesses:
    monkeypatch.setattr(fronts, "WATCH_S", 0.01)
    monkeypatch.setattr(fronts, "AGAIN_S", 0.01)
    made = FrontProcesses(tmp_path, 1, {})
    monkeypatch.setattr(made, "_launch", begun)
    return made


async def until_alive(place: FrontPlace) -> None:
    async with asyncio.timeout(10):
        while not place.alive:  # noqa: ASYNC110 - of a process
            await asyncio.sleep(0.01)


async def test_a_front_that_ends_on_a_full_disk_is_started_when_there_is_room(
    one: FrontProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.start()
    [place] = one.places
    full = [OSError(errno.ENOSPC, "No space left on device")] * 3

    def launch(wanted: FrontPlace) -> bool:
        if full:
            raise full.pop()
        return begun(wanted)

    monkeypatch.setattr(one, "_launch", launch)
    assert place.process is not None
    place.process.kill()
    place.process.wait()
    try:
        await until_alive(place)
    finally:
        await one.stop()


async def test_a_front_that_is_being_started_again_when_all_stop_is_ended_too(
    one: FrontProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.start()
    [place] = one.places
    starting, goes_on = threading.Event(), threading.Event()

    def launch(wanted: FrontPlace) -> bool:
        starting.set()
        goes_on.wait(10)
        return begun(wanted)

    monkeypatch.setattr(one, "_launch", launch)
    assert place.process is not None
    place.process.kill()
    place.process.wait()
    await asyncio.to_thread(starting.wait, 10)
    stopping = asyncio.create_task(one.stop())
    await asyncio.sleep(0.1)
    goes_on.set()
    await stopping
    await asyncio.sleep(0.1)  # what a thread may still be doing
    assert not place.alive, "it would keep the member's addresses, and nobody would know of it"
