"""A living registry is switched over while clients read and register all the time: no failed read, no lost or doubled write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hosting.answer.standing import FOUND, row_of
from hosting.tenant.edge_clerk import Clerk
from ops.operators.approval import approve
from ops.operators.book import Book
from ops.operators.takeovers import TakeoverDesk
from replica.agent.config import SourceConfig, read_config
from replica.agent.write_lease import LeaseTimes
from replica.client import Publisher
from replica.client.guard import Guard
from replica.member.settings import SourceSettings
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.identity import Peer
from replica.model.ladder import Stage
from replica.model.precondition import ABSENT
from replica.model.signing import Signer
from tests.integration.member_world import World, key, put, running, until
from tests.integration.test_failback import lines_of, run_failback, settings_of, stage_of

LI, WANG = (Signer(Ed25519PrivateKey.generate()) for _ in range(2))
TIMES = LeaseTimes(10_000, 300, 5_000)
HELD = [f"88.118/{number}" for number in range(20)]
WRITES_EACH = 20  # acknowledged on either side before and after the switch


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine's slowness is not tested here, and the pause is told, not judged."""
    monkeypatch.setattr("replica.takeover.switchover.DRAIN_MS_MAX", 30_000)
    monkeypatch.setattr("replica.takeover.edge_ladder.RUN_S_MAX", 40.0)


