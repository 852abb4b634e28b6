"""A takeover publishes no address of ours that is dead, and what is published follows: resolution and registration."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from replica.model.node import Endpoint
from replica.takeover.edge_families import FamilyWatch, who_answers
from replica.takeover.families import FAILED_MIN, Families, hosts_of
from replica.takeover.ladder import LadderWorld
from replica.takeover.machine import Phase, World
from replica.takeover.overlay import live_overlays, site_serial
from tests.unit.takeover import test_ladder, test_machine
from tests.unit.takeover.test_families import FOUR, SITE, SIX
from tests.unit.takeover.test_machine import NODE, P1, P2


class Resolution(test_machine.Bench):
    dead_addresses: frozenset[str] = frozenset()

    @property
    def world(self) -> World:
        self.machine.own_site = SITE
        return replace(super().world, dead=self.dead_addresses)

    def published(self) -> set[tuple[str, ...]]:
        """Addresses of our own site, wherever it stands."""
        stands = [one.sites[0] for one in self.adapters["r0"].stands.values()]
        return {hosts_of(site) for site in (*stands, *(one.sites[0] for one in live_overlays(self.state).values()))}


class Registration(test_ladder.Bench):
    dead_addresses: frozenset[str] = frozenset()

    @property
    def world(self) -> LadderWorld:
        self.machine.own_site = SITE
        return replace(super().world, dead=self.dead_addresses)


@pytest.mark.parametrize(("gone", "left"), [(SIX, FOUR), (FOUR, SIX)])
def test_a_dead_family_is_left_out_and_comes_back_with_higher_serials(gone: str, left: str) -> None:
    bench = Resolution()
    bench.dead_addresses = frozenset({gone})
    assert bench.dead().settle() is Phase.PUBLISHED and bench.published() == {(left,)}
    before = {prefix: one.serial for prefix, one in live_overlays(bench.state).items()}
    bench.dead_addresses = frozenset()
    assert bench.settle() is Phase.PUBLISHED and bench.published() == {(FOUR, SIX)}
    assert set(before) == {P1, P2}
    for prefix, one in live_overlays(bench.state).items():
        assert one.serial > before[prefix] and site_serial(one.sites[0]) == one.serial
        assert one.sites[1:] == ((NODE,) if prefix == P1 else ()), "the node's own sites stay"
    settled = bench.state
    assert bench.settle() is Phase.PUBLISHED and bench.state == settled and not bench.refused


def test_what_dies_while_it_is_published_is_taken_out() -> None:
    bench = Resolution().dead()
    assert bench.settle() is Phase.PUBLISHED and bench.published() == {(FOUR, SIX)}
    bench.dead_addresses = frozenset({SIX})
    assert bench.settle() is Phase.PUBLISHED and bench.published() == {(FOUR,)}
    bench.dead_addresses = frozenset({FOUR, SIX})
    assert bench.settle() is Phase.PUBLISHED and bench.published() == {(FOUR, SIX)}, "no address is worse than a doubtful one"


def test_who_leads_publishes_its_own_site_where_another_member_of_ours_stands() -> None:
    """That one may be dead, and its addresses only it could judge."""
    bench = Resolution().dead()
    bench.settle()
    elsewhere = replace(live_overlays(bench.state)[P1], sites=(test_machine.OWN, NODE))
    bench.state = replace(bench.state, overlays=(elsewhere, live_overlays(bench.state)[P2]))
    bench.dead_addresses = frozenset({SIX})
    serial = bench.state.serial_highest
    assert bench.settle() is Phase.PUBLISHED and bench.published() == {(FOUR,)}
    assert live_overlays(bench.state)[P1].sites[1:] == (NODE,) and bench.state.serial_highest > serial


def test_registration_publishes_no_dead_family_either() -> None:
    bench = Registration()
    bench.dead_addresses = frozenset({SIX})
    bench.climb(0, 1)
    bench.until(test_ladder.S.SERVING)
    seen = [hosts_of(one.sites[0]) for one in bench.state.overlays]
    bench.dead_addresses = frozenset({FOUR})
    bench.step()
    assert (seen, [hosts_of(one.sites[0]) for one in bench.state.overlays]) == ([(FOUR,)] * 2, [(SIX,)] * 2)
    assert all(one.sites[0][6] & 0x80 for one in bench.state.overlays), "still primary"
    bench.step()
    assert bench.stage is test_ladder.S.SERVING and not bench.alarms()


async def test_the_watch_asks_here_and_outside_and_hears_what_is_dead() -> None:
    asked = list[tuple[str, str]]()

    async def answers(endpoints: Sequence[Endpoint], prefix: str, *, limit_s: float) -> bool:
        asked.append((endpoints[0].address, endpoints[0].protocol))
        return True

    async def outside(site: bytes) -> Mapping[str, Mapping[str, bool]]:
        assert site == SITE
        return {"m2": {FOUR: True, SIX: False, "192.0.2.99": False}, "m3": {}}

    families = Families(SITE, 0)
    watch = FamilyWatch(families, outside, asks=answers)
    for _ in range(FAILED_MIN):
        await watch.look()
    assert families.dead() == {SIX} and asked[:2] == [(FOUR, "tcp"), (SIX, "tcp")]
    alone = Families(SITE, 0)
    await FamilyWatch(alone, None, asks=answers).look()
    assert [(row["state"], row["seen"]) for row in alone.rows(0)] == [("answers", "seen from this member alone")] * 2


async def test_a_member_without_a_site_looks_at_nothing() -> None:
    async with asyncio.timeout(30):
        await FamilyWatch(Families(b"", 0), None).run()
    assert await who_answers(b"") == {}
