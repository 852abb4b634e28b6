"""Numbers of a source's agent for Prometheus: read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from replica.agent.edge_files import FileReader, InputState
from replica.agent.edge_log import AgentLog


class AgentMetrics(Collector):
    """All numbers of one log and its reader."""

    def __init__(self, registry: CollectorRegistry, agent: AgentLog, reader: FileReader | None) -> None:
        self._agent, self._reader = agent, reader
        registry.register(self)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        source, agent, counts = self._agent.nature.source, self._agent, self._agent.counts
        receipted = agent.receipted
        gauges: list[tuple[str, str, float]] = [
            ("zaibei_agent_head_seq", "Number of the newest change", agent.head().seq),
            ("zaibei_agent_head_epoch", "Epoch of the head", agent.head().epoch),
            ("zaibei_agent_receipted_seq", "Newest change under a quorum receipt; -1: none", receipted.seq if receipted else -1),
            ("zaibei_agent_records", "Records held", agent.content.digest.records),
            ("zaibei_agent_spool_octets", "Octets that wait for a receipt", agent.waiting()),
            ("zaibei_agent_spool_full", "1: intake has stopped", agent.full()),
            ("zaibei_agent_failed", "1: the log's disk failed", agent.failed is not None),
        ]
        totals: list[tuple[str, str, float]] = [
            ("zaibei_agent_batches", "Batches cut", counts.batches),
            ("zaibei_agent_changes", "Changes published", counts.changes),
            ("zaibei_agent_receipts", "Receipts taken", counts.receipts),
            ("zaibei_agent_foreign_receipts", "Receipts for positions that are not ours", counts.foreign_receipts),
            ("zaibei_agent_grants", "Epochs granted to us", counts.grants),
            ("zaibei_agent_grants_refused", "Grants whose parent was not our head", counts.grants_refused),
        ]
        if self._reader is not None:
            seen = self._reader.counts
            gauges.append(("zaibei_agent_input_rejects", "Lines left out of the newest reading", seen.rejects))
            gauges.append(("zaibei_agent_input_lines", "Lines of the newest reading", seen.lines))
            totals.append(("zaibei_agent_input_rounds", "Readings published", seen.rounds))
            totals.append(("zaibei_agent_input_deletes", "Deletes by rescan", seen.deletes))
            state = GaugeMetricFamily("zaibei_agent_input_state", "1 at the state the input is in", labels=["source", "state"])
            for one in InputState:
                state.add_metric([source, one.value], one is self._reader.state)
            yield state
        yield from _families(GaugeMetricFamily, gauges, source)
        yield from _families(CounterMetricFamily, totals, source)


def _families(
    kind: Callable[..., GaugeMetricFamily | CounterMetricFamily], rows: list[tuple[str, str, float]], source: str
) -> Iterator[Metric]:
    for name, text, value in rows:
        family = kind(name, text, labels=["source"])
        family.add_metric([source], float(value))
        yield family
