"""Questions to octets, octets to replies, over the codec of replica/model/handle."""

from __future__ import annotations

from collections.abc import Mapping

from hosting.client.lookup import Question, Reply
from replica.model.handle.bodies import ErrorResponse, Referral, ResolutionRequest, ResolutionResponse, decode_response
from replica.model.handle.codes import OpCode, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.json_read import read_answer
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message

VOUCH_HEADERS = "x-zaibei-"  # position and freshness
REQUEST_ID_MAX = 2**31 - 1  # positive for peers that count with signed numbers


def encode_question(question: Question, request_id: int) -> bytes:
    """Octets of one resolution request. Raises CodecMisuse."""
    body = ResolutionRequest(question.name.encode(), question.indexes, tuple(kind.encode() for kind in question.types))
    return encode_message(Message(Envelope(request_id, 0), Header(OpCode.RESOLUTION, 0, question.flags), body.encode()))


def decode_reply(octets: bytes, request: bytes, now_s: int) -> Reply:
    """A complete answer to `request`.

    Raises:
        ProtocolFault: not an answer to it, malformed, or expired; whoever asked goes on to the next site.
    """
    message = decode_message(octets)
    code, expires_s = message.header.response_code, message.header.expiration
    if message.header.op_code != OpCode.RESOLUTION or code == ResponseCode.RESERVED:
        raise ProtocolFault("not an answer to a resolution", envelope=message.envelope)
    if expires_s <= now_s:
        raise ProtocolFault("the answer has expired", envelope=message.envelope)
    match decode_response(message, request):
        case ResolutionResponse(_, values):
            return Reply(code, values, expires_s=expires_s)
        case Referral(handle, values):
            return Reply(code, values or (), handle.decode("utf-8", "replace"), expires_s)
        case ErrorResponse(text, _):
            return Reply(code, (), (text or b"").decode("utf-8", "replace"), expires_s)
    return Reply(code, expires_s=expires_s)


def decode_json(body: bytes, headers: Mapping[str, str]) -> Reply:
    """An answer of the JSON API; headers in lower case. Raises ProtocolFault."""
    answer = read_answer(body)
    vouch = tuple((name, value) for name, value in sorted(headers.items()) if name.startswith(VOUCH_HEADERS))
    text = answer.message or answer.referral_handle.decode("utf-8", "replace")
    return Reply(answer.code, answer.values, text, vouch=vouch)
