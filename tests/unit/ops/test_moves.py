"""A prefix moves over real desks and in-memory groups: the command dies at every call, and nobody ever misses an answer."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

import ops.cli.prefix
import ops.moves
from hosting.answer.port import MemoryAnswerPort
from hosting.handle.codes import code_of
from hosting.handle.edge_look import Looks
from hosting.tenant.memory import MemoryContent, MemoryGroup
from hosting.tenant.offices import Offices, OfficeSettings
from hosting.tenant.papers import Papers
from hosting.tenant.rights import Caller
from ops.cli.prefix import Mover
from ops.moves import MemberMoves
from replica import native
from replica.cluster.rules import apply_entry
from replica.cluster.state import ControlState, GroupRecord, Placement
from replica.member.moves import move_of_record
from replica.model.batch import OP_PUT, Change, open_batch
from replica.model.catalog import Catalog
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.codes import ResponseCode
from replica.model.identifier import Identifier, PrefixTree, prefix_key, prefix_part
from replica.model.identity import Pins
from replica.model.ladder_values import Moved
from replica.model.move_rules import fenced, take_move
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.precondition import NOTHING, Precondition
from replica.model.prefix_moves import PrefixMove, where_moved
from replica.v1 import entry_pb2

OLD, NEW, PREFIX = "region-9", "region-5", "88.118.9.5"
INSIDE = {Identifier.parse(f"88.118.9.5.{n % 3}/n{n}").key(): b"v%d" % n for n in range(40)}
ROUTE = {Identifier.parse("88.118.9.5.1").key(): b"route"}
BESIDE = {Identifier.parse("88.118.9/own").key(): b"own", Identifier.parse("88.118.9.5").key(): b"its own record"}
CHANGES = ("move_step", "move_record", "move_take", "move_acquire")
COMMANDS_MAX = 60


class Content(MemoryContent):
    """With the rules of apply about moves."""

    group: MovingGroup

    def apply(self, entry: entry_pb2.Entry) -> Outcome:
        state = self.group.state()
        if entry.WhichOneof("body") == "prefix_move":
            judged = take_move(state, entry.prefix_move, self.position)
            if not isinstance(judged, Moved):
                return Outcome(judged.kind, self.position, judged.why)
            self.group.change_state(**{name: getattr(judged.group, name) for name in
                                       ("moves", "prefixes", "case_sensitive", "ownership_version")})  # fmt: skip
            return Outcome(OutcomeKind.APPLIED, self.position)
        keys, _, kinds = native.split(open_batch(entry.registration.batch).columns)
        needs = [Precondition.from_wire(one) for one in entry.registration.preconditions]
        if why := fenced(state, keys, kinds, needs):
            return Outcome(OutcomeKind.FENCED, self.position, why)
        return super().apply(entry)


class MovingGroup(MemoryGroup):
    def __init__(self, source: str, prefix: str) -> None:
        super().__init__(source, [prefix_key(prefix)])
        content = Content(self.content.position)
        content.group = self
        self.content = content


class Control:
    """The control group: its rules over a value."""

    def __init__(self) -> None:
        groups = tuple(GroupRecord(n + 2, name, (1,), Placement((1,))) for n, name in enumerate((OLD, NEW)))
        self.state = ControlState(cluster=bytes(16), groups=groups)

    async def propose(self, _ident: int, entry: entry_pb2.Entry) -> Any:
        self.state, outcome = apply_entry(self.state, entry.control)
        return SimpleNamespace(outcome=outcome)


class Member:
    """What MemberMoves reads of a member."""

    def __init__(self, groups: dict[str, MovingGroup], life: Control | None) -> None:
        self.groups, self.life = groups, life
        self.copies = {name: SimpleNamespace(store=SimpleNamespace(state=one.state)) for name, one in groups.items()}

    def recorded_moves(self) -> tuple[PrefixMove, ...]:
        return () if self.life is None else tuple(map(move_of_record, self.life.state.moved))

    def owner_of(self, prefix: bytes) -> str | None:
        owners = PrefixTree({prefix_key("88.118.9"): OLD, prefix_key("88.118.5"): NEW})
        states = {name: one.state().moves for name, one in self.groups.items()}
        for moved, source in where_moved(states, frozenset(states), self.recorded_moves()).items():
            owners.put(moved, source)
        found = owners.longest(prefix)
        return None if found is None else found[1]


class Crash(Exception):
    """The command dies."""


class Place(MemberMoves):
    """Both groups at one member, and a command that dies at a given change: before it, or after it was carried out."""

    def __init__(self, *, alone: bool) -> None:
        self.groups = {OLD: MovingGroup(OLD, "88.118.9"), NEW: MovingGroup(NEW, "88.118.5")}
        self.groups[OLD].content.records = {**INSIDE, **ROUTE, **BESIDE}
        self._member: Any = Member(self.groups, None if alone else Control())
        settings = [OfficeSettings(name, one.state().prefixes, Pins(())) for name, one in self.groups.items()]
        self._offices = Offices(
            settings, lambda name: self.groups[name], lambda: time.time_ns() // 1_000_000, owner_of=self._member.owner_of
        )
        self.loop, self.dies_at, self.count = asyncio.get_running_loop(), 0, 0
        self.seen: list[str] = []

    def looked_up(self) -> None:
        """What a client would be answered now: everything, always."""
        for key, value in (INSIDE | BESIDE).items():
            owner = self._member.owner_of(key.partition(b"\0")[0].removeprefix(b"p"))
            if key in INSIDE:
                assert self.groups[owner].content.records.get(key) == value, (self.seen, key)
        assert BESIDE.items() <= self.groups[OLD].content.records.items()

    async def asked(self, name: str, *args: Any) -> Any:
        changes = name in CHANGES
        self.count += changes
        if changes and self.count == self.dies_at:
            raise Crash
        try:
            return await getattr(MemberMoves, name)(self, *args)
        finally:
            self.seen.append(f"{name} {args[:6]}")
            self.looked_up()
            if changes and self.count == -self.dies_at:
                raise Crash


class Admin:
    """The admin client, from another thread."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def __getattr__(self, name: str) -> Any:
        return lambda *args: asyncio.run_coroutine_threadsafe(self._place.asked(name, *args), self._place.loop).result()


async def command(place: Place, token: str) -> tuple[int, int]:
    mover = Mover(Admin(place), PREFIX, OLD, NEW, token, "li", "why", time.monotonic() + 20)  # type: ignore[arg-type]
    return await asyncio.to_thread(mover.run, lambda text: None, lambda progress: None)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.moves, "DROP_AFTER_MS", 0)
    monkeypatch.setattr(ops.moves, "PAGE_ROWS_MAX", 7)
    monkeypatch.setattr(ops.cli.prefix, "AGAIN_S", 0.001)


def check(place: Place) -> None:
    old, new = place.groups[OLD].content.records, place.groups[NEW].content.records
    assert new == {**INSIDE, **ROUTE} and old == BESIDE, "all there once, what is beside untouched"
    assert place._member.owner_of(prefix_key(PREFIX)) == NEW


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("after", [False, True])
async def test_the_command_dies_at_every_change_and_the_next_one_goes_on(alone: bool, after: bool) -> None:
    ended = 0
    for dies_at in range(1, COMMANDS_MAX):
        place = Place(alone=alone)
        token = (await place.move_plan(OLD, PREFIX, NEW))["token"]
        place.dies_at = -dies_at if after else dies_at
        try:
            await command(place, token)
        except Crash:
            ended += 1
        else:
            check(place)
            break
        place.dies_at = 0
        await command(place, token)
        check(place)
    assert ended >= (8 if alone else 10), "it died at each of its changes"


async def test_it_dies_again_and_again_in_one_move() -> None:
    place = Place(alone=False)
    token = (await place.move_plan(OLD, PREFIX, NEW))["token"]
    for tries in range(1, COMMANDS_MAX):
        place.count, place.dies_at = 0, -tries
        try:
            await command(place, token)
            break
        except Crash:
            continue
    check(place)
    assert (await place.move_list(PREFIX))["owner"] == NEW


async def test_registrations_wait_at_the_old_one_and_go_on_at_the_new_one() -> None:
    place = Place(alone=True)
    token = (await place.move_plan(OLD, PREFIX, NEW))["token"]
    office, key = place._offices.office_of(OLD), next(iter(INSIDE))
    office._settled(prefix_part(key))
    looks = Looks(place._offices, MemoryAnswerPort(Catalog(), {}))
    for step in ("freeze", "release"):
        await place.move_step(OLD, PREFIX, NEW, token, step, "li", "why")
        with pytest.raises(ZaibeiError) as caught:
            office._settled(prefix_part(key))
        assert caught.value.code is Code.FENCED and caught.value.trouble.retry
        with pytest.raises(ZaibeiError, match="moves from"):
            office.lot_admitted(Papers(), Caller("li", registrar=True), prefix_part(key), [])
        assert code_of(caught.value.trouble) == ResponseCode.SERVER_BACKUP, "7 over the Handle protocol"
        assert looks.office(prefix_key(PREFIX)) is office, "and reads of administrators go on there"
        verdict = await office.clerk.change(Change(OP_PUT, key, b"late"), NOTHING)
        assert verdict.trouble is not None and verdict.trouble.definite, "and nothing of it at apply"
    await command(place, token)
    check(place)
    assert looks.office(prefix_key(PREFIX)).source == NEW and looks.office(prefix_key("88.118.9.6")).source == OLD
    place._offices.office_of(NEW)._settled(prefix_part(key))
    verdict = await place._offices.office_of(NEW).clerk.change(Change(OP_PUT, key, b"new"), NOTHING)
    assert verdict.position is not None and place.groups[NEW].content.records[key] == b"new"


async def test_what_differs_is_not_acquired_and_nothing_is_dropped_before_it_is() -> None:
    place = Place(alone=True)
    token = (await place.move_plan(OLD, PREFIX, NEW))["token"]
    for step in ("freeze", "release"):
        await place.move_step(OLD, PREFIX, NEW, token, step, "li", "why")
    with pytest.raises(ZaibeiError, match="nothing is dropped"):
        await place.move_step(OLD, PREFIX, NEW, token, "drop", "li", "why")
    page = await place.move_page(OLD, token, "")
    await place.move_take(NEW, token, page["rows"])
    with pytest.raises(ZaibeiError, match="digests differ"):
        await place.move_acquire(NEW, token)
    with pytest.raises(ZaibeiError, match="not below"):
        await place.move_take(NEW, token, [[key.hex(), "00"] for key in BESIDE])
    assert await command(place, token) == (41 - len(page["rows"]), 41)
    check(place)


async def test_old_content_stays_until_every_member_can_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.moves, "DROP_AFTER_MS", 60_000)
    place = Place(alone=False)
    token = (await place.move_plan(OLD, PREFIX, NEW))["token"]
    mover = Mover(Admin(place), PREFIX, OLD, NEW, token, "li", "why", time.monotonic() + 0.3)  # type: ignore[arg-type]
    with pytest.raises(ZaibeiError, match="may still read here"):
        await asyncio.to_thread(mover.run, lambda text: None, lambda progress: None)
    assert INSIDE.items() <= place.groups[OLD].content.records.items()


async def test_plans() -> None:
    place = Place(alone=True)
    plan = await place.move_plan(OLD, PREFIX, NEW)
    assert not plan["begun"] and PREFIX in plan["text"]
    with pytest.raises(ZaibeiError, match="not as that plan saw it"):
        await place.move_step(OLD, PREFIX, NEW, "0" * 16, "freeze", "li", "why")
    await place.move_step(OLD, PREFIX, NEW, plan["token"], "freeze", "li", "why")
    again = await place.move_plan(OLD, PREFIX, NEW)
    assert again["begun"] and again["token"] == plan["token"]
    with pytest.raises(ZaibeiError, match="no source"):
        await place.move_plan(OLD, PREFIX, "region-1")
    await place.move_step(OLD, PREFIX, NEW, plan["token"], "cancel", "li", "why")
    fresh = await place.move_plan(OLD, PREFIX, NEW)
    assert fresh["token"] != plan["token"]
    with pytest.raises(ZaibeiError, match="does not own"):
        await place.move_plan(NEW, PREFIX, OLD)


async def test_there_and_back_again() -> None:
    place = Place(alone=False)
    await command(place, (await place.move_plan(OLD, PREFIX, NEW))["token"])
    token = (await place.move_plan(NEW, PREFIX, OLD))["token"]
    mover = Mover(Admin(place), PREFIX, NEW, OLD, token, "li", "why", time.monotonic() + 20)  # type: ignore[arg-type]
    await asyncio.to_thread(mover.run, lambda text: None, lambda progress: None)
    assert place.groups[OLD].content.records == {**INSIDE, **ROUTE, **BESIDE} and not place.groups[NEW].content.records
    rows = (await place.move_list(PREFIX))["moves"]
    assert {(row["number"], row["step"]) for row in rows if row["group"] != "control"} == {
        (1, "DROPPED"), (1, "ACQUIRED"), (2, "DROPPED"), (2, "ACQUIRED")
    }  # fmt: skip
