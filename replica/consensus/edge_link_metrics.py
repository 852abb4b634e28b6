"""What the links to other members measure, labelled by the other member's number."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from replica.consensus.link_port import Reason

STRANGER = 0  # who showed no member's certificate


class LinkMetrics:
    """Of the links of one member. A stranger's refusals count under member 0."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name, label = "zaibei_consensus_link", ["member"]
        self._refused = Counter(
            f"{name}_refused_count", "Calls and messages of others that were not taken", [*label, "reason"], registry=registry
        )
        self._lost = Counter(f"{name}_lost_count", "Times a member was lost", label, registry=registry)
        self._dropped = Counter(
            f"{name}_dropped_requests", "Messages not sent: not connected, or its queue was full", label, registry=registry
        )
        self._sent = Counter(f"{name}_sent_requests", "Messages of groups that were queued to leave", label, registry=registry)
        self._sent_octets = Counter(f"{name}_sent_octets", "Octets of them", label, registry=registry)
        self._received = Counter(f"{name}_received_requests", "Messages of groups that were handed up", label, registry=registry)
        self._connected = Gauge(f"{name}_connected", "1 while our call to the member stands", label, registry=registry)
        self._rtt = Gauge(f"{name}_round_trip_seconds", "Round trip of the newest beat", label, registry=registry)

    def refused(self, member: int, reason: Reason) -> None:
        self._refused.labels(str(member), str(reason)).inc()

    def lost(self, member: int) -> None:
        self._lost.labels(str(member)).inc()

    def dropped(self, member: int, messages: int) -> None:
        self._dropped.labels(str(member)).inc(messages)

    def connected(self, member: int, up: bool) -> None:
        self._connected.labels(str(member)).set(int(up))

    def round_trip(self, member: int, ms: float) -> None:
        self._rtt.labels(str(member)).set(ms / 1_000)

    def sent(self, member: int, messages: int, octets: int) -> None:
        self._sent.labels(str(member)).inc(messages)
        self._sent_octets.labels(str(member)).inc(octets)

    def received(self, member: int, messages: int) -> None:
        self._received.labels(str(member)).inc(messages)
