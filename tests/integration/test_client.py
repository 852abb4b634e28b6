"""The Handle client against scripted servers: retries, fail-over, hedging, referrals, bad answers, and `zaibei resolve`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chaos.standin.edge_serve import Ports, Standin, bind, serve
from chaos.standin.given import Given, asked_for, handle_octets, json_octets
from hosting.client.edge_http import request_of
from hosting.client.edge_resolver import ClientConfig, HandleClient, NoAnswer
from hosting.client.lookup import Question, Server
from ops.cli.main import cli
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.answers import Peeked, peek_resolution
from replica.model.handle.message import HEADER
from replica.model.handle.types import Interface, InterfaceUse, Protocol, encode_site, site_of
from replica.model.handle.values import HandleValue, encode_values
from tests.integration.standin_nodes import record, running, until, write_config

NAME = "88.118.8/A"
FOUND = Given(1, encode_values([HandleValue(1, b"URL", b"http://a.example")]))
HOSTS = ["127.0.0.1", "::1"]
FAST = (0.05, 0.1, 0.15)


class Site:
    """One scripted node on every listener: counts what it is asked, answers as `say` decides."""

    def __init__(self, say: Callable[[Peeked], Any]) -> None:
        self.asked: list[str] = []
        self._say = say
        self.ports, self._sockets = bind(("127.0.0.1", "::1"), Ports())

    async def start(self) -> Site:
        await serve(Standin(self._answer), self._sockets)
        return self

    def _answer(self, asked: Peeked) -> Any:
        self.asked.append(asked.handle.decode())
        return self._say(asked)

    def server(self, protocol: str = "tcp", host: str = "127.0.0.1") -> Server:
        return Server(protocol, host, self.ports.view()[protocol])

    def octets(self, *, primary: bool = True) -> bytes:
        faces = [
            Interface(InterfaceUse.QUERY, Protocol.TCP, self.ports.tcp),
            Interface(InterfaceUse.QUERY, Protocol.UDP, self.ports.udp),
        ]
        return encode_site(site_of(["127.0.0.1"], faces, serial=1, primary=primary))


def holds(*sites: bytes, ttl: int = 300, kind: bytes = b"HS_SITE") -> Given:
    return Given(1, encode_values([HandleValue(place, kind, site, ttl=ttl) for place, site in enumerate(sites, 1)]))


def found(_: Peeked) -> Given:
    return FOUND


async def silent(_: Peeked) -> Given:
    await asyncio.sleep(3_600)
    return FOUND


@pytest.fixture
async def clients() -> AsyncIterator[Callable[..., HandleClient]]:
    made: list[HandleClient] = []

    def make(*servers: Server, **settings: Any) -> HandleClient:
        made.append(HandleClient(ClientConfig(servers, udp_retry_s=FAST, **settings)))
        return made[-1]

    yield make
    for client in made:
        await client.close()


Make = Callable[..., HandleClient]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("protocol", ["udp", "tcp", "http"])
async def test_a_plain_lookup(clients: Make, protocol: str, host: str) -> None:
    site = await Site(found).start()
    lookup = await clients(site.server(protocol, host)).resolve(NAME)
    assert lookup.reply.values[0].data == b"http://a.example"
    assert lookup.server == site.server(protocol, host)
    assert site.asked == [NAME]


async def test_udp_repeats_at_its_times_and_gives_up(clients: Make) -> None:
    site = await Site(silent).start()
    with pytest.raises(ZaibeiError) as caught:
        await clients(site.server("udp")).resolve(NAME)
    assert caught.value.code is Code.UNREACHABLE
    assert len(site.asked) == len(FAST)


async def test_udp_takes_the_answer_to_a_repeated_question(clients: Make) -> None:
    count = 0

    async def second_time(asked: Peeked) -> Given:
        nonlocal count
        count += 1
        return await silent(asked) if count == 1 else FOUND

    assert (await clients((await Site(second_time).start()).server("udp")).resolve(NAME)).reply.code == 1


@pytest.mark.parametrize("protocol", ["udp", "tcp", "http"])
async def test_a_refused_connection_is_known_at_once(clients: Make, protocol: str) -> None:
    site = Site(found)
    for _, bound in site._sockets:
        bound.close()
    other = await Site(found).start()
    client = clients(site.server(protocol), other.server("tcp"), deadline_s=60)
    client._udp._retry_s = (60.0,)
    assert (await asyncio.wait_for(client.resolve(NAME), 20)).server == other.server("tcp")


async def test_code_2_goes_on_and_the_others_are_final(clients: Make) -> None:
    good = await Site(found).start()
    for code in (2, 3, 5, 7, 100, 102, 200, 301):
        site = await Site(lambda _, code=code: Given(code, text="x")).start()  # type: ignore[misc]
        lookup = await clients(site.server(), good.server()).resolve(NAME)
        assert lookup.reply.code == (1 if code == 2 else code), code


async def test_when_nobody_can_say_their_text_is_told(clients: Make) -> None:
    site = await Site(lambda _: Given(2, text="88.118.8 is 400 s old")).start()
    for hedge in (False, True):
        with pytest.raises(NoAnswer, match="400 s old") as caught:
            await clients(site.server(), hedge=hedge, deadline_s=0.3).resolve(NAME)
        assert caught.value.reply is not None
        assert caught.value.attempts


async def test_answers_come_in_any_order_on_one_connection(clients: Make) -> None:
    async def later_first(asked: Peeked) -> Given:
        await asyncio.sleep(0.2 if asked.handle.endswith(b"/0") else 0)
        return Given(1, encode_values([HandleValue(1, b"URL", asked.handle)]))

    site = await Site(later_first).start()
    client = clients(site.server())
    lookups = await asyncio.gather(*(client.resolve(f"88.1/{place}") for place in range(50)))
    assert [lookup.reply.values[0].data for lookup in lookups] == [f"88.1/{place}".encode() for place in range(50)]
    assert len(client._tcp._connections) == 1


async def test_a_kept_connection_that_died_is_replaced(clients: Make) -> None:
    site = await Site(found).start()
    for protocol in ("tcp", "http"):
        client = clients(site.server(protocol))
        await client.resolve(NAME)
        for connection in [*client._tcp._connections.values(), *(one for idle in client._http._idle.values() for one in idle)]:
            assert connection.transport is not None
            connection.transport.abort()
        assert (await client.resolve(NAME)).reply.code == 1


@pytest.mark.parametrize("protocol", ["tcp", "http"])
async def test_a_server_that_drops_a_kept_connection_at_the_next_question_is_asked_again(clients: Make, protocol: str) -> None:
    questions = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal questions
        request = await reader.read(1_000)
        asked = asked_for(NAME.encode()) if protocol == "http" else peek_resolution(request)
        assert asked is not None
        body = json_octets(asked, FOUND)[1]
        http = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        writer.write(http if protocol == "http" else handle_octets(asked, FOUND, int(time.time()) + 100))
        questions += 1
        await reader.read(1_000)  # the next question: no answer, the connection ends
        questions += 1
        writer.close()

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    client = clients(Server(protocol, "127.0.0.1", server.sockets[0].getsockname()[1]))
    for _ in range(2):
        assert (await client.resolve(NAME)).reply.code == 1
    assert questions == 3, "answered, dropped, answered on a new connection"
    server.close()


async def expired(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server whose answers are past their time."""
    request = await reader.read(1_000)
    asked = peek_resolution(request)
    assert asked is not None
    body = (len(asked.handle).to_bytes(4, "big") + asked.handle) + bytes(4)
    head = request[:16] + (24 + len(body) + 4).to_bytes(4, "big")
    writer.write(head + HEADER.pack(1, 1, 0, 0, 0, 0, 1_000, len(body)) + body + bytes(4))


