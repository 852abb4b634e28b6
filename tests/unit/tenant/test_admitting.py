"""Rights and quotas where registrations come in: narrowed preconditions, counts that never run over, rates, kept documents."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting.tenant.admitting import put_need, put_rights
from hosting.tenant.edge_clerk import Clerk
from hosting.tenant.follow import Follow
from hosting.tenant.memory import MemoryGroup
from hosting.tenant.offices import Office, OfficeSettings
from hosting.tenant.papers import AnyPaper, Quota, Right, Tenant, key_of, papers_of, value_of
from hosting.tenant.rates import Bucket
from hosting.tenant.records import delete_of, named, put_of
from hosting.tenant.rights import Caller, Refusal
from replica.model.batch import OP_PUT, Change
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue, encode_values
from replica.model.identifier import document_key, prefix_key
from replica.model.identity import Pins
from replica.model.position import ORIGIN, Position, epoch_start
from replica.model.precondition import ABSENT, NOTHING, PRESENT, Must, Precondition

WHO = "300:88.118.9/admin"
PREFIX = prefix_key("88.118.9")
VALUES = encode_values([HandleValue(1, b"URL", b"a")])
EQUAL = Precondition(Must.EQUAL, bytes(32))


class Desk:
    """A tenant's office over a group in memory."""

    def __init__(self) -> None:
        self.now_ms = 1_000
        self.group = MemoryGroup("region-9", [PREFIX])
        settings = OfficeSettings("region-9", (PREFIX,), Pins(()))
        self.office = Office(settings, Clerk(self.group, lambda: self.now_ms), lambda: self.now_ms)

    async def write(self, ident: str, paper: AnyPaper) -> None:
        verdict = await self.office.clerk.change(Change(OP_PUT, key_of(paper, ident), value_of(paper)), NOTHING)
        assert verdict.position is not None, verdict

    async def found(self, *operations: str) -> None:
        await self.write("region-9", Tenant(title="Region 9"))
        await self.write("r", Right(who=WHO, operations=operations, under="88.118.9"))  # type: ignore[arg-type]

    async def put(self, text: str, need: Precondition = NOTHING, *, delete: bool = False) -> Code | None:
        name = named(text)
        key, spelling = self.office.key(name)
        change = delete_of(key) if delete else put_of(key, spelling, VALUES)
        try:
            need = self.office.admitted(await self.office.documents(), Caller(WHO), name, change, need)
        except ZaibeiError as exc:
            return exc.code
        verdict = await self.office.clerk.change(change, need)
        return None if verdict.position is not None else verdict.trouble.code if verdict.trouble else Code.UNKNOWN


async def test_who_may_only_create_replaces_nothing_at_apply_either() -> None:
    desk = Desk()
    await desk.found("create")
    assert await desk.put("88.118.9/a") is None
    assert await desk.put("88.118.9/a") is Code.CONFLICT
    assert await desk.put("88.118.9/a", PRESENT) is Code.NOT_AUTHORISED
    assert await desk.put("88.118.9/a", delete=True) is Code.NOT_AUTHORISED


async def test_who_may_only_modify_creates_nothing() -> None:
    desk = Desk()
    await desk.found("modify")
    assert await desk.put("88.118.9/a") is Code.CONFLICT
    assert await desk.put("88.118.9/a", ABSENT) is Code.NOT_AUTHORISED


@pytest.mark.parametrize("need", [NOTHING, ABSENT, PRESENT, EQUAL])
def test_all_rights_leave_the_precondition_as_it_was(need: Precondition) -> None:
    rows: list[tuple[str, AnyPaper]] = [
        ("region-9", Tenant(title="x")),
        ("r", Right(who=WHO, operations=("create", "modify"), under="88.118.9")),
    ]
    papers = papers_of((key_of(one, ident), value_of(one)) for ident, one in rows)
    assert put_need(put_rights(Caller(WHO), named("88.118.9/a"), papers, now_ms=0), need) == need
    assert isinstance(put_need(put_rights(Caller("1:a/b"), named("88.118.9/a"), papers, now_ms=0), need), Refusal)


async def test_a_revoked_right_is_gone_with_the_next_change() -> None:
    desk = Desk()
    await desk.found("create", "modify")
    assert await desk.put("88.118.9/a") is None
    await desk.write("r", Right(who=WHO, operations=("read",), under="88.118.9"))
    assert await desk.put("88.118.9/b") is Code.NOT_AUTHORISED


