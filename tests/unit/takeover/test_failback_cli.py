"""`zaibei failback` against a member in memory: output contracts and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ops.admin.values import Approval
from ops.cli.main import cli
from ops.failbacks import line_view
from ops.operators import edge_keys
from ops.operators.approval import judge
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.ladder import Ladder, Stage
from replica.model.ledger import Counts, Kind, Ledger, Line, Verdict, Written
from replica.model.position import Position
from replica.takeover.failback import Node, Wish
from replica.takeover.failback_plan import decision_text, ledger_view, node_view, plan_of, policies_of
from tests.unit.store.support import key, value

COMMON = Position(b"L" * 16, 1, 7, b"c" * 32)
HELD = Line(key(1), 9, value("theirs"), value("ours"), Written.YES, Kind.CONFLICT, Verdict.HOLD, "hold-for-person")
ENTERED = Line(key(2), 8, value("new"), None, Written.NO, Kind.CONFLICT, Verdict.ENTERED, "only-source", 12)


class Member:
    """The admin client's calls: each look at the status finds the ladder one stage further."""

    def __init__(self) -> None:
        ledger = Ledger(COMMON, COMMON, True, Counts(conflict=2, entered=1, held=0))
        self.state = GroupState("node-a", ladder=Ladder(stage=Stage.SERVING, act="act", closed_at=COMMON), ledger=ledger)
        self.node = Node(True, COMMON)
        self.way = [Stage.CATCHING_UP, Stage.FROZEN, Stage.HANDED_BACK, Stage.NORMAL]
        self.lines = [HELD, ENTERED]
        self.runs: list[tuple[str, str]] = []
        self.decided: list[Approval] = []

    def failback_status(self, source: str = "") -> list[dict[str, Any]]:
        if self.runs and self.way:
            self.state = replace(self.state, ladder=replace(self.state.ladder, stage=self.way.pop(0)))
        return [self._row()]

    def _row(self) -> dict[str, Any]:
        return {
            "source": "node-a", "stage": self.state.ladder.stage.name, "shown": "in words", "node": node_view(self.node),
            "behind": 3,
            "ledger": ledger_view(self.state.ledger), "ordered": True, "failure": "", "trouble": "", "alarms": [],
        }  # fmt: skip

    def failback_plan(self, source: str, wish: str, policy: str, by_prefix: dict[str, str]) -> dict[str, Any]:
        if source != "node-a":
            raise ZaibeiError(Code.NOT_FOUND, "no such source")
        return plan_of(Wish(wish), self.state, self.node, policies_of(policy, by_prefix)).view()

    def failback_run(
        self, source: str, wish: str, policy: str, by_prefix: dict[str, str], token: str, reason: str
    ) -> dict[str, Any]:
        plan = self.failback_plan(source, wish, policy, by_prefix)
        if plan["refusal"] or plan["token"] != token:
            raise ZaibeiError(Code.WOULD_LOSE_DATA if plan["loses"] else Code.REFUSED, plan["refusal"] or "the world changed")
        self.runs.append((wish, policy))
        return self._row()

    def failback_lines(self, source: str, after: str, limit: int) -> list[dict[str, Any]]:
        return [line_view(line) for line in sorted(self.lines, key=lambda one: one.ident) if line.name > after][:limit]

    def failback_decision(self, source: str, lines: list[str], accept: bool, reason: str) -> dict[str, Any]:
        assert self.state.ledger is not None
        return {"text": decision_text(source, self.state.ledger, tuple(lines), accept, reason)}

    def failback_decide(self, source: str, lines: list[str], accept: bool, reason: str, approval: Approval) -> dict[str, Any]:
        self.decided.append(approval)
        return {"source": source, "lines": lines, "accept": accept, "operator": approval.operator}


@pytest.fixture
def member() -> Member:
    return Member()


Run = Callable[..., Result]


