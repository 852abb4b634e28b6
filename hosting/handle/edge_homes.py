"""Home, unhome and list of homed prefixes (300 to 302, /api/prefixes): told to administrators; decided by the cluster alone.

| asked, after a proof | answer |
| --- | --- |
| which prefixes are homed here | of sources in service at this member, and of enterprises in effect, those the key may list |
| home one that is | 1: nothing is to be done |
| home an enterprise's that is not in effect | 401, and who puts it in effect |
| home any other; unhome | 401, the same words to all who are no administrators there; unhome tells these the way |

Whose prefix lives where is what members are set up with and commit together; no client's word moves it. An enterprise's prefix is
put in effect and revoked by a document with a person and a reason in it: a Handle key is neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from hosting.handle.edge_look import Looks
from hosting.handle.edits import Denied
from hosting.tenant.enterprise import PrefixState
from hosting.tenant.offices import Office
from hosting.tenant.papers import Papers
from hosting.tenant.records import named
from hosting.tenant.rights import Caller, Operation, granted
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.codes import OpCode, ResponseCode
from replica.model.handle.names import full_name
from replica.model.handle.values import Reference
from replica.model.identifier import prefix_text

HOMES = frozenset({OpCode.HOME_NA, OpCode.UNHOME_NA, OpCode.LIST_HOMED_NAS})
JUDGED_MAX: Final = 1_000  # prefixes that are looked at for one list
BY_OPERATORS = Denied(
    ResponseCode.INSUFFICIENT_PERMISSIONS,
    "which prefixes live here is set up and committed by the cluster's operators, who add them to a [[source]]: turn to them",
)
NO_PREFIX = Denied(ResponseCode.INVALID_HANDLE, "a prefix is named by its own handle, 0.NA/PREFIX")
OVER_JUDGED = Denied(ResponseCode.ERROR, f"over {JUDGED_MAX} prefixes live here: ask its operators, `zaibei tenant list`")
MayList = Callable[[bytes, Reference, int], Awaitable[Office | Denied]]


class Homes:
    """See the module. `may_list`: the office of a prefix whose handles a key may list, or why it may not."""

    def __init__(self, looks: Looks, may_list: MayList) -> None:
        self._looks, self._may_list = looks, may_list

    async def asked(self, op_code: int, handle: bytes, key: Reference, now_ms: int) -> Denied | None:
        """Home or unhome a prefix. None: it is homed. Raises ZaibeiError: it cannot be told."""
        try:
            name = named(handle.decode())
        except UnicodeDecodeError:
            return NO_PREFIX
        if not name.identifier.route:
            return NO_PREFIX
        prefix = name.identifier.prefix
        try:
            office = await self._may_list(prefix, key, now_ms)
        except ZaibeiError as exc:
            if exc.code not in (Code.NOT_OWNER, Code.NOT_AUTHORISED):
                raise
            return BY_OPERATORS
        if isinstance(office, Denied):
            return BY_OPERATORS
        text, source = prefix_text(prefix), office.source
        life = (await office.documents()).enterprises.longest(prefix)
        if op_code == OpCode.UNHOME_NA:
            way = f"`zaibei tenant enterprise {source} {text} revoked`" if life else f"taking {text} out of {source}'s [[source]]"
            return Denied(ResponseCode.INSUFFICIENT_PERMISSIONS, f"{text} lives here until its operators end that: {way}")
        if life is not None and life[1].state is not PrefixState.IN_EFFECT:
            above = prefix_text(life[0])
            way = f"`zaibei tenant enterprise {source} {above} in_effect`, by the tenant's own people, when it is granted"
            return Denied(ResponseCode.INSUFFICIENT_PERMISSIONS, f"{above} is {life[1].state}, not in effect. Next: {way}")
        return None

    async def listed(self, key: Reference, now_ms: int) -> tuple[bytes, ...] | Denied:
        """Own handles of the homed prefixes this key may list, in order. Raises ZaibeiError: it cannot be told."""
        found: set[bytes] = set()
        looked = 0
        for settings in self._looks.sources:
            try:
                office = self._looks.office_of(settings)
                papers = await office.documents()
            except ZaibeiError as exc:
                if exc.code is not Code.UNREACHABLE:
                    raise
                continue  # of another member
            for prefix in {*settings.prefixes, *office.clerk.group.state().prefixes, *_own(papers, key, now_ms)}:
                looked += 1
                if looked > JUDGED_MAX:
                    return OVER_JUDGED
                await asyncio.sleep(0)  # others are answered meanwhile
                if await self._is_mine(prefix, key, now_ms):
                    found.add(full_name(prefix_text(prefix).encode()))
        return tuple(sorted(found))

    async def _is_mine(self, prefix: bytes, key: Reference, now_ms: int) -> bool:
        try:
            return not isinstance(await self._may_list(prefix, key, now_ms), Denied)
        except ZaibeiError as exc:
            if exc.code not in (Code.NOT_OWNER, Code.NOT_AUTHORISED, Code.UNREACHABLE):
                raise
            return False


def _own(papers: Papers, key: Reference, now_ms: int) -> list[bytes]:
    """Enterprises' prefixes in effect in which the tenant lets this key list."""
    caller = Caller(f"{key.index}:{key.handle.decode('utf-8', 'replace')}")
    return [
        prefix
        for prefix, one in papers.enterprises.items()
        if one.state is PrefixState.IN_EFFECT and granted(caller, Operation.LIST, prefix, papers, now_ms=now_ms)
    ]
