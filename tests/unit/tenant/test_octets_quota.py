"""A tenant's octets never pass their quota: counted with what is under way, and at the limit nothing grows, at apply either."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hosting.tenant.admitting import in_place, over_octets
from hosting.tenant.papers import Quota
from hosting.tenant.records import delete_of, named, put_of
from hosting.tenant.rights import Caller
from replica.model.batch import OP_PUT, Change
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.handle.values import HandleValue, encode_values
from replica.model.precondition import ABSENT, NOTHING, PRESENT, Precondition, equal_to
from tests.unit.tenant.test_admitting import WHO, Desk


class Tenant(Desk):
    """As Desk, with values of any length."""

    async def room(self, octets: int | None) -> None:
        await self.found("create", "modify", "delete")
        await self.write("tenant", Quota(octets=octets))

    def change(self, name: str, octets: int) -> Change:
        key, spelling = self.office.key(named(name))
        return put_of(key, spelling, encode_values([HandleValue(1, b"URL", b"x" * octets)]))

    async def tried(self, name: str, octets: int | None, need: Precondition = NOTHING) -> Trouble | None:
        """None: done. `octets` None: a delete."""
        change = delete_of(self.office.key(named(name))[0]) if octets is None else self.change(name, octets)
        try:
            need = self.office.admitted(await self.office.documents(), Caller(WHO), named(name), change, need)
        except ZaibeiError as exc:
            return exc.trouble
        return (await self.office.clerk.change(change, need)).trouble

    async def codes(self, *wanted: tuple[str, int | None]) -> list[Code | None]:
        troubles = await asyncio.gather(*(self.tried(*one) for one in wanted))
        return [None if trouble is None else trouble.code for trouble in troubles]

    @property
    def octets(self) -> int:
        held = self.group.octets()
        assert held is not None
        return held

    def size(self, octets: int) -> int:
        change = self.change("88.118.9/0", octets)
        return len(change.key) + len(change.value)


async def test_octets_never_exceed_their_quota_however_many_come_at_once() -> None:
    tenant = Tenant()
    await tenant.room(5 * tenant.size(100) + 80)  # and a little for what changes are framed in
    codes = await tenant.codes(*((f"88.118.9/{number}", 100) for number in range(9)))
    assert codes.count(None) == 5 and codes.count(Code.OVER_QUOTA) == 4
    assert tenant.octets == 5 * tenant.size(100)


async def test_documents_about_the_tenant_are_not_counted() -> None:
    tenant = Tenant()
    await tenant.room(tenant.size(100))
    assert tenant.octets == 0
    assert await tenant.tried("88.118.9/0", 100) is None


async def test_at_the_limit_what_is_there_may_change_if_it_does_not_grow() -> None:
    tenant = Tenant()
    await tenant.room(2 * tenant.size(100))
    assert await tenant.codes(("88.118.9/0", 100)) == await tenant.codes(("88.118.9/1", 100)) == [None]
    assert await tenant.codes(("88.118.9/0", 101)) == await tenant.codes(("88.118.9/2", 0)) == [Code.OVER_QUOTA]
    assert await tenant.codes(("88.118.9/0", 100)) == await tenant.codes(("88.118.9/0", 60)) == [None]
    assert await tenant.codes(("88.118.9/1", None)) == await tenant.codes(("88.118.9/2", 100)) == [None]
    assert (await tenant.tried("88.118.9/0", 61, ABSENT)) is not None
    assert tenant.octets == tenant.size(60) + tenant.size(100)


async def test_who_makes_it_smaller_first_has_no_room_kept_for_making_it_larger_again() -> None:
    """The second put is as long as what is there, but not as what will be there."""
    tenant = Tenant()
    await tenant.room(tenant.size(1_000))
    assert await tenant.codes(("88.118.9/0", 1_000)) == [None]
    limit = tenant.size(1_000)
    codes = await tenant.codes(("88.118.9/0", 10), ("88.118.9/0", 1_000), ("88.118.9/1", 500))
    assert codes == [None, Code.OVER_QUOTA, Code.OVER_QUOTA]
    assert tenant.octets <= limit


async def test_what_another_leader_wrote_meanwhile_is_seen_at_apply() -> None:
    """A leader that was replaced admitted a put in place of what it saw; its successor made that shorter, and used the room."""
    old, new = Tenant(), Tenant()
    await old.room(old.size(1_000))
    limit = old.size(1_000)
    assert await old.codes(("88.118.9/0", 1_000)) == [None]
    new.group.content = old.group.content
    old.group._at_once = False
    stale = asyncio.ensure_future(old.tried("88.118.9/0", 1_000))
    await asyncio.sleep(0.01)
    assert len(old.group.pending) == 1
    assert await new.codes(("88.118.9/0", 10)) == await new.codes(("88.118.9/1", 800)) == [None]
    old.group._at_once = True
    for _ in range(3):
        old.group.step()
        await asyncio.sleep(0.01)
    trouble = await stale
    assert trouble is not None and trouble.code is Code.CONFLICT
    assert old.octets <= limit


async def test_while_they_are_being_counted_only_what_does_not_grow_comes() -> None:
    tenant = Tenant()
    await tenant.room(10_000)
    assert await tenant.codes(("88.118.9/0", 100), ("88.118.9/1", 100)) == [None, None]
    tenant.group.counted = False
    trouble = await tenant.tried("88.118.9/2", 1)
    assert trouble is not None and trouble.code is Code.BUSY and trouble.retry and trouble.retry_ms
    assert await tenant.codes(("88.118.9/0", 100)) == await tenant.codes(("88.118.9/1", None)) == [None]
    assert await tenant.codes(("88.118.9/0", 101)) == [Code.BUSY]
    tenant.group.counted = True
    assert await tenant.codes(("88.118.9/2", 1)) == [None]


async def test_what_replaces_is_counted_by_what_it_is_longer() -> None:
    tenant = Tenant()
    await tenant.room(tenant.size(1_000))
    assert await tenant.codes(("88.118.9/0", 900)) == await tenant.codes(("88.118.9/0", 1_000)) == [None]
    assert await tenant.codes(("88.118.9/0", 1_001)) == [Code.OVER_QUOTA]
    assert tenant.octets == tenant.size(1_000)


@pytest.mark.parametrize("quota", [Quota(identifiers=1_000), Quota(octets=1_000_000)])
async def test_a_store_that_catches_up_counts_for_nobody(quota: Quota, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a disk error it holds less than was acknowledged, and less would be counted than there is."""
    tenant = Tenant()
    await tenant.found("create", "modify", "delete")
    await tenant.write("tenant", quota)
    assert await tenant.codes(("88.118.9/0", 10)) == [None]

    def behind(_: object) -> None:
        raise ZaibeiError(Code.BUSY, "it catches up", retry=True)

    monkeypatch.setattr(tenant.group, "get_many", behind)
    assert await tenant.codes(("88.118.9/1", 10)) == [Code.BUSY]