@pytest.fixture
def run(member: Member, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("ops.cli.failback.LOOK_S", 0.0)
    return lambda *words: CliRunner().invoke(cli, ["failback", *words], obj={"admin": lambda: member})


def token_of(run: Run, *words: str) -> str:
    return str(json.loads(run("plan", "node-a", *words, "--json").stdout)["token"])


def test_a_plan_says_what_decides_and_what_to_type_next(run: Run) -> None:
    shown = run("plan", "node-a", "--policy", "ours-wins", "--for", "88.118.1=source-wins")
    assert shown.exit_code == 0
    assert "where both wrote: ours-wins" in shown.stdout and "below 88.118.1: source-wins" in shown.stdout
    token = token_of(run, "--policy", "ours-wins", "--for", "88.118.1=source-wins")
    assert f"zaibei failback run node-a --plan {token} --policy ours-wins --for 88.118.1=source-wins" in shown.stdout
    assert token_of(run) != token, "the token covers the policies"


def test_a_run_goes_to_the_end_and_says_what_became_of_the_writes(run: Run, member: Member) -> None:
    done = run("run", "node-a", "--plan", token_of(run), "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["stage"] == "NORMAL" and member.runs[0] == ("return", "hold-for-person")


def test_a_run_ends_with_12_while_writes_wait_for_a_person(run: Run, member: Member) -> None:
    assert member.state.ledger is not None
    member.state = replace(member.state, ledger=replace(member.state.ledger, counts=Counts(conflict=2, held=1, entered=1)))
    done = run("run", "node-a", "--plan", token_of(run))
    assert done.exit_code == 12 and "zaibei failback conflicts node-a" in done.stdout


def test_another_worlds_plan_is_refused(run: Run, member: Member) -> None:
    assert run("run", "node-a", "--plan", "0" * 16).exit_code == 4
    token = token_of(run)
    member.state = replace(member.state, ladder=replace(member.state.ladder, act="another"))
    assert run("run", "node-a", "--plan", token).exit_code == 4
    assert not member.runs


def test_a_transfer_that_would_lose_writes_ends_with_12(run: Run, member: Member) -> None:
    member.state = replace(member.state, ledger=None)
    assert run("plan", "node-a", "--transfer").exit_code == 12
    assert run("run", "node-a", "--transfer", "--plan", token_of(run, "--transfer")).exit_code == 12
    assert not member.runs


def test_after_the_hand_back_there_is_no_way_back(run: Run, member: Member) -> None:
    member.state = replace(member.state, ladder=replace(member.state.ladder, stage=Stage.HANDED_BACK))
    refused = run("plan", "node-a", "--abort")
    assert refused.exit_code == 4 and "only a new takeover" in refused.stdout
    member.state = replace(member.state, ladder=Ladder())
    assert run("plan", "node-a").exit_code == 4
    assert run("plan", "nobody").exit_code == 6
    assert run("plan", "node-a", "--abort", "--transfer").exit_code == 2
    assert run("plan", "node-a", "--for", "88.118").exit_code == 2


def test_status_shows_where_each_source_stands(run: Run) -> None:
    shown = run("status")
    assert shown.exit_code == 0 and "serving" in shown.stdout and "3 changes" in shown.stdout
    [row] = json.loads(run("status", "--json").stdout)
    assert row["ledger"]["conflict"] == 2


def test_conflicts_show_both_values_and_what_decided(run: Run, member: Member) -> None:
    shown = run("conflicts", "node-a")
    assert shown.exit_code == 12 and "88.118.8/XYZ-000001" in shown.stdout and "theirs" in shown.stdout and "ours" in shown.stdout
    document = json.loads(run("conflicts", "node-a", "--all", "--json").stdout)
    assert document["waiting"] == 1 and [one["line"] for one in document["lines"]] == sorted([HELD.name, ENTERED.name])
    assert document["lines"][0]["by"] == "only-source" and document["lines"][0]["ours"] is None
    assert json.loads(run("conflicts", "node-a", "--all", "--class", "same", "--json").stdout)["lines"] == []
    member.lines = [ENTERED]
    assert run("conflicts", "node-a").exit_code == 0


def test_a_decision_is_signed_with_the_text_that_was_shown(run: Run, member: Member, tmp_path: Path) -> None:
    signer = edge_keys.create(tmp_path / "ann.key")
    words = ("decide", "node-a", HELD.name, "--reason", "its clerk confirms", "--key", str(tmp_path / "ann.key"), "--yes")
    assert run(*words).exit_code == 2, "neither --accept nor --keep"
    assert run(*words, "--accept").exit_code == 0
    [approval] = member.decided
    assert member.state.ledger is not None
    text = decision_text("node-a", member.state.ledger, (HELD.name,), True, "its clerk confirms")
    judge(approval, text, {"ann": signer.public})
