"""Golden vectors through real sockets, on IPv4 and IPv6, and what each listener does beside them."""

from __future__ import annotations

import asyncio
import time

import grpc
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hosting.answer.question import Answer, Question
from hosting.front.edge_front import FrontConfig
from hosting.front.edge_site_key import SiteKey
from hosting.front.exchange import Exchange
from hosting.front.service import FrontService
from hosting.v1 import resolve_pb2, resolve_pb2_grpc
from replica.model.handle.answers import Peeked
from replica.model.handle.bodies import ErrorResponse, ResolutionResponse, SiteResponse, decode_response
from replica.model.handle.codes import ENVELOPE_OCTETS, FLAGS_DEFAULT, OpFlag
from replica.model.handle.fragments import Reassembler, datagrams
from replica.model.handle.message import decode_message
from replica.model.handle.signatures import judge_signature
from replica.model.handle.types import decode_site
from tests.unit.front.world import (
    BIG,
    CATALOG,
    GOLDEN_URL,
    HUGE,
    NAME,
    OWN_SITE,
    ask_http,
    ask_tcp,
    ask_udp,
    code_of,
    operation,
    read_http,
    read_message,
    request_id_of,
    resolution,
    serving,
    without_expiration,
    world,
)
from tests.unit.handle.golden import OCTETS, TEXT

HOSTS = ["127.0.0.1", "::1"]
TUNNEL = "application/x-hdl-message"
GOLDEN = [  # request, and the vector that answers it
    (OCTETS["resolve_req_compat"], "resolve_resp"),
    (resolution(NAME), "resolve_resp"),
    (resolution(b"86.5/x"), "err_server_not_resp"),
    (resolution(b"88.119.8/x"), "service_referral"),
]


@pytest.mark.parametrize("host", HOSTS)
async def test_vectors_over_udp_tcp_and_the_tunnel(host: str) -> None:
    requests = [request for request, _ in GOLDEN]
    async with serving(host=host) as (_, bound):
        udp = [(await ask_udp(bound.udp[0], request))[0] for request in requests]
        tcp = [(await ask_tcp(bound.tcp[0], request))[0] for request in requests]
        tunnel = [await ask_http(bound.http[0], "/x", "POST", request, TUNNEL) for request in requests]
    for (_, vector), *answers in zip(GOLDEN, udp, tcp, [body for _, _, body in tunnel], strict=True):
        for answer in answers:
            assert without_expiration(answer) == OCTETS[vector]
            assert decode_message(answer).header.expiration > time.time() + 43_000
    assert {(status, headers["content-type"]) for status, headers, _ in tunnel} == {(200, TUNNEL)}


@pytest.mark.parametrize("host", HOSTS)
async def test_vectors_as_json(host: str) -> None:
    async with serving(host=host) as (_, bound):
        status, headers, body = await ask_http(bound.http[0], "/api/handles/88.118.8/XYZ-001")
        referred, _, referral = await ask_http(bound.http[0], "/api/handles/88.119.8/x")
    assert (status, body.decode()) == (200, TEXT["resp_json"])
    assert headers["x-zaibei-source"] == "gd" and headers["x-zaibei-freshness"] == "fresh"
    assert headers["x-zaibei-age-ms"] == "120" and headers["x-zaibei-position"].endswith(":" + "01" * 32)
    assert referred == 300
    told, golden = msgspec.json.decode(referral), msgspec.json.decode(TEXT["referral_json"])
    assert told == golden | {"responseCode": 302, "referralHandle": "0.SERV/88.118"}


async def test_the_digest_vector() -> None:
    port = world()
    port.records["gd"].clear()
    async with serving(port) as (_, bound):
        (answer,) = await ask_udp(bound.udp[0], resolution(NAME, flags=FLAGS_DEFAULT | OpFlag.REQUEST_DIGEST))
    assert without_expiration(answer) == OCTETS["err_not_found_with_digest"]


def test_the_prefix_referral_vector() -> None:
    exchange = Exchange(lambda: 0)
    taken = exchange.take(resolution(b"0.NA/88.118.5"))
    assert isinstance(taken, tuple) and isinstance(taken[0], Peeked)
    values = bytes.fromhex("00000001") + OCTETS["prefix_referral"][44 + 8 :][:-4]
    answer = exchange.answer(taken[0], Question(b""), Answer(303, values), 0)
    assert answer == OCTETS["prefix_referral"]


