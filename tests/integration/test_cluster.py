"""Three whole members and a node over loopback: a group spreads, the feed follows its leader, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hosting.tenant.edge_clerk import Clerk
from replica.consensus.hello import Standing
from replica.feed.edge_pusher import Pusher
from replica.member.cluster_side import now_ms
from replica.member.settings import SourceSettings
from replica.model.identity import Peer
from replica.model.node import Endpoint
from replica.model.precondition import NOTHING
from replica.model.states import Freshness
from tests.integration.cluster_world import Cluster, cluster
from tests.integration.member_world import Node, key, put, until
from tests.unit.consensus.link_world import seconds_until


async def fed(three: Cluster, node: Node) -> None:
    """A cluster of three that copies a node."""
    three.sources = (node.settings(),)
    await three.start(1)
    await three.admit_all()
    await three.start(2, 3)
    await three.placed_everywhere(node.name)


def node_of(three: Cluster, folder: Path, answers_at: tuple[tuple[str, str, int], ...] = ()) -> Node:
    node = Node(folder, "node-a", "88.118", three.identities[1], answers_at)
    node.log.trust_granters([one.signer.public for one in three.identities.values()])
    return node


async def test_a_source_is_copied_to_three_members_and_outlives_the_leader(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        node = node_of(three, tmp_path)
        node.pins_more = tuple(Peer(one.name, one.certificate_pem, role="member") for one in three.identities.values())
        async with node.serving():
            await node.write(*(put(f"88.118/{number}") for number in range(500)))
            await fed(three, node)
            # A new leader grants a new epoch, which moves the head: all are compared at one moment.
            copies = [three.copy(n, "node-a").store for n in three.worlds]
            await until(lambda: {store.digest_at(node.log.head()) for store in copies} == {node.log.content.digest})
            await until(lambda: three.leader("node-a"))  # on a loaded machine it may just have changed
            leader = three.leader("node-a")
            await three.stop(leader)
            await node.write(put("88.118/after"))
            await until(lambda: all(three.copy(n, "node-a").store.state().position == node.log.head() for n in three.worlds))
            await three.start(leader)
            await until(lambda: "node-a" in three.worlds[leader].member.copies)
            await until(lambda: three.copy(leader, "node-a").store.state().position == node.log.head())
            await asyncio.sleep(0)


async def test_every_member_knows_where_the_node_answers(tmp_path: Path) -> None:
    """Two of them decide whether it is dead: each must be able to probe it, though one alone had its stream (SEMANTICS 6)."""
    async with cluster(tmp_path) as three:
        node = node_of(three, tmp_path, (("udp", "127.0.0.1", 9), ("tcp", "node.example", 9)))
        node.pins_more = tuple(Peer(one.name, one.certificate_pem, role="member") for one in three.identities.values())
        async with node.serving():
            await fed(three, node)
            where = (Endpoint("udp", "127.0.0.1", 9),)
            await until(lambda: all(three.copy(n, "node-a").endpoints() == where for n in three.worlds))
            await until(lambda: three.leader("node-a"))
            late = next(n for n in three.worlds if n != three.leader("node-a"))
            await three.stop(late)
            await three.start(late)
            await until(lambda: "node-a" in three.worlds[late].member.copies)
            await until(lambda: three.copy(late, "node-a").endpoints() == where)


async def test_a_pushing_node_is_heard_by_whoever_leads_within_seconds(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        node = node_of(three, tmp_path)
        await node.write(put("88.118/first"))
        three.sources = (node.settings(pull=()),)
        await three.start(1)
        await three.admit_all()
        await three.start(2, 3)
        pushers = []
        for number, identity in three.identities.items():
            host, port = three.worlds[number].member.feed_addresses[0]
            peer = Peer(identity.name, identity.certificate_pem, role="member")
            pushers.append(asyncio.create_task(Pusher(node.log, f"{host}:{port}", node.identity, peer).run()))
        try:
            await three.placed_everywhere(node.name)
            await until(lambda: all(three.copy(n, "node-a").store.state().position == node.log.head() for n in three.worlds))
            leader = three.leader("node-a")
            heir = next(number for number in three.worlds if number != leader)
            await three.life(leader).lead(three.copy(leader, "node-a").placed.ident, heir)
            await until(lambda: three.leader("node-a") == heir)
            await node.write(put("88.118/second"))
            took_s = await seconds_until(
                lambda: all(three.copy(n, "node-a").store.state().position == node.log.head() for n in three.worlds)
            )
            assert took_s < 5
        finally:
            for task in pushers:
                task.cancel()
            await asyncio.gather(*pushers, return_exceptions=True)
            node.log.close()


async def test_every_member_answers_fresh_and_says_so(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        node = node_of(three, tmp_path)
        node.pins_more = tuple(Peer(one.name, one.certificate_pem, role="member") for one in three.identities.values())
        async with node.serving():
            await node.write(put("88.118/x"))
            await fed(three, node)

            def fresh() -> bool:
                views = [three.copy(number, "node-a").answers.view() for number in three.worlds]
                return all(view.freshness is Freshness.FRESH and not view.leader_silent for view in views)

            await until(fresh)
            await asyncio.sleep(3.5)  # the group sleeps by then, and still it is known to be fresh
            assert fresh()
            values, view = three.copy(2, "node-a").answers.read([key("88.118/x")])
            assert values[0] is not None and view.ready


async def test_registrations_go_on_after_the_leader_is_gone(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        three.sources = (SourceSettings(None, ("88.300",), hosted="region"),)
        await three.start(1)
        await three.admit_all()
        await three.start(2, 3)
        await three.placed_everywhere("region")
        for turn in range(3):
            leader = three.leader("region")
            hosted = three.copy(leader, "region").hosted
            assert hosted is not None
            verdict = await Clerk(hosted, now_ms).change(put(f"88.300/{turn}"), NOTHING)
            assert verdict.trouble is None, verdict
            for number in three.worlds:
                await three.copy(number, "region").log.barrier(3)
                values, _ = three.copy(number, "region").store.get_many([key(f"88.300/{turn}")])
                assert values[0] is not None, f"member {number} does not see what was acknowledged"
            if turn < 2:
                await three.stop(leader)
                await until(lambda: three.leader("region"))
                await three.start(leader)
                await until(lambda: all("region" in world.member.copies for world in three.worlds.values()))


async def test_a_copy_is_fed_anew_by_one_call_and_votes_again(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        node = node_of(three, tmp_path)
        node.pins_more = tuple(Peer(one.name, one.certificate_pem, role="member") for one in three.identities.values())
        async with node.serving():
            await node.write(*(put(f"88.118/{number}") for number in range(200)))
            await fed(three, node)
            await until(lambda: all(three.copy(n, "node-a").store.state().position == node.log.head() for n in three.worlds))
            leader = three.leader("node-a")
            victim = next(number for number in three.worlds if number != leader)
            ident = three.copy(leader, "node-a").placed.ident
            await three.life(leader).reseed(ident, victim)
            await node.write(put("88.118/meanwhile"))
            await until(lambda: "node-a" in three.worlds[victim].member.copies)
            await until(lambda: three.copy(victim, "node-a").store.state().position == node.log.head())
            await until(lambda: victim in three.copy(leader, "node-a").log.membership.voters)
            await until(lambda: three.life(victim).side.host.standing(ident) is Standing.SOUND)
            assert three.copy(victim, "node-a").store.digest_at(node.log.head()) == node.log.content.digest


async def test_a_member_that_holds_no_copy_answers_by_asking_one_that_does(tmp_path: Path) -> None:
    async with cluster(tmp_path, ("a", "b", "c", "d", "e")) as five:
        node = node_of(five, tmp_path)
        node.pins_more = tuple(Peer(one.name, one.certificate_pem, role="member") for one in five.identities.values())
        async with node.serving():
            await node.write(put("88.118/x"))
            five.sources = (node.settings(),)
            await five.start(1)
            await five.admit_all()
            await five.start(2, 3, 4, 5)
            await until(lambda: sum("node-a" in world.member.copies for world in five.worlds.values()) >= 3)
            await until(lambda: five.leader("node-a"))
            await until(lambda: len(five.copy(five.leader("node-a"), "node-a").log.membership.voters) == 3)
            await until(lambda: five.copy(five.leader("node-a"), "node-a").store.state().position == node.log.head())
            await until(lambda: any("node-a" not in world.member.copies for world in five.worlds.values()))
            away = next(world.member for world in five.worlds.values() if "node-a" not in world.member.copies)
            assert away.life is not None
            await until(lambda: away.life.side.holders("node-a"))
            found = await away.read_anywhere({"node-a": [key("88.118/x"), key("88.118/none")]})
            values, view = found["node-a"]
            assert values[0] is not None and values[1] is None
            assert view.ready and view.freshness is Freshness.FRESH


async def test_who_comes_late_gets_the_control_groups_state_whole(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        await three.start(1)
        await three.admit_all()
        control = three.life(1).side.control
        await control.maintain()
        assert control.part is not None and control.part.floor > 0, "the entries they would need are gone"
        await three.start(2, 3)
        await until(lambda: all(three.life(n).side.control.membership.voters == {1, 2, 3} for n in three.worlds))
        await until(lambda: len({three.life(n).side.state.members for n in three.worlds}) == 1)
