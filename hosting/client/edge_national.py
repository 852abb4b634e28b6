"""The walk of the national SDKs, as crude as it is deployed, so that drills measure what its users see.

One resolution of the bare prefix at the recursive node for type HS_SITE; then the first value's first TCP interface; no second
site, no cache of its own, no fall-over; connections are kept and carry many requests.
"""

from __future__ import annotations

import asyncio
import time

from hosting.client.edge_resolver import ClientConfig, HandleClient, prefix_of
from hosting.client.lookup import Lookup, Question, Server
from hosting.client.sites import first_tcp
from replica.model.errors import Code, ZaibeiError

NATIONAL_PORT = 3641  # of the public recursive nodes


class NationalClient:
    """Asks as the national SDK does.

    Args:
        recursive: the one recursive node it knows, over TCP.
        deadline_s: of a whole lookup.
    """

    def __init__(self, recursive: Server, deadline_s: float = 3.0) -> None:
        self._recursive, self._deadline_s = recursive, deadline_s
        self._client = HandleClient(ClientConfig((recursive,), protocols=("tcp",), deadline_s=deadline_s))

    async def __aenter__(self) -> NationalClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.close()

    async def resolve(self, name: str) -> Lookup:
        """Two exchanges. Raises ZaibeiError(UNREACHABLE, NOT_FOUND): whatever fails, fails the lookup."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._deadline_s):
                found = await self._client.ask(self._recursive, Question(prefix_of(name), types=("HS_SITE",)))
                server = first_tcp(found.values)
                if server is None:
                    raise ZaibeiError(
                        Code.NOT_FOUND, f"no TCP interface in the first HS_SITE of {prefix_of(name)}: code {found.code}"
                    )
                reply = await self._client.ask(server, Question(name))
        except TimeoutError:
            raise ZaibeiError(
                Code.UNREACHABLE, f"{name}: no answer in {self._deadline_s} s", definite=False, retry=True
            ) from None
        return Lookup(name, reply, server, round((time.perf_counter() - began) * 1_000, 3))
