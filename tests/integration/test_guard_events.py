"""`zaibei up`, asked for too much by a network: a collector hears of it, with and without front processes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hosting.client.lookup import Question
from hosting.client.wire import encode_question
from ops.demo.stage import free_port

WAIT_S = 60.0


@pytest.mark.parametrize("fronts", [0, 1])
def test_an_attack_is_told(fronts: int, tmp_path: Path) -> None:
    port, http, grpc = free_port(), free_port(), free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mad:
        collector.bind(("127.0.0.1", 0))
        collector.settimeout(0.05)
        lines = [
            "[member]", 'data = "data"', 'name = "member-7"',
            "[listen]", f'handle = ["127.0.0.1:{port}"]', f'http = ["127.0.0.1:{http}"]', f'grpc = ["127.0.0.1:{grpc}"]',
            'feed = ["127.0.0.1:0"]', 'beats = ["127.0.0.1:0"]', "metrics = []", "registration = []", f"fronts = {fronts}",
            "[guard]", "trusted = []", "udp_requests_per_s = 1",
            "[security]", f'syslog = ["udp://127.0.0.1:{collector.getsockname()[1]}"]',
        ]  # fmt: skip
        (tmp_path / "m.toml").write_text("\n".join(lines))
        with (tmp_path / "stderr").open("wb") as errors:
            member = subprocess.Popen(
                [sys.executable, "-m", "ops.cli.main", "up", "--json", "--config", "m.toml"],
                cwd=tmp_path, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        try:
            assert member.stdout is not None
            said = member.stdout.readline()
            assert said and json.loads(said)["event"] == "ready", (tmp_path / "stderr").read_text()
            until, heard = time.monotonic() + WAIT_S, b""
            while not heard and time.monotonic() < until:
                for number in range(20):
                    mad.sendto(encode_question(Question("88.118.1/x"), number), ("127.0.0.1", port))
                try:
                    heard = collector.recv(65_536)
                except TimeoutError:
                    continue
        finally:
            member.terminate()
            member.wait(WAIT_S)
            if member.stdout is not None:
                member.stdout.close()
    assert b" zaibei member-7 attack [" in heard and b'client="127.0.0.0/24"' in heard and b'state="abnormal"' in heard
