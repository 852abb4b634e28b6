"""Messages of a session: the MAC behind them, made and judged. Pure.

MAC = HMAC-SHA256 with the session's key, over what `admin_bodies.signed_octets` says, in a credential of kind HS_MAC. On the wire
the key is u32 algorithm and key, encrypted for its reader; the MAC's key is the key alone. Algorithms: 3 (AES with 128 bits), 4
(SM4, an addition of China's SDKs). 1 and 2 (DES, 3DES) are weak, and no key of theirs is one here.
Source: protocol 2.11 (HSv9).
"""

from __future__ import annotations

import hmac

from replica.model.handle.admin_bodies import HS_MAC, SIGNED_SINCE, Credential, decode_credential, signed_octets
from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.message import Message, decode_envelope, encode_envelope, signed_part, version_rank
from replica.model.handle.wire import U32, Reader

MAC_NAME = b"HMAC-SHA256"
AES_128 = 3
SM4 = 4
ALGORITHMS = (AES_128, SM4)
KEY_OCTETS = 16  # of both, as we make them
AES_KEY_OCTETS = (16, 24, 32)  # as clients make them: their whole key makes MACs, its first 16 octets encrypt


def key_on_wire(key: bytes, algorithm: int = AES_128) -> bytes:
    """A session's key before it is encrypted for its reader."""
    return U32.pack(algorithm) + key


def key_from_wire(octets: bytes) -> tuple[bytes, int]:
    """Inverse of `key_on_wire`: the key and its algorithm. Raises ProtocolFault(INVALID_SESSION_KEY)."""
    reader = Reader(octets, code=ResponseCode.INVALID_SESSION_KEY)
    algorithm = reader.u32()
    if algorithm not in ALGORITHMS or reader.rest not in (AES_KEY_OCTETS if algorithm == AES_128 else (KEY_OCTETS,)):
        raise reader.fault(f"a session's key is of algorithm {AES_128} or {SM4} with {KEY_OCTETS} octets here")
    return reader.take(reader.rest), algorithm


def can_sign(message: Message) -> bool:
    """Is an answer to this request of a version whose MACs cover all they must?"""
    return version_rank(message.envelope.answer_version) >= SIGNED_SINCE


def sealed(octets: bytes, key: bytes, counter: int) -> bytes:
    """A whole message without a credential, with its MAC behind it. Raises ProtocolFault: of a version before 2.8."""
    envelope, part = decode_envelope(octets), signed_part(octets)
    mac = hmac.digest(key, signed_octets(envelope, counter, part), "sha256")
    credential = Credential(HS_MAC, MAC_NAME, mac, counter).encode()
    tail = U32.pack(len(credential)) + credential
    return encode_envelope(envelope, len(part) + len(tail)) + part + tail


def judge_mac(message: Message, octets: bytes, key: bytes) -> int:
    """Counter of a message whose MAC is good.

    Args:
        octets: of the whole message.
    Raises:
        ProtocolFault: INVALID_CREDENTIAL (there is no MAC we judge), INVALID_SESSION_KEY (it is of another key or message).
    """
    credential = decode_credential(message.credential)
    if credential is None or credential.kind != HS_MAC or credential.digest != MAC_NAME:
        text = "a message of a session has a credential HS_MAC with HMAC-SHA256"
        raise ProtocolFault(text, ResponseCode.INVALID_CREDENTIAL, message.envelope, message.header.op_code)
    wanted = hmac.digest(key, signed_octets(message.envelope, credential.counter, signed_part(octets)), "sha256")
    if not hmac.compare_digest(wanted, credential.signature):
        text = "the MAC is not of this message and this session"
        raise ProtocolFault(text, ResponseCode.INVALID_SESSION_KEY, message.envelope, message.header.op_code)
    return credential.counter
