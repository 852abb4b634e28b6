"""`zaibei tenant graduate` against a member in memory: what it prints, what it orders, how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ops.cli.main import cli
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import HOSTED, GroupState
from replica.model.ladder import Ladder, Stage
from replica.model.position import ORIGIN, Position, epoch_start
from replica.model.states import Authority
from replica.takeover.failback import Node, Wish
from replica.takeover.failback_plan import node_view, plan_of, policies_of, shown_of

START = epoch_start(ORIGIN, b"L" * 16, 1)
LIVES = GroupState(
    "region-9",
    ready=True,
    position=START,
    granted=START,
    grant_taken=True,
    authority=Authority.REGISTRATION,
    authority_act=HOSTED,
)
WAY = [Stage.RETURN_REQUESTED, Stage.CATCHING_UP, Stage.FROZEN, Stage.HANDED_BACK, Stage.NORMAL]


class Member:
    """The admin client's calls: each look at the status finds it one stage further."""

    def __init__(self) -> None:
        self.state, self.node = LIVES, Node(True, ORIGIN)
        self.way, self.ordered = list(WAY), ""
        self.alarms: list[str] = []

    def failback_status(self, source: str = "") -> list[dict[str, Any]]:
        if self.ordered and self.way:
            stage = self.way.pop(0)
            left = stage in (Stage.HANDED_BACK,) or (stage is Stage.NORMAL and self.ordered == "return")
            authority = Authority.SOURCE if left else self.state.authority
            self.state = replace(self.state, authority=authority, ladder=Ladder(stage=stage, act="graduation:1"))
        return [self.row()]

    def row(self) -> dict[str, Any]:
        state = self.state
        return {
            "source": state.source, "stage": state.ladder.stage.name, "shown": shown_of(state), "lives_here": state.lives_here,
            "node": node_view(self.node), "behind": 0, "ledger": None, "ordered": bool(self.ordered and self.way),
            "failure": "", "trouble": "", "alarms": self.alarms, "reason": "why",
        }  # fmt: skip

    def failback_plan(self, source: str, wish: str, policy: str, by_prefix: dict[str, str]) -> dict[str, Any]:
        if source != "region-9":
            raise ZaibeiError(Code.NOT_FOUND, "no such source")
        return plan_of(Wish(wish), self.state, self.node, policies_of(policy, by_prefix)).view()

    def failback_run(
        self, source: str, wish: str, policy: str, by_prefix: dict[str, str], token: str, reason: str
    ) -> dict[str, Any]:
        plan = self.failback_plan(source, wish, policy, by_prefix)
        if plan["refusal"] or plan["token"] != token:
            raise ZaibeiError(Code.REFUSED, str(plan["refusal"]) or "the world changed")
        self.ordered = wish
        return self.row()


Run = Callable[..., Result]


@pytest.fixture
def member() -> Member:
    return Member()


@pytest.fixture
def run(member: Member, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("ops.cli.tenant_leaving.LOOK_S", 0.0)
    return lambda *words: CliRunner().invoke(cli, ["tenant", "graduate", *words], obj={"admin": lambda: member})


def token_of(run: Run, *words: str) -> str:
    return str(json.loads(run("region-9", *words, "--json").stdout)["plan"]["token"])


def test_a_plan_changes_nothing_and_says_what_to_type_next(run: Run, member: Member) -> None:
    member.node = Node(False, why="its feed is not connected")
    shown = run("region-9")
    assert shown.exit_code == 0 and member.ordered == ""
    assert "its node must be empty" in shown.stdout and "! the source is not reached" in shown.stdout
    assert f"zaibei tenant graduate region-9 --plan {token_of(run)}" in shown.stdout


def test_a_run_goes_to_the_end_and_again_is_done_already(run: Run, member: Member) -> None:
    token = token_of(run)
    done = run("region-9", "--plan", token, "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["graduation"]
    assert (row["stage"], row["lives_here"], member.ordered) == ("NORMAL", False, "return")
    member.ordered = ""
    assert run("region-9", "--plan", token).exit_code == 0 and member.ordered == "", "nothing is ordered twice"


def test_one_plan_holds_for_every_attempt_while_it_lives_here(run: Run, member: Member) -> None:
    token = token_of(run)
    member.state = replace(LIVES, position=Position(START.lineage, 1, 9, bytes(32)), ladder=Ladder(acts=3))
    assert token_of(run) == token
    member.state = replace(LIVES, granted=epoch_start(ORIGIN, START.lineage, 2))
    assert token_of(run) != token


def test_given_up_ends_with_1_and_what_cannot_leave_with_4(run: Run, member: Member) -> None:
    token = token_of(run)
    member.way = [Stage.RETURN_REQUESTED, Stage.NORMAL]
    member.ordered = "abort"  # somebody else's, while this one looks on
    member.failback_run = lambda *_: member.row()  # type: ignore[method-assign]
    given_up = run("region-9", "--plan", token)
    assert given_up.exit_code == 1 and "lives here as before: why" in given_up.stdout
    member.state = replace(LIVES, granted=replace(START, chain=bytes(32)))
    refused = run("region-9")
    assert refused.exit_code == 4 and "does not begin with nothing" in refused.stdout


def test_an_abort_is_planned_and_leads_back(run: Run, member: Member) -> None:
    assert "not about to leave" in run("region-9", "--abort").stdout
    member.state = replace(LIVES, ladder=Ladder(stage=Stage.CATCHING_UP, act="graduation:1", closed_at=ORIGIN))
    member.way = [Stage.CATCHING_UP, Stage.NORMAL]
    done = run("region-9", "--abort", "--plan", token_of(run, "--abort"))
    assert done.exit_code == 0 and "lives here as before" in done.stdout and member.ordered == "abort"


def test_it_stops_watching_when_the_time_is_over(run: Run, member: Member) -> None:
    member.way = [Stage.CATCHING_UP] * 10_000
    late = run("region-9", "--plan", token_of(run), "--timeout", "0")
    assert late.exit_code == 8 and "Run it again" in late.stdout
