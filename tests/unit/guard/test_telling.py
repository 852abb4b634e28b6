"""Events on their way: to a syslog collector by each of its ways, to a webhook, and not at the cost of whoever notes them."""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from hosting.guard.clients import client_of
from hosting.guard.edge_syslog import Syslog, SyslogPlace
from hosting.guard.edge_teller import QUEUE_MAX, TRIES_MAX, Place, Teller, places_of
from hosting.guard.edge_webhook import Webhook, WebhookPlace
from hosting.guard.events import SecurityEvent
from hosting.guard.guard import OVER_UDP
from replica.model.errors import Code, ZaibeiError

MAD = client_of("192.0.2.7")
SECRET = b"0123456789abcdef"
WAIT_S = 30


async def until(held: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not held():  # noqa: ASYNC110 - of other threads
            await asyncio.sleep(0.005)


@asynccontextmanager
async def telling(*places: Place, **more: Any) -> AsyncIterator[Teller]:
    teller = Teller("member-1", places, **more)
    await teller.start()
    try:
        yield teller
    finally:
        await teller.stop()


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: list[bytes] = []

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.got.append(data)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_syslog_over_udp(host: str) -> None:
    transport, collector = await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, local_addr=(host, 0))
    port = transport.get_extra_info("sockname")[1]
    literal = f"[{host}]" if ":" in host else host
    async with telling(*places_of([f"udp://{literal}:{port}"], None)) as teller:
        teller.note(OVER_UDP, MAD, 3)
        await until(lambda: bool(collector.got))
    transport.close()
    assert b'client="192.0.2.0/24"' in collector.got[0] and teller.counters.sent == 1


async def test_syslog_over_tcp_counts_its_octets_and_comes_again(tmp_path: Path) -> None:
    got: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int((await reader.readuntil(b" "))[:-1])
        got.append(await reader.readexactly(length))
        writer.close()  # each message needs a new connection

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    place = Syslog(SyslogPlace.parse(f"tcp://127.0.0.1:{port}"), "host-1")
    async with telling(place, again_s=(0.01,) * 4) as teller:
        teller.note(OVER_UDP, MAD, 3)
        await until(lambda: len(got) == 1)
        assert got[0].startswith(b"<107>1 ") and b"host-1 zaibei member-1 attack" in got[0]
    server.close()


async def test_syslog_by_a_unix_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as collector:
        collector.bind(str(tmp_path / "log"))
        collector.setblocking(False)
        async with telling(*places_of([f"unix://{tmp_path}/log"], None)) as teller:
            teller.note(OVER_UDP, MAD, 3)
            await until(lambda: teller.counters.sent == 1)
        assert collector.recv(65_536).startswith(b"<107>1 ")


@pytest.mark.parametrize(
    "url", ["", "udp://", "http://x:1", "udp://h:0", "udp://h:99999", "tcp://h/path", "unix://h/path", "unix:"]
)
def test_what_is_no_collector(url: str) -> None:
    with pytest.raises(ZaibeiError) as caught:
        SyslogPlace.parse(url)
    assert caught.value.code is Code.INVALID_CONFIG and "udp://HOST:PORT" in caught.value.trouble.message


class Receiver:
    """A webhook's other end; `statuses`: of its answers, the last for ever."""

    def __init__(self, *statuses: int) -> None:
        self.got: list[tuple[str, str, bytes]] = []
        receiver, left = self, list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.headers["Zaibei-Event"], self.headers["Zaibei-Signature"], body))
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Receiver:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def place(self, tmp_path: Path) -> WebhookPlace:
        (tmp_path / "secret").write_bytes(SECRET + b"\n")
        return WebhookPlace(f"http://127.0.0.1:{self.server.server_port}/in?x=1", tmp_path / "secret")


async def test_a_webhook_is_signed_and_tried_again(tmp_path: Path) -> None:
    with Receiver(503, 429, 200) as receiver:
        async with telling(Webhook(receiver.place(tmp_path)), again_s=(0.01,) * 4) as teller:
            teller.note(OVER_UDP, MAD, 3)
            await until(lambda: teller.counters.sent == 1)
    idents = {ident for ident, _, _ in receiver.got}
    assert len(receiver.got) == 3 and len(idents) == 1, "a repetition has the same id"
    ident, signature, body = receiver.got[0]
    assert signature == f"sha256={hmac.new(SECRET, body, 'sha256').hexdigest()}" and json.loads(body)["event_id"] == ident


async def test_what_is_refused_is_given_up_and_what_is_silent_too(tmp_path: Path) -> None:
    with Receiver(403) as receiver:
        async with telling(Webhook(receiver.place(tmp_path)), again_s=(0.01,) * 4) as teller:
            teller.note(OVER_UDP, MAD, 3)
            await until(lambda: teller.counters.given_up == 1)
        assert len(receiver.got) == 1
        gone = receiver.place(tmp_path)
    async with telling(Webhook(gone), again_s=(0.01,) * 4) as teller:
        teller.note(OVER_UDP, MAD, 3)
        await until(lambda: teller.counters.given_up == 1)
        (tmp_path / "secret").write_bytes(b"short")
        with pytest.raises(ZaibeiError) as caught:
            await Webhook(gone).send(teller._watch.noted(OVER_UDP, client_of("2001:db8::1"), 1, 0)[0])
        assert "has 5 octets" in caught.value.trouble.message


NO_NAME = f"{'a' * 64}.example"


@pytest.mark.parametrize("url", [f"udp://{NO_NAME}:514", f"tcp://{NO_NAME}:601", f"https://{NO_NAME}/in", "http://127.0.0.1:1/ä"])
async def test_a_place_that_can_never_be_reached_is_given_up_event_by_event(tmp_path: Path, url: str) -> None:
    """Its lane goes on: one whose task ended would say nothing, not even that it sends nothing."""
    (tmp_path / "secret").write_bytes(SECRET)
    hook = WebhookPlace(url, tmp_path / "secret") if url.startswith("http") else None
    async with telling(*places_of([] if hook else [url], hook), again_s=(0.0,) * 4) as teller:
        [event] = teller._watch.noted(OVER_UDP, MAD, 1, 0)
        for _ in range(2):
            teller.tell(event)
        await until(lambda: teller.counters.given_up == 2)


class Stuck:
    """A place that never answers, or that always fails."""

    name = "stuck"

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.tries = fails, 0

    async def send(self, event: SecurityEvent) -> None:
        self.tries += 1
        if self.fails:
            raise ZaibeiError(Code.UNREACHABLE, "no", retry=True)
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


async def test_a_slow_place_holds_up_nobody_and_costs_bounded_memory() -> None:
    stuck, failing = Stuck(), Stuck(fails=True)
    async with telling(stuck, failing, again_s=(0.0,) * 4) as teller:
        [event] = teller._watch.noted(OVER_UDP, MAD, 1, 0)
        for _ in range(QUEUE_MAX + 50):
            teller.tell(event)
        assert teller.counters.dropped >= 2 * 50 - 2 and len(teller._lanes[0].waiting) <= QUEUE_MAX
        await until(lambda: failing.tries >= 2 * TRIES_MAX)
        assert stuck.tries == 1 and teller.counters.given_up >= 1
