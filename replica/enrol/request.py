"""Requests for a certificate: made with the keys they are for, and checked before anything is signed. Pure."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from replica.model.errors import Code, ZaibeiError
from replica.model.identity import SIGNING_KEY_OID, TLS_NAME
from replica.model.signing import canonical
from replica.model.trust import Claims, common_name
from replica.v1 import enrol_pb2

CSR_OCTETS_MAX = 8 * 1024
SIGNING_KEY_OCTETS = 32


def csr_of(claims: Claims, tls: ec.EllipticCurvePrivateKey, signing: Ed25519PrivateKey) -> x509.CertificateSigningRequest:
    """A request that says all that the certificate will say, so that any CA can sign it as it is."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, claims.name)]))
        .add_extension(names_of(claims), critical=False)
        .add_extension(x509.UnrecognizedExtension(SIGNING_KEY_OID, raw(signing)), critical=False)
        .sign(tls, hashes.SHA256())
    )


def names_of(claims: Claims) -> x509.SubjectAlternativeName:
    """The names of a certificate: TLS names, then what its holder is."""
    tls = [TLS_NAME] if not claims.number else [TLS_NAME, member_tls_name(claims.number, claims.cluster)]
    uris = [x509.UniformResourceIdentifier(uri) for uri in claims.uris()]
    return x509.SubjectAlternativeName([*(x509.DNSName(name) for name in tls), *uris])


def member_tls_name(number: int, cluster: bytes) -> str:
    """The TLS name that one certain member of a cluster answers under."""
    return ".".join([f"member-{number}", *([cluster.hex()] if cluster else []), TLS_NAME])


def raw(signing: Ed25519PrivateKey) -> bytes:
    """The public key, 32 octets."""
    return signing.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def signing_octets(csr_der: bytes) -> bytes:
    """What the signing key signs to show that it is there."""
    return canonical("zaibei-enrol-1", csr_der)


def renewal_octets(csr_der: bytes) -> bytes:
    """What the TLS key of the certificate that is renewed signs."""
    return canonical("zaibei-renew-1", csr_der)


def make_request(claims: Claims, tls: ec.EllipticCurvePrivateKey, signing: Ed25519PrivateKey) -> enrol_pb2.CertificateRequest:
    """The request, with a proof for each key."""
    csr = csr_of(claims, tls, signing).public_bytes(Encoding.DER)
    signature = signing.sign(signing_octets(csr))
    return enrol_pb2.CertificateRequest(csr=csr, signing_key=raw(signing), signature=signature)


def check_request(request: enrol_pb2.CertificateRequest, name: str) -> tuple[ec.EllipticCurvePublicKey, bytes]:
    """The TLS key and the signing key that want a certificate for this name; both were shown to be there.

    Nothing else that the request says is believed.

    Raises:
        ZaibeiError(MALFORMED).
    """
    if not 0 < len(request.csr) <= CSR_OCTETS_MAX or len(request.signing_key) != SIGNING_KEY_OCTETS:
        raise ZaibeiError(Code.MALFORMED, "a request holds a PKCS 10 request of at most 8 KiB and a signing key of 32 octets")
    try:
        csr = x509.load_der_x509_csr(request.csr)
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ZaibeiError(Code.MALFORMED, "the TLS key of a request is an ECDSA key on P-256")
        if not csr.is_signature_valid:
            raise ZaibeiError(Code.MALFORMED, "the request is not signed by its own TLS key")
        names = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if [str(one.value) for one in names] != [name]:
            raise ZaibeiError(Code.MALFORMED, "the request is for another name")
        Ed25519PublicKey.from_public_bytes(request.signing_key).verify(request.signature, signing_octets(request.csr))
    except InvalidSignature:
        raise ZaibeiError(Code.MALFORMED, "the request is not signed by its signing key") from None
    except ValueError as exc:
        raise ZaibeiError(Code.MALFORMED, f"the request does not parse: {exc}") from exc
    return key, request.signing_key


def check_renewal(leaf: x509.Certificate, csr_der: bytes, signature: bytes) -> str:
    """The name whose certificate is renewed; its present TLS key signed the new request.

    Raises:
        ZaibeiError(NOT_AUTHORISED).
    """
    key = leaf.public_key()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, renewal_octets(csr_der), ec.ECDSA(hashes.SHA256()))
            return common_name(leaf)
    except InvalidSignature:
        pass
    raise ZaibeiError(Code.NOT_AUTHORISED, "the renewal is not signed by the key of the certificate that is renewed")
