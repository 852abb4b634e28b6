"""The guard in front of every listener, and a batcher that is fair and sheds load while too many wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest

from hosting.answer.question import Question
from hosting.answer.standing import TRY_ANOTHER
from hosting.front.batcher import Batcher
from hosting.front.edge_front import FrontConfig
from hosting.front.edge_grpc import host_of
from hosting.guard.guard import MISSING_NAME, Guard
from hosting.guard.limits import BEHIND_S, SLIP, GuardLimits
from hosting.v1 import resolve_pb2, resolve_pb2_grpc
from replica.model.handle.message import decode_message
from tests.unit.front.test_batcher import Inbox, SlowPort, settle
from tests.unit.front.world import NAME, ask_http, ask_tcp, ask_udp, code_of, operation, resolution, serving

UNTRUSTED = GuardLimits(trusted=())
HOSTS = ["127.0.0.1", "::1"]


def text_of(answer: bytes) -> bytes:
    return decode_message(answer).body


@pytest.mark.parametrize("host", HOSTS)
async def test_over_udp_some_are_told_to_come_by_tcp(host: str) -> None:
    limits = replace(UNTRUSTED, udp_requests_per_s=1)
    async with serving(host=host, config=FrontConfig(guard=limits)) as (front, bound):
        sent = [resolution(NAME, request_id=number) for number in range(1, 41)]
        answers = await ask_udp(bound.udp[0], *sent, answers=1)
        async with asyncio.timeout(30):
            while front.udp[0].counters.received < len(sent):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        counters = front.service.guard.counters
        assert counters.udp_dropped >= len(sent) // 2, "they came in two seconds at most, one batch or more in each"
        assert counters.udp_slipped == counters.udp_dropped // SLIP
        assert code_of(answers[0]) in (1, TRY_ANOTHER)
        assert code_of((await ask_tcp(bound.tcp[0], resolution(NAME)))[0]) == 1


@pytest.mark.parametrize("host", HOSTS)
async def test_what_is_told_says_tcp_and_is_hardly_longer_than_the_question(host: str) -> None:
    async with serving(host=host) as (front, bound):
        front.service.guard.datagrams = lambda received, second: ([], received)  # type: ignore[method-assign]
        (told,) = await ask_udp(bound.udp[0], resolution(NAME))
        assert code_of(told) == TRY_ANOTHER and b"ask over TCP" in text_of(told)
        assert len(told) <= len(resolution(NAME)), "whoever forges an address gains nothing"


@pytest.mark.parametrize("host", HOSTS)
async def test_in_a_flood_who_connected_is_answered_over_udp(host: str) -> None:
    limits = replace(UNTRUSTED, udp_calm_per_s=1)
    async with serving(host=host, config=FrontConfig(guard=limits)) as (front, bound):
        sent = [resolution(NAME, request_id=number) for number in range(1, 41)]
        answers = await ask_udp(bound.udp[0], *sent, answers=1)
        async with asyncio.timeout(30):
            while front.udp[0].counters.received < len(sent):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert code_of(answers[0]) in (1, TRY_ANOTHER) and front.service.guard.counters.udp_unproven >= len(sent) // 2
        assert code_of((await ask_tcp(bound.tcp[0], resolution(NAME)))[0]) == 1
        assert [code_of(one) for one in await ask_udp(bound.udp[0], *sent, answers=len(sent))] == [1] * len(sent)


@pytest.mark.parametrize("host", HOSTS)
async def test_long_answers_go_by_tcp_once_an_address_had_enough_of_them(host: str) -> None:
    limits = replace(UNTRUSTED, udp_long_octets_per_s=100)
    async with serving(host=host, config=FrontConfig(guard=limits)) as (front, bound):
        (short,) = await ask_udp(bound.udp[0], resolution(b"88.118.8/big"))
        assert code_of(short) == TRY_ANOTHER and b"ask over TCP" in text_of(short)
        assert code_of((await ask_tcp(bound.tcp[0], resolution(b"88.118.8/big")))[0]) == 1
        assert front.service.guard.counters.udp_long_shortened == 1


@pytest.mark.parametrize("host", HOSTS)
async def test_streams_of_one_client_together(host: str) -> None:
    limits = replace(UNTRUSTED, stream_requests_per_s=5)
    async with serving(host=host, config=FrontConfig(guard=limits, grpc=((host, 0),))) as (front, bound):
        asked = [resolution(NAME, request_id=number) for number in range(1, 31)]
        answers = await ask_tcp(bound.tcp[0], *asked)
        codes = sorted(map(code_of, answers))
        assert codes.count(1) <= 10 and codes.count(TRY_ANOTHER) >= 20 and len(codes) == 30, "each is answered"
        both = await ask_tcp(bound.tcp[0], operation(2), resolution(NAME))
        assert 1 in map(code_of, both), "a request for our site is no question"
        front.service.guard.limits = limits
        front.service.guard._streams.limit = 1
        literal = f"[{host}]" if ":" in host else host
        async with grpc.aio.insecure_channel(f"{literal}:{bound.grpc[0][1]}") as channel:
            stub: resolve_pb2_grpc.ResolverAsyncStub = resolve_pb2_grpc.ResolverStub(channel)
            told = await stub.BatchResolve(resolve_pb2.BatchResolveRequest(identifiers=[NAME, NAME, NAME]))
            assert told.response_codes == bytes((0, 2)) * 3
        front.service.guard._streams.limit = 10**9
        status, _, _ = await ask_http(bound.http[0], f"/api/handles/{NAME.decode()}")
        assert status == 200


async def test_http_over_the_limit() -> None:
    guard = Guard(replace(UNTRUSTED, stream_requests_per_s=1))
    async with serving() as (front, bound):
        front.service.guard = guard
        guard.stream = lambda client, requests, second: 0  # type: ignore[method-assign]
        status, _, body = await ask_http(bound.http[0], f"/api/handles/{NAME.decode()}")
        assert status == 503 and b"too many questions" in body


@pytest.mark.parametrize("host", HOSTS)
async def test_refused_networks_get_no_answer(host: str) -> None:
    limits = replace(UNTRUSTED, refused=("127.0.0.0/8", "::1/128"))
    async with serving(host=host, config=FrontConfig(guard=limits, grpc=((host, 0),))) as (front, bound):
        for address in (bound.tcp[0], bound.http[0]):
            reader, writer = await asyncio.open_connection(*address)
            async with asyncio.timeout(30):
                try:
                    assert await reader.read() == b""
                except ConnectionResetError:
                    pass
            writer.close()
        literal = f"[{host}]" if ":" in host else host
        async with grpc.aio.insecure_channel(f"{literal}:{bound.grpc[0][1]}") as channel:
            stub: resolve_pb2_grpc.ResolverAsyncStub = resolve_pb2_grpc.ResolverStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Resolve(resolve_pb2.ResolveRequest(identifier=NAME.decode()))
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert front.service.guard.counters.refused == 3


def test_hosts_of_grpc() -> None:
    assert host_of("ipv4:192.0.2.1:5000") == "192.0.2.1" and host_of("ipv6:%5B2001:db8::1%5D:5000") == "2001:db8::1"
    assert host_of("unix:/run/x") == host_of("") == ""


async def test_an_identifier_asked_too_often_leaves_others_alone() -> None:
    inbox, port = Inbox(), SlowPort()
    batcher = Batcher(port, guard=Guard(GuardLimits(identifier_per_s=3)))
    for at in range(5):
        assert batcher.ask(inbox, at, Question(NAME))
    assert batcher.ask(inbox, "other", Question(b"88.118.8/big"))
    await settle()
    port.gates[0].set()
    await settle()
    assert inbox.codes == {**dict.fromkeys(range(5), TRY_ANOTHER), "other": 1}
    assert sum(map(len, port.wants[0].values())) == 1, "what is held back is not read"


def batch(*names: bytes) -> resolve_pb2.BatchResolveRequest:
    return resolve_pb2.BatchResolveRequest(identifiers=names)


@pytest.mark.parametrize("name", [NAME, b"88.119.8/x", b"0.NA/88.119.8"])
async def test_an_identifier_has_one_rate_over_all_protocols(name: bytes) -> None:
    """Of every kind: those that need one key, those below a route, a prefix's own record."""
    limits = GuardLimits(identifier_per_s=10)
    async with serving(config=FrontConfig(guard=limits, grpc=(("127.0.0.1", 0),))) as (front, bound):
        names = front.service.guard.names
        front.service.guard.names = lambda keys, second: names(keys, 0)  # type: ignore[method-assign]  # all in one second
        [before] = await ask_tcp(bound.tcp[0], resolution(name))
        answered = code_of(before)
        assert answered != TRY_ANOTHER
        async with grpc.aio.insecure_channel(f"127.0.0.1:{bound.grpc[0][1]}") as channel:
            stub: resolve_pb2_grpc.ResolverAsyncStub = resolve_pb2_grpc.ResolverStub(channel)
            told = await stub.BatchResolve(batch(*[name] * 9, b"88.118.8/big"))
            assert told.response_codes == answered.to_bytes(2, "big") * 9 + bytes((0, 1))
            told = await stub.BatchResolve(batch(name, b"88.118.8/big"))
            assert told.response_codes == bytes((0, TRY_ANOTHER, 0, 1))
            single = await stub.Resolve(resolve_pb2.ResolveRequest(identifier=name.decode()))
            assert single.answer.response_code == TRY_ANOTHER and "asked for too often" in single.answer.message
        [after] = await ask_tcp(bound.tcp[0], resolution(name))
        assert code_of(after) == TRY_ANOTHER and front.service.guard.counters.identifier_over == 3


