"""Links between real processes and through a bad network: killed, frozen, cut off; strangers and malformed callers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from replica.consensus.edge_link_tls import LINK_PATH, METHOD, SERVER_OPTIONS, SERVICE, open_channel, server_credentials
from replica.consensus.link_port import LINK_OCTETS_MAX, Answerer, LinkKeys, LinkLimits, Place
from replica.model.edge_identity import Identity
from replica.v1 import peer_pb2
from tests.unit.consensus.link_world import CLUSTER, LINEAGE, QUICK, Node, Wire, World, seconds_until, until, wire

ROOT = Path(__file__).resolve().parents[2]
LinkMessage, Hello = peer_pb2.LinkMessage, peer_pb2.Hello


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World("grpc", tmp_path)
    yield world
    await world.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Child:
    """Member 2 in a process of its own."""

    def __init__(self, world: World, node: Node) -> None:
        self.world, self.node, self.port = world, node, free_port()
        self.process: asyncio.subprocess.Process | None = None
        self.boot = 0

    async def start(self) -> None:
        self.boot += 1
        words = (self.world.folder, 2, self.boot, self.port, self.node.number, self.node.place.addresses[0])
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integration.link_child",
            *map(str, words),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert await self.line() == "ready"

    async def line(self) -> str:
        assert self.process is not None and self.process.stdout is not None
        async with asyncio.timeout(60):
            return (await self.process.stdout.readline()).decode().strip()

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def with_child(world: World) -> AsyncIterator[tuple[Node, Child]]:
    node = await world.add(1, limits=LinkLimits())
    world.identity("m2", 2)
    child = Child(world, node)
    node.links.start()
    await child.start()
    try:
        node.links.set_places({2: Place((f"127.0.0.1:{child.port}",))})
        await until(lambda: node.links.connected == {2})
        yield node, child
    finally:
        await child.kill()


async def echoes(node: Node) -> None:
    """A message goes there and comes back; early ones may meet a peer whose own call does not stand yet."""
    before = len(node.heard.messages)
    async with asyncio.timeout(30):
        while len(node.heard.messages) == before:
            node.links.send(2, wire(index=1))
            await asyncio.sleep(0.02)


async def test_a_killed_process_is_lost_at_once_and_met_again_when_it_returns(world: World) -> None:
    async with with_child(world) as (node, child):
        await echoes(node)
        child.signal(signal.SIGKILL)
        assert await seconds_until(lambda: "lost 2" in node.heard.story) < 0.3
        assert "no answer" not in node.heard.reasons[0]
        await child.kill()
        await asyncio.sleep(1)  # the back-off has grown
        await child.start()
        assert await seconds_until(lambda: node.links.connected == {2}) < 0.3
        assert node.heard.hellos[2][-1].boot == 2
        await echoes(node)


async def test_who_calls_us_is_called_back_without_a_pause(world: World) -> None:
    patient = await world.add(1, limits=replace(QUICK, backoff_ms_min=60_000, backoff_ms_max=60_000))
    port = free_port()
    patient.links.start()
    patient.links.set_places({2: Place((f"127.0.0.1:{port}",))})
    await until(lambda: "not called yet" not in patient.links.trouble(2))
    two = await world.add(2, listen=(("127.0.0.1", port),))
    two.links.start()
    world.places(patient, two)
    await until(lambda: patient.links.connected == {2})  # the pause is a minute: longer than anybody waits here


async def test_a_frozen_process_is_lost_within_a_second_and_back_when_it_thaws(world: World) -> None:
    async with with_child(world) as (node, child):
        await echoes(node)
        at_s = time.monotonic()
        child.signal(signal.SIGSTOP)
        try:
            took_s = await seconds_until(lambda: "lost 2" in node.heard.story)
            assert took_s < 1.6 and time.monotonic() - at_s > 0.8
            assert "no answer" in node.heard.reasons[0] and not node.links.send(2, wire())
            await asyncio.sleep(1)
            assert node.links.connected == frozenset()
        finally:
            child.signal(signal.SIGCONT)
        assert await seconds_until(lambda: node.links.connected == {2}) < 1
        await echoes(node)


async def test_who_was_late_itself_blames_nobody(world: World) -> None:
    one, two = await world.pair()
    for _ in range(3):
        time.sleep(1)  # noqa: ASYNC251 - longer than the silence that QUICK allows, and nobody was silent
        await asyncio.sleep(0.1)
    assert one.heard.story == ["connected 2"] and two.heard.story == ["connected 1"]


class Wall:
    """A TCP proxy before one address that can swallow all, or end all."""

    def __init__(self, to: str) -> None:
        self.host, port = to.rsplit(":", 1)
        self.port = int(port)
        self.open = asyncio.Event()
        self.open.set()
        self.server: asyncio.Server | None = None
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> str:
        self.server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        return f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self.host, self.port)
        self.writers += [writer, there_writer]
        loop = asyncio.get_running_loop()
        self.tasks += [loop.create_task(self._pass(reader, there_writer)), loop.create_task(self._pass(there_reader, writer))]

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while octets := await reader.read(65_536):
                await self.open.wait()
                writer.write(octets)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for writer in self.writers:
            writer.transport.abort()
        if self.server is not None:
            self.server.close()


@pytest.mark.parametrize("ways", ["both ways", "our call alone"])
async def test_who_is_cut_off_without_a_word_is_lost_and_met_again(world: World, ways: str) -> None:
    one, two = await world.add(1), await world.add(2)
    walls = [Wall(two.place.addresses[0]), Wall(one.place.addresses[0])]
    try:
        two.place, one.place = Place((await walls[0].start(),)), Place((await walls[1].start(),))
        await world.join(one, two)
        cut = walls if ways == "both ways" else walls[:1]
        for wall in cut:
            wall.open.clear()
        assert await seconds_until(lambda: "lost 2" in one.heard.story) < 0.8
        if ways == "both ways":
            await until(lambda: "lost 1" in two.heard.story)
        for wall in cut:
            wall.open.set()
        await until(lambda: one.links.connected == {2} and two.links.connected == {1})
        assert one.links.send(2, wire()) and two.links.send(1, wire())
        await until(lambda: one.heard.turns and two.heard.turns)
    finally:
        for wall in walls:
            await wall.stop()


class LateWall(Wall):
    """It lets nobody connect but the first, who looks at the certificate, until it opens."""

    def __init__(self, to: str) -> None:
        super().__init__(to)
        self.open.clear()
        self.waits = asyncio.Event()
        self.looked = False

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.looked:
            self.waits.set()
            await self.open.wait()
            await super()._take(reader, writer)
            return
        self.looked = True
        there_reader, there_writer = await asyncio.open_connection(self.host, self.port)
        self.writers += [writer, there_writer]
        loop = asyncio.get_running_loop()
        self.tasks += [loop.create_task(_copy(reader, there_writer)), loop.create_task(_copy(there_reader, writer))]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while octets := await reader.read(65_536):
        writer.write(octets)


async def test_a_hello_is_no_older_than_its_connection(world: World) -> None:
    """What a process is told was known after it began: it may be another one than that which the call was made to."""
    one, two = await world.add(1), await world.add(2)
    wall = LateWall(two.place.addresses[0])
    try:
        two.links.start()
        one.links.set_places({2: Place((await wall.start(),))})
        one.links.start()
        await wall.waits.wait()
        await asyncio.sleep(0.1)  # a Hello that does not wait would be made in it
        one.hello.groups.add(group=7, term=9, last=4)
        wall.open.set()
        await until(lambda: two.heard.hellos)
        assert two.heard.hellos[1][0].groups == one.hello.groups
    finally:
        await wall.stop()


@pytest.mark.parametrize("listen", [[("::1", 0)], [("127.0.0.1", 0), ("::1", 0)]])
async def test_both_address_families(world: World, listen: Sequence[tuple[str, int]]) -> None:
    one, two = await world.add(1, listen=listen), await world.add(2, listen=listen)
    await world.join(one, two)
    assert all("[::1]" in node.place.addresses[-1] for node in (one, two))
    two.links.set_places({1: Place((f"127.0.0.1:{free_port()}", one.place.addresses[-1]))})  # one of them is dead
    await until(lambda: "lost 1" in two.heard.story and two.links.connected == {1})
    assert two.links.send(1, wire())
    await until(lambda: one.heard.turns)


# ------------------------------------------------------------------------------------------------------------- bad callers


def hello(number: int = 2, **changes: Any) -> bytes:
    fields: dict[str, Any] = {"journal": bytes([number]) * 16, "boot": 1, "name": f"m{number}", **changes}
    return LinkMessage(hello=Hello(format=1, cluster=CLUSTER, lineage=LINEAGE, member=number, **fields)).SerializeToString()


@asynccontextmanager
async def caller(node: Node, mine: Identity, theirs: bytes) -> AsyncIterator[grpc.aio.StreamStreamCall[Any, Any]]:
    """A hand-made call to a node."""
    keys = LinkKeys(mine.certificate_pem, mine.tls_key_pem, b"")
    async with open_channel(node.place.addresses[0], keys, Answerer(theirs)) as channel:
        call: grpc.aio.StreamStreamCall[Any, Any] = channel.stream_stream(LINK_PATH)()
        yield call
        call.cancel()


async def ends_with(call: grpc.aio.StreamStreamCall[Any, Any]) -> tuple[grpc.StatusCode, str]:
    async with asyncio.timeout(10):
        try:
            while await call.read() is not grpc.aio.EOF:  # the status comes behind what was answered
                pass
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass
        return await call.code(), await call.details() or ""


async def victim(world: World) -> tuple[Node, Identity, bytes]:
    """A node, an identity of member 2 to call it with, and the node's certificate."""
    node, mine = await world.add(1), world.identity("m2", 2)
    node.links.start()
    return node, mine, world.peers["m1"].certificate_pem


