"""Registration over sockets: challenge, proof and change over TCP, UDP and the HTTP tunnel; else 301."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Awaitable, Callable

import pytest

from hosting.front.edge_front import Front, FrontConfig
from hosting.front.service import FrontService
from replica.model.handle.codes import OpCode
from replica.model.handle.message import Message, decode_message
from replica.model.handle.stream import Deframer
from tests.unit.front.world import ask_http
from tests.unit.handle.test_json_writes import VALUES, basic
from tests.unit.handle.test_registrar import CREATE, NAME, PREFIX, World, answer_of, request

WAIT_S = 30.0
Ask = Callable[[bytes], Awaitable[Message]]


async def over_tcp(octets: bytes, host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(octets)
        frames = Deframer()
        async with asyncio.timeout(WAIT_S):
            while not (found := frames.feed(await reader.read(65_536))):
                assert not reader.at_eof()
        return bytes(found[0])
    finally:
        writer.close()


class _Datagram(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.answer.done():
            self.answer.set_result(data)


async def over_udp(octets: bytes, host: str, port: int) -> bytes:
    transport, peer = await asyncio.get_running_loop().create_datagram_endpoint(_Datagram, remote_addr=(host, port))
    try:
        transport.sendto(octets)
        async with asyncio.timeout(WAIT_S):
            return await peer.answer
    finally:
        transport.close()


async def over_http(octets: bytes, host: str, port: int) -> bytes:
    def post() -> bytes:
        asked = urllib.request.Request(
            f"http://{host}:{port}/88.118.9/NEW", octets, {"Content-Type": "application/x-hdl-message"}, method="POST"
        )
        with urllib.request.urlopen(asked, timeout=WAIT_S) as answer:
            return bytes(answer.read())

    return await asyncio.to_thread(post)


@pytest.mark.parametrize("way", ["tcp", "udp", "http"])
async def test_a_handle_is_registered_over_sockets(way: str) -> None:
    world = World()
    place = [("127.0.0.1", 0)]
    service = FrontService(world.port, registrar=lambda: world.registrar)
    front = Front(world.port, FrontConfig(udp=place, tcp=place, http=place), service)
    bound = await front.start()
    try:
        send = {"tcp": over_tcp, "udp": over_udp, "http": over_http}[way]
        host, port = {"tcp": bound.tcp, "udp": bound.udp, "http": bound.http}[way][0]
        asked = request(OpCode.CREATE_HANDLE, CREATE)
        challenge = decode_message(await send(asked, host, port))
        assert challenge.header.response_code == 402
        done = decode_message(await send(answer_of(challenge, asked), host, port))
        assert (done.header.response_code, done.envelope.request_id) == (1, 8)
        assert world.values(NAME) is not None
    finally:
        await front.stop()


async def test_a_handle_is_registered_over_the_json_api() -> None:
    world = World()
    place = [("127.0.0.1", 0)]
    service = FrontService(world.port, registrar=lambda: world.registrar)
    front = Front(world.port, FrontConfig(http=place), service)
    bound = await front.start()
    try:
        body, kind = json.dumps(VALUES).encode(), "application/json"
        target = f"/api/handles/{NAME}"
        status, headers, _ = await ask_http(bound.http[0], target, "PUT", body, kind)
        assert status == 401 and "handle" in headers["www-authenticate"].lower()
        status, _, said = await ask_http(bound.http[0], target, "PUT", body, f"{kind}\r\nAuthorization: {basic().decode()}")
        assert (status, json.loads(said)["responseCode"]) == (201, 1) and world.values(NAME) is not None
        status, _, said = await ask_http(
            bound.http[0], target + "?pretty", "DELETE", kind=f"x\r\nAuthorization: {basic().decode()}"
        )
        assert status == 200 and b"\n" in said and world.values(NAME) is None
        twice = f"{kind}\r\nAuthorization: {basic().decode()}\r\nAuthorization: Basic eA=="
        assert (await ask_http(bound.http[0], target, "PUT", body, twice))[0] == 400
        assert (await ask_http(bound.http[0], f"/api/handles?prefix={PREFIX}"))[0] == 401
    finally:
        await front.stop()


async def test_where_no_source_lives_registrations_are_sent_away() -> None:
    world = World()
    place = [("127.0.0.1", 0)]
    front = Front(world.port, FrontConfig(udp=place, tcp=place, http=place))
    bound = await front.start()
    try:
        said = decode_message(await over_tcp(request(OpCode.CREATE_HANDLE, CREATE), *bound.tcp[0]))
        assert said.header.response_code == 301
    finally:
        await front.stop()
