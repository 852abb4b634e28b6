"""First contact with a source that never rests: the head moves under every grant."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from replica.agent.nature import Transaction
from replica.feed.edge_pusher import Pusher
from replica.feed.meeting import GRANTS_MAX
from replica.model.edge_identity import ensure_identity
from replica.model.identity import Peer
from tests.integration.member_world import Node, put, running, settings_of, until

COMMITS_BEFORE = 1_000
COMMITS_A_FLUSH = 8


class Writer(threading.Thread):
    """Commits one record after the other, some to a flush as many writers would, as fast as the log takes them."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self._node, self._stop_now = node, threading.Event()
        self.commits = 0

    def run(self) -> None:
        while not self._stop_now.is_set():
            numbers = range(self.commits, self.commits + COMMITS_A_FLUSH)
            self._node.log.append([Transaction([put(f"{self._node.prefix}/{one % 5_000}", f"v{one}")]) for one in numbers])
            self.commits += COMMITS_A_FLUSH

    def end(self) -> None:
        self._stop_now.set()
        self.join()


async def meet(tmp_path: Path, *, push: bool) -> None:
    me = ensure_identity(tmp_path / "identity", "member-1")
    node = Node(tmp_path, "node-a", "88.118", me)
    async with node.serving():
        writer = Writer(node)
        writer.start()
        try:
            await until(lambda: writer.commits >= COMMITS_BEFORE)
            settings = settings_of(tmp_path, me, [node.settings(**({"pull": ()} if push else {}))])
            async with running(settings) as world:
                copy = world.copy("node-a")
                pushing = None
                if push:
                    address = f"127.0.0.1:{world.member.feed_addresses[0][1]}"
                    pusher = Pusher(node.log, address, node.identity, Peer(me.name, me.certificate_pem, role="member"))
                    pushing = asyncio.create_task(pusher.run())
                await until(lambda: copy.store.state().ready)
                first = copy.store.state().position
                await until(lambda: copy.store.state().position.seq > first.seq)  # it follows while the writer goes on
                writer.end()
                await world.equal(node)
                assert copy.store.state().feed.name == "FLOWING"
                assert node.log.counts.grants == 1, "one epoch is granted, however often it was tried"
                assert node.log.counts.grants_refused < GRANTS_MAX, "within one meeting: the log rests when a grant lost"
                if pushing is not None:
                    pushing.cancel()
                    await asyncio.gather(pushing, return_exceptions=True)
        finally:
            writer.end()


async def test_a_source_that_is_fetched_and_never_rests(tmp_path: Path) -> None:
    await meet(tmp_path, push=False)


async def test_a_source_that_pushes_and_never_rests(tmp_path: Path) -> None:
    await meet(tmp_path, push=True)
