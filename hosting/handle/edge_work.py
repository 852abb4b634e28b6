"""Carries out what a proved key asks for: looks, judges by HS_ADMIN and by the tenant's rights, and hands the change to the desk.

The change holds for exactly the record that was judged: it is put with that record as its precondition, which is tested again at
apply. Who was overtaken looks and is judged anew. Handle messages and the JSON API come here alike.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hosting.handle.delegation import asks, lends, reads_hidden
from hosting.handle.edge_homes import HOMES, Homes
from hosting.handle.edge_look import Above, Looks, Seen, Sight, Values
from hosting.handle.edits import Denied, Edit, edit_of
from hosting.handle.permits import Walk, admins
from hosting.tenant.denials import NOBODY
from hosting.tenant.edge_service import page_of
from hosting.tenant.edge_turns import held_back
from hosting.tenant.limits import REGISTRATIONS_MAX
from hosting.tenant.offices import Office
from hosting.tenant.papers import Papers
from hosting.tenant.places import Places
from hosting.tenant.records import Named as NamedHandle
from hosting.tenant.records import delete_of, named, put_values
from hosting.tenant.rights import Caller, Operation
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.handle.bodies import HandleRequest, IndexesRequest, Request, ResolutionRequest, ValuesRequest, list_batches
from replica.model.handle.codes import OpCode, OpFlag, ResponseCode
from replica.model.handle.message import Header
from replica.model.handle.types import AdminPermission
from replica.model.handle.values import HandleValue, Reference, spelling_of
from replica.model.handle.wire import string
from replica.model.identifier import SEP, key_text, subtree
from replica.model.precondition import ABSENT, equal_to
from replica.native import filter_values

OVERTAKEN_MAX = 5  # times a change is judged anew because another came first
LIST_NAMES_MAX = 20_000  # of one answer
LIST_COUNTED_MAX = 200_000  # handles that are read to answer one list
LIST_PAGE_NAMES = 1_000
MINTED_OCTETS = 16  # of chance in a suffix we make

T = TypeVar("T")
Named = (HandleRequest, ValuesRequest, IndexesRequest)


@dataclass(frozen=True, slots=True)
class Done:
    """What was done.

    Args:
        bodies: of the answer's messages; more than one for a list alone.
        handle: as asked, or as minted.
        replaced: something was there before in the place of what was put.
        names: of a list of homed prefixes.
    """

    bodies: tuple[bytes, ...]
    handle: bytes = b""
    replaced: bool = False
    names: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """Names of handles in the order of their keys, and how many there are in all."""

    names: tuple[bytes, ...]
    total: int


class Work:
    """See the module. `random`: so many octets nobody can guess."""

    def __init__(self, looks: Looks, random: Callable[[int], bytes]) -> None:
        self._looks, self._random = looks, random
        self.places = Places(REGISTRATIONS_MAX)
        self.homes = Homes(looks, self.may_list)

    async def do(
        self, request: Request, header: Header, key: Reference, now_ms: int, sight: Sight | None = None
    ) -> Done | Denied:
        """Carry a request out.

        Args:
            header: operation and flags of the request. sight: what it saw so far.
        Raises:
            ZaibeiError: nothing was done, or (not definite) it is not known.
        """
        handle = getattr(request, "handle", b"")
        return await self._watched(handle, key, now_ms, self._do(request, header, key, now_ms, sight or self._looks.sight()))

    async def _do(self, request: Request, header: Header, key: Reference, now_ms: int, sight: Sight) -> Done | Denied:
        if isinstance(request, ResolutionRequest):
            return await self._read(request, key, now_ms, sight)
        if header.op_code in HOMES and isinstance(request, HandleRequest):
            return await self._homed(request, header.op_code, key, now_ms)
        if not isinstance(request, Named):
            return Denied(ResponseCode.OPERATION_NOT_SUPPORTED, "not offered here")
        if header.op_code == OpCode.LIST_HANDLES:
            listed = await self._names(request.handle, key, now_ms, 0, LIST_NAMES_MAX, LIST_NAMES_MAX)
            return listed if isinstance(listed, Denied) else Done(tuple(one.encode() for one in list_batches(listed.names)))
        minted = header.op_code == OpCode.CREATE_HANDLE and bool(header.flags & OpFlag.MINT)
        if minted:
            header = replace(header, flags=header.flags & ~int(OpFlag.OVERWRITE))  # a name we made replaces nothing
        for _ in range(OVERTAKEN_MAX):
            asked = request
            if minted:
                asked = replace(request, handle=request.handle + self._random(MINTED_OCTETS).hex().encode())
            found = await self._once(asked, header, key, now_ms, sight)
            if isinstance(found, Edit):
                return Done((string(asked.handle) if minted else b"",), asked.handle, found.replaces)
            if isinstance(found, Denied):
                if minted and found.code is ResponseCode.HANDLE_ALREADY_EXISTS:
                    continue
                return found
            sight = self._looks.sight()
        return Denied(ResponseCode.SERVER_TOO_BUSY, "others keep changing this handle: again later; nothing was changed")

    async def _homed(self, request: HandleRequest, op_code: int, key: Reference, now_ms: int) -> Done | Denied:
        if op_code != OpCode.LIST_HOMED_NAS:
            denied = await self.homes.asked(op_code, request.handle, key, now_ms)
            return Done((b"",), request.handle) if denied is None else denied
        listed = await self.homes.listed(key, now_ms)
        return listed if isinstance(listed, Denied) else Done(tuple(one.encode() for one in list_batches(listed)), names=listed)

    def full(self, request: Request, now_ms: int) -> Trouble | None:
        """Why a change would be refused now, whoever asked for it: its tenant's rate is used up. Asking takes nothing from it."""
        if not isinstance(request, Named):
            return None
        try:
            self._looks.office(named(_text(request.handle)).owner).has_room()
        except ZaibeiError as exc:
            if exc.code is not Code.OVER_QUOTA:
                return None
            self._looks.denials.refused(exc.code, self._looks.source_at(request.handle), NOBODY, now_ms)
            return exc.trouble
        return None

    async def _watched(self, handle: bytes, key: Reference, now_ms: int, work: Coroutine[Any, Any, T]) -> T:
        """In one of the tenant's places. What is refused to a proved key is counted for the audit (hosting/tenant/denials.py)."""
        code, source = None, self._looks.source_at(handle)
        try:
            with self.places.one(source):
                found = await work
            if isinstance(found, Denied) and found.code is ResponseCode.INSUFFICIENT_PERMISSIONS:
                code = Code.NOT_AUTHORISED
            return found
        except ZaibeiError as exc:
            code = exc.code
            raise
        finally:
            work.close()  # it was never begun where there was no place
            if code is not None:
                who = f"{key.index}:{key.handle.decode('utf-8', 'replace')}"
                self._looks.denials.refused(code, source, who, now_ms)

    async def _once(
        self, request: HandleRequest | ValuesRequest | IndexesRequest, header: Header, key: Reference, now_ms: int, sight: Sight
    ) -> Denied | Edit | None:
        """The edit that was carried out. None: another came first."""
        name = named(_text(request.handle))
        office = self._looks.office(name.owner)
        try:
            office.has_room()
            return await self._tried(name, request, header, key, now_ms, sight)
        except ZaibeiError as exc:
            await held_back(office, exc.trouble)
            raise

    async def _tried(
        self,
        name: NamedHandle,
        request: HandleRequest | ValuesRequest | IndexesRequest,
        header: Header,
        key: Reference,
        now_ms: int,
        sight: Sight,
    ) -> Denied | Edit | None:
        seen = await sight.at_desk(name)
        papers = await seen.office.documents()
        caller, own = _caller(key, papers), seen.values
        above, lent = await self._lent(sight, seen.office, name.owner, key, caller, papers, header.op_code, now_ms)
        if not await self._holds(sight, key, 0, (own, lent)):
            return _stranger(key, above.unread)
        seen.office.may_one(papers, caller, asks(header.op_code), name)
        edit = edit_of(header.op_code, request, own, flags=header.flags, now_s=now_ms // 1_000, is_prefix=name.identifier.route)
        if isinstance(edit, Denied):
            return edit
        replaced = lent  # what is there is changed by whom the prefix's record lends that, not by whom it lets create
        if edit.needs and header.op_code == OpCode.CREATE_HANDLE:
            _, replaced = await self._lent(sight, seen.office, name.owner, key, caller, papers, OpCode.DELETE_HANDLE, now_ms)
        for needs, records in ((edit.needs, (own, replaced)), (edit.prefix_needs, (lent,))):
            if needs and not await self._holds(sight, key, needs, records):
                return _stranger(key, above.unread)
        if edit.values is None:
            change = delete_of(seen.key)
        else:
            change = put_values(seen.key, _spelling(seen), edit.values)
        need = ABSENT if seen.record is None else equal_to(seen.record)
        need = seen.office.admitted(papers, caller, name, change, need)
        verdict = await seen.office.clerk.change(change, need)
        if verdict.trouble is None:
            return edit
        if verdict.trouble.code is Code.CONFLICT and verdict.trouble.definite:
            return None
        trouble = verdict.trouble
        raise ZaibeiError(trouble.code, trouble.message, definite=trouble.definite, retry=trouble.retry)

    async def _read(self, request: ResolutionRequest, key: Reference, now_ms: int, sight: Sight) -> Done | Denied:
        """Values that administrators may read, for one of them. A value without either read bit is nobody's."""
        name = named(_text(request.handle))
        seen = await sight.at_desk(name)
        papers = await seen.office.documents()
        caller = _caller(key, papers)
        above, lent = await self._lent(sight, seen.office, name.owner, key, caller, papers, OpCode.RESOLUTION, now_ms)
        if not await self._holds(sight, key, AdminPermission.READ_VALUE, (seen.values, lent)):
            return _stranger(key, above.unread)
        own_key = self._looks.keeps(seen.office, key.handle)
        if not reads_hidden(caller, papers, name.owner, own_key=own_key, now_ms=now_ms):
            return _stranger(key)
        seen.office.readable(papers, caller, Operation.READ, name.owner)
        if seen.record is None:
            return Denied(ResponseCode.HANDLE_NOT_FOUND, "there is no such handle")
        values = filter_values(seen.record, request.indexes, request.types, False)
        if values is None or values == bytes(4):  # none
            return Denied(ResponseCode.VALUES_NOT_FOUND, "no such value, or none that anybody may read")
        return Done((string(request.handle) + values,), request.handle)

    async def names(
        self,
        handle: bytes,
        key: Reference,
        now_ms: int,
        *,
        first: int = 0,
        most: int = LIST_NAMES_MAX,
        count_max: int = LIST_COUNTED_MAX,
    ) -> Listed | Denied:
        """Handles of one prefix, none below it.

        Args:
            handle: the prefix's own name, `0.NA/PREFIX`.
            first, most: which of them are told.
            count_max: where there are more in all, the list is refused.
        Raises:
            ZaibeiError: they cannot be read.
        """
        return await self._watched(handle, key, now_ms, self._names(handle, key, now_ms, first, most, count_max))

    async def _names(self, handle: bytes, key: Reference, now_ms: int, first: int, most: int, count_max: int) -> Listed | Denied:
        name = named(_text(handle))
        if not name.identifier.route:
            return Denied(ResponseCode.INVALID_HANDLE, "a list is asked of a prefix, 0.NA/PREFIX")
        prefix = name.identifier.prefix
        office = await self.may_list(prefix, key, now_ms)
        if isinstance(office, Denied):
            return office
        await office.clerk.barrier()
        start, stop, more = subtree(prefix)[0], prefix + SEP, True
        told, total = [], 0
        while more:
            rows, more = await page_of(office.clerk, start, stop, LIST_PAGE_NAMES)
            for number, (stored, record) in enumerate(rows, total):
                if first <= number < first + most:
                    told.append(spelling_of(record) or key_text(stored).encode())
            total += len(rows)
            if total > count_max:
                text = f"over {count_max} handles: list them in pages over hosting.v1.Registration"
                return Denied(ResponseCode.ERROR, text)
            start = rows[-1][0] + b"\0" if rows else stop
        return Listed(tuple(told), total)

    async def may_list(self, prefix: bytes, key: Reference, now_ms: int) -> Office | Denied:
        """The office of a prefix (key part) whose handles this key may list. Raises ZaibeiError: NOT_OWNER, or as `names`."""
        office = self._looks.office(prefix)
        office.holds(prefix)
        papers = await office.documents()
        caller, sight = _caller(key, papers), self._looks.sight()
        above, lent = await self._lent(sight, office, prefix, key, caller, papers, OpCode.LIST_HANDLES, now_ms)
        if not await self._holds(sight, key, AdminPermission.LIST_HANDLES, (lent,)):
            return _stranger(key, above.unread)
        office.readable(papers, caller, Operation.LIST, prefix)
        return office

    async def _holds(self, sight: Sight, key: Reference, needs: int, records: Iterable[Iterable[HandleValue] | None]) -> bool:
        """Has the key all of these permissions, by any of the records?"""
        walk = Walk(key, [root for values in records for root in admins(values or (), needs)], self._looks.one_name)
        while wanted := walk.wanted:
            walk.told({handle: await _group(sight, handle) for handle in wanted})
        return walk.permitted

    async def _lent(
        self,
        sight: Sight,
        office: Office,
        owner: bytes,
        key: Reference,
        caller: Caller,
        papers: Papers,
        op_code: int,
        now_ms: int,
    ) -> tuple[Above, Values]:
        """The record of a prefix, and what of it counts for this caller and operation (delegation.py)."""
        above = await sight.above(office, owner)
        own_key = self._looks.keeps(office, key.handle)
        counts = lends(above.keeper, op_code, caller, papers, owner, own_key=own_key, now_ms=now_ms)
        return above, above.values if counts else None


async def _group(sight: Sight, handle: bytes) -> tuple[HandleValue, ...] | None:
    """A group that cannot be read has no members; others may still permit it."""
    try:
        return await sight.values(handle)
    except ZaibeiError:
        return None


def _caller(key: Reference, papers: Papers) -> Caller:
    """While a registry says nothing about a tenant, its HS_ADMIN values alone are its rights."""
    return Caller(f"{key.index}:{key.handle.decode('utf-8', 'replace')}", registrar=papers.tenant is None)


def _stranger(key: Reference, unread: ZaibeiError | None = None) -> Denied:
    """Raises ZaibeiError: the record that could have permitted it was not read."""
    if unread is not None:
        raise unread
    return Denied(
        ResponseCode.INSUFFICIENT_PERMISSIONS, f"{key.index}:{key.handle.decode('utf-8', 'replace')[:80]} may not do this"
    )


def _spelling(seen: Seen) -> bytes:
    """A record keeps the spelling it was created with."""
    return seen.spelling if seen.record is None else spelling_of(seen.record) or b""


def _text(handle: bytes) -> str:
    try:
        return handle.decode()
    except UnicodeDecodeError:
        raise ZaibeiError(Code.MALFORMED, "a handle's name is UTF-8") from None
