"""Taking over registrations as an operator does, over memory ports with real time: plan, two signatures, run, serving."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ops.operators.approval import approve
from ops.operators.book import Book
from ops.operators.takeovers import TakeoverDesk
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.ladder import OrderKind, Stage
from replica.model.ladder_rules import registrations_refused
from replica.model.node import Endpoint
from replica.model.position import ORIGIN, epoch_start
from replica.model.signing import Signer
from replica.model.states import Authority
from replica.takeover import edge_ladder
from replica.takeover.edge_ladder import LadderSettings
from replica.takeover.edge_runner import RunnerConfig, TakeoverRunner
from replica.takeover.ladder import LadderPolicy
from replica.takeover.ladder_plan import Accepting, climb_of
from replica.takeover.orders import sign
from replica.takeover.ports import Heard, MemorySource
from replica.takeover.publish import MemoryPublisher
from replica.takeover.threshold import ThresholdLimits
from replica.v1 import entry_pb2
from tests.integration.test_takeover_runner import Node, wait_until
from tests.unit.takeover.test_machine import OWN, P1, P2

LI, WANG, EVE, TOP, OURS = (Signer(Ed25519PrivateKey.generate()) for _ in range(5))
START = epoch_start(ORIGIN, b"L" * 16, 1)
READY = GroupState("s", ready=True, verified=True, prefixes=(P1, P2), granted=START, grant_taken=True, position=START, records=7)
REASON = "its hall burnt down, its operator called"


class Rig:
    """A source that is dead from the beginning, its runner, and two operators at a desk."""

    def __init__(self) -> None:
        self.node = Node()
        self.node.alive = False
        self.source = MemorySource(READY, age=500, where=(Endpoint("tcp", "127.0.0.1", 1),), words=Heard(0, 60_000))
        self.publisher = MemoryPublisher()
        ladder = LadderSettings(
            holder="ours",
            signer=OURS,
            issuers={"beijing": TOP.public},
            policy=LadderPolicy(publish_wait_ms=300),
            limits=ThresholdLimits(time_ms=1_000, windows=4),
        )
        config = RunnerConfig(OWN, machine="here", ladder=ladder)
        self.runner = TakeoverRunner(self.source, config, [self.publisher], self.node.probe)
        self.book, self.saved = Book(), 0
        operators = {"li.wei": LI.public, "wang.fang": WANG.public}
        self.desk = TakeoverDesk(lambda: {"s": self.runner}, operators, self.book, self._save)

    def _save(self, _: Book) -> None:
        self.saved += 1

    @property
    def stage(self) -> Stage:
        return self.source.current.ladder.stage

    def plan(self, loss: int = 0, unknown: bool = False, glass: bool = False) -> str:
        return str(self.desk.plan("s", loss, unknown, glass)["token"])

    def sign(self, token: str, name: str, signer: Signer) -> None:
        self.desk.sign(approve(name, signer, str(self.desk.plan_of(token)["text"])))

    def order(self, kind: OrderKind, number: int, findings: entry_pb2.Findings | None = None) -> str:
        from time import time_ns

        now_ms = time_ns() // 1_000_000
        made = entry_pb2.Order(
            kind=entry_pb2.Order.Kind.ValueType(int(kind)), number=number, source="s", function=entry_pb2.FUNCTION_REGISTRATION,
            issued_ms=now_ms, until_ms=now_ms + 60_000, findings=findings,
        )  # fmt: skip
        return sign(made, TOP).SerializeToString().hex()

    def lease(self, duration_ms: int) -> None:
        self.source.propose(entry_pb2.Entry(lease=entry_pb2.LeaseRenewal(epoch=1, duration_ms=duration_ms)))


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    await rig.runner.start()
    yield rig
    await rig.runner.stop()


async def test_two_people_take_over_and_registrations_are_served(rig: Rig) -> None:
    token = rig.plan()
    rig.sign(token, "li.wei", LI)
    rig.sign(token, "wang.fang", WANG)
    done = await rig.desk.run("s", token, REASON)
    assert done["changed"] is True
    await wait_until(lambda: rig.stage is Stage.SERVING)
    state = rig.source.current
    assert (state.authority, registrations_refused(state)) == (Authority.REGISTRATION, None)
    assert len(rig.publisher.stands["88.118.8"].sites) == 1
    assert rig.publisher.stands["88.118.8"].sites[0][6] & 0x80
    again = await rig.desk.run("s", token, REASON)
    assert again["changed"] is False
    status = rig.runner.status(0)["ladder"]
    assert isinstance(status, dict)
    assert (status["stage"], status["approvals"]) == ("SERVING", ["li.wei", "wang.fang"])


async def test_a_run_whose_leader_died_between_proposal_and_approval_is_run_again(rig: Rig) -> None:
    token, ladder = rig.plan(), rig.runner.ladder
    assert ladder is not None
    ladder.machine.climb = climb_of(rig.source.current, Accepting(), REASON, ())
    await wait_until(lambda: rig.stage is Stage.PROPOSED)
    ladder.machine.climb = None
    rig.sign(token, "li.wei", LI)
    rig.sign(token, "wang.fang", WANG)
    assert (await rig.desk.run("s", token, REASON))["changed"] is True
    await wait_until(lambda: rig.stage is Stage.SERVING)


async def test_one_signature_is_not_enough_and_changes_nothing(rig: Rig) -> None:
    token = rig.plan()
    rig.sign(token, "li.wei", LI)
    before = rig.source.current.ladder
    with pytest.raises(ZaibeiError, match=r"two people must approve this very act") as refused:
        await rig.desk.run("s", token, REASON)
    assert refused.value.code is Code.NOT_AUTHORISED
    assert rig.source.current.ladder.act == before.act == ""


async def test_a_forged_signature_and_a_plan_of_another_world_are_refused(rig: Rig) -> None:
    token = rig.plan()
    with pytest.raises(ZaibeiError, match=r"not a signature of 'li.wei'"):
        rig.sign(token, "li.wei", EVE)
    rig.sign(token, "li.wei", LI)
    rig.sign(token, "wang.fang", WANG)
    rig.source.current = replace(rig.source.current, prefixes=(P1,))
    with pytest.raises(ZaibeiError, match=r"is not what it was when it was planned") as refused:
        await rig.desk.run("s", token, REASON)
    assert refused.value.code is Code.REFUSED


async def test_a_copy_behind_is_refused_with_the_number_until_somebody_accepts_it(rig: Rig) -> None:
    rig.source.words = Heard(17, 60_000)
    token = rig.plan()
    rig.sign(token, "li.wei", LI)
    rig.sign(token, "wang.fang", WANG)
    with pytest.raises(ZaibeiError, match=r"17 changes behind the source: accepted is a loss of 0"):
        await rig.desk.run("s", token, REASON)
    token = rig.plan(loss=17)
    rig.sign(token, "li.wei", LI)
    rig.sign(token, "wang.fang", WANG)
    await rig.desk.run("s", token, REASON)
    assert rig.source.current.ladder.behind == 17
    assert "accepts a loss of at most 17 changes" in rig.source.current.ladder.plan


async def test_the_lease_is_waited_for_and_an_abort_ends_the_wait(rig: Rig) -> None:
    rig.lease(30_000)
    token = rig.plan()
    rig.sign(token, "li.wei", LI)
    rig.sign(token, "wang.fang", WANG)
    await rig.desk.run("s", token, REASON)
    await asyncio.sleep(0.3)
    assert rig.stage is Stage.APPROVED
    status = rig.runner.status(0)["ladder"]
    assert isinstance(status, dict) and status["waits_for"].startswith("the source's lease, 3")
    await rig.desk.abort("s", "a false alarm")
    assert rig.stage is Stage.NORMAL
    with pytest.raises(ZaibeiError, match=r"no act is under way"):
        await rig.desk.abort("s", "again")


async def test_a_short_lease_runs_out_and_the_way_goes_on_by_itself(rig: Rig) -> None:
    rig.lease(1_000)
    token = rig.plan()
    rig.sign(token, "li.wei", LI)
    rig.sign(token, "wang.fang", WANG)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await rig.desk.run("s", token, REASON)
    await wait_until(lambda: rig.stage is Stage.SERVING)
    assert loop.time() - began >= 2.0, "1 s, a tenth of it, and 1 s more, less what had passed"


async def test_break_glass_owes_a_review_by_somebody_else(rig: Rig) -> None:
    token = rig.plan(glass=True)
    rig.sign(token, "li.wei", LI)
    await rig.desk.run("s", token, REASON)
    await wait_until(lambda: rig.stage is Stage.SERVING)
    await wait_until(lambda: any("its review is owed" in text for text in rig.runner.alarms))
    text = str(rig.desk.review_text("s", "it was right")["text"])
    with pytest.raises(ZaibeiError, match="conflict"):
        await rig.desk.review("s", "it was right", approve("li.wei", LI, text))
    await rig.desk.review("s", "it was right", approve("wang.fang", WANG, text))
    assert rig.source.current.ladder.review is None


async def test_an_order_is_one_of_the_two_and_counts_once(rig: Rig) -> None:
    order = rig.order(OrderKind.TAKEOVER, 4)
    assert (await rig.desk.order(order))["kind"] == "takeover"
    with pytest.raises(ZaibeiError, match=r"replay: number 4 was seen"):
        await rig.desk.order(order)
    with pytest.raises(ZaibeiError, match=r"hex digits"):
        await rig.desk.order("zz")
    token = rig.plan()
    rig.sign(token, "wang.fang", WANG)
    await rig.desk.run("s", token, REASON)
    await wait_until(lambda: rig.stage is Stage.SERVING)


async def test_a_standing_order_and_a_report_of_the_top_level_node_take_over_a_fenced_source_by_themselves(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_ladder, "HEARD_MS_MAX", 2_000)  # so long a renewal counts as a word of the source
    rig.lease(1_000)
    await rig.desk.order(rig.order(OrderKind.STANDING, 1))
    await asyncio.sleep(0.3)
    assert rig.stage in (Stage.NORMAL, Stage.SUSPECT)
    await rig.desk.order(rig.order(OrderKind.PROBE_REPORT, 2, entry_pb2.Findings(probes=9, failing=9, lasting_ms=1_000)))
    rig.source.words = Heard(0, 60_000)
    await wait_until(lambda: rig.stage is Stage.SERVING)
    assert rig.source.current.ladder.automatic and rig.source.current.ladder.orders == (1,)
