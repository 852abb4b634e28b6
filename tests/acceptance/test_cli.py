"""Commands as an operator types them, against a member behind a real admin socket: words, JSON contract, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ops.admin.edge_client import AdminClient
from ops.admin.memory import MemoryMember
from ops.admin.values import HoldPlan, Status
from ops.cli.main import cli
from ops.operators import edge_keys
from replica.model.errors import Code, ZaibeiError
from replica.model.signing import Signer
from tests.unit.ops.support import HOLD_ID, member, serving


class Terminal:
    """Types commands at one member."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def type(self, *words: str, typed: str | None = None) -> Result:
        return CliRunner().invoke(cli, list(words), input=typed, env={"COLUMNS": "200", "ZAIBEI_CONFIG": ""})

    def at(self, *words: str, typed: str | None = None) -> Result:
        return self.type(*words, "--data", str(self.data), typed=typed)

    def document(self, *words: str) -> Any:
        result = self.at(*words, "--json")
        assert result.stdout.count("\n") == 1
        return json.loads(result.stdout)


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.key" for name in ("li.wei", "zhang.min")}
    for path in paths.values():
        edge_keys.create(path)
    return paths


@pytest.fixture
def signers(keys: dict[str, Path]) -> dict[str, Signer]:
    return {name: edge_keys.load(path, str) for name, path in keys.items()}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    return data


@pytest.fixture
def running(signers: dict[str, Signer], here: Path) -> Iterator[MemoryMember]:
    calls = member(signers)
    with serving(calls, here / "admin.sock"):
        yield calls


@pytest.fixture
def terminal(here: Path) -> Terminal:
    return Terminal(here)


def test_two_people_release_what_is_held(running: MemoryMember, terminal: Terminal, keys: dict[str, Path]) -> None:
    listed = terminal.at("hold", "list")
    assert HOLD_ID in listed.stdout and "900 removed, 7 rewritten" in listed.stdout and "Next: zaibei hold show" in listed.stdout
    assert "88.118/A" in terminal.at("hold", "show", HOLD_ID).stdout
    plan = terminal.document("hold", "plan", HOLD_ID, "release")["plan"]
    token = plan["token"]
    assert terminal.at("hold", "run", "--plan", token).exit_code == 3
    first = terminal.at("hold", "sign", token, "--key", str(keys["li.wei"]), typed=f"release {token[:4]}\n")
    assert first.exit_code == 0 and "signed by li.wei; 2 are needed" in first.stdout and "act release" in first.stderr
    refused = terminal.at("hold", "run", "--plan", token)
    assert refused.exit_code == 3 and "who can: zhang.min" in refused.stderr and "Nothing was done" in refused.stderr
    second = terminal.at("hold", "sign", token, "--key", str(keys["zhang.min"]), "--yes")
    assert f"Next: zaibei hold run --plan {token}" in second.stdout
    done = terminal.document("hold", "run", "--plan", token)["done"]
    assert (done["decision"], done["approved_by"]) == ("release", ["li.wei", "zhang.min"])
    assert terminal.at("hold", "run", "--plan", token).exit_code == 0
    assert "Nothing is held." in terminal.at("hold", "list").stdout


def test_a_signature_made_elsewhere(running: MemoryMember, terminal: Terminal, keys: dict[str, Path], tmp_path: Path) -> None:
    text, approval = tmp_path / "plan.txt", tmp_path / "a.json"
    token = terminal.document("hold", "plan", HOLD_ID, "discard", "--out", str(text))["plan"]["token"]
    signed = terminal.type("operator", "sign", str(text), "--key", str(keys["li.wei"]), "--yes")
    approval.write_text(signed.stdout)
    assert "signed by li.wei" in terminal.at("hold", "sign", token, "--approval", str(approval)).stdout
    text.write_text("zaibei hold decision 9\n")
    assert terminal.type("operator", "sign", str(text), "--key", str(keys["li.wei"]), "--yes").exit_code == 2