async def test_expired_and_foreign_answers_send_the_client_on(clients: Make) -> None:
    server = await asyncio.start_server(expired, "127.0.0.1", 0)
    bad = Server("tcp", "127.0.0.1", server.sockets[0].getsockname()[1])
    good = await Site(found).start()
    lookup = await clients(bad, good.server()).resolve(NAME)
    assert lookup.server == good.server()
    assert "expired" in lookup.attempts[0].outcome
    server.close()


@pytest.mark.parametrize("junk", [b"\0" * 64, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyz", b"\xff" * 1_000])
@pytest.mark.parametrize("protocol", ["tcp", "http"])
async def test_hostile_octets_never_break_the_client(clients: Make, protocol: str, junk: bytes) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(junk)
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    bad = Server(protocol, "127.0.0.1", server.sockets[0].getsockname()[1])
    with pytest.raises(ZaibeiError):
        await clients(bad, deadline_s=1).resolve(NAME)
    server.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "a\0b", "x" * 80, "a..b"])
@pytest.mark.parametrize("protocol", ["udp", "tcp", "http"])
async def test_a_published_site_that_is_no_server_sends_the_client_on(clients: Make, protocol: str, address: str) -> None:
    with pytest.raises(ZaibeiError) as caught:
        await clients().ask(Server(protocol, address, 70_000), Question("88.118.8/A"))
    assert caught.value.code is Code.UNREACHABLE