async def test_filters_of_the_vector_request_are_a_union_and_at_is_for_the_authority() -> None:
    key = SiteKey(rsa.generate_private_key(65_537, 2_048))
    async with serving(service=FrontService(world(), site_key=key)) as (_, bound):
        (answer,) = await ask_udp(bound.udp[0], OCTETS["resolve_req_2_11_idx_types"])  # has AT and CT
    assert code_of(answer) == 2
    judge_signature(decode_message(answer), answer, key.public)
    assert b"not the authority" in answer


@pytest.mark.parametrize("host", HOSTS)
async def test_get_site_tells_the_freshness_of_each_source(host: str) -> None:
    async with serving(host=host) as (_, bound):
        (udp,) = await ask_udp(bound.udp[0], OCTETS["get_site_req"])
        (tcp,) = await ask_tcp(bound.tcp[0], OCTETS["get_site_req"])
        status, _, page = await ask_http(bound.http[0], "/api/site")
    for answer in (udp, tcp):
        told = decode_response(decode_message(answer))
        assert isinstance(told, SiteResponse)
        assert told.site.servers == decode_site(OWN_SITE).servers
        assert dict(told.site.attributes)[b"freshness.gd"].startswith(b"fresh 1/9")
        assert dict(told.site.attributes)[b"freshness.old"].startswith(b"expired 1/9")
    site = msgspec.json.decode(page)["site"]
    assert (status, site["serialNumber"], len(site["attributes"])) == (200, 3, 4)


@pytest.mark.parametrize(
    ("request_octets", "code"),
    [
        (OCTETS["create_req"], 301),
        (operation(101, NAME), 301),
        (OCTETS["list_req"], 5),
        (OCTETS["retrieve_txn_req_2_3"], 5),
        (OCTETS["dump_req"], 5),
        (operation(400), 5),
        (operation(2001), 5),
        (operation(77), 5),
        (resolution(b""), 102),
        (resolution(b"88..1/x"), 102),
        (resolution(b"0"), 1),
        (resolution(NAME, recursion=11), 6),
        (resolution(NAME, credential=b"\0\0\0\0\0\0\0\0"), 1),
        (resolution(NAME, types=(b"EMAIL",)), 200),
        (resolution(b"88.118.8/none"), 100),
        (resolution(b"88.118.8/bad"), 2),
        (resolution(b"88.121/a"), 2),
        (resolution(NAME)[:-3], 4),
    ],
)
async def test_codes(request_octets: bytes, code: int) -> None:
    async with serving() as (_, bound):
        (answer,) = await ask_udp(bound.udp[0], request_octets)
    assert (code_of(answer), request_id_of(answer)) == (code, 0x01020304)


async def test_the_heartbeat_asks_no_store() -> None:
    port = world()
    async with serving(port) as (_, bound):
        await ask_tcp(bound.tcp[0], *[resolution(b"0", request_id=number) for number in range(1, 20)])
    assert port.calls == []


async def test_responses_and_scraps_are_answered_with_silence() -> None:
    async with serving() as (_, bound):
        answers = await ask_udp(
            bound.udp[0], OCTETS["resolve_resp"], OCTETS["err_server_not_resp"], b"", b"x" * 19, resolution(NAME)
        )
        assert [request_id_of(answer) for answer in answers] == [0x01020304]
        assert without_expiration(answers[0]) == OCTETS["resolve_resp"]


# --------------------------------------------------------------------------------------------------------------- UDP
@pytest.mark.parametrize("host", HOSTS)
async def test_fragments_in_both_directions(host: str) -> None:
    request = resolution(b"88.118.8/big", types=(*(b"TYPE%d" % number for number in range(100)), b"BLOB"))
    parts = datagrams(request)
    assert len(parts) > 1
    async with serving(host=host) as (front, bound):
        received = await ask_udp(bound.udp[0], *reversed(parts), answers=4)
        assert front.udp[0].reassembler.octets_held == 0
    joiner = Reassembler()
    (answer,) = [whole for whole in (joiner.feed(1, datagram, 0) for datagram in received) if whole is not None]
    assert all(len(datagram) <= 512 for datagram in received)
    assert decode_response(decode_message(answer)) == ResolutionResponse(b"88.118.8/big", (BIG,))


