"""What answering processes know of tenants' documents: read again and again, told in the catalog, unknown is never a change."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from hosting.answer.heads import Heads
from hosting.answer.port import MemoryAnswerPort
from hosting.answer.question import Answer, Question
from hosting.answer.resolve import Plan, plan
from hosting.tenant.edge_views import TenantViews
from hosting.tenant.papers import AnyPaper, Quota, Tenant, key_of, value_of
from replica.model.catalog import Catalog, Owner
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.identifier import PrefixTree, prefix_key
from replica.model.states import Authority, Freshness, Mode
from replica.model.tenant_view import TenantView
from replica.model.view import SourceView

SUSPENDED = Tenant(title="Region 9", suspended="unpaid", answered_while_suspended=False)
HOSTED = SourceView("region-9", freshness=Freshness.FRESH, authority=Authority.REGISTRATION, ready=True)
OWNERS = PrefixTree({prefix_key("88.118.9"): Owner("region-9", Mode.RECORDS), prefix_key("88.118"): Owner("top", Mode.RECORDS)})


class World:
    """One tenant in a memory port, and what is known of it."""

    def __init__(self) -> None:
        self.port = MemoryAnswerPort(Catalog(5, OWNERS), {"region-9": HOSTED}, {"region-9": {}})
        self.views = TenantViews(self.port, ["region-9"])

    def write(self, paper: AnyPaper, ident: str = "region-9") -> None:
        self.port.records["region-9"][key_of(paper, ident)] = value_of(paper)

    async def known(self) -> TenantView | None:
        await self.views.look()
        return self.views.catalog().tenants.get("region-9")

    async def answered(self, name: bytes) -> bool:
        await self.views.look()
        found = plan(Question(name), self.views.catalog())
        assert isinstance(found, Plan | Answer)
        if isinstance(found, Answer):
            assert found.code == 401
        return isinstance(found, Plan)


@pytest.fixture
async def world() -> World:
    world = World()
    with pytest.raises(ZaibeiError) as refused:  # it may be suspended: nobody is told anything before it was looked at
        world.views.catalog()
    assert refused.value.code is Code.STOPPING
    await world.views.start()
    await world.views.stop()
    return world


async def test_a_suspended_tenant_is_answered_unless_its_document_says_otherwise(world: World) -> None:
    assert await world.answered(b"88.118.9/a")
    world.write(replace_tenant(SUSPENDED, answered_while_suspended=True))
    assert await world.answered(b"88.118.9/a")
    world.write(SUSPENDED)
    assert not await world.answered(b"88.118.9/a")
    assert not await world.answered(b"0.NA/88.118.9.1")
    assert await world.answered(b"88.118.8/a")  # another's
    assert await world.answered(b"0.NA/88.118.9")  # kept by the registry above
    world.write(replace_tenant(SUSPENDED, suspended=""))
    assert await world.answered(b"88.118.9/a")


async def test_the_short_way_is_closed_too(world: World) -> None:
    heads = Heads()
    heads.catch_up(world.views.catalog())
    assert heads.find(b"88.118.9") is not None
    world.write(SUSPENDED)
    await world.views.look()
    heads.catch_up(world.views.catalog())
    assert heads.find(b"88.118.9") is None
    assert heads.find(b"88.118.8") is not None


async def test_the_catalog_is_a_new_one_only_when_something_changed(world: World) -> None:
    world.write(Tenant(title="Region 9"))
    assert await world.known() is None
    first = world.views.catalog()
    await world.views.look()
    assert world.views.catalog() is first
    world.write(SUSPENDED)
    assert await world.known() == TenantView(answered=False)
    second = world.views.catalog()
    assert second is not first and second.version > first.version
    world.port.held = Catalog(9, OWNERS)
    assert world.views.catalog().tenants == second.tenants
    assert world.views.catalog() is world.views.catalog()


@pytest.mark.parametrize("how", ["trouble", "not ready", "damaged", "quarantined", "not held"])
async def test_what_cannot_be_read_changes_nothing(world: World, how: str) -> None:
    world.write(SUSPENDED)
    assert await world.known() == TenantView(answered=False)
    key = key_of(SUSPENDED, "region-9")
    if how == "trouble":
        world.port.trouble = Trouble(Code.DISK_FAILED, "no disk")
    elif how == "not ready":
        world.port.views["region-9"] = replace(HOSTED, ready=False)
        del world.port.records["region-9"][key]
    elif how == "not held":
        del world.port.views["region-9"]
    else:
        world.port.records["region-9"][key] = b"" if how == "quarantined" else b"\x01{}"
    await world.views.look()
    world.port.trouble = None
    assert world.views.catalog().tenants["region-9"] == TenantView(answered=False)


@pytest.mark.parametrize("authority", [Authority.SOURCE, Authority.RESOLUTION])
async def test_documents_of_another_registry_bind_nobody_here(world: World, authority: Authority) -> None:
    """A region that left for a node of its own took its documents along; the copy of them here says nothing any more."""
    world.write(SUSPENDED)
    assert await world.known() == TenantView(answered=False)
    world.port.views["region-9"] = replace(HOSTED, authority=authority)
    assert await world.known() is None


async def test_a_quota_alone_is_nothing_to_answer_by(world: World) -> None:
    world.write(Quota(identifiers=3, burst_s=2.0), "tenant")
    assert await world.known() is None


async def test_a_quota_of_resolutions_is_known_wherever_answers_are_made_and_binds_where_registrations_are_ours(
    world: World,
) -> None:
    world.write(Quota(resolutions_per_s=50.0, burst_s=4.0), "tenant")
    assert await world.known() == TenantView(50.0, 4.0)
    for authority in (Authority.SOURCE, Authority.RESOLUTION):
        world.port.views["region-9"] = replace(HOSTED, authority=authority)
        assert await world.known() is None


def replace_tenant(paper: Tenant, **fields: object) -> Tenant:
    return msgspec.structs.replace(paper, **fields)


async def test_members_of_different_views_each_hold_to_what_they_know(world: World) -> None:
    """A client that asks the one that was not told yet is answered, as before; nobody forgets what it was told."""
    late = World()
    await late.views.start()
    await late.views.stop()
    world.write(SUSPENDED)
    assert (await world.answered(b"88.118.9/x"), await late.answered(b"88.118.9/x")) == (False, True)
    late.write(SUSPENDED)
    assert not await late.answered(b"88.118.9/x")
    world.port.trouble = late.port.trouble = Trouble(Code.UNREACHABLE, "cut off")
    world.write(Tenant(title="Region 9"))
    for one in (world, late):
        await one.views.look()
        one.port.trouble = None
        assert not one.views.catalog().tenants["region-9"].answered, "cut off it goes by what it was told last"
    assert (await world.answered(b"88.118.9/x"), await late.answered(b"88.118.9/x")) == (True, False)