async def test_documents_written_by_another_leader_are_seen() -> None:
    desk, other = Desk(), Desk()
    other.group.content = desk.group.content
    await desk.found("create")
    assert await desk.put("88.118.9/a") is None
    await other.write("r", Right(who=WHO, operations=("read",), under="88.118.9"))
    assert await desk.put("88.118.9/b") is Code.NOT_AUTHORISED


async def test_a_suspended_tenant_is_refused_until_it_is_resumed() -> None:
    desk = Desk()
    await desk.found("create")
    await desk.write("region-9", Tenant(title="Region 9", suspended="unpaid"))
    assert await desk.put("88.118.9/a") is Code.REFUSED
    await desk.write("region-9", Tenant(title="Region 9"))
    assert await desk.put("88.118.9/a") is None


async def test_identifiers_never_exceed_their_quota_however_many_come_at_once() -> None:
    desk = Desk()
    await desk.found("create", "modify", "delete")
    await desk.write("tenant", Quota(identifiers=5))
    outcomes = await asyncio.gather(*(desk.put(f"88.118.9/{number}") for number in range(20)))
    assert outcomes.count(None) == 5 and outcomes.count(Code.OVER_QUOTA) == 15
    assert sum(key.startswith(PREFIX) for key in desk.group.content.records) == 5
    assert await desk.put("88.118.9/0") is None  # what is there may still be changed
    assert await desk.put("88.118.9/9", ABSENT) is Code.OVER_QUOTA
    assert await desk.put("88.118.9/1", delete=True) is None
    assert await desk.put("88.118.9/9") is None


async def test_a_rate_refuses_and_says_when_it_will_not() -> None:
    desk = Desk()
    await desk.found("create", "modify")
    await desk.write("tenant", Quota(registrations_per_s=2.0, burst_s=1.0))
    assert [await desk.put(f"88.118.9/{number}") for number in range(3)] == [None, None, Code.OVER_QUOTA]
    with pytest.raises(ZaibeiError, match="again after 500 ms") as caught:
        name = named("88.118.9/3")
        change = put_of(desk.office.key(name)[0], b"", VALUES)
        desk.office.admitted(await desk.office.documents(), Caller(WHO), name, change, NOTHING)
    assert caught.value.trouble.retry
    desk.now_ms += 500
    assert await desk.put("88.118.9/3") is None


async def test_a_document_that_says_nothing_is_not_written() -> None:
    desk = Desk()
    for key in (document_key("hosting.right", "x"), document_key("hosting.new", "x")):
        verdict = await desk.office.clerk.change(Change(OP_PUT, key, b"\x01{}"), NOTHING)
        assert verdict.trouble is not None and verdict.trouble.code is Code.MALFORMED
    assert not desk.group.content.records


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.floats(0.5, 50), st.floats(0.1, 3))
def test_a_bucket_gives_its_rate_and_its_word(gaps_ms: list[int], per_s: float, burst_s: float) -> None:
    bucket, now_ms, taken = Bucket(per_s, burst_s, 0), 0, 0
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        wait_ms = bucket.take(now_ms)
        assert wait_ms is not None
        if wait_ms:
            now_ms += wait_ms
            assert bucket.take(now_ms) == 0  # it said when
        taken += 1
    assert taken <= max(1.0, per_s * burst_s) + now_ms * per_s / 1_000 + 1e-6


def test_a_clock_set_back_gives_nothing_and_a_rate_of_nought_never_does() -> None:
    bucket = Bucket(1.0, 1.0, 1_000)
    assert bucket.take(1_000) == 0
    assert bucket.take(0) == 1_000
    assert Bucket(0.0, 1.0, 0).take(10_000) is None


def position(number: int, chain: bytes = b"c") -> Position:
    start = epoch_start(ORIGIN, b"L" * 16, 1)
    return Position(start.lineage, start.epoch, number, (chain * 32)[:32])


def test_documents_hold_over_our_own_batches_alone() -> None:
    follow = Follow()
    assert not follow.holds(position(0))
    follow.read(position(0))
    follow.cut(position(0), position(1), papers=False)
    follow.cut(position(1), position(2), papers=False)
    follow.cut(position(2), position(3), papers=True)
    assert follow.holds(position(2)) and follow.holds(position(2))
    assert not follow.holds(position(3))  # one of ours, with a document
    assert not follow.holds(position(2, b"x"))  # another's batch at that place
    assert not follow.holds(position(9))
