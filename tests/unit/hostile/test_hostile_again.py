"""The same attempts by ways around the rule: groups kept elsewhere, other spellings, sessions that were opened before, moves."""

from __future__ import annotations

from typing import Any

import pytest

from hosting.tenant.papers import Person, Right, Tenant
from replica.model.handle.bodies import HandleRequest, ResolutionRequest, ValuesRequest
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, OpFlag, ResponseCode
from replica.model.handle.types import encode_vlist
from replica.model.handle.values import HandleValue, Reference
from replica.model.identifier import Identifier, prefix_key
from tests.unit.handle.test_registrar import SECRETS as SESSION_SECRETS
from tests.unit.handle.test_sessions import Client
from tests.unit.hostile.hostile_world import (
    DENIED,
    HIDDEN,
    KEYS,
    NAMES,
    SECRETS,
    A,
    B,
    C,
    Place,
    admin,
    basic,
    changes,
    every_change,
    hidden,
    in_session,
    url,
)

pytestmark = pytest.mark.usefixtures("secrets")
EVERY: Any = ("create", "delete", "modify", "add", "remove", "list", "read")
LISTED = f"0.NA/{C}".encode()


def with_documents(place: Place, prefix: str, **said: Any) -> None:
    place.say(prefix, NAMES[prefix], Tenant(title=prefix, **said))
    place.say(prefix, "r1", Right(who=f"300:{prefix}/ADMIN", operations=EVERY, under=prefix))


