"""Failback over a whole member and a real agent (scenarios 35, 36): takeover, writes on both sides, return, nothing dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from replica.client.edge_follow import Follower, Way
from replica.member.copy import SourceCopy
from replica.member.failback_ledger import LedgerKeeper
from replica.member.settings import MemberSettings, SourceSettings
from replica.model.batch import Change, columns_of, cut_batch
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.types import Interface, InterfaceUse, Protocol, encode_site, site_of
from replica.model.handle.values import Content, content_of, decode_record
from replica.model.identity import Peer
from replica.model.ladder import Stage
from replica.model.ledger import Kind, Line, Verdict
from replica.model.node import Endpoint
from replica.model.outcome import OutcomeKind
from replica.model.position import Position, epoch_start
from replica.model.precondition import NOTHING
from replica.model.states import Authority, FeedState
from replica.takeover.hand_back import RECORDS_MAX
from replica.v1 import entry_pb2, position_pb2, source_pb2
from tests.integration import member_world
from tests.integration.member_world import Node, World, delete, key, put, running, until

S = entry_pb2.Ladder
NAMES = [f"88.118/{number}" for number in range(20)]
OWN_WRITES = 100
FACES = [Interface(InterfaceUse.QUERY, Protocol.TCP, 2_641)]


@pytest.fixture
def me(tmp_path: Path) -> Identity:
    return ensure_identity(tmp_path / "identity", "member-1")


def settings_of(folder: Path, identity: Identity, sources: Sequence[SourceSettings]) -> MemberSettings:
    """A member that may take over: it has a site of its own."""
    site = encode_site(site_of(["127.0.0.1"], FACES, serial=1, primary=True))
    operable = [replace(source, operable=True) for source in sources]
    return replace(member_world.settings_of(folder, identity, operable), own_site=site)


async def propose(copy: SourceCopy, entry: entry_pb2.Entry) -> None:
    entry.format, entry.admitted_ms = 1, time.time_ns() // 1_000_000
    outcome = await copy.group.propose(entry).applied
    assert outcome.kind is OutcomeKind.APPLIED, outcome


async def take_over(copy: SourceCopy) -> None:
    """Registration, by two people."""
    approvals = [
        entry_pb2.Approval(operator=name, signature=position_pb2.Signature(key_id=name.encode())) for name in ("an", "bo")
    ]
    for stage, parts in (
        (Stage.PROPOSED, {"proposed": entry_pb2.Proposed(fence=1, plan="plan", accepts_unknown=True)}),
        (Stage.APPROVED, {"approved": entry_pb2.Approved(approvals=approvals)}),
        (Stage.FENCED, {"lease": entry_pb2.LeaseFacts()}),
        (Stage.PROMOTED, {}),
        (Stage.SERVING, {}),
    ):
        state = copy.store.state()
        if state.ladder.stage >= stage:  # the member's own desk was faster
            continue
        if stage is Stage.PROMOTED:
            start = epoch_start(state.position, copy.lineage, state.position.epoch + 1)
            grant = source_pb2.Grant(
                source=state.source, parent=state.position.to_wire(), start=start.to_wire(), reason="act", holder="copy"
            )
            parts = {"grant": grant}
        body = S(stage=S.Stage.ValueType(int(stage)), act="act", reason="a typed reason", **parts)  # type: ignore[arg-type]
        setattr(body, "from", int(state.ladder.stage))
        body.decided_ms = time.time_ns() // 1_000_000  # an old proposal would be given up
        entry = entry_pb2.Entry(format=1, admitted_ms=body.decided_ms, ladder=body)
        outcome = await copy.group.propose(entry).applied
        assert outcome.kind is OutcomeKind.APPLIED or copy.store.state().ladder.stage >= stage, outcome


async def register(copy: SourceCopy, *changes: Change) -> None:
    batch = cut_batch(copy.settings.name, copy.store.state().position, columns_of(changes), len(changes), 0)
    body = entry_pb2.Registration(
        batch=batch.raw, follows=batch.before.to_wire(), preconditions=[NOTHING.to_wire() for _ in changes]
    )
    await propose(copy, entry_pb2.Entry(registration=body))


def stage_of(copy: SourceCopy) -> Stage:
    return copy.store.state().ladder.stage


def lines_of(copy: SourceCopy) -> list[Line]:
    ledger = copy.store.state().ledger
    return [] if ledger is None else copy.store.ledger_lines(ledger.common, b"", 10_000)


@asynccontextmanager
async def following(node: Node, world: World) -> AsyncIterator[Follower]:
    me = node.member
    host, port = world.member.feed_addresses[0]
    way = Way(Peer(me.name, me.certificate_pem, role="member"), f"{host}:{port}")
    follower = Follower(node.log, node.identity, [way], None)
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def run_failback(world: World, policy: str = "hold-for-person", by_prefix: dict[str, str] | None = None) -> None:
    calls = world.calls()
    plan = await calls.failback_plan("node-a", "return", policy, by_prefix or {})
    assert plan["refusal"] == ""
    await calls.failback_run("node-a", "return", policy, by_prefix or {}, str(plan["token"]), "the node is back")


async def diverged(tmp_path: Path, me: Identity, node: Node, own: Sequence[Change], ours: Sequence[Change]) -> None:
    """Copied, then apart: the node writes `own` unseen, registration is taken over, `ours` are registered here."""
    await node.write(*[put(name) for name in NAMES])
    async with running(settings_of(tmp_path, me, [node.settings()])) as world:
        await world.equal(node)
    for change in own:
        await node.write(change)
    async with running(settings_of(tmp_path, me, [node.settings(pull=())])) as world:
        copy = world.copy("node-a")
        await take_over(copy)
        for change in ours:
            await register(copy, change)
        assert copy.store.state().authority is Authority.REGISTRATION


async def test_a_node_returns_with_a_hundred_writes_of_its_own(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    own = [put(f"88.118/own-{number}", "https://own.cn/") for number in range(OWN_WRITES - 3)]
    own += [put(NAMES[0], "https://both.cn/own"), delete(NAMES[1]), put(NAMES[2], "https://same.cn/")]
    ours = [put("88.118/ours", "https://ours.cn/"), put(NAMES[0], "https://both.cn/ours"), put(NAMES[2], "https://same.cn/")]
    async with node.serving():
        await diverged(tmp_path, me, node, own, ours)
        async with running(settings_of(tmp_path, me, [node.settings()])) as world, following(node, world):
            copy = world.copy("node-a")
            await until(lambda: copy.driver.stated_head is not None)
            await run_failback(world, "ours-wins")
            await until(lambda: stage_of(copy) is Stage.NORMAL)
            lines = lines_of(copy)
            assert len(lines) == OWN_WRITES and len({line.ident for line in lines}) == OWN_WRITES
            by_key = {line.key: line for line in lines}
            assert (by_key[key(NAMES[0])].kind, by_key[key(NAMES[0])].verdict) == (Kind.CONFLICT, Verdict.KEEP)
            assert (by_key[key(NAMES[1])].verdict, by_key[key(NAMES[1])].theirs) == (Verdict.ENTERED, None)
            assert by_key[key(NAMES[2])].kind is Kind.SAME
            entered = [line for line in lines if line.verdict is Verdict.ENTERED]
            assert len(entered) == OWN_WRITES - 2
            await world.equal(node)
            held = node.log.content.values_of([change.key for change in [*own, *ours]])
            assert all(held[change.key] == change.value for change in own[: OWN_WRITES - 3])
            assert held[key("88.118/ours")] == ours[0].value and held[key(NAMES[0])] == ours[1].value
            assert key(NAMES[1]) not in held
            state = copy.store.state()
            assert (state.authority, state.feed) == (Authority.SOURCE, FeedState.FLOWING)
            assert state.granted is not None and state.granted.epoch == 3
            await node.write(put("88.118/after"))
            await world.equal(node)
            with pytest.raises(ZaibeiError) as refused:
                await run_failback_again(world)
            assert refused.value.code is Code.REFUSED


async def run_failback_again(world: World) -> None:
    calls = world.calls()
    plan = await calls.failback_plan("node-a", "return", "ours-wins", {})
    await calls.failback_run("node-a", "return", "ours-wins", {}, str(plan["token"]), "again")


async def test_conflicts_wait_for_a_person_and_the_member_may_restart_meanwhile(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    own = [put(NAMES[0], "https://both.cn/own"), put(NAMES[1], "https://both.cn/own"), put("88.118/new")]
    ours = [put(NAMES[0], "https://both.cn/ours"), put(NAMES[1], "https://both.cn/ours")]
    async with node.serving():
        await diverged(tmp_path, me, node, own, ours)
        settings = settings_of(tmp_path, me, [node.settings()])
        async with running(settings) as world, following(node, world):
            copy = world.copy("node-a")
            await run_failback(world)
            await until(lambda: (ledger := copy.store.state().ledger) and ledger.counts.held == 2 and ledger.complete)
            await until(lambda: any("zaibei failback conflicts" in alarm for alarm in copy.failback.alarms.values()))
            [row] = await world.calls().failback_status("node-a")
            assert row["ledger"] is not None and row["ledger"]["held"] == 2
            await until(lambda: copy.failback.node().own is not None)  # it connects again after its history was read
            first = next(line for line in lines_of(copy) if line.key == key(NAMES[0]))
            ledger = copy.store.state().ledger
            assert ledger is not None
            body = entry_pb2.LedgerDecision(
                common=ledger.common.to_wire(), lines=[first.ident], accept=True, reason="theirs is right",
                approval=entry_pb2.Approval(operator="an"),
            )  # fmt: skip
            await propose(copy, entry_pb2.Entry(ledger_decision=body))
            await register(copy, put("88.118/meanwhile"))
        async with running(settings) as world, following(node, world):  # the leader died; the order is given again
            copy = world.copy("node-a")
            await run_failback(world, by_prefix={"88.118": "source-wins"})
            second = next(line for line in lines_of(copy) if line.key == key(NAMES[1]))
            if second.verdict is Verdict.HOLD:
                body.lines[:] = [second.ident]
                body.accept = False
                await propose(copy, entry_pb2.Entry(ledger_decision=body))
            await until(lambda: stage_of(copy) is Stage.NORMAL)
            await world.equal(node)
            held = node.log.content.values_of([key(name) for name in NAMES[:2]])
            assert held == {key(NAMES[0]): own[0].value, key(NAMES[1]): ours[1].value}
            assert {line.by for line in lines_of(copy) if line.key in held} == {"person:an"}


async def test_a_second_return_over_the_same_stream_asks_anew_where_the_nodes_own_history_ends(
    tmp_path: Path, me: Identity
) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    async with node.serving():
        await diverged(tmp_path, me, node, [put("88.118/own-1")], [put("88.118/ours-1")])
        async with running(settings_of(tmp_path, me, [node.settings()])) as world:
            copy = world.copy("node-a")
            async with following(node, world):
                await run_failback(world)
                await until(lambda: stage_of(copy) is Stage.NORMAL)
            await world.equal(node)
            stated, began = copy.driver.description, copy.store.state().granted
            assert stated is not None and stated.HasField("own_end"), "the stream of the first return is still the one it has"
            await take_over(copy)
            await node.write(put("88.118/own-2"))
            await register(copy, put("88.118/ours-2"))
            assert copy.failback.node().own is None, "what was said in the first return is not of the second"
            async with following(node, world):
                await run_failback(world)
                await until(lambda: stage_of(copy) is Stage.NORMAL)
                await world.equal(node)
            granted = copy.store.state().granted
            assert began is not None and granted is not None and granted.epoch == began.epoch + 2
            wanted = [key(f"88.118/{whose}-{turn}") for whose in ("own", "ours") for turn in (1, 2)]
            assert sorted(node.log.content.values_of(wanted)) == sorted(wanted)


async def test_a_node_that_lost_everything_is_restored_by_the_same_protocol(tmp_path: Path, me: Identity) -> None:
    first = Node(tmp_path, "node-a", "88.118", me)
    async with first.serving():
        await diverged(tmp_path, me, first, [put("88.118/gone-with-its-disk")], [put("88.118/ours")])
    (tmp_path / "node-a-state").rename(tmp_path / "lost")
    node = Node(tmp_path, "node-a", "88.118", me)
    async with node.serving(), running(settings_of(tmp_path, me, [node.settings()])) as world, following(node, world):
        copy = world.copy("node-a")
        await run_failback(world)
        await until(lambda: stage_of(copy) is Stage.NORMAL)
        await world.equal(node)
        assert key("88.118/ours") in node.log.content.values_of([key("88.118/ours")])
        assert lines_of(copy) == []
        await node.write(put("88.118/after"))
        await world.equal(node)


async def test_nothing_is_handed_back_while_the_node_has_not_ended_its_own_writing(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    async with node.serving():
        await diverged(tmp_path, me, node, [put("88.118/own")], [put("88.118/ours")])
        async with running(settings_of(tmp_path, me, [node.settings()])) as world:
            copy, calls = world.copy("node-a"), world.calls()
            await until(lambda: copy.driver.stated_head is not None)
            with pytest.raises(ZaibeiError, match="only a failback") as refused:
                await calls.grant_plan("node-a")  # by hand it would let two write
            assert refused.value.code is Code.REFUSED
            await run_failback(world)
            await until(lambda: stage_of(copy) is Stage.RETURN_REQUESTED)
            await node.write(put("88.118/still-writing"))
            await asyncio.sleep(1.0)
            assert stage_of(copy) is Stage.RETURN_REQUESTED
            index = copy.store.state().index
            await asyncio.sleep(1.0)
            assert copy.store.state().index - index < 10, "and the log is not filled with words"
            await register(copy, put("88.118/goes-on"))
            plan = await calls.failback_plan("node-a", "abort", "hold-for-person", {})
            await calls.failback_run("node-a", "abort", "hold-for-person", {}, str(plan["token"]), "not today")
            await until(lambda: stage_of(copy) is Stage.SERVING)


async def test_a_transfer_that_would_lose_the_nodes_writes_is_refused(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    async with node.serving():
        await diverged(tmp_path, me, node, [put("88.118/own")], [])
        async with running(settings_of(tmp_path, me, [node.settings(pull=())])) as world:
            calls = world.calls()
            plan = await calls.failback_plan("node-a", "transfer", "hold-for-person", {})
            assert plan["loses"] and "not looked at" in str(plan["refusal"])
            with pytest.raises(ZaibeiError) as refused:
                await calls.failback_run("node-a", "transfer", "hold-for-person", {}, str(plan["token"]), "")
            assert refused.value.code is Code.WOULD_LOSE_DATA


def hold_after_settling(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Judging returns only when the second event is set; the first says that it has judged."""
    judged, go_on = asyncio.Event(), asyncio.Event()
    real = LedgerKeeper.settle

    async def settle(keeper: LedgerKeeper, common: Position) -> None:
        await real(keeper, common)
        judged.set()
        await go_on.wait()

    monkeypatch.setattr(LedgerKeeper, "settle", settle)
    return judged, go_on


