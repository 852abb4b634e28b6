"""Registration over the JSON API against a memory twin of a hosted source: what is asked, who asks it, and what it is told."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting.handle.edge_json import JsonSaid
from hosting.handle.json_asks import JsonAsked, read_change, read_page, read_verification
from hosting.handle.json_auth import Proof, read_authorization
from hosting.tenant.papers import Quota, Right, Tenant, key_of, value_of
from replica.model.handle import proofs
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.proofs import MacCode
from replica.model.handle.types import AdminPermission
from replica.model.handle.values import Reference
from tests.unit.handle.test_registrar import KEY, NAME, OTHER, PREFIX, SECRETS, World, admin, url

HERE = "127.0.0.1"
ADMIN = {"format": "admin", "value": {"handle": "88.118.9/ADMIN", "index": 300, "permissions": "1" * 12}}
VALUES = [{"index": 1, "type": "URL", "data": "http://a"}, {"index": 100, "type": "HS_ADMIN", "data": ADMIN}]
NEW = f"/api/handles/{NAME}"


def basic(key: Reference = KEY, secret: bytes | None = None) -> bytes:
    user = quote(f"{key.index}:{key.handle.decode()}", safe="").encode()
    return b"Basic " + base64.b64encode(user + b":" + (SECRETS[key] if secret is None else secret))


def asked(method: str, address: str, body: Any = None, *, credential: bytes = b"", private: bool = True) -> JsonAsked:
    octets = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return JsonAsked(method.encode(), address.encode(), octets, credential, HERE, private)


async def say(world: World, method: str, address: str, body: Any = None, **kinds: Any) -> tuple[int, dict[str, Any]]:
    kinds.setdefault("credential", basic())
    said = await world.registrar.json.answer(asked(method, address, body, **kinds))
    return said.status, json.loads(said.body)


def challenge_of(said: JsonSaid) -> tuple[str, bytes]:
    """(sessionId, nonce) of a 401."""
    line = next(line for line in said.headers.decode().split("\r\n") if "Handle" in line)
    parts = dict(one.strip().split("=", 1) for one in line.partition("Handle")[2].split(","))
    return parts["sessionId"].strip('"'), base64.b64decode(parts["nonce"].strip('"'))


def proof(session: str, nonce: bytes, *, key: Reference = KEY, secret: bytes | None = None, alg: str = "HMAC-SHA256") -> bytes:
    code = {"HMAC-SHA256": MacCode.HMAC_SHA256, "PBKDF2-HMAC-SHA1": MacCode.PBKDF2_HMAC_SHA1}[alg]
    made = proofs.prove_secret(secret or SECRETS[key], nonce, b"my nonce", code, salt=b"s" * 16)
    more = ""
    if code is MacCode.PBKDF2_HMAC_SHA1:
        salt = base64.b64encode(b"s" * 16).decode()
        made, more = made[-21:], f', salt="{salt}", iterations="10000", length="160"'
    who = quote(f"{key.index}:{key.handle.decode()}", safe="")
    cnonce, signature = (base64.b64encode(one).decode() for one in (b"my nonce", made[1:]))
    head = f'Handle version="0", sessionId="{session}", cnonce="{cnonce}", id="{who}", type="HS_SECKEY", alg="{alg}"'
    return f'{head}, signature="{signature}"{more}'.encode()


async def challenged(world: World, **kinds: Any) -> tuple[str, bytes]:
    said = await world.registrar.json.answer(asked("PUT", NEW, VALUES, **kinds))
    assert said.status == 401 and json.loads(said.body)["responseCode"] == 402
    return challenge_of(said)


# ------------------------------------------------------------------------------------------------------ what is asked
async def test_a_handle_lives_from_put_to_delete() -> None:
    world = World()
    url2, many = {"index": 2, "type": "URL", "data": "b"}, f"{NEW}?index=2&index=3"
    steps: list[tuple[str, str, Any, int, int, list[int] | None]] = [
        ("PUT", NEW + "?overwrite=false", VALUES, 201, 1, [1, 100]),
        ("PUT", NEW + "?overwrite=false", VALUES, 409, 101, [1, 100]),
        ("PUT", NEW, {"handle": NAME.upper(), "values": VALUES}, 200, 1, [1, 100]),
        ("PUT", NEW + "?index=2", url2, 201, 1, [1, 2, 100]),
        ("PUT", NEW + "?index=2&overwrite=false", url2, 409, 201, [1, 2, 100]),
        ("PUT", many, [url2, url2 | {"index": 3}], 200, 1, [1, 2, 3, 100]),
        ("PUT", many, [url2], 400, 4, [1, 2, 3, 100]),
        ("PUT", NEW + "?index=various", [url2 | {"index": 4}], 201, 1, [1, 2, 3, 4, 100]),
        ("DELETE", many, None, 200, 1, [1, 4, 100]),
        ("DELETE", NEW + "?index=9", None, 400, 200, [1, 4, 100]),
        ("DELETE", NEW + "?index=100", None, 400, 202, [1, 4, 100]),
        ("DELETE", NEW, None, 200, 1, None),
        ("DELETE", NEW, None, 404, 100, None),
        ("PUT", NEW + "?index=1", [VALUES[0]], 404, 100, None),
        ("PUT", NEW, VALUES, 201, 1, [1, 100]),
    ]
    for method, address, body, status, code, indexes in steps:
        got, said = await say(world, method, address, body)
        values = world.values(NAME)
        assert (got, said["responseCode"]) == (status, code), (method, address, said)
        assert said["handle"] == NAME and (None if values is None else [value.index for value in values]) == indexes


async def test_a_minted_name_is_told_and_replaces_nothing() -> None:
    world = World()
    status, said = await say(world, "PUT", f"/api/handles/{PREFIX}/M-?mintNewSuffix=true", VALUES)
    assert status == 201 and said["handle"].startswith(f"{PREFIX}/M-") and len(said["handle"]) == len(f"{PREFIX}/M-") + 32
    assert world.values(said["handle"]) is not None


async def test_a_list_comes_in_pages_and_holds_this_prefix_alone() -> None:
    world = World()
    for number in range(5):
        world.put(f"{PREFIX}/{number}", admin())
    world.put(f"{PREFIX}.1/BELOW", admin())
    page = "/api/handles?prefix=%s&page=%d&pageSize=%d"
    whole = (await say(world, "GET", f"/api/handles?prefix=0.NA/{PREFIX}"))[1]
    assert whole["handles"] == sorted(whole["handles"]) and whole["totalCount"] == "7" and len(whole["handles"]) == 7
    pages = [(await say(world, "GET", page % (PREFIX, number, 3)))[1] for number in range(4)]
    assert [name for one in pages for name in one["handles"]] == whole["handles"]
    assert {one["totalCount"] for one in pages} == {"7"} and [one["page"] for one in pages] == [0, 1, 2, 3]
    count = (await say(world, "GET", page % (PREFIX, 0, 0)))[1]
    assert (count["totalCount"], count["handles"], count["prefix"]) == ("7", [], PREFIX)
    assert (await say(world, "GET", f"/api/handles?prefix={PREFIX}/A"))[0] == 400
    assert (await say(world, "GET", f"/api/handles?prefix={PREFIX}", credential=basic(OTHER)))[0] == 403


async def test_a_verification_says_yes_or_no_and_no_more() -> None:
    world = World()
    for key, secret, valid in ((KEY, b"a secret", True), (KEY, b"guess", False), (Reference(b"88.118.9/NOBODY", 1), b"x", False)):
        mac = proofs.prove_secret(secret, b"n" * 16, b"c", MacCode.HMAC_SHA256)[1:]
        parts = {"nonce": b"n" * 16, "cnonce": b"c", "signature": mac}
        query = "&".join(f"{name}={quote(base64.b64encode(one).decode(), safe='')}" for name, one in parts.items())
        name = quote(f"{key.index}:{key.handle.decode()}", safe="")
        status, said = await say(world, "GET", f"/api/verifications/{name}?alg=HMAC-SHA256&{query}", credential=b"")
        assert (status, said) == (200, {"responseCode": 1, "isValid": valid})


async def test_sessions_need_tls() -> None:
    status, said = await say(World(), "POST", "/api/sessions")
    assert status == 403 and "TLS" in said["message"]


# ------------------------------------------------------------------------------------------------------ who asks
@pytest.mark.parametrize("alg", ["HMAC-SHA256", "PBKDF2-HMAC-SHA1"])
async def test_a_proof_of_a_secret_key_registers_where_others_listen(alg: str) -> None:
    world = World()
    session, nonce = await challenged(world, private=False)
    status, said = await say(world, "PUT", NEW, VALUES, credential=proof(session, nonce, alg=alg), private=False)
    assert (status, said["responseCode"]) == (201, 1) and world.values(NAME) is not None


async def test_a_secret_in_clear_is_not_even_looked_at() -> None:
    world = World()
    for secret in (SECRETS[KEY], b"guess"):
        status, said = await say(world, "PUT", NEW, VALUES, credential=basic(KEY, secret), private=False)
        assert status == 403 and "clear" in said["message"]
    said = await world.registrar.json.answer(asked("PUT", NEW, VALUES, private=False))
    assert b"Basic" not in said.headers and world.values(NAME) is None and world.group.barriers == 0
    said = await world.registrar.json.answer(asked("PUT", NEW, VALUES))
    assert b'Basic realm="handle"' in said.headers


@pytest.mark.parametrize("why", ["secret", "key", "replay", "late", "session", "nonce", "client"])
async def test_what_is_no_proof_changes_nothing(why: str) -> None:
    world = World()
    session, nonce = await challenged(world)
    credential, wanted, client = proof(session, nonce), (401, 402), HERE
    if why == "secret":
        credential, wanted = proof(session, nonce, secret=b"guessed"), (403, 403)
    elif why == "key":
        nobody = Reference(b"88.118.9/NOBODY", 300)
        credential, wanted = proof(session, nonce, key=nobody, secret=b"x"), (403, 403)
    elif why == "replay":
        await say(world, "PUT", NEW, VALUES, credential=proof(session, nonce, secret=b"guessed"))
    elif why == "late":
        world.now_ms += 60_000
    elif why == "session":
        credential = proof("7fffff01", nonce)
    elif why == "nonce":
        credential, wanted = proof(session, bytes(16)), (403, 403)
    else:
        client = "192.0.2.7"
    request = JsonAsked(b"PUT", NEW.encode(), json.dumps(VALUES).encode(), credential, client, True)
    said = await world.registrar.json.answer(request)
    assert (said.status, json.loads(said.body)["responseCode"]) == wanted
    assert (b"WWW-Authenticate: Handle" in said.headers) is (wanted[0] == 401)
    assert world.values(NAME) is None and world.group.content.position.seq == 0


@pytest.mark.parametrize(
    ("credential", "status"),
    [
        (b"", 401),
        (b"Bearer x", 401),
        (b"Handle", 401),
        (b'Handle sessionId="00000001"', 401),
        (b"Basic !!!", 400),
        (b"Basic " + base64.b64encode(b"nobody"), 400),
        (b"Basic " + base64.b64encode(b"0%3A88.118.9%2FADMIN:x"), 400),
        (b"Basic " + base64.b64encode(b"300%3A%ff:x"), 400),
        (b'Handle id="300%3AA", type="HS_SECKEY", alg="x", signature="AAAA"', 400),
        (b'Handle cnonce="AA==", id="300%3AA", type="HS_CERT", alg="x", signature="AAAA"', 403),
        (b'Handle cnonce="AA==", id="300%3AA", type="HS_SECKEY", alg="none", signature="AAAA"', 403),
        (b'Handle cnonce="AA==" id="300%3AA", type="HS_SECKEY", alg="SHA1", signature="AAAA"', 400),
        (b'Handle cnonce="AA==", cnonce="AA=="', 400),
        (b"Handle " + b"x" * 13_000, 400),
    ],
)
async def test_half_a_credential_is_refused_before_anything_is_read(credential: bytes, status: int) -> None:
    world = World()
    said = await world.registrar.json.answer(asked("DELETE", "/api/handles/88.118.9/ADMIN", credential=credential))
    assert said.status == status and world.group.barriers == 0


async def test_a_flood_of_challenges_costs_its_sender_alone() -> None:
    world = World()
    session, nonce = await challenged(world)
    for number in range(200):
        await world.registrar.json.answer(JsonAsked(b"DELETE", NEW.encode(), client="192.0.2.9", body=b"%d" % number))
    assert len(world.registrar.json.challenges) == 65
    assert (await say(world, "PUT", NEW, VALUES, credential=proof(session, nonce)))[0] == 201


# ------------------------------------------------------------------------------------------------------ what is refused
async def test_the_same_judgement_as_for_handle_messages() -> None:
    world = World()
    world.put(NAME, url(), admin(OTHER, AdminPermission.ADD_VALUE))
    tried = [
        ("PUT", NEW, VALUES, KEY, (201, 1)),  # the prefix's administrator replaces it
        ("PUT", NEW, VALUES, OTHER, (403, 401)),
        ("DELETE", NEW, None, OTHER, (403, 401)),
        ("PUT", "/api/handles/88.118/FOREIGN", VALUES, KEY, (400, 301)),
        ("PUT", "/api/handles/88.118.90/FOREIGN", VALUES, KEY, (400, 301)),
        ("PUT", "/api/handles/88.118.9/NO-ADMIN", VALUES[:1], KEY, (400, 202)),
    ]
    for method, address, body, key, wanted in tried[1:]:
        status, said = await say(world, method, address, body, credential=basic(key))
        assert (status, said["responseCode"]) == wanted, (address, said)
    assert [value.index for value in world.values(NAME) or ()] == [1, 100]


EVERY = Right(who="300:88.118.9/ADMIN", operations=("create", "modify"), under=PREFIX)


@pytest.mark.parametrize(
    ("papers", "wanted"),
    [
        ({"region-9": Tenant(title="R", suspended="unpaid"), "r1": EVERY}, (503, 7)),
        ({"region-9": Tenant(title="R", suspended="unpaid")}, (403, 401)),  # who has no right there is not told why
        ({"tenant": Quota(identifiers=2)}, (403, 604)),
        ({"tenant": Quota(octets=2)}, (403, 604)),
        ({"tenant": Quota(registrations_per_s=1.0, burst_s=1.0)}, (503, 3)),
    ],
)
async def test_limits_of_the_tenant_hold(papers: dict[str, Any], wanted: tuple[int, int]) -> None:
    world = World()
    for ident, paper in papers.items():
        world.group.content.records[key_of(paper, ident)] = value_of(paper)
    said = {}
    for number in range(3):
        status, said = await say(world, "PUT", f"/api/handles/{PREFIX}/Q{number}", VALUES)
    assert (status, said["responseCode"]) == wanted, said


BOMBS = {
    "deep": b"[" * 200_000,
    "deep objects": b'{"values":' * 20_000,
    "long number": b"[" + b"1" * 200_000 + b"]",
    "many": b"[" + b",".join([b'{"index":1,"type":"A","data":""}'] * 4_000) + b"]",
    "twice": b'[{"index":1,"type":"A","data":""},{"index":1,"type":"A","data":""}]',
    "not UTF-8": b'[{"index":1,"type":"\xff","data":""}]',
    "half a pair": rb'[{"index":1,"type":"\ud800","data":""}]',
    "big index": b'[{"index":4294967296,"type":"A","data":""}]',
    "no data": b'[{"index":1,"type":"A"}]',
    "nothing": b"",
    "text": b'"values"',
    "other handle": b'{"handle":"88.118.9/OTHER","values":[]}',
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_bad_bodies_are_refused(bomb: str) -> None:
    world = World()
    status, said = await say(world, "PUT", NEW, BOMBS[bomb])
    assert (status, world.values(NAME)) == (400, None) and said["responseCode"] in (4, 202) and said["message"]


@pytest.mark.parametrize(
    "address",
    [
        "/api/handles/",
        "/api/handles/88.118.9/%ff",
        "/api/handles/88.118.9/" + "a" * 2_100,
        NEW + "?index=1&index=various",
        NEW + "?index=-1",
        NEW + "?index=" + "9" * 20,
        NEW + "?" + "&".join(f"index={index}" for index in range(2_100)),
    ],
)
async def test_bad_addresses_are_refused(address: str) -> None:
    world = World()
    assert (await say(world, "PUT", address, VALUES))[0] == 400
    assert (await say(world, "DELETE", address))[0] == 400
    assert world.group.content.position.seq == 0


async def test_where_the_outcome_is_not_known_it_is_said() -> None:
    world = World()
    world.group.leader = False
    assert (await say(world, "PUT", NEW, VALUES))[0] == 500


@given(st.binary(max_size=200), st.text(max_size=80))
def test_any_octets_are_read_or_refused(octets: bytes, text: str) -> None:
    readers: list[Any] = [
        lambda: read_authorization(b"Handle " + octets),
        lambda: read_authorization(b"Basic " + base64.b64encode(octets)),
        lambda: read_authorization(b"Handle " + text.encode("utf-8", "ignore")),
        lambda: read_change(JsonAsked(b"PUT", b"/api/handles/" + octets, text.encode("utf-8", "ignore"))),
        lambda: read_page(JsonAsked(b"GET", b"/api/handles?prefix=" + octets)),
        lambda: read_verification(JsonAsked(b"GET", b"/api/verifications/1:a?nonce=&cnonce=&alg=SHA1&signature=" + octets)),
    ]
    for read in readers:
        try:
            read()
        except ProtocolFault:
            pass


def test_a_proof_is_read_as_it_was_written() -> None:
    read = read_authorization(proof("0000002a", b"n" * 16).replace(b'version="0", ', b"VERSION=0 , "))
    assert isinstance(read, Proof)
    assert (read.session, read.kind, read.key, read.cnonce) == (42, b"HS_SECKEY", KEY, b"my nonce")
    assert proofs.judge_secret(SECRETS[KEY], b"n" * 16, b"my nonce", read.octets)


def test_two_that_race_lose_nothing() -> None:
    async def run() -> list[int]:
        world = World()
        world.put(NAME, admin())
        one = [say(world, "PUT", f"{NEW}?index={index}", [VALUES[0] | {"index": index}]) for index in range(1, 5)]
        found = [status for status, _ in await asyncio.gather(*one)]
        assert [value.index for value in world.values(NAME) or ()] == [1, 2, 3, 4, 100]
        return found

    assert asyncio.run(run()) == [201] * 4
