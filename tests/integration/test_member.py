"""The rooms joined: what only the composition of a whole member can get wrong."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ops.metrics.names import faults_of_names
from replica.feed.edge_pusher import Pusher
from replica.feed.edge_tls import open_channel
from replica.member.copy import SourceCopy, store_folder
from replica.member.edge_feed_port import PUSHES, READS
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, InvariantBroken
from replica.model.identity import Peer
from tests.integration.member_world import WAIT_S, Node, World, key, put, running, settings_of, until


@pytest.fixture
def me(tmp_path: Path) -> Identity:
    return ensure_identity(tmp_path / "identity", "member-1")


async def test_records_outside_a_sources_rights_are_quarantined_in_a_snapshot_too(tmp_path: Path, me: Identity) -> None:
    """SEMANTICS 2.4: they count in the digest, which equals the source's, and are never answered."""
    node = Node(tmp_path, "node-a", "88.118", me)
    strange = [f"88.999/{number}" for number in range(40)]
    await node.write(*[put(f"88.118/{number}") for number in range(200)], *[put(name) for name in strange])
    async with node.serving(), running(settings_of(tmp_path, me, [node.settings()])) as world:
        await world.equal(node)
        store = world.copy("node-a").store
        assert (store.state().records, store.state().quarantined) == (240, 40)
        values, _ = store.get_many([key(name) for name in strange])
        assert values == [b""] * 40
        good, _ = store.get_many([key("88.118/7")])
        assert good[0]
        await node.write(put("88.999/late"))
        await world.equal(node)
        assert store.state().quarantined == 41


