"""`zaibei takeover … --registration` against a member in memory: what is shown, what is signed, and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ops.admin.values import Approval
from ops.cli.main import cli
from ops.operators import edge_keys
from ops.operators.approval import judge, token_of
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError

TEXT = "zaibei registration takeover 1\nsource s\nact number 1, approved by two\n"
PLAN: dict[str, Any] = {
    "source": "s", "text": TEXT, "token": token_of(TEXT), "stage": "NORMAL", "fence": "none", "behind": 3, "age_ms": 120,
    "records": 7,
    "position": "p", "accepts_loss": 3, "accepts_unknown_loss": False, "break_glass": False, "refusal": "", "lacks": "two people",
    "lease_left_ms": 0, "approvals": [], "switchover": False,
}  # fmt: skip
LADDER: dict[str, Any] = {
    "stage": "APPROVED", "shown": "approved: waits for the source's lease to end", "act": "registration:1", "reason": "a fire",
    "since_ms": 1_700_000_000_000, "waits_for": "the source's lease, 12.0 s more as we count it", "fence": "write_path",
    "lease_ms": 30_000, "lease_left_ms": 12_000, "behind": 0, "approvals": ["li.wei"], "held_off": False, "evidence": [],
    "orders": [{"kind": "takeover", "number": 4, "function": "registration", "until_ms": 1}],
    "review": {"act": "x", "operator": "li.wei", "due_ms": 1}, "switchover": False, "write_pause_ms": None,
}  # fmt: skip


class Member:
    """The admin client's calls, as far as these commands make them."""

    def __init__(self) -> None:
        self.plan, self.said = dict(PLAN), list[tuple[object, ...]]()
        self.signed: Approval | None = None

    def registration_plan(self, source: str, loss: int = 0, unknown_loss: bool = False, break_glass: bool = False) -> Any:
        self.said.append(("plan", source, loss, unknown_loss, break_glass))
        return self.plan

    def switchover_plan(self, source: str) -> Any:
        self.said.append(("switchover", source))
        return self.plan | {"switchover": True}

    def mass_plan(self, names: list[str], only_dead: bool, registration: bool, loss: int, unknown_loss: bool) -> Any:
        self.said.append(("mass", names, only_dead, registration, loss, unknown_loss))
        return self.plan

    def mass_run(self, token: str, reason: str) -> Any:
        self.said.append(("mass run", token, reason))
        return self.plan["ran"]

    def registration_plan_of(self, token: str) -> Any:
        return self.plan

    def registration_sign(self, approval: Approval) -> Any:
        self.signed = approval
        return self.plan | {"approvals": [approval.operator]}

    def registration_run(self, source: str, token: str, reason: str) -> Any:
        if token != self.plan["token"]:
            raise ZaibeiError(Code.NOT_AUTHORISED, "two people must approve this very act")
        self.said.append(("run", source, token, reason))
        return {"source": source, "act": "a", "stage": "APPROVED", "changed": True}

    def registration_abort(self, source: str, reason: str) -> Any:
        return {"source": source, "act": "a", "stage": "NORMAL", "changed": True}

    def registration_order(self, order: str) -> Any:
        self.said.append(("order", order))
        return {"source": "s", "kind": "takeover", "number": 4, "function": "registration"}

    def registration_review_text(self, source: str, verdict: str) -> Any:
        return {"source": source, "act": "x", "operator": "li.wei", "text": TEXT, "token": token_of(TEXT)}

    def registration_review(self, source: str, verdict: str, approval: Approval) -> Any:
        self.signed = approval
        return {"source": source, "act": "x", "verdict": verdict, "by": approval.operator}

    def takeover_status(self, source: str = "") -> Any:
        return [
            {
                "source": "s", "shown": "taking over", "verdict": "dead", "age_ms": 3, "ready": "pass", "publications": [],
                "readiness": [], "alarms": [], "ladder": LADDER,
            }
        ]  # fmt: skip


Call = Callable[..., Result]


@pytest.fixture
def member() -> Member:
    return Member()


@pytest.fixture
def call(member: Member) -> Call:
    return lambda *words: CliRunner().invoke(cli, ["takeover", *words], obj={"admin": lambda: member})


