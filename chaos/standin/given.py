"""A stand-in's answer as a value, and its octets for Handle and for JSON. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from replica.model.handle.answers import Peeked, error_answer, referral_answer, resolution_answer
from replica.model.handle.bodies import HandleRequest, decode_request
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, ResponseCode, http_status
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.json_api import error_json, referral_json, resolution_json
from replica.model.handle.message import answer_to, decode_message, fault_answer

NO_VALUES = bytes(4)


@dataclass(frozen=True, slots=True)
class Given:
    """One answer: `values` are u32 count and encoded values of a success or a referral; `text` of anything else."""

    code: int
    values: bytes = NO_VALUES
    text: str = ""


Answerer = Callable[[Peeked], Given | Awaitable[Given]]

REFERRALS = (ResponseCode.SERVICE_REFERRAL, ResponseCode.PREFIX_REFERRAL)


def asked_for(name: bytes, indexes: tuple[int, ...] = (), types: tuple[bytes, ...] = ()) -> Peeked:
    """A question that came over HTTP."""
    return Peeked(name, indexes, types, FLAGS_DEFAULT, 0, 0, bytes(4), b"", 0)


def handle_octets(asked: Peeked, given: Given, expiration_s: int) -> bytes:
    """The answer over Handle."""
    if given.code == ResponseCode.SUCCESS:
        return resolution_answer(asked, given.values, expiration_s)
    if given.code in REFERRALS:
        return referral_answer(asked, given.code, given.text.encode(), given.values, expiration_s)
    return error_answer(asked, given.code, given.text.encode(), expiration_s)


def json_octets(asked: Peeked, given: Given) -> tuple[int, bytes]:
    """HTTP status and body."""
    if given.code == ResponseCode.SUCCESS:
        return 200, resolution_json(asked.handle, given.values)
    if given.code in REFERRALS:
        return http_status(given.code), referral_json(given.code, given.text.encode(), given.values)
    return http_status(given.code), error_json(given.code, asked.handle, given.text)


def other_octets(message: bytes, site: bytes, expiration_s: int) -> bytes | None:
    """Answer to anything but a plain resolution: the own site to op 2, a refusal to the rest; None: silence."""
    try:
        request = decode_message(message)
        body = decode_request(request)
        if request.header.op_code == OpCode.GET_SITE_INFO and isinstance(body, HandleRequest) and site:
            return answer_to(request, message, ResponseCode.SUCCESS, site, expiration=expiration_s)
        return answer_to(request, message, ResponseCode.OPERATION_NOT_SUPPORTED, bytes(4), expiration=expiration_s)
    except ProtocolFault as fault:
        return fault_answer(fault, expiration=expiration_s)
