"""Members of a cluster when two things happen at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from replica.model.errors import Code, ZaibeiError
from tests.integration.cluster_world import cluster
from tests.integration.member_world import until
from tests.integration.test_cluster import node_of


async def test_a_stream_that_waits_for_its_turn_ends_when_its_source_is_taken_out(tmp_path: Path) -> None:
    """It would wait for the copy of before for ever, while the new one leads."""
    async with cluster(tmp_path) as three:
        node = node_of(three, tmp_path)
        three.sources = (node.settings(pull=()),)
        await three.start(1)
        await three.admit_all()
        await three.start(2, 3)
        await three.placed_everywhere(node.name)
        other = next(number for number in three.worlds if number != three.leader(node.name))
        member = three.worlds[other].member
        turn = asyncio.create_task(three.copy(other, node.name).turn())
        await asyncio.sleep(0.05)
        assert not turn.done()
        await member.close_source(node.name, forget=False)
        async with asyncio.timeout(30):
            with pytest.raises(ZaibeiError) as caught:
                await turn
        assert (caught.value.code, caught.value.trouble.retry) == (Code.UNREACHABLE, True)
        await until(lambda: node.name in member.copies)
