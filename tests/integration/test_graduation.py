"""A region that lives here leaves for its own node while clients register and resolve: nothing lost, invented or unanswered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import HOSTED, GroupState
from replica.model.ladder import Ladder, Stage
from replica.model.states import Authority, FeedState
from replica.takeover.failback import Failback, Step, Wish, World
from tests.integration.graduation_world import NAME, PREFIX, Clients, Leaving, leaving
from tests.integration.member_world import key, put, until

SOME = 30
REACHED = Stage.RETURN_REQUESTED, Stage.CATCHING_UP, Stage.FROZEN, Stage.SOURCE_EQUAL


def stage_of(here: Leaving) -> Stage:
    return here.copy.store.state().ladder.stage


async def registered(clients: Clients, more: int) -> None:
    wanted = len(clients.registered) + more
    await until(lambda: len(clients.registered) >= wanted)


def as_it_was(state: GroupState) -> GroupState:
    """Without what registrations change, and what only counts."""
    counted = GroupState("x")
    ladder = Ladder(stage=state.ladder.stage, act=state.ladder.act, closed_at=state.ladder.closed_at)
    position = state.granted or state.position
    return replace(state, index=0, position=position, records=0, brake=counted.brake, ladder=ladder, ledger=None)


async def test_a_region_leaves_for_its_node_while_clients_work(tmp_path: Path) -> None:
    async with leaving(tmp_path) as here:
        async with here.clients() as clients:
            await registered(clients, SOME)
            async with here.following():
                await here.order()
                await until(lambda: stage_of(here) is Stage.NORMAL and not here.copy.store.state().lives_here)
            await until(lambda: clients.sent_on)
            await here.node.write(put(f"{PREFIX}/at-the-node"))
            await here.world.equal(here.node)
            seen = clients.lookups
            await until(lambda: clients.lookups >= seen + SOME)
        state = here.copy.store.state()
        assert clients.failed == [] and clients.lookups >= len(clients.registered) >= SOME
        held = here.node.log.content.values_of(list(clients.registered))
        assert held == clients.registered, "what was acknowledged here is at the node, octet for octet"
        assert state.records == here.node.log.content.digest.records == len(clients.registered) + 1, "and nothing else"
        assert (state.authority, state.feed, state.granted and state.granted.epoch) == (Authority.SOURCE, FeedState.FLOWING, 2)
        [row] = await here.world.calls().failback_status(NAME)
        assert (row["lives_here"], row["shown"]) == (False, "the source registers")
        with pytest.raises(ZaibeiError) as refused:
            await here.world.calls().failback_run(NAME, "return", "hold-for-person", {}, "0" * 16, "")
        assert refused.value.code is Code.REFUSED


@pytest.mark.parametrize("at", REACHED, ids=lambda stage: stage.name.lower())
async def test_given_up_at_any_step_it_is_as_it_was(tmp_path: Path, at: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async with leaving(tmp_path) as here, here.clients() as clients:
        await registered(clients, SOME)
        before = as_it_was(here.copy.store.state())
        failback = here.copy.failback.failback
        stand_still(at, monkeypatch)
        async with here.following():
            await here.order()
            await until(lambda: stage_of(here) is at)
            await here.order("abort")
            monkeypatch.undo()
            await until(lambda: stage_of(here) is Stage.NORMAL and failback.order is None)
        assert as_it_was(here.copy.store.state()) == before and before.lives_here
        await registered(clients, SOME)
        async with here.following():  # and it may leave another day
            await here.order()
            await until(lambda: stage_of(here) is Stage.NORMAL and not here.copy.store.state().lives_here)
        assert clients.failed == []


def stand_still(at: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decide nothing at one stage but an abort."""
    decides = Failback.step

    def step(failback: Failback, world: World) -> tuple[Step, ...]:
        stands = world.state.ladder.stage is at and failback.order is not None and failback.order.wish is Wish.RETURN
        return () if stands else decides(failback, world)

    monkeypatch.setattr(Failback, "step", step)


async def test_nothing_a_node_writes_counts_while_the_region_lives_here(tmp_path: Path) -> None:
    async with leaving(tmp_path) as here, here.clients() as clients:
        await here.node.write(put(f"{PREFIX}/of-its-own"))
        await until(lambda: here.copy.driver.stated_head is not None)
        await registered(clients, SOME)
        state = here.copy.store.state()
        assert state.lives_here and state.granted and state.granted.epoch == 1
        assert here.copy.store.get_many([key(f"{PREFIX}/of-its-own")])[0] == [None]
        await here.order()
        await until(lambda: "node_not_empty" in here.copy.failback.alarms or "failback_waits" in here.copy.failback.alarms)
        async with here.following():
            await until(lambda: "node_not_empty" in here.copy.failback.alarms)
            assert stage_of(here) is Stage.RETURN_REQUESTED, "its own writes would be lost, or overwrite ours"
        await here.order("abort")
        await until(lambda: stage_of(here) is Stage.NORMAL)
        assert here.copy.store.state().authority_act == HOSTED
