"""Home, unhome and the list of homed prefixes: told to administrators, moved by nobody; over Handle messages and JSON."""

from __future__ import annotations

import pytest

from hosting.handle import edge_homes
from hosting.handle.edge_homes import BY_OPERATORS
from hosting.tenant.enterprise import PrefixState
from hosting.tenant.papers import Enterprise, Tenant
from replica.model.handle.bodies import HandleRequest, ListResponse, decode_response
from replica.model.handle.codes import OpCode, OpFlag, ResponseCode
from replica.model.handle.message import Message
from replica.model.handle.types import AdminPermission, HsAdmin, encode_admin
from replica.model.handle.values import HandleValue
from replica.model.identifier import Identifier
from tests.unit.hostile.hostile_world import DENIED, KEYS, NAMES, SECRETS, A, B, C, Place, admin, basic

S = PrefixState
E = f"{A}.2"  # an enterprise's, below A's
LIVES = {
    S.GRANTED: (S.APPLIED, S.REVIEW, S.GRANTED),
    S.IN_EFFECT: (S.APPLIED, S.REVIEW, S.GRANTED, S.IN_EFFECT),
    S.SUSPENDED: (S.APPLIED, S.REVIEW, S.GRANTED, S.IN_EFFECT, S.SUSPENDED),
    S.REVOKED: (S.APPLIED, S.REVIEW, S.GRANTED, S.REVOKED),
}


def enterprise(place: Place, state: PrefixState) -> None:
    """E, whose administrator is A's key, and its record, which A keeps."""
    steps = tuple((one, number) for number, one in enumerate(LIVES[state], 1))
    place.say(A, NAMES[A], Tenant(title="A"))
    place.say(A, E, Enterprise(title="E", steps=steps, administrators=(f"300:{A}/ADMIN",)))
    place.put(A, f"0.NA/{E}", admin(KEYS[A]))


async def listed(place: Place, who: str = A) -> list[str]:
    said = await place.ask(OpCode.LIST_HOMED_NAS, HandleRequest(b"/"), KEYS[who], SECRETS[who])
    found = decode_response(said)
    assert said.header.response_code == 1 and isinstance(found, ListResponse)
    return [name.decode() for name in found.handles]


async def asked(place: Place, op: OpCode, name: str, who: str = A) -> Message:
    return await place.ask(op, HandleRequest(name.encode()), KEYS[who], SECRETS[who])


async def test_each_administrator_is_told_his_own_and_no_other() -> None:
    place = Place()
    assert [await listed(place, who) for who in (A, B)] == [[f"0.NA/{A}"], [f"0.NA/{B}"]]
    assert await listed(place, C) == [], "its record is kept by a neighbour, and it has said nothing: see delegation.py"
    place.put(A, f"0.NA/{C}", admin(KEYS[A]))
    assert await listed(place) == [f"0.NA/{A}"], "whom a neighbour names in the record it keeps is nobody there"
    for permission, wanted in ((AdminPermission.LIST_HANDLES, [f"0.NA/{B}"]), (AdminPermission.ADD_HANDLE, [])):
        value = HandleValue(100, b"HS_ADMIN", encode_admin(HsAdmin(permission, KEYS[B])))
        place.above[Identifier.parse(f"0.NA/{B}").key()] = place.record(value)
        assert await listed(place, B) == wanted, permission


async def test_nothing_is_told_before_a_proof() -> None:
    place = Place()
    for op in (OpCode.LIST_HOMED_NAS, OpCode.HOME_NA, OpCode.UNHOME_NA):
        for name in (f"0.NA/{A}", "0.NA/1.2.3"):
            said = await place.ask(op, HandleRequest(name.encode()), KEYS[A], b"guess")
            assert said.header.response_code == ResponseCode.AUTHENTICATION_FAILED
    status, body = await place.json("GET", "/api/prefixes", b"")
    assert status == 401 and "prefixes" not in body


