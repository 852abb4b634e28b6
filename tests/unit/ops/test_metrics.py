"""Metric names, process metrics, and the little server on IPv4 and IPv6."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ops.config import Address
from ops.metrics import MetricsServer, faults_of_names, new_registry, samples, watch_loop
from replica.cluster.health import GroupHealth, Health
from replica.model.errors import Code, ZaibeiError


def test_our_own_names_hold() -> None:
    registry = new_registry("member")
    assert faults_of_names(registry) == []
    names = {metric.name for metric in registry.collect()}
    assert {"zaibei_process_cpu_seconds", "zaibei_process_resident_memory_bytes", "zaibei_process_open_fds"} <= names


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("feed_lag_seconds", "write zaibei_"),
        ("zaibei_kitchen_lag_seconds", "room one of"),
        ("zaibei_feed_lag", "no unit"),
        ("zaibei_feed", "write"),
    ],
)
def test_the_rule_bites(name: str, word: str) -> None:
    registry = CollectorRegistry()
    Gauge(name, "Help.", registry=registry)
    assert [word in fault for fault in faults_of_names(registry)] == [True]


def test_help_is_needed_and_counters_count_things() -> None:
    registry = CollectorRegistry()
    Counter("zaibei_feed_batches", "Batches.", registry=registry)
    assert faults_of_names(registry) == []
    Gauge("zaibei_feed_lag_seconds", " ", registry=registry)
    assert faults_of_names(registry) == ["zaibei_feed_lag_seconds: has no help text"]


def test_samples() -> None:
    registry = CollectorRegistry()
    Counter("zaibei_feed_batches", "Batches.", ["source"], registry=registry).labels("node-a").inc(3)
    Histogram("zaibei_feed_batch_seconds", "Time.", registry=registry).observe(1)
    Gauge("zaibei_store_records", "Records.", registry=registry).set(float("nan"))
    found = {(one.name, tuple(one.labels.items())): one.value for one in samples(registry, "zaibei_")}
    assert found == {
        ("zaibei_feed_batches_total", (("source", "node-a"),)): 3,
        ("zaibei_feed_batch_seconds_count", ()): 1,
        ("zaibei_feed_batch_seconds_sum", ()): 1,
    }
    assert samples(registry, "zaibei_store") == []


async def ask(address: Address, octets: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(octets)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_server_answers(host: str) -> None:
    registry = new_registry("front")
    server = MetricsServer(registry, [Address(host, 0)])
    bound = (await server.start())[0]
    try:
        answer = await ask(bound, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and f"Content-Length: {len(body)}".encode() in head
        assert b'zaibei_process_build_info{role="front"' in body and b"zaibei_process_cpu_seconds_total" in body
        assert (await ask(bound, b"HEAD /metrics HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
        open_metrics = await ask(bound, b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n")
        assert open_metrics.endswith(b"# EOF\n")
    finally:
        await server.stop()


async def test_load_balancers_are_answered_beside_the_metrics() -> None:
    healths = [Health("m1", groups={"g": GroupHealth("leader", "m1", 0, 5)})]
    server = MetricsServer(CollectorRegistry(), [Address("127.0.0.1", 0)], lambda: healths[-1])
    bound = (await server.start())[0]
    try:
        head, _, body = (await ask(bound, b"GET /readyz HTTP/1.1\r\n\r\n")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK") and b"application/json" in head
        assert json.loads(body) == {"member": "m1", "ok": True, "reason": ""}
        assert (await ask(bound, b"HEAD /livez HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
        for target, status in (
            (b"/leader/g", b"200"),
            (b"/follower/g?lag=5", b"503"),
            (b"/any/x", b"404"),
            (b"/any/g?lag=x", b"400"),
        ):
            assert (await ask(bound, b"GET " + target + b" HTTP/1.1\r\n\r\n")).split(b" ")[1] == status, target
        healths.append(Health("m1", failed="the journal failed"))
        assert (await ask(bound, b"GET /livez HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 503 Service Unavailable")
        assert (await ask(bound, b"GET /metrics HTTP/1.1\r\n\r\n")).split(b" ")[1] == b"200"
        assert (await ask(bound, b"GET /\xff HTTP/1.1\r\n\r\n")).split(b" ")[1] == b"404"
    finally:
        await server.stop()
    plain = MetricsServer(CollectorRegistry(), [Address("127.0.0.1", 0)])
    bound = (await plain.start())[0]
    try:
        assert (await ask(bound, b"GET /livez HTTP/1.1\r\n\r\n")).split(b" ")[1] == b"404", "nobody says how it stands"
    finally:
        await plain.stop()


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
        (b"\x00\xff\r\n\r\n", b"400"),
    ],
)
async def test_bad_requests_are_answered(octets: bytes, status: bytes) -> None:
    server = MetricsServer(CollectorRegistry(), [Address("::1", 0)])
    bound = (await server.start())[0]
    try:
        assert (await ask(bound, octets)).split(b" ")[1] == status
        assert (await ask(bound, b"GET /metrics HTTP/1.1\r\n\r\n")).split(b" ")[1] == b"200"
    finally:
        await server.stop()


async def test_a_taken_port_is_one_clear_error() -> None:
    first = MetricsServer(CollectorRegistry(), [Address("127.0.0.1", 0)])
    bound = (await first.start())[0]
    try:
        with pytest.raises(ZaibeiError) as caught:
            await MetricsServer(CollectorRegistry(), [bound]).start()
        assert caught.value.code is Code.CONFLICT
    finally:
        await first.stop()


async def test_the_loop_is_watched() -> None:
    registry = new_registry("member")
    task = asyncio.create_task(watch_loop(registry))
    for _ in range(200):
        await asyncio.sleep(0.05)
        if registry.get_sample_value("zaibei_process_loop_late_seconds_count"):
            break
    else:
        pytest.fail("nothing measured")
    task.cancel()
    assert faults_of_names(registry) == []
