"""Carries out what a proved key asks for: looks, judges by HS_ADMIN and by the tenant's rights, and hands the change to the desk.

The change holds for exactly the record that was judged: it is put with that record as its precondition, which is tested again at
apply. Who was overtaken looks and is judged anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from hosting.handle.edge_look import Looks, Seen
from hosting.handle.edits import Denied, edit_of
from hosting.handle.permits import Walk, admins
from hosting.tenant.edge_service import page_of
from hosting.tenant.papers import Papers
from hosting.tenant.records import delete_of, named, put_of
from hosting.tenant.rights import Caller, Operation
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.bodies import HandleRequest, IndexesRequest, Request, ValuesRequest, list_batches
from replica.model.handle.codes import OpCode, OpFlag, ResponseCode
from replica.model.handle.message import Message
from replica.model.handle.names import full_name
from replica.model.handle.types import AdminPermission
from replica.model.handle.values import HandleValue, Reference, encode_values, spelling_of
from replica.model.handle.wire import string
from replica.model.identifier import key_text, prefix_part, prefix_text, subtree
from replica.model.precondition import ABSENT, equal_to

OVERTAKEN_MAX = 5  # times a change is judged anew because another came first
LIST_NAMES_MAX = 20_000
LIST_PAGE_NAMES = 1_000
MINTED_OCTETS = 16  # of chance in a suffix we make

Named = (HandleRequest, ValuesRequest, IndexesRequest)


@dataclass(frozen=True, slots=True)
class Done:
    """Bodies of the answer's messages; more than one for a list alone."""

    bodies: tuple[bytes, ...]


class Work:
    """See the module. `random`: so many octets nobody can guess."""

    def __init__(self, looks: Looks, random: Callable[[int], bytes]) -> None:
        self._looks, self._random = looks, random

    async def do(self, request: Request, message: Message, key: Reference, now_ms: int) -> Done | Denied:
        """Raises ZaibeiError: nothing was done, or (not definite) it is not known."""
        if not isinstance(request, Named):
            return Denied(ResponseCode.OPERATION_NOT_SUPPORTED, "not offered here")
        if message.header.op_code == OpCode.LIST_HANDLES:
            return await self._list(request.handle, key)
        minted = message.header.op_code == OpCode.CREATE_HANDLE and bool(message.header.flags & OpFlag.MINT)
        for _ in range(OVERTAKEN_MAX):
            asked = request
            if minted:
                asked = replace(request, handle=request.handle + self._random(MINTED_OCTETS).hex().encode())
            found = await self._once(asked, message, key, now_ms // 1_000)
            if found is None:
                return Done((string(asked.handle) if minted else b"",))
            if isinstance(found, Denied):
                if minted and found.code is ResponseCode.HANDLE_ALREADY_EXISTS:
                    continue
                return found
        return Denied(ResponseCode.SERVER_TOO_BUSY, "others keep changing this handle: again later; nothing was changed")

    async def _once(
        self, request: HandleRequest | ValuesRequest | IndexesRequest, message: Message, key: Reference, now_s: int
    ) -> Denied | str | None:
        """None: done. A text: another came first."""
        name = named(_text(request.handle))
        seen = await self._looks.at_desk(name)
        own = seen.values
        above, unread = await self._above(_prefix_record(name.owner))
        if not await self._holds(key, 0, (own, above)):
            return _stranger(key, unread)
        header = message.header
        edit = edit_of(header.op_code, request, own, flags=header.flags, now_s=now_s, is_prefix=name.identifier.route)
        if isinstance(edit, Denied):
            return edit
        if not await self._holds(key, edit.needs, (own, above)) or (
            edit.prefix_needs and not await self._holds(key, edit.prefix_needs, (above,))
        ):
            return _stranger(key, unread)
        change = delete_of(seen.key)
        if edit.values is not None:
            change = put_of(seen.key, _spelling(seen), encode_values(edit.values))
        papers = await seen.office.documents()
        need = ABSENT if seen.record is None else equal_to(seen.record)
        need = seen.office.admitted(papers, _caller(key, papers), name, change, need)
        verdict = await seen.office.clerk.change(change, need)
        if verdict.trouble is None:
            return None
        if verdict.trouble.code is Code.CONFLICT and verdict.trouble.definite:
            return "overtaken"
        trouble = verdict.trouble
        raise ZaibeiError(trouble.code, trouble.message, definite=trouble.definite, retry=trouble.retry)

    async def _list(self, handle: bytes, key: Reference) -> Done | Denied:
        name = named(_text(handle))
        if not name.identifier.route:
            return Denied(ResponseCode.INVALID_HANDLE, "a list is asked of a prefix, 0.NA/PREFIX")
        prefix = name.identifier.prefix
        office = self._looks.office(prefix)
        if not await self._holds(key, AdminPermission.LIST_HANDLES, (await self._looks.values(handle),)):
            return _stranger(key)
        papers = await office.documents()
        office.readable(papers, _caller(key, papers), Operation.LIST, prefix)
        await office.clerk.barrier()
        (start, stop), names, more = subtree(prefix), [], True
        while more:
            rows, more = await page_of(office.clerk, start, stop, LIST_PAGE_NAMES)
            for stored, record in rows:
                if prefix_part(stored) == prefix:
                    names.append(spelling_of(record) or key_text(stored).encode())
            if len(names) > LIST_NAMES_MAX:
                return Denied(
                    ResponseCode.ERROR, f"over {LIST_NAMES_MAX} handles: list them in pages over hosting.v1.Registration"
                )
            start = rows[-1][0] + b"\0" if rows else stop
        return Done(tuple(batch.encode() for batch in list_batches(names)))

    async def _holds(self, key: Reference, needs: int, records: Iterable[Iterable[HandleValue] | None]) -> bool:
        """Has the key all of these permissions, by any of the records?"""
        walk = Walk(key, [root for values in records for root in admins(values or (), needs)])
        while wanted := walk.wanted:
            walk.told({handle: await self._group(handle) for handle in wanted})
        return walk.permitted

    async def _above(self, handle: bytes) -> tuple[tuple[HandleValue, ...] | None, ZaibeiError | None]:
        """The record of a prefix; who is no stranger by the handle's own record needs none."""
        try:
            return await self._looks.values(handle), None
        except ZaibeiError as exc:
            return None, exc

    async def _group(self, handle: bytes) -> tuple[HandleValue, ...] | None:
        """A group that cannot be read has no members; others may still permit it."""
        try:
            return await self._looks.values(handle)
        except ZaibeiError:
            return None


def _prefix_record(owner: bytes) -> bytes:
    return full_name(prefix_text(owner).encode()) if owner else b"0.NA/0.NA"


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
