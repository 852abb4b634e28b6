"""Metrics every process has: what it is, what it uses, and how late its event loop runs."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client.registry import Collector

from ops import VERSION

LOOP_CHECK_S = 0.25
LATE_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class _Prefixed(Collector):
    """The library's process metrics under our names: zaibei_process_..., the unit last."""

    RENAMED = {  # noqa: RUF012 - a table, never changed
        "process_virtual_memory_bytes": "zaibei_process_virtual_memory_bytes",
        "process_resident_memory_bytes": "zaibei_process_resident_memory_bytes",
        "process_start_time_seconds": "zaibei_process_start_time_seconds",
        "process_cpu_seconds": "zaibei_process_cpu_seconds",
        "process_open_fds": "zaibei_process_open_fds",
        "process_max_fds": "zaibei_process_max_fds",
    }

    def __init__(self) -> None:
        self._inner = ProcessCollector(registry=None)

    def collect(self):  # type: ignore[no-untyped-def]
        for metric in self._inner.collect():
            name = self.RENAMED.get(metric.name)
            if name is None:
                continue
            metric.samples = [sample._replace(name=sample.name.replace(metric.name, name, 1)) for sample in metric.samples]
            metric.name = name
            yield metric


def new_registry(role: str) -> CollectorRegistry:
    """A registry with the process metrics. `role`: member, front, agent."""
    registry = CollectorRegistry()
    registry.register(_Prefixed())
    about = Gauge("zaibei_process_build_info", "Always 1; what runs here.", ["role", "version"], registry=registry)
    about.labels(role, VERSION).set(1)
    return registry


async def watch_loop(registry: CollectorRegistry) -> None:
    """Measure for ever how late the event loop wakes: every answer waits at least that long. Run it as a task."""
    late = Histogram(
        "zaibei_process_loop_late_seconds", "How late the event loop woke.", buckets=LATE_BUCKETS_S, registry=registry
    )
    while True:
        start = time.monotonic()
        await asyncio.sleep(LOOP_CHECK_S)
        late.observe(max(0.0, time.monotonic() - start - LOOP_CHECK_S))
