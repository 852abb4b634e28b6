"""A tenant's quota of resolutions where answers are made: in the batcher, and over real sockets."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from hosting.answer.question import Question
from hosting.answer.standing import TRY_ANOTHER
from hosting.front.batcher import Batcher
from hosting.front.edge_front import FrontConfig
from hosting.front.edge_metrics import FrontCollector
from hosting.front.port_wire import decode_catalog, encode_catalog
from hosting.guard.guard import Guard
from hosting.guard.limits import GuardLimits
from hosting.v1 import resolve_pb2, resolve_pb2_grpc
from replica.model.tenant_view import TenantView
from tests.unit.front.test_batcher import Inbox, settle
from tests.unit.front.world import CATALOG, NAME, ask_http, ask_tcp, ask_udp, code_of, resolution, serving, world

SLOW = 1e-6  # a second: nothing comes back while a test runs


def limited(source: str, most: int) -> dict[str, TenantView]:
    return {source: TenantView(SLOW, most / SLOW)}


async def test_over_its_quota_a_tenant_is_refused_and_no_other() -> None:
    inbox, port = Inbox(), world()
    port.held = replace(CATALOG, tenants=limited("gd", 3))
    batcher = Batcher(port)
    for at in range(5):
        batcher.ask(inbox, at, Question(NAME if at % 2 else b"88.118.8/big"))
    batcher.ask(inbox, "other", Question(b"88.119.8/x"))
    await settle()
    assert inbox.codes == {0: 1, 1: 1, 2: 1, 3: TRY_ANOTHER, 4: TRY_ANOTHER, "other": 302}
    assert len(port.calls) == 1 and len(port.calls[0]["gd"]) == 3, "what is over is not read"
    assert b"over its quota" in inbox.answers[0][2].octets
    batcher.ask(inbox, "again", Question(NAME))
    await settle()
    assert inbox.codes["again"] == TRY_ANOTHER and len(port.calls) == 1, "no store is asked for nothing"
    assert batcher.counters.by_code == {1: 3, TRY_ANOTHER: 3, 302: 1} and batcher.counters.questions == 7


async def test_a_stranger_uses_up_a_tenants_quota_and_no_other_tenants() -> None:
    """That is what a quota is (tenants.md says so): all clients count, and names that are not there do."""
    inbox, port = Inbox(), world()
    port.held = replace(CATALOG, tenants=limited("gd", 3) | limited("old", 3))
    batcher = Batcher(port)
    for at in range(4):
        batcher.ask(inbox, ("stranger", at), Question(b"88.118.8/none%d" % at))
    await settle()
    batcher.ask(inbox, "client", Question(NAME))
    batcher.ask(inbox, "other", Question(b"88.121/a"))
    batcher.ask(inbox, "route", Question(b"88.119.8/x"))
    await settle()
    assert [inbox.codes["stranger", at] for at in range(4)] == [100] * 3 + [TRY_ANOTHER]
    assert inbox.codes["client"] == TRY_ANOTHER and b"over its quota" in inbox.answers[4][2].octets
    assert inbox.codes["route"] == 302 and b"over its quota" not in next(a.octets for c, _, a in inbox.answers if c == "other")


@pytest.mark.parametrize("most", range(5))
async def test_a_question_of_several_reads_counts_once_and_keeps_its_own(most: int) -> None:
    inbox, port = Inbox(), world()
    port.held = replace(CATALOG, tenants=limited("gx", most)) if most else replace(CATALOG, tenants={"gx": TenantView(0.0)})
    batcher = Batcher(port)
    names = [b"88.119.8/x", b"88.119.8.7/y", b"0.NA/88.119.8", b"88.119.9/none"]
    for at, name in enumerate(names):
        batcher.ask(inbox, at, Question(name))
    await settle()
    assert [inbox.codes[at] for at in range(4)] == [302, 302, 1, 100][:most] + [TRY_ANOTHER] * (4 - most)


async def test_an_identifier_held_back_takes_nothing_from_its_tenant() -> None:
    inbox, port = Inbox(), world()
    port.held = replace(CATALOG, tenants=limited("gd", 1))
    batcher = Batcher(port, guard=Guard(GuardLimits(identifier_per_s=3)))
    for at in range(5):
        batcher.ask(inbox, at, Question(NAME))
    batcher.ask(inbox, "big", Question(b"88.118.8/big"))
    await settle()
    assert inbox.codes == {**dict.fromkeys(range(5), TRY_ANOTHER), "big": 1}


def test_a_front_in_its_own_process_knows_the_quota() -> None:
    told = replace(CATALOG, tenants=limited("gd", 3))
    assert decode_catalog(encode_catalog(told)).tenants == told.tenants


async def test_all_protocols_share_it_and_trusted_clients_have_no_more() -> None:
    """Over real sockets, from loopback, which is trusted by default."""
    port, registry = world(), CollectorRegistry()
    port.held = replace(CATALOG, tenants=limited("gd", 3))
    async with serving(port, config=FrontConfig(grpc=(("127.0.0.1", 0),))) as (front, bound):
        collector = FrontCollector(front, registry)
        where = "/api/handles/88.118.8/XYZ-001"
        assert code_of((await ask_udp(bound.udp[0], resolution(NAME)))[0]) == 1
        assert code_of((await ask_tcp(bound.tcp[0], resolution(NAME)))[0]) == 1
        assert (await ask_http(bound.http[0], where))[0] == 200
        assert code_of((await ask_udp(bound.udp[0], resolution(NAME)))[0]) == TRY_ANOTHER
        assert code_of((await ask_tcp(bound.tcp[0], resolution(NAME)))[0]) == TRY_ANOTHER
        assert (await ask_http(bound.http[0], where))[0] == 500
        assert code_of((await ask_tcp(bound.tcp[0], resolution(b"88.119.8/x")))[0]) == 302, "other tenants are answered"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{bound.grpc[0][1]}") as channel:
            stub: resolve_pb2_grpc.ResolverAsyncStub = resolve_pb2_grpc.ResolverStub(channel)
            items = await stub.BatchResolve(resolve_pb2.BatchResolveRequest(identifiers=[NAME, b"88.119.8/x"]))
        codes = items.response_codes
        assert codes[:2] == bytes((0, TRY_ANOTHER)) and codes[2:] != codes[:2], "each item has its own code"
        said = generate_latest(registry).decode()
        collector.close()
    assert 'zaibei_front_over_quota_total{source="gd"} 4.0' in said and 'held_back_total{rule="tenant_over"} 4.0' in said
