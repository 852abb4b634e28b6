"""Work in a thread whose asker is cancelled: what it began is ended before anybody goes on."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

from replica.member.group_port import GroupPort
from replica.model.position import ORIGIN

WAIT_S = 10
NOBODY: Any = None


async def test_a_load_whose_asker_is_gone_while_its_helper_is_started_is_given_up() -> None:
    """The helper would wait for parts for good, in a folder that the next load deletes and makes anew."""
    began, goes_on, done = threading.Event(), threading.Event(), list[str]()

    class Loader:
        async def abort(self) -> None:
            await asyncio.sleep(0.01)
            done.append("given up")

    def loader(*_: object) -> Loader:
        began.set()
        assert goes_on.wait(WAIT_S)
        done.append("made")
        return Loader()

    store: Any = SimpleNamespace(loader=loader)
    asking = asyncio.ensure_future(GroupPort(NOBODY, store).loader(1, ORIGIN))
    assert await asyncio.to_thread(began.wait, WAIT_S)
    asking.cancel()
    await asyncio.wait({asking}, timeout=0.05)
    goes_on.set()
    await asyncio.wait({asking})
    assert asking.cancelled()
    assert done == ["made", "given up"]
