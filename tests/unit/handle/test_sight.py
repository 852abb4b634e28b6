"""What one request sees: one barrier for all it reads of a source, and everything anew when another change came first."""

from __future__ import annotations

import pytest

from hosting.tenant.port import Proposal
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.bodies import ValuesRequest
from replica.model.handle.codes import OpCode, ResponseCode
from replica.model.handle.values import encode_record
from replica.model.identifier import Identifier
from replica.v1 import entry_pb2
from tests.unit.handle.test_registrar import CREATE, KEY, NAME, OTHER, PREFIX, World, admin, url
from tests.unit.handle.test_sessions import Client

ADD = ValuesRequest(NAME.encode(), (url(2),))
KEYS = KEY.handle.decode()


async def proved(world: World) -> Client:
    client = await Client.opened(world)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1
    return client


async def test_a_request_in_a_session_waits_for_one_barrier() -> None:
    """It reads its own key, the record, and what the prefix's record says: one after the other, all behind the same one."""
    world = World()
    client = await proved(world)
    before = world.group.barriers
    assert await client.ask(OpCode.ADD_VALUE, ADD) == 1
    assert world.group.barriers == before + 1
    assert await client.ask(OpCode.ADD_VALUE, ValuesRequest(NAME.encode(), (url(3),))) == 1
    assert world.group.barriers == before + 2, "each request has its own: it begins after the request came"


async def test_no_barrier_no_answer() -> None:
    world = World()
    client = await proved(world)
    world.group.barrier_refusal = ZaibeiError(Code.UNREACHABLE, "cut off", retry=True)
    assert await client.ask(OpCode.ADD_VALUE, ADD) == ResponseCode.ERROR
    world.group.barrier_refusal = None
    assert await client.ask(OpCode.ADD_VALUE, ADD) == 1


async def test_a_sight_remembers_and_the_next_one_looks_anew() -> None:
    world = World()
    looks = world.registrar._looks
    sight = looks.sight()
    first = await sight.values(KEY.handle)
    assert first
    world.put(KEYS, url(), admin(KEY))
    assert await sight.values(KEY.handle) == first
    assert await looks.values(KEY.handle) != first and await looks.sight().values(KEY.handle) != first


@pytest.mark.parametrize("lends", [True, False])
async def test_who_was_overtaken_is_judged_by_what_holds_then(lends: bool) -> None:
    """While its change is under way another one comes first; with that, the prefix's record may have stopped naming its key."""
    world = World()
    client = await proved(world)
    world.put(NAME, url())  # without an administrator of its own: the prefix's record alone permits
    above, propose = Identifier.parse(f"0.NA/{PREFIX}").key(), world.group.propose

    def overtaken(entry: entry_pb2.Entry) -> Proposal:
        world.group.propose = propose  # type: ignore[method-assign]
        made = propose(entry)
        world.put(NAME, url(), url(9), admin(KEY) if lends else admin(OTHER))
        if not lends:
            world.port.records["top"][above] = encode_record((admin(OTHER),))
        return made

    world.group.propose = overtaken  # type: ignore[method-assign]
    said = await client.ask(OpCode.ADD_VALUE, ValuesRequest(NAME.encode(), (url(2), admin(KEY, index=101))))
    assert said == (1 if lends else ResponseCode.INSUFFICIENT_PERMISSIONS)
    values = world.values(NAME)
    assert values is not None and (2 in {one.index for one in values}) is lends, "nothing of the other change is lost"
    assert 9 in {one.index for one in values}
