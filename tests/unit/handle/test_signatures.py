"""Answers signed with a site's key: what the signature covers in each version, and that nothing else passes for one."""

from __future__ import annotations

import struct

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from replica.model.handle.admin_bodies import HS_MAC, HS_SIGNED, Credential, decode_credential
from replica.model.handle.answers import peek_resolution, resolution_answer
from replica.model.handle.codes import OpFlag, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.keys import encode_key
from replica.model.handle.message import Version, decode_message, encode_message
from replica.model.handle.signatures import has_signatures, judge_signature, public_data, signed, wants_signature
from tests.unit.front.world import NAME, resolution

PRIVATE = rsa.generate_private_key(65_537, 1_024)
OTHER = rsa.generate_private_key(65_537, 1_024)
KEY = public_data(PRIVATE.public_key())


def plain(version: Version = (2, 11)) -> bytes:
    peeked = peek_resolution(resolution(NAME))
    assert peeked is not None
    return resolution_answer(peeked._replace(versions=bytes((*version, 2, 11))), bytes(4), 1_700_000_000)


def judged(octets: bytes, key: bytes = KEY) -> ResponseCode | None:
    """None: it is good; else the code of the refusal."""
    try:
        judge_signature(decode_message(octets), octets, key)
    except ProtocolFault as fault:
        return fault.code
    return None


@pytest.mark.parametrize(("version", "head"), [((2, 11), ">4B3I"), ((2, 8), ">4B3I"), ((2, 7), ">2B3I")])
def test_the_signature_covers_what_the_protocol_states_for_the_version(version: Version, head: str) -> None:
    octets = signed(plain(version), PRIVATE)
    message = decode_message(octets)
    credential = decode_credential(message.credential)
    assert credential is not None and (credential.kind, credential.digest) == (HS_SIGNED, b"SHA-256")
    assert (credential.signer, credential.counter) == (b"", 0) and message.credential[:4] == bytes(4)
    versions = (*version, 2, 11) if head == ">4B3I" else version
    part = octets[20 : 44 + len(message.body)]
    covered = struct.pack(head, *versions, 0, message.envelope.request_id, 0) + part
    PRIVATE.public_key().verify(credential.signature, covered, padding.PKCS1v15(), hashes.SHA256())
    assert judged(octets) is None


@pytest.mark.parametrize("version", [(2, 6), (2, 5), (2, 4), (2, 0), (5, 0)])
def test_before_2_7_nothing_is_signed(version: Version) -> None:
    assert not has_signatures(version)
    with pytest.raises(ProtocolFault):
        signed(plain(version), PRIVATE)
    good = decode_message(signed(plain(), PRIVATE))
    old = encode_message(
        decode_message(plain(version)).__class__(decode_message(plain(version)).envelope, good.header, good.body, good.credential)
    )
    assert judged(old) is ResponseCode.INVALID_CREDENTIAL, "a signature of another version proves nothing in this one"


def test_a_signed_answer_says_so_and_differs_in_nothing_else() -> None:
    before, after = decode_message(plain()), decode_message(signed(plain(), PRIVATE))
    assert not before.header.flags & OpFlag.CERTIFY and after.header.flags == before.header.flags | OpFlag.CERTIFY
    assert (after.body, after.header.response_code) == (before.body, before.header.response_code)


@given(st.data())
def test_an_altered_octet_is_noticed(data: st.DataObject) -> None:
    octets = bytearray(signed(plain(), PRIVATE))
    credential_at = 44 + len(decode_message(bytes(octets)).body)
    # left out, as the protocol states: the sequence number, the length, and of octet 2 all but the suggested version
    at = data.draw(st.one_of(st.integers(0, 11), st.integers(20, credential_at - 1)))
    octets[at] ^= data.draw(st.integers(1, 3 if at == 2 else 255))
    try:
        message = decode_message(bytes(octets))
    except ProtocolFault:
        return
    with pytest.raises(ProtocolFault):
        judge_signature(message, bytes(octets), KEY)


def test_what_is_not_signed_by_this_sites_key_is_refused() -> None:
    good = signed(plain(), PRIVATE)
    bad = ResponseCode.INVALID_CREDENTIAL
    assert judged(good) is None
    assert judged(good, public_data(OTHER.public_key())) is bad and judged(signed(plain(), OTHER)) is bad
    assert judged(plain()) is bad, "no signature at all"
    assert judged(good, b"") is ResponseCode.INVALID_VALUE, "a site without a key"
    numbers = dsa.generate_private_key(1_024).public_key().public_numbers()
    named = {"p": numbers.parameter_numbers.p, "q": numbers.parameter_numbers.q, "g": numbers.parameter_numbers.g, "y": numbers.y}
    data = encode_key("DSA", {name: number.to_bytes(128, "big") for name, number in named.items()})
    assert judged(good, data) is ResponseCode.INVALID_VALUE, "no key of a kind that sites sign with"
    message = decode_message(good)
    credential = decode_credential(message.credential)
    assert credential is not None
    for kind, digest in ((HS_MAC, b"SHA-256"), (HS_SIGNED, b"SHA1"), (HS_SIGNED, b"MD5")):
        changed = Credential(kind, digest, credential.signature).encode()
        other = encode_message(message.__class__(message.envelope, message.header, message.body, changed))
        assert judged(other) is bad, (kind, digest)


def test_which_requests_want_a_signature() -> None:
    assert wants_signature(resolution(NAME, flags=int(OpFlag.CERTIFY)))
    assert not wants_signature(resolution(NAME, flags=0xFFFFFFFF & ~int(OpFlag.CERTIFY)))
    assert not wants_signature(resolution(NAME, flags=int(OpFlag.CERTIFY))[:28])
