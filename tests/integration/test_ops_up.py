"""The shell of `zaibei up` as a real process: ready block, lock, ports, rights, signals, hard end, errors in words."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ops.admin.edge_client import AdminClient
from ops.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
STANDIN = Path(__file__).with_name("ops_standin.py")
LISTEN = """
[member]
log = "json"
[listen]
handle = ["127.0.0.1:0", "[::1]:0"]
http = []
grpc = []
feed = []
beats = []
registration = []
metrics = ["[::1]:0", "127.0.0.1:0"]
"""


class Process:
    """One stand-in process; killed at the end of its test, whatever happened."""

    def __init__(self, folder: Path, mode: str, *flags: str, config: str = LISTEN) -> None:
        (folder / "m.toml").write_text(config)
        self.errors = folder / f"stderr-{mode}"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(STANDIN), mode, str(folder), *flags],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def ready(self) -> Any:
        document = json.loads(self.line())
        assert document["event"] == "ready"
        return document

    def end(self) -> tuple[int, str]:
        code = self.process.wait(60)
        return code, self.errors.read_text()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    running: list[Process] = []

    def make(mode: str, *flags: str, config: str = LISTEN) -> Process:
        running.append(Process(tmp_path, mode, *flags, config=config))
        return running[-1]

    yield make
    for process in running:
        process.kill()


def test_ready_serves_and_stops_by_command(start: Any, tmp_path: Path) -> None:
    process = start("serve", "--json")
    ready = process.ready()
    assert ready["pid"] == process.process.pid and ready["fingerprint"].startswith("sha256:")
    assert [address.rpartition(":")[0] for address in ready["addresses"]["metrics"]] == ["[::1]", "127.0.0.1"]
    for address in ready["addresses"]["metrics"]:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            assert b'zaibei_process_build_info{role="member"' in answer.read()
    stopped = CliRunner().invoke(cli, ["stop", "--data", str(tmp_path / "data")])
    assert stopped.exit_code == 0 and "has stopped" in stopped.stdout
    code, errors = process.end()
    assert code == 0
    assert [json.loads(line)["message"] for line in errors.splitlines()][-1] == "stopped"
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_stop_in_order(start: Any, number: signal.Signals) -> None:
    process = start("serve", "--json")
    process.ready()
    process.process.send_signal(number)
    assert process.end()[0] == 0


def test_told_twice_ends_at_once(start: Any) -> None:
    process = start("stuck", "--json")
    process.ready()
    process.process.send_signal(signal.SIGTERM)
    while "stopping" not in process.errors.read_text():
        time.sleep(0.02)
    process.process.send_signal(signal.SIGTERM)
    code, errors = process.end()
    assert code == 1 and "told twice" in errors


def test_words_for_people(start: Any, tmp_path: Path) -> None:
    process = start("serve")
    lines = [process.line() for _ in range(6)]
    assert lines[0].startswith(f"member-1 is up: process {process.process.pid}, data in {tmp_path / 'data'}")
    assert any(line.startswith("  metrics  [::1]:") for line in lines) and any("identity sha256:" in line for line in lines)


def test_one_process_per_folder(start: Any, tmp_path: Path) -> None:
    first = start("serve", "--json")
    first.ready()
    code, errors = start("ends").end()
    assert (
        code == 7 and f"process {first.process.pid} already runs on {tmp_path / 'data'}" in errors and "Traceback" not in errors
    )
    with AdminClient(tmp_path / "data" / "admin.sock") as client:
        assert client.status().member == "member-1"  # the second one touched nothing


def test_after_sigkill_the_next_one_starts(start: Any) -> None:
    first = start("serve", "--json")
    before = first.ready()
    first.process.kill()
    first.process.wait()
    again = start("serve", "--json").ready()
    assert again["fingerprint"] == before["fingerprint"]


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_ports_in_use_are_told_together(start: Any, family: int, host: str) -> None:
    with socket.socket(family) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
        tcp.bind((host, 0))
        tcp.listen()
        udp.bind((host, 0))
        shown = host if family == socket.AF_INET else f"[{host}]"
        http, beats = f"{shown}:{tcp.getsockname()[1]}", f"{shown}:{udp.getsockname()[1]}"
        config = LISTEN.replace("http = []", f'http = ["{http}"]').replace("beats = []", f'beats = ["{beats}"]')
        code, errors = start("ends", config=config).end()
    assert code == 7 and "Traceback" not in errors
    assert f"[listen] http: {http} (tcp) is in use" in errors and f"[listen] beats: {beats} (udp) is in use" in errors


def test_an_address_of_another_machine(start: Any) -> None:
    config = LISTEN.replace("http = []", 'http = ["[2001:db8::1]:8000", "192.0.2.1:8000"]\nallow_public = true')
    code, errors = start("ends", config=config).end()
    assert code == 2 and errors.count("is no address of this machine") == 2


def test_trouble_of_the_composition_is_words(start: Any) -> None:
    code, errors = start("fail").end()
    assert code == 9 and "000012.sst" in errors and "next: zaibei source reseed node-a" in errors and "Traceback" not in errors


def test_trouble_with_json_is_one_document(start: Any) -> None:
    process = start("fail", "--json")
    assert json.loads(process.line())["error"]["code"] == "damaged"
    assert process.end()[0] == 9


def test_a_part_of_an_identity_is_damage(start: Any, tmp_path: Path) -> None:
    start("ends").end()
    (tmp_path / "data/identity/tls.key").unlink()
    code, errors = start("ends").end()
    assert code == 9 and "a part of an identity" in errors


def test_a_key_others_can_read_is_refused(start: Any, tmp_path: Path) -> None:
    assert start("ends").end()[0] == 0
    (tmp_path / "data/identity/tls.key").chmod(0o644)
    code, errors = start("ends").end()
    assert code == 3 and "chmod 600" in errors


def test_a_file_in_the_folders_place(start: Any, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    code, errors = start("ends").end()
    assert code == 2 and "is no folder" in errors


def test_a_folder_nobody_may_write() -> None:
    """Through /proc, where not even root may make a folder."""
    code, errors = subprocess_up("--data", "/proc/zaibei")
    assert code == 3 and "cannot write in /proc/zaibei" in errors and "Traceback" not in errors


def test_too_few_open_files_is_words(tmp_path: Path) -> None:
    lowered = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300)); from ops.cli.main import main; main()"
    code, errors = subprocess_up("--data", str(tmp_path / "d"), by=("-c", lowered))
    assert code == 2 and "allows 300 open files" in errors and "LimitNOFILE" in errors and "Traceback" not in errors


def subprocess_up(*words: str, by: tuple[str, str] = ("-m", "ops.cli.main")) -> tuple[int, str]:
    command = [sys.executable, *by, "up", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr
