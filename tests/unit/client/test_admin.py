"""Changing records at a Handle server: which challenge is answered, by which proof, and what an answer means."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hosting.client.admin import (
    AdminKey,
    add_request,
    answer_of,
    challenge_in,
    judge_answer,
    modify_request,
    parse_reference,
    remove_request,
)
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.admin_bodies import challenge_to, decode_challenge_answer
from replica.model.handle.bodies import ErrorResponse
from replica.model.handle.codes import OpCode, OpFlag, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.keys import encode_key
from replica.model.handle.message import (
    DigestType,
    Envelope,
    Header,
    Message,
    answer_to,
    decode_message,
    encode_message,
    request_digest,
)
from replica.model.handle.proofs import judge_public, judge_secret
from replica.model.handle.values import HandleValue, Reference
from replica.model.handle.wire import string

KEY = AdminKey(Reference(b"0.NA/88", 300), b"a secret")
NONCE, EXPIRES = bytes(range(16)), 2_000_000_000
REQUEST = add_request("0.NA/88.118", [HandleValue(1, b"HS_SITE", b"x")], 7)
OTHER = remove_request("0.NA/88.118", [1], 7)


def challenge(request: bytes = REQUEST) -> bytes:
    return challenge_to(decode_message(request), request, NONCE, 99, expiration=EXPIRES)[0]


def said(code: int, text: bytes = b"") -> bytes:
    return answer_to(decode_message(REQUEST), REQUEST, code, ErrorResponse(text).encode(), expiration=EXPIRES)


def test_requests_name_their_operation_and_ask_the_authority() -> None:
    for octets, op in (
        (REQUEST, OpCode.ADD_VALUE),
        (modify_request("0.NA/88", [], 1), OpCode.MODIFY_VALUE),
        (OTHER, OpCode.REMOVE_VALUE),
    ):
        header = decode_message(octets).header
        assert header.op_code == op and header.flags & OpFlag.AUTHORITATIVE


def test_a_proof_by_a_secret_is_judged_good() -> None:
    found = challenge_in(challenge(), REQUEST)
    assert found is not None and found[1] == 99
    message = decode_message(answer_of(KEY, *found, 8, bytes(16)))
    answer = decode_challenge_answer(message.body)
    assert (message.envelope.session_id, message.envelope.request_id, answer.key) == (99, 8, KEY.at)
    digest = found[0].digest
    assert judge_secret(KEY.secret, NONCE, digest, answer.proof) and not judge_secret(b"other", NONCE, digest, answer.proof)


def test_a_proof_by_a_key_pair_is_judged_good() -> None:
    private = rsa.generate_private_key(65_537, 2_048)
    found = challenge_in(challenge(), REQUEST)
    assert found is not None
    answer = decode_challenge_answer(decode_message(answer_of(AdminKey(KEY.at, private=private), *found, 8, b"")).body)
    public = private.public_key().public_numbers()
    data = encode_key("RSA", {"n": public.n.to_bytes(256, "big"), "e": public.e.to_bytes(3, "big")})
    assert answer.kind == b"HS_PUBKEY" and judge_public(data, NONCE, found[0].digest, answer.proof)
    assert not judge_public(data, bytes(16), found[0].digest, answer.proof)


def test_a_challenge_about_another_request_is_never_proved() -> None:
    """Who sits between sends its own removal to the server, and would have us sign that."""
    with pytest.raises(ProtocolFault, match="about another request"):
        challenge_in(challenge(OTHER), REQUEST)


def test_a_digest_that_proves_nothing_is_not_accepted() -> None:
    body = request_digest(REQUEST, DigestType.MD5) + string(NONCE)
    header = Header(OpCode.ADD_VALUE, ResponseCode.AUTHENTICATION_NEEDED, int(OpFlag.REQUEST_DIGEST))
    with pytest.raises(ProtocolFault):
        challenge_in(encode_message(Message(Envelope(7, 0, session_id=9), header, body)), REQUEST)


def test_what_is_no_challenge_is_an_answer() -> None:
    assert challenge_in(said(ResponseCode.SUCCESS), REQUEST) is None
    for octets in (b"", b"\0" * 19, challenge()[:-3]):
        with pytest.raises(ProtocolFault):
            challenge_in(octets, REQUEST)


@pytest.mark.parametrize(
    ("code", "meaning", "retry"),
    [
        (ResponseCode.ERROR, Code.UNREACHABLE, True),
        (ResponseCode.SERVER_TOO_BUSY, Code.UNREACHABLE, True),
        (ResponseCode.HANDLE_NOT_FOUND, Code.NOT_FOUND, False),
        (ResponseCode.VALUE_ALREADY_EXISTS, Code.CONFLICT, True),
        (ResponseCode.VALUES_NOT_FOUND, Code.CONFLICT, True),
        (ResponseCode.AUTHENTICATION_FAILED, Code.NOT_AUTHORISED, False),
        (ResponseCode.INSUFFICIENT_PERMISSIONS, Code.NOT_AUTHORISED, False),
        (ResponseCode.OPERATION_NOT_SUPPORTED, Code.REFUSED, False),
        (ResponseCode.AUTHENTICATION_NEEDED, Code.REFUSED, False),
    ],
)
def test_every_answer_but_success_says_who_refused_and_why(code: int, meaning: Code, retry: bool) -> None:
    judge_answer(said(ResponseCode.SUCCESS), "beijing")
    with pytest.raises(ZaibeiError) as refused:
        judge_answer(said(code, b"because"), "beijing, add to 0.NA/88.118")
    trouble = refused.value.trouble
    assert (trouble.code, trouble.retry) == (meaning, retry)
    assert trouble.message.startswith(f"beijing, add to 0.NA/88.118: code {int(code)}, ")


def test_keys_are_named_by_index_and_handle() -> None:
    assert parse_reference("300:0.NA/88.118") == Reference(b"0.NA/88.118", 300)
    for text in ("", "300", "0.NA/88", "x:0.NA/88", "0:0.NA/88", "300:", "4294967296:a", "300:" + "a" * 3_000):
        with pytest.raises(ZaibeiError) as refused:
            parse_reference(text)
        assert refused.value.code is Code.MALFORMED


def test_a_key_is_never_shown() -> None:
    assert "a secret" not in repr(KEY) and "a secret" not in repr(replace(KEY, secret=b"a secret!"))
