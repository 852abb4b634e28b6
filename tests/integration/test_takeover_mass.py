"""Forty sources lost at once, taken over as one act by two people: over memory ports, with real time and real runners."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ops.operators.approval import approve
from ops.operators.book import Book
from ops.operators.mass_plan import Scope
from ops.operators.masses import MassDesk
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import Hold
from replica.model.ladder import Stage
from replica.model.node import Endpoint
from replica.model.signing import Signer
from replica.model.states import Authority
from replica.takeover.detector import DetectorLimits
from replica.takeover.edge_ladder import LadderSettings
from replica.takeover.edge_runner import RunnerConfig, TakeoverRunner, boottime_ns
from replica.takeover.ladder import LadderPolicy
from replica.takeover.machine import Policy
from replica.takeover.ports import Heard, MemorySource
from tests.integration.test_takeover_ladder import READY
from tests.integration.test_takeover_runner import Node, wait_until
from tests.unit.takeover.test_machine import OWN, P1

LI, WANG, OURS = (Signer(Ed25519PrivateKey.generate()) for _ in range(3))
OPERATORS = {"li.wei": LI.public, "wang.fang": WANG.public}
NAMES = [f"node-{number:02}" for number in range(40)]
BOTH, RESOLUTION = Scope(registration=True), Scope(registration=False)
REASON = "the hall in Yichang burns"


class Place:
    """Where forty nodes stood."""

    def __init__(self) -> None:
        self.node = Node()
        self.node.alive = False
        self.sources = {name: self._source(name) for name in NAMES}
        limits = DetectorLimits(tick_ns=100_000_000, late_ns_max=60_000_000_000)  # a busy machine's lateness is not tested here
        ladder = LadderSettings(holder="ours", signer=OURS, policy=LadderPolicy(publish_wait_ms=100))
        config = RunnerConfig(OWN, policy=Policy(automatic=False), limits=limits, ladder=ladder)
        self.runners = {name: TakeoverRunner(source, config, [], self.node.probe) for name, source in self.sources.items()}
        self.book = Book()
        self.desk = self.other_desk()

    @staticmethod
    def _source(name: str) -> MemorySource:
        where = (Endpoint("tcp", "127.0.0.1", 1),)
        return MemorySource(replace(READY, source=name), age=500, where=where, words=Heard(0, 60_000))

    def other_desk(self, book: Book | None = None) -> MassDesk:
        return MassDesk(lambda: self.runners, OPERATORS, book or self.book, lambda _: None)

    def sign(self, token: str, *who: tuple[str, Signer]) -> None:
        for name, signer in who or (("li.wei", LI), ("wang.fang", WANG)):
            self.desk.sign(approve(name, signer, str(self.desk.plan_of(token)["text"])))

    def planned(self, names: Sequence[str] = (), scope: Scope = BOTH) -> str:
        return str(self.desk.plan(names, False, scope)["token"])

    def stages(self) -> set[Stage]:
        return {source.current.ladder.stage for source in self.sources.values()}

    def dead(self) -> list[str]:
        rows = (runner.status(boottime_ns()) for runner in self.runners.values())
        return [str(row["source"]) for row in rows if row["verdict"] == "dead"]

    def begun(self, name: str) -> int:
        """How many acts began at a source."""
        return sum(entry.ladder.stage == int(Stage.PROPOSED) for entry in self.sources[name].entries)


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr("replica.takeover.edge_ladder.RUN_S_MAX", 40.0)
    monkeypatch.setattr("replica.takeover.edge_runner.ORDER_S_MAX", 40.0)
    place = Place()
    for runner in place.runners.values():
        await runner.start()
    yield place
    for runner in place.runners.values():
        await runner.stop()


async def test_all_are_taken_over_by_one_token_and_again_nothing_is_done_twice(place: Place) -> None:
    held = place.sources[NAMES[7]]
    held.current = replace(held.current, hold=Hold("h", held.current.position, "removes 90 %", b"x", 0, 1))
    plan = place.desk.plan([], False, BOTH)
    assert [row["source"] for row in plan["sources"]] == NAMES
    [out] = [row for row in plan["sources"] if not row["takes"]]
    assert out["source"] == NAMES[7] and "something is held" in out["why_not"] and NAMES[7] not in plan["text"]
    token = str(plan["token"])
    place.sign(token)
    done = await place.desk.run(token, REASON)
    assert (done["done"], done["done_before"], done["refused"], done["unknown"]) == (39, 0, 0, 0)
    taken = [name for name in NAMES if name != NAMES[7]]
    await wait_until(lambda: all(place.sources[name].current.ladder.stage is Stage.SERVING for name in taken))
    again = await place.desk.run(token, REASON)
    assert (again["done"], again["done_before"]) == (0, 39)
    assert {place.begun(name) for name in taken} == {1} and place.begun(NAMES[7]) == 0
    state = place.sources[NAMES[0]].current
    assert (state.authority, state.ladder.plan, state.ladder.approvals) == (
        Authority.REGISTRATION,
        plan["text"],
        ("li.wei", "wang.fang"),
    )


async def test_what_cannot_be_done_is_told_and_the_same_token_does_the_rest_later(place: Place) -> None:
    names = NAMES[:5]
    token = place.planned(names)
    place.sign(token)
    changed, behind, elsewhere = (place.sources[name] for name in names[:3])
    changed.current = replace(changed.current, prefixes=(P1,))
    behind.words, elsewhere.leading = Heard(17, 60_000), False
    done = {row["source"]: row for row in (await place.desk.run(token, REASON))["sources"]}
    assert [done[name]["outcome"] for name in names] == ["refused", "refused", "refused", "done", "done"]
    assert "not what it was" in done[names[0]]["why"] and "17 changes behind" in done[names[1]]["why"]
    assert "does not lead" in done[names[2]]["why"]
    behind.words, elsewhere.leading = Heard(0, 60_000), True
    again = {row["source"]: row["outcome"] for row in (await place.desk.run(token, REASON))["sources"]}
    assert [again[name] for name in names] == ["refused", "done", "done", "done_before", "done_before"]
    assert [place.begun(name) for name in names] == [0, 1, 1, 1, 1]


async def test_one_signature_is_not_enough_and_nothing_is_done_anywhere(place: Place) -> None:
    token = place.planned()
    place.sign(token, ("li.wei", LI))
    with pytest.raises(ZaibeiError, match="two people must approve") as refused:
        await place.desk.run(token, REASON)
    assert refused.value.code is Code.NOT_AUTHORISED
    with pytest.raises(ZaibeiError, match=r"not a signature of 'wang\.fang'"):
        place.sign(token, ("wang.fang", LI))
    assert not any(source.current.ladder.act for source in place.sources.values())


async def test_resolution_alone_needs_no_signature(place: Place) -> None:
    token = place.planned(NAMES[:3], RESOLUTION)
    by_itself = place.sources[NAMES[0]]
    by_itself.current = replace(by_itself.current, authority=Authority.RESOLUTION, authority_act="auto:node-00:4")
    done = await place.desk.run(token, REASON)
    assert [row["outcome"] for row in done["sources"]] == ["done_before", "done", "done"]
    state = place.sources[NAMES[1]].current
    assert state.authority is Authority.RESOLUTION and state.authority_act.endswith(f":{token}")
    assert [row["outcome"] for row in (await place.desk.run(token, REASON))["sources"]] == ["done_before"] * 3
    assert place.stages() <= {Stage.NORMAL, Stage.SUSPECT, Stage.THRESHOLD}


async def test_the_same_names_make_the_same_token_at_a_member_that_leads_none_of_them(place: Place) -> None:
    token = place.planned(NAMES[:4])
    for name in NAMES[:4]:
        place.sources[name].leading, place.sources[name].words = False, Heard()
    other = place.other_desk(Book())
    plan = other.plan(NAMES[:4], False, BOTH)
    assert plan["token"] == token
    assert all(row["takes"] and "does not lead" in row["why_not"] for row in plan["sources"])


async def test_who_is_meant_is_said_by_name_or_found_dead(place: Place) -> None:
    with pytest.raises(ZaibeiError, match="no source node-99 is in service here"):
        place.desk.plan(["node-01", "node-99"], False, BOTH)
    with pytest.raises(ZaibeiError, match="cannot be accepted"):
        place.desk.plan([], False, Scope(True, -1))
    await wait_until(lambda: len(place.dead()) == len(NAMES))
    assert len(place.desk.plan([], True, RESOLUTION)["sources"]) == len(NAMES)
    place.node.alive = True
    await wait_until(lambda: not place.dead())
    with pytest.raises(ZaibeiError, match="none is found dead"):
        place.desk.plan([], True, RESOLUTION)