# ------------------------------------------------------------------------------------------------- groups and keys kept elsewhere
@pytest.mark.parametrize("how", ["group in the prefix record", "group of a group", "key in the prefix record"])
async def test_a_group_or_key_that_the_parent_keeps_reads_no_secret(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C's own records name what stands in 0.NA/C, as is usual; A writes itself into that."""
    place = Place()
    with_documents(place, C)
    ring = Reference(f"{A}/RING".encode(), 200)
    group = {"group in the prefix record": [KEYS[A]], "group of a group": [ring, Reference(LISTED, 200)]}.get(how, [])
    mine = HandleValue(300, b"HS_SECKEY", b"mine", permissions=HIDDEN)
    place.put(A, f"0.NA/{C}", admin(KEYS[C]), HandleValue(200, b"HS_VLIST", encode_vlist(group)), mine)
    place.put(A, ring.handle.decode(), HandleValue(200, b"HS_VLIST", encode_vlist([ring, KEYS[A]])), admin(KEYS[A]))
    named = (Reference(LISTED, 200), Reference(LISTED, 0))
    secret = HandleValue(300, b"HS_SECKEY", SECRETS[C], permissions=HIDDEN)
    for name in ("ADMIN", "DATA"):
        place.put(C, f"{C}/{name}", secret, url(), *(admin(one, 100 + n) for n, one in enumerate((KEYS[C], *named))))
    before, who = place.kept(C), KEYS[A]
    if how == "key in the prefix record":
        who = Reference(LISTED, 300)
        monkeypatch.setitem(SESSION_SECRETS, who, b"mine")
    client = await Client.opened(place, who)  # type: ignore[arg-type]
    await client.prove(OpCode.ADD_VALUE, ValuesRequest(f"{A}/DATA".encode(), (url(index=7),)), who)
    for name in ("ADMIN", "DATA"):
        said = await hidden(client, f"{C}/{name}")
        assert said.header.response_code == DENIED and SECRETS[C] not in said.body
        assert 1 not in [await client.ask(op, body) for op, body in every_change(f"{C}/{name}", who)]
    assert place.kept(C) == before
    owner = await in_session(place, C)
    assert SECRETS[C] in (await hidden(owner, f"{C}/ADMIN")).body, "C itself reads it"


@pytest.mark.parametrize("named", [Reference(f"{A}/ADMIN".encode(), 301), Reference(f"{A}/ADMIN/".encode(), 300)])
async def test_a_reference_to_almost_the_key_is_another(named: Reference) -> None:
    place = Place()
    place.put(B, f"{B}/DATA", url(), url(b"hidden", 2, HIDDEN), admin(named))
    client = await in_session(place, A)
    assert (await hidden(client, f"{B}/DATA")).header.response_code == DENIED
    assert [await client.ask(op, body) for op, body in every_change(f"{B}/DATA", KEYS[A])] == [DENIED] * 7


# ------------------------------------------------------------------------------------------------- spellings
@pytest.mark.parametrize("spelled", ["88.118.9", "0.na/88.118.9", "0.NA/88.118.9"])
async def test_who_was_taken_out_of_use_is_out_under_every_name_of_his_key(spelled: str) -> None:
    """`88.118.9` means `0.NA/88.118.9`: one key, and as one person it is out."""
    place, key = Place(), Reference(f"0.NA/{A}".encode(), 300)
    place.above[next(iter(place.above))] = place.record(admin(key), HandleValue(300, b"HS_SECKEY", b"old", permissions=HIDDEN))
    place.put(A, f"{A}/DATA", url(), admin(KEYS[A]), admin(key, 101))
    with_documents(place, A)
    place.say(A, "r2", Right(who=f"300:0.NA/{A}", operations=EVERY, under=A))
    place.say(A, f"300:0.NA/{A}", Person(title="left", active=False))
    who = Reference(spelled.encode(), 300)
    for op, body in [*changes(f"{A}/DATA", who), (OpCode.LIST_HANDLES, HandleRequest(f"0.NA/{A}".encode()))]:
        assert (await place.ask(op, body, who, b"old")).header.response_code == DENIED
    assert (await place.json("GET", f"/api/handles?prefix={A}", basic(who, b"old")))[0] == 403


@pytest.mark.parametrize("spelled", [C, f"0.na/{C}", f"0.NA/{C}"])
async def test_a_prefix_record_has_one_keeper_in_every_spelling(spelled: str) -> None:
    place = Place()
    place.put(A, f"0.NA/{C}", admin(KEYS[A]))
    assert await place.code(OpCode.LIST_HANDLES, HandleRequest(spelled.encode())) == DENIED
    assert await place.code(OpCode.ADD_VALUE, ValuesRequest(f"{spelled}.1".encode(), (url(),))) == DENIED


# ------------------------------------------------------------------------------------------------- below what is below
@pytest.mark.parametrize("documents", [True, False])
async def test_the_prefix_records_below_a_tenant_are_its_own(documents: bool) -> None:
    place = Place()
    if documents:
        with_documents(place, C)
    place.put(A, f"0.NA/{C}", admin(KEYS[A]))
    place.put(C, f"0.NA/{C}.5", admin(KEYS[C]), url(b"hidden", 2, HIDDEN))
    place.put(C, f"{C}.5/DATA", admin(KEYS[C]), url(b"hidden", 2, HIDDEN))
    client, before, told = await in_session(place, A), place.kept(C), set()
    for name in (f"0.NA/{C}.5", f"0.NA/{C}.6", f"{C}.5/DATA", f"{C}.6/NONE", f"0.NA/{C}.5.1"):
        for op, body in every_change(name, KEYS[A]):
            for flags in (FLAGS_DEFAULT, FLAGS_DEFAULT | OpFlag.OVERWRITE, FLAGS_DEFAULT | OpFlag.MINT):
                said = await client.say(client.message(op, body.encode(), flags=flags))
                told.add((said.header.response_code, said.body))
        told.add(((await hidden(client, name)).header.response_code, b""))
        assert await client.ask(OpCode.LIST_HANDLES, HandleRequest(name.encode())) in (DENIED, ResponseCode.INVALID_HANDLE)
    assert {code for code, _ in told} == {DENIED} and len(told) == 2
    assert place.kept(C) == before


# ------------------------------------------------------------------------------------------------- sessions opened before
@pytest.mark.parametrize("taken", ["administrator", "right", "person", "key", "suspended"])
async def test_a_session_has_no_right_that_was_taken_away_since_it_was_proved(taken: str) -> None:
    place = Place()
    with_documents(place, A)
    client = await in_session(place, A)
    assert await client.ask(*changes(f"{A}/NEW", KEYS[A])[0]) == 1 and b"hidden" in (await hidden(client, f"{A}/DATA")).body
    if taken == "administrator":
        place.put(A, f"{A}/DATA", url(), url(b"hidden", 2, HIDDEN), admin(KEYS[B]))
        place.above.clear()
    elif taken == "right":
        place.say(A, "r1", Right(who=f"300:{A}/ADMIN", operations=EVERY, under=A, until_ms=1))
        place.say(A, NAMES[A], Tenant(title=A, visibility="tenant"))
    elif taken == "person":
        place.say(A, f"300:{A}/ADMIN", Person(title="left", active=False))
    elif taken == "key":
        place.put(A, f"{A}/ADMIN", HandleValue(300, b"HS_SECKEY", b"new", permissions=HIDDEN), admin(KEYS[A]))
    else:
        place.say(A, NAMES[A], Tenant(title=A, suspended="unpaid"))
    before = place.kept(A)
    told = [await client.ask(op, body) for op, body in changes(f"{A}/DATA", KEYS[A])[1:]]
    assert 1 not in told and place.kept(A) == before
    read = await client.say(client.message(OpCode.RESOLUTION, ResolutionRequest(f"{A}/DATA".encode()).encode(), flags=0))
    if taken == "suspended":
        assert told == [ResponseCode.SERVER_BACKUP] * 3 and b"hidden" in read.body, "reading goes on"
    else:
        assert b"hidden" not in read.body


# ------------------------------------------------------------------------------------------------- a prefix that was given away
async def test_whose_prefix_moved_away_lists_and_reads_it_no_more() -> None:
    """By a key that is kept above, so that it is still there; the old content is, too, until it is dropped."""
    place, key = Place(), Reference(f"0.NA/{B}".encode(), 300)
    secret = HandleValue(300, b"HS_SECKEY", b"above", permissions=HIDDEN)
    place.above[Identifier.parse(f"0.NA/{B}").key()] = place.record(admin(key), secret)
    place.put(B, f"{B}/DATA", url(), admin(key))
    asked = [(OpCode.LIST_HANDLES, HandleRequest(f"0.NA/{B}".encode())), *every_change(f"{B}/DATA", key)[1:3]]
    assert [(await place.ask(op, body, key, b"above")).header.response_code for op, body in asked] == [1, 1, 1]
    place.groups[B].change_state(prefixes=(prefix_key("88.118.91"),), ownership_version=2)
    before = place.kept(B)
    for op, body in asked:
        assert (await place.ask(op, body, key, b"above")).header.response_code == ResponseCode.SERVER_NOT_RESP
    assert place.kept(B) == before
