"""The takeover runner over memory ports with real time, tasks and sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from replica.model.beat import HeadBeat, encode_beat
from replica.model.errors import Code, InvariantBroken, ZaibeiError
from replica.model.node import Endpoint
from replica.model.position import ORIGIN
from replica.model.states import Authority, Result
from replica.takeover.edge_beats import BeatTable, listen_for_beats
from replica.takeover.edge_metrics import TakeoverMetrics
from replica.takeover.edge_probe import probe
from replica.takeover.edge_runner import RunnerConfig, TakeoverRunner, boottime_ns
from replica.takeover.families import Families, Look
from replica.takeover.machine import Phase, Policy
from replica.takeover.ports import MemorySource, PublishedSites
from replica.takeover.publish import MemoryPublisher
from tests.unit.takeover.test_machine import NODE, OWN, P1, P2, READY

WAIT_S = 30.0
CONFIG = RunnerConfig(OWN, policy=Policy(return_stable_ms=50), shadow_prefix="88.999.drill", identity_ends_s=lambda: 2**40)


def seen() -> Families:
    """Our own addresses, all of them seen just now."""
    families = Families(OWN, boottime_ns())
    families.looked({host: Look(here=True, alone=True) for host in families.watched}, boottime_ns())
    return families


async def wait_until(check: Callable[[], bool]) -> None:
    for _ in range(int(WAIT_S / 0.005)):
        if check():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to be")


class Node:
    """A source host: beats and answers while it lives."""

    def __init__(self) -> None:
        self.alive = True
        self.probes = 0

    async def probe(self, endpoints: Sequence[Endpoint], prefix: str) -> bool:
        self.probes += 1
        return self.alive


class Rig:
    def __init__(self) -> None:
        self.node = Node()
        self.source = MemorySource(
            READY,
            age=5,
            where=(Endpoint("tcp", "127.0.0.1", 1),),
            nodes={P1: PublishedSites((NODE,), 60), P2: PublishedSites((), 60)},
        )
        self.publisher = MemoryPublisher()
        self.registry = CollectorRegistry()
        config = replace(CONFIG, addresses=seen())
        self.runner = TakeoverRunner(self.source, config, [self.publisher], self.node.probe, TakeoverMetrics(self.registry))
        self.beating = asyncio.create_task(self._beats())

    async def _beats(self) -> None:
        while True:
            if self.node.alive:
                self.runner.beat(boottime_ns())
            await asyncio.sleep(0.03)

    async def until(self, phase: Phase) -> None:
        await wait_until(lambda: self.runner.machine.phase is phase)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    await rig.runner.start()
    yield rig
    rig.beating.cancel()
    await rig.runner.stop()


async def test_death_takeover_publication_and_return(rig: Rig) -> None:
    await asyncio.sleep(0.2)
    assert rig.runner.machine.phase is Phase.NORMAL
    rig.node.alive, rig.source.age = False, None
    await rig.until(Phase.PUBLISHED)
    assert rig.source.current.authority is Authority.RESOLUTION
    assert rig.publisher.stands["88.118.8"].sites[1:] == (NODE,)
    rig.node.alive, rig.source.age = True, 5
    await rig.until(Phase.NORMAL)
    assert rig.source.current.authority is Authority.SOURCE
    assert rig.publisher.stands == {}
    assert b'zaibei_takeover_phase_state{phase="normal",source="s"} 1.0' in generate_latest(rig.registry)


async def test_answered_probes_keep_a_silent_source_in_place(rig: Rig) -> None:
    rig.beating.cancel()
    await asyncio.sleep(1.2)
    await wait_until(lambda: rig.node.probes >= 3)
    assert rig.source.entries == []


async def test_answers_that_come_late_keep_a_source_on_a_slow_line_in_place(rig: Rig) -> None:
    rig.node.alive, rig.source.age = False, None
    for _ in range(6):
        await asyncio.sleep(0.2)
        rig.runner.answered_late()
    assert rig.node.probes and rig.source.entries == []
    await rig.until(Phase.PUBLISHED)  # nothing comes any more


async def test_a_silent_source_nobody_can_probe_is_not_taken_over(rig: Rig) -> None:
    rig.source.where = ()  # it never described itself to this process, and none is configured
    rig.node.alive, rig.source.age = False, None
    await asyncio.sleep(0)
    before = rig.node.probes
    await asyncio.sleep(1.5)
    await rig.until(Phase.SUSPECT)
    assert rig.node.probes == before
    assert rig.source.entries == []
    probes = {check.name: check for check in rig.runner.readiness(boottime_ns())}["probes"]
    assert probes.result is Result.FAIL and "names no resolution endpoint" in probes.detail


async def test_octets_that_are_no_site_hinder_nothing(rig: Rig) -> None:
    """What the registry above publishes for a prefix is a stranger's: neither kept second nor a reason to stop."""
    prefix = rig.source.current.prefixes[0]
    rig.source.nodes[prefix] = PublishedSites((b"junk", b"", NODE), 300)
    rig.runner._sites_at_ns = None
    await wait_until(lambda: rig.runner._sites.get(prefix) == PublishedSites((NODE,), 300))
    assert rig.runner.status(boottime_ns())["ready"]
    rig.node.alive, rig.source.age = False, None
    await rig.until(Phase.PUBLISHED)
    assert rig.publisher.stands["88.118.8"].sites[1:] == (NODE,)


