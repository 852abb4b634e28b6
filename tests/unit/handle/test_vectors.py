"""Every golden vector that concerns reading, octet for octet, both ways."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from replica.model.handle import bodies, json_api, json_read, keys, message, names, proofs, types, values
from replica.model.handle.admin_bodies import decode_credential
from replica.model.handle.bodies import (
    ErrorResponse,
    HandleRequest,
    RawBody,
    Referral,
    ResolutionRequest,
    ResolutionResponse,
    ValuesRequest,
)
from replica.model.handle.codes import FLAGS_DEFAULT, DigestType, OpCode, OpFlag
from replica.model.handle.macs import sealed
from replica.model.handle.message import Envelope, Header, Message
from replica.model.handle.proofs import MacCode
from replica.model.handle.types import HsAdmin, HsSite, Interface, Server
from replica.model.handle.values import HandleValue, Reference
from replica.model.handle.wire import U32
from tests.unit.handle.golden import HASHES, OCTETS, REQUESTS, RESPONSES, STAMP, TEXT

HANDLE = b"88.118.8/XYZ-001"
ID = 0x01020304
URL = HandleValue(1, b"URL", b"http://example.cn/a", timestamp=STAMP)
DESC = HandleValue(2, b"DESC", "设备".encode(), 1, 1_800_000_000, 0x0C, STAMP + 1, (Reference(b"0.NA/88.118.8", 300),))
SITE = HsSite(
    7,
    (Server(1, types.address_octets("127.0.0.1"), b"", (Interface(3, 1, 2641), Interface(2, 0, 2641), Interface(3, 2, 8000))),),
    types.SiteFlag.PRIMARY,
    attributes=((b"desc", b"DR site"),),
)
SITE_VALUE = HandleValue(3, b"HS_SITE", OCTETS["hs_site"], timestamp=STAMP)
COMPAT = Envelope(ID, 0, (2, 3), (2, 11))
ADMIN_FLAGS = 0x59000000


@pytest.mark.parametrize(("name", "value"), [("value_url", URL), ("value_desc_abs_ttl_ref", DESC)])
def test_values(name: str, value: HandleValue) -> None:
    assert values.encode_value(value) == OCTETS[name]
    assert values.decode_value(OCTETS[name]) == value


def test_site_admin_and_vlist() -> None:
    assert types.encode_site(SITE) == OCTETS["hs_site"]
    assert types.decode_site(OCTETS["hs_site"]) == SITE
    admin = HsAdmin(types.ADMIN_ALL, Reference(b"0.NA/88.118.8", 300))
    assert types.encode_admin(admin) == OCTETS["hs_admin"]
    assert types.decode_admin(OCTETS["hs_admin"]) == admin
    assert types.decode_admin(OCTETS["hs_admin_root"]).admin == Reference(b"0.ADMIN/ADMINLIST", 200)
    assert types.encode_admin(types.decode_admin(OCTETS["hs_admin_root"])) == OCTETS["hs_admin_root"]
    group = (Reference(b"86.1000.1/ADMIN", 300), Reference(b"0.NA/86.1000", 200))
    assert types.encode_vlist(group) == OCTETS["hs_vlist"]
    assert types.decode_vlist(OCTETS["hs_vlist"]) == group


MADE = {
    "resolve_req_compat": (COMPAT, OpCode.RESOLUTION, FLAGS_DEFAULT, ResolutionRequest(HANDLE)),
    "resolve_req_2_11_idx_types": (
        Envelope(ID, 0),
        OpCode.RESOLUTION,
        OpFlag.AUTHORITATIVE | OpFlag.CERTIFY | OpFlag.PUBLIC_ONLY,
        ResolutionRequest(HANDLE, (1, 2), (b"URL", b"HS_SITE.")),
    ),
    "create_req": (COMPAT, OpCode.CREATE_HANDLE, FLAGS_DEFAULT, ValuesRequest(HANDLE, (URL,))),
    "list_req": (COMPAT, OpCode.LIST_HANDLES, FLAGS_DEFAULT, HandleRequest(b"0.NA/88.118.8")),
    "get_site_req": (COMPAT, OpCode.GET_SITE_INFO, FLAGS_DEFAULT, HandleRequest(b"/")),
    "retrieve_txn_req_2_3": (
        COMPAT,
        OpCode.RETRIEVE_TXN_LOG,
        ADMIN_FLAGS,
        RawBody(bytes.fromhex("000000000000002a0000018bcfe56800020000000100000000")),
    ),
    "retrieve_txn_req_2_11": (
        Envelope(ID, 0),
        OpCode.RETRIEVE_TXN_LOG,
        ADMIN_FLAGS,
        RawBody(bytes.fromhex("00000000000000002a0000018bcfe56800020000000100000000")),
    ),
    "dump_req": (COMPAT, OpCode.DUMP_HANDLES, ADMIN_FLAGS, RawBody(bytes.fromhex("020000000100000000"))),
}


def test_a_plain_request_in_one_call() -> None:
    assert bodies.resolution_request(HANDLE, ID) == OCTETS["resolve_req_compat"]
    flags = OpFlag.AUTHORITATIVE | OpFlag.CERTIFY | OpFlag.PUBLIC_ONLY
    made = bodies.resolution_request(HANDLE, ID, indexes=(1, 2), types=(b"URL", b"HS_SITE."), flags=flags, version=(2, 11))
    assert made == OCTETS["resolve_req_2_11_idx_types"]


@pytest.mark.parametrize("name", MADE)
def test_requests_are_made_and_read(name: str) -> None:
    envelope, op_code, flags, body = MADE[name]
    made = message.encode_message(Message(envelope, Header(op_code, flags=flags), body.encode()))
    assert made == OCTETS[name]
    read = message.decode_message(OCTETS[name])
    assert (read.header.op_code, read.header.flags, bodies.decode_request(read)) == (op_code, flags, body)


@pytest.mark.parametrize("name", REQUESTS + RESPONSES)
def test_every_message_is_read_and_written_again(name: str) -> None:
    read = message.decode_message(OCTETS[name])
    assert message.encode_message(read) == OCTETS[name]
    if name in REQUESTS:
        body = bodies.decode_request(read)
        assert body.encode() == read.body
    else:
        response = bodies.decode_response(read)
        assert response.encode() == message.strip_digest(read)


def response(name: str) -> bodies.Response:
    return bodies.decode_response(message.decode_message(OCTETS[name]))


def test_responses_say_what_they_mean() -> None:
    assert response("resolve_resp") == ResolutionResponse(HANDLE, (URL,))
    assert response("err_server_not_resp") == ErrorResponse(b"That prefix doesn't live here")
    assert response("err_not_found_with_digest") == ErrorResponse(b"")
    assert response("service_referral") == Referral(b"0.SERV/88.118", (SITE_VALUE,))
    assert response("prefix_referral") == Referral(b"", (SITE_VALUE,))


def asked(flags: int) -> tuple[Message, bytes]:
    request = Message(COMPAT, Header(OpCode.RESOLUTION, flags=flags), ResolutionRequest(HANDLE).encode())
    octets = message.encode_message(request)
    return message.decode_message(octets), octets


def test_answers_are_made() -> None:
    request, octets = asked(FLAGS_DEFAULT)

    def answer(code: int, body: bytes) -> bytes:
        return message.answer_to(request, octets, code, body, expiration=0)

    assert answer(1, ResolutionResponse(HANDLE, (URL,)).encode()) == OCTETS["resolve_resp"]
    assert answer(301, ErrorResponse(b"That prefix doesn't live here").encode()) == OCTETS["err_server_not_resp"]
    assert answer(302, Referral(b"0.SERV/88.118", (SITE_VALUE,)).encode()) == OCTETS["service_referral"]
    assert answer(303, Referral(b"", (SITE_VALUE,)).encode()) == OCTETS["prefix_referral"]


def test_an_error_carries_the_digest_of_its_request() -> None:
    request, octets = asked(FLAGS_DEFAULT | OpFlag.REQUEST_DIGEST)
    answer = message.answer_to(request, octets, 100, ErrorResponse(b"").encode(), expiration=0)
    assert answer == OCTETS["err_not_found_with_digest"]
    assert message.decode_message(answer).body[0] == DigestType.SHA256
    assert message.strip_digest(message.decode_message(answer), octets) == bytes(4)


def test_names() -> None:
    for name, *expected in HASHES:
        found = [names.choice_hash(name.encode(), option) for option in names.HashOption]
        assert found == [int(number) for number in expected]


BINARY = HandleValue(5, b"BIN", b"\x00\x01\xff", timestamp=STAMP)
ADMIN = HandleValue(100, b"HS_ADMIN", OCTETS["hs_admin"], timestamp=STAMP)


def test_json() -> None:
    everything = (URL, DESC, ADMIN, BINARY, SITE_VALUE)
    assert json_api.values_json(values.encode_values(everything)) == TEXT["values_json"]
    assert json_api.site_json(SITE) == TEXT["hs_site_json"]
    assert json_api.resolution_json(HANDLE, values.encode_values((URL,))).decode() == TEXT["resp_json"]
    assert json_api.referral_json(303, b"", values.encode_values((SITE_VALUE,))).decode() == TEXT["referral_json"]
    assert json_read.read_values(TEXT["values_json"].encode()) == everything
    assert json_read.read_answer(TEXT["resp_json"].encode()) == json_read.JsonAnswer(1, HANDLE, (URL,))
    assert json_read.read_answer(TEXT["referral_json"].encode()) == json_read.JsonAnswer(303, values=(SITE_VALUE,))
    assert json_api.site_response_json(SITE).decode() == f'{{"responseCode":1,"site":{TEXT["hs_site_json"]}}}'


def test_vectors_of_which_not_all_is_known_hold_in_structure() -> None:
    answer, nonce, digest = OCTETS["seckey_answer"], b"n" * 16, b"d" * 32
    made = proofs.prove_secret(b"a secret", nonce, digest, MacCode.PBKDF2_HMAC_SHA1, salt=answer[5:21])
    assert (made[:33], len(made)) == (answer[:33], len(answer)) and not proofs.judge_secret(b"a secret", nonce, digest, answer)
    private = rsa.generate_private_key(65_537, 1_024)
    assert proofs.prove_public(private, nonce, digest).startswith(OCTETS["pubkey_answer_head"][:15])
    head = OCTETS["pubkey_enc_head"]
    made = keys.encode_key("RSA", {"e": b"\1\0\1", "n": head[-3:] + bytes(125)})
    assert made.startswith(head) and keys.decode_key(made)[1]["n"][:3] == head[-3:]
    request = message.encode_message(Message(Envelope(ID, 0), Header(OpCode.CREATE_HANDLE), b""))
    credential = decode_credential(message.decode_message(sealed(request, b"k" * 16, 1)).credential)
    assert credential is not None and len(credential.signature) == len(OCTETS["hmac256"])
    state = TEXT["replstate_json"].encode()
    assert U32.pack(len(state)) + state in message.decode_message(OCTETS["retrieve_txn_all_2_11"]).body
