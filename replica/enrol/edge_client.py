"""The caller's side of enrolment: who answers is checked against the token's fingerprint before the secret is said."""

from __future__ import annotations

import time
from collections.abc import Sequence

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from replica.enrol.edge_server import FORMAT
from replica.enrol.request import make_request, renewal_octets
from replica.enrol.token import Token
from replica.model.edge_identity import Identity
from replica.model.edge_look import look
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import TLS_NAME, Peer, Pins, Trusts
from replica.model.trust import Authority, Role, Trust, claims_of
from replica.v1 import enrol_pb2, enrol_pb2_grpc

CALL_S_MAX = 20.0
MEMBERS = frozenset({Role.MEMBER})


async def enrol(token: Token, request: enrol_pb2.EnrolRequest) -> enrol_pb2.EnrolResponse:
    """Ask each address of the token in turn; one that cannot show the CA of the token never sees the secret.

    Raises:
        ZaibeiError(NOT_AUTHORISED): another CA answers, or the token is not good; ZaibeiError(UNREACHABLE): nobody answers;
        what the member says otherwise, word for word.
    """
    troubles: list[ZaibeiError] = []
    for address in token.addresses:
        try:
            peer = await answering(address, token.authority)
            async with _channel(address, peer) as channel:
                stub: enrol_pb2_grpc.EnrolmentAsyncStub = enrol_pb2_grpc.EnrolmentStub(channel)
                return await stub.Enrol(request, timeout=CALL_S_MAX)
        except grpc.aio.AioRpcError as exc:
            troubles.append(refusal(exc, address))
        except ZaibeiError as exc:
            troubles.append(exc)
        if troubles[-1].code is not Code.UNREACHABLE:
            break
    raise troubles[-1]


def request_of(
    token: Token, wanted: enrol_pb2.CertificateRequest, member: enrol_pb2.JoiningMember | None = None
) -> enrol_pb2.EnrolRequest:
    """The request that a token makes."""
    return enrol_pb2.EnrolRequest(
        format=FORMAT,
        ticket=token.ticket,
        secret=token.secret,
        role=str(token.role),
        name=token.name,
        request=wanted,
        member=member,
    )


async def answering(address: str, authority: bytes) -> Peer:
    """The member that answers at an address, by the CA of this fingerprint.

    Raises:
        ZaibeiError(NOT_AUTHORISED): somebody else answers there.
    """
    chain = await look(address)
    try:
        shown = [one for pem in chain for one in x509.load_pem_x509_certificates(pem)]
    except ValueError as exc:
        raise ZaibeiError(Code.NOT_AUTHORISED, f"{address} shows no certificate that parses: {exc}") from exc
    root = next((one for one in shown if one.fingerprint(hashes.SHA256()) == authority), None)
    if root is None:
        raise ZaibeiError(
            Code.NOT_AUTHORISED,
            f"{address} is not of the CA that this token names (sha256:{authority.hex()[:16]}...). The token was not sent. "
            "Next: compare with the centre",
        )
    trust = Trust(Pins(), Authority.parse([root.public_bytes(Encoding.PEM)]), MEMBERS)
    return trust.identify(chain, time.time())


async def renew(
    identity: Identity, tls: ec.EllipticCurvePrivateKey, addresses: Sequence[str], trusts: Trusts
) -> enrol_pb2.RenewResponse:
    """A new certificate for the keys `tls` and the signing key we have, while the present certificate is still good.

    Raises:
        ZaibeiError: nobody answers, or the member refuses.
    """
    leaf = x509.load_pem_x509_certificate(identity.certificate_pem)
    wanted = make_request(claims_of(leaf), tls, identity.signer.private)
    request = enrol_pb2.RenewRequest(
        format=FORMAT, chain=[identity.certificate_pem], request=wanted, signature=_proof(identity, wanted.csr)
    )
    trouble = ZaibeiError(Code.NOT_FOUND, "no address of a member that enrols is known: write [pki] enrol")
    for address in addresses:
        try:
            peer = trusts.identify(await look(address), time.time())
            async with _channel(address, peer) as channel:
                stub: enrol_pb2_grpc.EnrolmentAsyncStub = enrol_pb2_grpc.EnrolmentStub(channel)
                return await stub.Renew(request, timeout=CALL_S_MAX)
        except grpc.aio.AioRpcError as exc:
            trouble = refusal(exc, address)
        except ZaibeiError as exc:
            trouble = exc
    raise trouble


def _proof(identity: Identity, csr: bytes) -> bytes:
    key = identity.tls_key()
    return key.sign(renewal_octets(csr), ec.ECDSA(hashes.SHA256()))


def _channel(address: str, peer: Peer) -> grpc.aio.Channel:
    """Only the holder of exactly this certificate can answer."""
    options = [("grpc.ssl_target_name_override", TLS_NAME), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(peer.certificate_pem), options=options)


def refusal(exc: grpc.aio.AioRpcError, address: str) -> ZaibeiError:
    """A call's final status as our error; the member's own words are kept."""
    words = (exc.details() or "no reason given")[:400]
    code = {
        grpc.StatusCode.PERMISSION_DENIED: Code.NOT_AUTHORISED,
        grpc.StatusCode.INVALID_ARGUMENT: Code.MALFORMED,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Code.BUSY,
        grpc.StatusCode.FAILED_PRECONDITION: Code.REFUSED,
        grpc.StatusCode.UNIMPLEMENTED: Code.NOT_FOUND,
    }.get(exc.code(), Code.UNREACHABLE)
    return ZaibeiError(code, f"{address}: {words}", retry=code in (Code.UNREACHABLE, Code.BUSY))
