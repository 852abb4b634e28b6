"""The stand-in nodes as real processes: what they answer, how the recursive node keeps and is forced, and a node's death."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hosting.client.edge_national import NationalClient
from hosting.client.edge_resolver import ClientConfig, HandleClient, NoAnswer
from hosting.client.lookup import Question, Reply, Server
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.types import decode_site
from replica.model.node import Endpoint
from replica.takeover.edge_probe import probe
from replica.takeover.edge_recursive import RecursiveConfig, RecursivePublisher
from replica.takeover.overlay import site_serial, site_with
from replica.takeover.publish import Publication
from tests.integration.standin_nodes import Node, record, route, running, until, write_config, write_lines

P = "88.118.8"
LONG = {"index": 2, "type": "DESC", "data": "灾备" * 400, "ttl": 60}
ENTERPRISE = bytes.fromhex(
    "0001020b0001800200000000000000000000000100000001" + "00" * 12 + "c0000201" + "00000000" + "00000001" + "030100000a51"
)


@dataclass
class World:
    """A top-level node, a secondary node, and another node that holds the same records (the recovery site)."""

    folder: Path
    top: Node
    secondary: Node
    recovery: Node

    def recursive(self, *more: str) -> object:
        return running("chaos.standin.recursive", "--roots", str(self.top.server("tcp")), "--upstream-s", "0.5", *more)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("nodes")
    lines = [record(f"{P}/A", "http://a.example", LONG), record(f"{P}/b", "http://b.example"), route(f"{P}.77", ENTERPRISE)]
    mine = write_config(folder, "secondary", [P], lines, serial=7)
    with running("chaos.standin.secondary", "--config", str(mine)) as secondary:
        theirs = write_config(folder, "recovery", [P], lines, serial=3)
        with running("chaos.standin.secondary", "--config", str(theirs)) as recovery:
            owned = [route(P, bytes.fromhex(secondary.site), bytes.fromhex(recovery.site), ttl=2)]
            top = write_config(folder, "top", ["88", "88.118"], owned)
            with running("chaos.standin.secondary", "--config", str(top)) as parent:
                yield World(folder, parent, secondary, recovery)


@pytest.fixture
async def client() -> AsyncIterator[HandleClient]:
    async with HandleClient(ClientConfig((), deadline_s=3.0)) as made:
        yield made


async def ask(
    client: HandleClient, node: Node, name: str, protocol: str = "tcp", host: str = "127.0.0.1", **more: tuple[str, ...]
) -> Reply:
    return await client.ask(node.server(protocol, host), Question(name, **more))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("protocol", ["udp", "tcp", "http"])
async def test_secondary_answers_on_every_listener(world: World, client: HandleClient, protocol: str, host: str) -> None:
    reply = await ask(client, world.secondary, f"{P}/A", protocol, host)
    assert reply.code == 1
    assert reply.values[0].data == b"http://a.example"
    assert reply.values[1].data == ("灾备" * 400).encode(), "longer than a datagram"
    assert (await ask(client, world.secondary, f"{P}/A", protocol, host, types=("URL",))).values[1:] == ()
    assert (await ask(client, world.secondary, f"{P}/a", protocol, host)).code == 1, "names are folded"
    assert (await ask(client, world.secondary, f"{P}/none", protocol, host)).code == 100
    assert (await ask(client, world.secondary, "88.999/x", protocol, host)).code == 301
    assert (await ask(client, world.secondary, f"{P}/A", protocol, host, types=("EMAIL",))).code == 200
    assert (await ask(client, world.secondary, f"{P}.77/x", protocol, host)).code == 302
    site = decode_site((await ask(client, world.secondary, f"0.NA/{P}", protocol, host)).values[0].data)
    assert site.primary
    assert site.hosts(site.servers[0]) == ("127.0.0.1", "::1")


async def test_secondary_reads_changed_files(world: World, client: HandleClient) -> None:
    path = world.folder / "recovery.jsonl"
    write_lines(path, [record(f"{P}/A", "http://a.example", LONG), record(f"{P}/new", "http://n.example")])

    async def read_anew() -> bool:
        return (await ask(client, world.recovery, f"{P}/new")).code == 1

    await until(read_anew)
    assert (await ask(client, world.recovery, f"{P}/b")).code == 100, "what left the file is gone"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("protocol", ["udp", "tcp", "http"])
async def test_recursive_resolves_and_shows_all_sites(world: World, client: HandleClient, protocol: str, host: str) -> None:
    with world.recursive() as node:
        assert (await ask(client, node, f"{P}/A", protocol, host)).values[0].data == b"http://a.example"
        assert len((await ask(client, node, f"0.NA/{P}", protocol, host)).values) == 2
        assert (await ask(client, node, f"{P}/none", protocol, host)).code == 100
        assert (await ask(client, node, "88.118.9/x", protocol, host)).code in (100, 301)
        assert (await ask(client, node, "0", protocol, host)).code == 100


async def test_recursive_with_a_silent_first_root_asks_the_second(world: World, client: HandleClient) -> None:
    with running(
        "chaos.standin.recursive", "--roots", f"tcp://127.0.0.1:1,{world.top.server('tcp')}", "--upstream-s", "0.5"
    ) as node:
        assert (await ask(client, node, f"{P}/A")).code == 1


async def test_national_walk_takes_the_first_site_alone(world: World) -> None:
    with world.recursive() as node:
        async with NationalClient(node.server("tcp")) as national:
            lookup = await national.resolve(f"{P}/A")
            assert lookup.server.port == world.secondary.ready["ports"]["tcp"]


def publisher(node: Node, flush: bool = True, token_file: Path | None = None, host: str = "127.0.0.1") -> RecursivePublisher:
    address = f"[{host}]" if ":" in host else host
    return RecursivePublisher(RecursiveConfig("r", f"http://{address}:{node.ready['ports']['http']}", flush, token_file))


def sites_of(world: World, serial: int) -> tuple[bytes, ...]:
    return site_with(bytes.fromhex(world.recovery.site), serial=serial, primary=False), bytes.fromhex(world.secondary.site)


async def first_serial(client: HandleClient, node: Node) -> int:
    return site_serial((await ask(client, node, f"0.NA/{P}")).values[0].data)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_forced_entry_is_confirmed_idempotent_and_never_goes_back(world: World, client: HandleClient, host: str) -> None:
    with world.recursive() as node:
        adapter = publisher(node, host=host)
        assert await first_serial(client, node) == 7
        take = Publication(P, sites_of(world, 9), 9, "auto:1")
        for _ in range(2):
            assert (await adapter.publish(take)).confirmed
        assert await first_serial(client, node) == 9
        with pytest.raises(ZaibeiError) as caught:
            await adapter.publish(Publication(P, sites_of(world, 8), 8, "old"))
        assert caught.value.code is Code.CONFLICT
        for _ in range(2):
            assert (await adapter.publish(Publication(P, (), 10, "return:1", withdrawn=True))).confirmed
        assert await first_serial(client, node) == 7
        with pytest.raises(ZaibeiError):
            await adapter.publish(take)


async def test_a_forced_entry_without_flush_waits_for_the_kept_one(world: World, client: HandleClient) -> None:
    with world.recursive() as node:
        assert await first_serial(client, node) == 7
        assert (await publisher(node, flush=False).publish(Publication(P, sites_of(world, 9), 9, "a"))).confirmed
        assert await first_serial(client, node) == 7, "still kept"

        async def forced() -> bool:
            return await first_serial(client, node) == 9

        await until(forced)


async def test_nothing_is_kept_with_ttl_cap_0(world: World, client: HandleClient) -> None:
    with world.recursive("--ttl-cap", "0") as node:
        assert await first_serial(client, node) == 7
        assert (await publisher(node, flush=False).publish(Publication(P, sites_of(world, 9), 9, "a"))).confirmed
        assert await first_serial(client, node) == 9


async def test_the_control_api_wants_its_token(world: World, tmp_path: Path) -> None:
    with world.recursive("--token", "s3cret") as node:
        take = Publication(P, sites_of(world, 9), 9, "a")
        with pytest.raises(ZaibeiError) as caught:
            await publisher(node).publish(take)
        assert caught.value.code is Code.NOT_AUTHORISED
        token = tmp_path / "token"
        token.write_text("s3cret\n")
        assert (await publisher(node, token_file=token).publish(take)).confirmed


async def test_a_dead_recursive_node_is_unreachable(world: World) -> None:
    with world.recursive() as node:
        adapter = publisher(node)
    with pytest.raises(ZaibeiError) as caught:
        await adapter.publish(Publication(P, sites_of(world, 9), 9, "a"))
    assert caught.value.code is Code.UNREACHABLE


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_probes_see_life_and_death(tmp_path: Path, protocol: str, host: str) -> None:
    with running("chaos.standin.secondary", "--config", str(write_config(tmp_path, "n", ["88.5"], []))) as node:
        endpoint = Endpoint(protocol, host, node.ready["ports"][protocol])
        assert await probe([endpoint], "88.5", limit_s=3)
        assert await probe([endpoint], "88.6", limit_s=3), "any well-formed answer is life"
        closed = Endpoint("tcp", host, 1)
        assert await probe([closed, endpoint], "88.5", limit_s=3), "one endpoint is enough"
    assert not await probe([endpoint], "88.5")
    assert not await probe([], "88.5")


async def test_a_probe_is_not_fooled_by_garbage() -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" * 4)
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert not await probe([Endpoint("tcp", "127.0.0.1", port)], "88.5", limit_s=2)
    server.close()


async def test_a_node_dies_and_publication_brings_the_lookups_back(world: World, tmp_path: Path) -> None:
    """SIGKILL of the node; the prober knows only the recursive node; forced publication of the other site heals it."""
    mine = write_config(tmp_path, "mortal", [P], [record(f"{P}/A", "http://a.example")], serial=7)
    with running("chaos.standin.secondary", "--config", str(mine)) as mortal:
        owned = write_config(tmp_path, "top", ["88", "88.118"], [route(P, bytes.fromhex(mortal.site), ttl=300)])
        with (
            running("chaos.standin.secondary", "--config", str(owned)) as top,
            running("chaos.standin.recursive", "--roots", str(top.server("tcp"))) as node,
        ):
            prober = HandleClient(ClientConfig((node.server("udp"),)))
            assert (await prober.resolve(f"{P}/A")).reply.code == 1
            mortal.kill()
            began = time.monotonic()
            with pytest.raises(NoAnswer) as caught:
                await prober.resolve(f"{P}/A")
            assert caught.value.reply is not None, "code 2, so that a better client goes elsewhere"
            assert time.monotonic() - began < 2.5, "a refused connection is told at once, not after the retries"
            hedged = HandleClient(ClientConfig((node.server("udp"),), hedge=True))
            lookup = asyncio.create_task(hedged.resolve(f"{P}/A"))
            await asyncio.sleep(0.3)
            ours = site_with(bytes.fromhex(world.recovery.site), serial=8, primary=False)
            assert (await publisher(node).publish(Publication(P, (ours, bytes.fromhex(mortal.site)), 8, "auto:1"))).confirmed
            assert (await lookup).reply.code == 1, "the very lookup that met the dead node found the takeover"
            assert (await prober.resolve(f"{P}/A")).reply.code == 1
            async with NationalClient(node.server("tcp")) as national:
                assert (await national.resolve(f"{P}/A")).reply.code == 1
            await asyncio.gather(prober.close(), hedged.close())


def test_a_bad_configuration_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ended with 1"):
        running("chaos.standin.secondary", "--config", str(tmp_path / "none.toml")).__enter__()
    with pytest.raises(AssertionError, match="ended with 1"):
        running("chaos.standin.recursive", "--roots", "ftp://x").__enter__()


def test_servers_of_a_node_are_numeric(world: World) -> None:
    assert world.secondary.server("tcp") == Server("tcp", "127.0.0.1", world.secondary.ready["ports"]["tcp"])
