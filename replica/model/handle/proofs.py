"""Proofs of a challenge: made by a client, judged by a server. Pure: the salt is an argument.

secret key: u8 code and a MAC over m = nonce and request digest, with the octets of an HS_SECKEY value as the key

| code | MAC | here |
| --- | --- | --- |
| 0x01 | MD5(key, m, key) | refused: MD5 proves nothing today |
| 0x02, 0x03 | SHA-1 or SHA-256 (key, m, key) | judged |
| 0x12, 0x13 | HMAC-SHA1, HMAC-SHA256 | judged |
| 0x22 | bytes salt, u32 iterations, u32 bits, bytes HMAC-SHA1(PBKDF2-HMAC-SHA1(key), m) | judged, made by default |

public key: string hash name, bytes signature over m, with the RSA (PKCS #1 v1.5) or DSA (DER) key of an HS_PUBKEY value.
The client chooses salt and iterations, so both have limits: a proof must not cost the server more than a moment.
Source: protocol 2.11 (HSv9).
"""

from __future__ import annotations

import hashlib
import hmac
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, padding, rsa

from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.keys import decode_key
from replica.model.handle.wire import U32, Reader, string

SALT_OCTETS = 16
SALT_OCTETS_MAX = 64
ITERATIONS_DEFAULT = 10_000
ITERATIONS_MAX = 100_000  # about 0.1 s of one core
DERIVED_BITS_DEFAULT = 160
DERIVED_BITS_MAX = 512
DERIVED_BITS_MIN = 128
RSA_BITS_MIN, RSA_BITS_MAX = 1_024, 8_192
SECRET_OCTETS_MAX = 1_024
_HASHES: Final[dict[bytes, hashes.HashAlgorithm]] = {
    b"SHA1": hashes.SHA1(),
    b"SHA-1": hashes.SHA1(),
    b"SHA256": hashes.SHA256(),
    b"SHA-256": hashes.SHA256(),
}


class MacCode(IntEnum):
    """First octet of a proof by a secret key."""

    MD5 = 0x01
    SHA1 = 0x02
    SHA256 = 0x03
    HMAC_SHA1 = 0x12
    HMAC_SHA256 = 0x13
    PBKDF2_HMAC_SHA1 = 0x22


_NAMES: Final = {MacCode.SHA1: "sha1", MacCode.SHA256: "sha256", MacCode.HMAC_SHA1: "sha1", MacCode.HMAC_SHA256: "sha256"}


def prove_secret(secret: bytes, nonce: bytes, digest: bytes, code: MacCode, *, salt: bytes = b"") -> bytes:
    """A client's proof. `salt`: 16 random octets for PBKDF2. Raises CodecMisuse: MD5 is not made."""
    message = nonce + digest
    if code is MacCode.PBKDF2_HMAC_SHA1:
        mac = _pbkdf2_mac(secret, message, salt, ITERATIONS_DEFAULT, DERIVED_BITS_DEFAULT)
        head = string(salt) + U32.pack(ITERATIONS_DEFAULT) + U32.pack(DERIVED_BITS_DEFAULT)
        return bytes((code,)) + head + string(mac)
    if code is MacCode.MD5:
        raise CodecMisuse("proofs with MD5 are not made")
    return bytes((code,)) + _mac(secret, message, code)


def prove_public(private: rsa.RSAPrivateKey, nonce: bytes, digest: bytes) -> bytes:
    """A client's proof by its key pair, with SHA-256."""
    return string(b"SHA-256") + string(private.sign(nonce + digest, padding.PKCS1v15(), hashes.SHA256()))


