"""Places for registrations under way: whoever asks all the time leaves some for a tenant that had none."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting.tenant.places import Places
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.codes import OpCode, ResponseCode
from tests.unit.handle.test_registrar import CREATE, NAME, World

TOTAL = 64


def fill(places: Places, held: ExitStack, tenant: str) -> int:
    """All that it gets at this moment; none of it is given back before `held` ends."""
    count = 0
    while True:
        try:
            held.enter_context(places.one(tenant))
        except ZaibeiError as exc:
            assert exc.code is Code.BUSY and exc.trouble.retry and exc.trouble.definite
            return count
        count += 1


def test_two_noisy_tenants_leave_places_for_a_third() -> None:
    places = Places(TOTAL)
    with ExitStack() as held:
        assert [fill(places, held, one) for one in ("a", "b", "c")] == [32, 16, 8]
    assert places.taken == 0 and not places.of("a")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=400))
def test_each_comes_to_have_its_share_and_a_newcomer_finds_one(steps: list[tuple[str, bool]]) -> None:
    places, held = Places(TOTAL), {tenant: list[ExitStack]() for tenant in "abcd"}
    for tenant, takes in steps + [(tenant, takes) for _ in range(TOTAL) for tenant in "abcd" for takes in (False, True, True)]:
        stack = ExitStack()
        if not takes and held[tenant]:
            held[tenant].pop().close()
        elif takes:
            try:
                stack.enter_context(places.one(tenant))
            except ZaibeiError:
                continue
            held[tenant].append(stack)
    assert places.taken == sum(map(len, held.values())) <= TOTAL
    assert all(len(mine) <= TOTAL // 4 for mine in held.values()), "four who ask all the time have about a fifth each"
    with places.one("newcomer"):
        pass


def test_whatever_goes_wrong_gives_the_place_back() -> None:
    places = Places(2)
    for _ in range(5):
        with pytest.raises(RuntimeError), places.one("a"):
            raise RuntimeError
    assert places.taken == 0


async def test_a_tenant_that_has_its_share_is_told_to_come_again_and_another_is_not() -> None:
    world = World()
    work = world.registrar.work
    with ExitStack() as held:
        assert fill(work.places, held, "region-9")
        assert (await world.ask(OpCode.CREATE_HANDLE, CREATE))[0] == ResponseCode.SERVER_TOO_BUSY
        assert world.values(NAME) is None
    with ExitStack() as held:
        assert fill(work.places, held, "region-8")
        assert (await world.ask(OpCode.CREATE_HANDLE, CREATE))[0] == ResponseCode.SUCCESS
    await asyncio.sleep(0)
    assert work.places.taken == 0