@pytest.mark.parametrize(
    ("reason", "octets"),
    [
        ("malformed", [b"\xff\xff"]),
        ("malformed", [b""]),
        ("unexpected", [LinkMessage(messages=peer_pb2.GroupMessages(messages=[wire()])).SerializeToString()]),
        ("malformed", [hello(), b"\x12\xff"]),
        ("unexpected", [hello(), hello(boot=2)]),
        ("cluster", [hello(), hello().replace(CLUSTER, b"x" * 16)]),
        ("oversized", [hello(), bytes(LINK_OCTETS_MAX + 1)]),
        ("oversized", [bytes(LINK_OCTETS_MAX + 1)]),
        ("silent", []),
    ],
)
async def test_what_may_not_come_ends_the_call_and_is_counted(world: World, reason: str, octets: list[bytes]) -> None:
    node, mine, theirs = await victim(world)
    async with caller(node, mine, theirs) as call:
        for message in octets:
            await call.write(message)
        code, details = await ends_with(call)
    assert code is not grpc.StatusCode.OK and reason in details
    assert node.refused(2, reason) == 1 and node.heard.turns == [] and node.links.failure is None
    assert node.heard.story in ([], ["connected 2", "lost 2"])


async def test_what_grpc_itself_does_not_take_ends_the_call(world: World) -> None:
    node, mine, theirs = await victim(world)
    async with caller(node, mine, theirs) as call:
        await call.write(hello())
        assert await call.read() is not grpc.aio.EOF
        with pytest.raises((grpc.RpcError, asyncio.InvalidStateError)):
            await call.write(bytes(5 * 1024 * 1024))
            await call.write(b"")
    await until(lambda: node.heard.story == ["connected 2", "lost 2"])


