"""`zaibei pki`, `source enroll`, `source join`: words, JSON, exit codes, and what must not happen."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ops.cli.main import cli
from ops.config import load_config
from replica.enrol.token import decode_token
from replica.model.edge_identity import ensure_identity
from replica.model.trust import Role


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def run(*words: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(words), input=typed, env={"COLUMNS": "200", "ZAIBEI_CONFIG": ""})


def document(*words: str) -> Any:
    result = run(*words, "--json")
    assert result.stdout.count("\n") == 1, result.output
    return json.loads(result.stdout)


def configured(here: Path) -> None:
    made = document("pki", "init", "--folder", "pki")
    # Nobody listens at port 1: what runs on this machine must not answer in a member's place.
    (here / "zaibei.toml").write_text(made["toml"] + '\nreach = ["127.0.0.1:1"]\n')
    assert run("pki", "renew").exit_code == 0


def test_a_ca_is_never_made_over_another(here: Path) -> None:
    assert run("pki", "init", "--folder", "pki").exit_code == 0
    before = (here / "pki" / "ca.key").read_bytes()
    assert run("pki", "init", "--folder", "pki").exit_code == 7
    assert (here / "pki" / "ca.key").read_bytes() == before


def test_a_passphrase_is_asked_or_read_and_never_an_argument(here: Path) -> None:
    assert run("pki", "init", "--folder", "asked", "--passphrase", typed="secret\nsecret\n").exit_code == 0
    (here / "pass").write_text("secret\n")
    issue = ("pki", "issue", "operator", "li", "--folder", "asked")
    assert run(*issue, typed="wrong\n").exit_code == 3
    assert run(*issue, "--passphrase-file", "pass").exit_code == 0
    assert run("pki", "init", "--folder", "x", "--passphrase", "secret").exit_code == 2


def test_issued_identities_are_what_a_process_expects(here: Path) -> None:
    configured(here)
    member = document("pki", "issue", "member", "member-2", "--number", "2", "--cluster", "ab" * 16)
    assert {"zaibei:member:2", f"zaibei:cluster:{'ab' * 16}"} <= set(member["names"])
    assert ensure_identity(here / "member-2-identity", "member-2").fingerprint == member["fingerprint"]
    source = document("pki", "issue", "source", "node-a", "--prefix", "88.118.8", "--out", "a")
    (here / "zaibei.toml").write_text((here / "zaibei.toml").read_text() + source["toml"])
    (one,) = load_config(None).config.sources
    assert one.peer is not None and (one.name, one.peer.certificate_pem) == ("node-a", b"")
    assert run("pki", "issue", "source", "node-a", "--prefix", "88.118.8", "--out", "a").exit_code == 7


@pytest.mark.parametrize(
    "words",
    [
        ("member", "m"),
        ("source", "s", "--number", "3", "--prefix", "88"),
        ("source", "s"),
        ("source", "S!", "--prefix", "88"),
        ("operator", "li", "--cluster", "ab" * 16),
        ("member", "m", "--number", "1", "--cluster", "xy"),
    ],
)
def test_what_makes_no_certificate(here: Path, words: tuple[str, ...]) -> None:
    configured(here)
    before = document("pki", "show")["certificates"]
    assert run("pki", "issue", *words).exit_code == 2
    assert document("pki", "show")["certificates"] == before


def test_revocation_is_planned_first(here: Path) -> None:
    configured(here)
    document("pki", "issue", "operator", "li")
    plan = document("pki", "revoke", "li")["plan"]
    assert {one["state"] for one in document("pki", "show")["certificates"]} == {"good"}
    document("pki", "issue", "operator", "li", "--out", "second")  # the world moved on
    assert run("pki", "revoke", "li", "--plan", plan["token"]).exit_code == 4
    assert run("pki", "revoke", "nobody").exit_code == 6


def test_renewal_turns_a_self_signed_member_into_one_of_the_ca_and_keeps_its_signing_key(here: Path) -> None:
    first = ensure_identity(here / "zaibei-data" / "identity", "member-1")
    configured(here)
    after = ensure_identity(here / "zaibei-data" / "identity", "member-1")
    assert after.fingerprint != first.fingerprint and after.signer.public == first.signer.public
    shown = document("identity", "show")
    assert shown["issuer"] == "CN=zaibei private CA" and shown["ends_days"] > 300


def test_without_a_ca_every_verb_says_the_next_step(here: Path) -> None:
    for words in (("pki", "show"), ("pki", "renew"), ("source", "enroll", "a", "--prefix", "88")):
        result = run(*words)
        assert result.exit_code == 6 and "next:" in result.output.lower(), words


def test_where_the_ca_is_not_the_member_that_has_it_is_named(here: Path) -> None:
    configured(here)
    (here / "ca.pem").write_bytes((here / "pki" / "ca.pem").read_bytes())
    (here / "other.toml").write_text('[member]\nname = "member-2"\n[pki]\nroots = ["ca.pem"]\nreach = ["192.0.2.1:2648"]\n')
    result = run("source", "enroll", "a", "--prefix", "88", "--config", "other.toml")
    assert result.exit_code == 6 and "192.0.2.1:2648" in result.output
    assert document("pki", "show", "--config", "other.toml")["roots"]


def test_a_token_names_all_that_a_node_needs_and_its_secret_stays_nowhere(here: Path) -> None:
    configured(here)
    said = document("source", "enroll", "node-a", "--prefix", "88.118.8", "--hours", "2")
    token = decode_token(said["token"])
    assert (token.role, token.name, list(token.addresses)) == (Role.SOURCE, "node-a", said["addresses"])
    assert "sha256:" + token.authority.hex() == document("pki", "show")["fingerprint"]
    files = [path.read_bytes() for path in here.rglob("*") if path.is_file()]
    assert not any(token.secret in octets or token.secret.hex().encode() in octets for octets in files)


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [
        (("member-1", "--prefix", "88"), 7),
        (("node-a",), 2),
        (("NODE", "--prefix", "88"), 2),
        (("node-a", "--prefix", "88", "--pull", "nowhere"), 2),
        (("node-a", "--prefix", ""), 2),
    ],
)
def test_what_gets_no_token(here: Path, words: tuple[str, ...], exit_code: int) -> None:
    configured(here)
    assert run("source", "enroll", *words).exit_code == exit_code
    assert document("pki", "show")["tokens"] == []


def test_join_refuses_before_anything_is_sent(here: Path) -> None:
    configured(here)
    text = document("source", "enroll", "node-a", "--prefix", "88.118.8")["token"]
    assert run("source", "join", text[:-5]).exit_code == 2
    assert run("source", "join", text).exit_code == 8  # nobody listens
    (here / "source.toml").write_text("# mine\n")
    assert run("source", "join", text).exit_code == 7
    assert (here / "source.toml").read_text() == "# mine\n"
    assert document("pki", "show")["tokens"][0]["state"] == "open"


def test_pki_files_are_checked_with_the_configuration(here: Path) -> None:
    for lines, where in (
        ('folder = "nowhere"', "pki.roots"),
        ('crl = ["x.pem"]', "pki.crl"),
        ('roots = ["zaibei.toml"]', "pki.roots"),
        ('roots = "ca.pem"', "pki.roots"),
    ):
        (here / "zaibei.toml").write_text(f"[pki]\n{lines}\n")
        result = run("config", "check", "--json")
        assert result.exit_code == 2 and where in {one["path"] for one in json.loads(result.stdout)["faults"]}, lines