@pytest.mark.parametrize("state", LIVES)
async def test_an_enterprises_prefix_is_homed_while_it_is_in_effect(state: PrefixState) -> None:
    place = Place()
    enterprise(place, state)
    before = place.kept(A, B, C)
    in_effect = state is S.IN_EFFECT
    assert await listed(place) == [f"0.NA/{A}", f"0.NA/{E}"][: 1 + in_effect]
    said = await asked(place, OpCode.HOME_NA, f"0.NA/{E}")
    assert said.header.response_code == (1 if in_effect else DENIED)
    if not in_effect:
        assert str(state).encode() in said.body and f"zaibei tenant enterprise {NAMES[A]} {E} in_effect".encode() in said.body
    said = await asked(place, OpCode.UNHOME_NA, f"0.NA/{E}")
    assert said.header.response_code == DENIED and f"zaibei tenant enterprise {NAMES[A]} {E} revoked".encode() in said.body
    assert place.kept(A, B, C) == before, "a client's word moves nothing"


async def test_home_of_what_lives_here_is_done_twice_and_unhome_says_who_does_it() -> None:
    place = Place()
    before = place.kept(A, B, C)
    for _ in range(2):
        said = await asked(place, OpCode.HOME_NA, f"0.NA/{A}")
        assert (said.header.response_code, said.body) == (1, b"")
        assert said.header.flags & OpFlag.AUTHORITATIVE
    said = await asked(place, OpCode.UNHOME_NA, f"0.na/{A}")
    assert said.header.response_code == DENIED and NAMES[A].encode() in said.body
    assert place.kept(A, B, C) == before and await listed(place) == [f"0.NA/{A}"]


@pytest.mark.parametrize("op", [OpCode.HOME_NA, OpCode.UNHOME_NA])
async def test_to_strangers_every_prefix_has_the_same_words(op: OpCode) -> None:
    place = Place()
    enterprise(place, S.GRANTED)
    before = place.kept(A, B, C)
    told = set()
    for name, who in ((B, A), (C, A), (A, B), (E, B), (f"{A}.7", A), ("10.1", A), ("88.118", A), (f"{B}.1", A)):
        said = await asked(place, op, f"0.NA/{name}", who)
        told.add((said.header.response_code, said.body[4:]))
    assert told == {(BY_OPERATORS.code, BY_OPERATORS.text.encode())} and place.kept(A, B, C) == before
    for name in (f"{A}/DATA", "nothing", f"{A}/\u00e9", "0.NA/"):
        said = await asked(place, op, name)
        assert said.header.response_code in (ResponseCode.INVALID_HANDLE, ResponseCode.INVALID_VALUE, DENIED)
    bad = await place.ask(op, HandleRequest(b"0.NA/\xff"), KEYS[A], SECRETS[A])
    assert bad.header.response_code == ResponseCode.INVALID_HANDLE


async def test_sources_of_other_members_are_left_out_and_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    place.groups.pop(B)
    find = place.offices._find
    place.offices._find = lambda source: None if source == NAMES[B] else find(source)
    place.offices._open.clear()
    assert await listed(place) == [f"0.NA/{A}"]
    monkeypatch.setattr(edge_homes, "JUDGED_MAX", 1)
    said = await asked(place, OpCode.LIST_HOMED_NAS, "/")
    assert said.header.response_code == ResponseCode.ERROR and b"over 1" in said.body


async def test_the_same_over_json() -> None:
    place = Place()
    credential = basic(KEYS[A], SECRETS[A])
    assert await place.json("GET", "/api/prefixes", credential) == (200, {"responseCode": 1, "prefixes": [f"0.NA/{A}"]})
    for method in ("PUT", "POST"):
        for name in (A, f"0.NA/{A}", f"0.NA%2F{A}"):
            found = await place.json(method, f"/api/prefixes/{name}", credential)
            assert found == (200, {"responseCode": 1, "handle": f"0.NA/{A}"})
    for method, name in (("DELETE", A), ("PUT", B), ("DELETE", "10.1")):
        status, body = await place.json(method, f"/api/prefixes/{name}", credential)
        assert (status, body["responseCode"]) == (403, DENIED)
    for method, address in (("PUT", "/api/prefixes"), ("GET", f"/api/prefixes/{A}"), ("DELETE", "/api/prefixes/")):
        assert (await place.json(method, address, credential))[0] == 400


async def test_refusals_are_in_the_audit() -> None:
    place = Place()
    await asked(place, OpCode.HOME_NA, f"0.NA/{B}")
    rows = place.offices.denials.rest()
    assert [(one.who, one.count) for one in rows] == [(f"300:{A}/ADMIN", 1)]
