"""When a stand-in node last answered right: a judge must know that the node itself was answering before it was killed."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

from chaos.standin.given import Given
from replica.model.handle.answers import Peeked
from replica.model.handle.codes import ResponseCode

WRITE_S = 0.02
_ROW = struct.Struct(">QQ")


class Tally:
    """Counts right answers; writes (count, CLOCK_MONOTONIC ns of the newest) to a file while there are new ones."""

    def __init__(self, path: Path, answer: Callable[[Peeked], Given]) -> None:
        self._path, self._answer = path, answer
        self._count = self._at_ns = self._written = 0

    def answer(self, asked: Peeked) -> Given:
        given = self._answer(asked)
        if given.code in (ResponseCode.SUCCESS, ResponseCode.SERVICE_REFERRAL):
            self._count += 1
            self._at_ns = time.monotonic_ns()
        return given

    async def write_for_ever(self) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            while True:
                if self._count != self._written:
                    self._written = self._count
                    os.pwrite(file, _ROW.pack(self._count, self._at_ns), 0)  # in place: a reader never meets an empty file
                await asyncio.sleep(WRITE_S)
        finally:
            os.close(file)


def last_answer_ns(path: Path) -> int | None:
    """When the node last answered right; None: never, as far as its file says."""
    try:
        octets = path.read_bytes()
    except FileNotFoundError:
        return None
    return int(_ROW.unpack(octets)[1]) if len(octets) == _ROW.size else None
