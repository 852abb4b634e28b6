"""A file that is being read for somebody who is gone: the thread reads that very file to the end, and nothing stays open."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from replica.model.transfer import FileLine
from replica.transfer.edge_pace import Pace
from replica.transfer.edge_send import ServeLimits, Serving

OCTETS = b"0123456789" * 1_000
WAIT_S = 10
NOBODY: Any = None


def open_numbers(path: Path) -> list[str]:
    """Of this process, for that file."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found += [number] if os.readlink(f"/proc/self/fd/{number}") == str(path) else []
        except FileNotFoundError:
            continue  # of the listing itself
    return found


@pytest.mark.parametrize("within", ["open", "pread"])
async def test_a_file_is_not_closed_under_the_thread_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    """Its number would be another file's by then; and one that was opened for nobody would stay open for good."""
    path = tmp_path / "000001.sst"
    path.write_bytes(OCTETS)
    line = FileLine(path.name, len(OCTETS), sha256(OCTETS).hexdigest())
    began, goes_on, read = threading.Event(), threading.Event(), list[bytes]()
    real_open, real_pread = os.open, os.pread

    def waits() -> None:
        began.set()
        assert goes_on.wait(WAIT_S)

    def opens(what: Any, *words: Any, **options: Any) -> int:
        if within == "open" and str(what) == str(path):
            waits()
        return real_open(what, *words, **options)

    def reads(handle: int, octets: int, offset: int) -> bytes:
        if within == "pread":
            waits()
        read.append(real_pread(handle, octets, offset))
        return read[-1]

    monkeypatch.setattr(os, "open", opens)
    monkeypatch.setattr(os, "pread", reads)
    with ThreadPoolExecutor(1) as threads:
        server: Any = SimpleNamespace(limits=ServeLimits(), metrics=None, pace=Pace(), threads=threads)
        serving = Serving(server, NOBODY)
        serving._set = SimpleNamespace(held=SimpleNamespace(folder=tmp_path))  # type: ignore[assignment]
        sending = asyncio.ensure_future(serving._send(line, 0))
        assert await asyncio.to_thread(began.wait, WAIT_S)
        sending.cancel()
        await asyncio.wait({sending})
        goes_on.set()
    assert read == [OCTETS]
    assert open_numbers(path) == []
