"""The one-time token: what a person carries from the centre to a node, as one word of URL-safe text."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from replica.model.errors import Code, ZaibeiError, require
from replica.model.trust import Role

TOKEN_START = "zaibei1-"  # of every token; the number is its format
TICKET_OCTETS = 8
SECRET_OCTETS = 16
CHECK_OCTETS = 4  # of a digest, so that a token cut short says so before anything is sent
TOKEN_CHARACTERS_MAX = 4_096
ADDRESSES_MAX = 16


@dataclass(frozen=True, slots=True)
class Token:
    """Args:
    addresses: `host:port` of the service that takes it; tried in turn.
    authority: SHA-256 of the CA's root certificate in DER; whoever answers there must show a chain to it.
    ticket: which one of those given out; secret: proves that one holds it.
    expires_s: Unix seconds.
    """

    addresses: tuple[str, ...]
    authority: bytes
    ticket: bytes
    secret: bytes
    role: Role
    name: str
    expires_s: int

    def __post_init__(self) -> None:
        require(len(self.ticket) == TICKET_OCTETS and len(self.secret) == SECRET_OCTETS, "a token's parts have their lengths")

    def __repr__(self) -> str:
        return f"Token({self.role} {self.name}, {self.ticket.hex()})"


class _Fields(msgspec.Struct):
    a: tuple[str, ...]
    c: str
    t: str
    s: str
    r: str
    n: str
    e: int


def encode_token(token: Token) -> str:
    """URL-safe text without padding."""
    fields = _Fields(
        token.addresses,
        token.authority.hex(),
        token.ticket.hex(),
        token.secret.hex(),
        str(token.role),
        token.name,
        token.expires_s,
    )
    body = msgspec.json.encode(fields)
    return TOKEN_START + base64.urlsafe_b64encode(sha256(body).digest()[:CHECK_OCTETS] + body).rstrip(b"=").decode()


_decode = msgspec.json.Decoder(_Fields).decode  # made once: see replica/store/state_row.py


def decode_token(text: str) -> Token:
    """Raises ZaibeiError(MALFORMED): no token, or not the whole of it."""
    text = text.strip()
    if not text.startswith(TOKEN_START) or len(text) > TOKEN_CHARACTERS_MAX:
        raise ZaibeiError(
            Code.MALFORMED, f"that is no token: one begins with {TOKEN_START!r}, as `zaibei source enroll` prints it"
        )
    try:
        body = text[len(TOKEN_START) :]
        octets = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        check, inner = octets[:CHECK_OCTETS], octets[CHECK_OCTETS:]
        if sha256(inner).digest()[:CHECK_OCTETS] != check:
            raise ValueError("its check does not fit")
        fields = _decode(inner)
        authority, ticket, secret = bytes.fromhex(fields.c), bytes.fromhex(fields.t), bytes.fromhex(fields.s)
        if (len(authority), len(ticket), len(secret)) != (32, TICKET_OCTETS, SECRET_OCTETS):
            raise ValueError("a part has a wrong length")
        if not 1 <= len(fields.a) <= ADDRESSES_MAX:
            raise ValueError("it names no address")
        return Token(fields.a, authority, ticket, secret, Role(fields.r), fields.n, fields.e)
    except (ValueError, binascii.Error, msgspec.MsgspecError) as exc:
        raise ZaibeiError(Code.MALFORMED, f"the token is not whole ({exc}): copy all of it, in one word") from None