async def test_both_families_of_a_source_are_one_stream(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    await node.write(put("88.118/1"))
    async with node.serving(), running(settings_of(tmp_path, me, [node.settings()])) as world:
        await world.equal(node)
        for number in range(5):
            await node.write(put(f"88.118/again-{number}"))
            await world.equal(node)
        assert world.registry.get_sample_value("zaibei_feed_streams_total", {"source": "node-a"}) == 1


async def test_a_source_that_is_fetched_may_not_push_as_well(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    await node.write(put("88.118/1"))
    async with node.serving(), running(settings_of(tmp_path, me, [node.settings()])) as world:
        await world.equal(node)
        port = world.member.feed_addresses[0][1]
        pusher = Pusher(node.log, f"127.0.0.1:{port}", node.identity, Peer(me.name, me.certificate_pem, role="member"))
        for _ in range(20):  # once more where our own end of the call was over before it had heard why
            trouble = await pusher._once()
            if trouble is None or trouble.code is not Code.UNREACHABLE:
                break
        assert trouble is not None and trouble.code is Code.CONFLICT
        assert "take `pull` out of its [[source]] block" in trouble.message
        await node.write(put("88.118/2"))
        await world.equal(node)


async def test_the_feeds_port_says_what_each_service_can_do(tmp_path: Path, me: Identity) -> None:
    """Nothing is taken in while the only source is out of service; after its re-seed it is."""
    node = Node(tmp_path, "node-a", "88.118", me)
    await node.write(put("88.118/1"))
    mine = Peer(me.name, me.certificate_pem, role="member")

    async def health(world: World, service: str, host: str) -> int:
        place = [name for name, _ in world.member.feed_addresses].index(host)
        port = world.member.feed_addresses[place][1]
        async with open_channel(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", node.identity, mine) as channel:
            stub: health_pb2_grpc.HealthAsyncStub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        return int(answer.status)

    async with node.serving():
        settings = settings_of(tmp_path, me, [node.settings()])
        async with running(settings) as world:
            await world.equal(node)
            for host in ("127.0.0.1", "::1"):
                assert [await health(world, name, host) for name in ("", PUSHES, READS)] == [1, 1, 1]
        (store_folder(settings.data, "node-a") / "CURRENT").write_bytes(b"rubbish")
        async with running(settings) as world:
            assert [await health(world, name, "::1") for name in ("", PUSHES, READS)] == [2, 2, 2]
            plan = await world.calls().reseed_plan("node-a")
            await world.calls().reseed_run(plan.token)
            async with asyncio.timeout(20):
                while await health(world, PUSHES, "::1") != 1:  # noqa: ASYNC110 - asked over the wire
                    await asyncio.sleep(0.05)


async def test_every_metric_of_a_member_keeps_the_rule_of_names(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    await node.write(put("88.118/1"))
    async with node.serving(), running(settings_of(tmp_path, me, [node.settings()])) as world:
        await world.equal(node)
        world.copy("node-a").driver.observe()
        await until(lambda: (world.registry.get_sample_value("zaibei_feed_age_seconds", {"source": "node-a"}) or -1) >= 0)
        assert faults_of_names(world.registry) == []


async def test_a_broken_invariant_of_any_callback_stops_the_member_and_nothing_else_does(tmp_path: Path, me: Identity) -> None:
    loop = asyncio.get_running_loop()
    heard: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: heard.append(context))
    broken = InvariantBroken("a load cannot move from IDLE to SWITCHING")

    def raises(exc: BaseException) -> None:
        raise exc

    async with running(settings_of(tmp_path, me, [])) as world:
        loop.call_soon(raises, ValueError("some fault"))
        await until(lambda: heard)
        assert world.failures == []
        loop.call_soon(raises, broken)
        await until(lambda: world.failures)
        assert world.failures == [broken]
        behind = ExceptionGroup("two tasks", [ValueError("x"), RuntimeError("y")])
        behind.exceptions[1].__cause__ = broken
        loop.call_exception_handler({"message": "a task ended", "exception": behind})
        assert world.failures == [broken, broken]
    loop.call_exception_handler({"message": "after the end", "exception": broken})
    assert len(world.failures) == 2 and len(heard) == 2
    loop.set_exception_handler(None)


async def test_a_lost_journal_is_an_alarm_and_not_swallowed(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    await node.write(put("88.118/1"))
    async with node.serving():
        settings = settings_of(tmp_path, me, [node.settings()])
        async with running(settings) as world:
            await world.equal(node)
            assert world.member.warnings == {}
        shutil.rmtree(settings.data / "journal")
        async with running(settings) as world:
            await world.equal(node)
            assert "the journal holds nothing of the group" in world.member.warnings["node-a"]
            assert (await world.calls().status()).warnings == [world.member.warnings["node-a"]]


@pytest.mark.parametrize("within", ["stop", "open", "start"])
async def test_a_source_whose_operator_is_gone_half_way_comes_back_into_service(
    tmp_path: Path, me: Identity, monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    """A call over its time limit is cancelled: a store that is open for nobody could not be opened again in this process."""
    node = Node(tmp_path, "node-a", "88.118", me)
    await node.write(put("88.118/1"))
    began, goes_on, real = threading.Event(), threading.Event(), getattr(SourceCopy, within)

    def first() -> bool:
        return not began.is_set() and not began.set()

    def blocks(*words: Any) -> Any:
        assert not first() or goes_on.wait(WAIT_S)
        return real(*words)

    async def waits(*words: Any) -> Any:
        assert not first() or await asyncio.to_thread(goes_on.wait, WAIT_S)
        return await real(*words)

    async with node.serving(), running(settings_of(tmp_path, me, [node.settings()])) as world:
        await world.equal(node)
        held: Any = waits if within in ("stop", "start") else staticmethod(blocks) if within == "open" else blocks
        monkeypatch.setattr(SourceCopy, within, held)

        async def anew() -> None:
            await world.member.close_source("node-a", forget=False)
            await world.member.open_source("node-a")

        changing = asyncio.ensure_future(anew())
        assert await asyncio.to_thread(began.wait, WAIT_S)
        changing.cancel()
        await asyncio.sleep(0.1)
        goes_on.set()
        await asyncio.wait({changing})
        assert changing.cancelled()
        copies, broken = world.member.copies, world.member.broken
        await until(lambda: "node-a" not in broken and "node-a" in copies and copies["node-a"].led.is_set())
        await node.write(put("88.118/after"))
        await world.equal(node)