@pytest.mark.parametrize(
    ("address", "port"),
    [("127.0.0.1", 70_000), ("::1", 2**31), ("a\0b", 1), ("x" * 80, 1), ("a..b", 1), ("", 1), ("127.0.0.1", 0)],
)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
async def test_a_description_cannot_name_what_breaks_a_probe(protocol: str, address: str, port: int) -> None:
    assert await probe([Endpoint(protocol, address, port)], "88") is False


async def test_refused_proposals_are_repeated_until_they_pass(rig: Rig) -> None:
    rig.source.trouble = ZaibeiError(Code.BUSY, "later", retry=True)
    rig.node.alive = False
    await rig.until(Phase.SUSPECT)
    await asyncio.sleep(0.8)
    assert rig.source.entries == []
    rig.source.trouble = None
    await rig.until(Phase.PUBLISHED)


async def test_an_adapter_that_is_down_is_asked_again(rig: Rig) -> None:
    rig.publisher.down = True
    rig.node.alive = False
    await rig.until(Phase.TAKEN_OVER)
    status = rig.runner.status(boottime_ns())
    assert status["shown"] == "serving, not yet found"
    rig.publisher.down = False
    await rig.until(Phase.PUBLISHED)


async def test_plan_run_and_repeat(rig: Rig) -> None:
    await wait_until(lambda: rig.runner.plan("takeover").refusal == "")
    plan = rig.runner.plan("takeover")
    with pytest.raises(ZaibeiError) as caught:
        await rig.runner.run_plan("takeover", "0" * 16, "x")
    assert caught.value.code is Code.REFUSED
    assert (await rig.runner.run_plan("takeover", plan.token, "maintenance"))["changed"] is True
    assert (await rig.runner.run_plan("takeover", plan.token, "maintenance"))["changed"] is False
    await rig.until(Phase.PUBLISHED)
    back = rig.runner.plan("withdraw")
    assert (await rig.runner.run_plan("withdraw", back.token, "done"))["changed"] is True
    await rig.until(Phase.NORMAL)


async def test_a_rehearsal_touches_the_shadow_alone_and_feeds_readiness(rig: Rig) -> None:
    await wait_until(lambda: rig.runner.detector.probe_answered_ns is not None and bool(rig.runner._sites))
    before = {check.name: check.result for check in rig.runner.readiness(boottime_ns())}
    assert before["publication"] is Result.UNKNOWN
    check = await rig.runner.rehearse()
    assert check.result is Result.PASS, check.detail
    assert {call.prefix for call in rig.publisher.calls} == {"88.999.drill"}
    assert rig.publisher.stands == {}
    assert rig.source.current.overlays == ()
    assert rig.source.current.authority is Authority.SOURCE
    after = {check.name: check.result for check in rig.runner.readiness(boottime_ns())}
    assert set(after.values()) == {Result.PASS}, after
    rig.publisher.down = True
    assert (await rig.runner.rehearse()).result is Result.FAIL


async def test_a_broken_invariant_is_told_and_not_swallowed(rig: Rig) -> None:
    told: list[BaseException] = []
    rig.runner._on_broken = told.append
    rig.runner.machine.phase, rig.runner.machine._led = Phase.TAKEN_OVER, True  # NORMAL cannot follow
    rig.runner.poke()
    await wait_until(lambda: bool(told))
    assert isinstance(told[0], InvariantBroken)


async def test_a_rehearsal_never_takes_a_real_prefix(rig: Rig) -> None:
    rig.runner._config = replace(CONFIG, shadow_prefix="88.118.8")
    with pytest.raises(ZaibeiError) as caught:
        await rig.runner.rehearse()
    assert caught.value.code is Code.REFUSED
    assert rig.source.entries == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_beats_arrive_authenticated_and_once(host: str) -> None:
    table, heard = BeatTable(), []
    key, other = os.urandom(32), os.urandom(32)
    table.allow(key, frozenset({"s"}), lambda head, _: heard.append(head.source))
    transport, port = await listen_for_beats(table, host, 0)
    sender = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    one, foreign = HeadBeat("s", ORIGIN, bytes(16)), HeadBeat("not-mine", ORIGIN, bytes(16))
    beat = encode_beat(key, 1, [one])
    for datagram in (
        beat,
        beat,  # replayed
        encode_beat(key, 2, [one, foreign]),
        encode_beat(key, 1, [one]),  # older
        encode_beat(other, 9, [one]),
        beat[:-1] + bytes((beat[-1] ^ 1,)),
        b"",
        os.urandom(60),
    ):
        sender.sendto(datagram, (host, port))
    await wait_until(lambda: sum(table.seen.values()) == 8)
    assert heard == ["s", "s"]
    assert table.seen == {"taken": 2, "replayed": 2, "unknown": 3, "unauthenticated": 1}
    table.revoke(key)
    assert table.accept(encode_beat(key, 5, [one]), 0) == "unknown"
    sender.close()
    transport.close()


async def test_a_beat_port_in_use_is_one_clear_message() -> None:
    transport, port = await listen_for_beats(BeatTable(), "127.0.0.1", 0)
    with pytest.raises(ZaibeiError, match=f"port {port}") as caught:
        await listen_for_beats(BeatTable(), "127.0.0.1", port)
    assert caught.value.code is Code.INVALID_CONFIG
    transport.close()
