"""Who answers while nodes die, hang and flap and our own member with them: a real member, a resolver as a process of its own.

The node is two things that fail apart: its resolver, which probes reach, and its agent, whose beats reach us. The rule over all
states: a name we do not hold is "not found" only while the copy is fresh and the node has not been taken over.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import FLAGS_PLAIN, Question, Reply, Server
from ops.admin.values import SourceStatus
from replica.model.handle.codes import OpFlag
from tests.acceptance.world import HOSTS, World, right, until
from tests.integration.standin_nodes import Node, start, write_config

HELD, MISSING = 1, 999_999
SIGHT_S = 2.0  # a takeover by mistake would have come by then: detection takes half a second


class Live:
    """A world with one node whose resolver can be stopped and started."""

    def __init__(self, folder: Path, world: World) -> None:
        self.world, self.node = world, world.nodes[0]
        self._toml = write_config(folder, "resolver", [self.node.prefix], [], tcp=world.site_port(), hosts=list(HOSTS))
        self.resolver: Node | None = None

    def revive(self) -> None:
        self.resolver = start("chaos.standin.secondary", "--config", str(self._toml))

    def resolver_dies(self) -> None:
        assert self.resolver is not None
        self.resolver.kill()

    def end(self) -> None:
        if self.resolver is not None and self.resolver.process.poll() is None:
            self.resolver.kill()

    def hang(self, number: signal.Signals = signal.SIGSTOP) -> None:
        assert self.resolver is not None
        os.kill(self.resolver.process.pid, number)

    def authority(self) -> str:
        seen = self.world.seen()
        return seen.authority if seen is not None else ""

    def taken(self) -> None:
        until("taken over", lambda: self.authority() == "RESOLUTION")

    def given_back(self) -> None:
        until("given back", lambda: self.authority() == "SOURCE")

    def stays(self, authority: str) -> None:
        end = time.monotonic() + SIGHT_S
        while time.monotonic() < end:
            assert self.authority() == authority
            time.sleep(0.05)

    def status(self) -> SourceStatus:
        seen = until("status", self.world.seen)
        assert seen is not None
        return seen

    def missing_codes(self) -> set[int]:
        return {shown_code for shown_code, _ in self.world.everywhere(self.node.name_of(MISSING))}

    def held_everywhere(self) -> bool:
        return self.world.everywhere(self.node.name_of(HELD)) == {right(HELD)}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with World(tmp_path) as world:
        made = Live(tmp_path, world)
        made.revive()
        try:
            world.start()
            made.node.open().put(range(50))
            world.flowing()
            until("probed", lambda: readiness(made).get("probes") == "pass")
            yield made
        finally:
            made.end()


def readiness(live: Live) -> dict[str, str]:
    """The rows of `zaibei status SOURCE`."""
    return {row["check"]: row["result"] for row in live.world.document("status", "node-a")["readiness"]}


def test_half_a_dead_node_is_a_living_one(live: Live) -> None:
    assert live.held_everywhere() and live.missing_codes() == {100}
    live.resolver_dies()  # its agent goes on: beats arrive
    live.stays("SOURCE")
    until("probes fail", lambda: readiness(live)["probes"] == "fail")
    assert live.status().takeover_ready is False
    live.revive()
    live.node.close()  # beats stop, the resolver goes on: probes are answered
    live.stays("SOURCE")
    until("no longer fresh", lambda: live.status().freshness == "stale_bounded")
    assert live.held_everywhere() and live.missing_codes() == {2}
    live.world.kill()
    live.world.start()  # nothing vouches for what it holds, and nobody is called dead for it
    live.stays("SOURCE")
    assert live.status().freshness == "expired"
    assert {code for code, _ in live.world.everywhere(live.node.name_of(HELD))} == {2} == live.missing_codes()


def test_a_hanging_node_is_taken_over_and_a_flapping_one_is_kept_until_it_is_well(live: Live) -> None:
    live.hang()
    live.node.close()
    live.taken()
    assert live.held_everywhere() and live.missing_codes() == {2}
    assert live.status().freshness == "degraded"
    live.world.kill()
    live.world.start()  # the takeover is committed: answered from the first moment on
    assert live.authority() == "RESOLUTION"
    assert live.held_everywhere() and live.missing_codes() == {2}
    for _ in range(2):  # it comes and goes
        live.hang(signal.SIGCONT)
        time.sleep(0.7)
        live.hang()
        assert live.authority() == "RESOLUTION"
    live.hang(signal.SIGCONT)
    live.node.open()
    live.node.put([60])
    live.given_back()
    live.world.flowing()
    assert live.held_everywhere() and live.missing_codes() == {100}


def test_our_own_death_in_the_middle_of_a_takeover_and_of_its_return(live: Live) -> None:
    live.node.close()
    live.resolver_dies()
    live.taken()
    live.world.kill()  # before its overlays, or between them and their publication
    live.world.start()
    until("found", lambda: live.status().takeover in ("serving, found", "serving, not yet found"))
    first = overlay_serial(live)
    assert live.held_everywhere() and live.missing_codes() == {2}
    live.revive()
    live.node.open()
    until("giving back", lambda: live.status().takeover == "giving back" or live.authority() == "SOURCE")
    live.world.kill()
    live.world.start()
    live.given_back()
    live.world.flowing()
    assert live.missing_codes() == {100}
    live.resolver_dies()
    live.node.close()
    live.taken()
    until("overlay", lambda: overlay_serial(live) > first)  # never a serial that was used before


def overlay_serial(live: Live) -> int:
    (row,) = live.world.document("takeover", "status", "node-a")
    return max(row["overlays"].values(), default=0)


async def asked_at(server: Server, name: str) -> Reply:
    async with HandleClient(ClientConfig((server,))) as client:
        return await client.ask(server, Question(name, flags=FLAGS_PLAIN | OpFlag.AUTHORITATIVE))


def test_who_asks_for_the_authority_gets_no_answer_from_a_copy(live: Live) -> None:
    for taken_over in (False, True):
        if taken_over:
            live.node.close()
            live.resolver_dies()
            live.taken()
        for protocol in ("udp", "tcp"):
            for host in HOSTS:
                for number in (HELD, MISSING):
                    reply = asyncio.run(asked_at(live.world.server(protocol, host), live.node.name_of(number)))
                    assert (reply.code, reply.values) == (2, ())
                    assert "position" in reply.message
