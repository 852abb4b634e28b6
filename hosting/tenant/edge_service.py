"""hosting.v1.Registration over gRPC: who calls is told by the certificate, what became of a change by one outcome."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc

from hosting.tenant.desk import Verdict
from hosting.tenant.edge_clerk import Clerk, Told
from hosting.tenant.edge_stream import ChangeStream, NotTaken, Taken
from hosting.tenant.edge_turns import Turns, held_back
from hosting.tenant.limits import IDENTIFIERS_MAX, PAGE_OCTETS_MAX, PAGE_RECORDS_MAX, SCAN_RECORDS
from hosting.tenant.lots import Below, below_of, drafts_of, lot_of
from hosting.tenant.offices import Office, Offices
from hosting.tenant.pages import page_range, token_after
from hosting.tenant.records import Named, delete_of, listed, named, precondition_of, put_of, told
from hosting.tenant.rights import Caller, Operation
from hosting.v1 import registration_pb2, registration_pb2_grpc
from replica.model.batch import Change
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.identity import Peer
from replica.model.precondition import Precondition, value_hash

Context = grpc.aio.ServicerContext[Any, Any]
REFUSAL_KEY = "zaibei-refusal-bin"
PEERS_KEPT_MAX = 1_000
DETAIL_MAX = 1_000

STATUS = {
    Code.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.NOT_OWNER: grpc.StatusCode.PERMISSION_DENIED,
    Code.NOT_AUTHORISED: grpc.StatusCode.PERMISSION_DENIED,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Code.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    Code.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.OVER_QUOTA: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.DISK_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.NOT_LEADER: grpc.StatusCode.UNAVAILABLE,
    Code.UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    Code.STOPPING: grpc.StatusCode.UNAVAILABLE,
    Code.UNKNOWN: grpc.StatusCode.UNKNOWN,
}


def refusal_of(trouble: Trouble, office: Office | None) -> registration_pb2.Refusal:
    """A trouble as it travels; who is not the leader says who is."""
    leaders = office.leaders() if office is not None and trouble.code is Code.NOT_LEADER else []
    return registration_pb2.Refusal(
        code=trouble.code.value,
        message=trouble.message[:DETAIL_MAX],
        definite=trouble.definite,
        retry=trouble.retry,
        leaders=leaders,
        retry_after_ms=trouble.retry_ms,
    )


def caller_of(who: Peer) -> Caller:
    """A registrar of the configuration; TLS lets in nobody else."""
    return Caller(who.fingerprint, registrar=True)


class _Call:
    """Who calls, and the office that was met, so that a refusal can name its leader."""

    def __init__(self, offices: Offices, who: Peer) -> None:
        self._offices, self.who, self.caller = offices, who, caller_of(who)
        self.met: Office | None = None
        self.at = ""  # the source that was asked for last

    def office(self, prefix: bytes) -> Office:
        """The office that decides about a prefix. Raises ZaibeiError."""
        self.at = self._offices.source_at(prefix)
        self.met = self._offices.office(prefix, self.who)
        return self.met


class RegistrationService(registration_pb2_grpc.RegistrationServicer):
    """The servicer; on the event loop of the member's process."""

    def __init__(self, offices: Offices) -> None:
        self._offices, self._pins = offices, offices.pins()
        self._peers: dict[bytes, Peer] = {}
        self._turns: dict[str, Turns] = {}  # by tenant: no more than are configured

    # ------------------------------------------------------------------------------------------------- changes
    async def Put(self, request: registration_pb2.PutRequest, context: Context) -> registration_pb2.PutResponse:
        async with self._call(context) as call:
            name = named(request.identifier)
            office = call.office(name.owner)
            office.has_room()
            change, need = put_change(office, name, request.values, request.precondition)
            need = office.admitted(await office.documents(), call.caller, name, change, need)
            verdict = await office.clerk.change(change, need)
            if verdict.position is None:
                raise _as_error(verdict)
        return registration_pb2.PutResponse(position=verdict.position.to_wire(), value_hash=value_hash(change.value))

    async def Delete(self, request: registration_pb2.DeleteRequest, context: Context) -> registration_pb2.DeleteResponse:
        async with self._call(context) as call:
            name = named(request.identifier)
            office = call.office(name.owner)
            office.has_room()
            change, need = delete_of(office.key(name)[0]), precondition_of(request.precondition)
            need = office.admitted(await office.documents(), call.caller, name, change, need)
            verdict = await office.clerk.change(change, need)
            if verdict.position is None:
                raise _as_error(verdict)
        return registration_pb2.DeleteResponse(position=verdict.position.to_wire())

    async def PutMany(
        self, request_iterator: AsyncIterator[registration_pb2.PutManyRequest], context: Context
    ) -> AsyncIterator[registration_pb2.PutManyResponse]:
        async with self._call(context) as call:
            turns = self._turns.setdefault(self._offices.tenant_of(call.who), Turns())
            stream = ChangeStream(partial(self._take, call.who), refusal_of, turns)
            try:
                async for response in stream.run(request_iterator):
                    yield response
            finally:
                await stream.close()

    async def _take(self, who: Peer, changes: Sequence[registration_pb2.Change], told: Told) -> list[Taken | NotTaken]:
        """The first changes of these, of a stream: as many as are judged together, or one."""
        if len(changes) > 1 and (below := below_of(changes[0].identifier)) is not None:
            lot = lot_of(changes, below)
            if len(lot) > 1 and (taken := await self._take_lot(who, lot, below, told)):
                return taken
        return [await self._take_one(who, changes[0], told)]

    async def _take_lot(
        self, who: Peer, lot: Sequence[registration_pb2.Change], below: Below, told: Told
    ) -> list[Taken | NotTaken]:
        """As many as were decided; none: the first must be looked at alone, which also tells why."""
        try:
            office = self._offices.office(below.prefix, who)
            office.has_room()
            office.holds(below.prefix)
            papers = await office.documents()
            drafts = drafts_of(lot, below, sensitive=office.keeps_case(below.prefix))
            good = [one for one in drafts if not isinstance(one, ZaibeiError)]
            needs = office.lot_admitted(papers, caller_of(who), below.prefix, good)
        except ZaibeiError:
            return []
        admitted = [(draft[0], need) for draft, need in zip(good, needs, strict=False) if isinstance(need, Precondition)]
        asked, decided, found = iter(office.clerk.ask(admitted, told)), iter(needs), list[Taken | NotTaken]()
        for draft in drafts:
            one = draft.trouble if isinstance(draft, ZaibeiError) else next(decided, None)
            if one is None:
                break
            if isinstance(one, Precondition):
                taken = next(asked)
                found.append(NotTaken(taken, office) if isinstance(taken, Trouble) else Taken(office, taken))
            else:
                trouble = one if isinstance(one, Trouble) else one.trouble
                found.append(self._not_taken(who, trouble, office, below))
                if trouble.code is Code.OVER_QUOTA:
                    break  # what comes behind it is not looked at
        return found

    async def _take_one(self, who: Peer, wire: registration_pb2.Change, told: Told) -> Taken | NotTaken:
        office, at, below = None, "", None
        try:
            name = named(wire.identifier)
            at = self._offices.source_at(name.owner)
            office = self._offices.office(name.owner, who)
            below = below_of(wire.identifier)
            office.has_room()
            if wire.delete and wire.values:
                raise ZaibeiError(Code.MALFORMED, "a delete carries no values")
            if wire.delete:
                change, need = delete_of(office.key(name)[0]), precondition_of(wire.precondition)
            else:
                change, need = put_change(office, name, wire.values, wire.precondition)
            need = office.admitted(await office.documents(), caller_of(who), name, change, need)
        except ZaibeiError as exc:
            return self._not_taken(who, exc.trouble, office, below, at)
        [asked] = office.clerk.ask([(change, need)], told)
        return NotTaken(asked, office) if isinstance(asked, Trouble) else Taken(office, asked)

    def _not_taken(self, who: Peer, trouble: Trouble, office: Office | None, below: Below | None, at: str = "") -> NotTaken:
        """Counted as a refusal, as each is that is refused like it."""
        source = office.source if office is not None else at
        again = partial(self._offices.denied, trouble.code, source, who.fingerprint)
        again(1)
        return NotTaken(trouble, office, "" if below is None else below.text, again)

    # ------------------------------------------------------------------------------------------------- reads
    async def Get(self, request: registration_pb2.GetRequest, context: Context) -> registration_pb2.GetResponse:
        async with self._call(context) as call:
            if not 1 <= len(request.identifiers) <= IDENTIFIERS_MAX:
                raise ZaibeiError(Code.MALFORMED, f"1 to {IDENTIFIERS_MAX} identifiers, not {len(request.identifiers)}")
            names = [named(text) for text in request.identifiers]
            office = call.office(names[0].owner)
            if any(call.office(name.owner) is not office for name in names[1:]):
                raise ZaibeiError(Code.MALFORMED, "the identifiers belong to several sources: ask for each source's alone")
            values, position = await office.clerk.read([office.key(name)[0] for name in names], stale=request.stale)
            papers = await office.documents()
            for owner in (owners := {name.owner for name in names}):
                office.readable(papers, call.caller, Operation.READ, owner)
            part = {owner for owner in owners if not office.tells_all(papers, call.caller, owner)}
            if sum(len(value) for value in values if value) > PAGE_OCTETS_MAX and len(values) > 1:
                raise ZaibeiError(Code.MALFORMED, f"the records have over {PAGE_OCTETS_MAX} octets: ask for fewer at once")
            records = [told(one.text, value, public_only=one.owner in part) for one, value in zip(names, values, strict=True)]
        return registration_pb2.GetResponse(records=records, position=position.to_wire())

    async def List(self, request: registration_pb2.ListRequest, context: Context) -> registration_pb2.ListResponse:
        async with self._call(context) as call:
            limit = request.limit or PAGE_RECORDS_MAX
            if limit > PAGE_RECORDS_MAX:
                raise ZaibeiError(Code.MALFORMED, f"a page has 1 to {PAGE_RECORDS_MAX} records, not {limit}")
            prefix = prefix_key(request.prefix)
            office = call.office(prefix)
            office.holds(prefix)
            start, stop = page_range(prefix, request.page_token)
            _, position = await office.clerk.read([], stale=request.stale)
            papers = await office.documents()
            office.readable(papers, call.caller, Operation.LIST, prefix)
            part = not office.tells_all(papers, call.caller, prefix)
            rows, more = await page_of(office.clerk, start, stop, limit)
            records = [listed(key, value, names_only=request.names_only, public_only=part) for key, value in rows if value]
        token = token_after(rows[-1][0]) if more else b""
        return registration_pb2.ListResponse(records=records, next_page_token=token, position=position.to_wire())

    # ------------------------------------------------------------------------------------------------- callers
    def _who(self, context: Context) -> Peer:
        """The registrar behind a call. Raises ZaibeiError(NOT_AUTHORISED)."""
        certificates = list(context.auth_context().get("x509_pem_cert", []))
        octets = bytes(certificates[0]) if certificates else b""
        peer = self._peers.get(octets)
        if peer is None:
            peer = self._pins.by_certificate(octets) if octets else None
            if peer is None:
                raise ZaibeiError(Code.NOT_AUTHORISED, "this certificate is no registrar's here")
            if len(self._peers) >= PEERS_KEPT_MAX:
                self._peers.clear()
            self._peers[octets] = peer
        return peer

    @asynccontextmanager
    async def _call(self, context: Context) -> AsyncIterator[_Call]:
        """A call by somebody we know; any ZaibeiError inside ends it with a refusal."""
        call: _Call | None = None
        try:
            call = _Call(self._offices, self._who(context))
            yield call
        except ZaibeiError as exc:
            if call is None:
                self._offices.denied(exc.code, "", "a certificate that is no registrar's")
            else:
                self._offices.denied(exc.code, call.at, call.who.fingerprint)
            if call is not None and call.met is not None:
                await held_back(call.met, exc.trouble)
            refusal = refusal_of(exc.trouble, call.met if call is not None else None)
            status = (
                STATUS.get(exc.code, grpc.StatusCode.FAILED_PRECONDITION) if exc.trouble.definite else grpc.StatusCode.UNKNOWN
            )
            await context.abort(status, f"{exc.code}: {refusal.message}", ((REFUSAL_KEY, refusal.SerializeToString()),))


