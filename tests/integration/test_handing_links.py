"""Operators' commands over the members' real links: any member hands them to the leader, before and after it changes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ops.admin.handing import Handing
from ops.calls import CopyHolds
from ops.cluster.edge_others import OtherMembers
from ops.operators.approval import approve
from ops.operators.blocks import BlockDesk, Wish
from ops.operators.book import Book
from replica.member.cluster_side import now_ms
from replica.member.settings import SourceSettings
from replica.model.errors import ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.signing import Signer
from tests.integration.cluster_world import Cluster, cluster
from tests.integration.member_world import until

REGION, PREFIX = "region", "88.118"
ROW = {"source": REGION}
WAIT_S = 60.0
LI = Signer(Ed25519PrivateKey.generate())


def handing_of(three: Cluster, number: int) -> Handing:
    """The member's commands: each answers who carried it out."""

    async def serve(name: str, params: dict[str, Any]) -> Any:
        return [{"source": REGION, "by": number}] if name == "takeover_status" else {"by": number}

    handing = Handing(OtherMembers(three.life(number), f"m{number}"), serve)
    three.life(number).operator = handing.handed
    return handing


async def test_a_command_reaches_the_leader_from_every_member_and_a_block_is_committed_there(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        three.sources = (SourceSettings(None, (PREFIX,), hosted=REGION),)
        await three.start(1)
        await three.admit_all()
        await three.start(2, 3)
        await three.placed_everywhere(REGION)
        handings = {number: handing_of(three, number) for number in three.worlds}

        await all_say_the_leader(three, handings)
        follower = next(number for number in three.worlds if number != three.leader(REGION))
        await blocked(three, follower)
        await three.stop(three.leader(REGION))
        await all_say_the_leader(three, handings)


async def all_say_the_leader(three: Cluster, handings: dict[int, Handing]) -> None:
    """From every member: rows and acts come from whoever leads. An election may be under way, so it is looked at again."""
    async with asyncio.timeout(WAIT_S):
        while True:
            leader, said = three.leader(REGION), list[Any]()
            with suppress(ZaibeiError):
                for number in three.worlds:
                    said += await handings[number].call("takeover_status", {"source": ""})
                    said.append(await handings[number].call("takeover_plan", {"source": REGION, "action": "takeover"}) | ROW)
            if leader and said == [ROW | {"by": leader}] * (2 * len(three.worlds)):
                return
            await asyncio.sleep(0.05)


async def blocked(three: Cluster, number: int) -> None:
    """An order is run at a member that does not lead, and holds at all of them."""
    groups = {REGION: CopyHolds(three.copy(number, REGION), three.life(number))}
    desk = BlockDesk(
        lambda: groups, lambda: {REGION: (prefix_key(PREFIX),)}, {"li.wei": LI.public}, Book(), lambda _: None, now_ms
    )
    plan = desk.plan(Wish((f"{PREFIX}/bad",), number=17, until_ms=now_ms() + 3_600_000, reason="decision 17"))
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                done = await desk.run(approve("li.wei", LI, plan["text"]))
                break
            except ZaibeiError as exc:  # the leader may just have changed
                assert exc.trouble.retry, exc
                await asyncio.sleep(0.05)
    assert (done["order"], done["sources"]) == ("li.wei/17", [REGION])
    await until(lambda: all(len(three.copy(one, REGION).store.state().blocks) == 1 for one in three.worlds))
