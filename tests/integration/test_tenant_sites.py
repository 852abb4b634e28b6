"""Enterprises' sites are probed as they are named: a real small server answers on loopback, dies, and comes back."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import ops.sites
from chaos.standin.edge_serve import Ports, Standin, bind, serve
from chaos.standin.given import Given
from hosting.guard.edge_teller import Teller
from hosting.guard.events import Cause, Kind, SecurityEvent, State
from hosting.tenant.site_health import Check, Enterprise, Health
from ops.config.values import ProbeSettings
from ops.sites import SiteCollector, SiteProber
from replica.model.handle.types import Interface, InterfaceUse, Protocol, encode_site, site_of
from replica.model.handle.values import HandleValue
from tests.integration.tenant_world import HOSTED, Region, region

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ["127.0.0.1", "::1"]
ENTERPRISE = "88.118.9.5"
LOOPBACK = ("127.0.0.0/8", "::1/128")
SEEN_S_MAX = 30.0


class Events:
    """Where events go."""

    name = "test"

    def __init__(self) -> None:
        self.seen: list[SecurityEvent] = []

    async def send(self, event: SecurityEvent) -> None:
        self.seen.append(event)

    async def close(self) -> None:
        return None


def site_at(ports: Ports) -> HandleValue:
    faces = [
        Interface(InterfaceUse.BOTH, protocol, port)
        for protocol, port in ((Protocol.UDP, ports.udp), (Protocol.TCP, ports.tcp), (Protocol.HTTP, ports.http))
    ]
    return HandleValue(1, b"HS_SITE", encode_site(site_of(HOSTS, faces, serial=1)))


class Server:
    """A small enterprise node in this process, which counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, _asked: object) -> Given:
        self.asked += 1
        return Given(1)

    async def start(self) -> Ports:
        ports, sockets = bind(HOSTS, Ports())
        await serve(Standin(self.answer), sockets)
        return ports