def test_signing_needs_the_typed_words(running: MemoryMember, terminal: Terminal, keys: dict[str, Path]) -> None:
    token = terminal.document("hold", "plan", HOLD_ID, "release")["plan"]["token"]
    result = terminal.at("hold", "sign", token, "--key", str(keys["li.wei"]), typed="yes\n")
    assert result.exit_code == 1 and "not signed" in result.stderr
    ended = terminal.at("hold", "sign", token, "--key", str(keys["li.wei"]), typed="")
    assert ended.exit_code == 1 and "standard input ended" in ended.stderr and "--yes" in ended.stderr
    assert running.desk.plan_of(token).approvals == []


def test_a_stranger_may_not_sign(running: MemoryMember, terminal: Terminal, tmp_path: Path) -> None:
    edge_keys.create(tmp_path / "eve.key")
    token = terminal.document("hold", "plan", HOLD_ID, "release")["plan"]["token"]
    result = terminal.at("hold", "sign", token, "--key", str(tmp_path / "eve.key"), "--yes")
    assert result.exit_code == 3 and "'eve' is not an operator" in result.stderr
    result = terminal.at("hold", "sign", token, "--key", str(tmp_path / "eve.key"), "--as", "li.wei", "--yes")
    assert result.exit_code == 3


def test_sign_takes_one_of_two(running: MemoryMember, terminal: Terminal) -> None:
    assert terminal.at("hold", "sign", "abc").exit_code == 2


def test_a_changed_world_is_refused(running: MemoryMember, terminal: Terminal, keys: dict[str, Path]) -> None:
    token = terminal.document("hold", "plan", HOLD_ID, "release")["plan"]["token"]
    group = running.desk._groups()["node-a"]
    group.removed = 901  # type: ignore[attr-defined]
    result = terminal.at("hold", "run", "--plan", token)
    assert (
        result.exit_code == 4 and "nothing was done" in result.stderr and f"zaibei hold plan {HOLD_ID} release" in result.stderr
    )


def test_status_says_what_is_unknown(running: MemoryMember, terminal: Terminal) -> None:
    result = terminal.at("status")
    line = next(line for line in result.stdout.splitlines() if line.startswith(" node-b"))
    assert line.count("UNKNOWN") == 5
    assert "disk is filling" in result.stdout and "Next: zaibei hold list" in result.stdout
    told = " ".join(result.stdout.split())
    assert "node-b: another member leads it, and alone hears its node" in told and "node-a: another member" not in told
    document = terminal.document("status", "node-b")
    assert [one["source"] for one in document["sources"]] == ["node-b"] and document["sources"][0]["lag_s"] is None
    assert terminal.at("status", "node-c").exit_code == 6
    assert terminal.document("status", "node-a")["readiness"] == [
        {"source": "node-a", "check": "ttl", "result": "pass", "reason": ""}
    ]
    assert "ttl" in terminal.at("status", "node-a").stdout


@pytest.mark.parametrize(("source", "exit_code"), [("node-a", 9), ("node-b", 11), ("", 9)])
def test_status_for_monitors(running: MemoryMember, terminal: Terminal, source: str, exit_code: int) -> None:
    assert terminal.at("status", *([source] if source else []), "--check").exit_code == exit_code


def test_hostile_text_moves_no_cursor(running: MemoryMember, terminal: Terminal) -> None:
    running.state.warnings.append("\x1b[2Jgone\nFAKE ok")
    for result in (terminal.at("status"), terminal.at("status", "--json")):
        assert "\x1b" not in result.stdout and "\nFAKE" not in result.stdout


def test_hostile_names_in_tables(running: MemoryMember, terminal: Terminal) -> None:
    group = running.desk._groups()["node-a"]
    group.names = ("88.118/\x1b[31mX\u202e",)  # type: ignore[attr-defined]
    for result in (terminal.at("hold", "show", HOLD_ID), terminal.at("hold", "show", HOLD_ID, "--json")):
        assert result.exit_code == 0 and "\x1b" not in result.stdout and "\u202e" not in result.stdout
        assert "88.118/\\u001b[31mX" in result.stdout


class Lying(MemoryMember):
    """Shows another plan than the one its token names."""

    async def hold_plan_of(self, token: str) -> HoldPlan:
        return replace(await MemoryMember.hold_plan_of(self, token), text="zaibei hold decision 1\nact release\n")


