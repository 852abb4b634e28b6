"""`zaibei register` against `zaibei up`: a registrar's first identifier, preconditions as exit codes, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ops.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
READY_S_MAX = 60
FILE = """
[listen]
handle = ["127.0.0.1:0"]
http = []
grpc = []
feed = []
beats = []
metrics = []
registration = ["127.0.0.1:0", "[::1]:0"]
[[source]]
name = "region-9"
prefixes = ["88.118.9"]
hosted = true
{registrars}
"""


def run(*words: str) -> tuple[int, Any]:
    result = CliRunner().invoke(cli, [*words, "--json"], standalone_mode=True)
    return result.exit_code, json.loads(result.stdout) if result.stdout.strip() else None


class Up:
    """`zaibei up` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / "stderr").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ops.cli.main", "up", "--json", "--config", str(folder / "zaibei.toml")],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (folder / "stderr").read_text()
        self.told = json.loads(line)["addresses"]
        self.addresses = self.told["registration"]

    def stop(self) -> None:
        """As an operator stops it; to its end."""
        self.process.terminate()
        assert self.process.wait(60) == 0

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(READY_S_MAX)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code, mine = run("register", "identity", "--name", "tenant-9", "--identity", str(tmp_path / "registrar"))
    assert code == 0
    (tmp_path / "zaibei.toml").write_text(FILE.format(registrars=mine["block"]))
    assert run("identity", "create", "--config", str(tmp_path / "zaibei.toml"))[0] == 0
    return tmp_path


@pytest.fixture
def ups(folder: Path) -> Iterator[list[Up]]:
    running = [Up(folder)]
    yield running
    for one in running:
        one.kill()


def test_a_registrars_day(folder: Path, ups: list[Up]) -> None:
    def register(verb: str, *words: str, server: int = 0) -> tuple[int, Any]:
        where = ["--server", ups[-1].addresses[server], "--identity", str(folder / "registrar")]
        member = ["--member-file", str(folder / "zaibei-data" / "identity" / "certificate.pem")]
        return run("register", verb, *words, *where, *member)

    assert register("get", "88.118.9/A")[0] == 6
    code, done = register("put", "88.118.9/A", "--value", "URL=https://example.cn/a", "--absent")
    assert code == 0 and done["tries"] == 1
    code, told = register("put", "88.118.9/A", "--value", "URL=other", "--absent")
    assert (code, told["error"]["code"], told["error"]["definite"]) == (7, "conflict", True)
    code, found = register("get", "88.118.9/A", server=1)
    assert code == 0 and found["hash"] == done["hash"] and found["values"][0]["data"]["value"] == "https://example.cn/a"
    values = json.dumps([{"index": 100, "type": "EMAIL", "data": "a@example.cn"}])
    assert register("put", "88.118.9/A", "--json-values", values, "--equal", found["hash"])[0] == 0
    assert register("put", "88.119/A", "--value", "URL=x")[0] == 3
    assert register("put", "88.118.9/A", "--value", "URL=x", "--absent", "--present")[0] == 2
    ups[-1].kill()
    code, told = register("put", "88.118.9/B", "--value", "URL=x", "--timeout-ms", "800")
    assert (code, told["error"]["code"]) == (8, "unreachable"), "nothing was sent"
    ups.append(Up(folder))
    code, listed = register("list", "88.118.9")
    assert code == 0 and [one["identifier"] for one in listed["records"]] == ["88.118.9/A"]
    assert listed["records"][0]["values"][0]["type"] == "EMAIL"
    assert register("delete", "88.118.9/A", "--present")[0] == 0
    assert register("delete", "88.118.9/A", "--present")[0] == 7
    status = run("status", "--config", str(folder / "zaibei.toml"))
    assert status[1]["sources"][0]["authority"] == "REGISTRATION"


@pytest.mark.parametrize("verb", ["identity", "put", "delete", "get", "list"])
def test_every_verb_teaches(verb: str) -> None:
    text = CliRunner().invoke(cli, ["register", verb, "--help"]).stdout
    assert "Example" in text and f"zaibei register {verb}" in text.split("Example", 1)[1] and "--json" in text
