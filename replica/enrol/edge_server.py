"""The service of enrolment: TLS where the caller needs no certificate; its token, or its old certificate, is what counts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, NoReturn

import grpc
from cryptography import x509

from replica.enrol.port import Admission, AdmissionRequest, AdmissionResult, Centre, Issuer, Shelf, Welcome
from replica.enrol.request import check_renewal, check_request
from replica.enrol.tickets import Callers, Presented, Ticket, present, refused
from replica.model.edge_identity import Identity
from replica.model.edge_server_keys import ServerKeys, port_credentials
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Trusts
from replica.model.trust import Claims, Role, claims_of
from replica.v1 import enrol_pb2, enrol_pb2_grpc

FORMAT = 1
MESSAGE_OCTETS_MAX = 256 * 1024
STREAMS_MAX = 16  # of one connection
CALLS_MAX = 64  # at once, of all callers
HANDSHAKE_MS_MAX = 5_000
IDLE_MS_MAX = 30_000
STOP_GRACE_S = 1.0
Context = grpc.aio.ServicerContext[Any, Any]
SERVICE = enrol_pb2.DESCRIPTOR.services_by_name["Enrolment"].full_name
OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", MESSAGE_OCTETS_MAX),
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS_MAX),
    ("grpc.max_connection_idle_ms", IDLE_MS_MAX),
    ("grpc.so_reuseport", 0),
)
_STATUS = {
    Code.NOT_AUTHORISED: grpc.StatusCode.PERMISSION_DENIED,
    Code.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Code.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
}

log = logging.getLogger("zaibei.enrol")


class EnrolService(enrol_pb2_grpc.EnrolmentServicer):
    """See the module.

    Args:
        trusts: the CA's certificates of every role, for renewals.
        centres: the members that copy sources, by now; cluster: theirs, empty: none.
        admission: None: no cluster here, so no members are enrolled.
    """

    def __init__(
        self,
        shelf: Shelf,
        issuer: Issuer,
        centres: Callable[[], Sequence[Centre]],
        trusts: Trusts,
        welcome: Welcome,
        admission: Admission | None = None,
        cluster: bytes = b"",
    ) -> None:
        self._shelf, self._issuer, self._trusts = shelf, issuer, trusts
        self._centres, self._cluster = centres, cluster
        self._welcome, self._admission = welcome, admission
        self._callers = Callers()
        self._turn = asyncio.Lock()  # one enrolment at a time: they are rare, and what they write belongs together

    async def Enrol(self, request: enrol_pb2.EnrolRequest, context: Context) -> enrol_pb2.EnrolResponse:
        caller = _address(context)
        try:
            self._callers.check(caller, time.monotonic())
            async with self._turn:
                return await self._enrol(request, caller)
        except ZaibeiError as exc:
            await _abort(context, exc)

    async def _enrol(self, request: enrol_pb2.EnrolRequest, caller: str) -> enrol_pb2.EnrolResponse:
        if request.format != FORMAT:
            raise ZaibeiError(Code.MALFORMED, f"a request of format {request.format}: this member speaks format {FORMAT}")
        try:
            tls, signing_key = await asyncio.to_thread(check_request, request.request, request.name)
        except ZaibeiError:
            self._callers.was_wrong(caller, time.monotonic())
            raise
        ticket = await asyncio.to_thread(self._judge, request, caller)
        result = AdmissionResult(0, b"", self._cluster)
        if ticket.role is Role.MEMBER:
            result = await self._admit(ticket, request.member)
        if not ticket.certificate_pem:
            claims = Claims(ticket.role, ticket.name, result.number, result.cluster if result.number else b"")
            chain = await asyncio.to_thread(self._issuer.issue, claims, tls, signing_key)
            done = await asyncio.to_thread(self._shelf.change, ticket.ident, lambda one: replace(one, certificate_pem=chain))
            if done is None:
                raise refused()
            ticket = done
        if ticket.role is Role.SOURCE:
            await self._welcome.source(ticket)
        log.warning("enrolled", extra={"fields": _about(ticket, caller) | {"number": result.number}})
        return enrol_pb2.EnrolResponse(
            certificate=ticket.certificate_pem,
            roots=self._issuer.roots_pem(),
            number=result.number,
            cluster=result.cluster,
            card=result.card,
            members=[enrol_pb2.EnrolMember(name=one.name, number=one.number, feeds=one.feeds) for one in self._centres()],
            prefixes=ticket.prefixes,
            pull=ticket.pull,
            lists=self._issuer.lists_pem(),
        )

    def _judge(self, request: enrol_pb2.EnrolRequest, caller: str) -> Ticket:
        """The ticket of a good request, marked as used on the disk. Raises ZaibeiError(NOT_AUTHORISED)."""
        digest = sha256(request.request.SerializeToString(deterministic=True)).digest()
        presented = Presented(request.secret, request.role, request.name, digest)
        why = ["no such ticket"]

        def step(ticket: Ticket) -> Ticket:
            after, why[0] = present(ticket, presented, time.time())
            return after

        ticket = self._shelf.change(request.ticket, step)
        if ticket is None or why[0]:
            self._callers.was_wrong(caller, time.monotonic())
            fields = {"caller": caller, "ticket": request.ticket[:16].hex(), "role": request.role[:16], "name": request.name[:64]}
            log.warning("enrolment refused", extra={"fields": fields | {"why": why[0]}})
            raise refused()
        return ticket

    async def _admit(self, ticket: Ticket, member: enrol_pb2.JoiningMember) -> AdmissionResult:
        if self._admission is None:
            raise ZaibeiError(
                Code.REFUSED, "this member belongs to no cluster. Next: `zaibei cluster init` there, then join again"
            )
        asked = AdmissionRequest(
            ticket.name, member.zone, tuple(member.links), tuple(member.feeds), bytes(member.journal), ticket.number
        )
        result = await self._admission.admit(asked)
        await asyncio.to_thread(self._shelf.change, ticket.ident, lambda one: replace(one, number=result.number))
        return result

    async def Renew(self, request: enrol_pb2.RenewRequest, context: Context) -> enrol_pb2.RenewResponse:
        caller = _address(context)
        try:
            self._callers.check(caller, time.monotonic())
            return await asyncio.to_thread(self._renew, request, caller)
        except ZaibeiError as exc:
            self._callers.was_wrong(caller, time.monotonic())
            log.warning("renewal refused", extra={"fields": {"caller": caller, "why": str(exc)}})
            await _abort(context, exc)

    def _renew(self, request: enrol_pb2.RenewRequest, caller: str) -> enrol_pb2.RenewResponse:
        if request.format != FORMAT:
            raise ZaibeiError(Code.MALFORMED, f"a renewal of format {request.format}: this member speaks format {FORMAT}")
        peer = self._trusts.identify(list(request.chain), time.time())
        leaf = x509.load_pem_x509_certificate(peer.certificate_pem)
        name = check_renewal(leaf, request.request.csr, request.signature)
        tls, signing_key = check_request(request.request, name)
        if signing_key != peer.signing_key:
            raise ZaibeiError(Code.NOT_AUTHORISED, "a renewal keeps the signing key; for another one enrol anew")
        chain = self._issuer.issue(claims_of(leaf), tls, signing_key)
        log.warning("certificate renewed", extra={"fields": {"caller": caller, "role": peer.role, "name": name}})
        return enrol_pb2.RenewResponse(certificate=chain, roots=self._issuer.roots_pem(), lists=self._issuer.lists_pem())


def _about(ticket: Ticket, caller: str) -> dict[str, object]:
    return {"caller": caller, "ticket": ticket.ident.hex(), "role": str(ticket.role), "name": ticket.name}


def _address(context: Context) -> str:
    """The caller's address without its port: what is counted."""
    return context.peer().rpartition(":")[0][:64]


