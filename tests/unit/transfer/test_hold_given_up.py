"""Files that are held still for somebody who is gone before they are ready: nobody would ever let go of them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from replica.model.transfer import TransferKind
from replica.transfer.edge_serve import TransferService
from replica.transfer.ports import Wanted


class Files:
    """Held still after a while, as a checkpoint that is hashed."""

    folder = Path("nowhere")
    manifest: Any = None

    def __init__(self) -> None:
        self.begun, self.ready, self.released = threading.Event(), threading.Event(), threading.Event()
        self.made = 0

    def hold(self, _wanted: Wanted) -> Files:
        self.begun.set()
        self.ready.wait(30)
        self.made += 1
        return self

    def release(self) -> None:
        self.released.set()


@pytest.mark.parametrize("late", [False, True])
async def test_files_of_a_question_that_was_given_up_go(late: bool) -> None:
    """A member whose connection breaks while a big store is hashed asks again: each time the disk held a whole store more."""
    files, unused = Files(), None
    service = TransferService(files, unused, b"c" * 16, lambda _ident: "node-a")  # type: ignore[arg-type]
    asking = asyncio.create_task(service.hold(Wanted(1, "node-a", TransferKind.CHECKPOINT)))
    assert await asyncio.to_thread(files.begun.wait, 10)
    if late:  # it is given up in the very turn in which they are ready
        asyncio.get_running_loop().call_later(0.05, asking.cancel)
        files.ready.set()
        threading.Event().wait(0.2)
    else:
        asking.cancel()
        await asyncio.wait([asking])
        files.ready.set()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert await asyncio.to_thread(files.released.wait, 5) and files.made == 1
    await service.close()
