"""Metrics of feeds, labelled by source."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from replica.feed.findings import Finding, RpoTarget
from replica.feed.freshness import Lag
from replica.feed.phases import Phase
from replica.feed.session import ReplicaSession
from replica.model.errors import Code
from replica.model.states import FeedState, Result

NUMBERS = {Result.PASS: 1, Result.FAIL: 0, Result.UNKNOWN: -1}
UNKNOWN = -1  # a gauge cannot be empty: below zero is UNKNOWN, and the alert rules say so


class FeedMetrics:
    """One object per registry; `of(source)` is what a driver counts with."""

    def __init__(self, registry: CollectorRegistry) -> None:
        label = ["source"]
        self.streams = Counter("zaibei_feed_streams_total", "Streams that were opened", label, registry=registry)
        self.batches = Counter("zaibei_feed_batches_total", "Batches that arrived", label, registry=registry)
        self.octets = Counter("zaibei_feed_octets_total", "Octets of batches that arrived", label, registry=registry)
        self.duplicates = Counter("zaibei_feed_duplicates_total", "Batches that were there already", label, registry=registry)
        self.quarantined = Counter("zaibei_feed_quarantined_total", "Records quarantined", label, registry=registry)
        self.faults = Counter("zaibei_feed_faults_total", "Alarms and refused streams", [*label, "code"], registry=registry)
        self.refused = Counter("zaibei_feed_refused_callers_total", "Callers whose certificate was refused", registry=registry)
        self.connected = Gauge("zaibei_feed_connected", "1 while a stream is open", label, registry=registry)
        self.state = Gauge("zaibei_feed_state", "Named state by number (FeedMark.State)", label, registry=registry)
        self.lag_changes = Gauge("zaibei_feed_lag_changes", "Changes behind the source; -1: UNKNOWN", label, registry=registry)
        self.age = Gauge("zaibei_feed_age_seconds", "Age of the copy; -1: UNKNOWN", label, registry=registry)

        self.checks = Gauge("zaibei_feed_check_state", "1: PASS, 0: FAIL, -1: UNKNOWN", [*label, "check"], registry=registry)
        self.target = Gauge("zaibei_feed_rpo_target_seconds", "RPO target; 0: none", label, registry=registry)

    def of(self, source: str) -> SourceMetrics:
        """Those of one source."""
        return SourceMetrics(self, source)


class SourceMetrics:
    """What a driver reports."""

    __slots__ = ("_all", "_seen", "_source")

    def __init__(self, metrics: FeedMetrics, source: str) -> None:
        self._all, self._source = metrics, source
        self._seen = (0, 0, 0, 0)
        self.connected(False)

    def connected(self, up: bool) -> None:
        self._all.connected.labels(self._source).set(int(up))
        if up:
            self._all.streams.labels(self._source).inc()
            self._seen = (0, 0, 0, 0)

    def fault(self, code: Code) -> None:
        self._all.faults.labels(self._source, str(code)).inc()

    def observe(self, session: ReplicaSession, feed: FeedState, lag: Lag) -> None:
        """Called now and then; counts what the session counted since the last time."""
        intake, source = session.intake, self._source
        new = (intake.received, intake.received_octets, intake.duplicates, intake.quarantined)
        counters = (self._all.batches, self._all.octets, self._all.duplicates, self._all.quarantined)
        for counter, value, old in zip(counters, new, self._seen, strict=True):
            counter.labels(source).inc(value - old)
        self._seen = new
        self._all.state.labels(source).set(int(feed))
        self.lag(lag)
        self._all.connected.labels(source).set(int(session.phase is not Phase.CLOSED))

    def lag(self, lag: Lag) -> None:
        self._all.lag_changes.labels(self._source).set(UNKNOWN if lag.changes is None else lag.changes)
        self._all.age.labels(self._source).set(UNKNOWN if lag.age_ms is None else lag.age_ms / 1_000)

    def findings(self, findings: Sequence[Finding], target: RpoTarget) -> None:
        """Checks in three values; an alert rule fires on 0 and on -1 alike."""
        for one in findings:
            self._all.checks.labels(self._source, one.name).set(NUMBERS[one.result])
        self._all.target.labels(self._source).set(target.age_ms / 1_000)
