"""Channels to other members for questions and files: mTLS, to the member with that number alone, kept while they work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import grpc

from replica.consensus.edge_link_tls import open_channel
from replica.consensus.link_port import Answerer, MemberTrust, Place
from replica.model.errors import Code, ZaibeiError

NEXT_S = 0.5


class Peers:
    """Opens channels, and keeps one a member for what is asked often.

    Args:
        places: where members are reached, by now.
    """

    def __init__(self, trust: MemberTrust, places: Callable[[], Mapping[int, Place]]) -> None:
        self._trust, self._places = trust, places
        self._kept: dict[int, grpc.aio.Channel] = {}

    @asynccontextmanager
    async def channel(self, member: int) -> AsyncIterator[grpc.aio.Channel]:
        """A channel of its own, closed afterwards.

        Raises:
            ZaibeiError: UNREACHABLE (nobody answers, or its place is not known), NOT_AUTHORISED (somebody else does).
        """
        channel = await self._open(member)
        try:
            yield channel
        finally:
            await channel.close()

    async def kept(self, member: int) -> grpc.aio.Channel:
        """The channel that is kept; `drop` it when a call on it failed. Raises as `channel`."""
        found = self._kept.get(member)
        if found is None:
            found = await self._open(member)
            other = self._kept.setdefault(member, found)
            if other is not found:  # two asked at once
                await found.close()
            found = other
        return found

    async def drop(self, member: int, channel: grpc.aio.Channel) -> None:
        """What is asked next begins on a new connection, with the certificate judged anew; one that did already stays."""
        if self._kept.get(member) is channel:
            del self._kept[member]
            await channel.close()

    async def close(self) -> None:
        for member, channel in list(self._kept.items()):
            await self.drop(member, channel)

    async def _open(self, member: int) -> grpc.aio.Channel:
        """Where it answers first: the next address is tried as well when one before it is silent for NEXT_S, so that an
        IP family that is dead costs no more than that."""
        place = self._places().get(member)
        addresses: Sequence[str] = place.addresses if place is not None else ()
        trouble = ZaibeiError(Code.UNREACHABLE, f"where member {member} is reached is not known here", retry=True)
        asked: dict[asyncio.Task[Answerer], str] = {}
        try:
            for place_in_turn, address in enumerate(addresses, 1):
                asked[asyncio.create_task(self._trust.answerer(member, address))] = address
                limit_s = NEXT_S if place_in_turn < len(addresses) else None
                while waiting := [task for task in asked if not task.done()]:
                    done, _ = await asyncio.wait(waiting, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        if (failed := task.exception()) is None:
                            return open_channel(asked[task], self._trust.credentials(), task.result())
                        if not isinstance(failed, ZaibeiError):
                            raise failed
                        trouble = failed
                    if not done:
                        break
            raise trouble
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
