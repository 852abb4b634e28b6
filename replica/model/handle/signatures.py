"""Messages signed with a site's key, outside of sessions: the credential HS_SIGNED behind them, made and judged. Pure.

| version of the message | here |
| --- | --- |
| 2.8 and later | RSA (PKCS #1 v1.5) with SHA-256 over what `admin_bodies.signed_octets` says, counter 0 |
| 2.7 | the same without the two octets of the suggested version |
| 2.5, 2.6 | refused: what the deployed encoder signed and what it judged there differ |
| before 2.5 | refused: SHA-1 over header and body alone, so that a signature fits any request, and another text that collides |

Whoever judges takes the key from the HS_SITE it asked. Our signed answers have the flag CT; alone it proves nothing.
Source: protocol 2.11 (HSv9).
"""

from __future__ import annotations

import struct
from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from replica.model.handle.admin_bodies import HS_SIGNED, SIGNED_SINCE, Credential, decode_credential, signed_octets
from replica.model.handle.codes import ENVELOPE_OCTETS, OpFlag, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.keys import encode_key
from replica.model.handle.message import (
    SHA256_SINCE,
    Envelope,
    Message,
    Version,
    decode_envelope,
    encode_envelope,
    signed_part,
    version_rank,
)
from replica.model.handle.proofs import public_key_of
from replica.model.handle.wire import U32

DIGEST_NAME = b"SHA-256"
CERTIFY_AT = ENVELOPE_OCTETS + 8  # the octet of a message that has the flag CT
CERTIFY_BIT = int(OpFlag.CERTIFY) >> 24
_SIGNED_27 = struct.Struct(">2B3I")
_NO_SIGNATURE = "an answer that was to be signed is not"
_NOT_GOOD = "the signature is not of this message and this site's key"


def has_signatures(version: Version) -> bool:
    """Are messages of this version signed here?"""
    return version_rank(version) >= SHA256_SINCE


def wants_signature(octets: bytes) -> bool:
    """Does a whole message that is not encrypted ask for a signed answer?"""
    return len(octets) > CERTIFY_AT and bool(octets[CERTIFY_AT] & CERTIFY_BIT)


def public_data(public: rsa.RSAPublicKey) -> bytes:
    """A key as data of an HS_PUBKEY value, and of a server in an HS_SITE."""
    numbers = public.public_numbers()
    return encode_key("RSA", {"e": _unsigned(numbers.e), "n": _unsigned(numbers.n)})


def signed(octets: bytes, private: rsa.RSAPrivateKey) -> bytes:
    """A whole message without a credential, with the flag CT and its signature. Takes about half a millisecond of a core.

    Raises ProtocolFault(INVALID_CREDENTIAL): of a version before 2.7.
    """
    envelope = decode_envelope(octets)
    flagged = b"".join((octets[:CERTIFY_AT], bytes((octets[CERTIFY_AT] | CERTIFY_BIT,)), octets[CERTIFY_AT + 1 :]))
    part = signed_part(flagged)
    signature = private.sign(_covered(envelope, 0, part), padding.PKCS1v15(), hashes.SHA256())
    credential = Credential(HS_SIGNED, DIGEST_NAME, signature).encode()
    tail = U32.pack(len(credential)) + credential
    return encode_envelope(replace(envelope, length=len(part) + len(tail))) + part + tail


def judge_signature(message: Message, octets: bytes, key: bytes) -> None:
    """Is this answer what the site with this key said? It returns if so.

    Args:
        octets: of the whole message.
        key: public key of the server in the HS_SITE that was asked.
    Raises:
        ProtocolFault: INVALID_CREDENTIAL (there is no signature, or another's), INVALID_VALUE (that is no key to judge by).
    """
    credential = decode_credential(message.credential)
    if credential is None or credential.kind != HS_SIGNED:
        raise _refused(_NO_SIGNATURE, message)
    if credential.digest != DIGEST_NAME:
        raise _refused("signatures are judged with SHA-256", message)
    public = public_key_of(key)
    if not isinstance(public, rsa.RSAPublicKey):
        raise ProtocolFault("signatures of sites are judged with RSA keys", ResponseCode.INVALID_VALUE, message.envelope)
    covered = _covered(message.envelope, credential.counter, signed_part(octets))
    try:
        public.verify(credential.signature, covered, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature as exc:
        raise _refused(_NOT_GOOD, message) from exc


def _covered(envelope: Envelope, counter: int, header_and_body: bytes) -> bytes:
    if version_rank(envelope.version) >= SIGNED_SINCE:
        return signed_octets(envelope, counter, header_and_body)
    if not has_signatures(envelope.version):
        text = f"messages of {envelope.version[0]}.{envelope.version[1]} are not signed here: use 2.7 or later"
        raise ProtocolFault(text, ResponseCode.INVALID_CREDENTIAL, envelope)
    return _SIGNED_27.pack(*envelope.version, envelope.session_id, envelope.request_id, counter) + header_and_body


def _refused(text: str, message: Message) -> ProtocolFault:
    return ProtocolFault(text, ResponseCode.INVALID_CREDENTIAL, message.envelope, message.header.op_code)


def _unsigned(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