class Rig:
    """A member, a registry with a guard that pushes to it, and a client of both."""

    def __init__(self, world: World, publisher: Publisher, guard: Guard) -> None:
        self.world, self.publisher, self.guard = world, publisher, guard
        self.copy = world.copy("node-a")
        hosted = world.member.hosted("node-a")
        assert hosted is not None
        self.clerk = Clerk(hosted, lambda: time.time_ns() // 1_000_000)
        self.acknowledged: dict[str, str] = {}  # name -> by whom
        self.reads, self.failed = 0, list[str]()
        self.pause_s = 0.0  # the longest time between two acknowledgements
        self._last: float | None = None

    # -- the operators

    def desk(self) -> TakeoverDesk:
        runners = {"node-a": self.copy.runner}
        return TakeoverDesk(lambda: runners, {"li.wei": LI.public, "wang.fang": WANG.public}, Book(), lambda _: None)

    async def switch(self) -> dict[str, object]:
        desk = self.desk()
        plan = desk.plan_switchover("node-a")
        assert plan["refusal"] == "", plan
        for name, signer in (("li.wei", LI), ("wang.fang", WANG)):
            desk.sign(approve(name, signer, str(plan["text"])))
        return await desk.run("node-a", str(plan["token"]), "its hall gets new power")

    # -- a client that registers one name after the other, and one that reads

    async def registers(self) -> None:
        number = 0
        while True:
            name = f"88.118/w{number}"
            by = await self._register(name)
            now = time.monotonic()
            if self._last is not None:
                self.pause_s = max(self.pause_s, now - self._last)
            self._last = now
            self.acknowledged[name] = by
            number += 1

    async def _register(self, name: str) -> str:
        """The same write, until somebody acknowledges it."""
        while True:
            try:
                await asyncio.to_thread(self._at_the_registry, name)
                return "registry"
            except ZaibeiError:
                pass
            verdict = await self.clerk.change(put(name, "https://here.cn/"), ABSENT)
            if verdict.trouble is None:
                return "here"
            if verdict.trouble.code is Code.CONFLICT:
                return "registry"  # it was stored there, and not acknowledged any more: it came over, and the client is told now
            await asyncio.sleep(0.002)

    def _at_the_registry(self, name: str) -> None:
        self.guard.check()
        self.publisher.put(name, {"URL": "https://registry.cn/"})
        self.publisher.commit()
        with self.guard.acknowledging():
            pass

    async def resolves(self) -> None:
        while True:
            mine = [name for name, by in list(self.acknowledged.items())[-3:] if by == "here"]  # what we acknowledged is found
            for name in [HELD[self.reads % len(HELD)], *mine]:
                values, view = self.copy.answers.read([key(name)])
                self.reads += 1
                if row_of(view).found != FOUND or not values[0]:
                    self.failed.append(f"{name}: {view}")
            await asyncio.sleep(0.001)

    def count(self, by: str) -> int:
        return sum(one == by for one in self.acknowledged.values())


def config(folder: Path, me: Identity, world: World) -> SourceConfig:
    host, port = world.member.feed_addresses[0]
    member = {"name": "member-1", "certificate": me.certificate_pem.decode(), "push": f"{host}:{port}"}
    source = {"name": "node-a", "prefixes": ["88.118"], "data": "data", "beat_ms": 100, "fence": "write-path"}
    return read_config({"source": source, "member": [member]}, "test", folder)


@asynccontextmanager
async def rigged(tmp_path: Path, on_drain: Callable[[], None] = lambda: None) -> AsyncIterator[Rig]:
    me, folder = ensure_identity(tmp_path / "identity", "member-1"), tmp_path / "node"
    folder.mkdir()
    node = ensure_identity(folder / "data" / "identity", "node-a")
    source = SourceSettings(Peer("node-a", node.certificate_pem, (prefix_key("88.118"),)), ("88.118",))
    async with running(settings_of(tmp_path, me, [source])) as world:
        publisher = await asyncio.to_thread(Publisher, config(folder, me, world))
        try:
            for name in HELD:
                publisher.put(name, {"URL": "https://registry.cn/"})
            await asyncio.to_thread(publisher.commit)
            guard = await asyncio.to_thread(lambda: publisher.guard(TIMES, on_drain=on_drain))
            rig = Rig(world, publisher, guard)
            state = rig.copy.store.state
            await until(lambda: guard.valid and state().ready and state().position == publisher.head and state().verified)
            yield rig
        finally:
            await asyncio.to_thread(publisher.close)


@asynccontextmanager
async def clients(rig: Rig) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(rig.registers()), asyncio.ensure_future(rig.resolves())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


async def test_nothing_fails_nothing_is_lost_and_the_failback_leads_back(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        copy, before = rig.copy, rig.publisher.head
        async with clients(rig):
            await until(lambda: rig.count("registry") >= WRITES_EACH)
            done = await rig.switch()
            assert (done["stage"], done["switchover"]) == ("SERVING", True)
            assert isinstance(done["write_pause_ms"], int)
            await until(lambda: rig.count("here") >= WRITES_EACH)
        print(f"write pause: {rig.pause_s * 1_000:.0f} ms at a client, {done['write_pause_ms']} ms told; {rig.reads} reads")
        assert rig.failed == [] and rig.reads > 0
        names = [f"88.118/w{number}" for number in range(len(rig.acknowledged) + 1)]  # the last one was under way
        values, position = copy.store.get_many([key(name) for name in names])
        made = [name for name, value in zip(names, values, strict=True) if value]
        assert set(rig.acknowledged) <= set(made), "every acknowledged write is held"
        assert position.seq - before.seq == len(made), "and each is one change, not two"
        end = copy.store.state().ladder.closed_at
        assert end is not None and rig.publisher.head == end
        assert not rig.guard.valid
        # Back: it follows, is equal, and is handed the next epoch; its guard gets a lease for that one.
        following = asyncio.ensure_future(asyncio.to_thread(rig.publisher.follow, lambda _changes: None, (), 60.0))
        await run_failback(rig.world)
        await until(lambda: stage_of(copy) is Stage.NORMAL)
        assert await following == copy.store.state().granted
        assert lines_of(copy) == [], "it wrote nothing behind its end"
        await until(lambda: rig.guard.valid)
        await asyncio.to_thread(rig._at_the_registry, "88.118/after")
        await until(lambda: held(rig, "88.118/after"))


def held(rig: Rig, name: str) -> bool:
    return bool(rig.copy.store.get_many([key(name)])[0][0])


async def test_a_registry_that_cannot_end_its_writing_goes_on_and_nothing_happened(tmp_path: Path) -> None:
    def cannot() -> None:
        raise OSError("the outbox cannot be read")

    async with rigged(tmp_path, cannot) as rig:
        async with clients(rig):
            await until(lambda: rig.count("registry") >= WRITES_EACH)
            with pytest.raises(
                ZaibeiError, match=r"nothing happened, node-a goes on registering.*outbox cannot be read"
            ) as refused:
                await rig.switch()
            assert refused.value.code is Code.REFUSED
            so_far = rig.count("registry")
            await until(lambda: rig.count("registry") >= so_far + WRITES_EACH)
        assert (rig.count("here"), rig.failed) == (0, [])
        state = rig.copy.store.state()
        assert (state.ladder.stage, state.position.epoch) == (Stage.NORMAL, rig.publisher.head.epoch)


async def test_a_source_whose_words_do_not_come_is_given_up_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rigged(tmp_path) as rig:
        said = list[tuple[str, int]]()
        monkeypatch.setattr("replica.takeover.switchover.DRAIN_MS_MAX", 3_000)
        monkeypatch.setattr("replica.member.copy.TakeoverView.drain", lambda _view, act, epoch: said.append((act, epoch)))
        with pytest.raises(ZaibeiError, match="did not say that its writing ended within 3000 ms"):
            await rig.switch()
        assert len(said) > 1, "asked again and again"
        await until(lambda: rig.guard.valid)
        await asyncio.to_thread(rig._at_the_registry, "88.118/goes-on")
        await until(lambda: held(rig, "88.118/goes-on"))


async def test_whoever_has_no_guard_is_not_switched_over(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        await asyncio.to_thread(rig.guard.close)
        # The group believes in the lease until it ran out; the source itself says that nobody can end its writing.
        with pytest.raises(ZaibeiError, match="its guard is closed"):
            await rig.switch()
        assert rig.copy.store.state().ladder.stage is Stage.NORMAL
