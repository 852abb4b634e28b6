"""What transfers measure. The registry is passed in; nothing is registered at import."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class TransferMetrics:
    """Of all transfers of a member."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "zaibei_transfer"
        self.sent = Counter(f"{name}_sent_bytes", "Octets sent to other members", ("source",), registry=registry)
        self.received = Counter(f"{name}_received_bytes", "Octets taken from other members", ("source",), registry=registry)
        self.mismatches = Counter(f"{name}_mismatches", "Files that came with another content", ("source",), registry=registry)
        self.refused = Counter(f"{name}_refused", "Transfers refused or given up, by code", ("side", "code"), registry=registry)
        self.held = Gauge(f"{name}_held", "Sets of files held still for other members", registry=registry)
        self.streams = Gauge(f"{name}_streams", "Streams of files now open to other members", registry=registry)
