"""A source that is enrolled while a cluster runs gets its group, on every member that has its block."""

from __future__ import annotations

from pathlib import Path

import pytest

from replica.model.errors import Code, ZaibeiError
from tests.integration.cluster_world import Cluster, cluster
from tests.integration.member_world import Node, put, until


async def started(three: Cluster) -> None:
    await three.start(1)
    await three.admit_all()
    await three.start(2, 3)


async def test_a_source_comes_in_while_three_members_run(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        await started(three)
        node = Node(tmp_path, "node-a", "88.118", three.identities[1])
        await node.write(put("88.118/first"))
        for world in three.worlds.values():  # the block in sources.d of each
            await world.member.add_source(node.settings(pull=()))
        await three.placed_everywhere("node-a")
        await until(lambda: all("node-a" in world.member.copies for world in three.worlds.values()))
        with pytest.raises(ZaibeiError) as caught:
            await three.worlds[1].member.add_source(Node(tmp_path, "node-b", "88.118", three.identities[1]).settings(pull=()))
        assert caught.value.code is Code.CONFLICT
        await three.worlds[1].member.add_source(node.settings(pull=()))  # the same once more
        node.log.close()