async def test_strangers_and_other_roles_are_refused(world: World, tmp_path: Path) -> None:
    node, _, theirs = await victim(world)
    source = world.identity("node-a", 0, role="source")
    async with caller(node, source, theirs) as call:
        code, details = await ends_with(call)
    assert code is grpc.StatusCode.PERMISSION_DENIED and "no member" in details
    assert node.refused(0, "certificate") == 1
    stranger = World("grpc", tmp_path / "elsewhere").identity("m2", 2)
    async with caller(node, stranger, theirs) as call:
        code, _ = await ends_with(call)
    assert code is grpc.StatusCode.UNAVAILABLE  # not even a handshake
    assert node.heard.story == []


async def test_of_two_calls_of_one_member_the_newer_lives(world: World) -> None:
    node, mine, theirs = await victim(world)
    async with caller(node, mine, theirs) as older, caller(node, mine, theirs) as newer:
        await older.write(hello())
        assert await older.read() is not grpc.aio.EOF
        await newer.write(hello())
        assert await newer.read() is not grpc.aio.EOF
        code, details = await ends_with(older)
        assert code is grpc.StatusCode.ABORTED and "newer" in details
        await newer.write(LinkMessage(messages=peer_pb2.GroupMessages(messages=[wire(index=4)])).SerializeToString())
        await until(lambda: node.heard.messages)
        await newer.write(LinkMessage(beat=peer_pb2.LinkBeat(serial=9)).SerializeToString())
        octets = await newer.read()
        assert isinstance(octets, bytes)
        answer = LinkMessage.FromString(octets)
        assert (answer.beat.serial, answer.beat.answer) == (9, True)
    assert node.heard.story[:2] == ["connected 2", "received 2"]
    await until(lambda: node.heard.story[-1] == "lost 2")


