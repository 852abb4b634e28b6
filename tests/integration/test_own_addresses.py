"""Our published addresses as other members see them, over the members' own links."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from replica.member.outside import SITE_OCTETS_MAX, OutsideLooks, answer_of_site
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.types import Interface, InterfaceUse, Protocol, encode_site, site_of
from tests.faults import edge_answering
from tests.integration.cluster_world import cluster, free_port

LIVING, DEAD = "127.0.0.1", "127.0.0.9"


async def test_other_members_say_which_of_our_addresses_answer(tmp_path: Path) -> None:
    port = free_port()
    site = encode_site(site_of((LIVING, DEAD), (Interface(InterfaceUse.QUERY, Protocol.TCP, port),), serial=1))
    async with cluster(tmp_path, ("a", "b")) as made:
        await made.start(1)
        await made.admit_all()
        looks = OutsideLooks(made.life(1).side)
        assert await looks(site) == {}, "a member that cannot be asked says nothing of our addresses"
        await made.start(2)
        server = await edge_answering.serve([LIVING], port, "88.118.1")
        async with asyncio.timeout(30):
            while not (seen := await looks(site)):  # noqa: ASYNC110 - its links come up when they do
                await asyncio.sleep(0.1)
        assert seen == {"m2": {LIVING: True, DEAD: False}}
        server.close()
        assert await looks(site) == {"m2": {LIVING: False, DEAD: False}}


async def test_what_is_no_site_of_anybody_is_not_looked_at() -> None:
    assert (await answer_of_site(b"no site")).octets == b"{}"
    with pytest.raises(ZaibeiError) as caught:
        await answer_of_site(bytes(SITE_OCTETS_MAX + 1))
    assert caught.value.code is Code.MALFORMED
