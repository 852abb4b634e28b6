"""The whole of resolution takeover with real processes: a node is SIGKILLed, clients know only the recursive node, it comes back.

Our own answers are played by a second stand-in that holds the same records; the group's log is the memory twin.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hosting.client.edge_national import NationalClient
from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Server
from replica.model.beat import HeadBeat, encode_beat
from replica.model.errors import ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import prefix_key
from replica.model.node import Endpoint
from replica.model.position import ORIGIN
from replica.model.states import Authority
from replica.takeover.edge_beats import BeatTable, listen_for_beats
from replica.takeover.edge_probe import probe
from replica.takeover.edge_recursive import RecursiveConfig, RecursivePublisher
from replica.takeover.edge_runner import RunnerConfig, TakeoverRunner
from replica.takeover.machine import Policy
from replica.takeover.ports import MemorySource, PublishedSites
from tests.integration.standin_nodes import Node, record, route, running, start, until, write_config

P = "88.118.8"
NAME = f"{P}/A"


@dataclass
class Prober:
    """Looks the name up all the time; keeps (since start in ms, took ms or None, port that answered)."""

    name: str
    history: list[tuple[float, float | None, int]] = field(default_factory=list)

    async def run(self, client: HandleClient | NationalClient) -> None:
        while True:
            began = time.perf_counter()
            try:
                lookup = await client.resolve(self.name)
                took = (time.perf_counter() - began) * 1_000 if lookup.reply.code == 1 else None
                self.history.append((began * 1_000, took, lookup.server.port))
            except ZaibeiError:
                self.history.append((began * 1_000, None, 0))
            await asyncio.sleep(0.02)

    def first_right_after(self, at_ms: float) -> float:
        """End of the first right lookup that ended after a moment, in ms since it."""
        return next(
            began + took - at_ms
            for began, took, _ in self.history
            if took is not None and began + took > at_ms and began >= at_ms
        )

    @property
    def failed(self) -> int:
        return sum(1 for _, took, _ in self.history if took is None)


@dataclass
class Stage:
    mortal_config: Path
    mortal: Node
    ours: Node
    recursive: Node
    source: MemorySource
    runner: TakeoverRunner
    hosts: tuple[str, ...]

    def restart(self) -> None:
        self.mortal = start("chaos.standin.secondary", "--config", str(self.mortal_config))


@pytest.fixture(params=["127.0.0.1", "::1"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    host = str(request.param)
    lines = [record(NAME, "http://a.example")]
    ours_config = write_config(tmp_path, "ours", [P], lines, serial=1, hosts=[host])
    mortal_config = write_config(tmp_path, "mortal", [P], lines, serial=7, hosts=[host])
    with running("chaos.standin.secondary", "--config", str(ours_config)) as ours:
        mortal = start("chaos.standin.secondary", "--config", str(mortal_config))
        ports = mortal.ready["ports"]
        mortal_config = write_config(
            tmp_path, "mortal", [P], lines, serial=7, hosts=[host], **ports
        )  # the same ports when it returns
        mine, theirs = bytes.fromhex(ours.site), bytes.fromhex(mortal.site)
        top_config = write_config(tmp_path, "top", ["88", "88.118"], [route(P, theirs, mine)], hosts=[host])
        with running("chaos.standin.secondary", "--config", str(top_config)) as top:
            top_server = str(top.server("tcp", host))
            with running("chaos.standin.recursive", "--roots", top_server, "--ttl-cap", "0", "--hosts", host) as recursive:
                source = MemorySource(
                    GroupState("s", ready=True, verified=True, prefixes=(prefix_key(P),)),
                    age=5,
                    where=(Endpoint("tcp", host, ports["tcp"]), Endpoint("udp", host, ports["udp"])),
                    nodes={prefix_key(P): PublishedSites((theirs,), 300)},
                )
                control = f"http://{'[::1]' if host == '::1' else host}:{recursive.ready['ports']['http']}"
                config = RunnerConfig(mine, policy=Policy(return_stable_ms=300), shadow_prefix="88.999.drill")
                runner = TakeoverRunner(source, config, [RecursivePublisher(RecursiveConfig("recursive", control))], probe)
                made = Stage(mortal_config, mortal, ours, recursive, source, runner, (host,))
                beats = asyncio.create_task(beat_while_alive(made))
                await runner.start()
                yield made
                beats.cancel()
                await runner.stop()
                made.mortal.kill()


async def beat_while_alive(stage: Stage) -> None:
    """The agent of the node lives and dies with it; its beats go over a real socket to the real receiver."""
    host, key, counter = stage.hosts[0], os.urandom(32), 0
    table = BeatTable()
    table.allow(key, frozenset({"s"}), lambda _, now_ns: stage.runner.beat(now_ns))
    transport, port = await listen_for_beats(table, host, 0)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        try:
            while True:
                alive = stage.mortal.process.poll() is None
                stage.source.age = 5 if alive else None
                if alive:
                    counter += 1
                    sender.sendto(encode_beat(key, counter, [HeadBeat("s", ORIGIN, bytes(16))]), (host, port))
                await asyncio.sleep(0.05)
        finally:
            transport.close()


def asked_through(node: Node, host: str, protocol: str) -> Server:
    return node.server(protocol, host)


async def test_a_node_dies_is_taken_over_and_comes_back(stage: Stage) -> None:
    host = stage.hosts[0]
    hedged, national = Prober(NAME), Prober(NAME)
    udp = Server("udp", host, stage.recursive.ready["ports"]["udp"])
    tcp = Server("tcp", host, stage.recursive.ready["ports"]["tcp"])
    async with HandleClient(ClientConfig((udp,), walk=True, hedge=True)) as one, NationalClient(tcp) as other:
        tasks = [asyncio.create_task(hedged.run(one)), asyncio.create_task(national.run(other))]

        async def answered() -> bool:
            return bool(national.history)

        await asyncio.sleep(1.0)
        await until(answered)
        assert national.history[-1][2] == stage.mortal.ready["ports"]["tcp"], "answered by the node itself before the fault"
        assert national.failed == 0
        killed_ms = time.perf_counter() * 1_000
        stage.mortal.kill()

        async def taken() -> bool:
            return stage.runner.status(0)["phase"] == "published" and national.history[-1][1] is not None

        await until(taken)
        await asyncio.sleep(0.5)
        recovery_ms = national.first_right_after(killed_ms)
        hedged_ms = hedged.first_right_after(killed_ms)
        print(f"first right answer after SIGKILL: {recovery_ms:.0f} ms through the recursive node, {hedged_ms:.0f} ms hedged")
        assert national.history[-1][2] == stage.ours.ready["ports"]["tcp"]
        assert stage.source.current.authority is Authority.RESOLUTION
        stage.restart()

        async def returned() -> bool:
            return stage.source.current.authority is Authority.SOURCE

        await until(returned)
        failed_before = national.failed
        await asyncio.sleep(0.5)

        async def by_the_node() -> bool:
            return national.history[-1][2] == stage.mortal.ready["ports"]["tcp"]

        await until(by_the_node)
        assert national.failed == failed_before, "the return costs no lookup"
        assert hedged.failed == 0, "the hedging client lost nothing"
        for task in tasks:
            task.cancel()


async def test_a_rehearsal_through_the_real_path(stage: Stage) -> None:
    check = await stage.runner.rehearse()
    assert check.result.value == "pass", check.detail
    assert stage.source.current.overlays == ()