def test_a_member_that_shows_another_plan_gets_no_signature(
    signers: dict[str, Signer], here: Path, terminal: Terminal, keys: dict[str, Path]
) -> None:
    honest = member(signers)
    with serving(Lying(honest.state, honest.desk), here / "admin.sock"):
        token = terminal.document("hold", "plan", HOLD_ID, "discard")["plan"]["token"]
        result = terminal.at("hold", "sign", token, "--key", str(keys["li.wei"]), "--yes")
        assert result.exit_code == 9 and "Nothing was signed" in result.stderr


def test_metrics(running: MemoryMember, terminal: Terminal) -> None:
    assert "zaibei_feed_batches_total" in terminal.at("metrics").stdout
    assert terminal.document("metrics", "zaibei_store")["samples"][0]["value"] == 3.0


@pytest.mark.parametrize(
    ("findings", "exit_code"),
    [
        (["sound", "sound"], 0),
        (["sound", None], 11),
        (["sound", "unknown"], 11),
        (["unreadable", None], 9),
        (["different"], 9),
        ([], 11),
    ],
)
def test_copies_for_monitors(running: MemoryMember, terminal: Terminal, findings: list[str | None], exit_code: int) -> None:
    running.proofs["copies"] = [copy_row(f"node-{place}", finding) for place, finding in enumerate(findings)]
    assert terminal.at("copy", "list", "--check").exit_code == exit_code
    assert terminal.at("copy", "list").exit_code == 0


def test_a_scrub_is_waited_for(running: MemoryMember, terminal: Terminal) -> None:
    running.proofs["scrub"] = {"asked_ms": 1_800_000_000_000}
    running.proofs["copies"] = [copy_row("node-a", "different")]
    result = terminal.at("copy", "scrub", "node-a")
    assert result.exit_code == 9 and "different" in result.stdout and "2027-01-15 08:00 UTC" in result.stdout
    running.proofs["copies"] = []
    assert terminal.at("copy", "scrub", "node-a").exit_code == 11
    assert terminal.document("copy", "scrub", "node-a", "--no-wait")["asked_ms"] == 1_800_000_000_000


def copy_row(source: str, finding: str | None) -> dict[str, object]:
    at_ms = None if finding is None else 1_800_000_000_000
    row: dict[str, object] = {"source": source, "reading": False, "waiting": False, "finding": finding, "at_ms": at_ms}
    return {**row, "records": 3, "octets": 4_000_000, "took_ms": 900, "text": ""}


def test_takeover_finds_its_member(running: MemoryMember, terminal: Terminal) -> None:
    running.takeover["rehearse", "node-a"] = {"result": "pass", "detail": "found at 2 of 2"}
    assert "pass: found" in terminal.at("takeover", "rehearse", "node-a").stdout
    assert terminal.at("takeover", "rehearse", "node-c").exit_code == 6


@pytest.mark.parametrize("words", [["status"], ["hold", "list"], ["metrics"], ["stop"], ["takeover", "status"]])
def test_no_member_is_unreachable(terminal: Terminal, words: list[str]) -> None:
    result = terminal.at(*words)
    assert result.exit_code == 8 and "zaibei up" in result.stderr and "Traceback" not in result.output
    if words[0] != "takeover":
        assert terminal.document(*words)["error"]["exit"] == 8


