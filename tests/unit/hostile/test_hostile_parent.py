"""A parent, and people of a tenant with few rights or none, against what lies below or around their own prefix."""

from __future__ import annotations

from typing import Any

import pytest

from hosting.tenant.papers import Enterprise, Right, Tenant, key_of
from replica.model.handle.bodies import HandleRequest, Request
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, OpFlag
from replica.model.handle.types import encode_vlist
from replica.model.handle.values import HandleValue, Reference, encode_record
from replica.model.identifier import Identifier
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
from tests.unit.tenant.test_rights import IN_EFFECT


@pytest.mark.parametrize("visibility", ["public", "tenant"])
async def test_a_suspended_tenants_people_gain_nothing_elsewhere(visibility: Any) -> None:
    place = Place()
    place.say(A, NAMES[A], Tenant(title="A", suspended="unpaid"))
    place.say(A, "r1", Right(who=f"300:{A}/ADMIN", operations=("create", "delete", "modify", "add", "list"), under=B))
    place.say(B, NAMES[B], Tenant(title="B", visibility=visibility))
    before = place.kept(A, B, C)
    for name in (f"{A}/DATA", f"{B}/DATA", f"{C}/DATA"):
        assert all([await place.code(op, body) != 1 for op, body in changes(name, KEYS[A])])
    assert await place.code(OpCode.LIST_HANDLES, HandleRequest(f"0.NA/{B}".encode())) == DENIED
    assert place.kept(A, B, C) == before


async def test_an_enterprises_administrator_stays_below_its_prefix() -> None:
    place, boss = Place(), Reference(f"{A}.2/BOSS".encode(), 300)
    place.say(A, NAMES[A], Tenant(title="A"))
    place.say(A, f"{A}.2", Enterprise(title="E", steps=IN_EFFECT, administrators=(f"300:{A}.2/BOSS",)))
    place.put(A, f"0.NA/{A}.2", admin(boss))
    place.put(A, "88.118.9.2/BOSS", HandleValue(300, b"HS_SECKEY", b"of the boss", permissions=HIDDEN), admin(boss))
    place.put(A, f"{A}/DATA", url(), admin(KEYS[A]), admin(boss, 101))  # named there, and no right of the documents
    before = place.kept(A, B, C)
    for name in (f"{A}/DATA", f"{A}/NEW", f"0.NA/{A}.2", f"0.NA/{A}.20", f"{A}.20/X", f"{B}/DATA", f"{C}/DATA"):
        told = [(await place.ask(op, body, boss, b"of the boss")).header.response_code for op, body in changes(name, boss)]
        assert 1 not in told, name
    assert place.kept(A, B, C) == before
    [create, *_] = changes(f"{A}.2/NEW", boss)
    assert (await place.ask(*create, boss, b"of the boss")).header.response_code == 1


