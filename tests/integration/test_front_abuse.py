"""Hostile and slow clients: an error answer or silence, never a crash, a leak or unbounded memory."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from hosting.answer.port import Found, MemoryAnswerPort, Wants
from hosting.front.connections import StreamLimits
from hosting.front.edge_front import Bound, Front, FrontConfig
from replica.model.handle.fragments import datagrams
from replica.model.handle.message import decode_message
from tests.unit.front.world import (
    NAME,
    ask_http,
    ask_tcp,
    ask_udp,
    code_of,
    read_message,
    request_id_of,
    resolution,
    serving,
    world,
)
from tests.unit.handle.golden import OCTETS

HOSTS = ["127.0.0.1", "::1"]
WAIT_S = 20.0
ROUNDS = 300
SEEDS = [*OCTETS.values(), resolution(NAME), *datagrams(resolution(NAME, types=(b"T" * 600,)))]
HTTP_SEEDS = [
    b"GET /api/handles/88.118.8/XYZ-001?type=URL&index=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /x HTTP/1.1\r\nContent-Type: application/x-hdl-message\r\nContent-Length: 76\r\n\r\n" + OCTETS["resolve_req_compat"],
    b"PUT /api/handles/a/b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    b'POST /api/handles/88.118/x HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"index":[1,2]}',
]


def mutate(rng: random.Random, seed: bytes) -> bytes:
    """A few octets changed, cut, doubled or replaced by an interesting number."""
    octets = bytearray(seed)
    for _ in range(rng.randint(0, 6)):
        at = rng.randrange(len(octets) + 1)
        match rng.randrange(5):
            case 0 if at < len(octets):
                octets[at] = rng.randrange(256)
            case 1:
                del octets[at : at + rng.randrange(8)]
            case 2:
                octets[at:at] = rng.randbytes(rng.randrange(8))
            case 3:
                octets[at : at + 4] = rng.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\x08\x01"))
            case 4:
                octets = octets[:at] if rng.randrange(3) == 0 else octets + octets[:at]
        if not octets:
            break
    return bytes(octets)


@pytest_asyncio.fixture(params=HOSTS)
async def front(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Front, Bound]]:
    limits = StreamLimits(connections_max=50, in_flight_max=16, unsent_octets_max=2 * 1024 * 1024)
    async with serving(host=request.param, config=FrontConfig(stream_limits=limits)) as served:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        yield served
        assert faults == []


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def still_answers(bound: Bound) -> None:
    assert code_of((await ask_udp(bound.udp[0], resolution(NAME)))[0]) == 1
    assert code_of((await ask_tcp(bound.tcp[0], resolution(NAME)))[0]) == 1
    assert (await ask_http(bound.http[0], "/api/handles/88.118.8/XYZ-001"))[0] == 200


async def test_mutated_datagrams(front: tuple[Front, Bound]) -> None:
    served, bound = front
    rng = random.Random(20_251)
    family = socket.AF_INET6 if ":" in bound.udp[0][0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        for number in range(ROUNDS * 4):
            client.sendto(mutate(rng, rng.choice(SEEDS))[:1_900], bound.udp[0])
            if number % 20 == 0:
                await asyncio.sleep(0)
                drain(client)
        await asyncio.sleep(0.05)
        drain(client)
    limits = served.udp[0].limits
    assert served.udp[0].reassembler.octets_held <= limits.fragment_octets_max
    await still_answers(bound)


def drain(client: socket.socket) -> None:
    """Whatever comes back is a message of ours that parses, and a response."""
    while True:
        try:
            data = client.recv(2_048)
        except BlockingIOError:
            return
        if not data[2] & 0x20:
            assert decode_message(data).header.response_code != 0


@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_mutated_streams(front: tuple[Front, Bound], kind: str) -> None:
    served, bound = front
    rng = random.Random(20_252)
    address = bound.tcp[0] if kind == "tcp" else bound.http[0]
    for _ in range(ROUNDS):
        reader, writer = await asyncio.open_connection(*address)
        seeds = SEEDS if kind == "tcp" else HTTP_SEEDS
        try:
            writer.write(b"".join(mutate(rng, rng.choice(seeds)) for _ in range(rng.randint(1, 3))))
            writer.write_eof()
            async with asyncio.timeout(WAIT_S):
                assert len(await reader.read()) < 2 * 1024 * 1024
        except ConnectionError:
            pass
        writer.close()
    await still_answers(bound)
    assert len(served.tcp.open) + len(served.http.open) < 10


async def test_a_peer_that_does_not_read_is_throttled_then_cut_off(front: tuple[Front, Bound]) -> None:
    served, bound = front
    _, writer = await asyncio.open_connection(*bound.tcp[0], limit=1_024)
    request = resolution(b"88.118.8/huge")
    sent = 0
    async with asyncio.timeout(WAIT_S):
        while not served.tcp.cut_off and sent < 2_000:
            writer.write(request)
            sent += 1
            await asyncio.sleep(0)
            assert served.tcp.unsent_octets <= 8 * 1024 * 1024
            if not any(one.in_flight for one in served.tcp.open) and any(one.stalled_since_s for one in served.tcp.open):
                break  # it stopped taking requests because its answers are not read
    for one in served.tcp.open:
        if one.stalled_since_s is not None:
            one.stalled_since_s -= 1_000
    served.tcp.sweep(asyncio.get_running_loop().time())
    assert set(served.tcp.cut_off) & {"peer_does_not_read", "unread_answers"}
    writer.close()
    await still_answers(bound)


async def test_a_flood_on_one_connection_waits_outside() -> None:
    """While the stores are slow, one peer has no more than its share of questions under way; the rest stays unread."""

    class Slow(MemoryAnswerPort):
        async def get_many(self, wants: Wants) -> Found:
            await gate.wait()
            return await inner.get_many(wants)

    gate, inner = asyncio.Event(), world()
    limits = StreamLimits(in_flight_max=16)
    async with serving(Slow(inner.held, inner.views), config=FrontConfig(stream_limits=limits)) as (served, bound):
        reader, writer = await asyncio.open_connection(*bound.tcp[0])
        writer.write(b"".join(resolution(NAME, request_id=number) for number in range(1, 1_001)))
        await until(lambda: any(one.in_flight for one in served.tcp.open))
        await asyncio.sleep(0.05)
        assert [one.in_flight for one in served.tcp.open] == [16]
        gate.set()
        assert {request_id_of(await read_message(reader)) for _ in range(1_000)} == set(range(1, 1_001))
        writer.close()


async def test_a_slow_writer_is_cut_off(front: tuple[Front, Bound]) -> None:
    served, bound = front
    for connections, address, octets in (
        (served.tcp, bound.tcp[0], resolution(NAME)[:30]),
        (served.http, bound.http[0], b"GET /api/handles/88.118.8/XYZ"),
    ):
        _, writer = await asyncio.open_connection(*address)
        writer.write(octets)
        await until(lambda connections=connections: any(one.partial_since_s for one in connections.open))
        (one,) = connections.open
        started = one.partial_since_s or 0.0
        writer.write(b"x")
        await asyncio.sleep(0.02)
        assert one.partial_since_s == started  # another octet buys no time
        connections.sweep(started + connections.limits.request_s_max + 0.1)
        assert connections.cut_off == {"slow_request": 1}
        writer.close()
    await still_answers(bound)


async def test_whoever_asks_is_served_however_many_connections_stay_silent(front: tuple[Front, Bound]) -> None:
    served, bound = front
    opened = [await asyncio.open_connection(*bound.tcp[0]) for _ in range(60)]
    await until(lambda: served.tcp.cut_off.get("room_for_others", 0) >= 10)
    assert len(served.tcp.open) <= 50
    assert code_of((await ask_tcp(bound.tcp[0], resolution(NAME)))[0]) == 1
    assert served.tcp.refused == 0
    for _, writer in opened:
        writer.close()
    await until(lambda: not served.tcp.open)
    await still_answers(bound)


async def test_answers_come_after_a_half_close(front: tuple[Front, Bound]) -> None:
    _, bound = front
    reader, writer = await asyncio.open_connection(*bound.tcp[0])
    writer.write(b"".join(resolution(NAME, request_id=number) for number in range(1, 41)))
    writer.write_eof()
    assert {request_id_of(await read_message(reader)) for _ in range(40)} == set(range(1, 41))
    assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
    writer.close()


async def test_unfinished_fragments_are_bounded(front: tuple[Front, Bound]) -> None:
    served, bound = front
    family = socket.AF_INET6 if ":" in bound.udp[0][0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        for number in range(3_000):
            client.sendto(datagrams(resolution(NAME, request_id=number, types=(b"T" * 600,)))[0], bound.udp[0])
            if number % 50 == 0:
                await asyncio.sleep(0)
    await still_answers(bound)
    assert served.udp[0].reassembler.messages_held <= served.udp[0].limits.fragments_max


async def test_many_pipelined_http_requests_are_bounded(front: tuple[Front, Bound]) -> None:
    _, bound = front
    reader, writer = await asyncio.open_connection(*bound.http[0])
    writer.write(b"GET /api/handles/88.118.8/XYZ-001 HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
    answers = await asyncio.wait_for(reader.read(), WAIT_S)
    assert answers.count(b"HTTP/1.1 200") == 16 and answers.count(b"HTTP/1.1 503") == 1
    writer.close()
    await still_answers(bound)