async def test_hedging_passes_a_black_hole(clients: Make) -> None:
    hole, good = await Site(silent).start(), await Site(found).start()
    lookup = await clients(hole.server(), good.server(), hedge=True, deadline_s=60).resolve(NAME)
    assert lookup.server == good.server()
    assert hole.asked


async def test_hedging_in_peace_asks_the_first_alone(clients: Make) -> None:
    first, second = await Site(found).start(), await Site(found).start()
    client = clients(first.server(), second.server(), hedge=True, hedge_delay_s=30)
    for _ in range(20):
        assert (await client.resolve(NAME)).server == first.server()
    assert second.asked == []


async def test_a_second_sites_not_found_waits_for_the_primary(clients: Make) -> None:
    async def slow(_: Peeked) -> Given:
        await asyncio.sleep(0.1)
        return FOUND

    primary, mirror = await Site(slow).start(), await Site(lambda _: Given(100)).start()
    root = await Site(lambda _: holds(mirror.octets(primary=False), primary.octets())).start()
    lookup = await clients(root.server(), walk=True, hedge=True, hedge_delay_s=0.001, protocols=("tcp",)).resolve(NAME)
    assert lookup.reply.code == 1


async def test_the_walk_keeps_sites_by_ttl_and_asks_anew_when_all_fail(clients: Make) -> None:
    dead = Site(found)
    for _, bound in dead._sockets:
        bound.close()
    alive = await Site(found).start()
    published = [holds(dead.octets())]
    root = await Site(lambda _: published[0]).start()
    client = clients(root.server(), walk=True, hedge=True, deadline_s=30, protocols=("tcp",))
    lookup = asyncio.create_task(client.resolve(NAME))

    async def asked_anew() -> bool:
        return len(root.asked) >= 3

    await until(asked_anew)
    published[0] = holds(alive.octets(), dead.octets())
    assert (await lookup).server == alive.server()
    asked = len(root.asked)
    assert (await client.resolve(NAME)).server == alive.server()
    assert len(root.asked) == asked, "kept"


async def test_a_prefixs_own_record_is_asked_for_at_the_root(clients: Make) -> None:
    root = await Site(found).start()
    for name in ("0.NA/88.118.8", "88.118.8", "0.SERV/x"):
        assert (await clients(root.server(), walk=True).resolve(name)).server == root.server()
    assert root.asked == ["0.NA/88.118.8", "88.118.8", "0.SERV/x"]


async def test_a_ttl_of_0_is_not_kept(clients: Make) -> None:
    alive = await Site(found).start()
    root = await Site(lambda _: holds(alive.octets(), ttl=0)).start()
    client = clients(root.server(), walk=True, protocols=("tcp",))
    for _ in range(3):
        await client.resolve(NAME)
    assert len(root.asked) == 3