def judge_secret(secret: bytes, nonce: bytes, digest: bytes, proof: bytes) -> bool:
    """Was the proof made with this secret? May take 0.1 s of a core.

    Raises:
        ProtocolFault(AUTHENTICATION_FAILED): a MAC we do not judge, numbers over a limit, or octets that are no proof.
    """
    reader = Reader(proof, code=ResponseCode.AUTHENTICATION_FAILED)
    number, message = reader.u8(), nonce + digest
    if number not in _NAMES and number != MacCode.PBKDF2_HMAC_SHA1:
        raise reader.fault(f"proofs of kind {number:#04x} are not judged here: use PBKDF2, HMAC, SHA-256 or SHA-1")
    if not 1 <= len(secret) <= SECRET_OCTETS_MAX:
        raise reader.fault(f"a secret key has 1 to {SECRET_OCTETS_MAX} octets")
    if number != MacCode.PBKDF2_HMAC_SHA1:
        return hmac.compare_digest(_mac(secret, message, MacCode(number)), proof[1:])
    salt, iterations, bits = reader.string(), reader.u32(), reader.u32()
    mac = reader.string()
    reader.done()
    if not 1 <= len(salt) <= SALT_OCTETS_MAX or not 1 <= iterations <= ITERATIONS_MAX:
        raise reader.fault(f"a salt has 1 to {SALT_OCTETS_MAX} octets, iterations are 1 to {ITERATIONS_MAX}")
    if bits % 8 or not DERIVED_BITS_MIN <= bits <= DERIVED_BITS_MAX:
        raise reader.fault(f"a derived key has {DERIVED_BITS_MIN} to {DERIVED_BITS_MAX} bits, whole octets")
    return hmac.compare_digest(_pbkdf2_mac(secret, message, salt, iterations, bits), mac)


def judge_public(key: bytes, nonce: bytes, digest: bytes, proof: bytes) -> bool:
    """Was the proof signed by the private half of this HS_PUBKEY value?

    Raises:
        ProtocolFault: AUTHENTICATION_FAILED (a hash we do not judge, octets that are no proof), INVALID_VALUE (the key is not
            an RSA or DSA key that can be used).
    """
    reader = Reader(proof, code=ResponseCode.AUTHENTICATION_FAILED)
    name, signature = reader.string(), reader.string()
    reader.done()
    chosen = _HASHES.get(name.upper())
    if chosen is None:
        raise reader.fault("signatures are judged with SHA-256 or SHA-1")
    try:
        public = public_key_of(key)
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, nonce + digest, padding.PKCS1v15(), chosen)
        else:
            public.verify(signature, nonce + digest, chosen)
    except InvalidSignature:
        return False
    return True


def public_key_of(data: bytes) -> rsa.RSAPublicKey | dsa.DSAPublicKey:
    """The key of an HS_PUBKEY value. Raises ProtocolFault(INVALID_VALUE)."""
    kty, octets = decode_key(data)
    numbers = {name: int.from_bytes(one, "big") for name, one in octets.items()}
    try:
        if kty == "DSA":
            parameters = dsa.DSAParameterNumbers(numbers["p"], numbers["q"], numbers["g"])
            return dsa.DSAPublicNumbers(numbers["y"], parameters).public_key()
        if not RSA_BITS_MIN <= numbers["n"].bit_length() <= RSA_BITS_MAX:
            raise ValueError(f"a modulus has {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")
        return rsa.RSAPublicNumbers(numbers["e"], numbers["n"]).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ProtocolFault(f"a public key that cannot be used: {exc}", ResponseCode.INVALID_VALUE) from exc


def _mac(secret: bytes, message: bytes, code: MacCode) -> bytes:
    name = _NAMES[code]
    if code in (MacCode.HMAC_SHA1, MacCode.HMAC_SHA256):
        return hmac.digest(secret, message, name)
    return hashlib.new(name, secret + message + secret, usedforsecurity=False).digest()


def _pbkdf2_mac(secret: bytes, message: bytes, salt: bytes, iterations: int, bits: int) -> bytes:
    return hmac.digest(hashlib.pbkdf2_hmac("sha1", secret, salt, iterations, bits // 8), message, "sha1")