async def below(visibility: Any) -> tuple[Place, Client]:
    """C has rights of its own, and A has named itself in the prefix record of C, which stands at A."""
    place = Place()
    place.say(C, NAMES[C], Tenant(title="C", visibility=visibility))
    every: Any = ("create", "delete", "modify", "add", "remove", "list")
    place.say(C, "r1", Right(who=f"300:{C}/ADMIN", operations=every, under=C))
    place.put(A, f"0.NA/{C}", admin(KEYS[A]))
    return place, await in_session(place, A)


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("visibility", ["public", "tenant"])
async def test_a_parents_administrator_changes_nothing_of_a_tenant_with_documents(visibility: Any) -> None:
    place, client = await below(visibility)
    before = place.kept(C)
    for name in (f"{C}/NEW", f"{C}/DATA"):
        assert 1 not in [await client.ask(op, body) for op, body in changes(name, KEYS[A])]
    assert place.kept(C) == before


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("visibility", ["public", "tenant"])
async def test_a_parents_administrator_does_not_read_the_secret_keys_of_a_tenant_with_documents(visibility: Any) -> None:
    _, client = await below(visibility)
    said = await hidden(client, f"{C}/ADMIN")
    assert SECRETS[C] not in said.body and said.header.response_code == DENIED


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("documents", [True, False])
@pytest.mark.parametrize("named", ["key", "any key", "group"])
async def test_whom_a_parent_names_in_the_prefix_record_below_gains_nothing_there(named: str, documents: bool) -> None:
    """Every verb, the same words for what is there and what is not, and lists."""
    place, client = await below("public")
    if not documents:
        for key in [key_of(Tenant(title=""), NAMES[C]), key_of(Right(who="", operations=(), under=""), "r1")]:
            del place.groups[C].content.records[key]
    place.put(A, f"{A}/STAFF", HandleValue(200, b"HS_VLIST", encode_vlist([KEYS[A]])), admin(KEYS[A]))
    who = {"key": KEYS[A], "any key": Reference(KEYS[A].handle, 0), "group": Reference(f"{A}/STAFF".encode(), 200)}[named]
    place.put(A, f"0.NA/{C}", admin(who))
    before, told = place.kept(C), set()
    for name in ("DATA", "data", "ADMIN", "NONE"):
        for op, body in every_change(f"{C}/{name}", KEYS[A]):
            said = await client.say(client.message(op, body.encode(), flags=FLAGS_DEFAULT | OpFlag.OVERWRITE))
            told.add((said.header.response_code, said.body))
            said = await client.say(client.message(op, body.encode()))
            told.add((said.header.response_code, said.body))
        assert (await hidden(client, f"{C}/{name}")).header.response_code == DENIED
    assert {code for code, _ in told} == {DENIED} and len(told) == 1, "there or not there: the same words"
    assert await client.ask(OpCode.LIST_HANDLES, HandleRequest(f"0.NA/{C}".encode())) == DENIED
    values = [{"index": 1, "type": "URL", "data": "http://mine"}]
    for method in ("PUT", "DELETE"):
        assert (await place.json(method, f"/api/handles/{C}/DATA", basic(KEYS[A], SECRETS[A]), values))[0] == 403
    assert (await place.json("GET", f"/api/handles?prefix={C}", basic(KEYS[A], SECRETS[A])))[0] == 403
    assert place.kept(C) == before


@pytest.mark.usefixtures("secrets")
async def test_whom_the_tenant_itself_lets_in_may_what_it_says_and_no_more() -> None:
    place, client = await below("public")
    place.say(C, "r2", Right(who=f"300:{A}/ADMIN", operations=("create", "list"), under=C))
    assert await client.ask(*changes(f"{C}/NEW", KEYS[A])[0]) == 1
    assert await client.ask(OpCode.LIST_HANDLES, HandleRequest(f"0.NA/{C}".encode())) == 1
    assert (await hidden(client, f"{C}/ADMIN")).header.response_code == DENIED
    place.say(C, "r3", Right(who=f"300:{A}/ADMIN", operations=("read",), under=C))
    assert SECRETS[C] in (await hidden(client, f"{C}/ADMIN")).body


async def test_a_key_kept_above_creates_and_changes_what_names_it() -> None:
    """As the protocol has it, while the tenant has no documents: 300:0.NA/PREFIX is the usual first administrator."""
    place, above = Place(), Reference(f"0.NA/{B}".encode(), 300)
    secret = HandleValue(300, b"HS_SECKEY", b"of the node above", permissions=HIDDEN)
    place.above[Identifier.parse(f"0.NA/{B}").key()] = encode_record((admin(above), secret))

    async def code(op: OpCode, body: Request) -> int:
        return (await place.ask(op, body, above, b"of the node above")).header.response_code

    assert [await code(op, body) for op, body in changes(f"{B}/NEW", above)] == [1, 1, 1, 1]
    assert [await code(op, body) for op, body in changes(f"{B}/DATA", above)[1:]] == [DENIED] * 3, "its administrator is another"
