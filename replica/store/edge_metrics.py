"""What the stores measure. The registry is passed in; nothing is registered at import."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from replica.model.group_state import GroupState
from replica.store.scrub import DAMAGED, Finding, Scrubbed


class StoreMetrics:
    """Of all stores of a member, by source."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name, labels = "zaibei_store", ("source",)
        self.records = Gauge(f"{name}_records", "Records of the live generation", labels, registry=registry)
        self.quarantined = Gauge(f"{name}_quarantined_records", "Records that answer code 2", labels, registry=registry)
        self.index = Gauge(f"{name}_applied_index", "Last applied entry", labels, registry=registry)
        self.generation = Gauge(f"{name}_generation", "Number of the live generation", labels, registry=registry)
        self.log = Gauge(f"{name}_log_bytes", "Octets of batches held for resuming", labels, registry=registry)
        self.refused = Counter(
            f"{name}_refused_entries", "Entries put off or refused, by code", ("source", "code"), registry=registry
        )

    def applied(self, state: GroupState, log_octets: int) -> None:
        """After each entry; a few microseconds."""
        source = state.source
        self.records.labels(source).set(state.records)
        self.quarantined.labels(source).set(state.quarantined)
        self.index.labels(source).set(state.index)
        self.generation.labels(source).set(state.generation)
        self.log.labels(source).set(log_octets)


class ScrubMetrics:
    """Of a member's scrubs, by source. Alarm when `sound_time` is older than twice the interval, or `failed` is 1."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name, labels = "zaibei_store_scrub", ("source",)
        self.sound = Gauge(
            f"{name}_sound_time_seconds", "Unix time at which the copy was last read and sound", labels, registry=registry
        )
        self.damaged = Gauge(f"{name}_failed", "1 while the last scrub that could look found damage", labels, registry=registry)
        self.octets = Gauge(f"{name}_read_bytes", "Keys and values that the last scrub read", labels, registry=registry)

    def found(self, source: str, found: Scrubbed) -> None:
        """After each scrub."""
        self.damaged.labels(source).set(int(found.finding in DAMAGED))
        self.octets.labels(source).set(found.octets)
        if found.finding is Finding.SOUND:
            self.sound.labels(source).set(found.at_ms / 1_000)