def put_change(office: Office, name: Named, values: bytes, need: registration_pb2.Precondition) -> tuple[Change, Precondition]:
    """Raises ZaibeiError: MALFORMED, NOT_OWNER."""
    key, spelling = office.key(name)
    return put_of(key, spelling, values), precondition_of(need)


def _as_error(verdict: Verdict) -> ZaibeiError:
    trouble = verdict.trouble or Trouble(Code.UNKNOWN, "no outcome", definite=False)
    return ZaibeiError(trouble.code, trouble.message, definite=trouble.definite, retry=trouble.retry, retry_ms=trouble.retry_ms)


async def page_of(clerk: Clerk, start: bytes, stop: bytes, limit: int) -> tuple[list[tuple[bytes, bytes]], bool]:
    """Records of one page, and whether there are more. Read in small parts: a page is bounded in octets too."""
    rows: list[tuple[bytes, bytes]] = []
    octets = 0
    while len(rows) < limit:
        wanted = min(limit - len(rows), SCAN_RECORDS)
        part = await clerk.group.scan(start, stop, wanted)
        for key, value in part:
            if rows and octets + len(value) > PAGE_OCTETS_MAX:
                return rows, True
            rows.append((key, value))
            octets += len(key) + len(value)
        if len(part) < wanted:
            return rows, False
        start = rows[-1][0] + b"\0"
    return rows, True
