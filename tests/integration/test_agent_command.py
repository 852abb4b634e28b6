"""`zaibei source`: what it prints, its JSON and its exit codes, as a person or a script meets them."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ops.cli.main import cli
from replica.client import Publisher
from replica.model.edge_identity import ensure_identity
from replica.model.identity import FINGERPRINT_PREFIX

ROOT = Path(__file__).resolve().parents[2]


def process(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ops.cli.source", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


def zaibei(*words: object) -> subprocess.CompletedProcess[str]:
    """The same command in this process, which has imported all of it already."""
    done = CliRunner().invoke(cli, ["source", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess([], done.exit_code, done.stdout, done.stderr)


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    member = ensure_identity(tmp_path / "member", "member-1")
    path = tmp_path / "source.toml"
    path.write_text(
        '[source]\nname = "node-a"\nprefixes = ["88.118"]\nbeat_ms = 100\n[serve]\nlisten = ["127.0.0.1:0", "[::1]:0"]\n'
        f"[[member]]\nname = 'member-1'\ncertificate = '''{member.certificate_pem.decode()}'''\n"
    )
    return path


def test_identity_prints_a_block_that_a_member_can_read(config: Path) -> None:
    first, again = process("identity", "--config", config), zaibei("identity", "--config", config)
    assert first.returncode == 0 and first.stdout == again.stdout
    (block,) = tomllib.loads(first.stdout)["source"]
    assert block["name"] == "node-a" and block["prefixes"] == ["88.118"]
    assert block["fingerprint"].startswith(FINGERPRINT_PREFIX)
    assert document(zaibei("identity", "--config", config, "--json"))["fingerprint"] == block["fingerprint"]


def test_status_is_unknown_when_nobody_publishes(config: Path) -> None:
    assert zaibei("status", "--config", config).returncode == 6
    (config.parent / "zaibei-source").mkdir(exist_ok=True)
    stale = {"source": "node-a", "stated_s": -100.0, "push": [], "head": "x"}
    (config.parent / "zaibei-source" / "status.json").write_text(json.dumps(stale))
    done = zaibei("status", "--config", config, "--json")
    assert done.returncode == 11 and document(done)["running"] is None


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [("", 6, "is not there"), ("not toml", 2, "not TOML"), ("[source]\n", 2, "source.name is missing"), ("\xff", 2, "not TOML")],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, code: int, part: str) -> None:
    path = tmp_path / "source.toml"
    if text:
        path.write_bytes(text.encode("latin-1"))
    done = process("serve", "--config", path)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert part in done.stderr


def test_check_tells_each_rule_and_ends_in_its_code(config: Path) -> None:
    with Publisher(config) as publisher:
        publisher.put("88.118.8/A", {"URL": "x"})
        publisher.put("88.118.8/B", {"URL": "x"})
        publisher.commit()
        publisher.delete("88.118.8/B")
        publisher.commit()
        pin = config.parent / "pin.pem"
        pin.write_bytes(publisher.certificate_pem)
        four, six = map(str, publisher.addresses)
        base = ["check", four, "--also", six, "--pin", pin, "--identity", config.parent / "member"]
        some = ["--only", "prove", "--only", "history", "--only", "tls"]
        passed = zaibei(*base, *some, "--json")
        assert passed.returncode == 0, passed.stdout
        rules = {rule["rule"]: rule for rule in document(passed)["rules"]}
        assert rules["deletes.exact"]["result"] == "pass" and rules["ipv6"]["looked"] == 1
        short = zaibei(*base, "--only", "live", "--seconds", "1", "--json")
        assert (short.returncode, document(short)["verdict"]) == (11, "unknown")
        table = zaibei(*base, *some)
        assert table.returncode == 0 and "prove.forged" in table.stdout and ": pass (" in table.stdout
    gone = zaibei(*base, *some, "--json")
    assert gone.returncode == 8 and document(gone)["error"]["code"] == "unreachable"
    assert zaibei("check", "nowhere", "--pin", pin, "--identity", config.parent / "member").returncode == 2
