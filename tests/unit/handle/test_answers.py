"""The quick way and the whole codec agree on everything the quick way takes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replica import native
from replica.model.handle import answers, bodies, message
from replica.model.handle.bodies import ErrorResponse, Referral, ResolutionRequest, ResolutionResponse
from replica.model.handle.codes import FLAGS_DEFAULT, OpFlag
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.message import Envelope, Header, Message
from replica.model.handle.values import HandleValue, encode_record, encode_values
from tests.unit.handle import strategies as some
from tests.unit.handle.golden import OCTETS, REQUESTS, STAMP

PLAIN = OCTETS["resolve_req_compat"]
HANDLE = b"88.118.8/XYZ-001"
URL = HandleValue(1, b"URL", b"http://example.cn/a", timestamp=STAMP)
SITE = HandleValue(3, b"HS_SITE", OCTETS["hs_site"], timestamp=STAMP)


def peeked(octets: bytes) -> answers.Peeked:
    found = answers.peek_resolution(octets)
    assert found is not None
    return found


def test_golden_answers() -> None:
    request = peeked(PLAIN)
    assert request.handle == HANDLE
    assert request.public_only
    values = native.filter_values(encode_record([URL]), (), (), True)
    assert values is not None
    assert answers.resolution_answer(request, values, 0) == OCTETS["resolve_resp"]
    assert answers.error_answer(request, 301, b"That prefix doesn't live here", 0) == OCTETS["err_server_not_resp"]
    assert answers.referral_answer(request, 302, b"0.SERV/88.118", encode_values([SITE]), 0) == OCTETS["service_referral"]
    assert answers.referral_answer(request, 303, b"", encode_values([SITE]), 0) == OCTETS["prefix_referral"]
    asked = peeked(PLAIN[:28] + b"\x19\x80\0\0" + PLAIN[32:])
    assert answers.error_answer(asked, 100, b"", 0) == OCTETS["err_not_found_with_digest"]


def test_indexes_and_types() -> None:
    request = peeked(OCTETS["resolve_req_2_11_idx_types"])
    assert (request.indexes, request.types) == ((1, 2), (b"URL", b"HS_SITE."))


@pytest.mark.parametrize("name", [name for name in REQUESTS if not name.startswith("resolve")])
def test_other_operations_go_the_long_way(name: str) -> None:
    assert answers.peek_resolution(OCTETS[name]) is None


requests = st.builds(
    lambda envelope, flags, body, recursion: message.encode_message(
        Message(envelope, Header(1, flags=flags, recursion=recursion), body.encode())
    ),
    some.envelopes,
    some.u32,
    st.builds(ResolutionRequest, some.names, some.index_lists, st.lists(some.kinds, max_size=3).map(tuple)),
    some.u8,
)


@given(requests, st.booleans(), some.u32, some.u16, some.value_lists)
def test_both_ways_read_and_answer_alike(
    octets: bytes, authoritative: bool, expiration: int, serial: int, values: object
) -> None:
    request = peeked(octets)
    read = message.decode_message(octets)
    body = bodies.decode_request(read)
    assert ResolutionRequest(request.handle, request.indexes, request.types) == body
    assert (request.flags, request.recursion) == (read.header.flags, read.header.recursion)
    options = {"expiration": expiration, "site_serial": serial, "authoritative": authoritative}
    wire = encode_values(values)  # type: ignore[arg-type]
    long_way = message.answer_to(read, octets, 1, ResolutionResponse(request.handle, values).encode(), **options)  # type: ignore[arg-type]
    assert answers.resolution_answer(request, wire, expiration, site_serial=serial, authoritative=authoritative) == long_way
    long_way = message.answer_to(read, octets, 2, ErrorResponse(b"stale").encode(), **options)  # type: ignore[arg-type]
    assert answers.error_answer(request, 2, b"stale", expiration, site_serial=serial, authoritative=authoritative) == long_way
    for code in (7, 202):
        long_way = message.answer_to(read, octets, code, ErrorResponse(b"").encode(), **options)  # type: ignore[arg-type]
        assert answers.error_answer(request, code, b"", expiration, site_serial=serial, authoritative=authoritative) == long_way
    refer = Referral(b"0.SERV/1", values).encode()  # type: ignore[arg-type]
    long_way = message.answer_to(read, octets, 302, refer, expiration=expiration, site_serial=serial)
    assert answers.referral_answer(request, 302, b"0.SERV/1", wire, expiration, site_serial=serial) == long_way


@given(st.sampled_from([PLAIN, OCTETS["resolve_req_2_11_idx_types"]]).flatmap(some.changed))
@example(PLAIN[:-4])
@example(PLAIN[:16] + b"\0\0\0\x34" + PLAIN[20:-4])
def test_the_quick_way_takes_only_what_the_codec_takes(octets: bytes) -> None:
    request = answers.peek_resolution(octets)
    if request is None:
        return
    try:
        body = bodies.decode_request(message.decode_message(octets))
    except ProtocolFault as fault:
        raise AssertionError(f"taken, but {fault}") from fault
    assert body == ResolutionRequest(request.handle, request.indexes, request.types)


def test_a_flood_of_versions_fills_no_memory() -> None:
    for number in range(5_000):
        octets = number.to_bytes(2, "big") + bytes((number % 4, number % 251)) + PLAIN[4:]
        answers.peek_resolution(octets)
    assert len(answers._versions) <= answers._VERSIONS_MAX


def test_flags() -> None:
    quiet = Message(Envelope(1, 0), Header(1, flags=FLAGS_DEFAULT & ~OpFlag.PUBLIC_ONLY), ResolutionRequest(b"0").encode())
    request = peeked(message.encode_message(quiet))
    assert not request.public_only
    read = message.decode_message(answers.error_answer(request, 100, b"", 7, authoritative=True))
    assert read.header.flags & OpFlag.AUTHORITATIVE