async def test_both_quotas_hold_together() -> None:
    tenant = Tenant()
    await tenant.found("create", "modify", "delete")
    await tenant.write("tenant", Quota(identifiers=2, octets=2 * tenant.size(100)))
    assert await tenant.codes(("88.118.9/0", 10)) == await tenant.codes(("88.118.9/1", 10)) == [None]
    assert await tenant.codes(("88.118.9/2", 10)) == [Code.OVER_QUOTA]
    assert await tenant.codes(("88.118.9/0", 150)) == [None]
    assert await tenant.codes(("88.118.9/1", 150)) == [Code.OVER_QUOTA]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.none() | st.sampled_from([0, 10, 200])), min_size=1, max_size=8), max_size=8
    ),
    st.integers(0, 900),
)
def test_whatever_comes_the_limit_holds(rounds: list[list[tuple[int, int | None]]], limit: int) -> None:
    async def play() -> None:
        tenant = Tenant()
        await tenant.room(limit)
        for one in rounds:
            await tenant.codes(*((f"88.118.9/{number}", octets) for number, octets in one))
            assert tenant.octets <= limit

    asyncio.run(play())


def test_a_refusal_says_whether_time_helps() -> None:
    assert over_octets(100, 50, 25, 25) is None
    waits, full = over_octets(100, 50, 26, 25), over_octets(100, 80, 0, 25)
    assert waits is not None and waits.retry_ms and full is not None and full.retry_ms is None


@pytest.mark.parametrize("need", [NOTHING, PRESENT, equal_to(b"1234")])
def test_what_is_put_in_place_must_replace_exactly_what_was_seen(need: Precondition) -> None:
    put = Change(OP_PUT, b"k", b"4321")
    assert in_place(need, put, b"1234", latched=False) == (equal_to(b"1234"), 0)
    assert in_place(NOTHING, put, b"12", latched=False) == (equal_to(b"12"), 2)
    assert in_place(need, put, b"1234", latched=True) is None
    assert in_place(need, put, None, latched=False) is None
    assert in_place(ABSENT, put, b"1234", latched=False) is None
    assert in_place(equal_to(b"other"), put, b"1234", latched=False) is None
