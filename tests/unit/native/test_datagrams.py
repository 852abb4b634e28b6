"""Datagrams on real loopback sockets, both address families, both backends."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from types import ModuleType

import pytest

from replica.native import pack_address, unpack_address

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    server, client = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    for one in (server, client):
        one.bind((request.param, 0))
        one.setblocking(False)
    yield server, client
    server.close()
    client.close()


def wait(one: socket.socket) -> None:
    assert select.select([one], [], [], 10)[0], "nothing arrived on loopback"


def test_question_and_answer(backend: ModuleType, pair: Pair) -> None:
    server, client = pair
    side = backend.Datagrams(server.fileno())
    assert side.receive() == []
    for number in range(5):
        client.sendto(b"question %d" % number, server.getsockname())
    client.sendto(b"", server.getsockname())
    got = []
    while len(got) < 6:
        wait(server)
        got += side.receive()
    assert [octets for octets, _ in got] == [b"question %d" % number for number in range(5)] + [b""]
    assert {unpack_address(address) for _, address in got} == {client.getsockname()[:2]}
    assert side.send([(b"answer to " + octets, address) for octets, address in got]) == 6
    answers = []
    while len(answers) < 6:
        wait(client)
        answers.append(client.recv(100))
    assert answers[4:] == [b"answer to question 4", b"answer to "]
    side.close()
    side.close()
    for call in (side.receive, lambda: side.send([(b"late", got[0][1])])):
        with pytest.raises(OSError, match="descriptor"):
            call()
    server.getsockname()  # the descriptor is still the caller's


def test_oversized_datagrams_are_dropped_and_counted(backend: ModuleType, pair: Pair) -> None:
    server, client = pair
    side = backend.Datagrams(server.fileno(), batch_max=4, octets_max=100)
    for octets in (101, 100, 3_000, 1):
        client.sendto(bytes(octets), server.getsockname())
    got: list[tuple[bytes, bytes]] = []
    while len(got) + side.oversized < 4:
        wait(server)
        got += side.receive()
    assert ([len(octets) for octets, _ in got], side.oversized) == ([100, 1], 2)


def test_more_than_a_batch(backend: ModuleType, pair: Pair) -> None:
    server, client = pair
    sender, receiver = backend.Datagrams(client.fileno(), batch_max=8), backend.Datagrams(server.fileno(), batch_max=7)
    to = pack_address(*server.getsockname()[:2])
    assert sender.send([(b"%d" % number, to) for number in range(30)]) == 30
    got: list[bytes] = []
    while len(got) < 30:
        wait(server)
        batch = receiver.receive()
        assert 0 < len(batch) <= 7
        got += [octets for octets, _ in batch]
    assert got == [b"%d" % number for number in range(30)]


def test_one_address_at_fault_does_not_stop_the_rest(backend: ModuleType, pair: Pair) -> None:
    server, client = pair
    sender = backend.Datagrams(client.fileno())
    good = pack_address(*server.getsockname()[:2])
    host = server.getsockname()[0]
    assert sender.send([(b"a", good), (b"b", pack_address(host, 0)), (bytes(70_000), good), (b"c", good)]) == 4
    assert sender.refused == 2
    got = []
    while len(got) < 2:
        wait(server)
        got.append(server.recv(10))
    assert got == [b"a", b"c"]
    assert sender.send([]) == 0


def test_a_bad_socket_is_an_error(backend: ModuleType) -> None:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    two.close()
    one.close()
    descriptor = one.fileno()
    assert descriptor == -1
    with pytest.raises(OSError, match=r"descriptor"):
        backend.Datagrams(descriptor).receive()


@pytest.mark.parametrize(("batch_max", "octets_max"), [(0, 10), (1_025, 10), (1, 0), (1, 65_537)])
def test_limits(backend: ModuleType, pair: Pair, batch_max: int, octets_max: int) -> None:
    with pytest.raises(ValueError, match="batch_max is 1 to 1024"):
        backend.Datagrams(pair[0].fileno(), batch_max, octets_max)


def test_addresses() -> None:
    assert unpack_address(pack_address("192.0.2.7", 2641)) == ("192.0.2.7", 2641)
    assert unpack_address(pack_address("2001:db8::1", 65_535, 5, 2)) == ("2001:db8::1", 65_535)
    assert pack_address("127.0.0.1", 0x0A51)[2:8] == b"\x0a\x51\x7f\x00\x00\x01"
    for host, port in (("example.cn", 1), ("1.2.3", 1), ("::g", 1), ("127.0.0.1", 65_536), ("127.0.0.1", -1)):
        with pytest.raises(ValueError, match="not a"):
            pack_address(host, port)
    for octets in (b"", b"\x01\x00/run/socket", pack_address("::1", 1)[:-1]):
        with pytest.raises(ValueError, match="neither"):
            unpack_address(octets)
