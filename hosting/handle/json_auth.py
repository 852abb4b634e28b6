"""Who asks over the JSON API: the Authorization header read, and the header that asks for one. Pure.

| scheme | says |
| --- | --- |
| Basic | base64 of `index%3Ahandle:secret`; the secret itself, so only where nobody listens |
| Handle | sessionId, cnonce, id (`index%3Ahandle`), type, alg, signature over nonce and cnonce; salt, iterations, length |

A Handle header with the number of a session and no proof means the key that was proved in it. All else, and a Handle header that
proves nothing, asks for a challenge. Source: JSON API of HSv9 (protocol digest 9).
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from replica.model.handle.admin_bodies import HS_PUBKEY, HS_SECKEY, KIND_OCTETS_MAX, NONCE_OCTETS_MAX, PROOF_OCTETS_MAX
from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.json_read import base64_octets
from replica.model.handle.names import check_name
from replica.model.handle.proofs import SECRET_OCTETS_MAX, MacCode
from replica.model.handle.values import Reference
from replica.model.handle.wire import U32, string

AUTHORIZATION_OCTETS_MAX = 12_288  # a name of 2,048 octets percent-encoded, and a signature
PARAMETERS_MAX = 16
CNONCE_OCTETS_MIN = 1
_PARAMETER = re.compile(r'\s*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s",]+)\s*(,|$)')
_ESCAPED = re.compile(r"\\(.)")
_CHALLENGE = re.compile(r"[0-9a-f]{1,8}")
_SESSION = re.compile(r"[89a-f][0-9a-f]{31}")  # 128 bits, the first of them 1: never the number of a challenge
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_MACS = {
    "MD5": MacCode.MD5,
    "SHA1": MacCode.SHA1,
    "SHA256": MacCode.SHA256,
    "HMACSHA1": MacCode.HMAC_SHA1,
    "HMACSHA256": MacCode.HMAC_SHA256,
    "PBKDF2HMACSHA1": MacCode.PBKDF2_HMAC_SHA1,
    "PBKDF2WITHHMACSHA1": MacCode.PBKDF2_HMAC_SHA1,
}


@dataclass(frozen=True, slots=True)
class Basic:
    """A key and its secret, as they are."""

    key: Reference
    secret: bytes


@dataclass(frozen=True, slots=True)
class InSession:
    """Whoever has this session (hosting/handle/edge_json_sessions.py)."""

    session: int


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof of a key, to a challenge or in a session.

    Args:
        session: number of the challenge or the session; 0: none of ours.
        kind: HS_SECKEY or HS_PUBKEY.
        cnonce: the client's own nonce, signed behind ours.
        octets: as in an answer of the Handle protocol (`replica.model.handle.proofs`).
    """

    session: int
    kind: bytes
    key: Reference
    cnonce: bytes
    octets: bytes

    @property
    def in_session(self) -> bool:
        return self.session >> 127 == 1


def read_authorization(header: bytes) -> Basic | Proof | InSession | None:
    """Credentials of an Authorization header; None: there are none, a challenge is wanted.

    Raises:
        ProtocolFault(PROTOCOL_ERROR): half of a credential, or over a limit. It never repeats what the header says.
    """
    if len(header) > AUTHORIZATION_OCTETS_MAX:
        raise ProtocolFault(f"an Authorization header has at most {AUTHORIZATION_OCTETS_MAX} octets")
    scheme, _, rest = header.strip().partition(b" ")
    if scheme.lower() == b"basic":
        return _basic(rest)
    if scheme.lower() == b"handle":
        try:
            return _handle(rest.decode("ascii"))
        except UnicodeDecodeError:
            raise ProtocolFault("an Authorization header is ASCII") from None
    return None


def challenge_headers(session: int, nonce: bytes, *, basic: bool) -> bytes:
    """Header lines of a 401. `basic`: a secret may be sent as it is."""
    said = b'WWW-Authenticate: Basic realm="handle"\r\n' if basic else b""
    given = binascii.b2a_base64(nonce, newline=False)
    return said + b'WWW-Authenticate: Handle sessionId="%08x", nonce="%b"\r\n' % (session, given)


def key_of(octets: bytes) -> Reference:
    """A key written `index:handle`. Raises ProtocolFault."""
    index, colon, handle = octets.partition(b":")
    if not colon or not index.isdigit() or len(index) > 10 or not 0 < int(index) < 1 << 32:
        raise ProtocolFault("a key is written index:handle, its index over 0")
    try:
        check_name(handle).decode()
    except UnicodeDecodeError:
        raise ProtocolFault("a handle's name is UTF-8", ResponseCode.INVALID_HANDLE) from None
    return Reference(handle, int(index))