def test_operators(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    added = json.loads(terminal.type("operator", "add", "li.wei", "--json").stdout)
    file = tmp_path / "m.toml"
    file.write_text(added["toml"])
    listed = json.loads(terminal.type("operator", "list", "--config", str(file), "--json").stdout)
    assert listed["operators"] == [{"name": "li.wei", "public_key": added["public_key"]}]
    assert listed["key_files"] == [added["key_file"]] and Path(added["key_file"]).stat().st_mode & 0o777 == 0o600
    assert terminal.type("operator", "add", "li.wei").exit_code == 7
    assert terminal.type("operator", "add", "Li Wei").exit_code == 2
    private = Path(added["key_file"]).read_text()
    assert private.splitlines()[1] not in terminal.type("operator", "list").output


def test_identity(terminal: Terminal) -> None:
    assert terminal.at("identity", "show").exit_code == 6
    made = json.loads(terminal.at("identity", "create", "--json").stdout)
    assert terminal.document("identity", "show") == made and made["fingerprint"].startswith("sha256:")
    assert "PRIVATE" not in terminal.at("identity", "show").stdout


def test_both_sides_accept_what_the_other_prints(terminal: Terminal, tmp_path: Path) -> None:
    """`identity show` goes into a source's file, `source identity` into the member's, as they are."""
    member_block = json.loads(terminal.at("identity", "create", "--json").stdout)["block"]
    (tmp_path / "records.jsonl").write_text("")
    (tmp_path / "s.toml").write_text(
        f'[source]\nname = "node-a"\nprefixes = ["88.118"]\n[serve]\nlisten = ["127.0.0.1:2645"]\n'
        f'[[input]]\npath = "records.jsonl"\nformat = "jsonl"\n{member_block}'
    )
    printed = terminal.type("source", "identity", "--config", str(tmp_path / "s.toml"))
    assert printed.exit_code == 0, printed.output
    (tmp_path / "m.toml").write_text(printed.stdout)
    checked = terminal.type("config", "check", "--config", str(tmp_path / "m.toml"))
    assert checked.exit_code == 0, checked.output


def test_config(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text(terminal.type("config", "example").stdout)
    assert terminal.type("config", "check", "--config", str(file)).exit_code == 0
    file.write_text('[member]\nname = "M"\n[listen]\nhandel = []\n')
    result = terminal.type("config", "check", "--config", str(file))
    assert result.exit_code == 2 and "did you mean" in result.stdout and "2 to correct" in result.stdout
    document = json.loads(terminal.type("config", "check", "--config", str(file), "--json").stdout)
    assert [fault["path"] for fault in document["faults"]] == ["member.name", "listen.handel"]
    broken = terminal.type("status", "--config", str(file))
    assert broken.exit_code == 2 and "member.name" in broken.stderr
    shown = json.loads(terminal.at("config", "show", "--json").stdout)
    assert shown["config"]["member"]["data"] == str(terminal.data) and shown["origins"]["member.data"] == "--data"


def test_help_pages(terminal: Terminal) -> None:
    exits = json.loads(terminal.type("help", "exit-codes", "--json").stdout)["exit_codes"]
    assert [row["exit"] for row in exits] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 11, 12]
    assert terminal.type("help", "nothing").exit_code == 2
    for page in ("json", "plans"):
        assert "Next" in terminal.type("help").stdout and terminal.type("help", page).exit_code == 0


def test_near_commands_are_named(terminal: Terminal) -> None:
    result = terminal.type("staus")
    assert result.exit_code == 2 and "zaibei status" in result.stderr
    document = json.loads(terminal.type("staus", "--json").stdout)
    assert document["error"]["code"] == "usage"


# What a shell runs in its background ignores Ctrl-C. Undone after the start: a fork of this process would carry gRPC's threads.
HEEDING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from ops.cli.main import main; main()"


def test_watch_goes_on_until_told(running: MemoryMember, here: Path) -> None:
    command = [sys.executable, "-c", HEEDING, "status", "--watch", "--every", "0.2", "--json", "--data", str(here)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        assert process.wait(30) == 0 and errors == "", errors
        assert [json.loads(line)["member"] for line in lines] == ["member-1", "member-1"]


def test_a_watch_outlives_a_member_that_is_away(running: MemoryMember, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([None, ZaibeiError(Code.UNREACHABLE, "no member runs there"), None, KeyboardInterrupt()])
    truly = AdminClient.status

    def look(self: AdminClient) -> Status:
        if (failure := next(looks)) is not None:
            raise failure
        return truly(self)

    monkeypatch.setattr(AdminClient, "status", look)
    command = ["status", "--watch", "--every", "0.2", "--json", "--data", str(here)]
    result = CliRunner().invoke(cli, command, env={"ZAIBEI_CONFIG": ""})
    kinds = ["error" in json.loads(line) for line in result.stdout.splitlines()]
    assert (kinds, result.exit_code) == ([False, True, False], 0)
