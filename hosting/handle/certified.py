"""Who a client's certificate speaks for: the key it names and holds. Pure.

The name is `index:handle` in the subject's UID or, without one, its CN, as clients of the deployed servers make them. That the
client has the private key was shown by TLS; that the named HS_PUBKEY value is this very key is the judge's to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.x509.oid import NameOID

from hosting.handle.json_auth import key_of
from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.values import Reference


@dataclass(frozen=True, slots=True)
class Certified:
    """A key and the public half that was shown."""

    key: Reference
    public: rsa.RSAPublicKey | dsa.DSAPublicKey


def read_certificate(der: bytes, now_ms: int) -> Certified:
    """Raises ProtocolFault(AUTHENTICATION_FAILED): it names no key, has a key of another kind, or is not valid now."""
    try:
        shown = x509.load_der_x509_certificate(der)
        public, subject = shown.public_key(), shown.subject
        valid = shown.not_valid_before_utc.timestamp() * 1_000 <= now_ms <= shown.not_valid_after_utc.timestamp() * 1_000
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise _refused("your certificate cannot be read") from exc
    if not valid:
        raise _refused("your certificate is not valid now")
    if not isinstance(public, rsa.RSAPublicKey | dsa.DSAPublicKey):
        raise _refused("your certificate's key is neither RSA nor DSA, as HS_PUBKEY values are")
    names = subject.get_attributes_for_oid(NameOID.USER_ID) or subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise _refused("your certificate names its key as index:handle in one UID or CN")
    name = names[0].value
    try:
        return Certified(key_of(name.encode() if isinstance(name, str) else name), public)
    except ProtocolFault as fault:
        raise _refused(f"your certificate's subject: {fault.detail}") from fault


def same_public(one: rsa.RSAPublicKey | dsa.DSAPublicKey, other: rsa.RSAPublicKey | dsa.DSAPublicKey) -> bool:
    """Are they one key?"""
    return type(one) is type(other) and one.public_numbers() == other.public_numbers()


def _refused(text: str) -> ProtocolFault:
    return ProtocolFault(text, ResponseCode.AUTHENTICATION_FAILED)
