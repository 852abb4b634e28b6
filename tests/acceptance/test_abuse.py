"""Strangers at every door of a running member: garbage, fragments, silence, floods. Right answers and intake go on meanwhile."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from replica.model.errors import ZaibeiError
from tests.acceptance.world import HOSTS, World, right, shown, until
from tests.integration.test_front_abuse import HTTP_SEEDS, SEEDS, mutate
from tests.unit.front.world import resolution

STREAMS = ("handle", "http", "grpc", "feed", "metrics")
RECORDS = 200
CONNECTIONS_MAX = 64
RSS_GROWTH_MB_MAX = 120  # idle, floods and all; a leak of one request's octets would be more
OPENINGS = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\n")


class Client(threading.Thread):
    """Asks over UDP, TCP and HTTP, IPv4 and IPv6, and keeps every answer that is not the right one."""

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        self._world, self._over = world, threading.Event()
        self.asked, self.wrong = 0, list[str]()

    def run(self) -> None:
        dice = random.Random(1)
        while not self._over.wait(0.02):
            for protocol in ("udp", "tcp", "http"):
                for host in HOSTS:
                    number = dice.randrange(RECORDS)
                    try:
                        found = shown(self._world.ask(self._world.nodes[0].name_of(number), protocol, host))
                    except ZaibeiError as exc:
                        self.wrong.append(f"{protocol} {host}: {exc}")
                    else:
                        if found != right(number):
                            self.wrong.append(f"{protocol} {host}: {found}")
                    self.asked += 1

    def end(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("abuse")) as made:
        text = made.toml.read_text().replace("[limits]\n", f"[limits]\nconnections_max = {CONNECTIONS_MAX}\n")
        made.toml.write_text(text)
        made.start()
        made.nodes[0].open().put(range(RECORDS))
        made.flowing()
        yield made


@pytest.fixture
def unharmed(world: World) -> Iterator[World]:
    """While the test attacks, a client asks and the node registers; afterwards everything is as it was."""
    client, before_mb = Client(world), rss_mb(world)
    number = RECORDS + random.Random().randrange(1_000_000) * 1_000
    client.start()
    yield world
    world.nodes[0].put([number])
    until("taken in", lambda: shown(world.ask(world.nodes[0].name_of(number))) == right(number))
    until("asked", lambda: client.asked > 30)
    client.end()
    assert client.wrong == []
    assert world.process is not None and world.process.poll() is None
    assert rss_mb(world) - before_mb < RSS_GROWTH_MB_MAX
    lines = [json.loads(line) for line in world.said().splitlines() if line.startswith("{")]
    told = [line for line in lines if line["level"] in ("error", "critical")]
    assert [line for line in told if line["room"] != "takeover"] == []  # it rightly says that this node's resolver is not there
    assert "Traceback" not in world.said()
    world.flowing()


def rss_mb(world: World) -> int:
    assert world.process is not None
    status = Path(f"/proc/{world.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def connect(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.settimeout(5)
    made.connect((host, port))
    return made


@pytest.mark.parametrize("host", HOSTS)
def test_datagrams(unharmed: World, host: str) -> None:
    dice = random.Random(20_260)
    plain = resolution(unharmed.nodes[0].name_of(1).encode())
    handle, beats = (host, unharmed.ports["handle"]), (host, unharmed.ports["beats"])
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for number in range(6_000):
            first_of_many = bytearray(plain[:20] + bytes(492))
            first_of_many[2] |= 0x20
            struct.pack_into(">III", first_of_many, 8, dice.randrange(1, 1 << 31), dice.randrange(600), 262_144)
            with suppress(OSError):
                stranger.sendto(mutate(dice, dice.choice(SEEDS))[:1_900], handle)
                stranger.sendto(first_of_many, handle)
                stranger.sendto(b"\x01" + dice.randbytes(dice.randrange(300)), beats)
            if number % 100 == 0:
                time.sleep(0.003)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("door", STREAMS)
def test_garbage_on_streams(unharmed: World, door: str, host: str) -> None:
    dice = random.Random(20_261)
    for number in range(120):
        octets = (
            dice.randbytes(dice.randrange(4_000)),
            mutate(dice, dice.choice(HTTP_SEEDS)),
            mutate(dice, dice.choice(SEEDS)),
            dice.choice(OPENINGS) + dice.randbytes(500),
        )[number % 4]
        with suppress(OSError), connect(host, unharmed.ports[door]) as stranger:
            stranger.sendall(octets)
            if number % 3 == 0:
                stranger.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("door", ["handle", "http"])
def test_peers_that_ask_and_never_read(unharmed: World, door: str, host: str) -> None:
    name = unharmed.nodes[0].name_of(1)
    request = resolution(name.encode()) * 400 if door == "handle" else f"GET /api/handles/{name} HTTP/1.1\r\n\r\n".encode() * 50
    with ExitStack() as stack:
        strangers = [stack.enter_context(connect(host, unharmed.ports[door])) for _ in range(10)]
        for stranger in strangers:
            stranger.setblocking(False)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            for stranger in strangers:
                with suppress(OSError):
                    stranger.send(request)
            time.sleep(0.002)


@pytest.mark.parametrize("door", STREAMS)
def test_more_silent_connections_than_are_allowed(unharmed: World, door: str) -> None:
    with ExitStack() as stack:
        for number in range(3 * CONNECTIONS_MAX):
            with suppress(OSError):
                stack.enter_context(connect(HOSTS[number % 2], unharmed.ports[door]))
        time.sleep(1.0)


def test_the_operators_own_door(unharmed: World) -> None:
    dice = random.Random(20_262)
    for number in range(100):
        with socket.socket(socket.AF_UNIX) as stranger, suppress(OSError):
            stranger.settimeout(2)
            stranger.connect(str(unharmed.data / "admin.sock"))
            stranger.sendall((b"{", b"\n\n", dice.randbytes(100) + b"\n", b"[]\n", b'{"call":1}\n', b"a" * 200_000)[number % 6])
    assert unharmed.zaibei("status").exit_code == 0
