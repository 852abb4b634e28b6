"""What a stranger's octets may cost, and what they may not do, at the doors that read before they ask who it is."""

from __future__ import annotations

import asyncio
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting.handle.json_asks import JsonAsked
from replica.model.handle.codes import OpCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.macs import AES_128, SM4, key_from_wire
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message
from tests.unit.handle.test_json_writes import HERE, NEW, basic
from tests.unit.handle.test_registrar import NAME, World
from tests.unit.handle.test_server_key import SERVER

LENGTHS = [0, 1, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, 0xFFFF_FFFC, 0xFFFF_FFFF]
OPS = list(OpCode)
BOMBS = {
    "deep": b"[" * 200_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"values":' * 50_000 + b"1" + b"}" * 50_000,
    "a number": b'[{"index":' + b"9" * 200_000 + b"}]",
    "a power": b'[{"index":1e999999999,"type":"URL","data":"x"}]',
    "an index": b'[{"index":4294967296,"type":"URL","data":"x"}]',
    "below nothing": b'[{"index":-1,"type":"URL","data":"x"}]',
    "a fraction": b'[{"index":1.5,"type":"URL","data":"x"}]',
    "half a sign": b'[{"index":1,"type":"URL","data":"\\ud800"}]',
    "no UTF-8": b'[{"index":1,"type":"URL","data":"\xff\xfe"}]',
    "many": b"[" + b"{}," * 60_000 + b"{}]",
    "a ttl": b'[{"index":1,"type":"URL","data":"x","ttl":99999999999999999999}]',
    "a time": b'[{"index":1,"type":"URL","data":"x","timestamp":"9999999999999999-99-99"}]',
    "nothing": b"",
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_body_that_is_no_change_changes_nothing_whoever_sends_it(bomb: str) -> None:
    world = World()
    for credential in (b"", basic()):
        asked = JsonAsked(b"PUT", NEW.encode(), BOMBS[bomb], credential, HERE, private=True)
        said = await world.registrar.json.answer(asked)
        assert said.status == (400 if credential else 401), said.body[:200]
        assert len(said.body) < 1_000 and json.loads(said.body)["responseCode"] != 1
    assert world.values(NAME) is None


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("op", OPS)
async def test_lengths_that_are_not_there_are_answered_as_malformed(op: OpCode, length: int) -> None:
    """Every operation, with a first length and a count that the body does not have."""
    world = World(server_key=SERVER)
    for body in (
        struct.pack(">I", length),
        struct.pack(">II", 1, length),
        struct.pack(">HI", 1, length),
        struct.pack(">I", length) * 40,
    ):
        octets = encode_message(Message(Envelope(7, 0), Header(op), body))
        for answer in await world.registrar.answer(octets, "192.0.2.1"):
            said = decode_message(answer)
            assert said.header.response_code not in (0, 1) or op == OpCode.VERIFY_CHALLENGE, said
    assert world.group.content.position.seq == 0 and len(world.registrar.desk.sessions) == 0


@given(st.binary(max_size=200), st.sampled_from(OPS), st.integers(0, 0xFFFF_FFFF))
def test_a_body_of_anything_is_answered(body: bytes, op: OpCode, session: int) -> None:
    asyncio.run(asked_anything(encode_message(Message(Envelope(7, 0, session_id=session), Header(op), body))))


async def asked_anything(octets: bytes) -> None:
    world = World(server_key=SERVER)
    for answer in await world.registrar.answer(octets, "192.0.2.1"):
        decode_message(answer)
    assert world.group.content.position.seq == 0


@pytest.mark.parametrize("algorithm", [AES_128, SM4])
@pytest.mark.parametrize("octets", [0, 1, 8, 15, 17, 24, 31, 32, 33, 255])
def test_a_key_has_the_length_of_its_algorithm(algorithm: int, octets: int) -> None:
    wire = struct.pack(">I", algorithm) + bytes(octets)
    if algorithm == AES_128 and octets in (24, 32):
        assert key_from_wire(wire) == (bytes(octets), AES_128)
        return
    with pytest.raises(ProtocolFault):
        key_from_wire(wire)
