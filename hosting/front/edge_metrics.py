"""Prometheus metrics of a front, read from the listeners' own counters when scraped, so that an answer costs no metric call."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from hosting.front.connections import Connections
from hosting.front.edge_front import Front
from hosting.guard.edge_teller import TellerCounters
from hosting.guard.guard import GuardCounters


class FrontCollector(Collector):
    """Registers itself with `registry`; `close` takes it away. `told`: what became of security events."""

    def __init__(self, front: Front, registry: CollectorRegistry, told: TellerCounters | None = None) -> None:
        self._front, self._told = front, told or TellerCounters()
        self._registry = registry
        registry.register(self)

    def close(self) -> None:
        self._registry.unregister(self)

    def collect(self) -> Iterable[Metric]:
        counters = self._front.service.batcher.counters
        answers = CounterMetricFamily("zaibei_front_answers", "Answers by response code of the Handle protocol", labels=["code"])
        for code, count in sorted(counters.by_code.items()):
            answers.add_metric([str(int(code))], count)
        yield answers
        for name, text, count in (
            ("batches", "Calls of the answer port", counters.batches),
            ("overflowed", "Questions refused because too many were waiting", counters.overflowed),
            ("unfair", "Questions refused because their source had its share while many were waiting", counters.unfair),
            ("shed", "Questions refused because they were dear or unknown while many were waiting", counters.shed),
            ("paused", "Questions refused because they may have waited over a pause of this process", counters.paused),
            ("failed_reads", "Calls of the answer port that failed", counters.failed_reads),
            ("signed", "Messages signed with the site's key", self._front.service.certifier.counters.signed),
            (
                "unsigned",
                "Requests for a signed answer that were told to ask elsewhere",
                self._front.service.certifier.counters.refused,
            ),
            ("pauses", "Pauses of this process that were noticed", self._front.service.watch.pauses),
        ):
            yield CounterMetricFamily(f"zaibei_front_{name}", text, value=count)
        if self._front.grpc is not None:
            yield CounterMetricFamily(
                "zaibei_front_grpc_identifiers", "Identifiers asked over gRPC", value=self._front.grpc.resolver.identifiers
            )
        yield from self._guarded()
        for name in TellerCounters.__dataclass_fields__:
            text = f"Security events: {name.replace('_', ' ')}"
            yield CounterMetricFamily(f"zaibei_security_{name}", text, value=getattr(self._told, name))
        yield from self._datagrams()
        yield from self._streams()

    def _guarded(self) -> Iterable[Metric]:
        guard = self._front.service.guard
        held = CounterMetricFamily("zaibei_front_held_back", "Held back by the guard, by its rule", labels=["rule"])
        for name in GuardCounters.__dataclass_fields__:
            held.add_metric([name], getattr(guard.counters, name))
        yield held
        tenants = CounterMetricFamily("zaibei_front_over_quota", "Questions over their tenant's quota", labels=["source"])
        for source, count in sorted(guard.over_quota.items()):
            tenants.add_metric([source], count)
        yield tenants
        yield CounterMetricFamily(
            "zaibei_front_guard_overflows",
            "Times that more clients or names came in a second than are counted",
            value=guard.overflows,
        )

    def _datagrams(self) -> Iterable[Metric]:
        for name in ("received", "sent", "unsent", "malformed", "dropped", "too_long"):
            total = sum(getattr(listener.counters, name) for listener in self._front.udp)
            yield CounterMetricFamily(f"zaibei_front_udp_{name}", f"UDP datagrams: {name.replace('_', ' ')}", value=total)

    def _streams(self) -> Iterable[Metric]:
        opened = GaugeMetricFamily("zaibei_front_connections", "Connections open now", labels=["protocol"])
        unsent = GaugeMetricFamily("zaibei_front_unsent_octets", "Answers that peers have not read yet", labels=["protocol"])
        accepted = CounterMetricFamily("zaibei_front_accepted", "Connections accepted", labels=["protocol"])
        cut_off = CounterMetricFamily("zaibei_front_cut_off", "Connections cut off, by reason", labels=["protocol", "reason"])
        for protocol, connections in (("tcp", self._front.tcp), ("http", self._front.http)):
            opened.add_metric([protocol], len(connections.open))
            unsent.add_metric([protocol], connections.unsent_octets)
            accepted.add_metric([protocol], connections.accepted)
            for reason, count in _reasons(connections):
                cut_off.add_metric([protocol, reason], count)
        yield from (opened, unsent, accepted, cut_off)


def _reasons(connections: Connections) -> Iterable[tuple[str, int]]:
    yield "over_the_limit", connections.refused
    yield from sorted(connections.cut_off.items())