async def test_referrals_are_followed_with_a_limit(clients: Make) -> None:
    enterprise = await Site(found).start()
    values = encode_values([HandleValue(1, b"HS_SITE", enterprise.octets())])
    delegate = encode_values([HandleValue(1, b"HS_SITE.PREFIX", enterprise.octets())])
    for code, octets in ((302, values), (303, delegate)):
        node = await Site(lambda _, code=code, octets=octets: Given(code, octets)).start()  # type: ignore[misc]
        lookup = await clients(node.server(), protocols=("tcp",)).resolve(NAME)
        assert (lookup.server, lookup.hops) == (enterprise.server(), 1)
    loop = Site(lambda _: Given(302, encode_values([HandleValue(1, b"HS_SITE", loop.octets())])))
    await loop.start()
    with pytest.raises(NoAnswer, match="referrals"):
        await clients(loop.server(), protocols=("tcp",)).resolve(NAME)
    nowhere = await Site(lambda _: Given(302)).start()
    assert (await clients(nowhere.server()).resolve(NAME)).reply.code == 302


async def test_a_service_handle_is_one_indirection(clients: Make) -> None:
    alive = await Site(found).start()

    def root(asked: Peeked) -> Given:
        if asked.handle == b"0.SERV/88":
            return holds(alive.octets())
        return Given(1, encode_values([HandleValue(1, b"HS_SERV", b"0.SERV/88")]))

    node = await Site(root).start()
    assert (await clients(node.server(), walk=True, protocols=("tcp",)).resolve(NAME)).server == alive.server()


async def test_the_deadline_is_the_whole_lookups(clients: Make) -> None:
    hole = await Site(silent).start()
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        await clients(hole.server(), hedge=True, deadline_s=0.3).resolve(NAME)
    assert time.monotonic() - began < 10


async def test_a_name_that_cannot_be_asked_for(clients: Make) -> None:
    site = await Site(found).start()
    for hedge in (False, True):
        with pytest.raises(ZaibeiError) as caught:
            await clients(site.server(), hedge=hedge).resolve("88.1/\ud800")
        assert caught.value.code is Code.MALFORMED


def test_http_requests_are_escaped() -> None:
    octets = request_of(Server("http", "::1", 80), Question("88.1/灾 备?#&", (1,), ("URL",)))
    assert octets.startswith(
        b"GET /api/handles/88.1/%E7%81%BE%20%E5%A4%87%3F%23%26?type=URL&index=1 HTTP/1.1\r\nHost: [::1]:80\r\n"
    )


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Any:
    config = write_config(tmp_path_factory.mktemp("node"), "n", ["88.118.8"], [record(NAME, "http://a.example")])
    with running("chaos.standin.secondary", "--config", str(config)) as started:
        yield started


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("protocol", ["udp", "tcp", "http"])
def test_zaibei_resolve(node: Any, protocol: str, host: str) -> None:
    server = str(node.server(protocol, host))
    shown = CliRunner().invoke(cli, ["resolve", NAME, "--server", server])
    assert shown.exit_code == 0
    assert "http://a.example" in shown.output
    found = CliRunner().invoke(cli, ["resolve", NAME, "--server", server, "--json", "--type", "URL", "--index", "1"])
    document = json.loads(found.output)
    assert (document["response"], document["values"][0]["data"]["value"]) == ("SUCCESS", "http://a.example")


def test_zaibei_resolve_exit_codes(node: Any, tmp_path: Path) -> None:
    server = str(node.server("tcp"))

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["resolve", *words])
        return result.exit_code, result.output

    assert run("88.118.8/none", "--server", server)[0] == 6
    assert run("88.999/x", "--server", server)[0] == 1
    assert run(NAME, "--server", "tcp://127.0.0.1:1")[0] == 8
    assert run(NAME, "--server", "ftp://x")[0] == 2
    assert run("88.1/\ud800", "--server", server)[0] == 2
    code, output = run(NAME, "--server", "tcp://127.0.0.1:1", "--json")
    assert (code, json.loads(output)["error"]["code"]) == (8, "unreachable")


def test_zaibei_resolve_hedge_over_two_servers(node: Any) -> None:
    done = CliRunner().invoke(
        cli, ["resolve", NAME, "--server", "tcp://127.0.0.1:1", "--server", str(node.server("tcp")), "--hedge", "--verbose"]
    )
    assert done.exit_code == 0, done.output
    assert "127.0.0.1:1 " in done.output.replace("\n", " ")


def test_configurations_are_values() -> None:
    config = ClientConfig((Server("tcp", "::1", 1),))
    assert replace(config, hedge=True).hedge