def test_a_plan_shows_the_text_the_loss_and_what_comes_next(member: Member, call: Call) -> None:
    shown = call("plan", "s", "--registration", "--accept-loss", "3")
    assert shown.exit_code == 0
    assert member.said == [("plan", "s", 3, False, False)]
    assert TEXT in shown.output and "3 changes stated and not held here" in shown.output
    assert f"zaibei takeover sign {PLAN['token']} --key FILE" in shown.output
    assert json.loads(call("plan", "s", "--registration", "--json").output)["token"] == PLAN["token"]
    member.plan |= {"behind": None, "refusal": "how many changes would be lost is UNKNOWN"}
    refused = call("plan", "s", "--registration")
    assert refused.exit_code == 4 and "UNKNOWN" in refused.output
    member.plan |= {"refusal": "", "approvals": ["li.wei", "wang.fang"], "lacks": ""}
    assert f"zaibei takeover run s --registration --plan {PLAN['token']}" in call("plan", "s", "--registration").output


def test_a_switchover_is_planned_signed_and_run_as_the_others(member: Member, call: Call) -> None:
    shown = call("plan", "s", "--switchover")
    assert (shown.exit_code, member.said) == (0, [("switchover", "s")])
    assert "its guard is asked to end the writing" in shown.output and "none" in shown.output
    assert f"zaibei takeover sign {PLAN['token']} --key FILE" in shown.output
    member.plan |= {"refusal": "the source holds no write-path lease"}
    assert call("plan", "s", "--switchover").exit_code == 4
    for option in (("--accept-loss", "3"), ("--accept-unknown-loss",), ("--break-glass",), ("--withdraw",)):
        assert call("plan", "s", "--switchover", *option).exit_code == 2


SEEN: dict[str, Any] = {"verdict": "dead", "age_ms": None, "records": 7, "behind": None, "takes": True, "why_not": ""}
MASS: dict[str, Any] = {
    "mass": True, "text": TEXT, "token": token_of(TEXT), "registration": True, "accepts_loss": 0, "accepts_unknown_loss": False,
    "approvals": ["li.wei"], "lacks": "two people must approve",
    "sources": [SEEN | {"source": "a"}, SEEN | {"source": "b", "takes": False, "why_not": "no complete copy is held"}],
}  # fmt: skip


def test_a_mass_plan_shows_who_is_in_it_who_cannot_and_what_comes_next(member: Member, call: Call) -> None:
    member.plan = dict(MASS)
    shown = call("mass", "plan", "--dead", "--registration", "--accept-unknown-loss")
    assert (shown.exit_code, member.said) == (0, [("mass", [], True, True, 0, True)])
    for part in (TEXT, "UNKNOWN", "no complete copy is held", "1 of 2 sources are in it", f"takeover sign {MASS['token']}"):
        assert part in shown.output
    member.plan |= {"lacks": ""}
    named = call("mass", "plan", "--sources", "a, b", "--json")
    assert member.said[-1] == ("mass", ["a", "b"], False, False, 0, False) and json.loads(named.output)["mass"] is True
    assert f"zaibei takeover mass run --plan {MASS['token']}" in call("mass", "plan", "--all").output
    for words in ((), ("--all", "--dead"), ("--all", "--accept-loss", "3")):
        assert call("mass", "plan", *words).exit_code == 2


def test_a_mass_plan_of_one_place_names_the_sources_that_stand_there(member: Member, call: Call, tmp_path: Path) -> None:
    member.plan, lines = dict(MASS), list[str]()
    for name, place in (("node-a", "yichang"), ("node-b", "wuhan"), ("node-c", "yichang")):
        node = ensure_identity(tmp_path / name, name)
        (tmp_path / f"{name}.pem").write_bytes(node.certificate_pem)
        lines += ["[[source]]", f'name = "{name}"', f'prefixes = ["88.{name[-1]}"]', f'zone = "{place}"']
        lines += [f'fingerprint = "{node.fingerprint}"', f'certificate_file = "{name}.pem"']
    file = tmp_path / "zaibei.toml"
    file.write_text("\n".join(lines).replace("88.a", "88.1").replace("88.b", "88.2").replace("88.c", "88.3") + "\n", "utf-8")
    assert call("mass", "plan", "--zone", "yichang", "--dead", "--config", str(file)).exit_code == 0
    assert member.said == [("mass", ["node-a", "node-c"], True, False, 0, False)]
    nowhere = call("mass", "plan", "--zone", "xian", "--config", str(file))
    assert nowhere.exit_code == 6 and "there are: wuhan, yichang" in nowhere.output
    assert call("mass", "plan", "--zone", "yichang", "--sources", "node-a").exit_code == 2


