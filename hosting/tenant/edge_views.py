"""Keeps what answering needs of tenants' documents in the catalog: read again every LOOK_S, at whatever member holds them.

So it counts within a second or two at every member, also at one where the tenant does not live, and in fronts of their own,
which are told each new catalog. What cannot be read now leaves what was known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from hosting.answer.port import AnswerPort, Found, Wants
from hosting.tenant.views import keys_of, view_of
from replica.model.catalog import Catalog
from replica.model.errors import Code, ZaibeiError
from replica.model.tenant_view import PLAIN, TenantView

LOOK_S: Final = 1.0
SOURCES_AT_ONCE: Final = 32  # of one read, so that a thousand tenants do not hold up the event loop
LOOK_S_MAX: Final = 2.0  # of one read

log = logging.getLogger("zaibei.tenants")


class TenantViews:
    """The answer port with tenants in its catalog. Satisfies hosting.answer.port.AnswerPort.

    Args:
        port: whoever owns the stores.
        sources: whose registrations may be made here.
    """

    def __init__(self, port: AnswerPort, sources: Sequence[str]) -> None:
        self._port, self._sources = port, tuple(sources)
        self._keys = {source: keys_of(source) for source in sources}
        self._views: dict[str, TenantView] = {}  # only those that say something
        self._base = self._made = Catalog()
        self._looker: asyncio.Task[None] | None = None
        self._ready = not sources
        self._changes = 0

    async def start(self) -> None:
        """Look once, then again and again. Until then nothing is answered: a tenant may be suspended."""
        if self._sources:
            await self.look()
            self._looker = asyncio.get_running_loop().create_task(self._run())
            self._looker.add_done_callback(_ended)
        self._ready = True

    async def stop(self) -> None:
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.gather(self._looker, return_exceptions=True)

    def catalog(self) -> Catalog:
        """See AnswerPort."""
        if not self._ready:
            raise ZaibeiError(Code.STOPPING, "this member is starting", retry=True)
        base = self._port.catalog()
        if base is not self._base or self._made.tenants is not self._views:
            self._base = base
            self._made = replace(base, version=base.version + self._changes, tenants=self._views)
        return self._made

    async def get_many(self, wants: Wants) -> Found:
        """See AnswerPort."""
        return await self._port.get_many(wants)

    async def look(self) -> None:
        """Read all tenants' documents; the catalog is a new one if they say something else."""
        views = dict(self._views)
        for at in range(0, len(self._sources), SOURCES_AT_ONCE):
            part = self._sources[at : at + SOURCES_AT_ONCE]
            try:
                async with asyncio.timeout(LOOK_S_MAX):
                    found = await self._port.get_many({source: self._keys[source] for source in part})
            except (ZaibeiError, TimeoutError, OSError):
                continue
            for source, (values, vouched) in found.items():
                tenant, quota = values
                view = view_of(self._keys[source], (tenant, quota), vouched, views.pop(source, PLAIN))
                if view != PLAIN:
                    views[source] = view
        if views != self._views:
            log.info("what tenants' documents say about answering changed", extra={"tenants": sorted(views)})
            self._views, self._changes = views, self._changes + 1

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()


def _ended(looker: asyncio.Task[None]) -> None:
    """A bug: whoever composed this process decides what to do about answers that no document governs any more."""
    if not looker.cancelled() and looker.exception() is not None:
        fault = {"message": "tenants' documents are read no more", "exception": looker.exception(), "task": looker}
        looker.get_loop().call_exception_handler(fault)
