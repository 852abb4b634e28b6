"""Messages of a session, encrypted: everything behind the envelope, as deployed clients do it. Pure.

AES-128-CBC, or SM4-CBC where the client chose that, with PKCS #5 padding: IV and then what it made of Header | Body | Credential.
The envelope stays in clear, says that the rest is encrypted, and counts the encrypted octets. Nothing in it shows that it was
altered: that is the MAC's part. Whoever reads a message judges its MAC before anything else, and says of all faults the same.
Source: protocol 2.11 (HSv9).
"""

from __future__ import annotations

from dataclasses import replace

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from replica.model.handle.codes import ENVELOPE_OCTETS, MESSAGE_OCTETS_MAX, EnvelopeFlag, ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.macs import AES_128, KEY_OCTETS, SM4
from replica.model.handle.message import decode_envelope, encode_envelope

BLOCK_OCTETS = 16
_ENCRYPTED = int(EnvelopeFlag.ENCRYPTED)
_PADDING = PKCS7(BLOCK_OCTETS * 8)
_CIPHERS = {AES_128: algorithms.AES, SM4: algorithms.SM4}  # blocks of 16 octets, as their keys


def is_encrypted(octets: bytes) -> bool:
    return len(octets) >= ENVELOPE_OCTETS and bool(octets[2] & _ENCRYPTED)


def encrypted(octets: bytes, key: bytes, iv: bytes, algorithm: int = AES_128) -> bytes:
    """A whole message, encrypted. `iv`: 16 octets nobody can guess. Raises CodecMisuse: it is then over 262,144 octets."""
    padder, cipher = _PADDING.padder(), Cipher(_CIPHERS[algorithm](key[:KEY_OCTETS]), modes.CBC(iv)).encryptor()
    padded = padder.update(octets[ENVELOPE_OCTETS:]) + padder.finalize()
    part = iv + cipher.update(padded) + cipher.finalize()
    if len(part) > MESSAGE_OCTETS_MAX:
        raise CodecMisuse(f"a message has at most {MESSAGE_OCTETS_MAX} octets, encrypted it has {len(part)}")
    envelope = decode_envelope(octets)
    return encode_envelope(replace(envelope, flags=envelope.flags | _ENCRYPTED, length=len(part))) + part


def decrypted(octets: bytes, key: bytes, algorithm: int = AES_128) -> bytes:
    """The whole message in clear. Raises ProtocolFault(INVALID_SESSION_KEY): it is not of this key, or was altered."""
    envelope, part = decode_envelope(octets), octets[ENVELOPE_OCTETS:]
    if envelope.length != len(part) or len(part) > MESSAGE_OCTETS_MAX or len(part) % BLOCK_OCTETS or len(part) < 2 * BLOCK_OCTETS:
        raise ProtocolFault("what was encrypted has whole blocks", ResponseCode.INVALID_SESSION_KEY, envelope)
    cipher, unpadder = (
        Cipher(_CIPHERS[algorithm](key[:KEY_OCTETS]), modes.CBC(part[:BLOCK_OCTETS])).decryptor(),
        _PADDING.unpadder(),
    )
    padded = cipher.update(part[BLOCK_OCTETS:]) + cipher.finalize()
    try:
        plain = unpadder.update(padded) + unpadder.finalize()
    except ValueError as exc:
        raise ProtocolFault("not of this session's key", ResponseCode.INVALID_SESSION_KEY, envelope) from exc
    return encode_envelope(replace(envelope, flags=envelope.flags & ~_ENCRYPTED, length=len(plain))) + plain
