"""Sessions by who has a key that is not his any more, and from where he is not."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

import pytest

from hosting.front.edge_certify import Begun, Certifier
from hosting.guard.guard import Guard
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.admin_bodies import HS_SECKEY
from replica.model.handle.bodies import HandleRequest
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, OpFlag, ResponseCode
from replica.model.handle.macs import judge_mac
from replica.model.handle.message import decode_message
from replica.model.handle.values import HandleValue
from tests.unit.front.world import resolution
from tests.unit.handle.test_json_sessions import ID, OPEN, THIS, mine, opened, proved, said
from tests.unit.handle.test_json_writes import NEW, VALUES, basic, challenged, proof
from tests.unit.handle.test_registrar import CREATE, KEY, NAME, World, admin
from tests.unit.handle.test_sessions import Client


@pytest.fixture
def world() -> World:
    return World()


def take_out_of_use(world: World) -> None:
    world.put(KEY.handle.decode(), HandleValue(300, HS_SECKEY, b"a new one", permissions=0x0C), admin())


async def opened_by(world: World, way: str) -> str:
    """A session that is opened with a proof at once, in one of the ways there are."""
    if way == "basic":
        credential = basic()
    elif way == "challenge":
        credential = proof(*await challenged(world))
    else:
        session, nonce = await opened(world)
        credential = proof(session, nonce)
    status, body = await said(world, "POST", OPEN, None, credential)
    assert (status, body["authenticated"], body["id"]) == (201, True, ID)
    return str(body["sessionId"])


@pytest.mark.parametrize("way", ["basic", "challenge", "another session"])
async def test_however_a_session_was_opened_it_ends_with_its_key(world: World, way: str) -> None:
    session = await opened_by(world, way)
    assert (await said(world, "PUT", NEW, VALUES, mine(session)))[0] == 201
    take_out_of_use(world)
    before = world.values(NAME)
    assert (await said(world, "DELETE", NEW, None, mine(session)))[0] == 403 and world.values(NAME) == before
    assert (await said(world, "DELETE", NEW, None, mine(session)))[0] == 401 and world.values(NAME) == before


async def test_the_number_of_a_session_opens_no_other_with_its_key(world: World) -> None:
    session = await proved(world)
    status, body = await said(world, "POST", OPEN, None, mine(session))
    assert (status, body["authenticated"]) == (201, False) and "id" not in body
    assert (await said(world, "PUT", NEW, VALUES, mine(body["sessionId"])))[0] == 401 and world.values(NAME) is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST"])
async def test_asking_for_a_session_whose_key_is_gone_ends_it(world: World, method: str) -> None:
    """It is not told as proved, and not kept alive by asking."""
    session = await proved(world)
    take_out_of_use(world)
    status, body = await said(world, method, THIS, None, mine(session))
    assert status == 403 and "authenticated" not in body
    assert (await said(world, "GET", THIS, None, mine(session)))[0] == 401 and not len(world.registrar.json.sessions.table)


@pytest.mark.parametrize("way", ["basic", "proof"])
async def test_a_key_that_is_replaced_while_it_is_judged_opens_nothing_that_lasts(world: World, way: str) -> None:
    judge: Any = world.registrar.judge
    credential = basic() if way == "basic" else proof(*await challenged(world))
    name = "secret" if way == "basic" else "proved"
    judged = getattr(judge, name)

    async def meanwhile(*given: Any) -> Any:
        found = await judged(*given)
        take_out_of_use(world)
        return found

    setattr(judge, name, meanwhile)
    status, body = await said(world, "POST", OPEN, None, credential)
    assert status == 201
    assert (await said(world, "PUT", NEW, VALUES, mine(body["sessionId"])))[0] == 403 and world.values(NAME) is None


async def test_a_proof_over_a_session_that_was_proved_goes_on_to_count(world: World) -> None:
    session = await proved(world)
    nonce = base64.b64decode((await said(world, "GET", THIS, None, mine(session)))[1]["nonce"])
    assert (await said(world, "PUT", THIS, None, proof(session, nonce)))[1]["authenticated"]


# ------------------------------------------------------------------------------------------ sessions of the Handle protocol
async def certified(world: World, client: Client) -> tuple[bytes, int]:
    """(answer, its code) of a resolution with CT in a session, whose MAC is to vouch for it."""
    certifier = Certifier(None, lambda: 0, Guard())
    body = decode_message(resolution(b"88.118.9/x")).body
    octets = client.message(OpCode.RESOLUTION, body, flags=int(FLAGS_DEFAULT | OpFlag.CERTIFY))
    begun = certifier.begin(octets, "127.0.0.1", False, world.registrar, world.now_ms)
    assert isinstance(begun, Begun) and begun.session is not None

    async def work() -> list[bytes]:
        return [certifier.refusal(begun.message, begun.octets, ResponseCode.HANDLE_NOT_FOUND, "answered")]

    try:
        [answer] = await certifier.answers(begun, work)
    finally:
        certifier.close()
    assert judge_mac(decode_message(answer), answer, client.key) > 0
    return answer, decode_message(answer).header.response_code


async def test_a_session_whose_key_is_gone_vouches_for_no_answer_and_is_over() -> None:
    """With CT, which asks for no right: it must not keep alive what every other request would end."""
    world = World()
    client = await Client.opened(world)
    assert (await certified(world, client))[1] == 100, "before a proof: it is a session of somebody's"
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1
    assert (await certified(world, client))[1] == 100
    take_out_of_use(world)
    assert (await certified(world, client))[1] == ResponseCode.AUTHENTICATION_FAILED
    assert client.session_id not in world.registrar.desk.sessions


async def test_where_it_cannot_be_told_whether_the_key_is_gone_nothing_is_vouched_for() -> None:
    world = World()
    client = await Client.opened(world)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1

    async def unknown(*_: Any) -> bytes:
        raise ZaibeiError(Code.UNREACHABLE, "not now", retry=True)

    world.registrar.judge.mark = unknown  # type: ignore[method-assign]
    assert (await certified(world, client))[1] == ResponseCode.ERROR


async def test_a_session_of_macs_goes_on_from_another_address_and_its_counters_with_it() -> None:
    """Its key is what counts: an address behind a translator changes, and over UDP it can be forged anyhow. A challenge is not
    answered from elsewhere, and without the key nothing comes of the session's number."""
    world = World()
    client = await Client.opened(world)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1
    elsewhere = partial(world.registrar.answer, client="198.51.100.7")
    octets = client.message(OpCode.DELETE_HANDLE, HandleRequest(NAME.encode()).encode())
    [forged] = await elsewhere(client.message(OpCode.DELETE_HANDLE, HandleRequest(NAME.encode()).encode(), key=bytes(16)))
    assert decode_message(forged).header.response_code == ResponseCode.INVALID_SESSION_KEY and world.values(NAME)
    [answer] = await elsewhere(octets)
    assert decode_message(answer).header.response_code == 1 and world.values(NAME) is None
    [again] = await world.registrar.answer(octets, "192.0.2.1")
    assert decode_message(again).header.response_code == ResponseCode.SESSION_MESSAGE_REJECTED, "once, wherever from"
