"""A living node at a whole member: its registrations are taken over and made here, and its old epoch is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hosting.tenant.edge_clerk import Clerk
from ops.operators.approval import approve
from ops.operators.book import Book
from ops.operators.takeovers import TakeoverDesk
from replica.model.batch import OP_PUT, Change
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.ladder import Stage
from replica.model.precondition import ABSENT
from replica.model.signing import Signer
from replica.model.states import Authority, FeedState
from tests.integration.member_world import Node, World, key, put, running, settings_of, until
from tests.unit.takeover.test_machine import OWN

LI, WANG = (Signer(Ed25519PrivateKey.generate()) for _ in range(2))


@pytest.fixture
def me(tmp_path: Path) -> Identity:
    return ensure_identity(tmp_path / "identity", "member-1")


def desk_of(world: World) -> TakeoverDesk:
    runners = {name: copy.runner for name, copy in world.member.copies.items()}
    return TakeoverDesk(lambda: runners, {"li.wei": LI.public, "wang.fang": WANG.public}, Book(), lambda _: None)


async def take_over(world: World, source: str) -> None:
    """As two operators do."""
    desk = desk_of(world)
    plan = desk.plan(source, 0, False, False)
    for name, signer in (("li.wei", LI), ("wang.fang", WANG)):
        desk.sign(approve(name, signer, str(plan["text"])))
    await desk.run(source, str(plan["token"]), "its hall burnt down")
    await until(lambda: world.copy(source).store.state().ladder.stage is Stage.SERVING)


async def test_registrations_are_taken_over_made_here_and_survive_a_restart(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    await node.write(*[put(f"88.118/{number}") for number in range(50)])
    async with node.serving():
        settings = replace(settings_of(tmp_path, me, [node.settings(operable=True)]), own_site=OWN)
        async with running(settings) as world:
            await world.equal(node)
            hosted = world.member.hosted("node-a")
            assert hosted is not None
            early = await Clerk(hosted, lambda: 1).change(put("88.118/new"), ABSENT)
            assert early.trouble is not None and early.trouble.code is Code.REFUSED
            head = node.log.head()
            await take_over(world, "node-a")
            state = world.copy("node-a").store.state()
            assert (state.authority, state.feed, state.position.epoch) == (
                Authority.REGISTRATION,
                FeedState.FENCED,
                head.epoch + 1,
            )
            assert state.position.seq == head.seq
            made = await Clerk(hosted, lambda: 1).change(put("88.118/new"), ABSENT)
            assert made.trouble is None
            # The node is alive and writes on in its old epoch: nothing of it gets in.
            await node.write(put("88.118/late"))
            await asyncio.sleep(0.5)
            values, position = world.copy("node-a").store.get_many([key("88.118/new"), key("88.118/late"), key("88.118/7")])
            assert values[0] and values[1] is None and values[2]
            assert position.epoch == head.epoch + 1
        async with running(settings) as world:
            state = world.copy("node-a").store.state()
            assert (state.ladder.stage, state.authority) == (Stage.SERVING, Authority.REGISTRATION)
            again = world.member.hosted("node-a")
            assert again is not None
            twice = await Clerk(again, lambda: 1).change(Change(OP_PUT, key("88.118/new"), put("88.118/new").value), ABSENT)
            assert twice.trouble is not None and twice.trouble.code is Code.CONFLICT


async def test_a_source_that_nobody_may_take_over(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    await node.write(put("88.118/1"))
    async with node.serving(), running(settings_of(tmp_path, me, [node.settings()])) as world:
        await world.equal(node)
        with pytest.raises(ZaibeiError, match="may not be taken over here"):
            desk_of(world).plan("node-a", 0, False, False)