async def _abort(context: Context, exc: ZaibeiError) -> NoReturn:
    await context.abort(_STATUS.get(exc.code, grpc.StatusCode.FAILED_PRECONDITION), str(exc))
    raise exc


class EnrolServer:
    """The service on addresses of its own. `addresses`: as bound."""

    def __init__(self, service: EnrolService, identity: Identity) -> None:
        self._server = grpc.aio.server(options=list(OPTIONS), maximum_concurrent_rpcs=CALLS_MAX)
        enrol_pb2_grpc.add_EnrolmentServicer_to_server(service, self._server)
        self._identity = identity
        self.addresses: tuple[tuple[str, int], ...] = ()

    def _keys(self) -> ServerKeys:
        mine = self._identity.latest()
        return ServerKeys(mine.tls_key_pem, mine.certificate_pem)

    @staticmethod
    def _failed(exc: ZaibeiError) -> None:
        log.error("the server's certificate stays as it is", extra={"fields": {"why": str(exc)}})

    async def start(self, listen: Sequence[tuple[str, int]]) -> None:
        """Raises ZaibeiError(INVALID_CONFIG): an address is taken or not ours."""
        bound = []
        for host, port in listen:
            text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            try:
                bound.append((host, self._server.add_secure_port(text, port_credentials(self._keys, self._failed))))
            except RuntimeError as exc:
                raise ZaibeiError(Code.INVALID_CONFIG, f"cannot listen for enrolment on {text}: {exc}") from exc
        await self._server.start()
        self.addresses = tuple(bound)

    async def stop(self) -> None:
        await self._server.stop(STOP_GRACE_S)
