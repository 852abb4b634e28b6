"""The admin channel over a real Unix socket: rights, limits, members that are gone, stuck or strange."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from ops.admin import calls, edge_client, edge_server
from ops.admin.codec import REQUEST_OCTETS_MAX
from ops.admin.edge_client import AdminClient
from ops.admin.edge_server import CONNECTIONS_MAX
from ops.admin.edge_socket import PATH_OCTETS_MAX
from ops.admin.memory import MemoryMember
from ops.admin.values import Status, Stopping
from replica.model.errors import Code, InvariantBroken, ZaibeiError
from tests.unit.ops.support import member, serving


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


def code_of(call: Any) -> Code:
    with pytest.raises(ZaibeiError) as caught:
        call()
    return caught.value.code


def test_calls_over_one_connection(path: Path) -> None:
    calls_ = member({})
    with serving(calls_, path), AdminClient(path) as client:
        assert client.status() == calls_.state
        assert client.holds("") == calls_.desk.holds()
        assert client.readiness("node-a") == calls_.checks
        assert client.metrics("zaibei_store")[0].value == 3.0
        assert code_of(lambda: client.hold_run("none")) is Code.NOT_FOUND
        assert client.status().member == "member-1"
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


def test_a_path_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    long = folder / "admin.sock"
    assert len(os.fsencode(long)) > PATH_OCTETS_MAX
    with serving(member({}), long), AdminClient(long) as client:
        assert client.status().member == "member-1"


def test_nobody_there(path: Path) -> None:
    with pytest.raises(ZaibeiError, match="zaibei up") as caught:
        AdminClient(path).status()
    assert (caught.value.code, caught.value.trouble.retry) == (Code.UNREACHABLE, True)


def test_a_stale_socket_is_nobody_and_is_replaced(path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    assert code_of(AdminClient(path).status) is Code.UNREACHABLE
    with serving(member({}), path), AdminClient(path) as client:
        assert client.status().pid == 4_711


class Faulty(MemoryMember):
    """Breaks in `status`; hangs in `stop`."""

    async def status(self) -> Status:
        raise InvariantBroken("no such thing")

    async def stop(self) -> Stopping:
        await asyncio.Event().wait()
        raise AssertionError


def faulty() -> Faulty:
    good = member({})
    return Faulty(good.state, good.desk)


def test_a_fault_inside_is_told_and_the_channel_lives(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(faulty(), path), AdminClient(path) as client:
        with pytest.raises(ZaibeiError, match="InvariantBroken") as caught:
            client.status()
        assert (caught.value.code, caught.value.trouble.definite) == (Code.UNKNOWN, False)
        assert client.sources()[0].source == "node-a"


def test_a_stuck_change_is_unknown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "CHANGE_TIMEOUT_S", 0.05)
    with serving(faulty(), path), AdminClient(path) as client:
        with pytest.raises(ZaibeiError, match="not known") as caught:
            client.stop()
        assert (caught.value.code, caught.value.trouble.definite) == (Code.UNKNOWN, False)


@pytest.mark.parametrize(("call", "code"), [("status", Code.UNREACHABLE), ("stop", Code.UNKNOWN)])
def test_a_member_that_dies_during_a_call(path: Path, call: str, code: Code) -> None:
    """A read may be repeated; of a change nobody knows."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def hang_up() -> None:
        connection, _ = listener.accept()
        connection.recv(1)
        connection.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    assert code_of(getattr(AdminClient(path), call)) is code
    thread.join()
    listener.close()


@pytest.mark.parametrize(
    "octets",
    [
        b"\n",
        b"{}\n",
        b"\x00\xff\n",
        b'{"v":9,"id":1,"call":"status"}\n',
        b"x" * (REQUEST_OCTETS_MAX + 10) + b"\n",
        b"[" * 60_000 + b"\n",
    ],
    ids=["empty", "no call", "octets", "version", "long", "deep"],
)
def test_strange_octets_get_an_error_and_others_are_served(path: Path, octets: bytes) -> None:
    with serving(member({}), path):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(path))
            raw.sendall(octets)
            answer = raw.makefile("rb").readline()
            assert b'"malformed"' in answer
        with AdminClient(path) as client:
            assert client.status().member == "member-1"


def test_connections_are_limited(path: Path) -> None:
    with serving(member({}), path):
        held = []
        for _ in range(CONNECTIONS_MAX):
            client = AdminClient(path)
            client.status()
            held.append(client)
        assert code_of(AdminClient(path).status) is Code.BUSY
        for client in held:
            client.close()


def test_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_server, "_may_steer", lambda uid: False)
    with serving(member({}), path):
        assert code_of(AdminClient(path).status) is Code.NOT_AUTHORISED


def test_who_may_steer() -> None:
    assert edge_server._may_steer(os.getuid()) and edge_server._may_steer(0)
    assert not edge_server._may_steer(os.getuid() + 1)


def test_an_answer_without_end_is_cut(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_client, "ANSWER_OCTETS_MAX", 1_000)
    big = member({})
    big.state.warnings.extend(["x" * 100] * 20)
    with serving(big, path):
        assert code_of(AdminClient(path).status) is Code.MALFORMED
