"""A front in a process of its own: stateless, next to an owner, and alive while the owner is not."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import uvloop
from prometheus_client import CollectorRegistry

from hosting.front.edge_front import Bound, Front, FrontConfig
from hosting.front.edge_metrics import FrontCollector
from hosting.front.edge_port_client import PortClientSettings, SocketAnswerPort

_log = logging.getLogger("zaibei.front")
SWITCH_INTERVAL_S = 0.0005


@dataclass(frozen=True, slots=True)
class FrontProcess:
    """What one front process needs: its listeners and its way to the owner."""

    front: FrontConfig
    owner: PortClientSettings


async def serve_front(
    process: FrontProcess, stop: asyncio.Event, ready: Callable[[Bound], None], registry: CollectorRegistry | None = None
) -> None:
    """Serve until `stop`; `ready` is called with the addresses once all are bound.

    Raises:
        OSError: an address cannot be bound.
    """
    port = SocketAnswerPort(process.owner)
    front = Front(port, process.front)
    bound = await front.start()
    collector = FrontCollector(front, registry) if registry is not None else None
    await port.start()
    try:
        ready(bound)
        await stop.wait()
    finally:
        if collector is not None:
            collector.close()
        await front.stop()
        await port.stop()


def run_front(process: FrontProcess, ready: Callable[[Bound], None] = lambda bound: None) -> None:
    """The whole life of a front process: until SIGTERM or SIGINT.

    Raises:
        OSError: an address cannot be bound.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve_front(process, stop, ready)

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    uvloop.run(main())
    _log.info("front stopped")
