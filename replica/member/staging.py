"""A generation the leader loaded comes to this member too: fetched as files, verified, and stated as staged (SEMANTICS 3.1)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from replica.member.group_files import StoreFiles
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import SideGeneration
from replica.store.edge_store import SourceStore
from replica.v1 import entry_pb2

log = logging.getLogger("zaibei.cluster")
LOOK_S = 0.25
AGAIN_S = 1.0

Propose = Callable[[entry_pb2.Entry], Awaitable[object]]


class Staging:
    """Watches one source's side generation on a member that does not load it itself.

    Args:
        name: of this member; number_of: a member's number by its name, 0: not known.
        propose: commits an entry at the group's leader.
        hungry: those files are gone everywhere; the state of another member is needed instead.
    """

    def __init__(
        self,
        store: SourceStore,
        files: StoreFiles,
        name: str,
        number_of: Callable[[str], int],
        propose: Propose,
        hungry: Callable[[], None],
    ) -> None:
        self._store, self._files, self._name = store, files, name
        self._number_of, self._propose, self._hungry = number_of, propose, hungry

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            side = self._store.state().side
            if side is None or self._name in self._store.staged_by:
                continue
            try:
                await self._stage(side)
            except (ZaibeiError, TimeoutError) as exc:
                if isinstance(exc, ZaibeiError) and exc.code is Code.NOT_FOUND and side.staged:
                    self._hungry()  # it was switched to long ago: the whole state is asked for
                fields = {"source": self._store.source, "generation": side.number, "why": str(exc)}
                log.warning("loaded content not fetched", extra={"fields": fields})
                await asyncio.sleep(AGAIN_S)

    async def _stage(self, side: SideGeneration) -> None:
        holders = [number for name in self._store.staged_by if (number := self._number_of(name))]
        if not holders:
            return  # it is still being loaded
        staged = await self._files.fetch_side(holders[0], side.number, side.first_index)
        body = entry_pb2.LoadStaged(side=side.number, member=self._name, manifest_hash=staged.manifest_hash)
        await self._propose(entry_pb2.Entry(format=1, load_staged=body))
        log.info("loaded content fetched", extra={"fields": {"source": self._store.source, "generation": side.number}})
