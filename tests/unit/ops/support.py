"""A member that is not one: memory twins behind the real admin socket, and a source's certificate to pin."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.admin.edge_server import AdminServer
from ops.admin.memory import MemoryMember
from ops.admin.values import Readiness, Sample, SourceStatus, Status
from ops.operators.book import Book
from ops.operators.holds import HoldDesk
from ops.operators.memory import MemoryGroup
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.group_state import GroupState, Hold
from replica.model.position import Position, epoch_start
from replica.model.signing import Signer

LINEAGE = bytes(range(16))
FOLLOWS = epoch_start(Position(bytes(16), 0, 5_000, bytes(32)), LINEAGE, 1)
HELD = Hold(
    "00000000000000010000000000001388", FOLLOWS, "would remove 900 of 1,000 records of 88.118", b"batch", 0, 1_800_000_000_000
)
HOLD_ID = f"node-a/{HELD.ident}"


def held_group() -> MemoryGroup:
    return MemoryGroup(GroupState("node-a", ready=True, hold=HELD), 900, 7, ("88.118/A", "88.118/B"))


def member(operators: dict[str, Signer], groups: dict[str, MemoryGroup] | None = None) -> MemoryMember:
    chosen = {"node-a": held_group()} if groups is None else groups
    keys = {name: signer.public for name, signer in operators.items()}
    desk = HoldDesk(lambda: chosen, keys, Book(), lambda book: None, lambda: 1_800_000_000_500)
    sources = [
        SourceStatus(
            "node-a",
            "HELD",
            "waits for two people",
            True,
            True,
            str(FOLLOWS),
            12,
            0.4,
            "fresh",
            True,
            "SOURCE",
            True,
            records=1_000,
            held=1,
        ),
        SourceStatus("node-b", ready=True, position=str(FOLLOWS), freshness="stale_bounded", detail={"led_here": False}),
    ]
    state = Status(
        "member-1",
        "0.1.0",
        4_711,
        "host-1",
        "data",
        "sha256:00",
        1_800_000_000_000,
        1_800_000_090_000,
        {},
        sources,
        ["disk is filling"],
    )
    samples = [
        Sample("zaibei_feed_batches_total", {"source": "node-a"}, 12.0, "Batches."),
        Sample("zaibei_store_records", {}, 3.0),
    ]
    return MemoryMember(state, desk, [Readiness("node-a", "ttl", "pass")], samples)


@contextmanager
def serving(calls: MemoryMember, path: Path) -> Iterator[AdminServer]:
    """Serve on a loop of its own in another thread: the client blocks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = AdminServer(path, calls)
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def source_identity(folder: Path, name: str = "node-a") -> Identity:
    return ensure_identity(folder / name, name)
