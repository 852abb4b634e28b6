"""What a copy hands on to the rules it is made of: late answers of probes, a probe for each host, its standing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from replica.consensus.group import GroupLog
from replica.member import copy as copies
from replica.member.copy import SourceCopy
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.node import Endpoint
from replica.takeover.edge_probe import PacedProbe
from tests.integration.cluster_world import cluster
from tests.integration.member_world import Node, World, settings_of, until

RESOLVES, REGISTERS = (Endpoint("udp", "127.0.0.1", 9),), (Endpoint("tcp", "127.0.0.1", 9),)
LIMIT_S, LATE_S = 0.05, 0.3


class Line:
    """Its first question about resolution is answered, but late; all others are not."""

    def __init__(self) -> None:
        self.probes: list[PacedProbe] = []
        self.asked: list[tuple[PacedProbe, tuple[Endpoint, ...]]] = []

    def probe(self, **given: Any) -> PacedProbe:
        async def asks(endpoints: Sequence[Endpoint], _prefix: str, *, limit_s: float) -> bool:
            first = tuple(endpoints) == RESOLVES and (made, RESOLVES) not in self.asked
            self.asked.append((made, tuple(endpoints)))
            await asyncio.sleep(LATE_S if first else 0)
            return first

        made = PacedProbe(asks, limit_s=LIMIT_S, slow_s=LIMIT_S, **given)
        self.probes.append(made)
        return made

    def of(self, endpoints: tuple[Endpoint, ...]) -> set[int]:
        """Which probes asked there."""
        return {id(probe) for probe, asked in self.asked if asked == endpoints}


async def test_a_copys_detector_hears_of_late_answers_and_each_host_has_its_own_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line()
    monkeypatch.setattr(copies, "PacedProbe", line.probe)
    me = ensure_identity(tmp_path / "identity", "m1")
    node = Node(tmp_path, "node-a", "88.118", me)
    source = node.settings(probes=RESOLVES, registration_probes=REGISTERS, operable=True)
    world = World(settings_of(tmp_path, me, [source]))
    await world.member.start()
    try:
        runner = world.copy("node-a").runner
        await until(lambda: runner.detector.probe_answered_ns is not None)
        await until(lambda: line.of(RESOLVES) and line.of(REGISTERS))
        assert not line.of(RESOLVES) & line.of(REGISTERS), "one pace for two hosts"
    finally:
        await world.member.stop()
        node.log.close()


async def test_a_copy_answers_only_where_its_host_lets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster(tmp_path, zones=("a",)) as one:
        node = Node(tmp_path, "node-a", "88.118", one.identities[1])
        async with node.serving():
            one.sources = (node.settings(),)
            await one.start(1)
            await until(lambda: "node-a" in one.worlds[1].member.copies)
            copy = one.copy(1, "node-a")
            await until(lambda: copy.answers.view().ready)
            monkeypatch.setattr(copy.placed.side.host, "answers", lambda _ident: False)
            assert not copy.answers.view().ready


@asynccontextmanager
async def one_copy(folder: Path) -> AsyncIterator[tuple[World, SourceCopy]]:
    """A member alone in its cluster that leads the copy of one source."""
    async with cluster(folder, zones=("a",)) as one:
        node = Node(folder, "node-a", "88.118", one.identities[1])
        async with node.serving():
            one.sources = (node.settings(),)
            await one.start(1)
            await until(lambda: "node-a" in one.worlds[1].member.copies)
            copy = one.copy(1, "node-a")
            await until(copy.led.is_set)
            yield one.worlds[1], copy


async def failing_flush(log: GroupLog, code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> int:
        raise ZaibeiError(code, "planted")

    monkeypatch.setattr(log._machine, "flush", fails)
    log._durable = 0  # there is something to flush
    await log.maintain()


async def test_what_keeps_a_copy_up_ends_the_process_when_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy whose role nobody follows any more looks alive, and never feeds again."""
    async with one_copy(tmp_path) as (world, copy):

        async def fails(_leading: bool) -> None:
            raise KeyError("planted")

        monkeypatch.setattr(copy, "_tell_lead", fails)
        copy.led.clear()
        copy._role_moved.set()
        await until(lambda: world.failures)
        assert isinstance(world.failures[0], KeyError)


@pytest.mark.parametrize("group", ["node-a", "control"])
async def test_a_disk_that_fails_one_group_stops_the_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    """Promise 12: it is the disk of all groups, whichever of them met the failure first."""
    async with one_copy(tmp_path) as (world, copy):
        assert world.member.life is not None
        log = copy.log if group == "node-a" else world.member.life.side.control
        await failing_flush(log, Code.DISK_FAILED, monkeypatch)
        await until(lambda: world.failures)
        assert isinstance(world.failures[0], ZaibeiError) and world.failures[0].code is Code.DISK_FAILED


async def test_a_damaged_copy_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with one_copy(tmp_path) as (world, copy):
        await failing_flush(copy.log, Code.DAMAGED, monkeypatch)
        await until(lambda: "node-a" in world.member.broken)
        assert not world.failures
