"""Publication adapter for top-level records: Handle administration of `0.NA/PREFIX`, then a look at what stands there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from replica.model.errors import Code, ZaibeiError
from replica.takeover.publish import Confirmation, Publication
from replica.takeover.top_record import INDEX_DEFAULT, TTL_S, Change, RecordDesk, Verb, handle_of, next_change

PUBLISH_S_MAX = 4.5  # of one publication: less than whoever asks for it waits
CHANGES_MAX = 8  # of one publication; the longest way has four
AT_ONCE_MAX = 8  # publications under way; more wait their turn


@dataclass(frozen=True, slots=True)
class TopRecordConfig:
    """One top-level node.

    Args:
        name: for status and metrics.
        where: the server, for people.
        index: of our mark in each record; sites beyond the node's own indexes follow it.
        ttl_s: of the sites we place.
    """

    name: str
    where: str
    index: int = INDEX_DEFAULT
    ttl_s: int = TTL_S
    publish_s_max: float = PUBLISH_S_MAX


class TopRecordPublisher:
    """Satisfies Publisher. Idempotent: what already stands is not written again, and an unknown outcome is looked for."""

    def __init__(self, config: TopRecordConfig, desk: RecordDesk) -> None:
        self._config, self._desk = config, desk
        self._turns = asyncio.Semaphore(AT_ONCE_MAX)

    @property
    def name(self) -> str:
        return self._config.name

    async def publish(self, publication: Publication) -> Confirmation:
        """See Publisher. Confirmed is what the record then says, read from its server."""
        try:
            async with asyncio.timeout(self._config.publish_s_max), self._turns:
                return await self._publish(publication)
        except TimeoutError:
            text = f"{self.name}: {self._config.where} took over {self._config.publish_s_max} s"
            raise ZaibeiError(Code.UNREACHABLE, text, definite=False, retry=True) from None

    async def _publish(self, publication: Publication) -> Confirmation:
        handle, config = handle_of(publication.prefix), self._config
        for _ in range(CHANGES_MAX + 1):
            record = await self._desk.read(handle)
            if record is None:
                return Confirmation(
                    False, f"{config.where} has no record {handle}: its operator makes one, with our key in HS_ADMIN"
                )
            change = next_change(record, publication, config.index, config.ttl_s)
            if change is None:
                return Confirmation(True, _seen(publication, config.where, handle))
            await self._carry_out(handle, change)
        return Confirmation(False, f"{handle} at {config.where} is not as we wrote it, again and again: who else changes it?")

    async def _carry_out(self, handle: str, change: Change) -> None:
        desk = self._desk
        verbs: dict[Verb, Callable[[], Awaitable[None]]] = {
            Verb.ADD: lambda: desk.add(handle, change.values),
            Verb.MODIFY: lambda: desk.modify(handle, change.values),
            Verb.REMOVE: lambda: desk.remove(handle, [one.index for one in change.values]),
        }
        await verbs[change.verb]()


def _seen(publication: Publication, where: str, handle: str) -> str:
    if publication.withdrawn:
        return f"{handle} at {where} holds none of our sites, serial {publication.serial}"
    return f"{handle} at {where} names our site first, serial {publication.serial}"
