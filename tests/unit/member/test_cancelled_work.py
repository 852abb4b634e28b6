"""Work in a thread whose asker is cancelled: what it began is ended before anybody goes on."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from replica.member.group_port import GroupPort
from replica.model.position import ORIGIN
from replica.store.edge_loader import GenerationLoader

WAIT_S = 10
NOBODY: Any = None


async def test_a_load_whose_asker_is_gone_while_its_helper_is_started_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper would wait for parts for good, in a folder that the next load deletes and makes anew."""
    began, goes_on, done = threading.Event(), threading.Event(), list[str]()

    def loader(*_: object) -> object:
        began.set()
        assert goes_on.wait(WAIT_S)
        done.append("made")
        return object()

    def give_up(_: object) -> None:
        time.sleep(0.01)
        done.append("given up")

    monkeypatch.setattr(GenerationLoader, "give_up", give_up)
    store: Any = SimpleNamespace(loader=loader)
    asking = asyncio.ensure_future(GroupPort(NOBODY, store).loader(1, ORIGIN))
    assert await asyncio.to_thread(began.wait, WAIT_S)
    asking.cancel()
    await asyncio.wait({asking}, timeout=0.05)
    goes_on.set()
    await asyncio.wait({asking})
    assert asking.cancelled()
    assert done == ["made", "given up"]
