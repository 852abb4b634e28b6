"""Answers as bodies of the JSON API; the texts themselves are the codec's."""

from __future__ import annotations

from hosting.answer.question import Answer, Question
from hosting.answer.standing import FOUND
from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.json_api import error_json, referral_json, resolution_json, site_response_json
from replica.model.handle.types import decode_site


def answer_json(question: Question, answer: Answer) -> bytes:
    """Body of the answer to a resolution."""
    code = answer.code
    try:
        if code == FOUND:
            return resolution_json(question.handle, answer.octets)
        if code in (ResponseCode.SERVICE_REFERRAL, ResponseCode.PREFIX_REFERRAL):
            return referral_json(code, answer.referral, answer.octets)
    except ProtocolFault:
        return error_json(ResponseCode.ERROR, question.handle, "the stored record does not parse; ask another site")
    return error_json(code, question.handle, answer.octets.decode("utf-8", "replace"))


def own_site_json(site: bytes) -> bytes:
    """Body of `GET /api/site`; an error when the configured site does not parse."""
    try:
        return site_response_json(decode_site(site))
    except ProtocolFault as fault:
        return error_json(ResponseCode.ERROR, None, f"this member's own site does not parse: {fault.detail}")
