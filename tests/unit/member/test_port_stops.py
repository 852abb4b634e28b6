"""A port stops though somebody who watches its health does not read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc_health.v1 import health

from hosting.tenant import edge_port
from hosting.tenant.edge_port import RegistrationPort
from replica.member import edge_feed_port
from replica.member.edge_feed_port import FeedPort


class Server:
    def __init__(self) -> None:
        self.stopped = False

    async def stop(self, _grace_s: float) -> None:
        self.stopped = True


class Offices:
    def close(self) -> None:
        return


def feed_port() -> Any:
    made = FeedPort.__new__(FeedPort)
    made._health = health.aio.HealthServicer()
    return made


def registration_port() -> Any:
    unused: Any = None
    return RegistrationPort(unused, Offices())  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [feed_port, registration_port])
async def test_a_watcher_that_does_not_read_keeps_nobody(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    """The library holds a service's watchers while it writes to one of them; whoever tells them something waits for that."""
    for module in (edge_port, edge_feed_port):
        monkeypatch.setattr(module, "TELL_S_MAX", 0.05)
    port, server = make(), Server()
    port._server = server
    async with asyncio.timeout(5), port._health._server_watchers[""]:
        await port.stop()
    assert server.stopped
