"""Faults of processes, by their ids: killed, frozen; healed by starting them again or letting them run on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

from chaos.faults.fault import Fault, FaultLog

GONE_S_MAX = 10.0
LOOK_EVERY_S = 0.005


def frozen(pid: int, log: FaultLog | None = None) -> Fault:
    """SIGSTOP, waited for until it stands still; healed by SIGCONT. A process that died meanwhile stays dead."""

    async def begin() -> None:
        os.kill(pid, signal.SIGSTOP)
        for _ in range(int(GONE_S_MAX / LOOK_EVERY_S)):
            if all(state in ("T", "t", "Z", "X") for state in thread_states(pid)):
                return
            await asyncio.sleep(LOOK_EVERY_S)
        raise TimeoutError(f"process {pid} does not stop")

    async def heal() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    return Fault(f"frozen {pid}", begin, heal, log)


def killed(pids: Iterable[int], restart: Callable[[], Awaitable[None]], log: FaultLog | None = None) -> Fault:
    """SIGKILL of all of them as close together as a loop can, and wait until they are gone; healed by `restart`."""
    chosen = list(pids)

    async def begin() -> None:
        for pid in chosen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in chosen:
            await gone(pid)

    return Fault(f"killed {chosen}", begin, restart, log)


async def gone(pid: int, seconds: float = GONE_S_MAX) -> None:
    """Wait until a process runs no more (a zombie that nobody waited for counts as gone).

    Raises:
        TimeoutError: it still runs.
    """
    for _ in range(int(seconds / LOOK_EVERY_S)):
        if not runs(pid):
            return
        await asyncio.sleep(LOOK_EVERY_S)
    raise TimeoutError(f"process {pid} still runs after {seconds} s")


def runs(pid: int) -> bool:
    """True while a process exists and is no zombie."""
    state = _state(Path(f"/proc/{pid}/stat"))
    return state not in ("", "Z", "X")


def thread_states(pid: int) -> list[str]:
    """One letter a thread, as the kernel tells them; [] when there is no such process."""
    return [state for path in Path(f"/proc/{pid}/task").glob("*/stat") if (state := _state(path))]


def _state(path: Path) -> str:
    try:
        return path.read_text(encoding="latin-1").rpartition(")")[2].split()[0]
    except OSError:
        return ""