async def test_an_answer_too_long_for_udp_sends_the_client_to_tcp() -> None:
    async with serving() as (_, bound):
        (short,) = await ask_udp(bound.udp[0], resolution(b"88.118.8/huge"))
        (whole,) = await ask_tcp(bound.tcp[0], resolution(b"88.118.8/huge"))
    told = decode_response(decode_message(short))
    assert code_of(short) == 2 and isinstance(told, ErrorResponse) and b"TCP" in (told.message or b"")
    assert decode_response(decode_message(whole)) == ResolutionResponse(b"88.118.8/huge", (HUGE,))


async def test_many_datagrams_of_one_tick_make_one_call() -> None:
    port = world()
    async with serving(port) as (_, bound):
        sent = [resolution(NAME, request_id=number) for number in range(1, 101)]
        answers = await ask_udp(bound.udp[0], *sent, answers=100)
    assert {request_id_of(answer) for answer in answers} == set(range(1, 101))
    assert len(port.calls) < 50, "without it 100; a busy machine hands them over in several parts"


# --------------------------------------------------------------------------------------------------------------- TCP
async def test_a_connection_stays_open_and_takes_octets_as_they_come() -> None:
    async with serving() as (_, bound):
        reader, writer = await asyncio.open_connection(*bound.tcp[0])
        for octet in resolution(NAME, request_id=7):
            writer.write(bytes((octet,)))
            await writer.drain()
        assert request_id_of(await read_message(reader)) == 7
        writer.write(resolution(NAME, request_id=8))
        assert request_id_of(await read_message(reader)) == 8
        writer.close()


async def test_pipelined_requests_beyond_the_limit_wait_and_all_are_answered() -> None:
    async with serving() as (_, bound):
        answers = await ask_tcp(bound.tcp[0], *[resolution(NAME, request_id=number) for number in range(1, 1_001)])
    assert {request_id_of(answer) for answer in answers} == set(range(1, 1_001))


async def test_after_octets_that_are_no_envelope_the_connection_is_closed() -> None:
    async with serving() as (front, bound):
        reader, writer = await asyncio.open_connection(*bound.tcp[0])
        writer.write(b"\xff" * 64)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 10)
        writer.close()
        assert front.tcp.cut_off == {"malformed": 1}


# -------------------------------------------------------------------------------------------------------------- HTTP
@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/api/handles/88.118.8/none", 404, 100),
        ("/api/handles/88.118.8%2FXYZ-001", 200, 1),
        ("/api/handles/88.118.8/%E8%AE%BE%E5%A4%87", 200, 1),
        ("/api/handles/88.118.8/XYZ-001?type=EMAIL", 200, 200),
        ("/api/handles/88.118.8/XYZ-001?type=URL&index=4&type=X", 200, 1),
        ("/api/handles/88.118.8/XYZ-001?auth", 500, 2),
        ("/api/handles/88.119.8/x?doNotRefer=true", 400, 301),
        ("/api/handles/86.1/x", 400, 301),
        ("/api/handles/88..1/x", 400, 102),
        ("/api/handles/88.121/a", 500, 2),
        ("/api/handles/88.118.8/XYZ-001?index=-1", 400, 4),
        ("/api/handles/88.118.8/XYZ-001?callback=a();b", 400, 4),
        ("/api/handles?prefix=88.118", 501, 5),
        ("/api/prefixes", 501, 5),
        ("/api/sessions", 501, 5),
    ],
)
async def test_json_codes(target: str, status: int, code: int) -> None:
    async with serving() as (_, bound):
        got, headers, body = await ask_http(bound.http[0], target)
    assert (got, msgspec.json.decode(body)["responseCode"]) == (status, code)
    assert headers["content-type"] == "application/json;charset=UTF-8"


