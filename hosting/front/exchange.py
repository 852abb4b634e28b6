"""Handle messages in, Handle messages out: what UDP, TCP and the HTTP tunnel share. Pure but for the expiration time it is given.

| message | what becomes of it |
| --- | --- |
| resolution (op 1) | a question; a plain one by the quick way of the codec |
| the handle `0` | answered at once, 1 with no values: the heartbeat of the national SDKs |
| get-site (op 2) | our site, once the views of all sources were read |
| resolution in a session, with a MAC and without PO, where sources live at this member | hosting/handle answers |
| create, delete, add, remove, modify (100 to 104) | 301: registrations go to the node itself |
| these, list, proofs and sessions (200, 201, 400 to 402), where sources live at this member | hosting/handle answers |
| encrypted with a session's key, where sources live at this member | the same; it alone knows the key |
| every other operation, logins among them | 5, operation not supported |
| any of these with the flag CT | the same, signed with the site's key: hosting/front/edge_certify.py |
| a response (its code is not 0), or no envelope | silence: two servers can never be set to answer each other |
| malformed behind its envelope | 4 with the request's id |

Answers to resolutions outside of sessions are never encrypted (ENC): there is no key for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hosting.answer.question import Answer, Question
from hosting.answer.standing import FOUND
from hosting.handle.edge_registrar import REGISTERS
from hosting.handle.sessions import wants_hidden
from replica.model.handle.answers import (
    Peeked,
    error_answer,
    peek_resolution,
    referral_answer,
    resolution_answer,
)
from replica.model.handle.bodies import ErrorResponse, ResolutionRequest, decode_request
from replica.model.handle.codes import EXPIRATION_S, RECURSION_MAX, EnvelopeFlag, OpCode, OpFlag, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.message import (
    OUR_VERSION,
    Message,
    answer_to,
    decode_message,
    digest_type_for,
    fault_answer,
    request_digest,
)
from replica.model.handle.names import HEARTBEAT
from replica.model.handle.signatures import CERTIFY_AT, CERTIFY_BIT

_NO_VALUES: Final = bytes(4)
_ENCRYPTED: Final = int(EnvelopeFlag.ENCRYPTED)
_AUTHORITATIVE: Final = int(OpFlag.AUTHORITATIVE)
_DO_NOT_REFER: Final = int(OpFlag.DO_NOT_REFER)
_REFERRALS: Final = (int(ResponseCode.SERVICE_REFERRAL), int(ResponseCode.PREFIX_REFERRAL))
_REGISTRATIONS: Final = range(OpCode.CREATE_HANDLE, OpCode.MODIFY_VALUE + 1)


@dataclass(frozen=True, slots=True)
class SiteAsked:
    """A request for our site, as far as answering it needs."""

    message: Message
    octets: bytes


@dataclass(frozen=True, slots=True)
class Registering:
    """A message for hosting/handle, unread. `certify`: whatever it asks, its answer is to be signed."""

    octets: bytes
    certify: bool = False


Echo = Peeked | SiteAsked | Registering
"""What of a request goes back in its answer."""

Taken = bytes | tuple[Peeked, Question] | tuple[SiteAsked | Registering, None] | None
"""An answer at once; a question and its echo; a request for our site; a message that registers; silence."""


def _expires() -> int:
    return int(time.time()) + EXPIRATION_S


class Exchange:
    """See the module.

    Args:
        expires: the expiration time of an answer made now.
        registers: do sources live here whose registrations we take?
    """

    def __init__(self, expires: Callable[[], int] = _expires, registers: Callable[[], bool] = lambda: False) -> None:
        self.expires, self.registers = expires, registers

    def take(self, octets: bytes, *, certified: bool = False) -> Taken:
        """Read one whole message. `certified`: who signs its answer is asking."""
        if len(octets) > CERTIFY_AT and (octets[2] & _ENCRYPTED or octets[CERTIFY_AT] & CERTIFY_BIT):
            if octets[2] & _ENCRYPTED:
                if self.registers():
                    return Registering(octets), None
            elif not certified:
                return Registering(octets, True), None
        peeked = peek_resolution(octets)
        if peeked is not None:
            return self._resolution(peeked)
        try:
            message = decode_message(octets)
            if message.header.response_code:
                return None
            return self._other(message, octets)
        except ProtocolFault as fault:
            return fault_answer(fault, expiration=self.expires())

    def answer(self, echo: Peeked, question: Question, answer: Answer, expires: int) -> bytes:
        """The whole message of an answer."""
        code, standing = answer.code, answer.standing
        authoritative = standing is not None and standing.row.authoritative
        if code == FOUND:
            return resolution_answer(echo, answer.octets, expires, authoritative=authoritative)
        if code in _REFERRALS:
            return referral_answer(echo, code, answer.referral, answer.octets, expires)
        return error_answer(echo, code, answer.octets, expires, authoritative=authoritative)

    def site(self, asked: SiteAsked, site: bytes, trouble: str) -> bytes:
        """The answer to a request for our site: its HS_SITE octets, or 2 and why when there are none."""
        if site:
            return answer_to(asked.message, asked.octets, ResponseCode.SUCCESS, site, expiration=self.expires())
        return self._error(asked.message, asked.octets, ResponseCode.ERROR, trouble)

    def _resolution(self, peeked: Peeked) -> Taken:
        if peeked.handle == HEARTBEAT:
            return resolution_answer(peeked, _NO_VALUES, self.expires())
        if peeked.recursion > RECURSION_MAX:
            return error_answer(peeked, ResponseCode.RECURSION_COUNT_TOO_HIGH, b"too many servers on the way", self.expires())
        flags = peeked.flags
        return peeked, Question(
            peeked.handle, peeked.indexes, peeked.types, bool(flags & _AUTHORITATIVE), not flags & _DO_NOT_REFER
        )

    def _other(self, message: Message, octets: bytes) -> Taken:
        op = message.header.op_code
        if op in REGISTERS and self.registers():
            return Registering(octets), None
        if op in _REGISTRATIONS:
            decode_request(message)  # malformed ones are told so
            return self._error(
                message, octets, ResponseCode.SERVER_NOT_RESP, "registrations go to the node itself, not to its copy"
            )
        if op == OpCode.GET_SITE_INFO:
            return SiteAsked(message, octets), None
        if op == OpCode.RESOLUTION and self.registers() and wants_hidden(message):
            return Registering(octets), None
        if op != OpCode.RESOLUTION:
            return self._error(message, octets, ResponseCode.OPERATION_NOT_SUPPORTED, f"operation {op} is not offered here")
        request = decode_request(message)
        if not isinstance(request, ResolutionRequest):
            return None
        return self._resolution(_peeked(message, octets, request))

    def _error(self, message: Message, octets: bytes, code: ResponseCode, text: str) -> bytes:
        return answer_to(message, octets, code, ErrorResponse(text.encode()).encode(), expiration=self.expires())


def _peeked(message: Message, octets: bytes, request: ResolutionRequest) -> Peeked:
    """What the quick way would have said of a resolution it left alone (signed, or with octets trailing)."""
    envelope, header = message.envelope, message.header
    version = envelope.answer_version
    return Peeked(
        request.handle,
        request.indexes,
        request.types,
        header.flags,
        envelope.request_id,
        envelope.session_id,
        bytes((*version, *OUR_VERSION)),
        request_digest(octets, digest_type_for(version)) if message.wants_digest else b"",
        header.recursion,
    )
