"""Re-seeding a damaged source of a running member: aside, forgotten, loaded anew; the others and healthy stores untouched."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replica.member import reseed
from replica.member.copy import store_folder
from replica.member.edge_aside import put_aside
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState, OverlaySites
from replica.model.identifier import prefix_key
from replica.model.states import Authority
from replica.store.rules import RULES, Moment
from replica.store.state_row import Stored
from tests.integration.member_world import Node, World, delete, key, put, running, settings_of, until


@pytest.fixture
def me(tmp_path: Path) -> Identity:
    return ensure_identity(tmp_path / "identity", "member-1")


@asynccontextmanager
async def two_nodes(folder: Path, me: Identity) -> AsyncIterator[tuple[Node, Node]]:
    """Two sources; the first one's copy has a history: changes after its load, and an epoch."""
    a, b = Node(folder, "node-a", "88.118", me), Node(folder, "node-b", "88.119", me)
    await a.write(*[put(f"88.118/{number}") for number in range(500)])
    await b.write(put("88.119/1"))
    async with a.serving(), b.serving():
        async with running(settings_of(folder, me, [a.settings(), b.settings()])) as world:
            await world.equal(a)
            await world.equal(b)
            await a.write(put("88.118/later"), delete("88.118/3"))
            await world.equal(a)
        yield a, b


