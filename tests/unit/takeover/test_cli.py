"""`zaibei takeover` against a member's service in memory: output contracts and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result

from ops.cli.main import cli
from ops.cli.takeover import Row
from replica.model.errors import Code, ZaibeiError
from replica.model.states import Authority
from replica.takeover.plan import already_done, plan_of
from replica.takeover.readiness import assess
from tests.unit.takeover.test_machine import Bench
from tests.unit.takeover.test_readiness import GOOD


class Member:
    """The admin client's calls over a bench."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.peace = GOOD
        self.publications: list[Row] = []

    def takeover_status(self, source: str = "") -> Sequence[Row]:
        checks = assess(self.peace)
        worst = "pass" if all(check.result.value == "pass" for check in checks) else "unknown"
        return [
            {
                "source": "s", "shown": "the source answers", "verdict": "alive", "age_ms": 3, "ready": worst,
                "readiness": [check.view() for check in checks], "alarms": ["something to know"],
                "publications": self.publications,
            }
        ]  # fmt: skip

    def takeover_plan(self, source: str, action: str) -> Row:
        if source != "s":
            raise ZaibeiError(Code.NOT_FOUND, "no such source")
        return plan_of(action, self.bench.world, assess(self.peace)).view()

    def takeover_run(self, source: str, action: str, token: str, reason: str) -> Row:
        state = self.bench.state
        if already_done(state, token, action):
            return {"source": source, "action": action, "act": state.authority_act, "changed": False}
        plan = plan_of(action, self.bench.world, assess(self.peace))
        if plan.refusal or plan.token != token:
            raise ZaibeiError(Code.REFUSED, plan.refusal or "the world changed")
        self.bench.machine.order = plan.order(reason)
        self.bench.settle()
        return {"source": source, "action": action, "act": self.bench.state.authority_act, "changed": True}

    def takeover_rehearse(self, source: str) -> Row:
        return {"name": "publication", "result": "fail", "detail": "r0: down"}


@pytest.fixture
def member() -> Member:
    return Member()


Call = Callable[..., Result]


@pytest.fixture
def call(member: Member) -> Call:
    return lambda *words: CliRunner().invoke(cli, ["takeover", *words], obj={"admin": lambda: member})


def test_plan_then_run_then_again_then_withdraw(member: Member, call: Call) -> None:
    shown = call("plan", "s")
    assert shown.exit_code == 0
    token = json.loads(call("plan", "s", "--json").output)["token"]
    assert f"zaibei takeover run s --plan {token}" in shown.output
    assert member.bench.state.authority is Authority.SOURCE, "a plan changes nothing"
    first = call("run", "s", "--plan", token, "--json")
    assert (first.exit_code, json.loads(first.output)["changed"]) == (0, True)
    again = call("run", "s", "--plan", token, "--json")
    assert (again.exit_code, json.loads(again.output)["changed"]) == (0, False)
    assert call("plan", "s").exit_code == 4, "already taken over"
    back = json.loads(call("withdraw", "s", "--json").output)["token"]
    assert call("withdraw", "s", "--plan", back).exit_code == 0
    assert member.bench.state.authority is Authority.SOURCE
    repeated = call("withdraw", "s", "--plan", back, "--json")
    assert (repeated.exit_code, json.loads(repeated.output)["changed"]) == (0, False)


@pytest.mark.parametrize(
    "change",
    [
        {"serial_highest": 7},
        {"prefixes": (b"h88\x01118\x019",)},
        {"generation": 3},
        {"authority_act": "returned:x"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_world_refuses_with_4(member: Member, call: Call, change: dict[str, object]) -> None:
    token = json.loads(call("plan", "s", "--json").output)["token"]
    member.bench.state = replace(member.bench.state, **change)  # type: ignore[arg-type]
    result = call("run", "s", "--plan", token)
    assert result.exit_code == 4
    assert member.bench.state.authority is Authority.SOURCE


def test_what_moves_all_the_time_does_not_refuse(member: Member, call: Call) -> None:
    token = json.loads(call("plan", "s", "--json").output)["token"]
    state = member.bench.state
    member.bench.state = replace(state, index=99, records=11, position=replace(state.position, seq=5))
    member.bench.age = 77
    assert call("run", "s", "--plan", token).exit_code == 0


def test_a_check_that_changed_refuses(member: Member, call: Call) -> None:
    token = json.loads(call("plan", "s", "--json").output)["token"]
    member.peace = replace(member.peace, site_ttl_s=86_400)
    assert call("run", "s", "--plan", token).exit_code == 4


def test_exit_codes(member: Member, call: Call) -> None:
    assert call("plan", "nobody").exit_code == 6
    assert call("run", "s").exit_code == 2
    assert call("rehearse", "s").exit_code == 9
    assert call("status", "--ready").exit_code == 0
    member.peace = replace(member.peace, site_ttl_s=None)
    shown = call("status", "--ready")
    assert shown.exit_code == 11
    assert "ttl" in shown.output
    assert "something to know" in shown.output


def test_status_json_is_one_document(call: Call) -> None:
    assert json.loads(call("status", "--json").output)[0]["source"] == "s"


def test_an_adapter_that_has_not_confirmed_is_shown_with_its_last_word(member: Member, call: Call) -> None:
    word = "asked for in 88.118.9_00011_publish_m.request: nobody has answered yet"
    done = {"adapter": "routes", "prefix": "88.118.9", "confirmed": True, "serial": 11, "detail": "route told"}
    waits = {"adapter": "files", "prefix": "88.118.9", "confirmed": False, "serial": 11, "detail": word}
    member.publications = [done, waits]
    shown = " ".join(call("status", "s").output.split())
    assert "files 88.118.9 ✗ not yet 11" in shown and word in shown and "routes 88.118.9 ✓ confirmed 11 route told" in shown
    member.publications = [done]
    assert "route told" not in call("status", "s").output, "what is found needs no words"
