"""The act of a real incident during a drill: for the inner drill this stage is the real thing, and stands beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.drills.abort import ABORT_MS_MAX
from chaos.drills.outside import NS_PER_MS, Lost, first_seen
from chaos.faults.fault import Fault
from chaos.scenarios.scenario import Act, Step
from chaos.standin.tally import last_answer_ns
from replica.model.errors import Code, ZaibeiError

if TYPE_CHECKING:
    from ops.drills.acts import Acts

INNER = "s11-flapping"  # its fault lasts long
BROKEN_S_MAX, ENDED_S_MAX, TAKEN_S_MAX = 90.0, 15.0, 20.0  # until its fault is on; until it has ended; until we took over
SOUND_S = 1.0  # of its fault before the incident
NICE = "5"  # it shares two cores with what is real here

Acting = Callable[[Step], AbstractAsyncContextManager[None]]


def acts_of(acts: Acts) -> dict[Act, Acting]:
    """The acts of this file."""
    return {Act.INCIDENT_DURING_DRILL: lambda _: _incident_during_drill(acts)}


@asynccontextmanager
async def _incident_during_drill(acts: Acts) -> AsyncIterator[None]:
    stage, evidence = acts.stage, acts.stage.folder / "inner-evidence"
    inner = await _begun(acts, evidence)
    wall_ns = time.time_ns() - time.monotonic_ns()

    async def begin() -> None:
        os.kill(stage.pid("nodes"), signal.SIGKILL)
        acts.outside.lost.append(Lost(time.monotonic_ns(), tuple(stage.sources), last_answer_ns(stage.tally)))
        await stage.gone("nodes")

    async def heal() -> None:
        await acts.count_source_lost()
        await stage.start("nodes")

    try:
        async with Fault("the real nodes SIGKILLed while a drill runs", begin, heal, acts.log):
            killed_ns = acts.outside.lost[-1].at_ns
            by_itself = await _ended(inner)
            await acts.until(lambda row: row.authority != "SOURCE", TAKEN_S_MAX)
            await asyncio.sleep(2 * stage.look_s)  # the drill's own looks have it too
            _judge(acts, evidence, killed_ns, wall_ns, by_itself)
            left = _of_session(inner.pid)
            acts.fact("nothing of it stays", by_itself and not left, f"ended by itself: {by_itself}; processes left: {left}")
            yield
    finally:
        await _end(inner)


async def _begun(acts: Acts, evidence: Path) -> Process:
    """A drill that watches the member of this stage, with its fault on. Raises ZaibeiError(UNREACHABLE)."""
    config = str(acts.stage.folder / "member.toml")
    words = ["drill", "run", INNER, "--yes", "--evidence", str(evidence), "--config", config]
    inner = await asyncio.create_subprocess_exec(
        "nice", "-n", NICE, sys.executable, "-m", *acts.stage.program(), *words, cwd=acts.stage.folder,
        stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True,
    )  # fmt: skip
    assert inner.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(BROKEN_S_MAX):
            while b"fault:" not in said:
                if not (line := await inner.stdout.readline()):
                    break
                said += line
    except BaseException:
        await _end(inner)
        raise
    if b"fault:" not in said:
        raise ZaibeiError(Code.UNREACHABLE, f"the inner drill did not begin: {said.decode('utf-8', 'replace')[-600:]}")
    await asyncio.sleep(SOUND_S)
    if inner.returncode is not None:
        raise ZaibeiError(Code.UNREACHABLE, "the inner drill ended before there was an incident")
    return inner


async def _ended(inner: Process) -> bool:
    """It ended by itself in time."""
    assert inner.stdout is not None
    with suppress(TimeoutError):
        async with asyncio.timeout(ENDED_S_MAX):
            await inner.stdout.read()
            await inner.wait()
    return inner.returncode is not None


async def _end(inner: Process) -> None:
    """Told as by Ctrl-C, so that it heals; it is our own child."""
    if inner.returncode is None:
        with suppress(ProcessLookupError):
            inner.send_signal(signal.SIGTERM)
        if not await _ended(inner):
            inner.kill()
            await inner.wait()


def _judge(acts: Acts, evidence: Path, killed_ns: int, wall_ns: int, by_itself: bool) -> None:
    """By its bundle: when it began to heal, by the same wall clock, and what it says of it."""
    lines = _bundle(evidence) if by_itself else []
    began_ms = next((int(one["began_ms"]) for one in lines if one["kind"] == "drill"), None)
    healed = [int(one["at_us"]) for one in lines if one["kind"] == "fault" and one["state"] == "healed"]
    told = first_seen(acts.outside.seen, acts.stage.sources[0], killed_ns, {"authority": ("RESOLUTION",)})
    held, said = (False if not by_itself else None), f"ended by itself: {by_itself}, in its bundle {len(lines)} lines"
    if began_ms is not None and healed and told is not None:
        heal_ms = began_ms + min(healed) / 1_000
        since_told, since_kill = (heal_ms - (at_ns + wall_ns) / NS_PER_MS for at_ns in (told.at_ns, killed_ns))
        held = since_told <= ABORT_MS_MAX
        said = (
            f"its fault was healed {since_told:.0f} ms after the member said that it takes over, {since_kill:.0f} after the kill"
        )
    acts.fact("the drill stops within 1 s", held, said)
    whys = [str(one["why"]) for one in lines if one["kind"] == "finding" and "aborted" in str(one["why"])]
    acts.fact("it says why", any("a real incident" in one for one in whys), f"{whys}")


def _bundle(evidence: Path) -> list[dict[str, Any]]:
    found = sorted(evidence.glob("*.jsonl"))
    return [json.loads(line) for line in found[-1].read_bytes().splitlines()] if found else []


def _of_session(leader: int) -> list[int]:
    """Processes of the session that this one began."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError, ValueError):
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader:
                    found.append(int(path.name))
    return found
