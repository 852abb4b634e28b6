"""`zaibei tenant transfer` against a member in memory: whom it hands over, how it ends, where what fails leads."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from ops.cli.main import cli
from replica.model.ladder import Ladder, Stage
from replica.model.states import Authority
from tests.unit.tenant.test_graduate_cli import LIVES, Member, Run, token_of

TAKEN_OVER = replace(LIVES, authority_act="takeover:1", ladder=Ladder(stage=Stage.SERVING, act="takeover:1"))


class Adopted(Member):
    """Whose registrations were taken over, and who is a tenant by now."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.tenant = TAKEN_OVER, "active"

    def tenant_show(self, source: str) -> dict[str, Any]:
        return {"source": source, "state": self.tenant, "lives_here": self.state.lives_here}


@pytest.fixture
def member() -> Adopted:
    return Adopted()


@pytest.fixture
def run(member: Adopted, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("ops.cli.tenant_leaving.LOOK_S", 0.0)
    return lambda *words: CliRunner().invoke(cli, ["tenant", "transfer", *words], obj={"admin": lambda: member})


def test_an_adopted_tenant_goes_to_the_end(run: Run, member: Adopted) -> None:
    shown = run("region-9")
    assert shown.exit_code == 0 and member.ordered == ""
    assert f"zaibei tenant transfer region-9 --plan {token_of(run)}" in shown.stdout
    done = run("region-9", "--plan", token_of(run), "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["transfer"]
    assert (row["stage"], member.ordered, member.state.authority) == ("NORMAL", "return", Authority.SOURCE)


@pytest.mark.parametrize("words", [(), ("--plan", "0" * 16)])
def test_who_was_not_adopted_or_never_had_a_node_is_not_handed_over(run: Run, member: Adopted, words: tuple[str, ...]) -> None:
    member.tenant = "none"
    refused = run("region-9", *words)
    assert (refused.exit_code, member.ordered) == (4, "") and "zaibei tenant adopt region-9" in refused.stdout
    member.state = LIVES
    refused = run("region-9", *words)
    assert (refused.exit_code, member.ordered) == (4, "") and "zaibei tenant graduate region-9" in refused.stdout


def test_what_fails_leads_back_to_registering_here_and_ends_with_1(run: Run, member: Adopted) -> None:
    token = token_of(run)
    member.ordered, member.way = "abort", [Stage.RETURN_REQUESTED, Stage.SERVING]  # somebody else's, while this one looks on
    member.failback_run = lambda *_: member.row()  # type: ignore[method-assign]
    given_up = run("region-9", "--plan", token)
    assert given_up.exit_code == 1 and "given up" in given_up.stdout


def test_an_abort_leads_back_to_serving(run: Run, member: Adopted) -> None:
    member.state = replace(TAKEN_OVER, ladder=Ladder(stage=Stage.CATCHING_UP, act="takeover:1"))
    member.way = [Stage.CATCHING_UP, Stage.SERVING]
    done = run("region-9", "--abort", "--plan", token_of(run, "--abort"))
    assert done.exit_code == 0 and member.ordered == "abort" and "zaibei tenant transfer may be run" in done.stdout
