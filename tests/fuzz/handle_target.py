"""What the fuzzer and the bounded mutation test do with strange octets: every decoder of the Handle codec, once.

Allowed: a result, or ProtocolFault. Anything else that is raised is a bug, and so is a result that does not hold together.
"""

from __future__ import annotations

from functools import partial

from replica import native
from replica.model.handle import (
    admin_bodies,
    answers,
    bodies,
    ciphers,
    fragments,
    json_api,
    json_read,
    keys,
    macs,
    message,
    signatures,
    stream,
    types,
    values,
)
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.native import twin

KEY = keys.encode_key("RSA", {"e": b"\1\0\1", "n": b"\x80" + bytes(126) + b"\1"})


def judge_signed(octets: bytes) -> None:
    """Nothing of a stranger's is signed."""
    signatures.judge_signature(message.decode_message(octets), octets, KEY)
    raise AssertionError("a stranger's octets pass for a site's")


JOINER = fragments.Reassembler(messages_max=16, octets_max=64 * 1024, age_ms_max=1_000)
DECODERS = (
    values.decode_value,
    values.decode_values,
    values.decode_record,
    types.decode_site,
    types.decode_admin,
    types.decode_vlist,
    types.decode_name,
    keys.decode_key,
    json_api.values_json,
    json_read.read_values,
    json_read.read_answer,
    partial(ciphers.decrypted, key=bytes(16)),
    judge_signed,
    macs.key_from_wire,
    admin_bodies.decode_exchange_key,
    admin_bodies.decode_login,
    partial(ciphers.decrypted, key=bytes(16), algorithm=macs.SM4),
)


def exercise(octets: bytes) -> None:
    """Feed octets to everything that reads octets of strangers."""
    for decode in DECODERS:
        try:
            decode(octets)
        except ProtocolFault:
            pass
    _message(octets)
    _record(octets)
    deframer = stream.Deframer()
    cut = deframer.feed(octets[:30]) + deframer.feed(octets[30:])
    if deframer.fault is None:
        require(b"".join(cut) == octets[: len(octets) - deframer.octets_held], "a stream lost octets")
    joined = JOINER.feed(octets[:1], octets, len(octets))
    require(JOINER.octets_held <= 64 * 1024 and JOINER.messages_held <= 16, "the joiner holds too much")
    if joined is not None and joined != octets:
        _message(joined)


def _message(octets: bytes) -> None:
    quick = answers.peek_resolution(octets)
    try:
        read = message.decode_message(octets)
        body = bodies.decode_response(read) if read.header.response_code else bodies.decode_request(read)
    except ProtocolFault as fault:
        require(quick is None, f"the quick way took what the codec refuses: {fault}")
        answer = message.fault_answer(fault, expiration=1)
        require((answer is None) == (fault.code is None), "a fault without its answer")
        return
    again = message.decode_message(message.encode_message(read))
    require((again.header, again.body, again.credential) == (read.header, read.body, read.credential), "a message changed")
    if quick is not None:
        require(body == bodies.ResolutionRequest(quick.handle, quick.indexes, quick.types), "two ways, two requests")
        answer = answers.error_answer(quick, 2, b"", 1)
        require(answer == message.answer_to(read, octets, 2, bytes(4), expiration=1), "two ways, two answers")
    try:
        encoded = body.encode()
    except CodecMisuse:  # they may list more names in a message than we would
        require(isinstance(body, bodies.ListResponse), "only lists may be too long for us")
        return
    stripped = message.strip_digest(read) if read.header.response_code else read.body
    require(stripped.startswith(encoded) or isinstance(body, bodies.ErrorResponse), "a body changed")


def _record(octets: bytes) -> None:
    chosen = native.filter_values(octets, (1,), (b"URL",), False)
    require(chosen == twin.filter_values(octets, (1,), (b"URL",), False), "two backends, two answers")
    try:
        record = values.decode_record(octets)
    except ProtocolFault:
        return
    require(values.encode_record(record.values, record.spelling) == octets, "a record changed")
    require(chosen is not None and len(values.decode_values(chosen)) <= len(record.values), "the filter disagrees")


def require(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)
