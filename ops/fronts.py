"""Answering processes beside the member (`fronts = N`): started, taken over, watched, ended. They outlive the member.

A member that was killed leaves its fronts behind; they answer "cannot say" (code 2) until another member opens the stores. That
one takes over those that are the same program with the same addresses, and replaces the others: addresses are shared, so the
new ones listen before the old ones end.

    DATA/fronts/MARK-N.json   what front N listens on and where its owner is; MARK: of that and of the program's version
    DATA/fronts/MARK-N.lock   held by that front as long as it lives; says its process
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from replica.model.errors import Code, ZaibeiError

FOLDER = "fronts"
SOCKET_FILE = "answers.sock"
SOCKET_PATH_OCTETS_MAX = 107  # the kernel's limit
READY_S_MAX = 15.0
END_S_MAX = 2.0
WATCH_S = 0.2
AGAIN_S = 1.0  # between two starts of a front that keeps ending
POLL_S = 0.02
HOLDER_OCTETS_MAX = 256

log = logging.getLogger("zaibei.ops")


@dataclass(slots=True)
class FrontPlace:
    """One front's place: its file, its lock, and its process where this one started it."""

    file: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def lock(self) -> Path:
        return self.file.with_suffix(".lock")

    def holder(self) -> int | None:
        """Process that holds the lock; None: nobody does."""
        try:
            handle = os.open(self.lock, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(ValueError, KeyError, TypeError):  # it has just begun and says its number in a moment
                return int(json.loads(os.pread(handle, HOLDER_OCTETS_MAX, 0))["pid"])
            return 0
        finally:
            os.close(handle)
        return None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None if self.process is not None else self.holder() is not None

    def end(self) -> None:
        """Tell it to end, and end it hard when it does not. Blocks."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + END_S_MAX
            while self.alive and time.monotonic() < until:
                pid = self.process.pid if self.process is not None else self.holder()
                if pid:
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(POLL_S)
        for path in (self.lock, self.file):
            path.unlink(missing_ok=True)


def left_behind(data: Path) -> list[FrontPlace]:
    """Every front that lives in this data folder, whoever started it."""
    places = [FrontPlace(path.with_suffix(".json")) for path in sorted((data / FOLDER).glob("*.lock"))]
    return [place for place in places if place.alive]


def end_left_behind(data: Path) -> None:
    """For a member that answers from its own process: fronts of an earlier one would hold its addresses. Blocks."""
    for place in left_behind(data):
        log.warning("a front of an earlier start is ended", extra={"fields": {"front": place.file.stem}})
        place.end()


class FrontProcesses:
    """N fronts with one configuration.

    Args:
        data: the member's folder.
        given: what each front serves, as `python -m hosting.front` reads it, without socket, lock and metrics.
        metrics: addresses of the member's own metrics; front N answers at the port N + 1 above.
    """

    def __init__(self, data: Path, count: int, given: Mapping[str, Any], metrics: Sequence[tuple[str, int]] = ()) -> None:
        self.socket = data / SOCKET_FILE
        if len(os.fsencode(self.socket)) > SOCKET_PATH_OCTETS_MAX:
            raise ZaibeiError(
                Code.INVALID_CONFIG,
                f"the path {self.socket} is longer than {SOCKET_PATH_OCTETS_MAX} octets, which fronts cannot connect to. "
                "Next: name a shorter folder with --data or [member] data, or set fronts = 0",
            )
        self._data, self._given = data, {"socket": str(self.socket), **given}
        self._metrics = [(host, port) for host, port in metrics if port]
        text = json.dumps([version("zaibei"), sys.executable, self._given, self._metrics], sort_keys=True)
        mark = sha256(text.encode()).hexdigest()[:12]
        self.places = [FrontPlace(data / FOLDER / f"{mark}-{number}.json") for number in range(count)]
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take over what fits, start what is missing, end what does not fit.

        Raises:
            ZaibeiError(UNREACHABLE): a front did not start.
        """
        (self._data / FOLDER).mkdir(mode=0o700, exist_ok=True)
        ours = {place.file for place in self.places}
        old = [place for place in await asyncio.to_thread(left_behind, self._data) if place.file not in ours]
        for number, place in enumerate(self.places):
            if place.alive:
                log.info("a front of an earlier start goes on", extra={"fields": {"front": number, "pid": place.holder()}})
            elif not await asyncio.to_thread(self._launch, place):
                raise ZaibeiError(Code.UNREACHABLE, f"front {number} did not start: see its message above")
        for place in old:
            await asyncio.to_thread(place.end)
        self._watcher = asyncio.create_task(self._watch(), name="watch fronts")

    async def stop(self) -> None:
        """End all of them: who stops a member in order wants its addresses back."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await asyncio.gather(*(asyncio.to_thread(place.end) for place in self.places))

    def _launch(self, place: FrontPlace) -> bool:
        """Start one and wait until it listens, or found its place taken by one that lives."""
        above = self.places.index(place) + 1
        own = {"lock": str(place.lock), "metrics": [(host, port + above) for host, port in self._metrics]}
        place.file.write_text(json.dumps({**self._given, **own}), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "hosting.front", str(place.file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is the member's: it ends its fronts in order
        )
        assert process.stdout is not None
        timer = threading.Timer(READY_S_MAX, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        process.stdout.close()
        if line:
            place.process = process
            return True
        process.kill()
        process.wait()
        return place.holder() is not None

    async def _watch(self) -> None:
        """A front that ended is started again: the others share its addresses meanwhile."""
        while True:
            await asyncio.sleep(WATCH_S)
            for number, place in enumerate(self.places):
                if place.alive:
                    continue
                place.process = None
                log.error("a front ended and is started again", extra={"fields": {"front": number}})
                why = await self._again(place)
                if why:
                    log.error("a front did not start", extra={"fields": {"front": number, "again_s": AGAIN_S, "why": why}})
                    await asyncio.sleep(AGAIN_S)

    async def _again(self, place: FrontPlace) -> str:
        """Why it could not be started; empty: it was. Who stops meanwhile waits for it, or it would go on with our addresses."""
        launch = asyncio.ensure_future(asyncio.to_thread(self._launch, place))
        try:
            return "" if await asyncio.shield(launch) else "see its message above"
        except asyncio.CancelledError:
            await asyncio.gather(launch, return_exceptions=True)
            raise
        except OSError as exc:  # a full disk, no process more: it passes
            return str(exc)
