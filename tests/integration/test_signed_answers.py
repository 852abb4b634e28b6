"""`zaibei up`, asked for signed answers, with and without front processes: the key in the site it shows is the one that signs."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.demo.stage import free_port
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, OpFlag
from replica.model.handle.message import decode_message
from replica.model.handle.signatures import judge_signature
from replica.model.handle.types import decode_site
from tests.unit.front.world import ask_tcp, operation, resolution

WAIT_S = 60.0


@pytest.mark.parametrize("fronts", [0, 1])
def test_a_members_answers_are_signed_with_the_key_in_its_site(fronts: int, tmp_path: Path) -> None:
    port, http, grpc = free_port(), free_port(), free_port()
    lines = [
        "[member]", 'data = "data"', 'name = "member-7"',
        "[listen]", f'handle = ["127.0.0.1:{port}"]', f'http = ["127.0.0.1:{http}"]', f'grpc = ["127.0.0.1:{grpc}"]',
        'feed = ["127.0.0.1:0"]', 'beats = ["127.0.0.1:0"]', "metrics = []", "registration = []", f"fronts = {fronts}",
    ]  # fmt: skip
    (tmp_path / "m.toml").write_text("\n".join(lines))
    shown = [_key_of(tmp_path, port)]
    file = tmp_path / "data" / "identity" / "site.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shown.append(_key_of(tmp_path, port))
    file.unlink()
    shown.append(_key_of(tmp_path, port))
    assert shown[0] == shown[1] != shown[2], "kept over a restart, and another one after it was moved away"


def _asked(port: int, octets: bytes) -> bytes:
    [answer] = asyncio.run(ask_tcp(("127.0.0.1", port), octets))
    return answer


def _key_of(folder: Path, port: int) -> bytes:
    """The key our site shows, when a resolution and the site itself are signed with it."""
    with (folder / "stderr").open("wb") as errors:
        member = subprocess.Popen(
            [sys.executable, "-m", "ops.cli.main", "up", "--json", "--config", "m.toml"],
            cwd=folder, stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    try:
        assert member.stdout is not None
        said = member.stdout.readline()
        assert said and json.loads(said)["event"] == "ready", (folder / "stderr").read_text()
        site = _asked(port, operation(OpCode.GET_SITE_INFO))
        until = time.monotonic() + WAIT_S
        while decode_message(site).header.response_code != 1 and time.monotonic() < until:  # a front has not heard of it yet
            time.sleep(0.05)
            site = _asked(port, operation(OpCode.GET_SITE_INFO))
        key = decode_site(decode_message(site).body).servers[0].public_key
        answer = _asked(port, resolution(b"10.1/x", flags=int(FLAGS_DEFAULT | OpFlag.CERTIFY)))
        judge_signature(decode_message(answer), answer, key)
        assert b"PRIVATE" not in (folder / "stderr").read_bytes()
        return key
    finally:
        member.terminate()
        member.wait(WAIT_S)
        if member.stdout is not None:
            member.stdout.close()
