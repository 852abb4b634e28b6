"""Sessions of the JSON API: opened, proved once, used, ended; forged, replayed, expired and stolen ones give nothing."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from hosting.handle.edge_json import JsonSaid
from hosting.handle.json_asks import JsonAsked
from hosting.handle.json_auth import InSession, Proof, read_authorization
from hosting.handle.sessions import SessionState
from replica.model.handle.values import HandleValue
from tests.unit.front.test_https import RSA, made, public_value
from tests.unit.handle.test_json_writes import NEW, VALUES, asked, basic, challenged, proof
from tests.unit.handle.test_registrar import KEY, NAME, OTHER, PREFIX, SECRETS, World, admin

OPEN, THIS = "/api/sessions", "/api/sessions/this"
ID = f"300:{KEY.handle.decode()}"


def over_tls(method: str, address: str, body: Any = None, credential: bytes = b"", **more: Any) -> JsonAsked:
    return replace(asked(method, address, body, credential=credential), tls=True, **more)


async def said(world: World, *given: Any, **more: Any) -> tuple[int, dict[str, Any]]:
    found = await world.registrar.json.answer(over_tls(*given, **more))
    return found.status, json.loads(found.body)


async def opened(world: World, **more: Any) -> tuple[str, bytes]:
    """(sessionId, nonce) of a session in which nothing is proved."""
    found: JsonSaid = await world.registrar.json.answer(over_tls("POST", OPEN, **more))
    body = json.loads(found.body)
    assert found.status == 201 and not body["authenticated"] and "id" not in body
    assert b"Location: /api/sessions/this\r\n" in found.headers and b"no-store" in found.headers
    return body["sessionId"], base64.b64decode(body["nonce"])


def mine(session: str) -> bytes:
    return f'Handle version="0", sessionId="{session}"'.encode()


async def proved(world: World) -> str:
    session, nonce = await opened(world)
    status, body = await said(world, "PUT", THIS, credential=proof(session, nonce))
    assert (status, body["authenticated"], body["id"]) == (200, True, ID) and base64.b64decode(body["nonce"]) != nonce
    return session


@pytest.fixture
def world() -> World:
    return World()


async def test_after_one_proof_every_request_counts_as_the_keys(world: World) -> None:
    session = await proved(world)
    assert await said(world, "PUT", NEW, VALUES, mine(session)) == (201, {"responseCode": 1, "handle": NAME})
    status, listed = await said(world, "GET", f"/api/handles?prefix={PREFIX}", None, mine(session))
    assert status == 200 and NAME in listed["handles"]
    status, told = await said(world, "GET", THIS, None, mine(session))
    assert (status, told["authenticated"], told["id"], told["sessionId"]) == (200, True, ID, session)
    assert (await said(world, "DELETE", NEW, None, mine(session)))[0] == 200 and world.values(NAME) is None
    assert (await said(world, "DELETE", THIS, None, mine(session)))[0] == 200
    assert (await said(world, "PUT", NEW, VALUES, mine(session)))[0] == 401 and world.values(NAME) is None
    assert len(world.registrar.json.sessions.table) == 0


async def test_a_proof_may_come_with_the_first_request(world: World) -> None:
    session, nonce = await opened(world)
    assert (await said(world, "PUT", NEW, VALUES, proof(session, nonce)))[0] == 201
    assert (await said(world, "DELETE", NEW, None, mine(session)))[0] == 200


async def test_a_session_is_opened_with_its_proof(world: World) -> None:
    number, nonce = await challenged(world)
    for credential in (basic(), proof(number, nonce)):
        status, body = await said(world, "POST", OPEN, None, credential)
        assert (status, body["authenticated"], body["id"]) == (201, True, ID)
        assert (await said(world, "PUT", NEW, VALUES, mine(body["sessionId"])))[0] in (200, 201)
    assert (await said(world, "POST", OPEN, None, basic(secret=b"guess")))[0] == 403
    assert len(world.registrar.json.sessions.table) == 2


async def test_a_certificate_opens_one_for_connections_without_it(world: World) -> None:
    world.put(KEY.handle.decode(), public_value(RSA), admin())
    shown = made(ID, RSA)
    world.now_ms = int(shown.certificate.not_valid_before_utc.timestamp() * 1_000) + 1
    status, body = await said(world, "POST", OPEN, certificate=shown.der)
    assert (status, body["authenticated"], body["id"]) == (201, True, ID)
    assert (await said(world, "PUT", NEW, VALUES, mine(body["sessionId"])))[0] == 201
    world.put(KEY.handle.decode(), admin())
    assert (await said(world, "DELETE", NEW, None, mine(body["sessionId"])))[0] == 403, "the key is gone"


# ------------------------------------------------------------------------------------------------------ what gives nothing
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_without_tls_there_are_none_even_on_this_machine(world: World, method: str) -> None:
    session = await proved(world)
    for address, credential in ((OPEN, b""), (THIS, mine(session)), (OPEN, basic())):
        found = await world.registrar.json.answer(asked(method, address, credential=credential))
        assert found.status == 403 and "TLS" in json.loads(found.body)["message"]
    found = await world.registrar.json.answer(asked("PUT", NEW, VALUES, credential=mine(session)))
    assert found.status == 403 and world.values(NAME) is None
    assert (await said(world, "PUT", NEW, VALUES, mine(session)))[0] == 201, "it goes on over TLS"


@pytest.mark.parametrize("why", ["forged", "short", "stolen", "unproved", "idle", "old", "ended"])
async def test_what_is_nobodys_session_is_401_and_changes_nothing(world: World, why: str) -> None:
    session = await proved(world)
    credential, client = mine(session), {}
    if why == "forged":
        credential = mine(f"{int(session, 16) ^ 1:032x}")
    elif why == "short":
        credential = mine(session[:8])
    elif why == "stolen":
        client = {"client": "192.0.2.9"}
    elif why == "unproved":
        credential = mine((await opened(world))[0])
    elif why in ("idle", "old"):
        world.now_ms += 3_600_000 if why == "idle" else 86_400_000
    else:
        assert (await said(world, "DELETE", THIS, None, credential))[0] == 200
    for method, address, body in (("PUT", NEW, VALUES), ("DELETE", NEW, None)):
        found = await world.registrar.json.answer(over_tls(method, address, body, credential, **client))
        assert found.status == 401 and b"WWW-Authenticate: Handle" in found.headers, "and how to go on"
    if why not in ("unproved", "short"):
        assert (await said(world, "GET", THIS, None, credential, **client))[0] == 401
    assert world.values(NAME) is None


async def test_a_nonce_is_judged_once_and_a_proof_is_of_its_session(world: World) -> None:
    (one, nonce), (other, _) = await opened(world), await opened(world)
    assert (await said(world, "PUT", THIS, None, proof(other, nonce)))[0] == 403, "a proof over another session's nonce"
    assert (await said(world, "PUT", THIS, None, proof(one, nonce, secret=b"guess")))[0] == 403
    assert (await said(world, "PUT", THIS, None, proof(one, nonce)))[0] == 403, "judged once: a wrong one used it up"
    fresh = base64.b64decode((await said(world, "GET", THIS, None, mine(one)))[1]["nonce"])
    assert fresh != nonce and (await said(world, "PUT", THIS, None, proof(one, fresh)))[0] == 200
    assert (await said(world, "PUT", NEW, VALUES, proof(one, fresh)))[0] == 403, "replayed"
    assert world.values(NAME) is None


async def test_a_session_is_one_keys_for_good(world: World) -> None:
    session = await proved(world)
    nonce = base64.b64decode((await said(world, "GET", THIS, None, mine(session)))[1]["nonce"])
    assert (await said(world, "PUT", THIS, None, proof(session, nonce, key=OTHER)))[0] == 403
    assert (await said(world, "PUT", NEW, VALUES, mine(session)))[0] == 401


async def test_a_key_taken_out_of_use_ends_its_sessions(world: World) -> None:
    session = await proved(world)
    world.put(KEY.handle.decode(), HandleValue(300, b"HS_SECKEY", b"a new one", permissions=0x0C), admin())
    assert (await said(world, "PUT", NEW, VALUES, mine(session)))[0] == 403
    assert (await said(world, "PUT", NEW, VALUES, mine(session)))[0] == 401 and world.values(NAME) is None


async def test_sessions_by_the_thousand_cost_their_sender_alone(world: World) -> None:
    session = await proved(world)
    for _ in range(100):
        await opened(world, client="192.0.2.66")
    table = world.registrar.json.sessions.table
    assert len(table) == 1 + table.limits.client_opened_max
    assert (await said(world, "PUT", NEW, VALUES, mine(session)))[0] == 201
    for _ in range(table.limits.client_max):
        await said(world, "POST", OPEN, None, basic(), client="192.0.2.77")
    assert (await said(world, "POST", OPEN, None, basic(), client="192.0.2.77"))[0] == 503


async def test_what_is_not_offered_of_a_session_is_said(world: World) -> None:
    session = await proved(world)
    assert (await said(world, "GET", OPEN))[0] == (await said(world, "PATCH", THIS, None, mine(session)))[0] == 400
    for credential in (b"", basic()):
        assert (await said(world, "GET", THIS, None, credential))[0] == 401


def test_the_number_of_a_session_is_never_one_of_a_challenge() -> None:
    number = "8" + "0" * 31
    assert read_authorization(mine(number)) == InSession(1 << 127)
    assert read_authorization(mine("7" + "f" * 31)) is read_authorization(mine(number.upper() + "F")) is None
    given = read_authorization(proof(number, b"n"))
    assert isinstance(given, Proof) and given.in_session
    for text in ("0000002a", "7" + "f" * 31, "ffffffff"):
        given = read_authorization(proof(text, b"n"))
        assert isinstance(given, Proof) and not given.in_session


async def test_numbers_and_secrets_are_not_repeated_in_a_refusal(world: World) -> None:
    session = await proved(world)
    found = await world.registrar.json.answer(over_tls("PUT", NEW, VALUES, mine(session), client="192.0.2.9"))
    assert session.encode() not in found.body + found.headers and SECRETS[KEY] not in found.body
    assert world.registrar.json.sessions.table.of_client(int(session, 16), "127.0.0.1", world.now_ms).state is SessionState.PROVED  # type: ignore[union-attr]
