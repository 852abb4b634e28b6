"""Encrypted messages of sessions: the cipher against published octets, a session's life in it, and what was altered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.model.handle.bodies import ValuesRequest
from replica.model.handle.ciphers import BLOCK_OCTETS, decrypted, encrypted, is_encrypted
from replica.model.handle.codes import FLAGS_DEFAULT, MESSAGE_OCTETS_MAX, OpCode, OpFlag, ResponseCode
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.macs import sealed
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_envelope, encode_message
from tests.unit.handle.test_registrar import CREATE, NAME, World, admin, url
from tests.unit.handle.test_sessions import CLIENT, GONE, Client

IV = bytes(range(16))


class Hidden(Client):
    """A client that encrypts what it says, and to whom everything is said encrypted."""

    def message(self, op: int, body: bytes, *, counter: int | None = None, key: bytes | None = None) -> bytes:
        return encrypted(super().message(op, body, counter=counter, key=key), key or self.key, IV)

    async def say(self, octets: bytes) -> Message:
        [answer] = await self.world.registrar.answer(octets, CLIENT)
        assert is_encrypted(answer) and NAME.encode() not in octets + answer
        return decode_message(decrypted(answer, self.key))


def test_the_cipher_gives_published_octets() -> None:
    """NIST SP 800-38A, F.2.1 (CBC-AES128.Encrypt), first two blocks."""
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
    made = encrypted(encode_envelope(Envelope(7, len(plain))) + plain, key, IV)
    assert made[20:36] == IV and len(made) == 20 + 16 + 48
    assert made[36:68].hex() == "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
    assert made[2] & 0x40 and int.from_bytes(made[16:20], "big") == 64


@given(st.binary(max_size=600), st.binary(min_size=16, max_size=16), st.integers(1, 2**31 - 1))
def test_what_was_encrypted_comes_back(body: bytes, key: bytes, number: int) -> None:
    octets = encode_message(Message(Envelope(7, 0, session_id=number), Header(OpCode.CREATE_HANDLE), body))
    hidden = encrypted(octets, key, IV)
    assert decrypted(hidden, key) == octets and is_encrypted(hidden) and not is_encrypted(octets)
    assert hidden[4:16] == octets[4:16], "session and request can be told in clear"


@given(st.binary(max_size=200))
def test_octets_that_nobody_encrypted_are_a_fault(octets: bytes) -> None:
    whole = encode_envelope(Envelope(7, len(octets), flags=0x40)) + octets
    try:
        assert decrypted(whole, bytes(16))[2] & 0x40 == 0
    except ProtocolFault as fault:
        assert fault.code == ResponseCode.INVALID_SESSION_KEY


def test_a_message_that_encrypted_is_too_long_is_not_made() -> None:
    octets = encode_envelope(Envelope(7, MESSAGE_OCTETS_MAX)) + bytes(MESSAGE_OCTETS_MAX)
    with pytest.raises(CodecMisuse):
        encrypted(octets, bytes(16), IV)


async def test_a_session_lives_encrypted() -> None:
    world = World(admin())
    client = await Hidden.opened(world)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1 and world.values(NAME) is not None
    assert await client.ask(OpCode.ADD_VALUE, ValuesRequest(NAME.encode(), (url(2),))) == 1
    assert await client.ask(OpCode.ADD_VALUE, ValuesRequest(NAME.encode(), (url(2),))) == ResponseCode.VALUE_ALREADY_EXISTS
    assert await client.ask(OpCode.DELETE_HANDLE, GONE) == 1 and world.values(NAME) is None
    assert await client.ask(OpCode.SESSION_TERMINATE, GONE) == 1, "its last word too"
    [answer] = await world.registrar.answer(client.message(OpCode.DELETE_HANDLE, GONE.encode()), CLIENT)
    assert decode_message(answer).header.response_code == ResponseCode.SESSION_TIMEOUT


async def test_who_asks_for_it_is_answered_encrypted() -> None:
    world = World()
    client = await Client.opened(world)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1
    client.counter += 1
    head = Header(OpCode.DELETE_HANDLE, flags=FLAGS_DEFAULT | OpFlag.ENCRYPT)
    plain = encode_message(Message(Envelope(9, 0, session_id=client.session_id), head, GONE.encode()))
    [answer] = await world.registrar.answer(sealed(plain, client.key, client.counter), CLIENT)
    assert decode_message(decrypted(answer, client.key)).header.response_code == 1
    [answer] = await world.registrar.answer(sealed(plain, bytes(16), 99), CLIENT)
    assert decode_message(answer).header.response_code == ResponseCode.INVALID_SESSION_KEY, "to strangers nothing is encrypted"


async def test_all_that_was_altered_sounds_the_same() -> None:
    world = World()
    client = await Hidden.opened(world)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1
    whole = client.message(OpCode.DELETE_HANDLE, GONE.encode())
    bare = encode_message(Message(Envelope(9, 0, session_id=client.session_id), Header(OpCode.DELETE_HANDLE), GONE.encode()))
    altered = [bytearray(whole) for _ in range(3)]
    for one, at in zip(altered, (-1, -BLOCK_OCTETS - 1, 20), strict=True):  # padding, last block, first octets of the header
        one[at] ^= 1
    shorter = encode_envelope(Envelope(9, len(whole) - 36, session_id=client.session_id, flags=0x40)) + whole[20:-16]
    wrong = [*map(bytes, altered), shorter, encrypted(bare, client.key, IV), encrypted(bare[:24] + b"\0" * 8, client.key, IV),
             client.message(OpCode.DELETE_HANDLE, GONE.encode(), key=b"k" * 16)]  # fmt: skip
    said = set()
    for octets in wrong:
        [answer] = await world.registrar.answer(octets, CLIENT)
        message = decode_message(answer)
        said.add((message.header.response_code, message.body))
    assert len(said) == 1 and next(iter(said))[0] == ResponseCode.INVALID_SESSION_KEY and world.values(NAME) is not None
    assert await client.say(whole) and world.values(NAME) is None, "the one that nobody altered"
    [again] = await world.registrar.answer(whole, CLIENT)
    assert decode_message(again).header.response_code == ResponseCode.SESSION_MESSAGE_REJECTED
