"""A prefix moves between two sources of three members: lookups at each all the time, leaders change between the steps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hosting.tenant.offices import Offices, OfficeSettings
from ops.cli.prefix import Mover
from ops.moves import MemberMoves
from replica.member.member import Member
from replica.member.settings import SourceSettings
from replica.model.batch import OP_PUT, Change
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue, encode_record
from replica.model.identifier import Identifier, prefix_key
from replica.model.identity import Pins
from replica.model.precondition import NOTHING
from replica.model.prefix_moves import NOWHERE, MoveStep
from tests.integration.cluster_world import Cluster, cluster
from tests.integration.member_world import until

OLD, NEW, PREFIX = "region-9", "region-5", "88.118.9.5"
INSIDE = {Identifier.parse(f"{PREFIX}/n{n}").key(): encode_record([HandleValue(1, b"URL", b"v%d" % n)]) for n in range(50)}
CHANGES = ("move_step", "move_record", "move_take", "move_acquire")
MOVING_S_MAX = 60.0


class Calls(MemberMoves):
    """The calls of one member."""

    def __init__(self, member: Member) -> None:
        self._member = member
        settings = [OfficeSettings(one.name, tuple(map(prefix_key, one.prefixes)), Pins(())) for one in member.settings.sources]
        self._offices = Offices(settings, member.hosted, lambda: time.time_ns() // 1_000_000, owner_of=member.owner_of)


class Admin:
    """An operator's calls: each goes to the leader of the source that it names; after each change leaders change."""

    def __init__(self, made: Cluster) -> None:
        self._made, self._loop = made, asyncio.get_running_loop()
        self.calls = {number: Calls(world.member) for number, world in made.worlds.items()}
        self.changes: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: asyncio.run_coroutine_threadsafe(self._asked(name, *args), self._loop).result()

    async def _asked(self, name: str, *args: Any) -> Any:
        leader = self._made.leader(args[0])
        if not leader:
            raise ZaibeiError(Code.UNREACHABLE, "nobody leads it", retry=True)
        answer = await getattr(self.calls[leader], name)(*args)
        if name in CHANGES:
            self.changes.append(name)
            life = self._made.life(leader)
            record = life.side.state.group(args[0])
            if record is not None:
                await life.lead(record.ident, leader % len(self._made.worlds) + 1)
        return answer


@asynccontextmanager
async def lookups(made: Cluster) -> AsyncIterator[tuple[list[str], list[int]]]:
    """Every name at every member, as answering reads it; what was not answered with its record."""
    failed: list[str] = []
    asked = [0]

    async def run(number: int, member: Member) -> None:
        keys = list(INSIDE)
        while True:
            owner = member.owner_of(prefix_key(PREFIX)) or ""
            found = member.read({owner: keys}).get(owner)
            asked[0] += len(keys)
            if found is None or found[0] != [INSIDE[key] for key in keys]:
                failed.append(f"m{number} {owner}")
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(run(number, world.member)) for number, world in made.worlds.items()]
    try:
        yield failed, asked
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_prefix_moves_while_leaders_change(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        made.sources = tuple(
            SourceSettings(None, (prefix,), operable=False, hosted=name)
            for name, prefix in ((OLD, "88.118.9"), (NEW, "88.118.5"))
        )
        await made.start(1)
        await made.admit_all()
        await made.start(2, 3)
        for name in (OLD, NEW):
            await made.placed_everywhere(name)
        admin = Admin(made)
        office = admin.calls[made.leader(OLD)]._offices.office_of(OLD)
        done = [await office.clerk.change(Change(OP_PUT, key, value), NOTHING) for key, value in INSIDE.items()]
        assert all(one.trouble is None for one in done)
        worlds = made.worlds.values()
        await until(lambda: all(world.member.copies[OLD].store.state().records == len(INSIDE) for world in worlds))
        async with lookups(made) as (failed, asked):
            token = (await admin.calls[made.leader(OLD)].move_plan(OLD, PREFIX, NEW))["token"]
            mover = Mover(admin, PREFIX, OLD, NEW, token, "li", "why", time.monotonic() + MOVING_S_MAX)  # type: ignore[arg-type]
            copied, dropped = await asyncio.to_thread(mover.run, lambda text: None, lambda progress: None)
            assert copied >= len(INSIDE) and dropped == len(INSIDE)
            await asyncio.sleep(0.3)
        assert failed == [] and asked[0] > 1_000
        assert admin.changes.count("move_record") == 2 and set(admin.changes) == set(CHANGES)
        for world in worlds:
            member = world.member
            await until(lambda: member.copies[NEW].store.state().records == len(INSIDE))  # noqa: B023
            await until(lambda: member.copies[OLD].store.state().records == 0)  # noqa: B023
            assert member.owner_of(prefix_key(PREFIX)) == NEW != NOWHERE
            [recorded] = member.recorded_moves()
            assert recorded.step is MoveStep.ACQUIRED and recorded.target == NEW
        office = admin.calls[made.leader(NEW)]._offices.office_of(NEW)
        assert (await office.clerk.change(Change(OP_PUT, next(iter(INSIDE)), b"new"), NOTHING)).trouble is None
