"""A front as a whole: pauses, metrics, the fast event loop, addresses that are taken."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from prometheus_client import CollectorRegistry, generate_latest

from hosting.answer.port import Found, MemoryAnswerPort, Wants
from hosting.front.edge_front import Front, FrontConfig
from hosting.front.edge_metrics import FrontCollector
from hosting.front.pause import PAUSE_MS_MAX, PauseWatch
from hosting.front.service import FrontService
from tests.unit.front.world import NAME, ask_http, ask_tcp, ask_udp, code_of, request_id_of, resolution, serving, world


async def test_after_a_pause_datagrams_are_dropped_and_streams_are_told_2() -> None:
    now = [10**12]
    port = world()
    service = FrontService(port, watch=PauseWatch(lambda: now[0]))
    async with serving(port, service=service) as (front, bound):
        assert code_of((await ask_udp(bound.udp[0], resolution(NAME)))[0]) == 1
        now[0] += (PAUSE_MS_MAX + 1) * 1_000_000
        assert code_of((await ask_tcp(bound.tcp[0], resolution(NAME)))[0]) == 2
        assert (await ask_http(bound.http[0], "/api/handles/88.118.8/XYZ-001"))[0] == 500
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ask_udp(bound.udp[0], resolution(NAME)), 0.2)
        assert front.udp[0].counters.dropped == 1
        now[0] += 100 * 1_000_000
        assert code_of((await ask_udp(bound.udp[0], resolution(NAME)))[0]) == 1


async def test_metrics_are_read_when_scraped() -> None:
    registry = CollectorRegistry()
    async with serving() as (front, bound):
        collector = FrontCollector(front, registry)
        await ask_udp(bound.udp[0], resolution(NAME), resolution(b"88.118.8/none"), answers=2)
        await ask_tcp(bound.tcp[0], resolution(NAME))
        text = generate_latest(registry).decode()
        collector.close()
    assert 'zaibei_front_answers_total{code="1"} 2.0' in text
    assert 'zaibei_front_answers_total{code="100"} 1.0' in text
    assert "zaibei_front_udp_received_total 2.0" in text
    assert 'zaibei_front_accepted_total{protocol="tcp"} 1.0' in text
    assert 'zaibei_front_cut_off_total{protocol="http",reason="over_the_limit"} 0.0' in text
    assert b"zaibei_front" not in generate_latest(registry)


def test_the_fast_event_loop_serves_the_same() -> None:
    async def scenario() -> None:
        async with serving(host="::1") as (_, bound):
            sent = [resolution(NAME, request_id=number) for number in range(1, 301)]
            udp = await ask_udp(bound.udp[0], *sent[:100], answers=100)
            tcp = await ask_tcp(bound.tcp[0], *sent)
            status, _, _ = await ask_http(bound.http[0], "/api/handles/88.118.8/XYZ-001")
        assert {request_id_of(answer) for answer in udp} == set(range(1, 101))
        assert {request_id_of(answer) for answer in tcp} == set(range(1, 301))
        assert status == 200

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("kind", ["udp", "tcp", "http", "grpc"])
async def test_a_taken_address_is_said_and_nothing_stays_bound(kind: str) -> None:
    async with serving(config=FrontConfig(grpc=(("127.0.0.1", 0),))) as (_, bound):
        taken = getattr(bound, kind)[0]
        other = Front(world(), FrontConfig(udp=(("127.0.0.1", 0),), **{kind: (taken,)} if kind != "udp" else {}))
        if kind == "udp":
            other = Front(world(), FrontConfig(udp=(taken,)))
        with pytest.raises(OSError, match=f"127.0.0.1:{taken[1]}"):
            await other.start()
        assert other.udp == []
        assert code_of((await ask_udp(bound.udp[0], resolution(NAME)))[0]) == 1


async def test_a_bug_in_the_port_reaches_the_loop_and_the_next_question_is_answered() -> None:
    class Broken(MemoryAnswerPort):
        async def get_many(self, wants: Wants) -> Found:
            raise RuntimeError("a bug")

    inner = world()
    port = Broken(inner.held, inner.views, inner.records)
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
    async with serving(port) as (front, bound):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ask_udp(bound.udp[0], resolution(NAME)), 0.1)
        front.service.batcher.port = inner
        assert code_of((await ask_udp(bound.udp[0], resolution(NAME)))[0]) == 1
    assert [str(fault["exception"]) for fault in faults] == ["a bug"]
