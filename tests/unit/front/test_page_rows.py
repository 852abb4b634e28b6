"""Rows of ops/docs/handle.md that no other test shows: what is read and not acted on, stated numbers, what comes first."""

from __future__ import annotations

import asyncio
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import padding

from hosting.answer.port import Found, MemoryAnswerPort, Wants
from hosting.handle import edge_work
from hosting.handle.sessions import SessionLimits
from replica.model.handle.admin_bodies import SetupMode, decode_session_setup_answer
from replica.model.handle.bodies import HandleRequest, ResolutionRequest
from replica.model.handle.ciphers import decrypted, encrypted, is_encrypted
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, OpFlag, ResponseCode
from replica.model.handle.macs import AES_128, key_from_wire
from replica.model.handle.message import decode_message, encode_message
from replica.model.handle.signatures import public_data, signed
from replica.model.handle.values import HandleValue, Reference, encode_record
from tests.unit.front.test_certify import with_ct
from tests.unit.front.world import NAME, ask_http, ask_tcp, code_of, key, resolution, serving, world
from tests.unit.handle.test_registrar import CREATE, KEY, PREFIX, World, admin, request
from tests.unit.handle.test_server_key import SERVER
from tests.unit.handle.test_sessions import CLIENT, GONE, PRIVATE, Client, public_of, setup

FORM = "application/x-www-form-urlencoded"
HANDLE = f"/api/handles/{NAME.decode()}"


# ----------------------------------------------------------------------------------------------------------- JSON API
@pytest.mark.parametrize("asked", [
    ("GET", "?publicOnly=false", b"", ""), ("GET", "?publicOnly=true", b"", ""), ("GET", "?publicOnly", b"", ""),
    ("GET", "?publicOnly=false&index=2", b"", ""), ("GET", "?publicOnly=false&type=HS_SECKEY", b"", ""),
    ("POST", "", b"publicOnly=false", FORM), ("POST", "", b'{"publicOnly":false}', "application/json"),
    ("POST", "?publicOnly=false", b'{"publicOnly":false,"index":[2]}', "application/json"),
])  # fmt: skip
async def test_public_only_false_reads_no_more_than_the_public_may(asked: tuple[str, str, bytes, str]) -> None:
    method, query, body, kind = asked
    port = world()
    hidden = [HandleValue(2, b"NOTE", b"hidden", permissions=0x0C), HandleValue(3, b"HS_SECKEY", b"hidden", permissions=0x0C)]
    port.records["gd"][key(NAME.decode())] = encode_record([HandleValue(1, b"URL", b"shown"), *hidden])
    async with serving(port) as (_, bound):
        status, _, said = await ask_http(bound.http[0], HANDLE + query, method, body, kind)
    found = json.loads(said)
    assert status == 200 and b"hidden" not in said
    if "index" in query or b"index" in body or "type" in query:
        assert found["responseCode"] == ResponseCode.VALUES_NOT_FOUND
    else:
        assert [value["index"] for value in found["values"]] == [1]


async def test_cert_changes_nothing_in_json() -> None:
    async with serving() as (front, bound):
        plain, asked = [await ask_http(bound.http[0], HANDLE + query) for query in ("", "?cert=true")]
        assert plain[0] == asked[0] == 200 and plain[2] == asked[2]
        assert front.service.certifier.counters.refused == 0


# ------------------------------------------------------------------------------------------------------ sessions, signing
@pytest.mark.parametrize("mode", [SetupMode.CLIENT_KEY, SetupMode.SERVER_KEY, SetupMode.KEY_OF_HANDLE])
@pytest.mark.parametrize(("minor", "opens"), [(3, False), (5, False), (6, False), (7, False), (8, True), (10, True), (11, True)])
async def test_versions_that_cannot_sign_open_no_session(mode: SetupMode, minor: int, opens: bool) -> None:
    place = World(server_key=SERVER)
    at = Reference(b"88.118.9/KEYS", 7)
    place.put("88.118.9/KEYS", HandleValue(7, b"HS_PUBKEY", public_of(PRIVATE)), admin())
    octets = setup(mode, at=at if mode is SetupMode.KEY_OF_HANDLE else None)
    old = octets.replace(b"\x02\x0b\x02\x0b", bytes((2, minor, 2, minor)), 1)
    assert (await place.send(old)).header.response_code == (1 if opens else ResponseCode.SESSION_FAILED)
    assert len(place.registrar.desk.sessions) == opens


@pytest.mark.parametrize("mode", [SetupMode.CLIENT_KEY, SetupMode.KEY_OF_HANDLE])
async def test_where_the_server_chooses_it_chooses_aes(mode: SetupMode) -> None:
    place, at = World(), Reference(b"88.118.9/KEYS", 7)
    place.put("88.118.9/KEYS", HandleValue(7, b"HS_PUBKEY", public_of(PRIVATE)), admin())
    said = await place.send(setup(mode, at=at if mode is SetupMode.KEY_OF_HANDLE else None))
    data = decode_session_setup_answer(said.body).data
    assert key_from_wire(PRIVATE.decrypt(data, padding.PKCS1v15()))[1] == AES_128


