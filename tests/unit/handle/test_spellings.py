"""Whose key is it when only the case of its letters differs: by the rule of its owner, and never somebody else's rights."""

from __future__ import annotations

import pytest

from hosting.tenant.papers import Enterprise, Key, Papers, Person, Tenant, key_of, papers_of, value_of
from hosting.tenant.records import named
from hosting.tenant.rights import Caller, Operation, may
from replica.model.errors import Code
from replica.model.handle.bodies import HandleRequest
from replica.model.handle.codes import OpCode, ResponseCode
from replica.model.handle.values import HandleValue, Reference, encode_record
from replica.model.identifier import Identifier, prefix_key
from tests.unit.handle.test_registrar import CREATE, KEY, NAME, PREFIX, SECRETS, World, admin, group, url
from tests.unit.handle.test_sessions import GONE, Client
from tests.unit.tenant.test_rights import IN_EFFECT

THIEF = Reference(b"88.118.9/Admin", 300)  # where case counts: another handle than KEY's
PRINT = "sha256:" + "cd" * 32


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Suffixes keep their case here, and somebody else holds a handle that is spelled almost like the administrator's."""
    monkeypatch.setitem(SECRETS, THIEF, b"of the thief")
    found = World()
    found.group.change_state(case_sensitive=(prefix_key(PREFIX),), ownership_version=2)
    for key in (KEY, THIEF):
        put(found, key.handle, HandleValue(key.index, b"HS_SECKEY", SECRETS[key], permissions=0x0C), admin(key))
    return found


def put(world: World, name: bytes, *values: HandleValue) -> None:
    world.group.content.records[Identifier.parse(name.decode()).key(case_sensitive=True)] = encode_record(values)


def there(world: World) -> bool:
    return Identifier.parse(NAME).key(case_sensitive=True) in world.group.content.records


async def test_a_handle_that_differs_by_case_alone_has_no_rights_of_the_other(world: World) -> None:
    assert (await world.ask(OpCode.CREATE_HANDLE, CREATE, key=THIEF))[0] == ResponseCode.INSUFFICIENT_PERMISSIONS
    assert not there(world)
    assert (await world.ask(OpCode.CREATE_HANDLE, CREATE))[0] == 1 and there(world)


async def test_nor_by_a_group_of_almost_that_name(world: World) -> None:
    put(world, NAME.encode(), url(), admin(Reference(b"88.118.9/Staff", 200)))
    put(world, b"88.118.9/Staff", group(KEY), admin())
    put(world, b"88.118.9/STAFF", group(THIEF), admin(THIEF))
    assert (await world.ask(OpCode.DELETE_HANDLE, GONE, key=THIEF))[0] == ResponseCode.INSUFFICIENT_PERMISSIONS
    assert there(world)


async def test_nor_by_a_session_in_the_others_name(world: World) -> None:
    client = await Client.opened(world, KEY)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE, THIEF) == ResponseCode.INSUFFICIENT_PERMISSIONS
    assert await client.ask(OpCode.CREATE_HANDLE, CREATE) != 1, "the key of its name is not the one that was proved"
    assert not there(world)


async def test_who_is_out_of_use_lists_nothing_under_another_spelling() -> None:
    world = World()
    papers = ((Tenant(title="Region 9"), "region-9"), (Person(title="Li", active=False), "0300:88.118.9/admin"))
    wanted = {1: world, ResponseCode.INSUFFICIENT_PERMISSIONS: World()}
    for number, (code, one) in enumerate(wanted.items(), 1):
        for paper, ident in papers[:number]:
            one.group.content.records[key_of(paper, ident)] = value_of(paper)
        one.put("88.118.9/ADMIN", HandleValue(300, b"HS_SECKEY", SECRETS[KEY], permissions=0x0C), admin())
        assert (await one.ask(OpCode.LIST_HANDLES, HandleRequest(b"0.NA/88.118.9")))[0] == code


@pytest.mark.parametrize(("active", "refused"), [(True, False), (False, True)])
def test_an_administrator_out_of_use_is_refused_however_others_wrote_his_name(active: bool, refused: bool) -> None:
    boss = "300:88.118.9.1/Boss"
    papers = documents(
        (Tenant(title="Region 9"), "region-9"),
        (Person(title="Boss", active=active), "300:88.118.9.1/BOSS"),
        (Key(person=boss), PRINT),
        (Enterprise(title="Works", steps=IN_EFFECT, administrators=(boss,)), "88.118.9.1"),
    )
    for who in (boss, PRINT):
        found = may(Caller(who), Operation.CREATE, named("88.118.9.1/new"), papers, now_ms=1_000_000)
        assert (found is not None and found.code is Code.NOT_AUTHORISED) is refused, (who, found)


def test_his_own_document_counts_before_that_of_another_spelling() -> None:
    papers = documents(
        (Tenant(title="Region 9"), "region-9"),
        (Person(title="Li"), "300:88.118.9/li"),
        (Person(title="LI", active=False), "300:88.118.9/LI"),
    )
    for who, refused in (("300:88.118.9/li", False), ("300:88.118.9/LI", True), ("300:88.118.9/Li", True)):
        assert (may(Caller(who), Operation.READ, named("88.118.9/a"), papers, now_ms=1) is not None) is refused, who


def documents(*papers: tuple[Tenant | Person | Key | Enterprise, str]) -> Papers:
    return papers_of(sorted((key_of(paper, ident), value_of(paper)) for paper, ident in papers))
