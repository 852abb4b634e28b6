"""Quotas of identifiers and octets hold at every member after every entry, while the source's leader changes again and again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from functools import partial
from pathlib import Path

from hosting.tenant.offices import Offices, OfficeSettings
from hosting.tenant.papers import Quota, key_of, value_of
from hosting.tenant.records import delete_of, named, put_of
from hosting.tenant.rights import Caller
from replica.member.settings import SourceSettings
from replica.model.batch import OP_PUT, Change
from replica.model.errors import ZaibeiError
from replica.model.group_state import GroupState
from replica.model.handle.values import HandleValue, encode_values
from replica.model.identifier import prefix_key
from replica.model.identity import Pins
from replica.model.precondition import NOTHING
from replica.store import SourceStore
from tests.integration.cluster_world import Cluster, cluster
from tests.integration.member_world import until
from tests.integration.test_block_cli import now_ms
from tests.unit.store.support import held
from tests.unit.store.test_octets import octets_of

LIMITS = Quota(identifiers=12, octets=4_000)
WORKERS, MOVES = 8, 8
WHO = Caller("sha256:x", registrar=True)


class Registry:
    """A hosted source on three members, and an office at each."""

    def __init__(self, three: Cluster) -> None:
        self.three, self.chance = three, random.Random(48)
        settings = [OfficeSettings("region", (prefix_key("88.300"),), Pins(()))]
        self.offices = {number: Offices(settings, world.member.hosted, now_ms) for number, world in three.worlds.items()}
        self.most = dict.fromkeys(three.worlds, (0, 0))
        self.done = self.refused = 0

    def watch(self) -> None:
        for number in self.three.worlds:
            store = self.three.copy(number, "region").store
            store.subscribe(partial(self._seen, number, store))

    def _seen(self, number: int, store: SourceStore, state: GroupState) -> None:
        """After each applied entry, on the apply thread."""
        records, octets = self.most[number]
        held = store.octets
        assert held is not None
        self.most[number] = max(records, state.records - 1), max(octets, held)  # one record is the quota itself

    async def limit(self) -> None:
        change = Change(OP_PUT, key_of(LIMITS, "tenant"), value_of(LIMITS))
        office = self.offices[self.three.leader("region")].office_of("region")
        assert (await office.clerk.change(change, NOTHING)).trouble is None

    async def once(self) -> None:
        """One put or delete, at whichever member thinks that it leads."""
        leaders = [number for number in self.three.worlds if self.three.copy(number, "region").log.leader]
        if not leaders:
            await asyncio.sleep(0.01)
            return
        office = self.offices[self.chance.choice(leaders)].office_of("region")
        name = named(f"88.300/{self.chance.randrange(30)}")
        key, spelling = office.key(name)
        change = delete_of(key)
        if self.chance.random() < 0.8:
            value = encode_values([HandleValue(1, b"URL", b"x" * self.chance.choice([1, 100, 300, 900]))])
            change = put_of(key, spelling, value)
        try:
            need = office.admitted(await office.documents(), WHO, name, change, NOTHING)
        except ZaibeiError:
            self.refused += 1
            await asyncio.sleep(0)
            return
        self.done += (await office.clerk.change(change, need)).position is not None

    async def move(self) -> None:
        """Another member is to lead."""
        number = self.three.leader("region")
        others = [one for one in self.three.worlds if one != number]
        with contextlib.suppress(ZaibeiError):
            self.three.copy(number, "region").log.transfer(self.chance.choice(others))


async def test_no_limit_is_passed_while_leaders_change(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        three.sources = (SourceSettings(None, ("88.300",), hosted="region"),)
        await three.start(1)
        await three.admit_all()
        await three.start(2, 3)
        await three.placed_everywhere("region")
        await until(lambda: three.leader("region"))
        registry = Registry(three)
        registry.watch()
        await registry.limit()

        async def work() -> None:
            while not over.is_set():
                await registry.once()

        led, over = set[int](), asyncio.Event()
        work_all = asyncio.gather(*(work() for _ in range(WORKERS)))
        for _ in range(MOVES):
            with contextlib.suppress(KeyError, StopIteration, ZaibeiError):
                led.add(three.leader("region"))
                await registry.move()
            await asyncio.sleep(0.25)
        over.set()
        await work_all
        assert not three.trouble(), three.trouble()
        stores = [three.copy(number, "region").store for number in three.worlds]
        await until(lambda: len({store.applied()[0] for store in stores}) == 1)
        assert {store.octets for store in stores} == {octets_of(held(stores[0]))}
        for records, octets in registry.most.values():
            assert records <= (LIMITS.identifiers or 0) and octets <= (LIMITS.octets or 0)
        assert registry.done > 20 and registry.refused > 20 and len(led) > 1, (registry.done, registry.refused, led)
