"""Operation 2001 of China's SDKs: a login names a key, a challenge proves it, and it gives no right to what comes afterwards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.model.handle.admin_bodies import HS_SECKEY, ChallengeAnswer, decode_challenge, decode_login, encode_login
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, ResponseCode
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message
from replica.model.handle.proofs import MacCode, prove_secret
from replica.model.handle.values import Reference
from tests.unit.handle.test_registrar import CREATE, KEY, NAME, OTHER, SECRETS, World, answer_of, request
from tests.unit.handle.test_sessions import Client

REFUSED = ResponseCode.VERIFY_CREDENTIAL_FAILED


def login(key: Reference = KEY, session_id: int = 0) -> bytes:
    head = Envelope(7, 0, session_id=session_id)
    return encode_message(Message(head, Header(OpCode.LOGIN_ID_SYSTEM, flags=FLAGS_DEFAULT), encode_login(key)))


@given(st.binary(min_size=1, max_size=60), st.integers(0, 0xFFFFFFFF))
def test_a_login_is_a_string_and_an_index(handle: bytes, index: int) -> None:
    octets = len(handle).to_bytes(4, "big") + handle + index.to_bytes(4, "big")
    assert encode_login(Reference(handle, index)) == octets and decode_login(octets) == Reference(handle, index)


async def test_a_login_is_challenged_and_its_key_is_proved_in_the_same_session() -> None:
    world = World()
    challenge = await world.send(login())
    assert challenge.header.response_code == 402 and challenge.envelope.session_id
    done = await world.send(answer_of(challenge, login()))
    assert (done.header.response_code, done.header.op_code) == (1, OpCode.LOGIN_ID_SYSTEM)
    assert done.envelope.session_id == challenge.envelope.session_id


async def test_a_login_in_a_session_its_client_made_up_is_challenged_in_one_of_ours() -> None:
    world = World()
    other = await world.send(login(), "192.0.2.9")
    octets = login(session_id=other.envelope.session_id)
    challenge = await world.send(octets)
    assert challenge.header.response_code == 402
    assert challenge.envelope.session_id not in (0, other.envelope.session_id), (
        "or it could take the place of another's challenge"
    )
    assert (await world.send(answer_of(challenge, octets))).header.response_code == 1
    assert (await world.send(answer_of(other, login()), "192.0.2.9")).header.response_code == 1


@pytest.mark.parametrize("session", ["the login's", "the client's", "none"])
async def test_a_login_gives_no_right_to_what_comes_afterwards(session: str) -> None:
    world = World()
    octets = login(session_id=77 if session == "the client's" else 0)
    challenge = await world.send(octets)
    assert (await world.send(answer_of(challenge, octets))).header.response_code == 1
    number = {"the login's": challenge.envelope.session_id, "the client's": 77, "none": 0}[session]
    asked = encode_message(Message(Envelope(9, 0, session_id=number), Header(OpCode.CREATE_HANDLE), CREATE.encode()))
    said = await world.send(asked)
    assert said.header.response_code == (ResponseCode.SESSION_TIMEOUT if number else 402) and world.values(NAME) is None


@pytest.mark.parametrize("why", ["secret", "another key", "another index", "replayed", "no such key", "late", "client"])
async def test_what_does_not_prove_the_named_key_is_no_login(why: str) -> None:
    world, named, client, wanted = World(), KEY, "192.0.2.1", REFUSED
    if why == "no such key":
        named = Reference(b"88.118.9/NOBODY", 300)
    elif why == "another index":
        named = Reference(KEY.handle, 301)
    challenge = await world.send(login(named))
    assert challenge.header.response_code == 402, "there or not there: the same"
    answer = answer_of(challenge, login(named), KEY, b"guess" if why == "secret" else None)
    if why == "another key":
        answer = answer_of(challenge, login(), OTHER)
    elif why == "no such key":
        found = decode_challenge(challenge)
        proof = prove_secret(bytes(32), found.nonce, found.digest, MacCode.HMAC_SHA256)
        body = ChallengeAnswer(HS_SECKEY, named, proof).encode()
        head = Envelope(8, 0, session_id=challenge.envelope.session_id)
        answer = encode_message(Message(head, Header(OpCode.CHALLENGE_RESPONSE), body))
    elif why in ("replayed", "late", "client"):
        wanted = ResponseCode.AUTHEN_TIMEOUT
        world.now_ms += 60_000 * (why == "late")
        client = "192.0.2.9" if why == "client" else client
        if why == "replayed":
            assert (await world.send(answer)).header.response_code == 1
    assert (await world.send(answer, client)).header.response_code == wanted


async def test_guesses_by_login_are_counted_as_any_other() -> None:
    world = World()
    codes = []
    for _ in range(21):
        challenge = await world.send(login())
        codes.append((await world.send(answer_of(challenge, login(), secret=b"guess"))).header.response_code)
    assert codes == [REFUSED] * 20 + [ResponseCode.SERVER_TOO_BUSY]


async def test_in_a_session_with_a_key_a_login_is_the_sessions_proof() -> None:
    world = World()
    client = await Client.opened(world)
    said = await client.say(client.message(OpCode.LOGIN_ID_SYSTEM, encode_login(KEY)))
    assert said.header.response_code == 402 and said.credential
    found = decode_challenge(said)
    proof = prove_secret(SECRETS[KEY], found.nonce, found.digest, MacCode.HMAC_SHA256)
    answer = client.message(OpCode.CHALLENGE_RESPONSE, ChallengeAnswer(HS_SECKEY, KEY, proof).encode())
    assert (await client.say(answer)).header.response_code == 1
    assert await client.ask(OpCode.CREATE_HANDLE, CREATE) == 1, "its messages have MACs: they show who sends them"
    again = await client.say(client.message(OpCode.LOGIN_ID_SYSTEM, encode_login(OTHER)))
    assert again.header.response_code == 402, "whoever was proved before, a login is asked for its own proof"


@pytest.mark.parametrize(
    "body", [b"", b"\0\0\xff\xff", b"\0\0\0\x01A", b"\0\0\0\0\0\0\0\1", b"\xff" * 8, (b"\0\0\x10\0" + b"a" * 4096 + b"\0\0\0\1")]
)
async def test_a_malformed_login_is_told_so_and_not_kept(body: bytes) -> None:
    world = World()
    octets = encode_message(Message(Envelope(7, 0), Header(OpCode.LOGIN_ID_SYSTEM), body))
    said = await world.send(octets)
    assert said.header.response_code in (ResponseCode.PROTOCOL_ERROR, ResponseCode.INVALID_HANDLE) and not said.credential
    assert len(world.registrar.challenges) == 0


async def test_the_old_login_stays_refused() -> None:
    said = await World().registrar.answer(request(OpCode.LOGIN, CREATE), "192.0.2.1")
    assert decode_message(said[0]).header.response_code == ResponseCode.OPERATION_NOT_SUPPORTED
