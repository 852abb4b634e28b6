"""The desk of orders to block: which groups, whose signature, and what happens when the world changed meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ops.cli.block import until_ms
from ops.operators.approval import approve
from ops.operators.blocks import BlockDesk, Wish
from ops.operators.book import Book
from replica.model.block_rules import take_block
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import prefix_key
from replica.model.ladder_values import Moved
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.signing import Signer, verify
from replica.v1 import entry_pb2

LI, TOP, EVE = (Signer(Ed25519PrivateKey.generate()) for _ in range(3))
NOW = 1_000_000
OWNED = {"top": ("88",), "gd": ("88.118",), "gd-works": ("88.118.8",), "gx": ("88.119",), "away": ("88.200",)}


@dataclass
class Group:
    """A group that carries out at once, by the rules of apply."""

    now: GroupState
    trouble: ZaibeiError | None = None
    entries: list[entry_pb2.Entry] = field(default_factory=list)

    def state(self) -> GroupState:
        return self.now

    async def carry_out(self, entry: entry_pb2.Entry) -> Outcome:
        if self.trouble is not None:
            raise self.trouble
        judged = take_block(self.now, entry.block)
        if not isinstance(judged, Moved):
            return Outcome(judged.kind, None, judged.why)
        self.now = judged.group
        self.entries.append(entry)
        return Outcome(OutcomeKind.APPLIED)


class Desk:
    def __init__(self) -> None:
        self.groups = {name: Group(GroupState(name)) for name in OWNED if name != "away"}
        self.owned = {name: tuple(map(prefix_key, prefixes)) for name, prefixes in OWNED.items()}
        self.now_ms = NOW
        signers = {"li.wei": LI.public, "beijing": TOP.public}
        self.desk = BlockDesk(lambda: self.groups, lambda: self.owned, signers, Book(), lambda _: None, lambda: self.now_ms)

    def plan(self, *identifiers: str, prefixes: tuple[str, ...] = (), number: int = 17, **fields: Any) -> dict[str, Any]:
        wish = Wish(identifiers, prefixes, number, NOW + 60_000, "decision 17")
        return self.desk.plan(replace(wish, **fields))

    async def run(self, plan: dict[str, Any], name: str = "li.wei", signer: Signer = LI) -> dict[str, Any]:
        return await self.desk.run(approve(name, signer, plan["text"]))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def refused(desk: Desk, *identifiers: str, **fields: Any) -> Code:
    with pytest.raises(ZaibeiError) as caught:
        desk.plan(*identifiers, **fields)
    return caught.value.code


async def code_of_run(desk: Desk, plan: dict[str, Any], name: str = "li.wei", signer: Signer = LI) -> Code:
    with pytest.raises(ZaibeiError) as caught:
        await desk.run(plan, name, signer)
    return caught.value.code


def test_it_goes_to_every_group_that_could_answer(desk: Desk) -> None:
    assert desk.plan("88.118.8/x")["sources"] == ["gd-works"]
    assert desk.plan("88.118.7/x", "88.119/y")["sources"] == ["gd", "gx"]
    assert desk.plan("0.NA/88.118")["sources"] == ["gd", "top"]
    assert desk.plan(prefixes=("88.118",))["sources"] == ["gd", "gd-works", "top"], "its record, itself, and what lies below"
    assert desk.plan(prefixes=("88.118.8.1",))["sources"] == ["gd-works"]
    assert desk.plan(prefixes=("88",))["sources"] == sorted(OWNED), "what is away is named too, and the run says so"
    assert refused(desk, "99.1/x") is Code.NOT_OWNER and refused(desk, prefixes=("99",)) is Code.NOT_OWNER


def test_bad_wishes(desk: Desk) -> None:
    for fields in (
        {"number": 0},
        {"number": 2**60},
        {"reason": " "},
        {"reason": "two\nlines"},
        {"reason": "x" * 501},
        {"identifiers": ()},
        {"identifiers": ("88..1/x",)},
        {"identifiers": ("88.118.8/a\u202eb",)},
        {"identifiers": tuple(f"88.118/{one}" for one in range(65))},
        {"prefixes": ("oid:x",)},
    ):
        assert refused(desk, "88.118.8/x", **({"identifiers": ("88.118.8/x",)} | fields)) is Code.MALFORMED, fields  # type: ignore[arg-type]
    for until in (0, NOW, NOW + 401 * 86_400_000):
        assert refused(desk, "88.118.8/x", until_ms=until) is Code.REFUSED
    assert until_ms("1970-01-02") == 86_400_000 and until_ms("1970-01-01T00:01Z") == 60_000
    with pytest.raises(ZaibeiError):
        until_ms("tomorrow")


async def test_an_order_is_carried_out_listed_and_lifted(desk: Desk) -> None:
    plan = desk.plan("88.118.8/x", prefixes=("88.119",))
    assert plan["act"] == "block" and "number 17\nidentifier 88.118.8/x\nprefix 88.119\n" in plan["text"]
    assert plan["signers"] == ["beijing", "li.wei"] and desk.desk.in_force() == []
    done = await desk.run(plan)
    assert (done["order"], done["sources"]) == ("li.wei/17", ["gd-works", "gx", "top"])
    assert (await desk.run(plan))["sources"] == ["gd-works", "gx", "top"] and len(desk.groups["gx"].entries) == 1
    entry = desk.groups["gx"].entries[0].block
    assert verify(LI.public, approve_octets(plan["text"]), entry.approval.signature) and entry.plan == plan["text"]
    (row,) = desk.desk.in_force()
    assert (row["order"], row["identifiers"], row["prefixes"], row["sources"]) == (
        "li.wei/17", ["88.118.8/x"], ["88.119"], ["gd-works", "gx", "top"])  # fmt: skip
    assert desk.desk.in_force("gd") == []
    lift = desk.plan(lifts="li.wei/17", reason="appeal upheld")
    assert lift["act"] == "lift" and lift["sources"] == ["gd-works", "gx", "top"]
    await desk.run(lift, "beijing", TOP)
    assert desk.desk.in_force() == [] and refused(desk, lifts="li.wei/17") is Code.NOT_FOUND
    assert await code_of_run(desk, plan) is Code.CONFLICT, "a lifted order cannot be run again"


def approve_octets(text: str) -> bytes:
    from replica.feed.decision import approval_octets

    return approval_octets(text)


async def test_only_whose_orders_count(desk: Desk) -> None:
    plan = desk.plan("88.118.8/x")
    assert await code_of_run(desk, plan, "eve", EVE) is Code.NOT_AUTHORISED
    assert await code_of_run(desk, plan, "li.wei", EVE) is Code.NOT_AUTHORISED
    other = desk.plan("88.118.8/y", number=18)
    forged = replace(approve("li.wei", LI, plan["text"]), token=other["token"])
    with pytest.raises(ZaibeiError) as caught:
        await desk.desk.run(forged)
    assert caught.value.code is Code.NOT_AUTHORISED
    assert all(not group.entries for group in desk.groups.values())


async def test_a_world_that_changed(desk: Desk) -> None:
    plan = desk.plan(prefixes=("88.118",))
    desk.owned["new"] = (prefix_key("88.118.55"),)
    assert await code_of_run(desk, plan) is Code.REFUSED
    del desk.owned["new"]
    desk.now_ms += 60_000
    assert await code_of_run(desk, plan) is Code.REFUSED, "its deadline passed"
    with pytest.raises(ZaibeiError) as caught:
        desk.desk.plan_of("0" * 16)
    assert caught.value.code is Code.NOT_FOUND
    desk.now_ms = NOW
    await desk.run(plan)
    desk.now_ms += 60_000
    assert desk.desk.in_force() == [], "what ended by itself is not in force"


async def test_what_is_missing_is_carried_out_by_running_it_again(desk: Desk) -> None:
    plan = desk.plan(prefixes=("88.118",))
    desk.groups["gd-works"].trouble = ZaibeiError(Code.UNREACHABLE, "it is led by m2", retry=True)
    with pytest.raises(ZaibeiError) as caught:
        await desk.run(plan)
    assert caught.value.code is Code.UNREACHABLE and "carried out in gd: run it again" in caught.value.trouble.message
    desk.groups["gd-works"].trouble = None
    assert (await desk.run(plan))["sources"] == ["gd", "gd-works", "top"]
    assert [len(desk.groups[name].entries) for name in ("gd", "gd-works", "top")] == [1, 1, 1]
    away = desk.plan(prefixes=("88.200",), number=18)
    with pytest.raises(ZaibeiError) as caught:
        await desk.run(away)
    assert caught.value.code is Code.UNREACHABLE and "away is not in service" in caught.value.trouble.message