def test_a_mass_run_tells_each_outcome_and_exits_by_the_worst(member: Member, call: Call) -> None:
    row = {"stage": "APPROVED", "why": ""}
    done, again = row | {"source": "a", "outcome": "done"}, row | {"source": "b", "outcome": "done_before"}
    refused, unknown = (
        row | {"source": "c", "outcome": "refused", "why": "17 changes behind"},
        row | {"source": "d", "outcome": "unknown"},
    )
    for rows, code in (([done, again], 0), ([done, refused], 4), ([refused, unknown], 11)):
        counts = {word: sum(one["outcome"] == word for one in rows) for word in ("done", "done_before", "refused", "unknown")}
        member.plan = {"ran": {"sources": rows, **counts}}
        ran = call("mass", "run", "--plan", "0" * 16, "--reason", "a fire")
        assert ran.exit_code == code, ran.output
        assert ("17 changes behind" in ran.output and "then again" in ran.output) is (refused in rows)
    assert member.said[-1] == ("mass run", "0" * 16, "a fire")
    assert call("mass", "run", "--plan", "0" * 16).exit_code == 2, "a mass takeover has a reason"


def test_options_of_one_kind_of_takeover_alone(call: Call) -> None:
    assert call("plan", "s", "--break-glass").exit_code == 2
    assert call("plan", "s", "--registration", "--withdraw").exit_code == 2


def test_what_is_signed_is_the_shown_text(member: Member, call: Call, tmp_path: Path) -> None:
    key = tmp_path / "li.wei.key"
    signer = edge_keys.create(key)
    done = call("sign", PLAN["token"], "--key", str(key), "--yes")
    assert done.exit_code == 0, done.output
    assert member.signed is not None
    judge(member.signed, TEXT, {"li.wei": signer.public})
    member.plan["text"] = TEXT + "and another line\n"
    assert "Nothing was signed" in call("sign", PLAN["token"], "--key", str(key), "--yes").output


def test_run_abort_order_and_review(member: Member, call: Call, tmp_path: Path) -> None:
    ran = call("run", "s", "--registration", "--plan", PLAN["token"], "--reason", "a fire")
    assert (ran.exit_code, member.said[-1]) == (0, ("run", "s", PLAN["token"], "a fire"))
    assert call("run", "s", "--registration", "--plan", "0" * 16).exit_code == 3
    assert call("abort", "s", "--reason", "a false alarm").exit_code == 0
    assert call("abort", "s").exit_code == 2, "an abort has a reason"
    order = tmp_path / "order.bin"
    order.write_bytes(b"\x01\x02")
    assert "order 4 taken in" in call("order", str(order)).output
    assert member.said[-1] == ("order", "0102")
    key = tmp_path / "wang.fang.key"
    signer = edge_keys.create(key)
    assert "reviewed by wang.fang" in call("review", "s", "--verdict", "right", "--key", str(key), "--yes").output
    assert member.signed is not None
    judge(member.signed, TEXT, {"wang.fang": signer.public})


def test_status_shows_the_stage_what_it_waits_for_and_what_is_owed(call: Call) -> None:
    shown = call("status").output
    for part in ("APPROVED since 2023-11-14", "waits for: the source's lease, 12.0 s", "li.wei, takeover order 4", "review owed"):
        assert part in shown
    assert "nobody registered" not in shown


def test_status_tells_the_write_pause_of_a_switchover(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LADDER, "switchover", True)
    monkeypatch.setitem(LADDER, "write_pause_ms", 87)
    assert "switchover: nobody registered for at most 87 ms" in call("status").output
