"""Whole messages: round trips, faults that can be answered, versions, digests, names."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given

from replica.model.handle import bodies, message, names
from replica.model.handle.bodies import ErrorResponse, ListResponse, RawBody, Request, ResolutionRequest, Response, SiteResponse
from replica.model.handle.codes import (
    FLAGS_DEFAULT,
    DigestType,
    EnvelopeFlag,
    OpCode,
    OpFlag,
    ResponseCode,
    http_status,
)
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.message import Envelope, Header, Message
from replica.model.handle.types import HsSite
from tests.unit.handle import strategies as some
from tests.unit.handle.golden import OCTETS

PLAIN = OCTETS["resolve_req_compat"]


@given(some.envelopes, some.requests | some.responses, some.u32, some.short)
def test_a_message_survives(
    envelope: Envelope, said: tuple[OpCode, int, Request | Response], expiration: int, credential: bytes
) -> None:
    op_code, code, body = said
    made = Message(envelope, Header(op_code, code, expiration=expiration), body.encode(), credential)
    read = message.decode_message(message.encode_message(made))
    assert (read.header, read.body, read.credential) == (made.header, made.body, credential)
    assert (read.envelope.request_id, read.envelope.version) == (envelope.request_id, envelope.version)
    if code == 0:
        assert bodies.decode_request(read) == body
    else:
        assert bodies.decode_response(read) == body


def test_a_site_answer_has_no_length() -> None:
    site = HsSite(7, ())
    made = Message(Envelope(1, 0), Header(OpCode.GET_SITE_INFO, 1), SiteResponse(site).encode())
    assert bodies.decode_response(message.decode_message(message.encode_message(made))) == SiteResponse(site)


def changed(at: int, octets: bytes) -> bytes:
    return PLAIN[:at] + octets + PLAIN[at + len(octets) :]


FAULTS = [
    (changed(2, b"\x82"), ResponseCode.PROTOCOL_ERROR, 0),  # compressed
    (changed(2, b"\x42"), ResponseCode.SESSION_TIMEOUT, 0),  # encrypted
    (changed(16, b"\0\0\0\x39"), ResponseCode.PROTOCOL_ERROR, 0),  # announces one octet more
    (PLAIN[:-1], ResponseCode.PROTOCOL_ERROR, 0),
    (PLAIN[:16] + b"\0\0\0\x10" + PLAIN[20:36], ResponseCode.PROTOCOL_ERROR, 0),  # half a header
    (changed(40, b"\0\0\x01\0"), ResponseCode.PROTOCOL_ERROR, 1),  # body longer than the message
    (changed(72, b"\0\0\0\x04"), ResponseCode.PROTOCOL_ERROR, 1),  # credential too
    (changed(44, b"\xff\xff\xff\xff"), ResponseCode.PROTOCOL_ERROR, 1),  # handle too
    (changed(44, bytes(4)), ResponseCode.INVALID_HANDLE, 1),  # no handle
    (changed(64, b"\0\0\0\x01"), ResponseCode.PROTOCOL_ERROR, 1),  # an index that is not there
    (changed(64, b"\xff\xff\xff\xff"), ResponseCode.PROTOCOL_ERROR, 1),
]


@pytest.mark.parametrize(("octets", "code", "op_code"), FAULTS)
def test_a_faulty_request_can_be_answered(octets: bytes, code: ResponseCode, op_code: int) -> None:
    with pytest.raises(ProtocolFault) as caught:
        bodies.decode_request(message.decode_message(octets))
    fault = caught.value
    assert (fault.code, fault.request_id, fault.op_code) == (code, 0x01020304, op_code)
    answer = message.fault_answer(fault, expiration=99)
    assert answer is not None
    read = message.decode_message(answer)
    assert (read.envelope.request_id, read.header.response_code, read.header.expiration) == (0x01020304, code, 99)
    assert bodies.decode_response(read) == ErrorResponse(fault.detail.encode())


@pytest.mark.parametrize("octets", [b"", PLAIN[:19]])
def test_what_has_no_envelope_is_met_with_silence(octets: bytes) -> None:
    with pytest.raises(ProtocolFault) as caught:
        message.decode_message(octets)
    assert caught.value.code is None
    assert caught.value.request_id is None
    assert message.fault_answer(caught.value, expiration=99) is None


def test_a_long_handle_is_invalid() -> None:
    for octets, fits in ((2_048, True), (2_049, False)):
        made = message.encode_message(Message(Envelope(1, 0), Header(1), ResolutionRequest(b"a" * octets).encode()))
        if fits:
            assert bodies.decode_request(message.decode_message(made)) == ResolutionRequest(b"a" * octets)
        else:
            with pytest.raises(ProtocolFault) as caught:
                bodies.decode_request(message.decode_message(made))
            assert caught.value.code is ResponseCode.INVALID_HANDLE


def test_long_lists_are_refused() -> None:
    request = ResolutionRequest(b"a", tuple(range(2_049)))
    with pytest.raises(ProtocolFault, match="over the limit"):
        bodies.decode_request(Message(Envelope(1, 0), Header(1), request.encode()))


def test_the_empty_credential_may_be_left_out() -> None:
    bare = PLAIN[:16] + (len(PLAIN) - 24).to_bytes(4, "big") + PLAIN[20:-4]
    assert bodies.decode_request(message.decode_message(bare)) == ResolutionRequest(b"88.118.8/XYZ-001")


def test_octets_behind_the_credential_are_refused() -> None:
    longer = PLAIN[:16] + (len(PLAIN) - 20 + 1).to_bytes(4, "big") + PLAIN[20:] + b"\0"
    with pytest.raises(ProtocolFault, match="credential"):
        message.decode_message(longer)


def test_a_body_cut_off_is_called_so() -> None:
    with pytest.raises(ProtocolFault, match="body"):
        message.decode_message(changed(40, b"\0\0\x01\0"))


def test_an_error_may_have_no_body_at_all() -> None:
    bare = Message(Envelope(1, 0), Header(1, 100), b"")
    assert bodies.decode_response(bare) == ErrorResponse(None)
    assert ErrorResponse(None).encode() == b""


def test_octets_behind_a_request_are_ignored() -> None:
    body = ResolutionRequest(b"a").encode() + b"\0\0"
    assert bodies.decode_request(Message(Envelope(1, 0), Header(1), body)) == ResolutionRequest(b"a")


def test_unknown_operations_stay_octets() -> None:
    assert bodies.decode_request(Message(Envelope(1, 0), Header(77_777), b"abc")) == RawBody(b"abc")
    challenge = Message(Envelope(1, 0), Header(1, ResponseCode.AUTHENTICATION_NEEDED), b"nonce")
    assert bodies.decode_response(challenge) == RawBody(b"nonce")


@pytest.mark.parametrize(
    ("version", "suggested", "answered"),
    [
        ((2, 3), (2, 11), (2, 11)),
        ((2, 3), (0, 0), (2, 3)),
        ((2, 11), (2, 4), (2, 4)),
        ((2, 11), (3, 0), (2, 11)),
        ((9, 9), (0, 0), (2, 11)),
        ((5, 3), (0, 0), (5, 3)),
        ((2, 0), (0, 7), (2, 0)),
    ],
)
def test_versions(version: tuple[int, int], suggested: tuple[int, int], answered: tuple[int, int]) -> None:
    assert Envelope(1, 0, version, suggested).answer_version == answered


@pytest.mark.parametrize(
    ("version", "kind"),
    [((2, 11), DigestType.SHA256), ((2, 7), DigestType.SHA256), ((2, 6), DigestType.SHA1), ((5, 9), DigestType.SHA1)],
)
def test_the_digest_fits_the_age_of_the_peer(version: tuple[int, int], kind: DigestType) -> None:
    assert message.digest_type_for(version) is kind


@pytest.mark.parametrize(
    ("version", "code", "said"),
    [((2, 4), 7, 303), ((2, 4), 202, 201), ((2, 4), 100, 100), ((2, 5), 7, 7), ((2, 11), 202, 202), ((5, 9), 7, 303)],
)
def test_old_peers_know_two_codes_by_other_numbers(version: tuple[int, int], code: int, said: int) -> None:
    assert message.code_for(version, code) == said


@pytest.mark.parametrize("kind", list(DigestType))
def test_digests_are_stripped_and_checked(kind: DigestType) -> None:
    digest = message.request_digest(PLAIN, kind)
    assert digest[1:] == hashlib.new(message.DIGESTS[kind][0], PLAIN[20:-4]).digest()
    header = Header(1, 100, OpFlag.REQUEST_DIGEST)
    answer = Message(Envelope(1, 0), header, digest + b"rest")
    assert message.strip_digest(answer, PLAIN) == b"rest"
    with pytest.raises(ProtocolFault, match="another request"):
        message.strip_digest(answer, OCTETS["list_req"])
    for bad in (digest[:-1], b"\x04" + digest[1:]):
        with pytest.raises(ProtocolFault, match="not there"):
            message.strip_digest(Message(Envelope(1, 0), header, bad))
    assert message.strip_digest(Message(Envelope(1, 0), header, b"")) == b""


def test_flags_of_an_answer() -> None:
    everything = 0xFFFFFFFF
    flags = message.answer_flags(everything)
    assert flags & (OpFlag.AUTHORITATIVE | OpFlag.CERTIFY | OpFlag.ENCRYPT | OpFlag.CONTINUOUS) == 0
    assert flags & (OpFlag.REQUEST_DIGEST | OpFlag.PUBLIC_ONLY | OpFlag.KEEP_CONNECTION) == 0x03800000
    assert message.answer_flags(FLAGS_DEFAULT, authoritative=True) == FLAGS_DEFAULT | OpFlag.AUTHORITATIVE
    assert message.answer_flags(FLAGS_DEFAULT, more=True) == FLAGS_DEFAULT | OpFlag.CONTINUOUS


def test_misuse() -> None:
    for made in (
        Message(Envelope(-1, 0), Header(1), b""),
        Message(Envelope(1, 0, (300, 1)), Header(1), b""),
        Message(Envelope(1, 0), Header(1, site_serial=0x10000), b""),
        Message(Envelope(1, 0), Header(1), bytes(262_144)),
    ):
        with pytest.raises(CodecMisuse):
            message.encode_message(made)
    with pytest.raises(CodecMisuse):
        ListResponse((b"a",) * 51).encode()
    with pytest.raises(CodecMisuse):
        ResolutionRequest(b"a", (-1,)).encode()
    assert len(message.encode_message(Message(Envelope(1, 0), Header(1), bytes(262_144 - 28)))) == 262_144 + 20


def test_a_list_goes_out_in_fifties() -> None:
    handles = [b"%d" % number for number in range(101)]
    assert [len(batch.handles) for batch in bodies.list_batches(handles)] == [50, 50, 1]
    assert bodies.list_batches([]) == [ListResponse(())]


def test_names() -> None:
    assert names.split_name(b"88.1/a/b") == (b"88.1", b"a/b")
    assert names.split_name(b"88.1") == (b"0.NA", b"88.1")
    assert names.full_name(b"88.1") == b"0.NA/88.1"
    assert names.full_name(b"88.1/x") == b"88.1/x"
    assert names.fold("aß-ü".encode()) == "Aß-ü".encode()
    assert names.server_number(b"88.118.8/XYZ-001", names.HashOption.WHOLE, 7) == 1668129981 % 7
    assert names.choice_hash(b"88.118.8/xyz-001", names.HashOption.WHOLE) == 1668129981
    with pytest.raises(CodecMisuse):
        names.server_number(b"a", names.HashOption.WHOLE, 0)


STATUSES = {
    200: (1, 200),
    300: (302, 303),
    404: (100,),
    409: (101, 201),
    400: (4, 102, 202, 301),
    501: (5,),
    503: (3, 7),
    401: (402,),
    403: (400, 401, 403, 404),
    500: (2, 6, 500, 9_999),
}


@pytest.mark.parametrize(("status", "code"), [(status, code) for status, codes in STATUSES.items() for code in codes])
def test_http_status(status: int, code: int) -> None:
    assert http_status(code) == status


def test_http_status_of_other_operations() -> None:
    assert http_status(1, created=True) == 201
    assert http_status(200, op_code=OpCode.REMOVE_VALUE) == 400


def test_envelope_flags() -> None:
    assert message.decode_envelope(changed(2, b"\x22")).flags == EnvelopeFlag.TRUNCATED
    assert message.decode_envelope(changed(2, b"\x22")).suggested == (2, 11)
