"""What one member's observer finds reaches the others whole, and its last sign of life goes on ageing there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from replica.member import cluster_side
from replica.member.cluster_side import ClusterSide
from replica.takeover.detector import Look, Observation
from replica.v1 import peer_pb2

MS = 1_000_000
SOURCE = "node-a"


def told(seen: Observation) -> peer_pb2.ProbeTable:
    """As it leaves the member that found it."""
    sent: list[peer_pb2.ProbeTable] = []
    links = SimpleNamespace(connected={2}, send_table=lambda _member, table: sent.append(table))
    one = SimpleNamespace(settings=SimpleNamespace(name=seen.observer, machine=seen.machine), links=links)
    ClusterSide.tell_probes(one, {SOURCE: seen})  # type: ignore[arg-type]
    return peer_pb2.ProbeTable.FromString(sent[0].SerializeToString())


@pytest.mark.parametrize(("heard_ms", "after_ms", "aged_ms"), [(40, 0, 40), (40, 170, 210), (None, 170, None)])
def test_a_sign_of_life_goes_on_ageing(
    monkeypatch: pytest.MonkeyPatch, heard_ms: int | None, after_ms: int, aged_ms: int | None
) -> None:
    seen = Observation("m1", "machine-1", Look.SILENT, False, False, heard_ms)
    now_ns = [5_000 * MS]
    monkeypatch.setattr(cluster_side, "boottime_ns", lambda: now_ns[0])
    other = SimpleNamespace(observed={})
    ClusterSide.probes(other, 1, told(seen))  # type: ignore[arg-type]
    now_ns[0] += after_ms * MS
    [found] = ClusterSide.observations(other, SOURCE)  # type: ignore[arg-type]
    assert (found.observer, found.machine, found.look, found.heard_ms) == ("m1", "machine-1", Look.SILENT, aged_ms)
