"""Three whole members and a node over loopback: a group spreads, the feed follows its leader, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from replica.model.identity import Peer
from tests.integration.cluster_world import Cluster, cluster
from tests.integration.member_world import Node, put, until


async def fed(three: Cluster, node: Node) -> None:
    """A cluster of three that copies a node."""
    three.sources = (node.settings(),)
    await three.start(1)
    await three.admit_all()
    await three.start(2, 3)
    await three.placed_everywhere(node.name)


def node_of(three: Cluster, folder: Path) -> Node:
    node = Node(folder, "node-a", "88.118", three.identities[1])
    node.log.trust_granters([one.signer.public for one in three.identities.values()])
    return node


async def test_a_source_is_copied_to_three_members_and_outlives_the_leader(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        node = node_of(three, tmp_path)
        node.pins_more = tuple(Peer(one.name, one.certificate_pem, role="member") for one in three.identities.values())
        async with node.serving():
            await node.write(*(put(f"88.118/{number}") for number in range(500)))
            await fed(three, node)
            head = node.log.head()
            await until(lambda: all(three.copy(n, "node-a").store.state().position == head for n in three.worlds))
            content = node.log.content.digest
            assert {three.copy(n, "node-a").store.digest_at(head) for n in three.worlds} == {content}
            leader = three.leader("node-a")
            await three.stop(leader)
            await node.write(put("88.118/after"))
            await until(lambda: all(three.copy(n, "node-a").store.state().position == node.log.head() for n in three.worlds))
            await three.start(leader)
            await until(lambda: "node-a" in three.worlds[leader].member.copies)
            await until(lambda: three.copy(leader, "node-a").store.state().position == node.log.head())
            await asyncio.sleep(0)