async def test_other_methods_and_pages() -> None:
    async with serving() as (_, bound):
        address = bound.http[0]
        put = await ask_http(address, "/api/handles/88.118.8/new", "PUT", b"[]", "application/json")
        delete = await ask_http(address, "/api/handles/88.118.8/XYZ-001", "DELETE")
        patch = await ask_http(address, "/api/handles/88.118.8/XYZ-001", "PATCH")
        missing = await ask_http(address, "/nowhere")
        alive, ready = await ask_http(address, "/livez"), await ask_http(address, "/readyz")
        form = await ask_http(
            address, "/api/handles/88.118.8/XYZ-001", "POST", b"type=EMAIL&index=1", "application/x-www-form-urlencoded"
        )
        json = await ask_http(
            address, "/api/handles/88.118.8/XYZ-001", "POST", b'{"type":["EMAIL"],"pretty":true}', "application/json"
        )
        script = await ask_http(address, "/api/handles/88.118.8/XYZ-001?callback=cb.x")
    assert [msgspec.json.decode(page[2])["responseCode"] for page in (put, delete)] == [301, 301]
    assert (put[0], delete[0], patch[0], missing[0]) == (400, 400, 405, 404)
    assert msgspec.json.decode(missing[2])["message"]
    assert (alive[0], ready[0]) == (200, 200)
    assert form[2].decode() == TEXT["resp_json"]
    assert msgspec.json.decode(json[2])["responseCode"] == 200 and b"\n  " in json[2]
    assert script[2].decode() == f"cb.x({TEXT['resp_json']});" and script[1]["content-type"].startswith("application/javascript")


async def test_not_ready_is_503() -> None:
    port = world()
    port.views = {"old": port.views["old"]}
    async with serving(port) as (_, bound):
        assert (await ask_http(bound.http[0], "/readyz"))[0] == 503
        assert (await ask_http(bound.http[0], "/livez"))[0] == 200


async def test_pipelined_http_is_answered_in_order_and_keeps_the_connection() -> None:
    targets = [f"/api/handles/88.118.8/{name}" for name in ("XYZ-001", "none", "XYZ-001")] + ["/livez", "/api/site", "/nowhere"]
    async with serving() as (_, bound):
        reader, writer = await asyncio.open_connection(*bound.http[0])
        writer.write("".join(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n" for target in targets).encode())
        statuses = [(await read_http(reader))[0] for _ in targets]
        assert statuses == [200, 404, 200, 200, 200, 404]
        writer.write(b"HEAD /api/handles/88.118.8/XYZ-001 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        rest = await asyncio.wait_for(reader.read(), 10)
        assert rest.startswith(b"HTTP/1.1 200") and rest.endswith(b"\r\n\r\n")
        writer.close()


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", b"431"),
        (b"POST /x HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + b"y" * 300_000, b"413"),
        (b"GET /livez HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"200"),
    ],
)
async def test_bad_http_is_told_and_closed(octets: bytes, status: bytes) -> None:
    async with serving() as (_, bound):
        reader, writer = await asyncio.open_connection(*bound.http[0])
        writer.write(octets)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert answer.split()[1] == status


# -------------------------------------------------------------------------------------------------------------- gRPC
@pytest.mark.parametrize("host", HOSTS)
async def test_grpc_batches(host: str) -> None:
    names = [NAME, b"88.118.8/none", b"86.5/x", b"88.119.8/x", b"88.121/a", b"88..1/x"]
    async with serving(host=host, config=FrontConfig(grpc=((host, 0),))) as (_, bound):
        address = f"[{host}]:{bound.grpc[0][1]}" if ":" in host else f"{host}:{bound.grpc[0][1]}"
        async with grpc.aio.insecure_channel(address) as channel:
            stub = resolve_pb2_grpc.ResolverStub(channel)
            told = await stub.BatchResolve(resolve_pb2.BatchResolveRequest(identifiers=names))
            one = await stub.Resolve(resolve_pb2.ResolveRequest(identifier="88.121/a"))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.BatchResolve(resolve_pb2.BatchResolveRequest())
    codes = [int.from_bytes(told.response_codes[at : at + 2], "big") for at in range(0, 12, 2)]
    assert codes == [1, 100, 301, 302, 2, 102]
    assert told.values[0] == OCTETS["resolve_resp"][64:-4] and told.values[3] and not told.values[1]
    sources = [told.vouches[place].source for place in told.vouch_places]
    assert sources == ["gd", "gd", "", "gx", "old", ""]
    assert told.vouches[told.vouch_places[0]].age_ms == 120
    assert one.answer.response_code == 2 and "expired" in one.answer.message and one.vouch.source == "old"
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_world_is_what_the_vectors_speak_of() -> None:
    assert GOLDEN_URL.data == b"http://example.cn/a" and len(CATALOG.owners) == 3 and ENVELOPE_OCTETS == 20