async def test_another_policy_judges_again_what_waits_for_a_person(
    tmp_path: Path, me: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    async with node.serving():
        own, ours = [put(NAMES[0], "https://both.cn/own")], [put(NAMES[0], "https://both.cn/ours")]
        await diverged(tmp_path, me, node, own, ours)
        async with running(settings_of(tmp_path, me, [node.settings()])) as world, following(node, world):
            copy = world.copy("node-a")
            judged, go_on = hold_after_settling(monkeypatch)
            await run_failback(world)
            await judged.wait()
            assert (ledger := copy.store.state().ledger) and ledger.counts.held == 1
            await run_failback(world, "source-wins")  # while the former order's judging has not returned yet
            go_on.set()
            await until(lambda: stage_of(copy) is Stage.NORMAL)
            [line] = lines_of(copy)
            assert (line.by, line.verdict) == ("source-wins", Verdict.ENTERED)
            assert node.log.content.values_of([line.key]) == {line.key: own[0].value}
            await world.equal(node)


class Resolver:
    """What the node itself answers: its content of the moment when it was read last."""

    def __init__(self, node: Node) -> None:
        self._node, self.asked = node, list[str]()
        self.reads()

    def reads(self) -> None:
        self._held = dict(self._node.log.content.values_of([key(name) for name in [*NAMES, *OURS_NAMES]]))

    async def answers(self, endpoints: Sequence[Endpoint], names: Sequence[str]) -> list[Content | None]:
        assert endpoints == [AT]
        self.asked = list(names)
        held = [self._held.get(key(name)) for name in names]
        return [frozenset() if one is None else content_of(decode_record(one).values) for one in held]


AT = Endpoint("udp", "127.0.0.1", 9)  # nobody answers there: it is never seen well, and that is not what is tested
OURS_NAMES = [f"88.118/OURS-{number}" for number in range(30)]


async def still_ours(tmp_path: Path, me: Identity, node: Node, world: World, resolver: Resolver) -> SourceCopy:
    """Handed back, while its resolver answers what was before."""
    copy = world.copy("node-a")
    await run_failback(world)
    await until(lambda: "old_answers" in copy.failback.alarms)
    await asyncio.sleep(1.2)  # it is asked again
    state = copy.store.state()
    assert (state.ladder.stage, state.authority) == (Stage.ACCEPTED, Authority.RESOLUTION)
    assert not state.authority_act.startswith("return:"), "our sites stay"
    return copy


async def test_our_sites_stay_while_the_nodes_own_resolver_answers_what_was_before(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    ours = [*(put(name, "https://ours.cn/") for name in OURS_NAMES[:-1]), put(NAMES[0], "https://ours.cn/"), delete(NAMES[1])]
    async with node.serving():
        await diverged(tmp_path, me, node, [], [*ours, put(OURS_NAMES[-1], "https://ours.cn/")])
        resolver = Resolver(node)
        source = replace(node.settings(), probes=(AT,))
        settings = replace(settings_of(tmp_path, me, [source]), ask=resolver.answers)
        async with running(settings) as world, following(node, world):
            copy = await still_ours(tmp_path, me, node, world, resolver)
            assert OURS_NAMES[-1] in resolver.asked and NAMES[1] in resolver.asked, "the newest change, and a deletion"
            assert len(resolver.asked) <= RECORDS_MAX + 1
            [row] = await world.calls().failback_status("node-a")
            assert row["stage"] == "ACCEPTED" and not row["answers"]["agreed"]
            assert OURS_NAMES[-1] in row["answers"]["old"] and NAMES[1] in row["answers"]["old"]
            assert any("let it read its new content" in alarm for alarm in row["alarms"])
            await node.write(put(OURS_NAMES[-1], "https://after.cn/"))  # it registers again: its resolver may know that or not
            await world.equal(node)
            resolver.reads()
            await until(lambda: copy.store.state().authority is Authority.SOURCE)
            assert b"the node itself answers" in b"".join(copy.store.audit_page(0, 500).lines), "why is in the audit"


async def test_an_operator_may_withdraw_them_whatever_it_answers(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    async with node.serving():
        await diverged(tmp_path, me, node, [], [put(OURS_NAMES[0])])
        resolver = Resolver(node)
        source = replace(node.settings(), probes=(AT,))
        settings = replace(settings_of(tmp_path, me, [source]), ask=resolver.answers)
        async with running(settings) as world, following(node, world):
            copy = await still_ours(tmp_path, me, node, world, resolver)
            plan = copy.runner.plan("withdraw")
            assert plan.refusal == "" and any("its old answers may come back" in warning for warning in plan.warnings)
            done = await copy.runner.run_plan("withdraw", plan.token, "its files are shown to be right")
            assert done["changed"]
            await until(lambda: copy.store.state().authority is Authority.SOURCE)


async def test_a_node_of_which_no_address_is_known_is_not_waited_for(tmp_path: Path, me: Identity) -> None:
    node = Node(tmp_path, "node-a", "88.118", me)
    async with node.serving():
        await diverged(tmp_path, me, node, [], [put(OURS_NAMES[0])])
        settings = replace(settings_of(tmp_path, me, [node.settings()]), ask=Resolver(node).answers)
        async with running(settings) as world, following(node, world):
            copy = world.copy("node-a")
            await run_failback(world)
            await until(lambda: stage_of(copy) is Stage.NORMAL)
            assert b"no address of its own resolver is known" in b"".join(copy.store.audit_page(0, 500).lines)
