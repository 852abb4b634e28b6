"""A source from nothing to its first receipt in three commands, at a member that is not restarted; then renewal, revocation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ops.cli.main import cli
from replica.model.edge_identity import ensure_identity
from tests.acceptance.world import ROOT, stable_port, until

CSV = "handle,index,type,data,ttl\n88.118.8/XYZ-001,1,URL,https://example.cn/a,86400\n"


class Place:
    """One machine: a folder, commands typed in it, and processes begun in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def type(self, *words: str, typed: str | None = None) -> Result:
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            return CliRunner().invoke(cli, list(words), input=typed, env={"COLUMNS": "200", "ZAIBEI_CONFIG": ""})
        finally:
            os.chdir(before)

    def document(self, *words: str) -> Any:
        result = self.type(*words, "--json")
        assert result.stdout.count("\n") == 1, result.output
        return json.loads(result.stdout)

    def done(self, *words: str, typed: str | None = None) -> str:
        result = self.type(*words, typed=typed)
        assert result.exit_code == 0, result.output
        return result.stdout

    def begin(self, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "ZAIBEI_CONFIG": ""}
        with (self.folder / f"{words[0]}.log").open("ab") as log:
            self.processes[words[0]] = subprocess.Popen(
                [sys.executable, "-m", "ops.cli.main", *words], cwd=self.folder, env=environment, stdout=log, stderr=log
            )

    def said(self, word: str) -> str:
        return (self.folder / f"{word}.log").read_text(encoding="utf-8", errors="replace")

    def end(self, word: str) -> None:
        process = self.processes.pop(word)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "centre")
    listen = {name: f'["127.0.0.1:{stable_port()}"]' for name in ("handle", "http", "grpc", "feed", "beats", "registration")}
    lines = ["[listen]", *(f"{name} = {addresses}" for name, addresses in listen.items()), "metrics = []"]
    made = place.document("pki", "init", "--folder", "pki")
    lines += [made["toml"], f'enrol = ["127.0.0.1:{stable_port()}"]']
    (place.folder / "zaibei.toml").write_text("\n".join(lines) + "\n")
    place.begin("up")
    until("the member is up", lambda: place.type("status").exit_code == 0)
    yield place
    for word in list(place.processes):
        place.end(word)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "node")
    (place.folder / "registry.csv").write_text(CSV)
    yield place
    for word in list(place.processes):
        place.end(word)


def receipted(node: Place) -> bool:
    return bool(node.document("source", "status").get("receipted"))


def connected(node: Place) -> bool:
    return bool(node.document("source", "status")["push"][0]["connected"])


def test_three_commands_to_the_first_receipt_then_renewal_then_revocation(centre: Place, node: Place) -> None:
    said = centre.done("source", "enroll", "node-a", "--prefix", "88.118.8")
    assert said.startswith("zaibei source join zaibei1-")
    node.done(*said.split()[1:])
    node.begin("source", "serve")
    until("a receipt", lambda: receipted(node))
    assert centre.document("status")["sources"][0]["source"] == "node-a"
    assert "further source is copied" in centre.said("up")

    # the same token once more, at another node: another pair of keys
    again = Place(node.folder.parent / "thief")
    refused = again.type(*said.split()[1:], "--json")
    assert refused.exit_code == 3 and json.loads(refused.stdout)["error"]["code"] == "not_authorised"
    assert not (again.folder / "source.toml").exists()
    assert "used already by another request" in centre.said("up")

    before = json.loads((node.folder / "zaibei-source" / "status.json").read_text())["pid"]
    renewed = node.document("pki", "renew", "--source", "source.toml")
    shown = centre.document("pki", "show")
    assert renewed["serial"] in {one["serial"] for one in shown["certificates"] if one["state"] == "good"}
    until("the renewed one is in use", lambda: "a renewed certificate is in use" in node.said("source"))
    until("and the stream stands again", lambda: connected(node))

    plan = centre.document("pki", "revoke", "source/node-a")["plan"]
    assert len(plan["serials"]) == 2 and connected(node)
    assert centre.type("pki", "revoke", "source/node-a", "--plan", "0" * 16).exit_code == 4
    assert centre.document("pki", "revoke", "source/node-a", "--plan", plan["token"])["revoked"] == plan["serials"]
    begun = time.monotonic()
    until("the stream has ended", lambda: not connected(node), seconds=10)
    assert time.monotonic() - begun < 6
    until("and says why", lambda: "revoked" in node.document("source", "status")["push"][0]["trouble"])
    assert json.loads((node.folder / "zaibei-source" / "status.json").read_text())["pid"] == before
    assert centre.document("pki", "revoke", "source/node-a", "--plan", plan["token"])["already"] is True

    # the machine is clean again: enrolled anew with new keys, its log goes on where it was
    head = node.document("source", "status")["head"]
    node.end("source")
    (node.folder / "zaibei-source" / "identity").rename(node.folder / "old-identity")
    (node.folder / "source.toml").rename(node.folder / "old.toml")
    node.done(*centre.done("source", "enroll", "node-a", "--prefix", "88.118.8").split()[1:])
    with (node.folder / "registry.csv").open("a") as file:
        file.write("88.118.8/XYZ-002,1,URL,https://example.cn/b,86400\n")
    node.begin("source", "serve")
    until("a receipt of what is new", lambda: node.document("source", "status").get("receipted") not in (None, head))
    until("both records are there", lambda: centre.document("status")["sources"][0]["records"] == 2)


def test_an_enrolled_source_is_there_after_a_restart(centre: Place, node: Place) -> None:
    token = centre.document("source", "enroll", "node-a", "--prefix", "88.118.8")["token"]
    node.done("source", "join", "-", typed=token + "\n")
    node.begin("source", "serve")
    until("a receipt", lambda: receipted(node))
    centre.end("up")
    centre.begin("up")
    until("it is copied again", lambda: centre.type("status").exit_code == 0 and connected(node))
    assert [one["name"] for one in centre.document("config", "show")["config"]["source"]] == ["node-a"]
    taken = centre.type("source", "enroll", "node-b", "--prefix", "88.118.8")
    assert taken.exit_code == 7 and "belongs to source 'node-a'" in taken.output


def test_a_cluster_member_that_signs_certificates_shows_what_it_is(centre: Place) -> None:
    shown = centre.document("identity", "show")
    assert {"zaibei:member:1", "zaibei.internal"} <= set(shown["names"]) and shown["issuer"] == "CN=zaibei private CA"
    assert 390 < shown["ends_days"] < 399
    assert ensure_identity(centre.folder / "zaibei-data" / "identity", "member-1").fingerprint == shown["fingerprint"]
