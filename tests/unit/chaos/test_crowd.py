"""The honest few of a flood: what is lost over UDP is asked over TCP, and only the right record within their patience counts."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from chaos.drills.crowd import Crowd
from replica.model.handle.stream import Deframer

URL = "https://example.org/n/v1"
WAIT_S = 30.0


def answer(request: bytes, code: int, url: str = URL) -> bytes:
    """As far as the crowd reads it: envelope with its length, header with the code, the record's text."""
    body = bytes(4) + code.to_bytes(4, "big") + bytes(16) + url.encode()
    return request[:16] + len(body).to_bytes(4, "big") + body


@contextmanager
def server(over_udp: Callable[[bytes], bytes | None], over_tcp: Callable[[bytes], bytes | None]) -> Iterator[int]:
    """Answers both ways at one port, until the end of the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.bind(("127.0.0.1", port))
    over = threading.Event()

    def datagrams() -> None:
        endpoint.settimeout(0.05)
        while not over.is_set():
            with suppress(TimeoutError):
                octets, peer = endpoint.recvfrom(2_048)
                if (said := over_udp(octets)) is not None:
                    endpoint.sendto(said, peer)

    def stream(connection: socket.socket) -> None:
        deframer = Deframer()
        connection.settimeout(0.05)
        while not over.is_set():
            with suppress(TimeoutError):
                octets = connection.recv(65_536)
                for request in deframer.feed(octets):
                    if (said := over_tcp(request)) is not None:
                        connection.sendall(said)
                if not octets:
                    break
        connection.close()

    def connections() -> None:
        listener.settimeout(0.05)
        while not over.is_set():
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                works.append(threading.Thread(target=stream, args=(connection,)))
                works[-1].start()

    works = [threading.Thread(target=datagrams), threading.Thread(target=connections)]
    for work in list(works):
        work.start()
    try:
        yield port
    finally:
        over.set()
        for work in works:
            work.join(WAIT_S)
        listener.close()
        endpoint.close()


def asked(port: int, lookups: int = 20) -> Crowd:
    """A crowd after so many lookups at least; what is under way is waited for."""
    crowd = Crowd({"port": port, "seed": 1, "names": {"88.118.1/N-1": URL}})
    crowd.begin(200.0)
    until = time.monotonic() + WAIT_S
    while crowd.told.asked < lookups:
        assert time.monotonic() < until, "it asks nothing"
        time.sleep(0.01)
    crowd.end()
    return crowd


def test_what_comes_over_udp_is_enough() -> None:
    with server(lambda request: answer(request, 1), lambda _: None) as port:
        told = asked(port).told
    assert told.right + told.failed == told.asked >= 20 and told.right > 0 and told.lies == 0


@pytest.mark.parametrize("code", [None, 2])
def test_over_tcp_where_udp_brings_nothing_or_2(code: int | None) -> None:
    with server(lambda request: answer(request, code) if code else None, lambda request: answer(request, 1)) as port:
        told = asked(port).told
    assert told.over_tcp >= told.right >= 1 and told.right + told.failed == told.asked and not told.lies


def test_what_is_wrong_is_a_lie_and_what_never_comes_has_failed() -> None:
    with server(lambda request: answer(request, 1, "https://example.org/other"), lambda _: None) as port:
        assert asked(port).told.lies > 0
    with server(lambda request: answer(request, 100), lambda _: None) as port:
        assert asked(port).told.lies > 0
    with server(lambda _: None, lambda request: answer(request, 2)) as port:
        told = asked(port).told
    assert told.failed == told.asked and not told.right