def proof_octets(
    kind: bytes, alg: str, signature: bytes, *, salt: bytes | None = None, iterations: int = 0, bits: int = 0
) -> bytes:
    """A proof as the Handle protocol writes it. Raises ProtocolFault(AUTHENTICATION_FAILED): an algorithm nobody knows."""
    if kind == HS_PUBKEY:
        return string(alg.encode()) + string(signature)
    code = _MACS.get(alg.upper().replace("-", "").replace("_", ""))
    if code is None:
        raise ProtocolFault("secret keys are proved with PBKDF2-HMAC-SHA1, HMAC or a hash", ResponseCode.AUTHENTICATION_FAILED)
    if code is MacCode.PBKDF2_HMAC_SHA1 and salt is not None:
        signature = string(salt) + U32.pack(iterations) + U32.pack(bits) + string(signature)
    return bytes((code,)) + signature


def number_of(text: str) -> int:
    """A number of 32 bits in decimal. Raises ProtocolFault."""
    if not _NUMBER.fullmatch(text) or int(text) >= 1 << 32:
        raise ProtocolFault("a number is written with digits, up to 4294967295")
    return int(text)


def base64_of(text: str, octets_max: int) -> bytes:
    """Raises ProtocolFault: not base64, or too long."""
    try:
        octets = base64_octets(text)
    except ProtocolFault:
        raise ProtocolFault("a value is not base64") from None
    if len(octets) > octets_max:
        raise ProtocolFault(f"a value has at most {octets_max} octets here")
    return octets


def _basic(text: bytes) -> Basic:
    octets = base64_of(text.strip().decode("latin-1"), AUTHORIZATION_OCTETS_MAX)
    user, colon, secret = octets.partition(b":")
    if not colon or len(secret) > SECRET_OCTETS_MAX:
        raise ProtocolFault(f"Basic is user:secret, the secret up to {SECRET_OCTETS_MAX} octets")
    return Basic(key_of(unquote_to_bytes(user)), secret)


def _handle(text: str) -> Proof | InSession | None:
    given = _parameters(text)
    said = given.get("sessionid", "")
    in_session = _SESSION.fullmatch(said) is not None
    names = ("id", "type", "alg", "signature")
    if not any(name in given for name in names):
        return InSession(int(said, 16)) if in_session else None
    if any(name not in given for name in (*names, "cnonce")):
        raise ProtocolFault("a proof has sessionId, cnonce, id, type, alg and signature")
    kind, alg = given["type"].encode(), given["alg"]
    if kind not in (HS_PUBKEY, HS_SECKEY) or len(alg) > KIND_OCTETS_MAX:
        raise ProtocolFault("keys are HS_SECKEY or HS_PUBKEY here", ResponseCode.AUTHENTICATION_FAILED)
    cnonce = base64_of(given["cnonce"], NONCE_OCTETS_MAX)
    if len(cnonce) < CNONCE_OCTETS_MIN:
        raise ProtocolFault("a proof has a cnonce of its own")
    return Proof(
        int(said, 16) if in_session or _CHALLENGE.fullmatch(said) else 0,
        kind,
        key_of(unquote_to_bytes(given["id"])),
        cnonce,
        proof_of(kind, alg, given),
    )


def proof_of(kind: bytes, alg: str, given: dict[str, str]) -> bytes:
    """A proof out of parameters `signature`, and for PBKDF2 `salt`, `iterations`, `length`. Raises ProtocolFault."""
    signature = base64_of(given["signature"], PROOF_OCTETS_MAX)
    if "salt" not in given:
        return proof_octets(kind, alg, signature)
    iterations, bits = number_of(given.get("iterations", "")), number_of(given.get("length", ""))
    salt = base64_of(given["salt"], NONCE_OCTETS_MAX)
    return proof_octets(kind, alg, signature, salt=salt, iterations=iterations, bits=bits)


def _parameters(text: str) -> dict[str, str]:
    """Names in lower case. Raises ProtocolFault."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text) and text[at:].strip():
        match = _PARAMETER.match(text, at)
        if match is None or len(found) >= PARAMETERS_MAX:
            raise ProtocolFault('the parameters of a Handle credential are name="value", with commas between')
        name, value = match[1].lower(), match[2]
        if name in found:
            raise ProtocolFault("a parameter of a Handle credential comes twice")
        found[name] = _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
        at = match.end()
    return found
