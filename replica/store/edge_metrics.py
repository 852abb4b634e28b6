"""What the stores measure. The registry is passed in; nothing is registered at import."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from replica.model.group_state import GroupState


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
