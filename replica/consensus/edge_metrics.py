"""What the journal and the apply thread measure. The registry is passed in; nothing is registered at import."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

FLUSH_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)


class JournalMetrics:
    """Of one journal."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "zaibei_consensus_journal"
        self.flush = Histogram(
            f"{name}_flush_seconds", "Time of one flush of the journal", buckets=FLUSH_BUCKETS_S, registry=registry
        )
        self.entries = Counter(f"{name}_flushed_entries", "Entries made durable", registry=registry)
        self.octets = Counter(f"{name}_flushed_bytes", "Octets of entries made durable", registry=registry)
        self.stalls = Counter(
            f"{name}_stalls", "Writes that had to be tried again because RocksDB asked to wait", registry=registry
        )
        self.full = Gauge(f"{name}_disk_full", "1 while the disk is too full to admit entries", registry=registry)
        self.failed = Gauge(f"{name}_failed", "1 after the journal failed for good", registry=registry)
        self.queued = Gauge(f"{name}_queued_bytes", "Octets that wait for the next flush", registry=registry)


class ApplyMetrics:
    """Of the apply thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "zaibei_consensus_apply"
        self.entries = Counter(f"{name}_entries", "Entries applied", registry=registry)
        self.octets = Counter(f"{name}_bytes", "Octets of entries applied", registry=registry)
