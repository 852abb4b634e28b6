"""A node that lost its agent's state, over a whole member: an operator grants a new epoch, two people let its content in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from ops.cli.main import cli
from replica.member import regrant
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.position import NO_LINEAGE
from replica.model.states import FeedState
from replica.v1 import entry_pb2
from tests.integration.member_world import Node, key, put, running, settings_of, until
from tests.unit.ops.support import member, serving


@pytest.fixture
def me(tmp_path: Path) -> Identity:
    return ensure_identity(tmp_path / "identity", "member-1")


async def test_a_node_that_lost_its_state_comes_back_through_a_granted_epoch(tmp_path: Path, me: Identity) -> None:
    names = [f"88.118/{number}" for number in range(50)]
    first = Node(tmp_path, "node-a", "88.118", me)
    await first.write(*[put(name) for name in names])
    settings = settings_of(tmp_path, me, [first.settings()])
    async with first.serving(), running(settings_of(tmp_path, me, [first.settings()])) as world:
        await world.equal(first)
        with pytest.raises(ZaibeiError) as caught:
            regrant.plan_of(world.member, "node-a")
        assert caught.value.code is Code.REFUSED, "nothing is forked"
    (tmp_path / "node-a-state").rename(tmp_path / "lost")
    again = Node(tmp_path, "node-a", "88.118", me)
    await again.write(*[put(name, "https://after.cn/") for name in [*names[:45], "88.118/new"]])
    async with again.serving():
        settings = settings_of(tmp_path, me, [again.settings()])
        async with running(settings) as world:
            copy, calls = world.copy("node-a"), world.calls()
            await until(lambda: copy.store.state().feed in (FeedState.FORKED, FeedState.FENCED) and copy.driver.stated_head)
            plan = await calls.grant_plan("node-a")
            assert "50 records" in plan["text"] and f"lineage {NO_LINEAGE.hex()} epoch 0" in plan["text"]
            with pytest.raises(ZaibeiError) as caught:
                await calls.grant_run("node-a", "0" * 16, "")
            assert (caught.value.code, copy.store.state().granted and copy.store.state().granted.epoch) == (Code.REFUSED, 1)
            await again.write(put("88.118/meanwhile"))  # its head moves under the plan
            await calls.grant_run("node-a", plan["token"], "disk replaced")
            await until(lambda: copy.store.state().hold is not None)
            values, _ = copy.store.get_many([key(names[0]), key("88.118/new")])
            assert values[0] and b"example.cn" in values[0] and values[1] is None, "the live copy is as it was"
            hold = copy.store.state().hold
            assert hold is not None and hold.side, "the loaded content waits for two people"
            decision = entry_pb2.HoldDecision(hold=hold.ident, release=True)
            decision.approvals.extend(entry_pb2.Approval(operator=name) for name in ("an", "bo"))
            await copy.group.propose(entry_pb2.Entry(format=1, decision=decision)).applied
            await world.equal(again)
            await again.write(put("88.118/later"))
            await world.equal(again)


async def test_a_source_that_is_not_connected_is_not_granted_anything(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    await node.write(put("88.118/1"))
    async with node.serving():
        async with running(settings_of(tmp_path, me, [node.settings()])) as world:
            await world.equal(node)
        settings = settings_of(tmp_path, me, [node.settings(pull=())])
    async with running(settings) as world:
        mark = entry_pb2.FeedMark(state=entry_pb2.FeedMark.STATE_FORKED, code="forked", reason="planted")
        await world.copy("node-a").group.propose(entry_pb2.Entry(format=1, mark=mark)).applied
        with pytest.raises(ZaibeiError) as caught:
            regrant.plan_of(world.member, "node-a")
        assert caught.value.code is Code.UNREACHABLE
        with pytest.raises(ZaibeiError, match="there are: node-a"):
            regrant.plan_of(world.member, "nobody")


def test_the_commands(tmp_path: Path) -> None:
    twin = member({})
    place = f"{bytes(16).hex()}:{1:016x}:{5:016x}:{bytes(32).hex()}"
    twin.grants["node-a"] = {"source": "node-a", "token": "0123456789abcdef", "text": "x\n", "ours": place, "theirs": place}

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["source", "grant", *words, "--data", str(tmp_path)])
        return result.exit_code, result.output

    with serving(twin, tmp_path / "admin.sock"):
        code, told = run("plan", "node-a")
        assert code == 0 and "Next: zaibei source grant run node-a --plan 0123456789abcdef" in told
        code, told = run("run", "node-a", "--plan", "0123456789abcdef", "--reason", "r", "--json")
        assert code == 0 and json.loads(told)["done"]["reason"] == "r"
        assert run("run", "node-a", "--plan", "ffff")[0] == 4
        assert run("plan", "node-b")[0] == 4
    assert run("plan", "node-a")[0] == 8


@pytest.mark.parametrize(("feed", "told"), [("FORKED", True), ("FENCED", True), ("FLOWING", False), ("GAP", False)])
def test_status_names_the_command(tmp_path: Path, feed: str, told: bool) -> None:
    twin = member({})
    twin.state.sources[1] = replace(twin.state.sources[1], feed=feed)
    with serving(twin, tmp_path / "admin.sock"):
        shown = CliRunner().invoke(cli, ["status", "--data", str(tmp_path)]).output
    assert ("zaibei source grant plan node-b" in shown) is told
