"""Changing records at a Handle server: requests, the proof its challenge asks for, and what its answers mean. Pure.

    request (102 add, 103 remove, 104 modify) -> 402 nonce, digest of the request -> 200 proof -> answer to the request

A challenge is answered only if it names the digest of our own request: who sits between could have another one signed.
Source: protocol 2.11 (HSv9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import rsa

from replica.model.errors import Code, ZaibeiError
from replica.model.handle.admin_bodies import HS_PUBKEY, HS_SECKEY, Challenge, ChallengeAnswer, decode_challenge
from replica.model.handle.bodies import ErrorResponse, IndexesRequest, ValuesRequest, decode_response
from replica.model.handle.codes import FLAGS_DEFAULT, DigestType, OpCode, OpFlag, ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message, request_digest
from replica.model.handle.names import check_name
from replica.model.handle.proofs import MacCode, prove_public, prove_secret
from replica.model.handle.values import HandleValue, Reference

C = ResponseCode
TEXT_CHARS_MAX = 200
FLAGS = FLAGS_DEFAULT | OpFlag.AUTHORITATIVE
# What an answer means for whoever asked; all others: refused for good, nothing was done.
_MEANING: dict[int, tuple[Code, str]] = {
    C.HANDLE_NOT_FOUND: (Code.NOT_FOUND, "it has no such record"),
    C.VALUES_NOT_FOUND: (Code.CONFLICT, "a value to change is not there"),
    C.VALUE_ALREADY_EXISTS: (Code.CONFLICT, "a value to add is there already"),
    C.AUTHENTICATION_FAILED: (
        Code.NOT_AUTHORISED,
        "it knows no such key, or ours does not prove it: compare handle, index and key with the record it stands in",
    ),
    C.INVALID_ADMIN: (Code.NOT_AUTHORISED, "it knows no such key: check handle and index"),
    C.INSUFFICIENT_PERMISSIONS: (Code.NOT_AUTHORISED, "our key may not do this: its operator gives the permission"),
    C.ERROR: (Code.UNREACHABLE, "it cannot now"),
    C.SERVER_TOO_BUSY: (Code.UNREACHABLE, "it is busy"),
    C.SERVER_BACKUP: (Code.UNREACHABLE, "it takes no changes now"),
    C.SERVER_NOT_RESP: (Code.REFUSED, "it is not the server of this prefix: name the right one"),
    C.AUTHEN_TIMEOUT: (Code.UNREACHABLE, "our proof came too late"),
}
_AGAIN = (Code.UNREACHABLE, Code.CONFLICT)


@dataclass(frozen=True, slots=True)
class AdminKey:
    """Who changes records.

    Args:
        at: the value that proves it, as its HS_ADMIN values name it: `300:0.NA/88.118`.
        secret: octets of an HS_SECKEY value; empty: `private` is used, of an HS_PUBKEY value.
    """

    at: Reference
    secret: bytes = field(default=b"", repr=False)
    private: rsa.RSAPrivateKey | None = field(default=None, repr=False)

    @property
    def kind(self) -> bytes:
        return HS_PUBKEY if self.private is not None else HS_SECKEY


def parse_reference(text: str) -> Reference:
    """`300:0.NA/88.118`. Raises ZaibeiError(MALFORMED)."""
    index, colon, handle = text.partition(":")
    if not colon or not index.isdigit() or not 0 < int(index) < 2**32 or not handle.strip():
        raise ZaibeiError(Code.MALFORMED, f"{text[:80]!r} names no key: write INDEX:HANDLE, like 300:0.NA/88.118")
    try:
        return Reference(check_name(handle.encode()), int(index))
    except ProtocolFault as fault:
        raise ZaibeiError(Code.MALFORMED, f"{text[:80]!r} names no key: {fault.detail}") from fault


def add_request(handle: str, values: Sequence[HandleValue], number: int) -> bytes:
    """Values whose indexes are not there yet. Raises ZaibeiError(MALFORMED)."""
    return _request(OpCode.ADD_VALUE, ValuesRequest(handle.encode(), tuple(values)), number)


def modify_request(handle: str, values: Sequence[HandleValue], number: int) -> bytes:
    """Values whose indexes are there. Raises ZaibeiError(MALFORMED)."""
    return _request(OpCode.MODIFY_VALUE, ValuesRequest(handle.encode(), tuple(values)), number)


def remove_request(handle: str, indexes: Sequence[int], number: int) -> bytes:
    """Raises ZaibeiError(MALFORMED)."""
    return _request(OpCode.REMOVE_VALUE, IndexesRequest(handle.encode(), tuple(indexes)), number)


def _request(op: OpCode, body: ValuesRequest | IndexesRequest, number: int) -> bytes:
    try:
        return encode_message(Message(Envelope(number, 0), Header(op, flags=FLAGS), body.encode()))
    except CodecMisuse as exc:
        raise ZaibeiError(Code.MALFORMED, f"cannot be asked of a Handle server: {exc}") from exc


def challenge_in(answer: bytes, request: bytes) -> tuple[Challenge, int] | None:
    """The challenge in a server's answer, and its session; None: the answer is none.

    Raises:
        ProtocolFault: not an answer; or a challenge about another request than ours, which is never proved.
    """
    message = decode_message(answer)
    if message.header.response_code != C.AUTHENTICATION_NEEDED:
        return None
    challenge = decode_challenge(message)
    kind = DigestType(message.body[0])
    if kind is DigestType.MD5 or request_digest(request, kind)[1:] != challenge.digest:
        raise ProtocolFault("its challenge is about another request than ours: somebody may be sitting between")
    return challenge, message.envelope.session_id


def answer_of(key: AdminKey, challenge: Challenge, session_id: int, number: int, salt: bytes) -> bytes:
    """The message that proves the key. `salt`: 16 random octets. May take 10 ms of a core."""
    if key.private is not None:
        proof = prove_public(key.private, challenge.nonce, challenge.digest)
    else:
        proof = prove_secret(key.secret, challenge.nonce, challenge.digest, MacCode.PBKDF2_HMAC_SHA1, salt=salt)
    body = ChallengeAnswer(key.kind, key.at, proof).encode()
    return encode_message(
        Message(Envelope(number, 0, session_id=session_id), Header(OpCode.CHALLENGE_RESPONSE, flags=FLAGS), body)
    )


def judge_answer(answer: bytes, what: str) -> None:
    """Was it done? `what`: who answers what, for messages.

    Raises:
        ZaibeiError: it was not done, and why. ProtocolFault: not an answer.
    """
    message = decode_message(answer)
    code = message.header.response_code
    if code == C.SUCCESS:
        return
    said = decode_response(message)
    text = (said.message or b"").decode("utf-8", "replace") if isinstance(said, ErrorResponse) else ""
    found, why = _MEANING.get(code, (Code.REFUSED, "it refuses"))
    quoted = f" ({text[:TEXT_CHARS_MAX]})" if text else ""
    raise ZaibeiError(found, f"{what}: code {code}, {why}{quoted}", retry=found in _AGAIN)
