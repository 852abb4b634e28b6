"""The act of a snapshot that breaks off again and again: before its header, before each chunk, before its end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from chaos.faults import edge_image
from chaos.faults.fault import Fault
from chaos.scenarios.scenario import Act, Step
from chaos.standin.registries import URL
from replica.model.errors import ZaibeiError
from replica.model.position import Position

if TYPE_CHECKING:
    from ops.drills.acts import Acts

PAD_OCTETS, PADDED, TIMES = 200_000, 30, 4  # 24 MB: more than a segment of the source's log, which it then lets go of
BIG = 5  # records that stay so long in the end: a chunk of the snapshot holds one of them
PIECES_MIN = BIG + 2  # header, chunks, end
AGAIN_S_MAX = 20.0  # until it begins anew, processes that start included
MEMBER_DIES_AT, NODE_DIES_AT = 2, 4  # before these pieces; at all others the links are reset
LOOK_S = 0.05

Acting = Callable[[Step], AbstractAsyncContextManager[None]]


def acts_of(acts: Acts) -> dict[Act, Acting]:
    """The acts of this file."""
    return {Act.SNAPSHOT_INTERRUPTED: lambda _: _snapshot_interrupted(acts)}


@asynccontextmanager
async def _snapshot_interrupted(acts: Acts) -> AsyncIterator[None]:
    """Our disk is of earlier, the source let go of what came since: a snapshot is needed, and waits at each piece to be hit."""
    stage, image = acts.stage, acts.stage.folder / "our-image"
    source, folder = stage.sources[0], stage.folder / "member"
    await asyncio.to_thread(edge_image.take, folder, image, stage.pid("member"))
    taken = Position.parse((await stage.rows())[source].position).place
    for turn in range(TIMES + 1):
        last = turn == TIMES
        await stage.ask(do="put", node=source, first=0, count=BIG, text=f"v{turn + 2}", pad=PAD_OCTETS)
        await stage.ask(do="put", node=source, first=BIG, count=PADDED - BIG, text=f"v{turn + 2}", pad=0 if last else PAD_OCTETS)
    await acts.settled()
    row = (await stage.rows())[source]
    await acts.receipted({source: Position.parse(row.position).place})
    generation = row.detail.get("generation", 0)

    async def begin() -> None:
        os.kill(stage.pid("member"), signal.SIGKILL)
        await stage.gone("member")
        await _restart_nodes(acts, 0)
        await acts.said(lambda status: Position.parse(status["floor"]).place > taken)
        await asyncio.to_thread(edge_image.put_back, image, folder)
        await stage.start("member")

    async def heal() -> None:
        with suppress(ZaibeiError):
            await stage.ask(do="gate", node=source, at=None)
            await stage.ask(do="put", node=source, first=0, count=BIG, text=f"v{TIMES + 3}")  # as long as others again
        await asyncio.to_thread(shutil.rmtree, image, True)

    async with Fault("a snapshot breaks off at every piece", begin, heal, acts.log):
        hit, slowest_s = await _hit_each(acts, source)
        whole = await _gated(acts, source)
        acts.fact("interrupted at every piece", len(hit) >= PIECES_MIN or None, f"before piece {hit}; header, chunks, end")
        acts.fact("it begins again by itself", bool(whole["whole"]), f"the slowest time after {slowest_s:.1f} s; {whole}")
        await acts.until(lambda row: row.detail.get("generation", 0) != generation)
        now = (await stage.rows())[source].detail.get("generation", 0)
        acts.fact("loaded by snapshot", now != generation, f"generation before {generation}, after {now}")
        await _look(acts, source)
        yield


async def _hit_each(acts: Acts, source: str) -> tuple[list[int], float]:
    """Interrupt it before piece 0, 1, 2 …, until one went through; pieces that were hit, and the longest wait in seconds."""
    stage, hit, slowest_s, number, begun = acts.stage, list[int](), 0.0, 0, 0
    while True:
        since = time.monotonic()
        there = await _waits(acts, source, begun)
        slowest_s = max(slowest_s, time.monotonic() - since)
        if there is None:
            return hit, slowest_s
        await _look(acts, source)
        hit.append(number)
        begun = there
        if number == MEMBER_DIES_AT:
            os.kill(stage.pid("member"), signal.SIGKILL)
            await stage.gone("member")
            await stage.start("member")
        elif number == NODE_DIES_AT:
            await _restart_nodes(acts, number + 1)
            begun = 0
        else:
            stage.push.reset()
        await _again(acts, source, begun)
        await stage.ask(do="gate", node=source, at=number + 1)
        number += 1


async def _restart_nodes(acts: Acts, gate_at: int) -> None:
    await acts.kill_nodes()
    acts.stage.write_nodes(acts.stage.site(), gate_at=gate_at)
    await acts.stage.start("nodes")


async def _gated(acts: Acts, source: str) -> dict[str, Any]:
    return await acts.stage.ask(do="gated", node=source)


async def _waits(acts: Acts, source: str, behind: int) -> int | None:
    """Until a snapshot newer than that one waits at the gate: its number. None: one went through, or none came in time."""
    until = time.monotonic() + AGAIN_S_MAX
    while time.monotonic() < until:
        row = await _gated(acts, source)
        if row["whole"]:
            return None
        if row["held"] and row["begun"] > behind:
            return int(row["begun"])
        await asyncio.sleep(LOOK_S)
    return None


async def _again(acts: Acts, source: str, behind: int) -> None:
    """Until a newer one was asked for, or the time is over: the one that was interrupted must not go on through an open gate."""
    until = time.monotonic() + AGAIN_S_MAX
    while time.monotonic() < until and (await _gated(acts, source))["begun"] <= behind:  # noqa: ASYNC110 - of another process
        await asyncio.sleep(LOOK_S)


async def _look(acts: Acts, source: str) -> None:
    """All rewritten names are of one and the same content, whichever; or none is answered."""
    prefix = acts.stage.prefix_of[source]
    answers = await acts.ask_us([f"{prefix}/N-{number}" for number in range(PADDED)])
    texts = {_text(reply) for reply in answers.values()}
    acts.fact(
        "nothing is half-served", len(texts) == 1, f"all of {PADDED} rewritten names were of one content at each look: {texts}"
    )


def _text(reply: Any) -> str:
    if reply is None:
        return "no answer"
    urls = [value.data.decode() for value in reply.values if value.type == b"URL"]
    return urls[0].removeprefix(URL).rpartition("/")[2] if urls else f"code {reply.code}"
