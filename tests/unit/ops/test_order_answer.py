"""`zaibei order answer`: what a request asks for, in words, and an answer that the adapter takes for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ops.cli.main import cli
from ops.operators import edge_keys
from replica.model.signing import Signer
from replica.model.states import Result as Seen
from replica.takeover.request import judge_answer, name_of, write_request
from tests.unit.ops.support import source_identity
from tests.unit.takeover.test_top_record import NODE, resolution, withdrawal


class Desk:
    """A member's request in a folder, the member's certificate, and the top-level node's key."""

    def __init__(self, folder: Path) -> None:
        self.member, self.folder = source_identity(folder / "member", "member-1"), folder
        (folder / "member-1.pem").write_bytes(self.member.certificate_pem)
        self.key: Signer = edge_keys.create(folder / "beijing.key")
        self.path = folder / name_of(resolution(9, NODE), "member-1")
        self.path.write_bytes(write_request(resolution(9, NODE), "member-1", self.member.signer))

    def run(self, *more: str) -> Result:
        return CliRunner().invoke(cli, ["order", "answer", str(self.path), "--trust", str(self.folder / "member-1.pem"), *more])

    @property
    def answer(self) -> Path:
        return self.path.with_name(self.path.name.replace(".request", ".answer"))

    def judged(self) -> tuple[Seen, str]:
        said = judge_answer(self.answer.read_bytes(), self.path.read_bytes(), "beijing", self.key.public)
        return said.result, said.detail


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_it_says_what_is_asked_and_answers_with_a_key_alone(desk: Desk) -> None:
    looked = desk.run()
    assert looked.exit_code == 0 and not desk.answer.exists()
    for part in (
        "member-1",
        "0.NA/88.118",
        "exactly these HS_SITE values",
        "192.0.2.5, serial 9",
        "198.51.100.7, serial 4, primary",
    ):
        assert part in looked.output
    done = desk.run("--key", str(desk.folder / "beijing.key"), "--text", "since noon", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["result"] == "done"
    assert desk.judged() == (Seen.PASS, "done, says beijing: since noon")
    assert desk.run("--key", str(desk.folder / "beijing.key"), "--refuse", "not agreed").exit_code == 0
    assert desk.judged() == (Seen.FAIL, "refused by beijing: not agreed")


def test_a_withdrawal_asks_for_what_stood_there(desk: Desk) -> None:
    desk.path.write_bytes(write_request(withdrawal(10), "member-1", desk.member.signer))
    assert "put back what stood there before" in desk.run().output


def test_a_request_of_nobody_we_trust_is_not_answered(desk: Desk, tmp_path: Path) -> None:
    key = ("--key", str(desk.folder / "beijing.key"))
    other = source_identity(tmp_path / "other", "member-1")
    for octets, code in (
        (write_request(resolution(9, NODE), "member-1", other.signer), 3),
        (write_request(resolution(9, NODE), "member-2", desk.member.signer), 3),
        (desk.path.read_bytes().replace(b'"serial": 9', b'"serial": 8'), 3),
        (b"{}", 2),
    ):
        desk.path.write_bytes(octets)
        assert desk.run(*key).exit_code == code
    assert not desk.answer.exists()
    assert desk.run(*key, "--refuse", "x", "--text", "y").exit_code == 2
