"""`fronts = N` on a whole member: answers on every way in; fronts outlive their owner, are taken over, replaced, restarted."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from hosting.v1 import resolve_pb2, resolve_pb2_grpc
from replica.model.errors import ZaibeiError
from tests.acceptance.world import HOSTS, Node, World, right, stable_port, until

ROUNDS = 12  # connections of one kind: the kernel spreads them over the fronts


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, fronts=2, takeover="never") as made:
        yield made


def running(world: World) -> Node:
    world.start()
    node = world.nodes[0].open()
    node.put(range(50))
    world.flowing()
    return node


def over_grpc(world: World, names: list[str]) -> set[tuple[int, ...]]:
    """Codes of a batch, from each address."""
    found = set()
    for host in HOSTS:
        address = f"[{host}]:{world.ports['grpc']}" if ":" in host else f"{host}:{world.ports['grpc']}"
        with grpc.insecure_channel(address) as channel:
            request = resolve_pb2.BatchResolveRequest(identifiers=[name.encode() for name in names])
            codes = resolve_pb2_grpc.ResolverStub(channel).BatchResolve(request, timeout=10).response_codes
        found.add(tuple(int.from_bytes(codes[at : at + 2], "big") for at in range(0, len(codes), 2)))
    return found


def codes(world: World, name: str) -> set[int]:
    """Over everything, often enough to meet every front; 0: no answer came."""
    seen = set()
    for _ in range(ROUNDS):
        for protocol in ("udp", "tcp", "http"):
            for host in HOSTS:
                try:
                    seen.add(world.ask(name, protocol, host).code)
                except ZaibeiError:
                    seen.add(0)
    return seen | {code for batch in over_grpc(world, [name]) for code in batch}


def test_fronts_outlive_their_owner(world: World) -> None:
    node = running(world)
    fronts = world.front_pids()
    assert len(fronts) == 2
    names = [node.name_of(1), node.name_of(99)]
    assert world.everywhere(names[0]) == {right(1)} and over_grpc(world, names) == {(1, 100)}
    assert codes(world, names[0]) == {1}
    world.kill()
    until("the fronts noticed", lambda: world.ask(names[0]).code == 2)
    assert codes(world, names[0]) == {2} and over_grpc(world, names) == {(2, 2)}
    world.start()
    assert world.front_pids() == fronts  # the same processes: no connection of a client broke
    world.flowing()
    assert codes(world, names[0]) == {1} and over_grpc(world, names) == {(1, 100)}
    assert world.stop() == 0
    assert world.front_pids() == []
    with socket.socket() as probe:
        probe.bind((HOSTS[0], world.ports["handle"]))  # and their addresses are free


def test_a_front_that_dies_is_started_again(world: World) -> None:
    node = running(world)
    first = world.front_pids()
    os.kill(first[0], signal.SIGKILL)
    after = until("two fronts again", lambda: world.front_pids() if set(world.front_pids()) - set(first) else None)
    assert len(after) == 2 and first[1] in after and first[0] not in after
    until("all answer", lambda: codes(world, node.name_of(1)) == {1})


def test_fronts_of_another_configuration_are_replaced(world: World) -> None:
    node = running(world)
    first = world.front_pids()
    world.kill()
    world.configure(fronts=1)
    world.start()
    assert world.front_pids() == first[:1]  # the same addresses: one goes on, one is too many
    world.kill()
    world.ports["http"] = stable_port()
    world.configure(fronts=1)
    world.start()
    (second,) = world.front_pids()
    assert second not in first
    world.flowing()
    assert codes(world, node.name_of(1)) == {1}
    world.kill()
    world.configure(fronts=0)
    world.start()
    assert world.front_pids() == []
    world.flowing()
    assert codes(world, node.name_of(1)) == {1}


def test_each_front_has_metrics_of_its_own(world: World) -> None:
    running(world)
    for above in (1, 2):
        for host in HOSTS:
            name = f"[{host}]" if ":" in host else host
            url = f"http://{name}:{world.ports['metrics'] + above}/metrics"

            def text(url: str = url) -> str | None:
                try:
                    with urllib.request.urlopen(url, timeout=2) as answer:
                        return str(answer.read().decode())
                except OSError:
                    return None

            assert "zaibei_front_" in until(f"metrics of front {above} on {host}", text)
