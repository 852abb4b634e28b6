"""Metrics of takeover; the registry is the process's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from replica.takeover.families import Reach
from replica.takeover.machine import Phase


class TakeoverMetrics:
    """One per member process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._phase = Gauge(
            "zaibei_takeover_phase_state", "1 for the phase a source is in", ["source", "phase"], registry=registry
        )
        self._probes = Counter("zaibei_takeover_probes_total", "probes ended", ["source", "alive"], registry=registry)
        self._beats = Counter("zaibei_takeover_beats_total", "datagrams on the beat port", ["kind"], registry=registry)
        self._published = Counter(
            "zaibei_takeover_publications_total", "asked of adapters", ["adapter", "confirmed"], registry=registry
        )

        self._addresses = Gauge(
            "zaibei_takeover_address_state",
            "1 for what is known of one of our published addresses: unknown, answers, dead",
            ["address", "family", "state"],
            registry=registry,
        )

    def address(self, address: str, family: str, state: str) -> None:
        for other in Reach:
            self._addresses.labels(address, family, other.value).set(float(other.value == state))

    def phase(self, source: str, phase: str) -> None:
        for other in Phase:
            self._phase.labels(source, other.value).set(float(other.value == phase))

    def probed(self, source: str, alive: bool) -> None:
        self._probes.labels(source, str(alive).lower()).inc()

    def beat(self, kind: str) -> None:
        """`kind`: taken, unauthenticated, replayed, unknown."""
        self._beats.labels(kind).inc()

    def published(self, adapter: str, confirmed: bool) -> None:
        self._published.labels(adapter, str(confirmed).lower()).inc()
