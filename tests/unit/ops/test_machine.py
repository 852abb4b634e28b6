"""Refusals of a machine: each is one message with a next step, whatever the system said."""

from __future__ import annotations

import errno
import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from ops import machine
from ops.config import Address, Limits, load_config
from ops.machine import FolderLock, check_ports, prepare_folder, raise_open_files
from replica.model.errors import Code, ZaibeiError

LIMITS = Limits(
    memory_mb=64,
    open_files=128,
    journal_keep_mb=64,
    disk_reserve_mb=16,
    scrub_days=0,
    scrub_mb_s=1,
    connections_max=16,
    feed_streams_max=1,
)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, Code.DISK_FULL),
        (errno.EDQUOT, Code.DISK_FULL),
        (errno.EACCES, Code.NOT_AUTHORISED),
        (errno.EROFS, Code.NOT_AUTHORISED),
        (errno.ENOTDIR, Code.INVALID_CONFIG),
    ],
)
def test_a_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: Code) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(machine.os, "open", refuse)
    with pytest.raises(ZaibeiError, match=r"Next: ") as caught:
        prepare_folder(tmp_path / "d")
    assert caught.value.code is code and str(tmp_path / "d") in str(caught.value)


def test_the_lock(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "lock")
    assert lock.is_free()
    lock.take()
    assert not lock.is_free()
    with pytest.raises(ZaibeiError, match=f"process {os.getpid()} already runs") as caught:
        FolderLock(tmp_path / "lock").take()
    assert caught.value.code is Code.CONFLICT
    lock.release()
    assert lock.is_free()
    FolderLock(tmp_path / "lock").take()


@pytest.mark.parametrize(
    ("soft", "hard", "set_to", "note"),
    [
        (256, 10_000, (400, 10_000), ""),
        (256, 390, (390, 390), "6 client connections"),
        (5_000, 10_000, None, ""),
        (256, resource.RLIM_INFINITY, (400, resource.RLIM_INFINITY), ""),
    ],
)
def test_open_files(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, set_to: tuple[int, int] | None, note: str) -> None:
    done: list[tuple[int, int]] = []
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(machine.resource, "setrlimit", lambda which, both: done.append(both))
    said = raise_open_files(LIMITS)
    assert done == ([set_to] if set_to else [])
    assert note in said and bool(said) == bool(note)


def test_too_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.resource, "getrlimit", lambda which: (200, 200))
    with pytest.raises(ZaibeiError, match="LimitNOFILE") as caught:
        raise_open_files(LIMITS)
    assert caught.value.code is Code.INVALID_CONFIG


def test_fronts_that_outlive_their_owner_do_not_block_its_return() -> None:
    """A front bound with SO_REUSEPORT still serves; the owner that comes back shares with it, a stranger's port stays taken."""
    import socket

    listen = load_config(environment={}).config.listen
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as front:
        front.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        front.bind(("::1", 0))
        front.listen()
        address = Address("::1", front.getsockname()[1])
        apart = replace(listen, handle=(), http=(address,), grpc=(), feed=(), beats=(), metrics=(), registration=())
        check_ports(replace(apart, fronts=2))
        with pytest.raises(ZaibeiError, match="in use"):
            check_ports(apart)
        with pytest.raises(ZaibeiError, match="in use"):
            check_ports(replace(apart, http=(), feed=(address,), fronts=2))
