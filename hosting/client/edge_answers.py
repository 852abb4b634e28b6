"""What one node itself answers for some names: what is compared with what we hold, one by one or several together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Rc, Server
from replica.model.errors import ZaibeiError
from replica.model.handle.values import Content, content_of
from replica.model.node import Endpoint

ASK_S_MAX = 1.5  # for one name
TOGETHER_MAX = 8  # names asked at once
PROTOCOLS = ("udp", "tcp")


async def answered(client: HandleClient, name: str) -> Content | None:
    """What the node answers; None: it does not, or cannot say."""
    try:
        reply = (await client.resolve(name)).reply
    except ZaibeiError:
        return None
    if reply.code == Rc.SUCCESS:
        return content_of(reply.values)
    return frozenset() if reply.code in (Rc.NOT_FOUND, Rc.VALUES_NOT_FOUND) else None


async def answers(endpoints: Sequence[Endpoint], names: Sequence[str]) -> list[Content | None]:
    """Ask one server, at any of its endpoints, for each of these names; in their order."""
    servers = tuple(Server(one.protocol, one.address, one.port) for one in endpoints if one.protocol in PROTOCOLS)
    if not servers:
        return [None] * len(names)
    room = asyncio.Semaphore(TOGETHER_MAX)
    async with HandleClient(ClientConfig(servers, deadline_s=ASK_S_MAX)) as client:

        async def one(name: str) -> Content | None:
            async with room:
                return await answered(client, name)

        return list(await asyncio.gather(*map(one, names)))
