"""The administrator of one tenant against the data of another, over the Handle protocol and in its sessions."""

from __future__ import annotations

import pytest

from hosting.tenant.papers import Right, Tenant
from replica.model.handle.bodies import HandleRequest, ValuesRequest
from replica.model.handle.codes import OpCode, ResponseCode
from replica.model.handle.types import encode_vlist
from replica.model.handle.values import HandleValue, Reference
from tests.unit.handle.test_sessions import Client
from tests.unit.hostile.hostile_world import DENIED, KEYS, NAMES, SECRETS, A, B, C, Place, admin, changes, hidden, in_session, url


@pytest.mark.parametrize("name", [f"{B}/DATA", f"{B}/data", f"{B}/NONE", f"{C}/DATA", f"{C}/dAtA", f"{C}/NONE"])
async def test_the_administrator_of_a_changes_nothing_beside_or_below_and_learns_nothing(name: str) -> None:
    place = Place()
    before, told = place.kept(B, C), set()
    for op, body in changes(name, KEYS[A]):
        said = await place.ask(op, body, KEYS[A], SECRETS[A])
        told.add((said.header.response_code, said.body))
    assert [code for code, _ in told] == [DENIED], "there or not there: the same words"
    assert place.kept(B, C) == before


async def test_what_an_administrator_may_at_home_he_may_there() -> None:
    place = Place()
    assert [await place.code(op, body) for op, body in changes(f"{A}/NEW", KEYS[A])] == [1, 1, 1, 1]


@pytest.mark.parametrize("prefix", [B, C])
async def test_lists_and_hidden_values_of_another_tenant_stay_there(prefix: str) -> None:
    place = Place()
    assert await place.code(OpCode.LIST_HANDLES, HandleRequest(f"0.NA/{prefix}".encode())) == DENIED
    mine = await place.ask(OpCode.LIST_HANDLES, HandleRequest(f"0.NA/{A}".encode()), KEYS[A], SECRETS[A])
    assert mine.header.response_code == 1 and b"DATA" in mine.body
    assert f"{prefix}/".encode() not in mine.body


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("prefix", [B, C])
async def test_a_session_of_a_reads_and_changes_nothing_elsewhere(prefix: str) -> None:
    place = Place()
    client, before = await in_session(place, A), place.kept(B, C)
    assert b"hidden" in (await hidden(client, f"{A}/DATA")).body
    there, nowhere = await hidden(client, f"{prefix}/DATA"), await hidden(client, f"{prefix}/NONE")
    assert there.header.response_code == nowhere.header.response_code == DENIED and there.body == nowhere.body
    assert [await client.ask(op, body) for op, body in changes(f"{prefix}/DATA", KEYS[A])] == [DENIED] * 4
    assert place.kept(B, C) == before


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("prefix", [B, C])
async def test_a_session_in_anothers_name_gives_nothing(prefix: str) -> None:
    place = Place()
    client, before = await Client.opened(place, KEYS[prefix]), place.kept(B, C)  # type: ignore[arg-type]
    for op, body in changes(f"{prefix}/DATA", KEYS[A]):
        assert await client.prove(op, body, KEYS[A]) == DENIED, "asked again each time: the session proved nothing"
    assert place.kept(B, C) == before


async def test_a_group_counts_where_it_is_named_alone() -> None:
    place = Place()
    place.put(A, f"{A}/STAFF", HandleValue(200, b"HS_VLIST", encode_vlist([KEYS[A]])), admin(KEYS[A]))
    place.put(A, f"{A}/ROOT", admin(KEYS[B]), HandleValue(200, b"HS_VLIST", encode_vlist([KEYS[B], KEYS[A]])))
    asked = (OpCode.ADD_VALUE, ValuesRequest(f"{B}/DATA".encode(), (url(index=9),)))
    assert await place.code(*asked) == DENIED, "a group of his own naming theirs"
    place.put(B, f"{B}/DATA", url(), admin(Reference(f"{A}/STAFF".encode(), 200)))
    place.say(B, NAMES[B], Tenant(title="B"))
    assert await place.code(*asked) == ResponseCode.INSUFFICIENT_PERMISSIONS, "named there, but no right of that tenant's"
    place.say(B, "r1", Right(who=f"300:{A}/ADMIN", operations=("add", "modify"), under=B))
    assert await place.code(*asked) == 1, "B let him in by a value and by a right of its own"