async def test_a_scan_over_grpc_is_seen() -> None:
    notes: list[tuple[str, bytes, int]] = []
    async with serving(config=FrontConfig(guard=UNTRUSTED, grpc=(("127.0.0.1", 0),))) as (front, bound):
        front.service.guard.note = lambda *note: notes.append(note)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{bound.grpc[0][1]}") as channel:
            stub: resolve_pb2_grpc.ResolverAsyncStub = resolve_pb2_grpc.ResolverStub(channel)
            await stub.BatchResolve(batch(NAME, b"88.118.8/none", b"88.118.8/neither"))
    assert notes == [(MISSING_NAME, bytes((127, 0, 0)), 2)]


async def test_while_many_wait_each_source_has_its_part() -> None:
    inbox, port = Inbox(), SlowPort()
    batcher = Batcher(port, waiting_max=40)
    mad = [batcher.ask(inbox, ("gd", at), Question(NAME)) for at in range(100)]
    assert mad.count(True) == 30, "a quarter is left for those that come anew"
    honest = [batcher.ask(inbox, ("old", at), Question(b"88.121/a")) for at in range(10)]
    assert all(honest) and batcher.counters.unfair == 70
    assert not batcher.ask(inbox, "more", Question(b"88.121/a")) and batcher.counters.overflowed == 1
    await settle()
    port.gates[0].set()
    await settle()
    assert len(inbox.answers) == 40
    assert batcher.ask(inbox, "again", Question(NAME)), "what landed is no longer held"


async def test_while_many_wait_the_cheap_and_known_go_first() -> None:
    inbox, port = Inbox(), SlowPort()
    batcher = Batcher(port, waiting_max=40)
    for at in range(29):
        assert batcher.ask(inbox, at, Question(NAME))
    assert batcher.ask(inbox, "route", Question(b"88.119.8/x")), "not yet"
    assert not batcher.ask(inbox, "dear", Question(b"88.119.8/y")) and not batcher.ask(inbox, "junk", Question(b"99.9/x"))
    assert batcher.counters.shed == 2
    assert batcher.ask(inbox, "cheap", Question(b"88.121/a"))


async def test_more_than_can_be_read_is_a_flood() -> None:
    async with serving() as (front, _):
        listener, guard = front.udp[0], front.service.guard
        second = int(asyncio.get_running_loop().time())
        listener._look_behind(True)
        listener._look_behind(True)
        assert not guard.flooded(second), "a burst is none"
        listener._behind_since_s = second - BEHIND_S - 1
        listener._look_behind(False)
        listener._look_behind(True)
        assert not guard.flooded(second), "it was read to its end meanwhile"
        listener._behind_since_s = second - BEHIND_S - 1
        listener._look_behind(True)
        assert guard.flooded(second)
