"""Channels to other members for questions and files: mTLS, to the member with that number and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import grpc

from replica.consensus.edge_link_tls import open_channel
from replica.consensus.link_port import MemberTrust, Place
from replica.model.errors import Code, ZaibeiError


class Peers:
    """Opens channels.

    Args:
        places: where members are reached, by now.
    """

    def __init__(self, trust: MemberTrust, places: Callable[[], Mapping[int, Place]]) -> None:
        self._trust, self._places = trust, places

    @asynccontextmanager
    async def channel(self, member: int) -> AsyncIterator[grpc.aio.Channel]:
        """A channel to the member, at the first of its addresses where it answers.

        Raises:
            ZaibeiError: UNREACHABLE (nobody answers, or its place is not known), NOT_AUTHORISED (somebody else does).
        """
        place = self._places().get(member)
        addresses: Sequence[str] = place.addresses if place is not None else ()
        trouble = ZaibeiError(Code.UNREACHABLE, f"where member {member} is reached is not known here", retry=True)
        for address in addresses:
            try:
                answerer = await self._trust.answerer(member, address)
            except ZaibeiError as exc:
                trouble = exc
                continue
            channel = open_channel(address, self._trust.credentials(), answerer)
            try:
                yield channel
            finally:
                await channel.close()
            return
        raise trouble