async def test_a_signed_request_is_challenged_and_in_a_session_it_has_no_mac() -> None:
    place = World()
    place.put(KEY.handle.decode(), HandleValue(300, b"HS_PUBKEY", public_data(PRIVATE.public_key())), admin())
    octets = signed(request(OpCode.CREATE_HANDLE, CREATE), PRIVATE)
    assert decode_message(octets).credential
    assert (await place.send(octets)).header.response_code == ResponseCode.AUTHENTICATION_NEEDED
    place = World()
    client = await Client.opened(place)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1
    plain = decode_message(client.message(OpCode.DELETE_HANDLE, GONE.encode()))
    bare = encode_message(plain.__class__(plain.envelope, plain.header, plain.body))
    assert (await place.send(signed(bare, PRIVATE))).header.response_code == ResponseCode.INVALID_CREDENTIAL
    assert place.values("88.118.9/New") is not None


async def test_a_session_is_not_ended_without_its_mac() -> None:
    place = World()
    client = await Client.opened(place)
    asked = client.message(OpCode.SESSION_TERMINATE, HandleRequest(b"/").encode(), key=bytes(16))
    assert (await client.say(asked)).header.response_code == ResponseCode.INVALID_SESSION_KEY
    assert len(place.registrar.desk.sessions) == 1


def test_the_limits_of_sessions_are_those_stated() -> None:
    assert SessionLimits() == SessionLimits(4_096, 64, 1_024, 16, 512, 60_000, 60_000, 3_600_000, 86_400_000, 200)
    place = World()
    assert place.registrar.json.sessions.table.limits == place.registrar.desk.sessions.limits == SessionLimits()


async def test_a_list_over_its_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert edge_work.LIST_NAMES_MAX == 20_000
    monkeypatch.setattr(edge_work, "LIST_NAMES_MAX", 3)
    place = World()
    code, _ = await place.ask(OpCode.LIST_HANDLES, HandleRequest(b"0.NA/88.118.9"))
    assert code == 1
    for number in range(4):
        place.put(f"{PREFIX}/{number}", admin())
    code, said = await place.ask(OpCode.LIST_HANDLES, HandleRequest(b"0.NA/88.118.9"))
    assert code == ResponseCode.ERROR and b"over 3 handles" in said.body


# ----------------------------------------------------------------------------------------------------------- encryption
async def test_an_encrypted_resolution_for_the_public_is_5_and_outside_of_sessions_enc_is_not_acted_on() -> None:
    place = World()
    client = await Client.opened(place)
    asked = client.message(OpCode.RESOLUTION, ResolutionRequest(b"88.118.9/ADMIN").encode())
    [said] = await place.registrar.answer(encrypted(asked, client.key, bytes(16)), CLIENT)
    answer = said if not is_encrypted(said) else decrypted(said, client.key)
    assert code_of(answer) == ResponseCode.OPERATION_NOT_SUPPORTED
    async with serving() as (_, bound):
        [said] = await ask_tcp(bound.tcp[0], resolution(NAME, flags=int(FLAGS_DEFAULT | OpFlag.ENCRYPT)))
    assert code_of(said) == 1 and not is_encrypted(said) and not decode_message(said).header.flags & OpFlag.ENCRYPT


# ------------------------------------------------------------------------------------------------------------------ TCP
async def test_answers_come_in_the_order_in_which_they_are_ready() -> None:
    go = asyncio.Event()

    class Held(MemoryAnswerPort):
        async def get_many(self, wants: Wants) -> Found:
            await go.wait()
            return await super().get_many(wants)

    inner = world()
    async with serving(Held(inner.held, inner.views, inner.records)) as (_, bound):
        reader, writer = await asyncio.open_connection(*bound.tcp[0])
        writer.write(resolution(NAME, request_id=1) + resolution(b"0", request_id=2))
        told = []
        for _ in range(2):
            head = await asyncio.wait_for(reader.readexactly(20), 10)
            await reader.readexactly(int.from_bytes(head[16:], "big"))
            told.append(int.from_bytes(head[8:12], "big"))
            go.set()
        writer.close()
    assert told == [2, 1]


async def test_2_5_and_2_6_get_no_signed_answer_and_plain_ones_as_ever() -> None:
    async with serving() as (_, bound):
        for minor in (5, 6):
            [said] = await ask_tcp(bound.tcp[0], with_ct(resolution(NAME), (2, minor)))
            assert code_of(said) == ResponseCode.OPERATION_NOT_SUPPORTED and not decode_message(said).credential
            octets = resolution(NAME)
            [said] = await ask_tcp(bound.tcp[0], bytes((2, minor, 2, minor)) + octets[4:])
            assert code_of(said) == 1 and said[:2] == bytes((2, minor))