NODE = """
import asyncio, sys
from chaos.standin.edge_serve import Ports, Standin, bind, serve
from chaos.standin.given import Given
async def main():
    ports, sockets = bind(sys.argv[5:], Ports(*map(int, sys.argv[2:5])))
    await serve(Standin(lambda asked: Given(int(sys.argv[1]))), sockets)
    print(ports.udp, ports.tcp, ports.http, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Node:
    """A small enterprise node in a process of its own, which can be killed."""

    def __init__(self) -> None:
        self.ports, self._process = Ports(), None  # type: ignore[var-annotated]

    async def start(self, code: int = 1) -> None:
        """Every answer has this code."""
        words = [str(code), *map(str, self.ports.view().values()), *HOSTS]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", NODE, *words, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        self.ports = Ports(*map(int, (await self._process.stdout.readline()).split()))

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def probing(world: Region, teller: Teller | None = None, **settings: object) -> AsyncIterator[SiteProber]:
    told = ProbeSettings(**({"per_s": 60, "interval_s": 2, "networks": LOOPBACK} | settings))  # type: ignore[arg-type]
    prober = SiteProber(world.member, world.port.offices, told, teller)
    task = asyncio.create_task(prober.run())
    try:
        yield prober
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(prober: SiteProber, health: Health) -> dict[str, object]:
    end = time.monotonic() + SEEN_S_MAX
    while time.monotonic() < end:
        rows = prober.rows(HOSTED)
        if rows and rows[0]["health"] == health.value:
            return rows[0]
        await asyncio.sleep(0.05)
    raise AssertionError(f"not {health}: {prober.rows(HOSTED)}")


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Region, Server]]:
    monkeypatch.setattr(ops.sites, "AGAIN_S", 0.3)
    async with region(tmp_path) as made:
        server = Server()
        async with made.client() as client:
            await client.put(f"0.NA/{ENTERPRISE}", [site_at(await server.start())])
        yield made, server


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    made = Node()
    await made.start()
    yield made
    await made.kill()


async def test_a_site_that_answers_dies_and_comes_back(world: tuple[Region, Server], node: Node) -> None:
    made, _ = world
    events, registry = Events(), CollectorRegistry()
    teller = Teller("member-1", [events])
    await teller.start()
    async with made.client() as client:
        await client.put(f"0.NA/{ENTERPRISE}", [site_at(node.ports)])
    async with probing(made, teller) as prober:
        collector = SiteCollector(prober, registry)
        row = await until(prober, Health.OK)
        catalog = made.member.catalog()
        checks = row["checks"]
        assert isinstance(checks, list) and {(one["protocol"], one["family"]) for one in checks} == {
            (protocol, family) for protocol in ("udp", "tcp", "http") for family in ("IPv4", "IPv6")
        }
        await node.kill()
        row = await until(prober, Health.FAILED)
        assert "probes failed" in str(row["why"])
        assert made.member.catalog() is catalog, "what is answered knows nothing of it"
        told = generate_latest(registry).decode()
        assert f'zaibei_tenant_sites_count{{health="failed",source="{HOSTED}"}} 1.0' in told and ENTERPRISE not in told
        await node.start()
        await until(prober, Health.OK)
        await node.kill()
        await node.start(2)
        row = await until(prober, Health.FAILED)
        while "code 2" not in str(row["why"]):
            row = prober.rows(HOSTED)[0]
            await asyncio.sleep(0.05)
        await node.kill()
        await node.start(100)
        await until(prober, Health.OK)
        await asyncio.sleep(0.5)
        collector.close()
    await teller.stop()
    assert [(one.kind, one.state, one.cause) for one in events.seen] == [
        (Kind.SITE, state, Cause.NETWORK) for state in (State.ABNORMAL, State.RECOVERED) * 2
    ]
    assert events.seen[1].related == events.seen[0].ident and ENTERPRISE in events.seen[0].what


async def test_loopback_is_never_asked_unless_the_configuration_says_so(world: tuple[Region, Server]) -> None:
    made, server = world
    async with probing(made, networks=()) as prober:
        await asyncio.sleep(1.5)
        [row] = prober.rows(HOSTED)
        assert row["health"] == Health.UNKNOWN and "no public address" in str(row["why"])
        assert server.asked == 0 and not prober.ended


async def test_when_nothing_is_probed_any_more_ok_ends_in_time(world: tuple[Region, Server]) -> None:
    made, _ = world
    async with probing(made) as prober:
        await until(prober, Health.OK)
    cut_s = time.monotonic()
    await until(prober, Health.UNKNOWN)
    assert time.monotonic() - cut_s <= 2 + 2 + 0.5


async def test_a_probe_of_ours_that_was_late_says_nothing(world: tuple[Region, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = world
    now = [time.clock_gettime_ns(time.CLOCK_BOOTTIME)]
    prober = SiteProber(made.member, made.port.offices, ProbeSettings(networks=LOOPBACK), boottime_ns=lambda: now[0])
    await prober.read()
    _, enterprise, check = prober.book.due(now[0]) or pytest.fail("nothing is due")

    async def held_up(*_: object) -> tuple[bool, str]:
        now[0] += 10_000_000_000
        return False, "no answer"

    monkeypatch.setattr(ops.sites, "asked", held_up)
    assert isinstance(enterprise, Enterprise) and isinstance(check, Check)
    for _ in range(5):
        await prober._probe(HOSTED, enterprise, check)
    assert (check.health, check.failures) == (Health.UNKNOWN, 0) and prober.ended == {(HOSTED, "late"): 5}


async def test_no_more_probes_a_second_than_configured(world: tuple[Region, Server]) -> None:
    made, server = world
    async with probing(made, per_s=2, interval_s=1) as prober:
        await asyncio.sleep(1.2)
        assert 0 < server.asked <= 3, "six are due at once: at 0, 0.5 and 1 s at the earliest"
        assert prober.book.interval_s == pytest.approx(6 * 1.2 / 2)
        await asyncio.sleep(2)
        assert 3 < server.asked <= 7
