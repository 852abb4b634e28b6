"""A front in a process of its own: stateless, next to an owner, and alive while the owner is not."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import uvloop
from prometheus_client import CollectorRegistry, start_http_server

from hosting.front.edge_front import Address, Bound, Front, FrontConfig
from hosting.front.edge_metrics import FrontCollector
from hosting.front.edge_port_client import PortClientSettings, SocketAnswerPort
from hosting.guard.edge_teller import Place, Teller
from replica.model.edge_collector import settle

_log = logging.getLogger("zaibei.front")
SWITCH_INTERVAL_S = 0.0005
METRICS_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class FrontProcess:
    """What one front process needs: its listeners, its way to the owner, where its metrics are asked for, where events go."""

    front: FrontConfig
    owner: PortClientSettings
    metrics: tuple[Address, ...] = ()
    member: str = "front"
    places: Sequence[Place] = ()


async def serve_metrics(registry: CollectorRegistry, address: Address) -> None:
    """Serve /metrics until cancelled. An address that is taken (by a front that is being replaced) is tried again."""
    while True:
        try:
            server, thread = start_http_server(address[1], addr=address[0], registry=registry)
            break
        except OSError as exc:
            _log.warning("metrics not served yet", extra={"fields": {"address": str(address), "why": str(exc)}})
            await asyncio.sleep(METRICS_AGAIN_S)
    try:
        await asyncio.Event().wait()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def serve_front(process: FrontProcess, stop: asyncio.Event, ready: Callable[[Bound], None]) -> None:
    """Serve until `stop`; `ready` is called with the addresses once all are bound.

    Raises:
        OSError: an address cannot be bound.
    """
    port = SocketAnswerPort(process.owner)
    front = Front(port, process.front)
    teller = Teller(process.member, process.places)
    front.service.guard.note = teller.note
    await teller.start()
    bound = await front.start()
    registry = CollectorRegistry()
    collector = FrontCollector(front, registry, teller.counters)
    metrics = [asyncio.create_task(serve_metrics(registry, address)) for address in process.metrics]
    await port.start()
    try:
        ready(bound)
        await stop.wait()
    finally:
        for task in metrics:
            task.cancel()
        await asyncio.gather(*metrics, return_exceptions=True)
        collector.close()
        await front.stop()
        await port.stop()
        await teller.stop()


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
    settle()
    uvloop.run(main())
    _log.info("front stopped")