async def test_a_caller_that_falls_silent_is_ended(world: World) -> None:
    node, mine, theirs = await victim(world)
    async with caller(node, mine, theirs) as call:
        await call.write(hello())
        code, details = await ends_with(call)
    assert code is grpc.StatusCode.ABORTED and "nothing came" in details
    assert node.heard.story == ["connected 2", "lost 2"]


async def test_a_member_that_is_trusted_no_more_is_lost_within_seconds(world: World) -> None:
    one, two = await world.pair()
    del world.peers["m2"]
    await until(lambda: one.links.connected == frozenset() and two.links.connected == frozenset())
    assert one.refused(2, "certificate") and not one.links.send(2, wire())
    await asyncio.sleep(0.3)
    assert one.links.connected == frozenset() and two.links.connected == frozenset()


@pytest.mark.parametrize(
    ("reason", "answers"),
    [
        ("unexpected", [LinkMessage(beat=peer_pb2.LinkBeat(serial=1, answer=True)).SerializeToString()]),
        ("unexpected", [hello(), LinkMessage(messages=peer_pb2.GroupMessages(messages=[wire()])).SerializeToString()]),
        ("unexpected", [hello(), LinkMessage(beat=peer_pb2.LinkBeat(serial=10**9, answer=True)).SerializeToString()]),
        ("unexpected", [hello(), hello(boot=2)]),
        ("malformed", [b"\xff"]),
        ("member", [hello(3, journal=b"\x02" * 16)]),
        ("ourselves", [hello(1)]),
    ],
)
async def test_answers_that_may_not_come_end_our_call(world: World, reason: str, answers: list[bytes]) -> None:
    node, mine, _ = await victim(world)

    async def link(_requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.read()
        for answer in answers:
            await context.write(answer)
        await asyncio.Event().wait()

    server = grpc.aio.server(options=list(SERVER_OPTIONS))
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(link)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, {METHOD: handler}),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(world.trust(mine)))
    await server.start()
    try:
        node.links.set_places({2: Place((f"127.0.0.1:{port}",))})
        await until(lambda: node.refused(2, reason) and reason in node.links.trouble(2))
        assert node.heard.turns == []
    finally:
        node.links.set_places({})
        await server.stop(0)


async def test_a_member_at_a_wrong_address_is_not_talked_to(world: World) -> None:
    one, two, three = await world.add(1), await world.add(2), await world.add(3)
    for node in (one, two, three):
        node.links.start()
    one.links.set_places({2: three.place})
    await until(lambda: "not member 2" in one.links.trouble(2))
    assert three.heard.story == [] and one.heard.story == []


async def test_a_slow_reader_bounds_what_waits(world: World) -> None:
    """Octets for a member that does not read pile up to the limits, then they are dropped; the sender goes on."""
    one, two = await world.add(1, limits=replace(QUICK, slow_ms_max=1_000)), await world.add(2)
    wall = Wall(two.place.addresses[0])
    try:
        two.place = Place((await wall.start(),))
        await world.join(one, two)
        wall.open.clear()
        big = Wire(group=7, kind=Wire.KIND_APPEND, term=1, terms=[1], entries=[bytes(1_000_000)])
        sent = [one.links.send(2, big) for _ in range(100)]
        assert 30 <= sum(sent) <= 45 and not sent[-1]
        await until(lambda: "lost 2" in one.heard.story)
    finally:
        await wall.stop()