def damage(data: Path, source: str) -> None:
    """Bit flips in the middle of every sorted file of the source."""
    [files] = [[*store_folder(data, source).glob("gen-*/*.sst")]]
    assert files
    for path in files:
        octets = bytearray(path.read_bytes())
        octets[: len(octets) * 9 // 10] = bytes(octet ^ 0x5A for octet in octets[: len(octets) * 9 // 10])
        path.write_bytes(octets)


async def reseeded(world: World, node: Node) -> Path:
    """Plan, run, and wait until the copy equals its source again."""
    plan = await world.calls().reseed_plan(node.name)
    done = await world.calls().reseed_run(plan.token)
    assert (done.source, done.aside) == (node.name, plan.aside)
    await world.equal(node)
    assert node.name not in world.member.broken
    return Path(done.aside)


async def test_a_store_that_cannot_be_opened_is_loaded_anew(tmp_path: Path, me: Identity) -> None:
    async with two_nodes(tmp_path, me) as (a, b):
        settings = settings_of(tmp_path, me, [a.settings(), b.settings()])
        (store_folder(settings.data, "node-a") / "CURRENT").write_bytes(b"rubbish")
        async with running(settings) as world:
            assert set(world.member.broken) == {"node-a"}
            [warning] = (await world.calls().status()).warnings
            assert "Next: zaibei source reseed plan node-a" in warning
            epoch = a.log.head().epoch
            aside = await reseeded(world, a)
            assert (aside / "CURRENT").read_bytes() == b"rubbish", "kept, not deleted"
            assert a.log.head().epoch == epoch + 1, "a new epoch, granted anew"
            assert (await world.calls().status()).warnings == []
            [before], _ = world.copy("node-b").store.get_many([key("88.119/1")])
            assert before
            await a.write(put("88.118/after"))
            await world.equal(a)
        async with running(settings) as world:  # and it lasts
            await world.equal(a)
            assert world.member.broken == {} and world.member.warnings == {}


async def test_a_damage_found_at_run_time(tmp_path: Path, me: Identity) -> None:
    async with two_nodes(tmp_path, me) as (a, b):
        settings = settings_of(tmp_path, me, [a.settings(), b.settings()])
        damage(settings.data, "node-a")
        async with running(settings) as world:
            if "node-a" not in world.member.broken:  # a block nobody read yet
                wanted = {"node-a": [key(f"88.118/{number}") for number in range(500)]}
                assert "node-a" not in world.member.read(wanted)
            await until(lambda: "node-a" in world.member.broken)
            await reseeded(world, a)
            assert len(world.member.read({"node-a": [key("88.118/7")]})) == 1


async def test_a_lost_store_under_a_journal_that_needs_it(tmp_path: Path, me: Identity) -> None:
    """The journal dropped what the store had: the group refuses, with the command, and the command heals it."""
    async with two_nodes(tmp_path, me) as (a, b):
        settings = settings_of(tmp_path, me, [a.settings(), b.settings()])
        shutil.rmtree(store_folder(settings.data, "node-a"))
        async with running(settings) as world:
            assert "zaibei source reseed plan node-a" in str(world.member.broken["node-a"])
            await reseeded(world, a)


@pytest.mark.parametrize("after", ["take_out", "aside", "forget_log"])
async def test_a_crash_between_any_two_acts_takes_the_same_command_again(tmp_path: Path, me: Identity, after: str) -> None:
    async with two_nodes(tmp_path, me) as (a, b):
        settings = settings_of(tmp_path, me, [a.settings(), b.settings()])
        (store_folder(settings.data, "node-a") / "CURRENT").write_bytes(b"rubbish")
        async with running(settings) as world:
            plan = reseed.plan_of(world.member, "node-a")
            await world.member.take_out("node-a")
            if after in ("aside", "forget_log"):
                put_aside(plan.store, plan.aside)
            if after == "forget_log":
                await world.member.forget_log("node-a")
        async with running(settings) as world:  # as after a crash: everything stands where the act left it
            if after == "forget_log":
                await world.equal(a)
            else:
                assert "node-a" in world.member.broken
                await reseeded(world, a)
            await world.equal(b)


async def test_a_source_in_service_is_never_touched(tmp_path: Path, me: Identity) -> None:
    async with two_nodes(tmp_path, me) as (a, b):
        settings = settings_of(tmp_path, me, [a.settings(), b.settings()])
        async with running(settings) as world:
            calls = world.calls()
            for name, code in (("node-a", Code.REFUSED), ("nobody", Code.NOT_FOUND)):
                with pytest.raises(ZaibeiError) as caught:
                    await calls.reseed_plan(name)
                assert caught.value.code is code
            with pytest.raises(ZaibeiError) as caught:
                await calls.reseed_run("0123456789abcdef")
            assert caught.value.code is Code.REFUSED
            await world.equal(a)


async def test_a_plan_of_another_world_is_refused(tmp_path: Path, me: Identity) -> None:
    async with two_nodes(tmp_path, me) as (a, b):
        settings = settings_of(tmp_path, me, [a.settings(), b.settings()])
        (store_folder(settings.data, "node-a") / "CURRENT").write_bytes(b"rubbish")
        async with running(settings) as world:
            plan = await world.calls().reseed_plan("node-a")
            assert "copy unknown" in plan.text and "serials of publications begin anew" in plan.text
            await asyncio.to_thread(Path(plan.aside).mkdir, parents=True)  # somebody took that place
            with pytest.raises(ZaibeiError) as caught:
                await world.calls().reseed_run(plan.token)
            assert caught.value.code is Code.REFUSED
            await reseeded(world, a)
            with pytest.raises(ZaibeiError):
                await world.calls().reseed_run(plan.token)


def test_what_others_were_told_is_said_again() -> None:
    """Who answers, which sites, which serials are used up."""
    overlay = OverlaySites(prefix_key("88.118"), (b"\0\x01" + bytes(30),), 7, "act-1")
    old = GroupState("node-a", authority=Authority.RESOLUTION, authority_act="act-1", overlays=(overlay,), serial_highest=9)
    stored = Stored(GroupState("node-a"))
    for entry in reseed.carried(old):
        kind = entry.WhichOneof("body")
        assert kind is not None
        moment = Moment(1, stored.group.position, None, lambda *_: None)  # type: ignore[arg-type]
        step = RULES[kind](stored, getattr(entry, kind), moment)
        assert step.outcome.kind == "applied", step.outcome
        stored = step.stored
    new = stored.group
    assert (new.authority, new.authority_act, new.overlays, new.serial_highest) == (Authority.RESOLUTION, "act-1", (overlay,), 9)
    assert reseed.carried(None) == reseed.carried(GroupState("node-a")) == []
    warnings = reseed.ReseedPlan("a", "why", Path("x"), Path("y"), old).warnings()
    assert any("it is taken over (act-1)" in warning for warning in warnings)
