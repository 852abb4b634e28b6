"""Challenges, their answers, sessions and credentials: octets there and back, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from replica.model.handle import admin_bodies as bodies
from replica.model.handle import proofs
from replica.model.handle.bodies import HandleRequest
from replica.model.handle.codes import OpCode, ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.keys import encode_key
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message, strip_digest
from replica.model.handle.proofs import MacCode
from replica.model.handle.values import Reference
from replica.model.handle.wire import string

NONCE, DIGEST, SECRET = b"n" * 16, b"d" * 32, b"a secret"
CODES = [code for code in MacCode if code is not MacCode.MD5]
names = st.binary(min_size=1, max_size=40)
references = st.builds(Reference, names, st.integers(0, 0xFFFFFFFF))
u32 = st.integers(0, 0xFFFFFFFF)


@given(st.builds(bodies.ChallengeAnswer, st.sampled_from([bodies.HS_PUBKEY, bodies.HS_SECKEY]), references, st.binary()))
def test_an_answer_survives(answer: bodies.ChallengeAnswer) -> None:
    assert bodies.decode_challenge_answer(answer.encode()) == answer


@given(st.builds(bodies.VerifyRequest, references, st.binary(max_size=64), st.binary(max_size=32), st.binary()))
def test_a_verify_request_survives(request: bodies.VerifyRequest) -> None:
    assert bodies.decode_verify_request(request.encode()) == request


@given(st.sampled_from(list(bodies.SetupMode)), u32, references, st.binary(), references)
def test_a_session_setup_survives(mode: bodies.SetupMode, timeout_s: int, identity: Reference, key: bytes, at: Reference) -> None:
    keyed = mode in (bodies.SetupMode.CLIENT_KEY, bodies.SetupMode.DIFFIE_HELLMAN)
    setup = bodies.SessionSetup(
        mode, timeout_s, identity, key if keyed else b"", at if mode is bodies.SetupMode.KEY_OF_HANDLE else None
    )
    octets = setup.encode()
    assert octets.endswith(b"\0\0")
    assert bodies.decode_session_setup(octets) == setup
    assert bodies.decode_session_setup(octets[:-2]) == setup
    answer = bodies.SessionSetupAnswer(mode, key)
    assert bodies.decode_session_setup_answer(answer.encode()) == answer


@given(st.builds(bodies.Credential, st.just(bodies.HS_MAC), st.just(b"HMAC-SHA256"), st.binary(), u32, st.binary()))
def test_a_credential_survives(credential: bodies.Credential) -> None:
    assert bodies.decode_credential(credential.encode()) == credential
    with pytest.raises(ProtocolFault):
        bodies.decode_credential(credential.encode() + b"\0")
    assert bodies.decode_credential(b"") is None


@given(
    st.binary(max_size=200),
    st.sampled_from(
        [
            bodies.decode_challenge_answer,
            bodies.decode_verify_request,
            bodies.decode_session_setup,
            bodies.decode_session_setup_answer,
            bodies.decode_credential,
            lambda octets: proofs.judge_public(octets, NONCE, DIGEST, octets),
            lambda octets: proofs.judge_public(octets, NONCE, DIGEST, string(b"SHA1") + string(octets)),
            lambda octets: proofs.judge_secret(SECRET, NONCE, DIGEST, octets),
        ]
    ),
)
def test_any_octets_are_read_or_refused(octets: bytes, decode: Callable[[bytes], object]) -> None:
    try:
        decode(octets)
    except ProtocolFault as fault:
        assert fault.code is not None


@pytest.mark.parametrize("version", [(2, 3), (2, 11)])
def test_a_challenge_is_bound_to_its_request(version: tuple[int, int]) -> None:
    body = HandleRequest(b"88.118.8/A").encode()
    octets = encode_message(Message(Envelope(7, 0, version, version), Header(OpCode.DELETE_HANDLE), body))
    answer, challenge = bodies.challenge_to(decode_message(octets), octets, NONCE, 9, expiration=1)
    read = decode_message(answer)
    assert read.header.response_code == ResponseCode.AUTHENTICATION_NEEDED
    assert (read.envelope.session_id, read.envelope.request_id) == (9, 7)
    assert bodies.decode_challenge(read) == challenge
    assert strip_digest(read, octets) == string(NONCE)
    assert len(challenge.digest) == (20 if version == (2, 3) else 32)
    with pytest.raises(CodecMisuse):
        bodies.challenge_to(decode_message(octets), octets, b"short", 9, expiration=1)


def test_a_signature_covers_the_session_and_the_counter() -> None:
    one = bodies.signed_octets(Envelope(7, 0, session_id=3), 5, b"rest")
    assert one == bytes((2, 11, 2, 11)) + b"\0\0\0\x03\0\0\0\x07\0\0\0\x05rest"
    with pytest.raises(ProtocolFault, match=r"2\.8 or later"):
        bodies.signed_octets(Envelope(7, 0, (2, 7)), 5, b"rest")


@pytest.mark.parametrize("code", CODES)
def test_a_secret_proves_itself_and_nothing_else(code: MacCode) -> None:
    proof = proofs.prove_secret(SECRET, NONCE, DIGEST, code, salt=b"s" * 16)
    assert proofs.judge_secret(SECRET, NONCE, DIGEST, proof)
    assert not proofs.judge_secret(b"another", NONCE, DIGEST, proof)
    assert not proofs.judge_secret(SECRET, b"m" * 16, DIGEST, proof)
    assert not proofs.judge_secret(SECRET, NONCE, b"e" * 32, proof)
    assert not proofs.judge_secret(SECRET, NONCE, DIGEST, proof[:-1] + bytes((proof[-1] ^ 1,)))


def test_the_shape_of_the_encoders_pbkdf2_proof() -> None:
    """The golden line holds no key, so its structure alone is compared."""
    proof = proofs.prove_secret(SECRET, NONCE, DIGEST, MacCode.PBKDF2_HMAC_SHA1, salt=b"s" * 16)
    golden = bytes.fromhex(
        "2200000010be6134b4eed8134aa65e5c4d40d1572f00002710000000a000000014943282ee8adf120ad05532d00f95ae67925e2ba2"
    )
    assert len(proof) == len(golden) == 53
    assert (proof[:5], proof[21:33]) == (golden[:5], golden[21:33])
    assert not proofs.judge_secret(SECRET, NONCE, DIGEST, golden)


@pytest.mark.parametrize(
    "proof",
    [
        b"",
        b"\x01" + b"m" * 16,
        b"\x22" + string(b"s") + b"\x7f\xff\xff\xff\0\0\0\xa0" + string(b"m" * 20),
        b"\x22" + string(b"s" * 65) + b"\0\0\x27\x10\0\0\0\xa0" + string(b"m" * 20),
        b"\x22" + string(b"s") + b"\0\0\x27\x10\0\0\0\x08" + string(b"m" * 20),
        b"\x22" + string(b"s") + b"\0\0\0\0\0\0\0\xa0" + string(b"m" * 20),
    ],
    ids=["nothing", "MD5", "iterations", "salt", "short key", "no iteration"],
)
def test_a_proof_that_is_weak_or_costly_is_refused(proof: bytes) -> None:
    with pytest.raises(ProtocolFault) as caught:
        proofs.judge_secret(SECRET, NONCE, DIGEST, proof)
    assert caught.value.code is ResponseCode.AUTHENTICATION_FAILED


@cache
def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2_048)


@cache
def _dsa() -> dsa.DSAPrivateKey:
    return dsa.generate_private_key(1_024)


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _signed(kind: str, name: bytes, message: bytes) -> tuple[bytes, bytes]:
    """(HS_PUBKEY data, proof) as a client makes them."""
    chosen = hashes.SHA256() if b"256" in name else hashes.SHA1()
    if kind == "RSA":
        public = _rsa().public_key().public_numbers()
        numbers = {"n": public.n, "e": public.e}
        signature = _rsa().sign(message, padding.PKCS1v15(), chosen)
    else:
        found = _dsa().public_key().public_numbers()
        inside = found.parameter_numbers
        numbers = {"q": inside.q, "p": inside.p, "g": inside.g, "y": found.y}
        signature = _dsa().sign(message, chosen)
    return encode_key(kind, {name: _octets(one) for name, one in numbers.items()}), string(name) + string(signature)


@pytest.mark.parametrize("kind", ["RSA", "DSA"])
@pytest.mark.parametrize("name", [b"SHA-256", b"SHA1"])
def test_a_key_pair_proves_itself_and_nothing_else(kind: str, name: bytes) -> None:
    key, proof = _signed(kind, name, NONCE + DIGEST)
    assert proofs.judge_public(key, NONCE, DIGEST, proof)
    assert not proofs.judge_public(key, b"m" * 16, DIGEST, proof)
    with pytest.raises(ProtocolFault, match="SHA-256 or SHA-1"):
        proofs.judge_public(key, NONCE, DIGEST, string(b"MD5") + string(b"s"))
